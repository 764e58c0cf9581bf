"""What differs between the databases beside their statements: chosen once, by the URL."""

from pathlib import Path
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from agentos.errors import ConfigError
from agentos.store.sqlite import Sqlite
from agentos.store.tx import SqlTx


class Dialect(Protocol):
    """One kind of database."""

    shared: bool
    """Whether processes on several machines write it, so that an agent's turn needs a lease in it."""
    begin_write: str
    begin_read: str
    """Opens a transaction that sees one state."""
    begin_migration: str
    """Opens a transaction that only one process has at a time."""
    check: str
    """A query that answers `ok` when the database is sound."""
    full_text_tables: frozenset[str]

    @property
    def tx(self) -> type[SqlTx]:
        """Its statements."""
        ...

    def engine(self, url: str, in_memory: bool) -> sa.Engine:
        """An engine in autocommit mode: this package opens its transactions itself."""
        ...

    def prepare(self, connection: sa.Connection) -> None:
        """Settings that a database keeps, before its migration. `StoreError` where it cannot serve at all."""
        ...

    def back_up(self, url: str) -> Path | None:
        """A copy of the database, where that is ours to make."""
        ...

    def gave_up(self, error: DBAPIError, connection: sa.Connection) -> bool:
        """Whether the whole transaction is lost, and not just the statement."""
        ...

    def is_conflict(self, error: DBAPIError) -> bool:
        """Whether another process was in the way, so that the same may work when it is done again."""
        ...

    def sentence(self, error: DBAPIError, url: str) -> str:
        """The trouble and the remedy."""
        ...


def dialect_of(url: str) -> Dialect:
    """The dialect for a URL; `ConfigError` where there is none."""
    if url.startswith("sqlite"):
        return Sqlite()
    if url.startswith(("postgresql:", "postgresql+", "postgres:")):
        from agentos.store.postgres import Postgres

        return Postgres()
    raise ConfigError(
        f"the database URL cannot be used: it begins with {url.partition(':')[0]!r}, not with 'postgresql'; "
        "correct AGENTOS_DATABASE_URL"
    )
