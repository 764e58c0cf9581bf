"""How values and errors become answers."""

import json
import logging
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from agentos.errors import (
    AgentBusy,
    AgentOSError,
    ConfigError,
    Conflict,
    NotFound,
    Overloaded,
    PendingApproval,
    Stopping,
    StoreError,
    ToolError,
    UsageError,
)
from agentos.server.inspector.errors import error_page
from agentos.server.inspector.render import wants_page

_log = logging.getLogger(__name__)
_STATUS: dict[type[AgentOSError], int] = {
    NotFound: 404, Conflict: 409, Overloaded: 429, UsageError: 400, ToolError: 400, ConfigError: 400,
    AgentBusy: 409, Stopping: 503, StoreError: 503,
}  # fmt: skip
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
RETRY_AFTER_SECONDS = 5
"""After how long a server that stops, or a database that was away, may be there again."""


class Unsupported(Exception):
    """A part of an API that this server does not have: 501."""


def answer(value: Any, status: int = 200) -> Response:
    """`value` (plain JSON values and aware datetimes) as a JSON response."""
    return Response(dumps(value), status, media_type="application/json")


def dumps(value: Any) -> bytes:
    """`value` as JSON."""
    try:
        return orjson.dumps(value, default=_plain)
    except TypeError:  # integers beyond 64 bits
        return json.dumps(value, default=_plain, ensure_ascii=False).encode("utf-8", "replace")


async def patient(parts: AsyncGenerator[bytes, None]) -> Response:
    """A JSON answer; where its first part is a space, it takes long, and spaces keep its client waiting."""
    first = await anext(parts)
    if first != b" ":
        await parts.aclose()
        return Response(first, media_type="application/json")

    async def whole() -> AsyncGenerator[bytes, None]:
        yield first
        async for part in parts:
            yield part

    return StreamingResponse(whole(), media_type="application/json")


def event_stream(events: AsyncGenerator[bytes, None]) -> Response:
    """Server-sent events, each made by `sse`, or comments."""
    return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


def sse(value: Any) -> bytes:
    """`value` as a server-sent event."""
    data = dumps(value)
    for mark, escaped in _LINE_ENDS.items():
        data = data.replace(mark, escaped)
    return b"data: " + data + b"\n\n"


_LINE_ENDS = {mark.encode(): b"\\u%04x" % ord(mark) for mark in "\x85\u2028\u2029"}
"""What many a client's line reader takes for the end of a line, and JSON does not escape."""
_OPENAI = ("/openai/v1/", "/v1/chat/completions", "/v1/models")
_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def problem(path: str, status: int, detail: Any, error: object = None) -> dict[str, Any]:
    """The body of an error answer; on OpenAI's paths with the object that its clients read, too."""
    if not path.startswith(_OPENAI) or path == "/v1/models/":
        return {"detail": detail}
    message, param = detail, getattr(error, "param", None)
    if isinstance(detail, list):  # what validation found
        named = [(".".join(map(str, fault["loc"][1:])), fault["msg"]) for fault in detail]
        param = named[0][0] or None
        message = "; ".join(f"{name}: {fault}" if name else fault for name, fault in named)
    kind = _KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    told = {"message": message, "type": kind, "code": getattr(error, "code", None), "param": param}
    return {"detail": detail, "error": told}


def stamp(when: datetime | None) -> str | None:
    """A time as clients expect it: ISO 8601, UTC, microseconds."""
    return None if when is None else when.astimezone(UTC).isoformat(timespec="microseconds")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return stamp(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value)


async def refusal(request: Request, status: int, detail: Any, error: object = None) -> Response:
    """An error as the client reads it: a page for a browser that asked for one, else JSON."""
    path = request.scope["path"]
    if not wants_page(request):
        return answer(problem(path, status, detail, error), status)
    if isinstance(detail, list):
        named = [(".".join(map(str, fault["loc"][1:])), fault["msg"]) for fault in detail]
        detail = "; ".join(f"{name}: {fault}" for name, fault in named)
    return await error_page(request, status, str(detail))


def add_error_handlers(app: FastAPI) -> None:
    """Every error is an answer with a `detail` that says what to do."""

    @app.exception_handler(AgentOSError)
    async def refused(request: Request, error: AgentOSError) -> Response:
        status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 503)
        detail: Any = str(error)
        if isinstance(error, PendingApproval):
            detail = {"code": "PENDING_APPROVAL", "message": detail}
        response = await refusal(request, status, detail, error)
        if isinstance(error, Overloaded):
            response.headers["Retry-After"] = str(error.retry_after_seconds)
        if status == 503:
            response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
        if status >= 500 and not isinstance(error, Stopping):
            _log.error("request failed", extra={"error": str(error)})
        if status == 409 and not isinstance(error, AgentBusy):
            response.headers["x-should-retry"] = "false"  # the same again would be refused again
        return response

    @app.exception_handler(UnicodeEncodeError)
    async def unencodable(request: Request, error: UnicodeEncodeError) -> Response:
        detail = f"{error.object[error.start]!r} is half a character; send text that UTF-8 can hold"
        return await refusal(request, 400, detail)

    @app.exception_handler(Unsupported)
    async def unsupported(request: Request, error: Unsupported) -> Response:
        return Response(dumps({"detail": str(error)}), 501, {"x-should-retry": "false"}, media_type="application/json")

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        faults = [{"loc": list(e["loc"]), "msg": e["msg"], "type": e["type"]} for e in error.errors()]
        return await refusal(request, 422, faults)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        response = await refusal(request, error.status_code, error.detail)
        response.headers.update(error.headers or {})
        if error.status_code == 405:  # the framework names the methods of one route of several
            response.headers["Allow"] = ", ".join(m for m in _METHODS if _leads_somewhere(request, m))
        return response


def _leads_somewhere(request: Request, method: str) -> bool:
    scope = {**request.scope, "method": method}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)
