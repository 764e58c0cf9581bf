"""Who may ask, from where, and how much: one ASGI layer in front of everything."""

import asyncio
import hmac
import itertools
import logging
import math
import re
import secrets
import time
from collections.abc import Coroutine
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from agentos.errors import AgentOSError, Stopping, StoreError
from agentos.server.inspector.errors import error_page
from agentos.server.inspector.render import SECURITY, wants_page, with_query
from agentos.server.inspector.sessions import Session
from agentos.server.replies import RETRY_AFTER_SECONDS, dumps, problem
from agentos.server.service import HOST, Service, host_name
from agentos.tokens import Grant, find_grant

_Found = TypeVar("_Found")
_log = logging.getLogger("agentos.access")
OPEN = ("/healthz", "/readyz")
"""Paths that need no token, whatever name the server is called by: they tell nothing but whether it runs."""
_SIGN_IN, _STATIC = "/sign-in", "/static/"
"""They need none either, but go through every other check."""
_OF_TOKENS = ("/mcp",)
"""Paths that a token for some agents opens."""
_LARGE = re.compile(r"/v1/agents/(import|[^/]+/archival-memory)")
"""Paths that take whole files and documents."""
_SECURITY = [(name.encode(), value.encode()) for name, value in SECURITY.items()]
_SLASHED = ("/", "/v1/models/")
"""Paths that keep their trailing slash; elsewhere both forms are one."""
_PREFIXES = ("/v1", "/openai/v1", "/agentos/v1")
_READING = ("GET", "HEAD", "OPTIONS")
_EVENTS = b"text/event-stream; charset=utf-8"
_ONCE = (b"host", b"origin", b"authorization", b"content-length", b"idempotency-key", b"cookie", b"x-csrf-token")
"""Headers whose second copy somebody else might read first."""


class _Refused(HTTPException):
    """A refusal; what is raised while a handler reads the body passes through the framework as it is."""


class _SignedOut(Exception):
    """The session whose event stream is open has ended."""


class Access:
    """Checks Host, Origin, token, size and time of a request, and logs and counts it without its text."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service
        self._start, self._numbers = secrets.token_hex(4), itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        if scope["type"] != "http":  # the server's start and end
            return await self._app(scope, receive, send)
        cookie: list[tuple[bytes, bytes]] = []
        started, status, request_id = time.perf_counter(), 0, f"req-{self._start}-{next(self._numbers)}"
        checked = math.inf

        async def answered(message: Message) -> None:
            nonlocal status, checked
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message.setdefault("headers", [])
                headers += [(b"x-request-id", request_id.encode()), *_SECURITY, *cookie]
                if all(key.lower() != b"cache-control" for key, _ in headers):
                    headers.append((b"cache-control", b"no-store"))  # what agents know stays in no browser
                streams = "agentos.session" in scope and (b"content-type", _EVENTS) in headers
                checked = time.monotonic() if streams else math.inf
            elif time.monotonic() - checked >= self._service.keep_alive_seconds:
                checked = time.monotonic()
                if not await self._lasts(scope["agentos.session"]):
                    await send({"type": "http.response.body"})
                    raise _SignedOut
            await send(message)

        path = scope["path"]
        if path.endswith("/") and path not in _SLASHED and path.rstrip("/"):
            scope = {**scope, "path": path.rstrip("/"), "raw_path": b""}
        with bound_contextvars(request_id=request_id):
            try:
                cookie += await self._check(scope)
                await self._app(scope, self._limited(scope, receive), answered)
            except _Refused as refusal:
                await _refuse(refusal, scope, answered)
            except _SignedOut:
                pass  # the page asks again, and is led to the sign-in
            except Exception as error:
                if status and isinstance(error.__cause__, Stopping):
                    return  # an answer that is cut off is asked for again
                _log.exception("request broke off")
                if status:  # the client sees that the answer is not whole
                    raise
                failure = HTTPException(500, "the server failed on this request; its log says why")
                await _refuse(failure, scope, answered)
            finally:
                self._note(scope, status, time.perf_counter() - started)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        """One line in the log and one count: the route's template, never what a client wrote in its place."""
        route = _template(scope)
        agent_id = scope.get("path_params", {}).get("agent_id")
        known = {} if agent_id is None else {"agent_id": agent_id[:80]}
        self._service.metrics.request(scope["method"], route, status, seconds)
        extra = {"method": scope["method"], "route": route, "status": status, "ms": round(1000 * seconds, 1), **known}
        _log.info("request", extra=extra)

    async def _check(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """Headers that the answer takes along."""
        headers: dict[bytes, str] = {}
        for key, value in scope["headers"]:
            if key in headers and key in _ONCE:
                raise _Refused(400, f"the header {key.decode('latin-1')} came twice; send it once")
            headers[key] = value.decode("latin-1")
        if scope["path"] in OPEN:
            return []
        host = headers.get(b"host", "")
        name = host_name(host)
        if name not in self._service.hosts:
            asked = (name or host)[:100]
            raise _Refused(
                403, f"this server is not called {asked!r}; start it with --allow-host NAME to accept that name"
            )
        origin = headers.get(b"origin")
        if origin is not None and not _same_place(origin, host):
            raise _Refused(403, f"requests from pages of {origin[:100]!r} are refused; only this server's own may ask")
        cookie = await self._identify(scope, headers)
        if b"content-length" in headers and b"transfer-encoding" in headers:
            raise _Refused(400, "the request has two lengths, Content-Length and Transfer-Encoding; send one of them")
        length = headers.get(b"content-length", "0").strip()
        if not (length.isascii() and length.isdigit()):
            raise _Refused(400, "Content-Length is no number")
        if len(length) > 15 or int(length) > self._most_bytes(scope):
            raise self._too_large(scope)
        if not self._service.ready and scope["method"] not in _READING:
            raise _Refused(
                503, "the server stops; send it again once it has started",
                {"Retry-After": str(RETRY_AFTER_SECONDS), "Connection": "close"},
            )  # fmt: skip
        return cookie

    async def _identify(self, scope: Scope, headers: dict[bytes, str]) -> list[tuple[bytes, bytes]]:
        """Let in who has a token, or the session of a browser that once had it; that cookie, when it is renewed."""
        path, sessions = scope["path"], self._service.sessions
        scheme, _, token = headers.get(b"authorization", "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else ""
        if hmac.compare_digest(given.encode(), self._service.token.encode()):
            scope["agentos.grant"] = Grant()
            return []
        if b"authorization" in headers:
            scope["agentos.grant"] = await self._granted(given, scope)
            return []
        if path.startswith(_STATIC):
            return []
        session = await self._kept(sessions.read(headers.get(b"cookie", "")))
        if session is None:
            if path == _SIGN_IN:
                return []
            raise _unknown(Request(scope))
        scope["agentos.session"], scope["agentos.grant"] = session, Grant()
        csrf = headers.get(b"x-csrf-token", "").encode()
        if (
            scope["method"] not in _READING
            and path != _SIGN_IN
            and not hmac.compare_digest(csrf, session.csrf.encode())
        ):
            raise _Refused(403, "the change did not come from a page of this session; reload the page and do it again")
        renewed = None if path in (_SIGN_IN, "/sign-out") else sessions.renewed(session)
        if renewed is None:
            return []
        return [(b"set-cookie", sessions.set_cookie(renewed, secure=scope["scheme"] == "https").encode())]

    async def _granted(self, token: str, scope: Scope) -> Grant:
        """What a token for some agents allows."""
        grant = await self._kept(find_grant(self._service.store, self._service.runtime.clock, token))
        if grant is None:
            raise _unknown(Request(scope))
        if scope["path"] not in _OF_TOKENS:
            raise _Refused(403, "this token opens /mcp only; everything else needs the server's own")
        return grant

    async def _lasts(self, session: Session) -> bool:
        """Whether the session of an open stream still holds; while the database is away, nobody can end it."""
        try:
            return await self._service.sessions.good(session)
        except StoreError:
            return True

    async def _kept(self, reading: Coroutine[Any, Any, _Found]) -> _Found:
        """What the database knows of who asks."""
        try:
            return await reading
        except AgentOSError as error:
            raise _Refused(503, str(error), {"Retry-After": str(RETRY_AFTER_SECONDS)}) from None

    def _most_bytes(self, scope: Scope) -> int:
        """How large a body may be here: it is parsed on the event loop, while everybody else waits."""
        large = _LARGE.fullmatch(scope["path"])
        return self._service.max_file_bytes if large else self._service.max_body_bytes

    def _too_large(self, scope: Scope) -> _Refused:
        most = self._most_bytes(scope)
        return _Refused(413, f"the request is larger than {most} bytes; send less at once", {"Connection": "close"})

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """The request's body, as long as it is small and soon enough."""
        read, end = 0, time.monotonic() + self._service.body_seconds
        complete = False

        async def limited() -> Message:
            nonlocal read, complete
            if complete:  # what comes now is the end of the connection
                return await receive()
            try:
                async with asyncio.timeout(max(0.0, end - time.monotonic())):
                    message = await receive()
            except TimeoutError:
                late = "the request's body did not arrive in time; send it again"
                raise _Refused(408, late, {"Connection": "close"}) from None
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if read > self._most_bytes(scope):
                    raise self._too_large(scope)
            return message

        return limited


def _template(scope: Scope) -> str:
    """The path of the route that was taken, as it is declared."""
    path: str | None = getattr(scope.get("route"), "path", None)
    if path is None:
        return "unknown"
    prefix = next((p for p in _PREFIXES if scope["path"].startswith(f"{p}/")), "")
    return path if path.startswith(prefix) else prefix + path  # the framework may leave out a router's prefix


def _same_place(origin: str, host: str) -> bool:
    """Whether a page's origin is the server as the request calls it, also with the scheme's own port left out."""
    ports = {"http": 80, "https": 443}
    try:
        page = urlsplit(origin)
        own = ports[page.scheme]  # `null` has no scheme
        port = page.port or own
    except (ValueError, KeyError):
        return False
    match = HOST.fullmatch(host)
    ours = int(match[2][1:]) if match and match[2] else own
    return (host_name(page.netloc), port) == (host_name(host), ours)


def _unknown(request: Request) -> _Refused:
    """Who asks for a page is led to the sign-in; all others are told what they lack."""
    if request.headers.get("hx-request") == "true":
        return _Refused(401, "you are signed out; copy what you typed, sign in again, then reload this page")
    if request.method in _READING and wants_page(request) and "authorization" not in request.headers:
        query = request.scope["query_string"].decode("latin-1")
        asked = quote(request.scope["path"]) + (f"?{query}" if query else "")
        return _Refused(303, "sign in first", {"Location": with_query(_SIGN_IN, next=asked)})
    return _Refused(
        401,
        "a valid token is needed: `Authorization: Bearer TOKEN`; the server's home holds it in server.token, "
        "and `agentos token create` makes one for /mcp",
        {"WWW-Authenticate": "Bearer"},
    )


async def _refuse(refusal: HTTPException, scope: Scope, send: Send) -> None:
    request, status = Request(scope), refusal.status_code
    if wants_page(request):
        response = await error_page(request, status, refusal.detail)
    else:
        body = dumps(problem(scope["path"], status, refusal.detail))
        response = Response(body, status, media_type="application/json")
    response.headers.update(refusal.headers or {})
    await response(scope, _no_body, send)


async def _no_body() -> Message:
    return {"type": "http.disconnect"}
