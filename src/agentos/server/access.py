"""Who may ask, from where, and how much: one ASGI layer in front of everything."""

import asyncio
import hmac
import logging
import time
import uuid
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentos.server.replies import dumps
from agentos.server.service import Service

_log = logging.getLogger("agentos.access")
OPEN = ("/healthz", "/readyz")
"""Paths that need no token."""
_SLASHED = ("/", "/v1/models/")
"""Paths that keep their trailing slash; elsewhere both forms are one."""


class _Refused(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Access:
    """Checks Host, Origin, token, size and time of a request, and logs it without its text."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, request_id = time.perf_counter(), 0, f"req-{uuid.uuid4().hex[:12]}"
        begun = False

        async def answered(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                message.setdefault("headers", []).append((b"x-request-id", request_id.encode()))
            await send(message)

        path = scope["path"]
        if path.endswith("/") and path not in _SLASHED:
            scope = {**scope, "path": path.rstrip("/"), "raw_path": b""}
        try:
            self._check(scope)
            await self._app(scope, self._limited(receive), answered)
        except _Refused as refusal:
            if begun:
                raise
            await _refuse(refusal, answered)
        finally:
            took = round(1000 * (time.perf_counter() - started), 1)
            extra = {"request_id": request_id, "method": scope["method"], "path": path, "status": status, "ms": took}
            _log.info("request", extra=extra)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if _name(host) not in self._service.hosts:
            raise _Refused(
                403, f"this server is not called {_name(host)!r}; start it with --allow-host NAME to accept that name"
            )
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            raise _Refused(403, f"requests from pages of {origin!r} are refused; only this server's own may ask")
        if scope["path"] in OPEN:
            return
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip().encode() if scheme.lower() == "bearer" else b""
        if not hmac.compare_digest(given, self._service.token.encode()):
            raise _Refused(
                401,
                "a valid token is needed: `Authorization: Bearer TOKEN`; the server's home holds it in server.token",
            )
        if int(headers.get("content-length", "0").strip() or 0) > self._service.max_body_bytes:
            raise _Refused(413, self._too_large)

    @property
    def _too_large(self) -> str:
        return f"the request is larger than {self._service.max_body_bytes} bytes; send less at once"

    def _limited(self, receive: Receive) -> Receive:
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
                raise _Refused(408, "the request's body did not arrive in time; send it again") from None
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if read > self._service.max_body_bytes:
                    raise _Refused(413, self._too_large)
            return message

        return limited


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


async def _refuse(refusal: _Refused, send: Send) -> None:
    headers = [(b"content-type", b"application/json")]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": dumps({"detail": str(refusal)})})
