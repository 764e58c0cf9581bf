"""A real server in a thread of the test's process: loopback only, its home in memory."""

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from agentos.dispatch import Dispatcher
from agentos.protocols import LLM
from agentos.server.serve import listening, web_server
from agentos.server.service import Service
from agentos.testing import temporary_runtime

TOKEN = "token-of-the-tests"


class Live:
    """A running server, and what its tests ask of it."""

    def __init__(self, service: Service, port: int, loop: asyncio.AbstractEventLoop) -> None:
        self.service, self.port, self.loop = service, port, loop
        self.url = f"http://127.0.0.1:{port}"

    def do(self, work: Any) -> Any:
        """The value of a coroutine, run where the server runs."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def read(self, work: Callable[[Any], Any]) -> Any:
        """What the database says."""

        async def read() -> Any:
            return await self.service.store.read(work)

        return self.do(read())

    def create(self, name: str, **values: Any) -> str:
        """A new agent's id."""
        return str(self.do(self.service.runtime.create_agent(name, **values)).id)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        """(status, JSON value or text, headers in lower case) of a request with the token; `a_b` is header `a-b`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        given = {"authorization": f"Bearer {TOKEN}"} | {k.replace("_", "-"): v for k, v in headers.items()}
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        if data is not None:
            given.setdefault("content-type", "application/json")
        try:
            connection.request(method, path, data, given)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        value = json.loads(text) if "json" in (response.getheader("content-type") or "") and text else text
        return response.status, value, {k.lower(): v for k, v in response.getheaders()}

    def raw(self, request: bytes) -> bytes:
        """What comes back for these very bytes, until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as sock:
            sock.sendall(request)
            answer = b""
            with suppress(ConnectionResetError):  # it closes with bytes of ours unread
                while part := sock.recv(65536):
                    answer += part
        return answer


@contextmanager
def live_server(llm: LLM, *, most_waiting: tuple[int, int] = (100, 10_000), **options: Any) -> Iterator[Live]:
    """A server over a fresh home; `options` are those of `temporary_runtime`."""
    started: list[Any] = []
    up = threading.Event()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        try:
            async with temporary_runtime(llm, **options) as runtime:
                service = Service(runtime, Dispatcher(runtime, most_waiting=most_waiting), TOKEN)
                sock = listening("127.0.0.1", 0)
                server = web_server(service)
                await service.dispatcher.start()
                started.extend([Live(service, sock.getsockname()[1], loop), server])
                serving = asyncio.create_task(server.serve(sockets=[sock]))
                up.set()
                await serving
                await service.dispatcher.stop(1.0)
        except BaseException as error:
            started.append(error)
            raise
        finally:
            up.set()

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="live-server", daemon=True)
    thread.start()
    up.wait(30)
    live, server = started
    try:
        yield live
    finally:
        server.should_exit = True
        thread.join(30)
