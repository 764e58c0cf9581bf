"""Keeps the vector index in step with SQL, and finds out when it is not.

SQL holds each vector and an outbox of changes; the index can be rebuilt from there at any time. Chroma
loses data silently (a missing segment folder leaves its count intact), so a collection is searched only
after it was proved sound in this process: its count agrees with SQL, and stored vectors spread over it
are found again. Until then, and while it is rebuilt, `CheckedIndex` raises and searches scan SQL. A server
may be started anew without its data: a collection that finds nothing, or does not grow as it should, is
proved again.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from agentos.archive.chroma import CollectionDamaged, IndexDamaged
from agentos.errors import AgentOSError, IndexUnavailable
from agentos.protocols import Embedder, VectorIndex

if TYPE_CHECKING:
    from agentos.protocols import Vectors

BATCH = 500
"""Outbox rows, or vectors, moved at a time."""
EMBED_BATCH = 64
"""Texts embedded at a time; what an interruption can cost."""
PROBES = 20
"""Stored vectors that must be found again. With a quarter of a collection lost, all are found in 1 of 300 cases."""
PROBE_DEPTH = 10
"""Hits asked for; in 1,000 probes of 20,000 much alike texts a sound index missed none."""
SEARCH_SECONDS = 5.0
"""A search waits no longer for the index, and scans the vectors in SQL instead."""
SAME = 0.9999
"""Cosine similarity of a vector with itself, as the index computes it, at least."""


class Change(NamedTuple):
    """One row of the outbox: the passage is to be put into the index or taken out."""

    id: int
    agent_id: str
    passage_id: int
    op: Literal["upsert", "delete"]


class IndexSource(Protocol):
    """What the index is made from: the session database, as `IndexSync` needs it.

    A passage counts as embedded when it is valid and holds a vector of the embedder `fingerprint`.
    """

    async def waiting(self, after: int = 0) -> dict[str, int]:
        """Agents with changes behind the mark `after` (0: with any), each with a mark behind which none of them is.

        The highest mark of all is the `after` of a next call, which then has every change made since.
        """
        ...

    async def pending(self, agent_id: str, limit: int, after_id: int = 0) -> list[Change]:
        """The agent's changes with an id above `after_id`, oldest first; a limit of -1 means all."""
        ...

    async def done(self, change_ids: Sequence[int]) -> None:
        """Forget these changes; unknown ids are ignored."""
        ...

    async def texts(self, agent_id: str, passage_ids: Sequence[int], fingerprint: str) -> list[tuple[int, str]]:
        """(id, text) of those passages that are valid and not embedded."""
        ...

    async def unembedded(self, fingerprint: str, limit: int, after_id: int = 0) -> list[tuple[int, str]]:
        """(id, text) of all agents' valid passages that are not embedded, by id."""
        ...

    async def save_embeddings(self, fingerprint: str, ids: Sequence[int], vectors: "Vectors") -> None:
        """Keep vectors with their passages, in place of any other embedder's."""
        ...

    async def vectors(
        self, agent_id: str, fingerprint: str, *, ids: Sequence[int] | None = None, after_id: int = 0, limit: int = -1
    ) -> "tuple[list[int], Vectors]":
        """The agent's embedded passages (only those in `ids`) as (ids, (n, d) float32), by id.

        Where there are none, d may be 0.
        """
        ...

    async def embedded_ids(self, agent_id: str, fingerprint: str) -> list[int]:
        """The ids of the agent's embedded passages."""
        ...

    async def agents(self, fingerprint: str) -> list[tuple[str, int]]:
        """Every agent that has embedded passages, with their number."""
        ...


class RebuildableIndex(VectorIndex, Protocol):
    """A vector index that can start over."""

    async def prune(self, collections: Collection[str]) -> int:
        """Drop what neither these collections nor this embedder use; how many went."""
        ...

    async def set_aside(self) -> str | None:
        """Begin an empty index in place of a damaged one; where the old one went, if it was kept."""
        ...


@dataclass(frozen=True)
class Soundness:
    """What `verify` found out about one agent's collection."""

    agent_id: str
    sound: bool
    expected: int
    """Vectors that SQL holds and the outbox does not mention."""
    counted: int
    """Vectors that the index says it holds."""
    probed: int = 0
    found: int = 0
    problem: str | None = None
    """One sentence when it is not sound."""


@dataclass(frozen=True)
class Drained:
    """What one `drain` did."""

    embedded: int = 0
    indexed: int = 0
    removed: int = 0
    rebuilt: int = 0
    """Collections that were found unsound on the way and built anew."""
    problem: str | None = None
    """Why changes are left for the next time, if an error is the reason."""


@dataclass(frozen=True)
class Healed:
    """What `heal` or `reindex` did so far."""

    agents: int = 0
    """How many have a collection to look at."""
    embedded: int = 0
    sound: int = 0
    """Collections found in order and left alone."""
    rebuilt: int = 0
    pruned: int = 0
    set_aside: str | None = None
    """Where a damaged index was moved."""
    problem: str | None = None
    """Why the work could not be finished."""


Progress = Callable[[Healed], None]


class IndexSync:
    """Moves changes from `source` into `index`; an agent has a collection above `min_passages` embedded passages.

    One task at a time works on the index. Everything can be interrupted and called again.
    """

    def __init__(self, source: IndexSource, index: RebuildableIndex, embedder: Embedder, min_passages: int = 0) -> None:
        self.source = source
        self.index = index
        self.embedder = embedder
        self.min_passages = min_passages
        self._fingerprint = embedder.fingerprint
        self._sound: dict[str, bool] = {}
        """Collections that were verified in this process, and how that went."""
        self._damaged = False
        self._beyond_repair: set[str | None] = set()
        """Collections (None: the whole index) that a rebuild did not mend; `drain` leaves them alone from then on."""
        self._embedded_up_to = self._indexed_up_to = 0
        self._lock = asyncio.Lock()

    async def drain(self) -> Drained:
        """Embed what waits for its vector, then bring the index up to date. Idempotent.

        Errors of the embedder and the index are returned, never raised: their rows stay for later.
        """
        async with self._lock:
            report = await self._embed_waiting(Drained())
            while True:
                try:
                    return await self._index_waiting(report)
                except IndexDamaged as error:
                    report = await self._recover(report, str(error))
                    if report.problem is not None:
                        return report
                except AgentOSError as error:
                    return replace(report, problem=str(error))

    async def embed_waiting(self) -> Drained:
        """Embed what waits for its vector and leave the index alone. The embedder's errors are returned."""
        async with self._lock:
            return await self._embed_waiting(Drained())

    async def verify(self, agent_id: str) -> Soundness:
        """Compare the agent's collection with SQL. Raises `IndexUnavailable` when the index cannot answer now."""
        async with self._lock:
            return await self._verify(agent_id)

    async def heal(self) -> Healed:
        """Verify every collection and build anew those that are not sound; a damaged index is set aside first."""
        async with self._lock:
            return await self._heal(Healed(), fresh=False, progress=lambda _: None)

    async def reindex(self, progress: Progress = lambda _: None, *, fresh: bool = False) -> Healed:
        """Embed everything this embedder has not embedded, then make every collection agree with SQL.

        Interrupted and called again it goes on: vectors are kept as they are made, and collections
        that are in order are left alone, unless `fresh` builds them all anew. Raises the embedder's errors.
        """
        async with self._lock:
            report = Healed()
            after = 0
            while rows := await self.source.unembedded(self._fingerprint, EMBED_BATCH, after):
                await self._embed(rows)
                after = rows[-1][0]
                report = replace(report, embedded=report.embedded + len(rows))
                progress(report)
            report = await self._heal(report, fresh, progress)
            if report.problem is None:
                try:
                    await self._index_waiting(Drained())  # a collection is sound without what waits for it
                except AgentOSError as error:
                    report = replace(report, problem=str(error))
            return report

    async def is_proved(self, agent_id: str, *, again: bool = False) -> bool:
        """Whether the agent's collection may be searched; the first time in a process, or `again`, it is verified.

        Raises `IndexUnavailable` while other work is going on, rather than wait for it.
        """
        if again or agent_id not in self._sound:
            if self._lock.locked():
                raise IndexUnavailable("the index is being brought up to date")
            await self.verify(agent_id)
        return self._sound.get(agent_id, False)

    def doubt(self, agent_id: str, error: IndexUnavailable) -> None:
        """Take note of an error that a search met; the next `drain` repairs what is broken."""
        if isinstance(error, IndexDamaged):
            self._damaged = True
        if isinstance(error, CollectionDamaged):
            self._sound[agent_id] = False

    # embedding

    async def _embed_waiting(self, report: Drained) -> Drained:
        waiting = await self.source.waiting(self._embedded_up_to)
        for agent_id in waiting:
            after = 0  # not the mark: on Postgres a change may be committed after one with a higher id
            while changes := await self.source.pending(agent_id, BATCH, after):
                after = changes[-1].id
                report = await self._embed_passages(agent_id, _passages(changes), report)
                if report.problem is not None:
                    return report
        self._embedded_up_to = max(waiting.values(), default=self._embedded_up_to)
        return report

    async def _embed_passages(self, agent_id: str, ids: list[int], report: Drained) -> Drained:
        texts = await self.source.texts(agent_id, ids, self._fingerprint)
        for start in range(0, len(texts), EMBED_BATCH):
            rows = texts[start : start + EMBED_BATCH]
            try:
                await self._embed(rows)
            except AgentOSError as error:
                return replace(report, problem=str(error))
            report = replace(report, embedded=report.embedded + len(rows))
        return report

    async def _embed(self, rows: Sequence[tuple[int, str]]) -> None:
        vectors = await self.embedder.embed([text for _, text in rows])
        await self.source.save_embeddings(self._fingerprint, [key for key, _ in rows], vectors)

    # moving

    async def _index_waiting(self, report: Drained) -> Drained:
        if self._damaged:
            raise IndexDamaged("the index is damaged; `agentos reindex` rebuilds it")
        waiting = await self.source.waiting(self._indexed_up_to)
        unsound = [agent_id for agent_id, sound in self._sound.items() if not sound]
        big = await self.agents() if waiting else {}
        for agent_id in dict.fromkeys([*waiting, *unsound]):
            if agent_id in big or agent_id in unsound or self.min_passages == 0:
                report = await self._bring_up_to_date(agent_id, report)
        if report.problem is None:  # after a failed embedding some of these rows are still to come
            self._indexed_up_to = max(waiting.values(), default=self._indexed_up_to)
        return report

    async def agents(self) -> dict[str, int]:
        """The agents with enough embedded passages for a collection, each with their number."""
        found = await self.source.agents(self._fingerprint)
        return {agent_id: count for agent_id, count in found if count > self.min_passages}

    async def _move(self, agent_id: str, report: Drained) -> Drained:
        """Make the index agree with SQL on every passage that the agent's changes name.

        What stands in SQL now decides, not what the change said: so the order of changes, a change done
        twice and one that was half done before a crash are all the same.
        """
        after = 0
        while changes := await self.source.pending(agent_id, BATCH, after):
            after = changes[-1].id
            named = _passages(changes)
            ids, vectors = await self.source.vectors(agent_id, self._fingerprint, ids=named)
            unembedded = {key for key, _ in await self.source.texts(agent_id, named, self._fingerprint)}
            gone = [key for key in named if key not in unembedded and key not in set(ids)]
            if ids:
                await self.index.upsert(agent_id, ids, vectors)
            if gone:
                await self.index.delete(agent_id, gone)
            await self.source.done([c.id for c in changes if c.passage_id not in unembedded])
            report = replace(report, indexed=report.indexed + len(ids), removed=report.removed + len(gone))
        return report

    async def _bring_up_to_date(self, agent_id: str, report: Drained) -> Drained:
        """Move the agent's changes; a collection this process has not verified yet is, and built anew if need be."""
        try:
            report = await self._move(agent_id, report)
            if agent_id not in self._sound or not (await self._count(agent_id))[0].sound:
                await self._verify(agent_id)
        except CollectionDamaged:
            self._sound[agent_id] = False
        if self._sound[agent_id] or agent_id in self._beyond_repair:
            return report
        if not await self._rebuild(agent_id):
            self._beyond_repair.add(agent_id)
        return replace(report, rebuilt=report.rebuilt + 1)

    async def _recover(self, report: Drained, problem: str) -> Drained:
        """After damage to the whole index: begin a new one, once in a process."""
        if None in self._beyond_repair:
            return replace(report, problem=problem)
        self._beyond_repair.add(None)
        healed = await self._heal(Healed(), fresh=False, progress=lambda _: None)
        return replace(report, rebuilt=report.rebuilt + healed.rebuilt, problem=healed.problem or report.problem)

    # verifying and healing

    async def _verify(self, agent_id: str) -> Soundness:
        result = Soundness(agent_id, False, 0, 0)
        try:
            result, certain = await self._count(agent_id)
            if result.sound:
                result = await self._probe(result, certain)
        except CollectionDamaged as error:
            result = replace(result, sound=False, problem=str(error))
        self._sound[agent_id] = result.sound
        return result

    async def _count(self, agent_id: str) -> tuple[Soundness, list[int]]:
        """Whether the collection holds as many vectors as it should, and the ids that are surely among them."""
        # in this order: a passage added meanwhile is then in `moving` whatever happens
        stored = set(await self.source.embedded_ids(agent_id, self._fingerprint))
        moving = {change.passage_id for change in await self.source.pending(agent_id, -1)}
        certain = sorted(stored - moving)
        counted = await self.index.count(agent_id)
        if len(certain) <= counted <= len(stored | moving):
            return Soundness(agent_id, True, len(certain), counted), certain
        problem = f"the index holds {counted} vectors where SQL holds {len(certain)}"
        return Soundness(agent_id, False, len(certain), counted, problem=problem), certain

    async def _probe(self, result: Soundness, certain: list[int]) -> Soundness:
        """Look for stored vectors spread over the collection; each must be found."""
        step = max(1, len(certain) // PROBES)
        _, vectors = await self.source.vectors(
            result.agent_id, self._fingerprint, ids=certain[step // 2 :: step][:PROBES]
        )
        probed = found = 0
        for vector in vectors:
            if not vector.any():
                continue  # a text without a known word is like nothing, not even like itself
            probed += 1
            # an equal one will do: of several equal vectors a sound graph may not reach each
            hits = await self.index.query(result.agent_id, vector, PROBE_DEPTH)
            found += any(similarity >= SAME for _, similarity in hits)
        problem = None if found == probed else f"only {found} of {probed} stored vectors can be found"
        return replace(result, sound=found == probed, probed=probed, found=found, problem=problem)

    async def _heal(self, report: Healed, fresh: bool, progress: Progress) -> Healed:
        try:
            try:
                return await self._heal_all(report, fresh, progress)
            except IndexDamaged:
                report = replace(report, set_aside=await self.index.set_aside(), sound=0, rebuilt=0)
                self._sound.clear()
                self._damaged = False
                return await self._heal_all(report, False, progress)
        except IndexUnavailable as error:
            return replace(report, problem=str(error))

    async def _heal_all(self, report: Healed, fresh: bool, progress: Progress) -> Healed:
        big = await self.agents()
        report = replace(report, agents=len(big))
        for agent_id in big:
            if not fresh and (await self._verify(agent_id)).sound:
                report = replace(report, sound=report.sound + 1)
            elif await self._rebuild(agent_id):
                report = replace(report, rebuilt=report.rebuilt + 1)
            else:
                report = replace(report, problem=f"the index of {agent_id} is not sound even when built anew")
            progress(report)
        return replace(report, pruned=await self.index.prune(big.keys()))

    async def _rebuild(self, agent_id: str) -> bool:
        """Fill the agent's collection anew from SQL; not searched until it proved sound. Whether it did."""
        self._sound[agent_id] = False
        await self.index.drop(agent_id)
        after = 0
        while True:
            ids, vectors = await self.source.vectors(agent_id, self._fingerprint, after_id=after, limit=BATCH)
            if not ids:
                break
            await self.index.upsert(agent_id, ids, vectors)
            after = ids[-1]
        return (await self._verify(agent_id)).sound


class CheckedIndex:
    """The `VectorIndex` that searches use: `query` answers from a collection only when it is proved sound.

    What takes longer than `search_seconds` is not waited for.
    """

    def __init__(self, sync: IndexSync, search_seconds: float = SEARCH_SECONDS) -> None:
        self._sync = sync
        self._search_seconds = search_seconds
        self._index = sync.index

    async def query(self, collection: str, vector: "Vectors", k: int) -> list[tuple[int, float]]:
        """As the index's own; raises `IndexUnavailable` while the collection is unproved or unsound."""
        try:
            async with asyncio.timeout(self._search_seconds):
                if await self._sync.is_proved(collection):
                    hits = await self._index.query(collection, vector, k)
                    if hits or await self._sync.is_proved(collection, again=True):
                        return hits
        except TimeoutError:
            raise IndexUnavailable(f"the index did not answer within {self._search_seconds:g} seconds") from None
        except IndexUnavailable as error:
            self._sync.doubt(collection, error)
            raise
        raise IndexUnavailable(f"the index of {collection} does not agree with SQL and waits to be rebuilt")

    async def upsert(self, collection: str, ids: Sequence[int], vectors: "Vectors") -> None:
        """As the index's own."""
        await self._index.upsert(collection, ids, vectors)

    async def delete(self, collection: str, ids: Sequence[int]) -> None:
        """As the index's own."""
        await self._index.delete(collection, ids)

    async def count(self, collection: str) -> int:
        """As the index's own."""
        return await self._index.count(collection)

    async def drop(self, collection: str) -> None:
        """As the index's own."""
        await self._index.drop(collection)

    async def close(self) -> None:
        """As the index's own."""
        await self._index.close()


def _passages(changes: Sequence[Change]) -> list[int]:
    return list(dict.fromkeys(change.passage_id for change in changes))
