"""Logs of the server: JSON lines, or on a terminal lines for people. No message text, no token."""

import logging
import sys
import traceback
from typing import Any, TextIO

import structlog
from structlog.stdlib import ProcessorFormatter

_QUIET = ("uvicorn", "uvicorn.error", "httpx", "LiteLLM", "chromadb", "mcp", "dbos")
"""Others' loggers whose everyday lines would drown ours."""


def log_to(stream: TextIO | None = None) -> None:
    """Send what this process logs to `stream`, stderr without one, from level INFO on."""
    stream = stream or sys.stderr
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _where,
    ]
    rendered: list[Any] = [structlog.processors.JSONRenderer(ensure_ascii=True)]
    if stream.isatty():
        rendered = [_printable, structlog.dev.ConsoleRenderer()]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        ProcessorFormatter(foreign_pre_chain=shared, processors=[ProcessorFormatter.remove_processors_meta, *rendered])
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.raiseExceptions = False  # where the disk is full, a traceback for each line would follow later
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("dbos").addHandler(logging.NullHandler())  # without one it makes its own, past ours


def _printable(_logger: object, _method: str, line: dict[str, Any]) -> dict[str, Any]:
    """What a client wrote must not steer the terminal of whoever reads the log."""
    return {
        name: "".join(c if c.isprintable() else ascii(c)[1:-1] for c in value) if isinstance(value, str) else value
        for name, value in line.items()
    }


def _where(_logger: object, _method: str, line: dict[str, Any]) -> dict[str, Any]:
    """An exception as its type and place: what it says may quote a message, or a row."""
    error = (line.pop("exc_info", None) or (None, None, None))[1]
    if error is not None:
        frames = traceback.extract_tb(error.__traceback__)
        line["exception"] = type(error).__name__
        line["at"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-12:]]
    return line
