"""The vector index on Chroma, held by a child process (`agentos.archive.chroma_process`).

Why a process of its own, always: a damaged index can crash the interpreter that opens it, and an agent
must survive that; chromadb costs 85 MB and 0.6 s that a chat then does not pay; when nothing was asked
for a while the child ends and gives all of it back. The same code serves a directory of our own and a
Chroma server (`AGENTOS_CHROMA_URL`).

A child that dies is started again and asked once more, since every request can be repeated; one that
dies twice running means the directory is damaged. A child that does not answer in time is killed. After
a refusal (directory in use, server unreachable) the index rests, so that searches do not wait for it.
"""

import asyncio
import hashlib
import multiprocessing
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from agentos.errors import ConfigError, IndexBusy, IndexUnavailable

if TYPE_CHECKING:
    from agentos.archive.chroma_process import Reply, Request
    from agentos.protocols import Vectors

T = TypeVar("T")

UPSERT_ROWS = 200
"""Rows in one request: 0.03 to 0.3 seconds, which is how long a search may wait for a large upsert."""
_TRIES = 3
_LONGEST_REST_SECONDS = 60.0


class IndexDamaged(IndexUnavailable):
    """The index's directory cannot be opened, or kills the process that opens it: set it aside and rebuild."""


class CollectionDamaged(IndexUnavailable):
    """One collection cannot answer: drop it and fill it again."""


class ChromaIndex:
    """A `VectorIndex` in the directory `path`, or on the Chroma server at `url` when one is given.

    One collection per agent and embedder: its name is the agent's id and a hash of `fingerprint`. A
    directory has one owner at a time (`<path>.lock`); everybody else gets `IndexUnavailable`. Nothing is
    started before the first request; after `idle_seconds` without one the child ends by itself. `close`
    gives a request under way `stop_seconds`. Beyond the protocol's errors it raises the two subclasses of
    `IndexUnavailable` in this file.
    """

    def __init__(
        self, path: Path | None, url: str | None, fingerprint: str, *, idle_seconds: float = 300.0,
        timeout_seconds: float = 30.0, rest_seconds: float = 5.0, stop_seconds: float = 5.0,
    ) -> None:  # fmt: skip
        if url is not None:
            _check_url(url)
        elif path is None:
            raise ValueError("an index needs a path or a url")
        self.fingerprint = fingerprint
        self._where = {"path": None if url else str(Path(path or "").absolute()), "url": url}
        self._embedded = url is None
        self._suffix = hashlib.sha256(fingerprint.encode()).hexdigest()[:12]
        self._idle_seconds = idle_seconds
        self.timeout_seconds = timeout_seconds
        """How long one request may take before its process is killed."""
        self._stop_seconds = stop_seconds
        self._shortest_rest_seconds = self._rest_seconds = rest_seconds
        self._thread = ThreadPoolExecutor(1, "chroma")
        self._closed = False
        # what follows is touched on the index's thread only
        self._child: _Child | None = None
        self._crashes = 0
        self._damage: str | None = None
        self._resting: tuple[float, IndexUnavailable] = (0.0, IndexUnavailable())

    async def upsert(self, collection: str, ids: Sequence[int], vectors: "Vectors") -> None:
        """Add or replace; durable when it returns. Of an id given twice the last vector counts."""
        rows = {key: row for row, key in enumerate(ids)}
        keys = list(rows)
        metadata = {"agent": collection, "fingerprint": self.fingerprint}
        for start in range(0, len(keys), UPSERT_ROWS):
            part = keys[start : start + UPSERT_ROWS]
            await self._ask(
                "upsert",
                name=self._name(collection),
                metadata=metadata,
                ids=part,
                vectors=vectors[[rows[k] for k in part]],
            )

    async def delete(self, collection: str, ids: Sequence[int]) -> None:
        """Remove; ids that are not there are ignored."""
        keys = list(dict.fromkeys(ids))
        for start in range(0, len(keys), UPSERT_ROWS):
            await self._ask("delete", name=self._name(collection), ids=keys[start : start + UPSERT_ROWS])

    async def query(self, collection: str, vector: "Vectors", k: int) -> list[tuple[int, float]]:
        """The `k` nearest as (id, cosine similarity), best first."""
        if k < 1:
            return []
        found: list[tuple[int, float]] = await self._ask("query", name=self._name(collection), vector=vector, k=k)
        return found

    async def count(self, collection: str) -> int:
        """How many vectors the collection holds by Chroma's books, which may be wrong: see `IndexSync.verify`."""
        return int(await self._ask("count", name=self._name(collection)))

    async def drop(self, collection: str) -> None:
        """Remove the collection and its files."""
        await self._ask("drop", names=[self._name(collection)])

    async def prune(self, collections: Collection[str]) -> int:
        """Drop what no embedder or agent uses any more, given all that agents use; how many went.

        On a server, which others may share, that is only these agents' collections of other embedders.
        """
        found = await self._ask("collections")
        stale = [name for name, metadata in found if self._is_stale(metadata, collections)]
        if stale:
            await self._ask("drop", names=stale)
        return len(stale)

    async def set_aside(self) -> str | None:
        """Move the directory out of the way and begin an empty one; returns where the old one went.

        None on a server, where nothing is done. The copy before this one is deleted.
        """
        return await self._on_thread(self._set_aside) if self._embedded else None

    async def close(self) -> None:
        """End the child and release the directory; later calls raise `IndexUnavailable`."""
        if self._closed:
            return
        self._closed = True
        stopped = asyncio.get_running_loop().run_in_executor(self._thread, self._stop)
        _, late = await asyncio.wait([stopped], timeout=self._stop_seconds)
        if late and (child := self._child):
            child.process.kill()  # frees the thread, which waits for an answer
        await stopped
        self._thread.shutdown()

    def _is_stale(self, metadata: dict[str, Any], collections: Collection[str]) -> bool:
        if metadata.get("agent") in collections:
            return metadata.get("fingerprint") != self.fingerprint
        return self._embedded

    def _name(self, collection: str) -> str:
        return f"{collection}-{self._suffix}"

    async def _ask(self, operation: str, **arguments: Any) -> Any:
        return await self._on_thread(lambda: self._exchange((operation, arguments)))

    async def _on_thread(self, work: Callable[[], T]) -> T:
        if self._closed:
            raise IndexUnavailable("the index is closed")
        # a caller that is cancelled leaves the exchange to finish, so that answers never get out of step
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # on the index's thread

    def _exchange(self, request: "Request") -> Any:
        for _ in range(_TRIES):
            try:
                answer = self._value(self._running().ask(request, self.timeout_seconds))
            except _Ended as ended:
                self._child = None
                self._judge(ended)
            else:
                self._crashes = 0
                self._rest_seconds = self._shortest_rest_seconds
                return answer
        raise self._rest("the index process keeps ending")

    def _running(self) -> "_Child":
        """The child, opened. What it refuses at the start ends it."""
        if self._closed:
            raise IndexUnavailable("the index is closed")
        if self._damage is not None:
            raise IndexDamaged(self._damage)
        until, error = self._resting
        if time.monotonic() < until:
            raise type(error)(*error.args)
        if self._child is None:
            self._child = self._start()
            try:
                self._value(self._child.ask(("open", self._where), self.timeout_seconds))
            except IndexUnavailable:
                self._stop()
                raise
        return self._child

    def _start(self) -> "_Child":
        try:
            return _Child(self._idle_seconds, self._stop_seconds)
        except OSError as error:
            raise self._rest(f"the index process cannot be started: {error}") from None

    def _judge(self, ended: "_Ended") -> None:
        """Raise unless a child that ended like this is worth another one."""
        if ended.late:
            raise self._rest(f"the index did not answer within {self.timeout_seconds:g} seconds and was stopped")
        if ended.code == 0:
            return  # idle, just as the request came
        self._crashes += 1
        if self._crashes >= 2:
            raise self._damaged(f"the index process crashed twice (exit code {ended.code})")

    def _value(self, reply: "Reply") -> Any:
        if reply[0] == "ok":
            return reply[1]
        _, kind, text = reply
        if kind == "collection":
            raise CollectionDamaged(text)
        if kind == "damaged":
            raise self._damaged(text)
        if kind in ("busy", "unreachable"):
            self._stop()
            raise self._rest(text, IndexBusy if kind == "busy" else IndexUnavailable)
        raise IndexUnavailable(text)

    def _damaged(self, why: str) -> IndexUnavailable:
        if not self._embedded:
            return self._rest(why)
        self._damage = f"{why}; `agentos reindex` rebuilds the index"
        return IndexDamaged(self._damage)

    def _rest(self, why: str, kind: type[IndexUnavailable] = IndexUnavailable) -> IndexUnavailable:
        """The error to raise; for a while every request gets it at once."""
        error = kind(why)
        self._resting = (time.monotonic() + self._rest_seconds, error)
        self._rest_seconds = min(self._rest_seconds * 2, _LONGEST_REST_SECONDS)
        return error

    def _set_aside(self) -> str:
        self._stop()
        child = self._start()  # a fresh one, which has opened nothing
        try:
            where = self._value(child.ask(("set_aside", {"path": self._where["path"]}), self.timeout_seconds))
        except _Ended as ended:
            raise IndexUnavailable(f"the index could not be set aside (exit code {ended.code})") from None
        finally:
            child.stop()
        self._damage, self._crashes, self._resting = None, 0, (0.0, IndexUnavailable())
        return str(where)

    def _stop(self) -> None:
        if self._child is not None:
            self._child.stop()
            self._child = None


class _Ended(Exception):
    """The child is gone: `late` when it was killed for not answering, else its exit `code`."""

    def __init__(self, code: int, late: bool) -> None:
        super().__init__(code)
        self.code = code
        self.late = late


class _Child:
    """One child process and the socket to it; used by one thread at a time."""

    def __init__(self, idle_seconds: float, stop_seconds: float) -> None:
        self._stop_seconds = stop_seconds
        self._late = False
        ours, theirs = multiprocessing.Pipe()
        with theirs:
            self.process = subprocess.Popen(
                # -P: nothing is imported from the folder the user happens to stand in
                [sys.executable, "-P", "-m", "agentos.archive.chroma_process", str(idle_seconds)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in the terminal is not for it
            )
        self._pipe: Connection[Request, Reply] = ours

    def ask(self, request: "Request", timeout_seconds: float) -> "Reply":
        """The child's answer. Raises `_Ended`; the process is reaped then."""
        deadline = threading.Timer(timeout_seconds, self._expire)
        deadline.daemon = True
        deadline.start()
        try:
            self._pipe.send(request)
            return self._pipe.recv()
        except (EOFError, OSError):
            raise _Ended(self.stop(), self._late) from None
        finally:
            deadline.cancel()

    def stop(self) -> int:
        """End the process, by force if it takes long; its exit code."""
        self._pipe.close()
        try:
            return self.process.wait(self._stop_seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def _expire(self) -> None:
        self._late = True
        self.process.kill()


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(f"AGENTOS_CHROMA_URL {url!r} is not a server address; write it like http://127.0.0.1:8000")
