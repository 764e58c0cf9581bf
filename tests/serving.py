"""A real server on a loopback port of this process, over a home in memory, and its clients."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from letta_client import Letta

from agentos.dispatch import Dispatcher
from agentos.protocols import LLM
from agentos.server.app import create_app
from agentos.server.serve import listening
from agentos.server.service import Service
from agentos.testing import FunctionLLM, temporary_runtime

TOKEN = "a token for tests"


@dataclass
class Served:
    """A running server; its loop runs in a thread of its own, so that blocking clients can ask it."""

    url: str
    service: Service
    loop: asyncio.AbstractEventLoop
    letta: Letta
    """Letta's own client, which asks once and does not retry."""
    http: httpx.Client
    """For what that client cannot send."""

    @property
    def llm(self) -> Any:
        """The model of every agent."""
        return self.service.runtime.llm()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The value of a coroutine, run where the server runs."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def read(self, work: Callable[[Any], Any]) -> Any:
        """What `work` finds in the database."""

        async def reading() -> Any:
            return await self.service.store.read(work)

        return self.run(reading())


@contextmanager
def served(llm: LLM | None = None, **options: Any) -> Iterator[Served]:
    """Serve a home in memory; `options` are those of `temporary_runtime`. Its model says "ok" unless one is given."""
    begun: Future[tuple[uvicorn.Server, Served]] = Future()
    thread = threading.Thread(
        target=asyncio.run, args=(_serve(llm or FunctionLLM(lambda request: "ok"), options, begun),)
    )
    thread.start()
    server, home = begun.result(30)
    try:
        with closing(home.letta), home.http:
            yield home
    finally:
        server.should_exit = True
        thread.join(30)


async def _serve(llm: LLM, options: dict[str, Any], begun: "Future[tuple[uvicorn.Server, Served]]") -> None:
    try:
        async with temporary_runtime(llm, **options) as runtime:
            service = Service(runtime, Dispatcher(runtime), TOKEN)
            config = uvicorn.Config(
                create_app(service), log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1
            )
            server = uvicorn.Server(config)
            with closing(listening("127.0.0.1", 0)) as sock:
                url = f"http://127.0.0.1:{sock.getsockname()[1]}"
                await service.dispatcher.start()
                http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False)
                letta = Letta(base_url=url, api_key=TOKEN, max_retries=0)
                begun.set_result((server, Served(url, service, asyncio.get_running_loop(), letta, http)))
                await server.serve(sockets=[sock])
                await service.dispatcher.stop(5)
    except BaseException as error:
        if begun.done():
            raise
        begun.set_exception(error)
