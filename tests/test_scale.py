"""What the processes that share a database have beside it: wake-ups, and word of what happens."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from agentos.errors import StoreError, UsageError
from agentos.events import Event, Saved, TextDelta, ToolResultEvent
from agentos.scale.engine import DbosEngine
from agentos.scale.processes import make_dispatcher, work
from agentos.scale.relay import Relay
from agentos.testing import FunctionLLM, temporary_runtime
from postgres import Server


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another process or thread brings about."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # it has no event of its own
            await asyncio.sleep(0.01)


@pytest.fixture
async def engine(postgres: Server) -> AsyncIterator[DbosEngine]:
    engine = DbosEngine(postgres.database("engine"), "test:1")
    yield engine
    await engine.stop()


async def test_wake_ups(engine: DbosEngine) -> None:
    """Each reason once, one agent's one after another, those of several agents side by side."""
    running: list[str] = []
    most: list[int] = []
    done: list[str] = []
    go_on = asyncio.Event()

    async def do(agent_id: str) -> None:
        assert agent_id not in running, "wake-ups of one agent never overlap"
        running.append(agent_id)
        most.append(len(running))
        await go_on.wait()
        running.remove(agent_id)
        done.append(agent_id)

    await engine.start(do, 4)
    for reason in ("r1", "r2", "r2"):
        await engine.wake("agent-a", reason)
    await engine.wake("agent-b", "r3")
    await until(lambda: sorted(running) == ["agent-a", "agent-b"])
    assert await engine.forgotten({"agent-a", "agent-b", "agent-c"}, 60.0) == {"agent-c"}
    # nobody holds them, and they began longer ago than a lease lasts: their process must be dead
    assert "agent-b" in await engine.forgotten({"agent-b"}, 0.0)
    go_on.set()
    await until(lambda: sorted(done) == ["agent-a", "agent-a", "agent-b"])
    assert max(most) == 2
    await asyncio.sleep(0.3)
    assert len(done) == 3
    async with asyncio.timeout(10):
        while await engine.tidy(0.0):  # noqa: ASYNC110  # what is over is removed, however much
            await asyncio.sleep(0.01)
    assert await engine.forgotten({"agent-a"}, 60.0) == {"agent-a"}


async def test_an_engine_without_tables_yet_says_so(engine: DbosEngine) -> None:
    await engine.start(None, 0)  # as a server that starts before the first worker
    with pytest.raises(StoreError, match="it is tried again"):
        await engine.wake("agent-a", "r1")
    with pytest.raises(StoreError, match="it is tried again"):
        await engine.forgotten({"agent-a"}, 1.0)


async def test_a_relay_tells_other_processes_and_not_itself(postgres: Server) -> None:
    url = postgres.database("relay")
    relays = [Relay(url, f"test:{n}") for n in range(2)]
    heard: list[list[tuple[str, Event | str]]] = [[], []]
    for relay, events in zip(relays, heard, strict=True):
        relay.start(lambda agent_id, event, events=events: events.append((agent_id, event)))  # type: ignore[misc]
    await until(lambda: all(relay.connected for relay in relays))
    pieces = [TextDelta(text, place=3, at=at, run_id="run-1", seq=at) for at, text in enumerate("Grüße")]
    for piece in pieces:
        relays[0].tell("agent-a", piece)
    relays[0].tell("agent-a", ToolResultEvent("c", "tool", True, "x" * 20_000, run_id="run-1", seq=9))
    relays[0].tell("agent-b", "run-2")
    await until(lambda: len(heard[1]) >= 3)
    assert heard[1] == [
        ("agent-a", TextDelta("Grüße", place=3, at=0, run_id="run-1", seq=0)),
        ("agent-a", Saved(run_id="run-1", seq=9)),  # too long for a notice: the database has it
        ("agent-b", "run-2"),
    ]
    assert heard[0] == []
    for relay in relays:
        await relay.stop()


async def test_a_home_of_its_own_has_no_workers() -> None:
    async with temporary_runtime(FunctionLLM(lambda _: "ok")) as runtime:
        with pytest.raises(UsageError, match="needs workers beside it"):
            make_dispatcher(runtime, 0)
        with pytest.raises(UsageError, match="a worker needs a database to share"):
            await work(runtime, 4, lambda: None)
