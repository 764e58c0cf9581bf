"""What waits for its vector and for the index is taken in beside everything else, and what fails is tried again."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agentos import Runtime, Settings
from agentos.archive.background import BackgroundDrain
from agentos.archive.source import SqlIndexSource
from agentos.archive.sync import IndexSync
from agentos.errors import ProviderError
from agentos.messages import Cause, Passage
from agentos.testing import ExactIndex, HashEmbedder, ScriptedLLM, call, memory_database, say
from agentos.testing.indexes import MemorySource

if TYPE_CHECKING:
    from agentos.protocols import Vectors

ADA = "agent-ada"


class TroubledEmbedder(HashEmbedder):
    """A remote one that raises `errors` first, one a call, and hangs while `hanging`."""

    def __init__(self, *errors: Exception, hanging: bool = False) -> None:
        super().__init__(in_process=False)
        self.errors = list(errors)
        self.hanging = hanging
        self.called_at: list[float] = []

    async def embed(self, texts: Sequence[str]) -> "Vectors":
        self.called_at.append(asyncio.get_running_loop().time())
        if self.hanging:
            await asyncio.sleep(60)
        if self.errors:
            raise self.errors.pop(0)
        return await super().embed(texts)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came about")


async def test_whatever_comes_is_taken_in_by_and_by() -> None:
    source, index = MemorySource(), ExactIndex()
    drain = BackgroundDrain(IndexSync(source, index, HashEmbedder()), look_seconds=0.001, settle_seconds=0)
    drain.start()
    for number in (1, 2):
        source.add(ADA, f"fact {number}")  # as if by another process: nobody tells
        await until(lambda: not source.outbox)
    await drain.stop()
    assert await index.count(ADA) == 2
    source.add(ADA, "fact 3")
    await asyncio.sleep(0.02)
    assert len(source.outbox) == 1, "it is stopped"


async def test_a_process_that_may_end_soon_leaves_the_index_alone() -> None:
    source, index = MemorySource(), ExactIndex()
    drain = BackgroundDrain(IndexSync(source, index, HashEmbedder()), look_seconds=0.001, settle_seconds=60)
    source.add(ADA, "a fact")
    drain.start()
    await until(lambda: source.passages[1].vector is not None)
    await drain.stop()
    assert index.place == {}
    assert len(source.outbox) == 1


async def test_failures_are_tried_again_after_growing_pauses() -> None:
    source, embedder = MemorySource(), TroubledEmbedder(ProviderError("down"), RuntimeError("odd"), ProviderError("x"))
    drain = BackgroundDrain(IndexSync(source, ExactIndex(), embedder), look_seconds=0.02, settle_seconds=0)
    source.add(ADA, "a fact")
    drain.start()
    await until(lambda: not source.outbox)
    await drain.stop()
    at = embedder.called_at
    assert [late - early >= pause for early, late, pause in zip(at, at[1:], (0.03, 0.07, 0.15), strict=False)] == [
        True, True, True
    ]  # fmt: skip


async def test_the_last_embedding_is_bounded_and_left_out_while_the_embedder_fails() -> None:
    source, embedder = MemorySource(), TroubledEmbedder(hanging=True)
    source.add(ADA, "a fact")
    await BackgroundDrain(IndexSync(source, ExactIndex(), embedder)).embed_rest(timeout_seconds=0.01)
    failing = TroubledEmbedder(*[ProviderError("down")] * 100)
    drain = BackgroundDrain(IndexSync(source, ExactIndex(), failing), look_seconds=0.001)
    drain.start()
    await until(lambda: len(failing.called_at) > 0)
    await asyncio.sleep(0)
    await drain.stop()
    tried = len(failing.called_at)
    await drain.embed_rest()
    assert len(failing.called_at) == tried


async def test_one_prompt_with_a_remote_embedder_leaves_its_vector(tmp_path: Path) -> None:
    def home(*script: Any) -> Runtime:
        return Runtime(
            Settings(home=tmp_path), llm=ScriptedLLM(list(script)), embedder=HashEmbedder(in_process=False),
            index=ExactIndex(),
        )  # fmt: skip

    async with home(say("kept", call("archival_memory_insert", content="The ferry leaves at nine"))) as runtime:
        agent = await runtime.agent("ada")
        await agent.ask("keep it")
        assert await runtime.sync.source.embedded_ids(agent.id, "hash:64") == []
    async with home() as runtime:
        assert await runtime.sync.source.embedded_ids(agent.id, "hash:64") == [1]


@pytest.mark.parametrize("times", [1, 3])
async def test_a_drained_outbox_is_filled_again(times: int) -> None:
    """Numbers of changes that are gone are not given again, or a drain would take new ones for old."""
    database, index = memory_database(), ExactIndex()
    sync = IndexSync(SqlIndexSource(database), index, HashEmbedder())
    now = datetime(2026, 5, 8, tzinfo=UTC)
    try:
        for day in range(3):
            passages = [Passage(0, ADA, f"day {day} fact {n}", "agent", now) for n in range(times)]
            await database.write(lambda tx, new=passages: [tx.add_passage(p, Cause(ADA, "agent")) for p in new])  # type: ignore[misc]
            assert (await sync.drain()).indexed == times
        assert await index.count(ADA) == 3 * times
        assert await database.read(lambda tx: tx.outbox_sizes()) == {}
    finally:
        await database.close()
