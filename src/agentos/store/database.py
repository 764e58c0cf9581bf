"""The session database: one writer thread with group commit, and readers beside it.

SQLite runs in WAL mode with `synchronous=FULL`: a write is on disk when its future resolves. All
writes of the process go through one thread, which commits whatever is waiting at that moment
together, a savepoint each: one fsync serves many agents, and there is no lock to fight over.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from agentos.errors import ConfigError, StoreError
from agentos.store.tx import SqlTx

T = TypeVar("T")
IN_MEMORY = ("sqlite://", "sqlite:///:memory:")
"""URLs of databases that live as long as their one connection."""
_BUSY_SECONDS = 10
_GROUP = 256
"""Most transactions that share one commit."""


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file."""
    return f"sqlite:///{path}"


class Database:
    """A session database at `url` that has been migrated (`agentos.store.migrations`)."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.in_memory = url in IN_MEMORY
        self.engine = make_engine(url, in_memory=self.in_memory)
        self._local = threading.local()
        self._connections: list[sa.Connection] = []
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        self._readers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="agentos-read")
        self._writer = threading.Thread(target=self._write_loop, name="agentos-write", daemon=True)
        self._writer.start()

    def write(self, work: Callable[[SqlTx], T]) -> Awaitable[T]:
        """Run `work` in the next group commit; resolves once it is durable.

        What `work` raises undoes that work alone. Raises `StoreError` when nothing was kept.
        """
        self._check_open()
        job = _Job(work)
        self._jobs.put(job)
        return job.future

    def read(self, work: Callable[[SqlTx], T]) -> Awaitable[T]:
        """Run `work` on a reader; it sees one consistent state, at least as new as the last write awaited."""
        if self.in_memory:  # its one connection belongs to the writer
            return self.write(work)
        self._check_open()
        return asyncio.wrap_future(self._readers.submit(self._read, work))

    async def close(self) -> None:
        """Finish what waits, then let go of the file; later calls raise `StoreError`."""
        if self._closed:
            return
        self._closed = True
        self._jobs.put(None)
        await asyncio.to_thread(self._writer.join)
        self._readers.shutdown()
        for connection in self._connections:
            connection.close()
        self.engine.dispose()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the session database is closed; open the home again")

    def _read(self, work: Callable[[SqlTx], T]) -> T:
        connection = getattr(self._local, "connection", None)
        try:
            if connection is None:
                connection = self._local.connection = self.engine.connect()
                self._connections.append(connection)
            connection.exec_driver_sql("BEGIN")
            try:
                return work(SqlTx(connection))
            finally:
                connection.exec_driver_sql("ROLLBACK")
        except DBAPIError as error:
            raise store_error(error, self.url) from error

    def _write_loop(self) -> None:
        connection: sa.Connection | None = None
        while (job := self._jobs.get()) is not None:
            group = [job]
            stop = False
            while len(group) < _GROUP:
                try:
                    more = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    stop = True
                    break
                group.append(more)
            try:
                connection = connection or self.engine.connect()
                _commit_group(connection, group)
            except DBAPIError as error:
                _fail(group, store_error(error, self.url))
            except BaseException as error:  # the thread must outlive any bug in a work function
                _fail(group, error)
            if stop:
                break
        if connection is not None:
            connection.close()


class _Job:
    """A waiting transaction and who waits for it."""

    def __init__(self, work: Callable[[SqlTx], Any]) -> None:
        self.work = work
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.value: Any = None
        self.error: BaseException | None = None

    def settle(self) -> None:
        """Hand the outcome to whoever awaits it (a cancelled waiter wants none)."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.value)


def _settle(group: list[_Job]) -> None:
    """Wake each event loop once for all of its jobs."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
    for job in group:
        by_loop.setdefault(job.loop, []).append(job)
    for loop, jobs in by_loop.items():
        with suppress(RuntimeError):  # the loop was closed while the commit ran: nobody waits any more
            loop.call_soon_threadsafe(_settle_here, jobs)


def _settle_here(jobs: list[_Job]) -> None:
    for job in jobs:
        job.settle()


def _commit_group(connection: sa.Connection, group: list[_Job]) -> None:
    """Run each job behind a savepoint and commit them together."""
    execute = connection.exec_driver_sql
    execute("BEGIN IMMEDIATE" if connection.dialect.name == "sqlite" else "BEGIN")
    try:
        tx = SqlTx(connection)
        for job in group:
            execute("SAVEPOINT job")
            try:
                job.value = job.work(tx)
            except DBAPIError as error:
                if not getattr(connection.connection.driver_connection, "in_transaction", True):
                    raise  # SQLite gave up the whole transaction: a full or damaged disk
                execute("ROLLBACK TO job")
                job.error = store_error(error, str(connection.engine.url))
            except BaseException as error:
                execute("ROLLBACK TO job")
                job.error = error
            execute("RELEASE job")
        execute("COMMIT")
    except BaseException:
        _rollback(connection)
        raise
    _settle(group)


def _rollback(connection: sa.Connection) -> None:
    """Undo what is open; SQLite may have done so itself."""
    try:
        connection.exec_driver_sql("ROLLBACK")
    except DBAPIError:
        connection.invalidate()
        connection.rollback()  # only then does SQLAlchemy connect anew


def _fail(group: list[_Job], error: BaseException) -> None:
    for job in group:
        job.error = error
    _settle(group)


def make_engine(url: str, in_memory: bool = False) -> sa.Engine:
    """An engine whose transactions this package opens itself (`BEGIN IMMEDIATE` for the writer)."""
    options: dict[str, Any] = {"isolation_level": "AUTOCOMMIT"}
    if in_memory:
        options |= {"poolclass": sa.StaticPool, "connect_args": {"check_same_thread": False}}
    elif url.startswith("sqlite"):
        options |= {
            "poolclass": sa.NullPool,
            "connect_args": {"check_same_thread": False, "timeout": _BUSY_SECONDS},
        }
    # a path is no URL: what looks like a query or an escape in it is part of a name
    path = url.removeprefix("sqlite:///")
    target = sa.URL.create("sqlite", database=path) if url.startswith("sqlite:///") and not in_memory else url
    try:
        engine = sa.create_engine(target, **options)
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ModuleNotFoundError) as error:
        raise ConfigError(f"the database URL cannot be used: {error}; correct AGENTOS_DATABASE_URL") from None
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _configure_sqlite)
    return engine


def _configure_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    for pragma in (
        f"busy_timeout={_BUSY_SECONDS * 1000}",
        "synchronous=FULL",  # with NORMAL a power cut takes acknowledged rows
        "secure_delete=ON",  # what is deleted is overwritten, not just unlinked
        "cache_size=-16000",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def store_error(error: DBAPIError, url: str) -> StoreError:
    """One sentence that names the trouble and the remedy."""
    place = url.removeprefix("sqlite:///")
    text = str(error.orig)
    for sign, sentence in (
        ("full", f"the disk of {place} is full; free some space and try again, nothing of this step was kept"),
        ("readonly", f"{place} cannot be written; make it writable or set AGENTOS_HOME to another folder"),
        (
            "unable to open",
            f"{place} cannot be opened for writing; check that its folder exists, is yours and is not read-only, "
            "or set AGENTOS_HOME",
        ),
        ("locked", f"{place} was locked by another program for {_BUSY_SECONDS} s; close that program and try again"),
        (
            "malformed",
            f"{place} is damaged; restore the newest copy (backups/ has those made before a migration) or move it away",
        ),
        ("not a database", f"{place} is not an agentos database; move it away or set AGENTOS_HOME"),
        (
            "disk I/O",
            f"the disk of {place} reports an I/O error; check it and the limit on file sizes (ulimit -f), "
            "nothing of this step was kept",
        ),
    ):
        if sign in text:
            return StoreError(sentence)
    return StoreError(f"the database refused: {text.splitlines()[0]}; nothing of this step was kept")
