"""SQLite: one file in WAL mode with `synchronous=FULL`, so that a write is on disk when its future resolves."""

import shutil
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from agentos.errors import StoreError
from agentos.store.tx import SqlTx

_BUSY_SECONDS = 10


class Sqlite:
    """See `Dialect`."""

    tx = SqlTx
    shared = False
    begin_write = begin_migration = "BEGIN IMMEDIATE"
    begin_read = "BEGIN"
    check = "PRAGMA quick_check"
    full_text_tables = frozenset({"message_fts", "passage_fts"})

    def engine(self, url: str, in_memory: bool) -> sa.Engine:
        """See `Dialect`."""
        options: dict[str, Any] = {"poolclass": sa.NullPool, "isolation_level": "AUTOCOMMIT"}
        arguments: dict[str, Any] = {"check_same_thread": False}
        if in_memory:
            options["poolclass"] = sa.StaticPool
        else:
            arguments["timeout"] = _BUSY_SECONDS
        # a path is no URL: what looks like a query or an escape in it is part of a name
        path = url.removeprefix("sqlite:///")
        target = sa.URL.create("sqlite", database=path) if url.startswith("sqlite:///") and not in_memory else url
        engine = sa.create_engine(target, connect_args=arguments, **options)
        sa.event.listen(engine, "connect", _configure)
        return engine

    def prepare(self, connection: sa.Connection) -> None:
        """See `Dialect`."""
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")

    def back_up(self, url: str) -> Path | None:
        """Copy the file with its write-ahead log folded in."""
        source = Path(url.removeprefix("sqlite:///"))
        folder = source.parent / "backups"
        folder.mkdir(exist_ok=True)
        target = folder / f"{source.stem}-{datetime.now(UTC):%Y%m%dT%H%M%S}.db"
        if shutil.disk_usage(folder).free < source.stat().st_size * 2:
            raise StoreError(
                f"there is no room in {folder} to back up the database before it is migrated; free some space"
            )
        with sqlite3.connect(source) as old, sqlite3.connect(target) as new:
            old.backup(new)
        old.close()
        new.close()
        return target

    def gave_up(self, error: DBAPIError, connection: sa.Connection) -> bool:
        """On a full or damaged disk."""
        return not getattr(connection.connection.driver_connection, "in_transaction", True)

    def is_conflict(self, error: DBAPIError) -> bool:
        """Never: who writes has the file to himself."""
        return False

    def sentence(self, error: DBAPIError, url: str) -> str:
        """See `Dialect`."""
        place, text = url.removeprefix("sqlite:///"), str(error.orig)
        for sign, sentence in (
            ("full", f"the disk of {place} is full; free some space and try again, nothing of this step was kept"),
            ("readonly", f"{place} cannot be written; make it writable or set AGENTOS_HOME to another folder"),
            (
                "unable to open",
                f"{place} cannot be opened for writing; check that its folder exists, is yours and is not read-only, "
                "or set AGENTOS_HOME",
            ),
            (
                "locked",
                f"{place} was locked by another program for {_BUSY_SECONDS} s; close that program and try again",
            ),
            (
                "malformed",
                f"{place} is damaged; restore the newest copy (backups/ has those made before a migration) "
                "or move it away",
            ),
            ("not a database", f"{place} is not an agentos database; move it away or set AGENTOS_HOME"),
            (
                "disk I/O",
                f"the disk of {place} reports an I/O error; check it and the limit on file sizes (ulimit -f), "
                "nothing of this step was kept",
            ),
        ):
            if sign in text:
                return sentence
        return f"the database refused: {text.splitlines()[0]}; nothing of this step was kept"


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    for pragma in (
        f"busy_timeout={_BUSY_SECONDS * 1000}",
        "synchronous=FULL",  # with NORMAL a power cut takes acknowledged rows
        "secure_delete=ON",  # what is deleted is overwritten, not just unlinked
        "cache_size=-16000",
    ):
        connection.execute(f"PRAGMA {pragma}").close()
