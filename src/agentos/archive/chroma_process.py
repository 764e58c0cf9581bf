"""The process that holds Chroma: `python -m agentos.archive.chroma_process`, started by `agentos.archive.chroma` only.

It serves one parent over the socket that is its standard input, one request at a time:
`(operation, arguments)` -> `("ok", value)` or `("error", kind, text)`. The first request is `open` or
`set_aside`; both take the directory's lock, which is held until the process ends: the lock belongs to
whoever has the files open, so it outlives a parent that was killed until its last write is done.

Kinds of error: `busy` (another process has the directory), `damaged` (the directory cannot be opened),
`collection` (one collection cannot answer), `unreachable` (a server does not answer), `failed` (all else).
"""

import os
import select
import shutil
import sqlite3
import sys
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import closing, suppress
from datetime import datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from agentos.protocols import Vectors

Request = tuple[str, dict[str, Any]]
Reply = tuple[Any, ...]

GRACE_SECONDS = 10.0
"""How long a write under way may go on after the parent is gone."""
DATABASE = "chroma.sqlite3"
_GRAPH = {"space": "cosine", "max_neighbors": 32}
"""Twice Chroma's own number of neighbours, for a twentieth more time to add with ordinary texts. Their recall is 1.0
either way; where vectors are all about equally far apart (20,000 random ones) it rises from 0.81 to 0.93."""


class Refused(Exception):
    """A request that cannot be carried out: (kind, text)."""


class Directory:
    """The folder of an embedded index: its lock and what Chroma leaves to others to clean up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: Any = None

    def lock(self) -> None:
        """Become the only process that opens the folder; held until this process ends."""
        from filelock import FileLock, Timeout

        if self._lock is not None:
            return
        owner = self.path.with_name(f"{self.path.name}.owner")
        try:
            if not self.path.is_file():  # `check` speaks of that, `set_aside` moves it
                self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = FileLock(f"{self.path}.lock", timeout=0)
            lock.acquire()
            owner.write_text(str(os.getppid()), "ascii")  # not in the lock file: older filelocks empty it
        except Timeout:
            raise Refused("busy", f"the index is in use by another process ({_pid_in(owner)})") from None
        except OSError as error:
            raise Refused("failed", f"the index cannot be opened: {error}") from None
        self._lock = lock

    def check(self) -> None:
        """Refuse what Chroma would silently open as an empty index, and what it cannot write to."""
        if self.path.is_file():
            raise Refused("damaged", f"{self.path} is a file and not a folder")
        try:
            names = os.listdir(self.path)
            probe = self.path / ".writable"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise Refused("failed", f"the index cannot be written: {error}") from None
        if names and not _is_file_with_content(self.path / DATABASE):
            raise Refused("damaged", f"{self.path} has no {DATABASE}")

    def sweep(self) -> None:
        """Remove the vectors of dropped collections: Chroma forgets their rows and leaves their files."""
        database = f"{self.path.as_uri()}/{DATABASE}?mode=ro"  # read only: one that is missing is not made
        with suppress(sqlite3.Error), closing(sqlite3.connect(database, uri=True)) as connection:
            live = {row[0] for row in connection.execute("SELECT id FROM segments")}
            for folder in self.path.iterdir():
                if folder.is_dir() and len(folder.name) == 36 and folder.name not in live:
                    shutil.rmtree(folder, ignore_errors=True)

    def set_aside(self) -> str:
        """Move the folder, or a file in its place, out of the way, keeping one such copy; returns where it went."""
        for older in self.path.parent.glob(f"{self.path.name}.broken-*"):
            if older.is_file():
                older.unlink()
            shutil.rmtree(older, ignore_errors=True)
        target = self.path.with_name(f"{self.path.name}.broken-{datetime.now():%Y%m%d-%H%M%S}")
        self.path.rename(target)
        self.path.mkdir(mode=0o700)
        return str(target)


class Service:
    """The operations the parent can ask for. Collections go by their full names here."""

    def __init__(self) -> None:
        self._directory: Directory | None = None
        self._client: Any = None
        self._known: dict[str, Any] = {}

    def answer(self, operation: str, arguments: dict[str, Any]) -> Reply:
        """The reply to one request."""
        try:
            return ("ok", getattr(self, f"do_{operation}")(**arguments))
        except Refused as refused:
            return ("error", *refused.args)
        except Exception as error:  # whatever Chroma raises is an answer; a panic or a signal ends the process
            return ("error", self._kind_of(error), f"{type(error).__name__}: {error}"[:500])

    def do_open(self, path: str | None, url: str | None) -> None:
        """Open the directory at `path`, or connect to the server at `url`."""
        if path is None:
            self._client = _connect(str(url))
            return
        directory = self._locked(path)
        directory.check()
        self._open_embedded(directory)

    def do_set_aside(self, path: str) -> str:
        """Move a directory that is not open out of the way."""
        return self._locked(path).set_aside()

    def do_upsert(self, name: str, metadata: dict[str, str], ids: Sequence[int], vectors: "Vectors") -> None:
        """Add or replace; the collection comes into being here."""
        size = self._client.get_max_batch_size()
        for start in range(0, len(ids), size):
            part = slice(start, start + size)
            self._ask(name, "upsert", metadata, ids=[str(i) for i in ids[part]], embeddings=vectors[part])

    def do_delete(self, name: str, ids: Sequence[int]) -> None:
        """Remove; what is not there is ignored."""
        self._ask(name, "delete", ids=[str(i) for i in ids])

    def do_query(self, name: str, vector: "Vectors", k: int) -> list[tuple[int, float]]:
        """(id, cosine similarity), best first."""
        found = self._ask(name, "query", query_embeddings=vector.reshape(1, -1), n_results=k, include=["distances"])
        if found is None:
            return []
        return [(int(i), 1.0 - d) for i, d in zip(found["ids"][0], found["distances"][0], strict=True)]

    def do_count(self, name: str) -> int:
        """How many vectors; 0 for an unknown collection."""
        return self._ask(name, "count") or 0

    def do_drop(self, names: Collection[str]) -> None:
        """Remove collections, their files too."""
        from chromadb.errors import NotFoundError

        for name in names:
            with suppress(NotFoundError):
                self._client.delete_collection(name)
        self._known.clear()
        if self._directory is not None:
            self._open_embedded(self._directory)  # sweeps

    def do_collections(self) -> list[tuple[str, dict[str, Any]]]:
        """(name, metadata) of every collection."""
        found: list[tuple[str, dict[str, Any]]] = []
        while page := self._client.list_collections(limit=1000, offset=len(found)):
            found += [(c.name, dict(c.metadata or {})) for c in page]
        return found

    def close(self) -> None:
        """Let Chroma put its files in order."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _open_embedded(self, directory: Directory) -> None:
        """Open the directory (again), swept while nothing has its database open.

        Two copies of SQLite, Chroma's and Python's, must never have one file open in one process:
        the close of one takes away the locks of the other.
        """
        from chromadb import PersistentClient

        self.close()
        directory.sweep()
        try:
            self._client = PersistentClient(str(directory.path), settings=_settings())
        except Exception as error:
            raise Refused("damaged", f"{directory.path} cannot be opened: {error}"[:500]) from None

    def _locked(self, path: str) -> Directory:
        self._directory = self._directory or Directory(Path(path))
        self._directory.lock()
        return self._directory

    def _ask(self, name: str, method: str, metadata: dict[str, str] | None = None, /, **arguments: Any) -> Any:
        """`collection.method(**arguments)`, or None for an unknown collection; with metadata it is made.

        A handle goes stale when another client of the same server drops the collection, hence the second try.
        """
        from chromadb.errors import NotFoundError

        for _ in range(2):
            try:
                return getattr(self._collection(name, metadata), method)(**arguments)
            except NotFoundError:
                self._known.pop(name, None)
        return None

    def _collection(self, name: str, metadata: dict[str, str] | None) -> Any:
        if name not in self._known:
            # no embedding function: Chroma would load its own, which downloads
            if metadata is None:
                self._known[name] = self._client.get_collection(name, embedding_function=None)
            else:
                self._known[name] = self._client.get_or_create_collection(
                    name, embedding_function=None, metadata=metadata, configuration={"hnsw": _GRAPH}
                )
        return self._known[name]

    def _kind_of(self, error: Exception) -> str:
        if isinstance(error, ImportError):
            return "failed"
        from chromadb.errors import ChromaError

        if isinstance(error, ChromaError):
            return "collection" if self._directory else "failed"
        return "failed" if self._directory else "unreachable"


def serve(pipe: "Connection[Reply, Request]", idle_seconds: float) -> None:
    """Answer requests until the parent is gone or nothing was asked for `idle_seconds`."""
    service = Service()
    try:
        while pipe.poll(idle_seconds):
            pipe.send(service.answer(*pipe.recv()))
    except (EOFError, OSError):
        pass  # the parent is gone
    service.close()


def main() -> None:
    """Serve the socket that is standard input; the only argument is the idle time in seconds."""
    descriptor = os.dup(0)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    threading.Thread(target=_end_with_parent, args=(descriptor,), daemon=True).start()
    serve(Connection(descriptor), float(sys.argv[1]))


def _end_with_parent(descriptor: int) -> None:
    """End this process soon after the parent's end of the socket closed, whatever Chroma is doing."""
    hangup = select.poll()
    hangup.register(descriptor, 0)  # asks for nothing but the hang-up itself
    hangup.poll()
    time.sleep(GRACE_SECONDS)
    os._exit(1)


def _settings() -> Any:
    from chromadb.config import Settings

    # no .env: Chroma would read whatever stands in the user's folder
    return Settings(_env_file=None, anonymized_telemetry=False)


def _connect(url: str) -> Any:
    import chromadb

    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 8000)
    try:
        return chromadb.HttpClient(parts.hostname or "", port, ssl=secure, settings=_settings())
    except Exception as error:
        raise Refused("unreachable", f"no Chroma server answers at {parts.hostname}:{port}: {error}"[:500]) from None


def _is_file_with_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _pid_in(path: Path) -> str:
    try:
        return f"pid {int(path.read_text('ascii'))}"
    except (OSError, ValueError):
        return "pid unknown"


if __name__ == "__main__":
    main()
