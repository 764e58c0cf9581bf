"""References and conformance suites for vector indexes and embedders, and the session database in memory.

An adapter is right when its suite passes:

    await index_conformance(lambda: MyIndex(place))
    await embedder_conformance(MyEmbedder())
"""

import hashlib
import re
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from agentos.archive.sync import Change
from agentos.errors import IndexUnavailable
from agentos.protocols import Embedder, VectorIndex

if TYPE_CHECKING:
    from agentos.protocols import Vectors


class ExactIndex:
    """The reference: every vector compared. Indexes given the same `place` hold the same vectors."""

    def __init__(self, place: "dict[str, dict[int, Vectors]] | None" = None) -> None:
        self.place = {} if place is None else place
        self.set_aside_count = 0
        self._closed = False

    async def upsert(self, collection: str, ids: Sequence[int], vectors: "Vectors") -> None:
        """Add or replace."""
        self._check()
        if ids:
            self.place.setdefault(collection, {}).update(zip(ids, np.array(vectors, np.float32), strict=True))

    async def delete(self, collection: str, ids: Sequence[int]) -> None:
        """Remove; ids that are not there are ignored."""
        for key in ids:
            self._held(collection).pop(key, None)

    async def query(self, collection: str, vector: "Vectors", k: int) -> list[tuple[int, float]]:
        """The `k` nearest as (id, cosine similarity), best first."""
        held = self._held(collection)
        scores = [(key, float(row @ vector)) for key, row in held.items()]
        return sorted(scores, key=lambda hit: -hit[1])[: max(k, 0)]

    async def count(self, collection: str) -> int:
        """How many vectors the collection holds."""
        return len(self._held(collection))

    async def drop(self, collection: str) -> None:
        """Remove the collection."""
        self._check()
        self.place.pop(collection, None)

    async def prune(self, collections: Collection[str]) -> int:
        """Drop all other collections; how many went."""
        self._check()
        stale = [name for name in self.place if name not in collections]
        for name in stale:
            del self.place[name]
        return len(stale)

    async def set_aside(self) -> str | None:
        """Forget everything."""
        self._check()
        self.place.clear()
        self.set_aside_count += 1
        return None

    async def close(self) -> None:
        """Later calls raise `IndexUnavailable`."""
        self._closed = True

    def _held(self, collection: str) -> "dict[int, Vectors]":
        self._check()
        return self.place.get(collection, {})

    def _check(self) -> None:
        if self._closed:
            raise IndexUnavailable("the index is closed")


class HashEmbedder:
    """Each word has a random direction, fixed by its hash, and a text has the sum of its words'.

    Deterministic and without weights; texts are alike when they share words.
    """

    def __init__(self, dimensions: int = 64, in_process: bool = True) -> None:
        self.name = "hash"
        self.fingerprint = f"hash:{dimensions}"
        self.in_process = in_process
        self.dimensions = dimensions
        self._words: dict[str, Vectors] = {}

    async def embed(self, texts: Sequence[str]) -> "Vectors":
        """(len(texts), dimensions) float32 of length 1; a zero row where a text has no word."""
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in re.findall(r"\w+", text.lower()):
                row += self._direction(word)
            row /= np.linalg.norm(row) or 1.0
        return vectors

    def _direction(self, word: str) -> "Vectors":
        if word not in self._words:
            seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())
            self._words[word] = np.random.default_rng(seed).normal(size=self.dimensions).astype(np.float32)
        return self._words[word]


@dataclass
class MemoryPassage:
    """One passage of `MemorySource`."""

    agent_id: str
    text: str
    valid: bool = True
    vector: "Vectors | None" = None
    fingerprint: str | None = None


class MemorySource:
    """The reference `IndexSource`: passages and their outbox in memory."""

    def __init__(self) -> None:
        self.passages: dict[int, MemoryPassage] = {}
        self.outbox: list[Change] = []
        self._last_change = 0

    def add(self, agent_id: str, text: str) -> int:
        """A new passage without a vector, with its change; its id."""
        key = len(self.passages) + 1
        self.passages[key] = MemoryPassage(agent_id, text)
        self._change(key, "upsert")
        return key

    def end(self, passage_id: int) -> None:
        """The passage is valid no longer."""
        self.passages[passage_id].valid = False
        self._change(passage_id, "delete")

    async def waiting(self, after: int = 0) -> dict[str, int]:
        """See `IndexSource`."""
        return {change.agent_id: change.id for change in self.outbox if change.id > after}

    async def pending(self, agent_id: str, limit: int, after_id: int = 0) -> list[Change]:
        """See `IndexSource`."""
        found = [c for c in self.outbox if c.agent_id == agent_id and c.id > after_id]
        return found[:limit] if limit >= 0 else found

    async def done(self, change_ids: Sequence[int]) -> None:
        """See `IndexSource`."""
        self.outbox = [change for change in self.outbox if change.id not in set(change_ids)]

    async def texts(self, agent_id: str, passage_ids: Sequence[int], fingerprint: str) -> list[tuple[int, str]]:
        """See `IndexSource`."""
        found = await self.unembedded(fingerprint, -1)
        return [(k, text) for k, text in found if k in set(passage_ids) and self.passages[k].agent_id == agent_id]

    async def unembedded(self, fingerprint: str, limit: int, after_id: int = 0) -> list[tuple[int, str]]:
        """See `IndexSource`."""
        found = [
            (k, p.text) for k, p in self.passages.items() if p.valid and p.fingerprint != fingerprint and k > after_id
        ]
        return found[:limit] if limit >= 0 else found

    async def save_embeddings(self, fingerprint: str, ids: Sequence[int], vectors: "Vectors") -> None:
        """See `IndexSource`."""
        for key, vector in zip(ids, vectors, strict=True):
            self.passages[key].vector, self.passages[key].fingerprint = vector, fingerprint

    async def vectors(
        self, agent_id: str, fingerprint: str, *, ids: Sequence[int] | None = None, after_id: int = 0, limit: int = -1
    ) -> "tuple[list[int], Vectors]":
        """See `IndexSource`."""
        found = [k for k in await self.embedded_ids(agent_id, fingerprint) if k > after_id]
        if ids is not None:
            found = [k for k in found if k in set(ids)]
        if limit >= 0:
            found = found[:limit]
        rows = [vector for k in found if (vector := self.passages[k].vector) is not None]
        return found, np.stack(rows) if rows else np.zeros((0, 0), np.float32)

    async def embedded_ids(self, agent_id: str, fingerprint: str) -> list[int]:
        """See `IndexSource`."""
        return [
            k for k, p in self.passages.items() if p.agent_id == agent_id and p.valid and p.fingerprint == fingerprint
        ]

    async def agents(self, fingerprint: str) -> list[tuple[str, int]]:
        """See `IndexSource`."""
        names = dict.fromkeys(p.agent_id for p in self.passages.values())
        counts = [(name, len(await self.embedded_ids(name, fingerprint))) for name in names]
        return [(name, count) for name, count in counts if count]

    def _change(self, passage_id: int, op: Literal["upsert", "delete"]) -> None:
        self._last_change += 1
        self.outbox.append(Change(self._last_change, self.passages[passage_id].agent_id, passage_id, op))


def random_vectors(count: int, dimensions: int = 32, seed: int = 0) -> "Vectors":
    """`count` unit vectors, the same for the same arguments."""
    vectors = np.random.default_rng(seed).normal(size=(count, dimensions))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


# the suite for indexes: each check has a collection of its own


async def check_order(index: VectorIndex, collection: str) -> None:
    """Hits come best first with their cosine similarity, at most k of them, as the exact scan finds them."""
    vectors = random_vectors(40)
    await index.upsert(collection, list(range(1, 41)), vectors)
    oracle = ExactIndex()
    await oracle.upsert(collection, list(range(1, 41)), vectors)
    for vector in random_vectors(5, seed=1):
        hits, expected = await index.query(collection, vector, 10), await oracle.query(collection, vector, 10)
        assert [key for key, _ in hits] == [key for key, _ in expected]
        assert all(abs(a - b) < 1e-4 for (_, a), (_, b) in zip(hits, expected, strict=True))
    assert len(await index.query(collection, vectors[0], 100)) == 40
    assert await index.query(collection, vectors[0], 0) == []


async def check_idempotent(index: VectorIndex, collection: str) -> None:
    """An upsert done twice is an upsert done once, also within one call; empty ones do nothing."""
    vectors = random_vectors(3)
    for _ in range(2):
        await index.upsert(collection, [1, 2, 3], vectors)
    await index.upsert(collection, [1, 1], vectors[[2, 0]])
    await index.upsert(collection, [], vectors[:0])
    await index.delete(collection, [])
    assert await index.count(collection) == 3
    assert (await index.query(collection, vectors[0], 1))[0][0] == 1


async def check_unknown(index: VectorIndex, collection: str) -> None:
    """An unknown collection has no hits and nothing to remove."""
    assert await index.query(collection, random_vectors(1)[0], 5) == []
    assert await index.count(collection) == 0
    await index.delete(collection, [1])
    await index.drop(collection)
    assert await index.count(collection) == 0


async def check_replace(index: VectorIndex, collection: str) -> None:
    """A vector given anew takes the old one's place."""
    old, new = random_vectors(2)
    await index.upsert(collection, [7], old[None])
    await index.upsert(collection, [7], new[None])
    assert await index.count(collection) == 1
    assert (await index.query(collection, new, 1))[0][1] > 0.999


async def check_delete(index: VectorIndex, collection: str) -> None:
    """What was deleted is not found; ids that are not there, or given twice, are ignored."""
    vectors = random_vectors(10)
    await index.upsert(collection, list(range(10)), vectors)
    await index.delete(collection, [3, 3, 99])
    assert await index.count(collection) == 9
    assert 3 not in [key for key, _ in await index.query(collection, vectors[3], 10)]


async def check_drop(index: VectorIndex, collection: str) -> None:
    """A dropped collection is gone, alone, and can begin again, with other dimensions too."""
    await index.upsert(collection, [1, 2], random_vectors(2))
    await index.upsert(f"{collection}-2", [1], random_vectors(1))
    await index.drop(collection)
    assert await index.count(collection) == 0
    assert await index.count(f"{collection}-2") == 1
    await index.upsert(collection, [5], random_vectors(1, 16))
    assert [key for key, _ in await index.query(collection, random_vectors(1, 16)[0], 3)] == [5]


async def check_zero(index: VectorIndex, collection: str) -> None:
    """A zero vector is stored and asked for without harm."""
    vectors = random_vectors(3)
    vectors[1] = 0
    await index.upsert(collection, [1, 2, 3], vectors)
    assert await index.count(collection) == 3
    assert (await index.query(collection, vectors[0], 1))[0][0] == 1
    assert all(abs(similarity) < 1e-4 for _, similarity in await index.query(collection, vectors[1], 3))


INDEX_CHECKS: tuple[Callable[[VectorIndex, str], Awaitable[None]], ...] = (
    check_order, check_idempotent, check_unknown, check_replace, check_delete, check_drop, check_zero,
)  # fmt: skip


async def index_conformance(open_index: Callable[[], VectorIndex]) -> None:
    """The whole suite on what `open_index` opens: each time the same place, empty at first."""
    index = open_index()
    for check in INDEX_CHECKS:
        await check(index, f"agent-{check.__name__}")
    vectors = random_vectors(300)
    await index.upsert("agent-kept", list(range(300)), vectors)
    await index.close()
    await index.close()
    for call in (index.count("agent-kept"), index.query("agent-kept", vectors[0], 1), index.drop("agent-kept")):
        await _refused(call)
    reopened = open_index()
    assert await reopened.count("agent-kept") == 300, "a restart lost vectors"
    assert (await reopened.query("agent-kept", vectors[123], 1))[0][0] == 123
    await reopened.close()


async def _refused(call: Awaitable[object]) -> None:
    try:
        await call
    except IndexUnavailable:
        return
    raise AssertionError("a closed index answered")


async def embedder_conformance(embedder: Embedder) -> None:
    """The suite for embedders: shapes, lengths, order, and texts that break things."""
    texts = ["Ada lives in Lisbon", "the cat sat on the mat", "naïve café 日本語 🙂", "word " * 20_000]
    vectors = await embedder.embed(texts)
    assert vectors.dtype == np.float32
    assert vectors.shape[0] == len(texts)
    _check_lengths(vectors)
    assert np.allclose(vectors, await embedder.embed(texts), atol=1e-4), "the same texts gave other vectors"
    assert np.allclose((await embedder.embed(texts[1:2]))[0], vectors[1], atol=1e-3), "company changes a vector"
    blank = await embedder.embed(["", " \n"])
    assert blank.shape == (2, vectors.shape[1])
    _check_lengths(blank)
    assert (await embedder.embed([])).shape == (0, vectors.shape[1])
    assert embedder.name
    assert embedder.fingerprint


def _check_lengths(vectors: "Vectors") -> None:
    lengths = np.linalg.norm(vectors, axis=1)
    assert np.all((np.abs(lengths - 1) < 1e-3) | (lengths == 0)), f"rows of length {lengths}"
