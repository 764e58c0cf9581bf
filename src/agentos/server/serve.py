"""The process: one server for a home, from its first answer to its orderly end."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from filelock import FileLock, Timeout

from agentos.dispatch import Dispatcher
from agentos.errors import ConfigError, StoreError, UsageError
from agentos.runtime import Runtime
from agentos.server.app import create_app
from agentos.server.service import Service
from agentos.settings import TOKEN_FILE, Settings, home_token

_GRACE_SECONDS = 10.0
"""How long running turns may take to end once the server is told to stop."""
_SHUT_SECONDS = 3
_ADDRESS_FILE, _LOCK_FILE = "server.json", "server.lock"


def server_token(settings: Settings) -> tuple[str, bool]:
    """(the token, whether it was made now): the setting's, else the home's."""
    if token := settings.token or home_token(settings.home):
        return token, False
    path = settings.home / TOKEN_FILE
    token = secrets.token_urlsafe(32)
    part = path.with_suffix(".new")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(f"{token}\n")
    part.replace(path)
    return token, True


def server_address(home: Path) -> str | None:
    """The URL of the server that runs on this home; None when none does."""
    lock = FileLock(home / _LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return _address(home)
    except OSError:
        return None
    lock.release()
    return None


def _address(home: Path) -> str:
    try:
        return str(json.loads((home / _ADDRESS_FILE).read_text("utf-8"))["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return "an address of its own"


@contextmanager
def only_server(home: Path) -> Iterator[None]:
    """Be the home's one server, or raise a `UsageError` with the address of the one there is."""
    lock = FileLock(home / _LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(f"a server for {home} runs at {_address(home)}; use that one, or stop it first") from None
    try:
        yield
    finally:
        (home / _ADDRESS_FILE).unlink(missing_ok=True)
        lock.release()


def listening(host: str, port: int) -> socket.socket:
    """A socket that clients can connect to from now on; `UsageError` where the address cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # asyncio sends small answers at once only where the protocol is named; else each waits 40 ms for an ACK
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except (OSError, OverflowError) as error:
        raise UsageError(f"cannot listen on {host} port {port}: {error}; choose another --host or --port") from None
    sock.listen(2048)
    sock.setblocking(False)
    return sock


class _Server(uvicorn.Server):
    """uvicorn, told to stop by us: its own signal handlers would cut requests off before their turns end."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


async def serve(
    runtime: Runtime, host: str, port: int, *, allowed_hosts: tuple[str, ...] = (), ready: object = None
) -> None:
    """Serve an open home until SIGTERM or SIGINT; `ready` is called with (URL, new token or None)."""
    token, fresh = server_token(runtime.settings)
    if len(token) < 8:
        raise ConfigError("the server's token is too short; use at least 8 characters, or none to have one made")
    sock = listening(host, port)
    address = sock.getsockname()
    name = f"[{host}]" if ":" in host else host
    url = f"http://{name}:{address[1]}"
    service = Service(runtime, Dispatcher(runtime), token)
    service.hosts |= {host.lower(), *(h.lower() for h in allowed_hosts)}
    with only_server(runtime.home), contextlib.closing(sock):
        try:
            (runtime.home / _ADDRESS_FILE).write_text(json.dumps({"url": url, "pid": os.getpid()}), "utf-8")
        except OSError as error:
            raise StoreError(f"{runtime.home} cannot be written: {error.strerror}") from None
        await _run(service, sock, lambda: callable(ready) and ready(url, token if fresh else None))


async def _run(service: Service, sock: socket.socket, started: object) -> None:
    config = uvicorn.Config(
        create_app(service), log_config=None, access_log=False, lifespan="off", server_header=False,
        timeout_graceful_shutdown=_SHUT_SECONDS, timeout_keep_alive=75, h11_max_incomplete_event_size=64 * 1024,
    )  # fmt: skip
    server = _Server(config)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, stop.set)
    await service.dispatcher.start()
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    if callable(started):
        started()
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        service.ready = False
        await service.dispatcher.stop(_GRACE_SECONDS)
        server.should_exit = True
        stopping.cancel()
        await serving
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(sign)
