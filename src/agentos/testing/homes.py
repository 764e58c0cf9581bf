"""A clock that stands still, and homes that live in memory."""

import sqlite3
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from agentos.protocols import LLM
from agentos.runtime import Runtime
from agentos.settings import Settings
from agentos.store.database import Database
from agentos.store.migrations import migrate
from agentos.testing.indexes import ExactIndex, HashEmbedder

IN_MEMORY = "sqlite://"
_COMPILED: dict[Any, Any] = {}
"""The statements that SQLAlchemy has compiled."""


class FixedClock:
    """The time that a test sets; it passes only by `advance`."""

    def __init__(self, start: datetime | None = None) -> None:
        self._now = start or datetime(2026, 5, 8, 9, 30, tzinfo=UTC)
        assert self._now.tzinfo is not None, "a clock's time is aware"

    def now(self) -> datetime:
        """The time as it was set."""
        return self._now

    def advance(self, by: timedelta) -> datetime:
        """Let `by` pass; returns the new time."""
        self._now += by
        return self._now


@asynccontextmanager
async def temporary_runtime(llm: LLM, **options: Any) -> AsyncIterator[Runtime]:
    """A `Runtime` in memory: no file is written, no weights are loaded, no Chroma is started.

    `options` are those of `Runtime`; of `settings` everything but the database is kept.
    """
    settings = options.pop("settings", None) or Settings(home=Path(tempfile.gettempdir()) / "agentos-in-memory")
    chosen: dict[str, Any] = {"embedder": HashEmbedder(), "index": ExactIndex(), "store": memory_database()} | options
    async with Runtime(settings.model_copy(update={"database_url": IN_MEMORY}), llm=llm, **chosen) as runtime:
        yield runtime


def memory_database() -> Database:
    """A migrated session database in memory; a copy of one made before, so it takes about a millisecond."""
    database, template = compiled_once(Database(IN_MEMORY)), _template()
    with database.engine.connect() as connection, template.engine.connect() as kept:
        _raw(kept).backup(_raw(connection))
    return database


def compiled_once(database: Database) -> Database:
    """`database`, a new one of SQLite's, with the statements that SQLAlchemy compiled for others.

    For a short life this is a third of the time.
    """
    shared = sa.Engine(database.engine.pool, _template().engine.dialect, database.engine.url)
    database.engine = shared.execution_options(compiled_cache=_COMPILED)
    return database


@cache
def _template() -> Database:
    database = Database(IN_MEMORY)
    with database.engine.connect() as connection:
        migrate(IN_MEMORY, connection)
    return database


def _raw(connection: sa.Connection) -> sqlite3.Connection:
    raw: Any = connection.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)
    return raw
