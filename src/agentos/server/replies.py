"""How values and errors become answers."""

import json
import logging
from datetime import UTC, datetime
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from agentos.errors import (
    AgentBusy,
    AgentOSError,
    ConfigError,
    Conflict,
    NotFound,
    Overloaded,
    StoreError,
    ToolError,
    UsageError,
)


class Stopping(Exception):
    """The server was told to stop: 503, try again."""


_log = logging.getLogger(__name__)
_STATUS: dict[type[AgentOSError], int] = {
    NotFound: 404, Conflict: 409, Overloaded: 429, UsageError: 400, ToolError: 400, ConfigError: 400,
    AgentBusy: 409, StoreError: 503,
}  # fmt: skip


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


def stamp(when: datetime | None) -> str | None:
    """A time as clients expect it: ISO 8601, UTC, microseconds."""
    return None if when is None else when.astimezone(UTC).isoformat(timespec="microseconds")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return stamp(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value)


def add_error_handlers(app: FastAPI) -> None:
    """Every error is an answer with a `detail` that says what to do."""

    @app.exception_handler(AgentOSError)
    async def refused(request: Request, error: AgentOSError) -> Response:
        status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 503)
        response = answer({"detail": str(error)}, status)
        if isinstance(error, Overloaded):
            response.headers["Retry-After"] = str(error.retry_after_seconds)
        if status == 409 and not isinstance(error, AgentBusy):
            response.headers["x-should-retry"] = "false"  # the same again would be refused again
        if status >= 500:
            _log.error("request failed", extra={"error": str(error)})
        return response

    @app.exception_handler(Unsupported)
    async def unsupported(request: Request, error: Unsupported) -> Response:
        return Response(dumps({"detail": str(error)}), 501, {"x-should-retry": "false"}, media_type="application/json")

    @app.exception_handler(Stopping)
    async def stopping(request: Request, error: Stopping) -> Response:
        detail = "the server is stopping; send it again in a moment"
        return Response(dumps({"detail": detail}), 503, {"Retry-After": "2"}, media_type="application/json")

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        faults = [{"loc": list(e["loc"]), "msg": e["msg"], "type": e["type"]} for e in error.errors()]
        return answer({"detail": faults}, 422)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        response = answer({"detail": error.detail}, error.status_code)
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> Response:
        _log.exception("request broke off")
        return answer({"detail": "the server failed on this request; its log says why"}, 500)
