"""The index follows SQL: drained, verified, healed, rebuilt; whatever fails leaves the rows for later."""

import asyncio
import copy
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agentos.archive.chroma import ChromaIndex, CollectionDamaged, IndexDamaged
from agentos.archive.chroma_process import DATABASE
from agentos.archive.sync import CheckedIndex, Healed, IndexSync
from agentos.errors import IndexUnavailable, ProviderError
from agentos.testing.indexes import ExactIndex, HashEmbedder, MemorySource

if TYPE_CHECKING:
    from agentos.protocols import Vectors

ADA, BOB = "agent-ada", "agent-bob"


class FailingEmbedder(HashEmbedder):
    """Fails after `good` texts."""

    def __init__(self, good: int, dimensions: int = 64) -> None:
        super().__init__(dimensions)
        self.good = good

    async def embed(self, texts: Sequence[str]) -> "Vectors":
        self.good -= len(texts)
        if self.good < 0:
            raise ProviderError("the embedder is down")
        return await super().embed(texts)


class FailingIndex(ExactIndex):
    """Raises `error` from whatever asks it something, until it is set aside."""

    error: IndexUnavailable | None = None

    def _check(self) -> None:
        super()._check()
        if self.error is not None:
            raise self.error

    async def set_aside(self) -> str | None:
        self.error = None
        return await super().set_aside() or "aside"


def write(source: MemorySource, agent_id: str, count: int) -> list[int]:
    return [source.add(agent_id, f"{agent_id} noted fact number {i} about subject{i}") for i in range(count)]


async def nearest(index: ExactIndex | ChromaIndex | CheckedIndex, agent_id: str, number: int) -> int:
    vector = (await HashEmbedder().embed([f"{agent_id} noted fact number {number} about subject{number}"]))[0]
    return (await index.query(agent_id, vector, 1))[0][0]


@pytest.fixture
def source() -> MemorySource:
    return MemorySource()


@pytest.fixture
def index() -> FailingIndex:
    return FailingIndex()


@pytest.fixture
def sync(source: MemorySource, index: FailingIndex) -> IndexSync:
    return IndexSync(source, index, HashEmbedder())


# draining


async def test_drain_embeds_and_indexes_each_agent_apart(
    source: MemorySource, index: ExactIndex, sync: IndexSync
) -> None:
    ada, bob = write(source, ADA, 1200), write(source, BOB, 3)
    report = await sync.drain()
    assert (report.embedded, report.indexed, report.problem) == (1203, 1203, None)
    assert source.outbox == []
    assert [await index.count(agent) for agent in (ADA, BOB)] == [1200, 3]
    assert await nearest(index, ADA, 777) == ada[777]
    assert await nearest(index, BOB, 2) == bob[2]
    assert await sync.drain() == type(report)()


async def test_drain_takes_ended_passages_out_whatever_the_order(
    source: MemorySource, index: ExactIndex, sync: IndexSync
) -> None:
    first, second, third = write(source, ADA, 3)
    source.end(second)  # before it ever got in
    await sync.drain()
    source.end(third)
    source.passages[third].valid = True  # and taken back: SQL counts, not what the change said
    source.end(first)
    report = await sync.drain()
    assert (report.indexed, report.removed) == (1, 1)
    assert list(index.place[ADA]) == [third]


async def test_drain_done_halfway_is_done_again(source: MemorySource, index: ExactIndex, sync: IndexSync) -> None:
    write(source, ADA, 10)
    changes = list(source.outbox)
    await sync.drain()
    source.outbox = changes  # the process died before it could forget them
    again = IndexSync(source, index, HashEmbedder())
    assert (await again.drain()).indexed == 10
    assert await index.count(ADA) == 10
    assert source.outbox == []


async def test_failing_embedder_leaves_its_rows_and_hinders_nobody(source: MemorySource, index: ExactIndex) -> None:
    write(source, ADA, 100)
    embedder = FailingEmbedder(good=64)
    sync = IndexSync(source, index, embedder)
    report = await sync.drain()
    assert report.problem == "the embedder is down"
    assert (report.embedded, report.indexed) == (64, 64)
    assert len(source.outbox) == 36
    embedder.good = 1000
    report = await sync.drain()
    assert (report.embedded, report.indexed, report.problem) == (36, 36, None)
    assert source.outbox == []
    assert (await sync.verify(ADA)).sound


async def test_index_that_is_down_leaves_rows_and_embeds_meanwhile(
    source: MemorySource, index: FailingIndex, sync: IndexSync
) -> None:
    write(source, ADA, 5)
    index.error = IndexUnavailable("in use by another process")
    report = await sync.drain()
    assert report.problem == "in use by another process"
    assert len(source.outbox) == 5
    assert len((await source.vectors(ADA, "hash:64"))[0]) == 5, "the exact scan has nothing to scan"
    index.error = None
    assert (await sync.drain()).indexed == 5


async def test_agent_with_few_passages_waits(source: MemorySource, index: ExactIndex) -> None:
    sync = IndexSync(source, index, HashEmbedder(), min_passages=10)
    write(source, ADA, 10)
    write(source, BOB, 11)
    report = await sync.drain()
    assert (report.embedded, report.indexed) == (21, 11)
    assert list(index.place) == [BOB]
    assert {change.agent_id for change in source.outbox} == {ADA}
    assert (await sync.heal()).agents == 1
    write(source, ADA, 1)
    assert (await sync.drain()).indexed == 11
    assert await index.count(ADA) == 11
    assert source.outbox == []


# verifying


async def test_verify_counts_what_sql_holds_and_allows_for_what_waits(
    source: MemorySource, index: ExactIndex, sync: IndexSync
) -> None:
    ids = write(source, ADA, 50)
    await sync.drain()
    source.end(ids[0])
    write(source, ADA, 1)
    found = await sync.verify(ADA)
    assert found.sound
    assert (found.expected, found.counted, found.probed, found.found) == (49, 50, 20, 20)
    del index.place[ADA][ids[1]], index.place[ADA][ids[2]]
    found = await sync.verify(ADA)
    assert not found.sound
    assert found.problem == "the index holds 48 vectors where SQL holds 49"


async def test_verify_misses_vectors_that_cannot_be_found(
    source: MemorySource, index: ExactIndex, sync: IndexSync
) -> None:
    ids = write(source, ADA, 100)
    await sync.drain()
    for key in ids[:25]:  # the count stays right
        index.place[ADA][key] = index.place[ADA][ids[99]]
    found = await sync.verify(ADA)
    assert not found.sound
    assert found.problem == "only 15 of 20 stored vectors can be found"
    assert (await sync.heal()).rebuilt == 1
    assert (await sync.verify(ADA)).sound


async def test_verify_is_not_deceived_by_equal_and_empty_texts(source: MemorySource, sync: IndexSync) -> None:
    for _ in range(30):
        source.add(ADA, "the very same words")
        source.add(ADA, "...")  # no word in it
    await sync.drain()
    found = await sync.verify(ADA)
    assert found.sound
    assert 0 < found.probed < 20


async def test_unknown_agent_is_sound(sync: IndexSync) -> None:
    assert (await sync.verify("agent-nobody")).sound


# searching only what is proved


async def test_search_waits_for_proof(source: MemorySource, index: ExactIndex, sync: IndexSync) -> None:
    ids = write(source, ADA, 30)
    await sync.drain()
    later = IndexSync(source, index, HashEmbedder())  # another process, another day
    checked = CheckedIndex(later)
    assert await nearest(checked, ADA, 3) == ids[3]
    index.place[ADA].clear()
    with pytest.raises(IndexUnavailable, match="does not agree"):
        await nearest(CheckedIndex(unproved := IndexSync(source, index, HashEmbedder())), ADA, 3)
    assert (await unproved.drain()).rebuilt == 1  # nothing waits, but a search has met it
    assert await nearest(CheckedIndex(unproved), ADA, 3) == ids[3]


async def test_search_does_not_wait_for_other_work(source: MemorySource, index: ExactIndex) -> None:
    write(source, ADA, 200)

    class Searching(HashEmbedder):
        """Searches in the middle of a drain."""

        refused = 0

        async def embed(self, texts: Sequence[str]) -> "Vectors":
            with pytest.raises(IndexUnavailable, match="being brought up to date"):
                await nearest(CheckedIndex(sync), ADA, 1)
            self.refused += 1
            return await super().embed(texts)

    sync = IndexSync(source, index, Searching())
    await sync.drain()
    assert isinstance(sync.embedder, Searching)
    assert sync.embedder.refused == 4


async def test_damage_met_by_a_search_is_repaired_by_the_next_drain(
    source: MemorySource, index: FailingIndex, sync: IndexSync
) -> None:
    ids = write(source, ADA, 30)
    await sync.drain()
    index.error = IndexDamaged("crashed twice")
    with pytest.raises(IndexDamaged):
        await nearest(CheckedIndex(sync), ADA, 1)
    report = await sync.drain()
    assert (report.rebuilt, report.problem) == (1, None)
    assert await nearest(CheckedIndex(sync), ADA, 1) == ids[1]
    index.error = IndexDamaged("crashed twice")  # again: once in a process is enough
    source.add(ADA, "one more")
    assert (await sync.drain()).problem == "crashed twice"
    assert index.set_aside_count == 1


async def test_collection_that_cannot_be_repaired_is_left_to_the_scan(
    source: MemorySource, index: FailingIndex
) -> None:
    class Forgetful(ExactIndex):
        """Keeps the number and loses the vectors."""

        drops = 0

        async def query(self, collection: str, vector: "Vectors", k: int) -> list[tuple[int, float]]:
            raise CollectionDamaged("cannot load the segment")

        async def drop(self, collection: str) -> None:
            self.drops += 1
            await super().drop(collection)

    forgetful = Forgetful()
    sync = IndexSync(source, forgetful, HashEmbedder())
    write(source, ADA, 5)
    for _ in range(3):
        assert (await sync.drain()).problem is None
    assert forgetful.drops == 1
    with pytest.raises(IndexUnavailable, match="does not agree"):
        await nearest(CheckedIndex(sync), ADA, 1)
    healed = await sync.heal()
    assert healed.problem == f"the index of {ADA} is not sound even when built anew"


# healing


async def test_heal_leaves_sound_collections_alone_and_drops_strangers(
    source: MemorySource, index: ExactIndex, sync: IndexSync
) -> None:
    write(source, ADA, 30)
    write(source, BOB, 30)
    await sync.drain()
    index.place["agent-gone"] = {}
    kept = index.place[ADA]
    index.place[BOB].popitem()
    healed = await sync.heal()
    assert (healed.agents, healed.sound, healed.rebuilt, healed.pruned) == (2, 1, 1, 1)
    assert index.place[ADA] is kept
    assert len(index.place[BOB]) == 30


@pytest.mark.parametrize("way", ["drain", "reindex"])
async def test_nothing_waits_once_a_damaged_index_is_replaced(
    source: MemorySource, index: FailingIndex, sync: IndexSync, way: str
) -> None:
    write(source, ADA, 3)
    index.error = IndexDamaged("broken")
    report = await (sync.drain() if way == "drain" else sync.reindex())
    assert (report.problem, source.outbox, await index.count(ADA)) == (None, [], 3)


async def test_heal_says_why_it_could_not(source: MemorySource, index: FailingIndex, sync: IndexSync) -> None:
    write(source, ADA, 3)
    await sync.drain()
    index.error = IndexUnavailable("in use by another process (pid 1)")
    healed = await sync.heal()
    assert healed.problem == "in use by another process (pid 1)"
    assert healed.set_aside is None


# reindexing


async def test_reindex_goes_on_where_it_was_interrupted(source: MemorySource, index: ExactIndex) -> None:
    write(source, ADA, 150)
    write(source, BOB, 150)
    await IndexSync(source, index, HashEmbedder(32)).drain()
    embedder = FailingEmbedder(good=200)
    index = FailingIndex()  # as on a real one, the new embedder's collections are others
    sync = IndexSync(source, index, embedder)
    seen: list[Healed] = []
    with pytest.raises(ProviderError, match="down"):
        await sync.reindex(seen.append)
    assert [report.embedded for report in seen] == [64, 128, 192]
    with pytest.raises(IndexUnavailable):  # no search sees the part that is done
        await nearest(CheckedIndex(sync), ADA, 5)
    embedder.good = 150
    report = await IndexSync(source, index, embedder).reindex(seen.append)
    assert (report.embedded, report.rebuilt, report.problem) == (108, 2, None)
    assert embedder.good == 42, "texts were embedded twice"
    assert await nearest(index, BOB, 149) == 300
    report = await IndexSync(source, index, embedder).reindex()
    assert (report.embedded, report.rebuilt, report.sound) == (0, 0, 2)


async def test_fresh_reindex_builds_all_anew(source: MemorySource, index: ExactIndex, sync: IndexSync) -> None:
    write(source, ADA, 5)
    await sync.drain()
    old = index.place[ADA]
    assert (await sync.reindex(fresh=True)).rebuilt == 1
    assert index.place[ADA] is not old


# the same on a real Chroma


def chroma_at(place: Path) -> ChromaIndex:
    return ChromaIndex(place, None, "hash:64", rest_seconds=0.01)


@pytest.fixture(scope="module")
def drained(tmp_path_factory: pytest.TempPathFactory) -> tuple[MemorySource, Path]:
    """1,500 passages of Ada's, and the folder of the index that holds them."""
    source, place = MemorySource(), tmp_path_factory.mktemp("drained") / "chroma"
    write(source, ADA, 1500)

    async def drain() -> None:
        chroma = chroma_at(place)
        assert (await IndexSync(source, chroma, HashEmbedder()).drain()).problem is None
        await chroma.close()

    asyncio.run(drain())
    return source, place


def lose_segments(place: Path) -> None:
    for folder in place.iterdir():
        if folder.is_dir():
            shutil.rmtree(folder)


def lose_header(place: Path) -> None:
    for file in place.glob("*/header.bin"):
        file.unlink()


def lose_database(place: Path) -> None:
    (place / DATABASE).unlink()


def write_garbage(place: Path) -> None:
    (place / DATABASE).write_bytes(b"not a database " * 500)


@pytest.mark.parametrize("damage", [lose_segments, lose_header, lose_database, write_garbage])
async def test_chroma_is_rebuilt_after_damage(
    drained: tuple[MemorySource, Path], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    source = copy.deepcopy(drained[0])
    ids = list(source.passages)
    damage(shutil.copytree(drained[1], tmp_path / "chroma"))
    chroma = chroma_at(tmp_path / "chroma")
    sync = IndexSync(source, chroma, HashEmbedder())
    try:
        with pytest.raises(IndexUnavailable):
            await nearest(CheckedIndex(sync), ADA, 700)
        report = await sync.drain()
        assert (report.rebuilt, report.problem) == (1, None)
        assert await nearest(CheckedIndex(sync), ADA, 700) == ids[700]
        assert (await sync.heal()).sound == 1
    finally:
        await chroma.close()
