"""The same home on PostgreSQL, where several processes write it at once."""

import asyncio
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlmodel import SQLModel

from agentos.curate import detach_block
from agentos.dispatch import Dispatcher
from agentos.errors import AgentBusy, ConfigError, LeaseLost, StoreError, UsageError
from agentos.memory.recall import MessageFilter
from agentos.messages import Block, Cause, Message, Passage
from agentos.protocols import LLMRequest, SearchQuery
from agentos.runtime import Runtime
from agentos.server.inspector.sessions import Sessions
from agentos.settings import Settings
from agentos.state import AgentRecord, InboxItem
from agentos.store.database import Database, make_engine
from agentos.store.holding import hold_lease
from agentos.store.lexical import COMMON
from agentos.store.migrations import HEAD, migrate
from agentos.testing import STORE_CHECKS, ExactIndex, FixedClock, FunctionLLM, HashEmbedder, call, memory_database, say
from agentos.tools.tool import tool
from conftest import Home, collect, ending
from forks import Forks
from postgres import Server

SRC = Path(__file__).parent.parent / "src"
NOW = datetime(2026, 5, 8, 9, 30, tzinfo=UTC)
ADA = AgentRecord("agent-ada", "ada", "assistant", NOW)
BOB = AgentRecord("agent-bob", "bob", "assistant", NOW)
BY_ADA = Cause(ADA.id, "agent")


@pytest.fixture
def url(postgres: Server) -> str:
    return postgres.database()


@pytest.fixture
async def two(url: str) -> AsyncIterator[tuple[Database, Database]]:
    """The database as two processes have it open, with two agents in it."""
    one, other = Database(url), Database(url)
    for agent in (ADA, BOB):
        await one.write(lambda tx, agent=agent: tx.add_agent(agent))  # type: ignore[misc]
    yield one, other
    await asyncio.gather(one.close(), other.close())


@pytest.mark.parametrize("check", STORE_CHECKS)
async def test_conformance(check: Callable[[Any], Any], url: str) -> None:
    store = Database(url)
    try:
        await check(store)
    finally:
        await store.close()


# opening


def test_tables_match_the_models(url: str) -> None:
    engine = make_engine(url.replace("postgresql:", "postgres:"))
    with engine.connect() as connection:
        changes = compare_metadata(MigrationContext.configure(connection), SQLModel.metadata)
        names = set(sa.inspect(connection).get_table_names())
    engine.dispose()
    assert [c for c in changes if "words" not in str(c)] == []
    assert {t.name for t in SQLModel.metadata.tables.values()} <= names
    assert migrate(url) is None


async def test_rows_of_the_first_version_are_kept(postgres: Server) -> None:
    url = postgres.database(template="template0")
    migrate(url, to="0001")
    engine = make_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO passage (agent_id, text, text_hash, origin, created_at, tags) "
            "VALUES ('agent-1', 'tea at four', 'x', 'agent', '2026-05-08T09:30:00.000000+00:00', '[]');"
            "INSERT INTO run (id, agent_id, created_at, trigger, status, steps, llm_calls, spoke, nudged,"
            " prompt_tokens, completion_tokens, cached_tokens) VALUES"
            " ('run-1', 'agent-1', '2026-05-08T09:30:00.000000+00:00', 'user', 'completed', 1, 1, true, false, 1, 1, 0)"
            "; INSERT INTO journal (agent_id, created_at, actor, action, target, note)"
            " SELECT 'agent-1', '2026-05-08T09:30:00.000000+00:00', actor, 'passage.insert', 'p1', note FROM (SELECT"
            " 'client' AS actor, 'replaces p9; from Desk' AS note UNION ALL SELECT 'client', 'from Desk (laptop)'"
            " UNION ALL SELECT 'client', 'replaces p9; from a; from b'"
            " UNION ALL SELECT 'user', 'from here') AS written"
        )
    engine.dispose()
    assert migrate(url) is None, "backups are PostgreSQL's own"
    test_tables_match_the_models(url)
    store = Database(url)
    [passage] = await store.read(lambda tx: tx.recent_passages("agent-1"))
    run = await store.read(lambda tx: tx.run("run-1"))
    events = await store.read(lambda tx: tx.events("agent-1"))
    await store.close()
    assert sorted((e["client"] or "", e["note"]) for e in events) == [
        ("", "from here"), ("Desk", "replaces p9"), ("Desk (laptop)", ""),
        ("a; from b", "replaces p9"),
    ]  # fmt: skip
    assert (passage.text, passage.replaces, passage.superseded_by) == ("tea at four", None, None)
    assert (run.max_steps, run.background, run.decisions) == (None, False, {})


def test_two_that_start_at_once_make_one_schema(postgres: Server) -> None:
    url = postgres.database(template="template0")
    code = f"from agentos.store.migrations import migrate; migrate({url!r})"
    both = [
        subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(SRC)}) for _ in range(2)
    ]
    assert [process.wait(60) for process in both] == [0, 0]
    engine = make_engine(url)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM home").scalar() == 2
    engine.dispose()


def test_what_cannot_be_used_is_named(postgres: Server, url: str) -> None:
    for wrong, says in (
        (url.replace("/test?", "/nowhere?"), "has no such database or user; create it"),
        ("postgresql://nobody@127.0.0.1:9/x", r"at 127.0.0.1 cannot be reached .*; start it or correct AGENTOS_DATABA"),
        (postgres.database("latin", "template0 ENCODING 'LATIN1'"), "has the encoding LATIN1; create it with"),
    ):
        with pytest.raises(StoreError, match=says):
            migrate(wrong)
    with pytest.raises(ConfigError, match="begins with 'mysql', not with 'postgresql'; correct AGENTOS_DATABASE_URL"):
        Database("mysql://x")
    code = f"import sys; sys.modules['psycopg'] = None; from agentos.store.migrations import migrate; migrate({url!r})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SRC)},
        check=False,
    )
    assert "ConfigError: PostgreSQL needs psycopg: pip install 'agentos-kernel[scale]'" in done.stderr


async def test_every_connection_is_set_for_durability_and_against_frozen_processes(url: str) -> None:
    names = ("synchronous_commit", "lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
    store = Database(f"{url}&options=-csynchronous_commit%3Doff")

    def shown(tx: Any) -> list[Any]:
        return [tx.connection.exec_driver_sql(f"SHOW {name}").scalar() for name in names]

    assert await store.write(shown) == await store.read(shown) == ["on", "200ms", "1min", "5s"]
    await store.close()


def test_the_command_line_on_a_new_home(url: str, forks: Forks, tmp_path: Path) -> None:
    places = {"AGENTOS_HOME": str(tmp_path / "home"), "AGENTOS_DATABASE_URL": url}
    for args, said in ((["doctor"], f"schema {HEAD}, 0 agents, sound"), (["agents", "list"], "")):
        done = forks.run(args, "", {**os.environ, **places}, tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert said in " ".join(done.stdout.split())


# several processes


class Gate:
    """Holds a transaction open in its writer's thread until the test lets it go."""

    def __init__(self) -> None:
        self._reached, self._open = threading.Event(), threading.Event()

    def hold(self, tx: Any) -> None:
        self._reached.set()
        assert self._open.wait(10)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, 10)

    def open(self) -> None:
        self._open.set()


async def both_at_once(two: tuple[Database, Database], work: Callable[[Any], Any]) -> list[Any]:
    """`work` in two processes: one has done all but commit when the other begins."""
    gate = Gate()

    def held(tx: Any) -> Any:
        value = work(tx)
        gate.hold(tx)
        return value

    first = asyncio.ensure_future(two[0].write(held))
    await gate.reached()
    second = asyncio.ensure_future(two[1].write(work))
    await asyncio.sleep(0.3)  # longer than the second waits for a lock at a time
    gate.open()
    return await asyncio.gather(first, second, return_exceptions=True)


async def test_what_two_decide_at_once_is_decided_once(two: tuple[Database, Database]) -> None:
    item, said = InboxItem(0, ADA.id, NOW, "o1", "hello"), Message(0, ADA.id, "user", "hello", "user", NOW)
    (first, new), (second, again) = await both_at_once(two, lambda tx: tx.accept(item, [said]))
    assert (first, new, again) == (second, True, False)
    assert await two[0].read(lambda tx: tx.count_messages(ADA.id)) == 1

    passage = Passage(0, ADA.id, "tea at four", "agent", NOW)
    (one, new), (other, again) = await both_at_once(two, lambda tx: tx.add_passage(passage, BY_ADA))
    assert (one.id, new, again) == (other.id, True, False)

    carl = AgentRecord("agent-carl", "carl", "assistant", NOW)
    made, refused = await both_at_once(two, lambda tx: tx.add_agent(carl))
    assert made is None
    assert isinstance(refused, UsageError)

    assert await both_at_once(two, lambda tx: tx.learn_window("m", 1, 2)) == [None, None]

    before = await two[0].read(lambda tx: tx.agent_version(ADA.id))
    await both_at_once(two, lambda tx: tx.update_agent(ADA.id))
    assert await two[1].read(lambda tx: tx.agent_version(ADA.id)) == before + 2

    deleted, refused = await both_at_once(
        two, lambda tx: tx.delete_agent(BOB.id) if tx.agent(BOB.id) and tx.lock_agent(BOB.id) else "gone"
    )
    assert (deleted, refused) == (None, "gone")


async def test_two_who_edit_a_shared_block_at_once_see_each_others_words(two: tuple[Database, Database]) -> None:
    await two[0].write(lambda tx: tx.attach_block(BOB.id, tx.add_block(Block("plan"), BY_ADA).id))

    def append(tx: Any) -> None:
        [block] = tx.blocks(ADA.id)
        tx.write_block(block, f"{block.value}step {block.value.count('step')}. ", BY_ADA, "block.append")

    assert await both_at_once(two, append) == [None, None]
    assert [b.value for b in await two[0].read(lambda tx: tx.blocks(BOB.id))] == ["step 0. step 1. "]


class HeldStore:
    """A store whose writes stand still before their commit."""

    def __init__(self, store: Database, gate: Gate) -> None:
        self.store, self.gate = store, gate

    def write(self, work: Callable[[Any], Any]) -> Any:
        return self.store.write(lambda tx: (work(tx), self.gate.hold(tx))[0])

    read: Any = None


async def test_a_shared_block_is_not_let_go_of_by_all(two: tuple[Database, Database]) -> None:
    await two[0].write(lambda tx: tx.attach_block(BOB.id, tx.add_block(Block("plan"), BY_ADA).id))
    gate = Gate()
    first = asyncio.ensure_future(detach_block(HeldStore(two[0], gate), ADA.id, "plan"))
    await gate.reached()
    second = asyncio.ensure_future(detach_block(two[1], BOB.id, "plan"))
    await asyncio.sleep(0.05)
    gate.open()
    await first
    with pytest.raises(UsageError, match="no other agent has block 'plan'"):
        await second


async def test_numbers_and_texts_that_only_sqlite_could_hold(two: tuple[Database, Database]) -> None:
    assert await two[0].read(lambda tx: tx.event(2**63 - 1)) is None
    await two[0].write(lambda tx: tx.update_agent(ADA.id, persona="a\0b"))
    assert (await two[0].read(lambda tx: tx.agent(ADA.id))).persona == "a\ufffdb"


async def test_who_waits_for_another_process_holds_nobody_up(two: tuple[Database, Database]) -> None:
    gate, order = Gate(), []

    def locked(tx: Any) -> None:
        tx.lock_agent(BOB.id)
        gate.hold(tx)

    def write(agent_id: str, label: str) -> asyncio.Future[Any]:
        future = asyncio.ensure_future(two[1].write(lambda tx: tx.update_agent(agent_id, persona=label)))
        future.add_done_callback(lambda _: order.append(label))
        return future

    first = asyncio.ensure_future(two[0].write(locked))
    await gate.reached()
    waiting = [write(ADA.id, "before"), write(BOB.id, "waits"), write(ADA.id, "after")]
    await waiting[0]
    assert order == ["before"]
    gate.open()
    await asyncio.gather(first, *waiting)
    assert order == ["before", "waits", "after"]
    assert (await two[0].read(lambda tx: tx.agent(ADA.id))).persona == "after"


async def test_two_who_wait_for_each_other_both_finish(two: tuple[Database, Database]) -> None:
    met = threading.Barrier(2)

    def work(first: str, second: str) -> Callable[[Any], None]:
        tries = []

        def both(tx: Any) -> None:
            tx.update_agent(first)
            tries.append(first)
            if len(tries) == 1:
                met.wait(10)
            tx.update_agent(second)

        return both

    await asyncio.gather(two[0].write(work(ADA.id, BOB.id)), two[1].write(work(BOB.id, ADA.id)))
    assert await two[0].read(lambda tx: [tx.agent_version(a.id) for a in (ADA, BOB)]) == [2, 2]


async def test_a_change_that_is_committed_late_is_not_passed_over(two: tuple[Database, Database]) -> None:
    gate = Gate()

    def add(agent: AgentRecord) -> Callable[[Any], Any]:
        return lambda tx: tx.add_passage(Passage(0, agent.id, "tea", "agent", NOW), Cause(agent.id, "agent"))

    def late(tx: Any) -> None:
        add(ADA)(tx)
        gate.hold(tx)

    first = asyncio.ensure_future(two[0].write(late))
    await gate.reached()
    await two[1].write(add(BOB))
    before = await two[1].read(lambda tx: tx.outbox_agents())
    assert set(before) == {BOB.id}
    gate.open()
    await first
    since = await two[1].read(lambda tx: tx.outbox_agents(max(before.values())))
    assert ADA.id in since
    assert await two[1].read(lambda tx: tx.outbox_agents(max(since.values()))) == {}


# the server


async def test_a_server_that_is_gone_is_named_and_found_again(postgres: Server, url: str) -> None:
    store = Database(url)
    await store.write(lambda tx: tx.add_agent(ADA))
    await store.read(lambda tx: tx.agents())
    postgres.stop()
    for method in (store.write, store.read):
        with pytest.raises(StoreError, match=r"cannot be reached \(.*start it .*try again"):
            await method(lambda tx: tx.agents())
    postgres.start()
    assert [a.name for a in await store.read(lambda tx: tx.agents())] == ["ada"]

    def cut_off(tx: Any) -> None:
        tx.update_agent(ADA.id, persona="half done")
        postgres.stop()
        postgres.start()
        tx.update_agent(ADA.id, persona="whole")

    with pytest.raises(StoreError, match="what was not saved whole was not kept"):
        await store.write(cut_off)
    assert (await store.read(lambda tx: tx.agent(ADA.id))).persona == "assistant"
    await store.write(lambda tx: tx.update_agent(ADA.id, persona="whole"))
    await store.close()


async def test_a_turn_outlives_a_restart_of_the_server(postgres: Server, url: str) -> None:
    def restart(request: LLMRequest) -> object:
        postgres.stop()
        postgres.start()
        steps = [say("", call("core_memory_append", label="human", content="Ada."), call("look")), "done"]
        return steps[sum(message["role"] == "assistant" for message in request.messages)]

    @tool
    def look() -> str:
        """Look."""
        postgres.stop()
        postgres.start()
        return "seen"

    home = Home(Database(url), FixedClock())
    agent = await home.agent(FunctionLLM(restart), tools=[look])
    events = await collect(agent, "go", otid="o1")
    assert (ending(events).reply, ending(events).error) == ("done", None)
    assert (await home.block(agent)).value == "Ada."
    await home.store.close()


# the lease


async def test_a_lease_is_one_process_at_a_time(two: tuple[Database, Database]) -> None:
    def take(store: Database, owner: str, seconds: float = 60) -> Any:
        return store.write(lambda tx: tx.take_lease(ADA.id, owner, seconds))

    assert await take(two[0], "one") == 1
    assert await take(two[1], "two") is None
    assert await take(two[0], "one") == 2, "an owner who forgot it takes its own again"
    await two[0].write(lambda tx: tx.release_lease(ADA.id, 1))
    assert await take(two[1], "two") is None, "a lease that was lost is not given back"
    await two[0].write(lambda tx: tx.renew_lease(ADA.id, 2, 0.05))
    await asyncio.sleep(0.1)
    assert await take(two[1], "two") == 3, "the server's clock says that it expired"
    await two[0].write(lambda tx: tx.renew_lease(ADA.id, 2, 0))
    assert await take(two[0], "one") is None
    with pytest.raises(LeaseLost, match="took over this agent's turn"):
        await two[0].write(lambda tx: tx.check_lease(ADA.id, 2))
    await two[1].write(lambda tx: tx.check_lease(ADA.id, 3))
    await two[1].write(lambda tx: tx.release_lease(ADA.id, 3))
    assert await take(two[0], "one") == 4
    assert await two[0].write(lambda tx: tx.take_lease("agent-nobody", "one", 60)) == 0
    got = await both_at_once(two, lambda tx: tx.take_lease(BOB.id, str(id(tx)), 60))
    assert sorted(got, key=str) == [1, None]


def runtime(url: str, folder: Path, llm: Any, seconds: float) -> Runtime:
    settings = Settings(home=folder, database_url=url, lease_seconds=seconds)
    return Runtime(settings, llm=llm, embedder=HashEmbedder(), index=ExactIndex())


async def test_a_worker_taken_for_dead_cannot_write(url: str, tmp_path: Path) -> None:
    """It stands still in its model call, its renewals with it; another one goes on with the turn."""
    asked, awake = threading.Event(), threading.Event()

    def stands_still(_: LLMRequest) -> str:
        asked.set()
        assert awake.wait(10)
        return "from the first"

    async def first() -> None:
        async with runtime(url, tmp_path, FunctionLLM(stands_still), 0.3) as home:
            await (await home.agent()).ask("hello")

    dead = asyncio.create_task(asyncio.to_thread(asyncio.run, first()))
    assert await asyncio.to_thread(asked.wait, 10)
    async with runtime(url, tmp_path, FunctionLLM(lambda _: "from the second"), 60) as alive:
        agent = await alive.agent()
        assert ending(await collect(agent)).reply == "from the second"
        awake.set()
        with pytest.raises(LeaseLost, match="took over this agent's turn"):
            await dead
        [run] = await alive.store.read(lambda tx: tx.runs(agent.id))
        said = await alive.store.read(lambda tx: tx.run_messages(run.id))
        assert [m.content for m in said if m.role == "assistant"] == ["from the second"]


async def test_what_a_dead_worker_left_can_be_cancelled(url: str, tmp_path: Path) -> None:
    llm = FunctionLLM(lambda _: RuntimeError("a bug"))
    async with runtime(url, tmp_path, llm, 60) as dead, runtime(url, tmp_path, llm, 60) as alive:
        agent = await dead.agent()
        item = await agent.accept(["hello"], max_steps=2, background=True)
        with pytest.raises(RuntimeError, match="a bug"):
            await collect(agent)
        dispatcher = Dispatcher(alive)
        async with dead.lock(agent.id):
            assert await dispatcher.cancel(agent.id) == {item.run_id: "failed"}
        assert await dispatcher.cancel(agent.id) == {item.run_id: "cancelled"}
        run = await alive.store.read(lambda tx: tx.run(item.run_id))
    assert (run.status, run.max_steps, run.background) == ("cancelled", 2, True)


async def test_two_who_ask_the_same_are_one_turn_however_long_it_takes(url: str, tmp_path: Path) -> None:
    asked = 0

    async def slow(_: LLMRequest) -> str:
        nonlocal asked
        asked += 1
        await one.store.write(lambda tx: time.sleep(1.0))  # a busy writer, longer than a lease that nobody renews
        return f"answer {asked}"

    llm = FunctionLLM(slow)
    async with runtime(url, tmp_path, llm, 0.8) as one, runtime(url, tmp_path, llm, 0.8) as two:
        agents = await asyncio.gather(one.agent(), two.agent())
        assert agents[0].id == agents[1].id
        results = await asyncio.gather(*(agent.ask("hello", otid="o1") for agent in agents))
        assert [r.reply for r in results] == ["answer 1"] * 2
        assert results[0].run_id == results[1].run_id
        await one.delete_agent(agents[0].id)
        with pytest.raises(UsageError, match="this agent was deleted"):
            await agents[1].ask("hello?")
        with pytest.raises(UsageError, match="this agent was deleted"):
            await collect(agents[1])


async def test_who_cannot_have_the_lease_says_so(two: tuple[Database, Database]) -> None:
    assert await two[0].write(lambda tx: tx.take_lease(ADA.id, "one", 60)) == 1
    with pytest.raises(AgentBusy, match="the message is saved"):
        async with hold_lease(two[1], ADA.id, "two", seconds=60, wait_seconds=0.1):
            pass


# full text


async def test_scores_are_those_of_sqlite(two: tuple[Database, Database]) -> None:
    """Where no word is repeated; for a document's length counts its different words."""
    sqlite, dice = memory_database(), random.Random(1)
    words = [f"word{n}" for n in range(30)]
    texts = [" ".join(dice.sample(words, dice.randint(3, 12))) for _ in range(60)]
    questions = [dice.sample(words, 3) for _ in range(10)]
    found = []
    for store in (sqlite, two[0]):
        if store is sqlite:
            await store.write(lambda tx: tx.add_agent(ADA))

        def fill(tx: Any) -> None:
            for text in texts:
                tx.add_passage(Passage(0, ADA.id, text, "agent", NOW), BY_ADA)

        def ask(tx: Any) -> list[list[int]]:
            filters: dict[str, Any] = {"tags": (), "start": None, "end": None, "limit": 60}
            return [tx.lexical_passages(ADA.id, question, **filters) for question in questions]

        await store.write(fill)
        found.append(await store.read(ask))
    for one, other in zip(*found, strict=True):
        assert set(one) == set(other)
        assert len(set(one[:5]) & set(other[:5])) >= 4
    await sqlite.close()


async def test_common_words_do_not_hide_what_is_rare(two: tuple[Database, Database]) -> None:
    columns = "agent_id, role, content, origin, created_at, utc_offset, kind, heartbeat, keywords"

    def fill(tx: Any) -> None:
        for text in ("'the boat number ' || n || ' lies in the harbour'", "'the boat Esmeralda lies in the harbour'"):
            values = f"'{ADA.id}', 'user', {text}, 'user', '{NOW.isoformat()}', 0, 'message', false, ''"
            count = COMMON + 1 if "number" in text else 1
            tx.connection.exec_driver_sql(
                f"INSERT INTO message ({columns}) SELECT {values} FROM generate_series(1, {count}) AS n"
            )
        tx.add_message(Message(0, ADA.id, "user", "Esmeralda sang", "user", NOW))

    await two[0].write(fill)
    search = Home(two[0], FixedClock()).search
    found = await search(ADA.id, SearchQuery("boat Esmeralda harbour", "recall", limit=2))
    assert {hit.text for hit in found} == {"the boat Esmeralda lies in the harbour", "Esmeralda sang"}
    assert len(await search(ADA.id, SearchQuery("boat harbour lies", "recall"))) == 10


async def test_a_text_too_long_for_the_index_is_kept(two: tuple[Database, Database]) -> None:
    text = " ".join(f"w{n:x}" for n in range(400_000))
    saved = await two[0].write(lambda tx: tx.add_message(Message(0, ADA.id, "user", text, "user", NOW)))
    assert (await two[0].read(lambda tx: tx.messages(ADA.id, [saved.id])))[0].content == text
    wanted = MessageFilter(("user",))
    for word, expected in (("wff", {saved.id}), ("w61a7f", set())):
        [scores] = await two[0].read(lambda tx, word=word: tx.message_scores(ADA.id, [word], wanted, 10))  # type: ignore[misc]
        assert set(scores) == expected


async def test_a_session_that_two_servers_end_at_once_has_ended(postgres: Server) -> None:
    url = postgres.database()
    stores = [Database(url), Database(url)]
    servers = [Sessions("token", store, lambda: 1000.0) for store in stores]
    for _ in range(10):
        session = servers[0].begin()
        await asyncio.gather(*(server.end(session) for server in servers * 2))
        assert not await servers[1].good(session)
    for store in stores:
        await store.close()
