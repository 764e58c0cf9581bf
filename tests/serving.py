"""A real server on a loopback port: in this process over a home in memory, or as `agentos serve`; and its clients."""

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from letta_client import Letta

from agentos.dispatch import Dispatcher
from agentos.protocols import LLM
from agentos.server.serve import listening, web_server
from agentos.server.service import Service
from agentos.testing import FunctionLLM, temporary_runtime
from forks import Forked, Forks

TOKEN = "token-of-the-tests"


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
    web: uvicorn.Server

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

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

    def create(self, name: str, **values: Any) -> str:
        """A new agent's id."""
        return str(self.run(self.service.runtime.create_agent(name, **values)).id)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        """`ask` of this server."""
        return ask(self.url, method, path, body, **headers)

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
def served(
    llm: LLM | None = None, *, most_waiting: tuple[int, int] = (100, 10_000), **options: Any
) -> Iterator[Served]:
    """Serve a home in memory; `options` are those of `temporary_runtime`. Its model says "ok" unless one is given."""
    begun: Future[tuple[uvicorn.Server, Served]] = Future()
    thread = threading.Thread(
        target=asyncio.run, args=(_serve(llm or FunctionLLM(lambda request: "ok"), most_waiting, options, begun),)
    )
    thread.start()
    server, home = begun.result(30)
    try:
        with closing(home.letta), home.http:
            yield home
    finally:
        server.should_exit = True
        thread.join(30)


async def _serve(
    llm: LLM, most_waiting: tuple[int, int], options: dict[str, Any], begun: "Future[tuple[uvicorn.Server, Served]]"
) -> None:
    try:
        async with temporary_runtime(llm, **options) as runtime:
            service = Service(runtime, Dispatcher(runtime, most_waiting=most_waiting), TOKEN)
            server = web_server(service)
            with closing(listening("127.0.0.1", 0)) as sock:
                url = f"http://127.0.0.1:{sock.getsockname()[1]}"
                await service.dispatcher.start()
                http = httpx.Client(
                    base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30, trust_env=False
                )
                letta = Letta(base_url=url, api_key=TOKEN, max_retries=0)
                begun.set_result((server, Served(url, service, asyncio.get_running_loop(), letta, http, server)))
                await server.serve(sockets=[sock])
                await service.dispatcher.stop(1.0)
    except BaseException as error:
        if begun.done():
            raise
        begun.set_exception(error)


class Process:
    """`agentos serve` in a process of its own, by a fork where there are `forks`; its log is a file."""

    def __init__(self, home: Path, *args: str, forks: Forks | None = None, **env: str) -> None:
        environment = {
            **os.environ, "AGENTOS_HOME": str(home), "AGENTOS_MODEL": "offline", "AGENTOS_TOKEN": TOKEN, **env,
        }  # fmt: skip
        command = ["serve", "--port", "0", *args]
        self.log = home.parent / f"log-{time.monotonic_ns()}"
        self.process: subprocess.Popen[str] | Forked
        if forks is None:
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "agentos", *command], stdout=subprocess.PIPE, stderr=log, env=environment,
                    cwd=home.parent, text=True,
                )  # fmt: skip
            assert self.process.stdout is not None
            self.stdout = self.process.stdout
        else:
            pipe = self.log.with_suffix(".out")
            os.mkfifo(pipe)
            self.process = forks.start(command, environment, home.parent, (os.devnull, pipe, self.log))
            self.stdout = pipe.open()
        self.first = self.stdout.readline()
        assert " at http://" in self.first, self.errors
        self.url = self.first.rsplit(" ", 1)[1].strip()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.signalled(signal.SIGKILL)
        self.stdout.close()

    @property
    def errors(self) -> str:
        return self.log.read_text()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """(status, JSON value or text): `ask` of this server."""
        return ask(self.url, method, path, body, **headers)[:2]

    def signalled(self, number: int) -> int:
        """The exit code after a signal."""
        self.process.send_signal(number)
        return self.process.wait()

    def lines(self) -> list[dict[str, Any]]:
        """The log, which is JSON throughout."""
        # where the disk was full, a line that broke off stands in front of the next
        return [json.loads(line[line.rfind('{"event"') :]) for line in self.errors.splitlines()]


def model_at(url: str) -> dict[str, str]:
    """The environment of a process whose model is the fake one at `url`."""
    return {"AGENTOS_MODEL": "openai/fake-model", "AGENTOS_API_BASE": url, "AGENTOS_API_KEY": "none-is-needed"}


def ask(url: str, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
    """(status, JSON value or text, headers in lower case) of a request with the token; `a_b` is header `a-b`.

    By a client that tidies nothing up.
    """
    given = {"authorization": f"Bearer {TOKEN}"} | {k.replace("_", "-"): v for k, v in headers.items()}
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    if data is not None:
        given.setdefault("content-type", "application/json")
    with closing(http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)) as connection:
        connection.request(method, path, data, given)
        response = connection.getresponse()
        text = response.read().decode()
    value = json.loads(text) if "json" in (response.getheader("content-type") or "") and text else text
    return response.status, value, {k.lower(): v for k, v in response.getheaders()}


def free_port() -> str:
    """The number of a loopback port that nobody listens at."""
    with closing(socket.create_server(("127.0.0.1", 0))) as sock:
        return str(sock.getsockname()[1])


def until(holds: Callable[[], Any], what: str = "it never came to hold") -> Any:
    """The value of `holds` once it is true."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if value := holds():
            return value
        time.sleep(0.02)
    raise AssertionError(what)
