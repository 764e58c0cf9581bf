"""What the tests share: a home in memory, an agent in it, and no provider's key in sight."""

import os
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from agentos.actions.saved import load_state
from agentos.actions.turn import Parts
from agentos.agent import Agent
from agentos.events import Event, TurnEnded, TurnResult
from agentos.memory.search import HybridSearch
from agentos.memory.vectors import to_bytes
from agentos.messages import Block, Cause
from agentos.prompts import prompt
from agentos.protocols import LLM, Clock, SearchQuery
from agentos.state import AgentRecord, AgentState, Limits
from agentos.store.database import Database
from agentos.testing import ExactIndex, FixedClock, HashEmbedder, memory_database
from agentos.tools.memory import MEMORY_TOOLS
from agentos.tools.tool import Tool
from agentos.tools.toolset import Toolset
from forks import Forks
from postgres import Server, binaries

OF_TESTS = ("AGENTOS_REQUIRE_BROWSER", "AGENTOS_SCREENSHOTS")
"""Settings of the tests themselves (inspecting.py)."""
for name in [n for n in os.environ if n.startswith("AGENTOS_") or n.endswith("_API_KEY")]:
    if name in OF_TESTS:
        continue
    del os.environ[name]  # a test answers for itself, whatever the machine is set up for

THOROUGH = "THOROUGH" in os.environ
"""`THOROUGH=1 make test` tries more, in a few minutes more, where chance decides what is tried."""
settings.register_profile("agentos", deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
settings.load_profile("agentos")


def chances(many: int) -> int:
    """How much of what chance can bring is tried: so many, by default a fourth of them."""
    return many if THOROUGH else many // 4


@asynccontextmanager
async def no_lock(_: str) -> AsyncIterator[None]:
    yield


class Memory:
    """`MemoryPort` over a store, with the hybrid search and the hash embedder."""

    def __init__(self, search: HybridSearch, agent_id: str, run_id: str | None) -> None:
        self._search, self._agent_id, self._run_id = search, agent_id, run_id

    async def search(self, query: SearchQuery) -> Any:
        return await self._search(self._agent_id, query, not_run=self._run_id)

    async def embed(self, text: str) -> tuple[bytes, str] | None:
        return to_bytes((await self._search.embedder.embed([text]))[0]), self._search.embedder.fingerprint

    async def messages(self, ids: list[int]) -> Any:
        return await self._search.store.read(lambda tx: tx.messages(self._agent_id, ids))

    async def passages(self, ids: list[int]) -> Any:
        return await self._search.store.read(lambda tx: tx.passages(self._agent_id, ids))


@dataclass
class Home:
    """One store with the agents a test makes in it."""

    store: Any
    clock: Clock

    def __post_init__(self) -> None:
        self.store.clock = self.clock
        self.search = HybridSearch(self.store, HashEmbedder(), ExactIndex())

    async def agent(
        self,
        llm: LLM,
        *,
        name: str = "ada",
        blocks: Sequence[Block] = (Block("human", limit=1000),),
        tools: Iterable[Tool] = (),
        limits: Limits | None = None,
        system: str | None = None,
        builtin: Sequence[Tool] = MEMORY_TOOLS,
        store: Any = None,
        ttl: int = 300,
    ) -> Agent:
        """The agent `name`, made with `blocks` on first use."""
        agent_id = f"agent-{name}"

        def work(tx: Any) -> None:
            if tx.agent(agent_id) is None:
                tx.add_agent(AgentRecord(agent_id, name, "assistant", datetime(2026, 1, 1, tzinfo=UTC)))
                for block in blocks:
                    tx.add_block(block, Cause(agent_id, "runtime"))

        await self.store.write(work)
        parts = Parts(
            store=store or self.store, llm=llm, tools=Toolset([*builtin, *tools]),
            memory=lambda a, r: Memory(self.search, a, r), clock=self.clock, system=system or prompt("system"),
            cache_ttl_seconds=ttl, limits=limits or Limits(),
        )  # fmt: skip
        return Agent(agent_id, parts, no_lock)

    async def saved(self, agent: Agent) -> AgentState:
        """The agent's state as the database has it."""
        now = self.clock.now()
        return await self.store.read(lambda tx: load_state(tx, agent.id, now))

    async def block(self, agent: Agent, label: str = "human") -> Block:
        return next(b for b in (await self.saved(agent)).blocks if b.label == label)


@asynccontextmanager
async def memory_home(store: Any = None) -> AsyncIterator[Home]:
    database = store or memory_database()
    try:
        yield Home(database, FixedClock())
    finally:
        await database.close()


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    forks = Forks()
    yield forks
    forks.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    pytest.importorskip("psycopg", reason="psycopg is not installed: agentos-kernel[scale]")
    if (folder := binaries()) is None:
        pytest.skip("pgserver, which carries PostgreSQL, is not installed")
    server = Server(folder)
    yield server
    server.close()


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
async def home(clock: FixedClock) -> AsyncIterator[Home]:
    database: Database = memory_database()
    yield Home(database, clock)
    await database.close()


@pytest.fixture(params=["sqlite", "postgres"])
async def either_home(request: Any, clock: FixedClock) -> AsyncIterator[Home]:
    """`home` on each kind of database."""
    on_postgres = request.param == "postgres"
    database = Database(request.getfixturevalue("postgres").database()) if on_postgres else memory_database()
    yield Home(database, clock)
    await database.close()


async def collect(agent: Agent, text: str | None = None, **options: Any) -> list[Event]:
    """Every event of sending `text`, or of `run` when there is none."""
    stream = agent.run() if text is None else agent.send(text, **options)
    return [event async for event in stream]


def ending(events: list[Event]) -> TurnResult:
    """How the last turn among `events` ended."""
    return next(e.result for e in reversed(events) if isinstance(e, TurnEnded))


def of(events: list[Event], kind: str) -> list[Any]:
    """The events of one type."""
    return [e for e in events if e.type == kind]
