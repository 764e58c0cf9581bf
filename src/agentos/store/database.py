"""The session database: one writer thread with group commit, and readers beside it.

A write is on disk when its future resolves. All writes of the process go through one thread, which
commits whatever is waiting at that moment together, a savepoint each: one fsync serves many agents,
and there is no lock to fight over. Where other processes write the same PostgreSQL, a job that meets
one of them is done again, after the others.
"""

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from agentos.clock import SystemClock
from agentos.errors import ConfigError, StoreError
from agentos.protocols import Clock
from agentos.store.dialect import dialect_of
from agentos.store.rows import Overtaken
from agentos.store.tx import SqlTx

T = TypeVar("T")
IN_MEMORY = ("sqlite://", "sqlite:///:memory:")
"""URLs of databases that live as long as their one connection."""
_CONFLICTS = 50
"""Times that a job may meet another process, 0.2 s each where it waits for a lock."""
_GROUP = 256
"""Most transactions that share one commit."""


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file."""
    return f"sqlite:///{path}"


class Database:
    """A session database at `url` that has been migrated (`agentos.store.migrations`)."""

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        self.url = url
        self.clock = clock or SystemClock()
        """When a version of a block or an event of the journal was written; a `Runtime` puts its own here."""
        self.dialect = dialect_of(url)
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
        return asyncio.wrap_future(self._readers.submit(self._run, work, self.dialect.begin_read, "ROLLBACK"))

    def write_beside(self, work: Callable[[SqlTx], T]) -> Awaitable[T]:
        """Run `work` in a commit of its own that does not wait for the writer, where the database has several."""
        self._check_open()
        return asyncio.wrap_future(self._readers.submit(self._run, work, self.dialect.begin_write, "COMMIT"))

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

    def _run(self, work: Callable[[SqlTx], T], begin: str, end: str) -> T:
        try:
            connection: sa.Connection | None = getattr(self._local, "connection", None)
            if connection is None:
                connection = self._local.connection = self.engine.connect()
                self._connections.append(connection)
            _begin(connection, begin)
            try:
                value = work(self.dialect.tx(connection, self.clock))
                connection.exec_driver_sql(end)
                return value
            except BaseException:
                _rollback(connection)
                raise
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
                while group:
                    self._commit_some(connection, group)
            except DBAPIError as error:
                _fail(group, store_error(error, self.url))
            except BaseException as error:  # the thread must outlive any bug in a work function
                _fail(group, error)
            if stop:
                break
        if connection is not None:
            connection.close()

    def _commit_some(self, connection: sa.Connection, group: list["_Job"]) -> None:
        """Run the jobs behind a savepoint each, commit them together and take them off `group`.

        One that meets another process ends the commit before itself, so that it waits without a lock of ours.
        """
        _begin(connection, self.dialect.begin_write)
        execute, tx, done = connection.exec_driver_sql, self.dialect.tx(connection, self.clock), 0
        try:
            for job in group:
                execute("SAVEPOINT job")
                try:
                    job.value = job.work(tx)
                except DBAPIError as error:
                    if self.dialect.gave_up(error, connection):
                        raise
                    execute("ROLLBACK TO job")
                    if self.dialect.is_conflict(error) and job.waits(behind=done):
                        break
                    job.error = store_error(error, self.url)
                except Overtaken:
                    execute("ROLLBACK TO job")
                    if job.waits(behind=done):
                        break
                    job.error = StoreError("what was to be changed keeps changing; look at it and try again")
                except BaseException as error:
                    execute("ROLLBACK TO job")
                    job.error = error
                execute("RELEASE job")
                done += 1
            execute("COMMIT")
        except BaseException:
            _rollback(connection)
            raise
        _settle(group[:done])
        del group[:done]


class _Job:
    """A waiting transaction and who waits for it."""

    def __init__(self, work: Callable[[SqlTx], Any]) -> None:
        self.work = work
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.value: Any = None
        self.error: BaseException | None = None
        self._conflicts = 0

    def waits(self, *, behind: int) -> bool:
        """Whether to do it again after a conflict, `behind` so many others: these it must not hold up."""
        self._conflicts += not behind
        return self._conflicts <= _CONFLICTS

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


def _begin(connection: sa.Connection, statement: str) -> None:
    """Open a transaction; a connection that was cut off since its last use is made anew."""
    try:
        connection.exec_driver_sql(statement)
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        connection.rollback()
        connection.exec_driver_sql(statement)


def _rollback(connection: sa.Connection) -> None:
    """Undo what is open; the database may have done so itself, or be gone."""
    try:
        connection.exec_driver_sql("ROLLBACK")
    except SQLAlchemyError:
        connection.invalidate()
        connection.rollback()  # only then does SQLAlchemy connect anew


def _fail(group: list[_Job], error: BaseException) -> None:
    for job in group:
        job.error = error
    _settle(group)


def make_engine(url: str, in_memory: bool = False) -> sa.Engine:
    """An engine whose transactions this package opens itself; `ConfigError` where `url` cannot be used."""
    try:
        return dialect_of(url).engine(url, in_memory)
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError) as error:
        raise ConfigError(f"the database URL cannot be used: {error}; correct AGENTOS_DATABASE_URL") from None


def store_error(error: DBAPIError, url: str) -> StoreError:
    """One sentence that names the trouble and the remedy."""
    return StoreError(dialect_of(url).sentence(error, url))
