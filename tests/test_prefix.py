"""Each conversation request begins with the whole previous one, byte for byte, unless a rebase was journaled."""

import asyncio
import json
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos import curate
from agentos.agent import Agent
from agentos.context.validator import violations
from agentos.errors import ProviderError, UsageError
from agentos.messages import Block, Cause, Reply, ToolCall, Usage
from agentos.protocols import LLMRequest
from agentos.runtime import Runtime
from agentos.settings import Settings
from agentos.testing import ExactIndex, FunctionLLM, HashEmbedder, call, say
from conftest import Home, chances, collect, memory_home

ALLOWED = {"start", "reset", "page_out", "pause", "system", "tools", "model", "blocks"}


@dataclass
class Watcher:
    """A model that plays moves and compares each request with the one before."""

    store: Any
    agent_id: str
    moves: list[str] = field(default_factory=list)
    last: list[str] = field(default_factory=list)
    rebases: int = 0
    answered: bool = False
    requests: int = 0
    kept: int = 0
    reasons: list[str] = field(default_factory=list)

    async def reply(self, request: LLMRequest) -> object:
        assert violations(request.messages) == []
        if "[summary request]" in (request.messages[-1]["content"] or ""):
            if "completion" in self.moves:
                raise ProviderError("down")
            return say("notes", usage=Usage(100, 10))
        rebases = await self.store.read(lambda tx: tx.events(self.agent_id, actions=("rebase",), limit=10_000))
        sent = [json.dumps(message) for message in request.messages]
        if len(rebases) == self.rebases:
            assert sent[: len(self.last)] == self.last, "the prefix changed without a rebase"
            if self.answered:
                assert request.previous_length == len(self.last)
            self.kept += 1
        elif self.requests:
            assert request.previous_length == 0
        assert sent[: request.previous_length] == self.last[: request.previous_length]
        self.requests, self.last, self.rebases = self.requests + 1, sent, len(rebases)
        self.reasons = [event["note"] for event in reversed(rebases)]
        made = self.move(request)
        self.answered = isinstance(made, Reply) and bool(made.text or made.calls)
        return made

    def move(self, request: LLMRequest) -> object:
        kind = self.moves.pop(0) if self.moves else "say"
        usage = Usage(sum(len(m["content"] or "") for m in request.messages) // 4 + 1500, 20)
        made: dict[str, tuple[str, list[ToolCall]]] = {
            "say": ("some words " + "w " * 40, []),
            "append": ("", [call("core_memory_append", label="human", content=f"line {self.requests}")]),
            "replace": ("", [call("core_memory_replace", label="human", old_content="line", new_content="fact")]),
            "insert": ("kept", [call("archival_memory_insert", content=f"fact {self.requests}")]),
            "search": ("", [call("archival_memory_search", query="fact")]),
            "recall": ("", [call("conversation_search", query="words")]),
            "timer": ("set", [call("set_timer", when="5m", note="look")]),
            "both": ("x", [call("page_in", ids=["m1"]), call("core_memory_append", label="human", content="y")]),
            "empty": ("", []),
            "long": ("w " * 4000, []),
        }  # fmt: skip
        if kind in ("fail", "completion"):
            return ProviderError("down")
        text, calls = made[kind]
        provider = {"name": "test", "fields": {"thinking": f"so {self.requests}"}} if kind == "search" else None
        return Reply(text, tuple(calls), usage, provider=provider)


MOVES = st.sampled_from(
    ["say", "append", "replace", "insert", "search", "recall", "timer", "both", "empty", "long", "fail", "completion"]
)
ACTIONS = st.sampled_from(
    ["send"] * 6 + ["edit", "undo", "timers", "pause", "reopen", "compact", "new", "attach", "delete"]
)
SESSIONS = st.lists(st.tuples(ACTIONS, st.lists(MOVES, max_size=4)), min_size=2, max_size=9)


async def act(home: Home, agent: Agent, action: str, number: int) -> None:
    clock: Any = home.clock
    if action == "edit":
        await curate.edit_block(home.store, await agent.turn(), "human", f"edited {number}")
    elif action == "undo":
        try:
            await curate.undo(home.store, clock, await agent.turn())
        except UsageError:
            return
    elif action == "delete":
        passages = await home.store.read(lambda tx: tx.recent_passages(agent.id))
        if passages:
            await curate.delete_passage(home.store, clock, agent.id, passages[0].id)
    elif action in ("timers", "pause"):
        clock.advance(timedelta(minutes=4 if action == "timers" else 40))
        await collect(agent)
    elif action == "compact":
        async for _ in agent.compact():
            pass
    elif action == "new":
        await agent.new_conversation()
    elif action == "attach":
        cause = Cause(agent.id, "user")
        await home.store.write(lambda tx: tx.add_block(Block(f"extra{number}", "more"), cause))
    else:
        await collect(agent, f"message {number}")


@settings(max_examples=chances(120))
@given(session=SESSIONS, window=st.sampled_from([8000, 16_000]))
def test_the_prompt_only_grows(session: list[tuple[str, list[str]]], window: int) -> None:
    async def live() -> None:
        async with memory_home() as home:
            watcher = Watcher(home.store, "agent-ada")
            llm = FunctionLLM(watcher.reply, context_window=window, keep_requests=False)
            agent = await home.agent(llm)
            for number, (action, moves) in enumerate(session):
                watcher.moves[:] = moves
                if action == "reopen":
                    agent = await home.agent(llm)
                await act(home, agent, action, number)
            check_reasons(watcher, {action for action, _ in session})

    asyncio.run(live())


def check_reasons(watcher: Watcher, actions: set[str]) -> None:
    """A rebase has a cause that the rules know, and that took place."""
    assert set(watcher.reasons) <= ALLOWED
    if "attach" not in actions:
        assert "blocks" not in watcher.reasons
    if not actions & {"pause", "timers"}:
        assert "pause" not in watcher.reasons
    assert watcher.reasons.count("start") <= 1
    if "new" not in actions:
        assert "reset" not in watcher.reasons
    assert not {"system", "tools", "model"} & set(watcher.reasons)


async def test_what_happens_in_between_leaves_the_prefix_alone(home: Home) -> None:
    watcher = Watcher(home.store, "agent-ada")
    agent = await home.agent(FunctionLLM(watcher.reply))
    for number, move in enumerate(["say", "append", "insert", "search", "both", "replace", "timer", "empty", "recall"]):
        watcher.moves[:] = [move]
        await collect(agent, f"message {number}")
        await act(home, agent, "edit" if number % 2 else "undo", number)
    assert watcher.reasons == ["start"]
    assert watcher.kept == watcher.requests - 1 >= 9


@pytest.mark.parametrize("change", ["system", "tools", "model", "blocks", "pause"])
async def test_each_other_rebase_has_its_reason(home: Home, change: str) -> None:
    watcher = Watcher(home.store, "agent-ada")
    agent = await home.agent(FunctionLLM(watcher.reply))
    await collect(agent, "hi")
    options: dict[str, Any] = {}
    if change == "system":
        options["system"] = "Another text."
    elif change == "tools":
        options["builtin"] = agent.parts.tools.tools["core_memory_append"], agent.parts.tools.tools["page_in"]
    elif change == "model":
        options["name"] = "ada"
    elif change == "blocks":
        await act(home, agent, "attach", 1)
    else:
        await act(home, agent, "edit", 1)
        home.clock.advance(timedelta(minutes=10))  # type: ignore[attr-defined]
    llm = FunctionLLM(watcher.reply, name="test/other" if change == "model" else "test/function")
    again = await home.agent(llm, **options)
    await collect(again, "hi again")
    assert watcher.reasons == ["start", change]
    await collect(again, "and again")
    assert watcher.reasons == ["start", change]


async def test_a_pause_without_an_edit_keeps_the_prefix(home: Home) -> None:
    watcher = Watcher(home.store, "agent-ada")
    agent = await home.agent(FunctionLLM(watcher.reply))
    await collect(agent, "hi")
    home.clock.advance(timedelta(days=3))  # type: ignore[attr-defined]
    await collect(agent, "hi")
    assert watcher.reasons == ["start"]
    assert watcher.kept == 1


async def test_another_provider_does_not_get_the_fields_of_the_first(home: Home) -> None:
    watcher = Watcher(home.store, "agent-ada", moves=["search"])
    agent = await home.agent(FunctionLLM(watcher.reply))
    await collect(agent, "hi")
    assert any("thinking" in sent for sent in watcher.last)
    other = FunctionLLM(lambda r: "ok", name="other/model")
    other.provider = "other"  # type: ignore[misc]
    await collect(await home.agent(other), "hi")
    assert all("thinking" not in message for message in other.requests[0].messages)


async def test_the_prefix_outlives_the_process(tmp_path: Path) -> None:
    watcher = Watcher(None, "")
    for round in range(3):
        options: dict[str, Any] = {"llm": FunctionLLM(watcher.reply), "embedder": HashEmbedder(), "index": ExactIndex()}
        async with Runtime(Settings(home=tmp_path), **options) as runtime:
            agent = await runtime.agent("ada")
            watcher.store, watcher.agent_id = runtime.store, agent.id
            watcher.moves = ["append", "insert", "search", "both", "say"]
            await collect(agent, f"round {round}")
            await curate.edit_block(runtime.store, await agent.turn(), "human", f"edited in round {round}")
    assert watcher.reasons == ["start"]
    assert watcher.kept == watcher.requests - 1 > 4
