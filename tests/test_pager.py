"""The pager: whole exchanges leave, nothing that left is lost, and no request is too long or invalid.

Cases with THOROUGH=1: 3 properties of the pure functions with 2,400 each and two with 1,500, and 112 whole sessions of
up to six turns, each of which checks every request it sends: 10,312 cases. Without it a fourth of them.
"""

import asyncio
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

from agentos import curate
from agentos.agent import Agent
from agentos.context import compiler, pager
from agentos.context.tokens import TokenCounter, clip, scaled
from agentos.context.validator import violations
from agentos.errors import ContextOverflow, ProviderError
from agentos.messages import Block, Message, Reply, SummaryEntry, ToolCall, Usage
from agentos.protocols import LLMRequest, SearchQuery
from agentos.state import AgentRecord, AgentState, Limits
from agentos.testing import FunctionLLM, call, say
from agentos.tools.memory import MEMORY_TOOLS, PARKED
from agentos.tools.tool import tool
from conftest import Home, chances, collect, memory_home, of

NOW = datetime(2026, 5, 8, 9, 30, tzinfo=UTC)
WORDS = (
    "tea",
    "Lisbon",
    "café",
    "日本語",
    "🙂",
    "2026-05-08",
    "ada@example.org",
    "https://x.org/a?b=1",
    "No. 17",
    "<b>",
    "\n",
)


def count(text: str) -> int:
    return (len(text.encode()) + 3) // 4


# pure functions


@st.composite
def queues(draw: st.DrawFn) -> list[Message]:
    """A valid queue: user messages and notices, answers, and calls with all their results."""
    queue: list[Message] = []

    def add(role: Any, text: str, **values: Any) -> None:
        number = len(queue) + 1
        created = NOW + timedelta(minutes=number)
        queue.append(
            Message(number, "agent-1", role, text, values.pop("origin", "agent"), created, seq=number, **values)
        )

    dice = random.Random(draw(st.integers(0, 2**32)))
    for kind in draw(st.text("uuunaact", min_size=1, max_size=12)):
        text = " ".join(dice.choices(WORDS, k=3)) + " x" * dice.randint(1, 300)
        if kind == "u" or not queue:
            add("user", text, origin="user")
        elif kind == "n":
            add("user", text, origin="runtime", kind="alert")
        elif kind == "a":
            add("assistant", text)
        else:
            calls = tuple(ToolCall(f"c{len(queue)}-{n}", "look", "{}") for n in range(dice.randint(1, 4)))
            add("assistant", text if kind == "t" else "", calls=calls)
            for one in calls:
                add("tool", text, origin="tool", call_id=one.id, name="look", ok=True)
    return queue


def state_with(queue: list[Message], entries: list[SummaryEntry], blocks: list[Block]) -> AgentState:
    return AgentState(AgentRecord("agent-1", "ada", "assistant", NOW), blocks, blocks, queue, entries)


def entry_over(evicted: list[Message], budget: int, number: int = 1) -> SummaryEntry:
    text = pager.entry_text(evicted, budget, count)
    ids = tuple(m.id for m in evicted)
    return SummaryEntry(
        number, "agent-1", NOW, evicted[0].seq or 0, evicted[-1].seq or 0, ids, text, None, "done", 0, 0
    )


@settings(max_examples=chances(2400))
@given(queue=queues(), fixed=st.integers(0, 500), target=st.integers(0, 2000), more=st.integers(0, 1500))
def test_the_oldest_whole_units_leave(queue: list[Message], fixed: int, target: int, more: int) -> None:
    counter = TokenCounter(count)
    evicted = pager.choose_evicted(queue, counter.message, fixed, target, target + more)
    stays = queue[len(evicted) :]
    assert queue[: len(evicted)] == evicted
    assert not stays or stays[0].role != "tool"
    left = fixed + counter.messages(stays)
    newest = max((i for i, m in enumerate(queue) if m.origin == "user"), default=0)
    if len(evicted) <= newest:  # the newest user message and what follows it may stay up to the whole window
        assert left <= target or len(evicted) == newest
    assert left <= target + more or not stays
    if evicted:  # and no more than needed
        unit = pager.units(queue[: len(evicted)])[-1]
        limit = target if len(evicted) - len(unit) < newest else target + more
        assert left + counter.messages(unit) > limit


@settings(max_examples=chances(2400))
@given(queue=queues(), room=st.integers(0, 3000), budget=st.integers(40, 800))
def test_what_stays_is_a_valid_request(queue: list[Message], room: int, budget: int) -> None:
    evicted = pager.choose_evicted(queue, TokenCounter(count).message, 0, room, room + 500)
    entries = [entry_over(evicted, budget)] if evicted else []
    state = state_with(queue[len(evicted) :], entries, [Block("human", "<Ada>"), Block("rules", "Be brief.")])
    messages = compiler.compile_context(state, "You remember.", "test")
    assert violations(messages) == []
    again = compiler.compile_context(state, "You remember.", "test")
    assert again == messages
    assert [m["role"] for m in messages[:1]] == ["system"]


@settings(max_examples=chances(1500))
@given(queue=queues(), budget=st.integers(60, 800))
def test_an_entry_keeps_its_budget_and_names_what_it_covers(queue: list[Message], budget: int) -> None:
    text = pager.entry_text(queue, budget, count)
    assert count(text) <= budget
    assert f"{queue[0].ref}-{queue[-1].ref}" in text
    spoken = [m for m in queue if m.origin == "user" and m.role == "user"]
    if spoken and budget >= 400:
        assert spoken[0].content.split()[0] in text
    assert pager.entry_text(queue, budget, count) == text


TEXTS = st.one_of(
    st.text(max_size=400), st.builds(lambda w, n: " ".join(w) * n, st.lists(st.sampled_from(WORDS)), st.integers(1, 60))
)


@settings(max_examples=chances(2400))
@given(text=TEXTS.map(lambda t: t.encode("utf-8", "replace").decode()), room=st.integers(1, 400))
def test_clipped_text_fits_and_is_cut_no_shorter_than_it_must(text: str, room: int) -> None:
    shown = clip(text, room, count)
    if shown is None:
        assert count(text) <= room
        return
    assert 0 <= shown < len(text)
    assert count(text[:shown]) <= room
    assert len(text) * 4 > room
    assert count(text[:shown]) >= room // 4 or shown >= 4 * room


@settings(max_examples=chances(1500))
@given(sizes=st.lists(st.integers(1, 500), min_size=1, max_size=12), room=st.integers(1, 1500))
def test_the_oldest_entries_leave_a_full_summary(sizes: list[int], room: int) -> None:
    entries = [
        SummaryEntry(n, "agent-1", NOW, n, n, (n,), "x" * size * 4, None, "done", 0, 0) for n, size in enumerate(sizes)
    ]
    leaving = pager.retired(entries, room, count)
    stay = entries[len(leaving) :]
    assert entries[: len(leaving)] == leaving
    assert stay
    assert len(stay) == 1 or sum(count(e.rendered) for e in stay) <= room


def test_anchors_are_looked_for_in_time_that_grows_with_the_text() -> None:
    """Each of these took seconds once, in which the whole server stood still."""
    words = ["x" * 20_000, "x-" * 10_000, "x--" * 6_600, "1." * 10_000, "a@" * 10_000, "http://" * 3_000, "Ab " * 6_000]
    assert pager.anchors(words * 2)["names"]


def test_anchors_are_taken_mechanically() -> None:
    found = pager.anchors(
        ["Ada met Grace Hopper on 2026-05-08, order ZX-1234-9f, 37.5%, ada@example.org https://a.org/x?y=1"]
    )
    assert found["names"] == ["Grace Hopper"]
    assert found["dates"] == ["2026-05-08"]
    assert found["addresses"] == ["ada@example.org", "https://a.org/x?y=1"]
    assert found["ids and numbers"] == ["ZX-1234-9f", "37.5%"]


# whole sessions


@dataclass
class Plan:
    """One random session."""

    seed: int
    window: int
    ratio: float
    """True tokens for each token of our estimate."""
    reports: bool
    """Whether the provider reports usage."""
    true_window: float
    """Share of the window that the model is said to have."""
    names_window: bool
    moves: list[tuple[str, float]]
    """What the model does, with a size as a share of the window."""
    texts: list[float]
    """The user's messages, as shares of the window."""


SIZES = st.sampled_from([0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 3.0])
MOVES = st.sampled_from(
    ["say", "say", "append", "fetch", "fetches", "many", "bad", "empty", "down", "search", "page_in"]
)
PLANS = st.builds(
    Plan,
    seed=st.integers(0, 2**32),
    window=st.sampled_from([2000, 2500, 3000, 4000, 6000, 8000, 16_000, 32_000]),
    ratio=st.floats(0.7, 1.6),
    reports=st.booleans(),
    true_window=st.sampled_from([1.0, 1.0, 1.0, 0.9, 0.75]),
    names_window=st.booleans(),
    moves=st.lists(st.tuples(MOVES, SIZES), min_size=2, max_size=14),
    texts=st.lists(SIZES, min_size=2, max_size=6),
)


@dataclass
class Provider:
    """A model that follows a plan, counts in its own tokens and refuses what is too long for it."""

    plan: Plan
    dice: random.Random = field(init=False)
    planted: dict[str, str] = field(default_factory=dict)
    """Each token that was planted, with where."""
    step: int = 0
    calibrated: bool = False
    refusals: int = 0
    sent: list[tuple[bool, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.plan.seed)
        self.llm = FunctionLLM(
            self.reply, name="test/paged", context_window=self.plan.window, max_output_tokens=512, keep_requests=False
        )
        self.counter = TokenCounter(count)
        self.room = int(self.plan.window * self.plan.true_window)

    def text(self, share: float, where: str) -> str:
        """A text of about this share of the window, with a token planted anywhere in it."""
        token = f"ZX-{len(self.planted):04d}-9f"
        self.planted[token] = where
        words = self.dice.choices(WORDS, k=max(1, int(share * self.plan.window * 0.4)))
        words.insert(self.dice.randrange(len(words) + 1), token)
        return " ".join(words)

    def true_size(self, request: LLMRequest) -> int:
        estimate = sum(map(self.counter.wire, request.messages)) + self.counter.json(request.tools)
        return scaled(estimate, self.plan.ratio)

    def reply(self, request: LLMRequest) -> object:
        assert violations(request.messages) == []
        size = self.true_size(request)
        if size + request.max_tokens > self.room:
            # allowed only while the provider has told us neither its tokens nor its window
            honest = self.calibrated and self.plan.true_window == 1.0
            assert not honest, f"{size} + {request.max_tokens} of {self.room}"
            self.refusals += 1
            return ContextOverflow("too long", self.room if self.plan.names_window else None)
        self.calibrated = self.calibrated or self.plan.reports
        reply = self.move(request)
        if not isinstance(reply, Reply) or not self.plan.reports:
            return reply
        told = count(reply.text) + sum(count(c.arguments) + 20 for c in reply.calls)
        return Reply(reply.text, reply.calls, Usage(size, scaled(told, self.plan.ratio)))

    def move(self, request: LLMRequest) -> object:
        if "[summary request]" in (request.messages[-1]["content"] or ""):
            return say("Notes on what was said.") if self.dice.random() < 0.8 else ProviderError("down")
        self.step += 1
        kind, share = self.plan.moves[self.step % len(self.plan.moves)]
        share = min(share, 0.5)
        if kind == "say":
            return say(self.text(share, "assistant"))
        if kind == "append":
            content = self.text(min(share, 0.02), "core")
            return say("", call("core_memory_append", label="human", content=content, request_heartbeat=True))
        if kind == "fetch":
            return say("Looking.", call("fetch", share=share * 4))
        if kind == "fetches":
            return say("", *(call("fetch", share=share) for _ in range(self.dice.randint(2, 5))))
        if kind == "many":
            return say(
                "", *(call("core_memory_append", label="human", content=self.text(0.001, "core")) for _ in range(7))
            )
        if kind == "page_in":
            return say("", call("page_in", ids=["m1-m400"]))
        named = {"bad": say("Hm.", call("nothing")), "empty": say(""), "down": ProviderError("down")}
        return named.get(kind) or say("", call("conversation_search", query="tea 17"))


async def live(plan: Plan) -> None:
    """One session with all its checks."""
    provider = Provider(plan)

    @tool
    def fetch(share: float) -> str:
        """Fetch a document."""
        return provider.text(share, "tool")

    async with memory_home() as home:
        agent = await home.agent(
            provider.llm, tools=[fetch], limits=Limits(max_steps=4), system="You remember.",
            builtin=[t for t in MEMORY_TOOLS if t.name in ("core_memory_append", "conversation_search", "page_in")][
                :: 1 if plan.window >= 4000 else 2
            ],
            blocks=[Block("human", limit=200), Block("rules", "Be kind.")],
        )  # fmt: skip
        entries: dict[int, SummaryEntry] = {}
        told = refusals = 0
        for share in plan.texts:
            events = await collect(agent, provider.text(share, "user"))
            for event in events:
                told = told + (event.type == "alert" and event.kind == pager.MEMORY_PRESSURE)
                assert told <= 1, "pressure was told twice in one fill"
                told = 0 if event.type == "page_out" else told
            assert of(events, "result")[-1].result.stop_reason in ("end_turn", "max_steps", "loop", "llm_error")
            await check_summary(home, agent, entries, refusals == provider.refusals)
            refusals = provider.refusals
        await check_nothing_is_lost(home, agent, provider)


async def check_summary(home: Home, agent: Agent, known: dict[int, SummaryEntry], same_window: bool) -> None:
    """Entries are never rewritten, only completed; the summary keeps to its tenth."""
    saved = await home.saved(agent)
    for entry in saved.entries:
        before = known.get(entry.id, entry)
        assert entry.text == before.text
        assert before.prose in (None, entry.prose)
        known[entry.id] = entry
        assert entry.saving_step in ("done", "refused by budget", "model down")
    if len(saved.entries) > 1 and same_window:
        window = (await agent.turn()).window.tokens
        assert count(compiler.render_summary(saved.entries, [])) <= window // 10


async def check_nothing_is_lost(home: Home, agent: Agent, provider: Provider) -> None:
    """Every message that left can be shown by its id and found by what it says; refused writes are parked."""
    saved = await home.saved(agent)
    everything = await home.store.read(lambda tx: tx.recent_messages(agent.id, 100_000))
    evicted = [m for m in everything if m.seq is not None and m.seq <= saved.agent.head_seq]
    records = await home.store.read(lambda tx: tx.entries(agent.id, retired=True))
    covered = [i for entry in records for i in entry.message_ids]
    assert sorted(covered) == sorted(m.id for m in evicted), "each message has left exactly once, with a record"
    shown = await home.store.read(lambda tx: tx.messages(agent.id, covered))
    assert [m.id for m in shown] == sorted(covered)
    gone = {m.id: m for m in evicted}
    texts = {token: m for m in gone.values() for token in provider.planted if m.role != "tool" and token in m.content}
    texts |= {t: m for m in gone.values() for t in provider.planted if m.name == "fetch" and t in m.content}
    for token, message in texts.items():
        query = SearchQuery(token, "recall", roles=("user", "assistant", "tool"))
        hits = await home.search(agent.id, query)
        assert message.ref in [hit.ref for hit in hits], f"{token} in {message.ref} was not found"
    value = next(b.value for b in saved.blocks if b.label == "human")
    called = {token for m in everything for c in m.calls for token in provider.planted if token in c.arguments}
    refused = {m.call_id for m in everything if m.role == "tool" and m.ok is False and m.sources}
    for token in sorted(called):
        by = next(c for m in everything for c in m.calls if token in c.arguments)
        result = next(m for m in everything if m.call_id == by.id)
        if by.id in refused:
            hits = await home.search(agent.id, SearchQuery(token, "archival", tags=(PARKED,)))
            assert [hit.ref for hit in hits] == list(result.sources)
        else:
            assert (token in value) == bool(result.ok), result.content


@pytest.mark.parametrize("shard", range(4))
def test_no_session_loses_anything_or_sends_what_does_not_fit(shard: int) -> None:
    """28 sessions a shard, with THOROUGH=1."""

    @seed(shard)
    @settings(
        max_examples=chances(28), derandomize=False, database=None, phases=[Phase.generate]
    )  # a shrink takes minutes
    @given(plan=PLANS)
    def sessions(plan: Plan) -> None:
        asyncio.run(live(plan))

    sessions()


# single cases


async def test_what_a_rebase_makes_too_long_is_paged_out_before_the_model_is_asked(home: Home) -> None:
    llm = FunctionLLM(lambda r: "ok", context_window=8192, max_output_tokens=1024)
    agent = await home.agent(llm, blocks=[Block("human", limit=4000), Block("rules", limit=2000)])
    while (await agent.turn()).room().prompt_tokens < 0.6 * 8192:
        await collect(agent, "x" * 300)
    for label, size in (("human", 3900), ("rules", 1900)):
        await curate.edit_block(home.store, await agent.turn(), label, "w" * size)
    home.clock.advance(timedelta(hours=1))  # type: ignore[attr-defined]
    room = (await agent.turn()).room()
    await collect(agent, "y " * int((room.window.prompt - room.prompt_tokens) * 1.6))
    counter = TokenCounter(llm.count_tokens)
    sizes = [counter.json(r.tools) + sum(counter.wire(m) for m in r.messages) for r in llm.requests]
    assert max(sizes) <= room.window.prompt


async def test_the_saving_step_comes_before_the_page_out(home: Home) -> None:
    def reply(request: LLMRequest) -> object:
        if "Memory pressure" in (request.messages[-1]["content"] or ""):
            return say("Saved.", call("core_memory_append", label="human", content="what matters"))
        return "ok " + "w " * 300

    agent = await home.agent(FunctionLLM(reply, context_window=10_000))
    events = [e for n in range(50) for e in await collect(agent, f"message {n} " + "x " * 200)]
    outs = of(events, "page_out")
    assert outs
    assert all(e.saving_step == "done" for e in outs)
    assert all(e.tokens_after < 0.41 * 10_000 < 0.7 * 10_000 < e.tokens_before for e in outs)
    kinds = [e.type for e in events if e.type in ("alert", "page_out")]
    assert kinds == ["alert", "page_out"] * len(outs)
    assert "what matters" in (await home.block(agent)).value


async def test_one_input_that_jumps_past_the_limit_is_recorded_as_refused_by_budget(home: Home) -> None:
    agent = await home.agent(FunctionLLM(lambda r: "ok " + "w " * 600, context_window=6000))
    events = [e for n in range(9) for e in await collect(agent, f"message {n} " + "x " * 5000)]
    assert "refused by budget" in [e.saving_step for e in of(events, "page_out")]


async def test_a_model_that_writes_no_notes_holds_nothing_up(home: Home) -> None:
    down = True

    def reply(request: LLMRequest) -> object:
        asked = "[summary request]" in (request.messages[-1]["content"] or "")
        if asked:
            return ProviderError("down") if down else f"Notes on {request.messages[-1]['content'][:40]}"
        return "ok " + "w " * 300

    agent = await home.agent(FunctionLLM(reply, context_window=6000))
    for n in range(40):
        events = await collect(agent, f"message {n} " + "x " * 200)
        assert of(events, "result")[-1].result.stop_reason == "end_turn"
        if of(events, "page_out") and down:
            assert (await home.saved(agent)).entries[-1].prose is None
            down = False
    records = await home.store.read(lambda tx: tx.entries(agent.id, retired=True))
    assert len(records) > 2
    assert all(entry.prose for entry in records), "the entry without notes got them at a later page-out"


async def test_compacting_by_hand_leaves_a_receipt(home: Home) -> None:
    agent = await home.agent(FunctionLLM(lambda r: "ok"))
    for n in range(3):
        await collect(agent, f"message {n}")
    [event] = [e async for e in agent.compact()]
    assert len(event.message_ids) == 4
    [entry] = (await home.saved(agent)).entries
    assert entry.saving_step == "not asked"
    assert entry.prose == "ok"
    assert [e async for e in agent.compact()] == []


async def test_page_faults_keep_more_of_the_tail(home: Home) -> None:
    def reply(request: LLMRequest) -> object:
        last = request.messages[-1]
        if last["role"] == "user" and "message" in last["content"] and "request" not in last["content"]:
            number = sum("message" in str(m["content"]) for m in request.messages)
            return say("", call("conversation_search", query=f"kiwi {number}"))
        return "ok " + "w " * 300

    agent = await home.agent(FunctionLLM(reply, context_window=8000))
    for n in range(30):
        await collect(agent, f"message {n} about kiwi " + "x " * 200)
    faults = await home.store.read(lambda tx: tx.events(agent.id, actions=("page_fault",)))
    assert faults
    assert (await home.saved(agent)).agent.faulting
    after = [e.tokens_after for e in await home.store.read(lambda tx: tx.entries(agent.id, retired=True))]
    assert min(after[-3:]) > max(after[:1])  # the first page-out came before any fault and left less
