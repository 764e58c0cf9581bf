"""The process: one server for a home, from its first answer to its orderly end."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from agentos.errors import UsageError
from agentos.runtime import Runtime
from agentos.scale.processes import GRACE_SECONDS, MOST_TURNS, make_dispatcher, told_to_stop
from agentos.server.app import create_app
from agentos.server.place import only_server, server_token, tell_address
from agentos.server.service import Service

_SHUT_SECONDS = 3


def listening(host: str, port: int) -> socket.socket:
    """A socket that clients can connect to from now on; `UsageError` where the address cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # asyncio sends small answers at once only where the protocol is named; else each waits 40 ms for an ACK
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
            sock.listen(2048)
        except BaseException:
            sock.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot listen on {host} port {port}: {why}; choose another --host or --port") from None
    sock.setblocking(False)
    return sock


class _Server(uvicorn.Server):
    """uvicorn, told to stop by us: its own signal handlers would cut requests off before their turns end."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


class _Protocol(H11Protocol):
    """h11, which hangs up on a client that does not finish a request's line and headers in time.

    uvicorn itself waits for them for ever, and ends only connections that are idle between two requests.
    """

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._forget()

    def _await_head(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._forget()
        elif self._late is None:
            service: Service = self.config.app.state.service  # type: ignore[union-attr]  # it is `create_app`'s
            self._late = self.loop.call_later(service.head_seconds, self.transport.close)

    def _forget(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def web_server(service: Service) -> uvicorn.Server:
    """The web server of an open home; it stops once its `should_exit` is set."""
    config = uvicorn.Config(
        create_app(service), log_config=None, access_log=False, lifespan="on", server_header=False, ws="none",
        http=_Protocol,  # h11 is the stricter of uvicorn's two, and always there
        timeout_graceful_shutdown=_SHUT_SECONDS, timeout_keep_alive=75, h11_max_incomplete_event_size=64 * 1024,
    )  # fmt: skip
    return _Server(config)


async def serve(
    runtime: Runtime,
    host: str,
    port: int,
    *,
    allowed_hosts: tuple[str, ...] = (),
    turns: int = MOST_TURNS,
    ready: Callable[[str, str | None], object] = lambda url, token: None,
) -> None:
    """Serve an open home until SIGTERM or SIGINT; `ready` is called with (URL, new token or None).

    `turns` run here at once; 0 leaves them all to workers.
    """
    dispatcher = make_dispatcher(runtime, turns)
    with only_server(runtime.home):
        token, fresh = server_token(runtime.settings)
        with contextlib.closing(listening(host, port)) as sock:
            name = f"[{host}]" if ":" in host else host
            url = f"http://{name}:{sock.getsockname()[1]}"
            service = Service(runtime, dispatcher, token)
            service.allow(host, *allowed_hosts)
            tell_address(runtime.home, url)
            await _run(service, sock, lambda: ready(url, token if fresh else None))


async def _run(service: Service, sock: socket.socket, started: Callable[[], object]) -> None:
    server = web_server(service)
    with told_to_stop() as stop:
        await service.dispatcher.start()
        serving = asyncio.create_task(server.serve(sockets=[sock]))
        started()
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            service.ready = False
            await service.dispatcher.stop(GRACE_SECONDS)
            server.should_exit = True
            stopping.cancel()
            await serving
