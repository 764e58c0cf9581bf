"""Calls that somebody has to approve: asked, decided, refused, never bricked."""

import asyncio
import io
import json
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from letta_client import ConflictError, NotFoundError
from rich.console import Console

from agentos.agent import Agent
from agentos.cli.approvals import calls
from agentos.cli.opening import Chosen
from agentos.cli.remote import open_remote
from agentos.context import pager
from agentos.context.validator import violations
from agentos.dispatch import Dispatcher
from agentos.errors import Conflict, NotFound, UsageError
from agentos.events import Event, TurnEnded, TurnResult
from agentos.messages import Input, Message, ToolCall
from agentos.next_action import AskModel, AwaitApproval, End, Idle, Room, RunCall, next_action
from agentos.runtime import Runtime
from agentos.server.own import _turn
from agentos.settings import Settings
from agentos.state import AgentRecord, AgentState, Decision, InboxItem, RunRecord, Schedule
from agentos.store.history import Part
from agentos.talk import HomeTalk
from agentos.testing import ExactIndex, FixedClock, HashEmbedder, ScriptedLLM, call, say, temporary_runtime
from agentos.tools.tool import Tool, tool
from forks import Forks
from postgres import Server
from serving import TOKEN, Served, served
from test_chat_terminal import CTRL_C, CTRL_D, ENTER, chatting

YES, NO = Decision(True), Decision(False, "not on a Friday")


class Shop:
    """Tools whose effects lie outside the database, and what they did."""

    def __init__(self) -> None:
        self.done: list[str] = []
        shop = self

        @tool(approval="ask")
        def buy(what: str) -> str:
            """Buy something."""
            shop.done.append(f"bought {what}")
            return f"bought {what}"

        @tool
        def look(what: str) -> str:
            """Look at something."""
            shop.done.append(f"looked at {what}")
            return f"{what} costs 3"

        @tool(approval="never")
        def steal(what: str) -> str:
            """Take something."""
            shop.done.append(f"stole {what}")
            return "gone"

        self.tools: tuple[Tool, ...] = (buy, look, steal)


@asynccontextmanager
async def opened(*script: Any, **options: Any) -> AsyncIterator[tuple[Runtime, Agent, Shop]]:
    """(runtime, the agent ada, the shop); the prompts it sent are valid."""
    shop, llm = Shop(), ScriptedLLM(script)
    async with temporary_runtime(llm, tools=shop.tools, clock=FixedClock(), **options) as runtime:
        yield runtime, await runtime.agent("ada"), shop
        assert not llm.script, "the script was not played to its end"
        assert [violations(request.messages) for request in llm.requests] == [[]] * len(llm.requests)


async def waiting(agent: Agent) -> list[str]:
    """Ids of the calls that wait."""
    return [c.id for c in (await agent.state()).undecided_calls()]


async def results(agent: Agent) -> list[str]:
    """The results of tools in the queue."""
    return [m.content for m in (await agent.state()).queue if m.role == "tool"]


async def turns(events: AsyncIterator[Event]) -> list[TurnResult]:
    """How the turns among the events ended or stopped."""
    return [event.result async for event in events if isinstance(event, TurnEnded)]


async def due(runtime: Runtime) -> list[str]:
    return await runtime.store.read(lambda tx: tx.agents_due(runtime.clock.now()))


# the decision itself


def test_the_next_action_is_computed_from_what_is_saved() -> None:
    now = datetime(2026, 5, 8, tzinfo=UTC)
    first, free, second = (
        ToolCall(f"call_{n}", name, "{}", asks=name == "buy") for n, name in enumerate(("buy", "look", "buy"))
    )
    said = Message(1, "a", "assistant", "", "agent", now, seq=1, run_id="r", calls=(first, free, second))
    run = RunRecord("r", "a", now)
    state = AgentState(AgentRecord("a", "ada", "assistant", now), [], [], [said], [], run)
    room = Room(pager.Window(32_768, 1024), 100, 100, lambda m: 10)

    def action(run: RunRecord, answered: int = 0, **changes: Any) -> object:
        done = [
            Message(2 + n, "a", "tool", "ok", "tool", now, seq=2 + n, run_id="r", call_id=c.id, ok=True)
            for n, c in enumerate(said.calls[:answered])
        ]
        cancelled = changes.pop("cancelled", False)
        return next_action(replace(state, run=run, queue=[said, *done], **changes), replace(room, cancelled=cancelled))

    stopped = replace(run, stop_reason="requires_approval")
    assert action(run) == AwaitApproval((first, second))
    assert action(stopped) == Idle()
    assert isinstance(action(stopped, spoken_to=True), End)
    assert action(stopped, waiting=InboxItem(1, "a", now)) == Idle(), "a notice of the system's is no answer"
    assert action(stopped, cancelled=True) == End("cancelled")
    half = replace(run, decisions={first.id: YES})
    assert action(half) == RunCall(first)
    assert action(half, 1) == RunCall(free)
    assert action(half, 2) == AwaitApproval((second,))
    whole = replace(run, decisions={first.id: NO, second.id: Decision(False)})
    assert action(whole) == RunCall(first, "not on a Friday")
    assert action(whole, 2) == RunCall(second, "no reason was given")
    assert isinstance(action(whole, 3), AskModel | End)


async def test_a_call_waits_and_runs_once_it_is_approved() -> None:
    script = [say("", call("look", what="tea"), call("buy", what="tea"), call("look", what="milk")), "There you are."]
    async with opened(*script) as (runtime, agent, shop):
        result = (await turns(agent.send("tea please", otid="one")))[-1]
        (wanted,) = result.approvals
        assert (result.stop_reason, wanted["name"], wanted["arguments"]) == (
            "requires_approval",
            "buy",
            {"what": "tea"},
        )
        assert result.as_json()["approvals"] == [wanted]
        assert [c["name"] for c in result.tool_calls] == ["look"]
        assert shop.done == ["looked at tea"]
        run = (await agent.state()).run
        assert run is not None
        assert (run.status, run.stop_reason) == ("running", "requires_approval")
        assert not await due(runtime), "nothing is done meanwhile"
        assert not await turns(agent.run())
        assert (await agent.ask("tea please", otid="one")).approvals == [wanted], "who asks again hears the same"
        with pytest.raises(Conflict, match="does not wait"):
            await agent.decide({"call_none": YES})
        with pytest.raises(Conflict, match="no call"):
            await agent.decide({wanted["call_id"]: YES}, run_id="run-of-another")
        with pytest.raises(UsageError, match="nothing is decided"):
            await agent.decide({})
        with pytest.raises(UsageError, match="waits for approval"):
            await agent.new_conversation()
        (ended,) = await turns(agent.approve({wanted["call_id"]: replace(YES, by="Eva")}))
        assert (ended.stop_reason, ended.reply) == ("end_turn", "There you are.")
        assert "approvals" not in ended.as_json()
        assert shop.done == ["looked at tea", "bought tea", "looked at milk"], "in the order of the calls"
        with pytest.raises(Conflict, match="no call"):
            await agent.decide({wanted["call_id"]: YES})
        saved = await runtime.store.read(lambda tx: tx.run(run.id))
        decision = saved.decisions[wanted["call_id"]]
        assert (decision.approve, decision.by, decision.at) == (True, "Eva", runtime.clock.now())
        (event,) = await runtime.store.read(lambda tx: tx.events(agent.id, actions=("call.approve",)))
        assert (event["target"], event["actor"], event["run_id"]) == (wanted["call_id"], "user", run.id)


async def test_a_refusal_is_the_calls_result_and_the_step_goes_on() -> None:
    async with opened(say("", call("buy", what="wine")), "Then not.") as (_, agent, shop):
        await agent.ask("wine please")
        (call_id,) = await waiting(agent)
        result = (await turns(agent.approve({call_id: NO})))[-1]
        assert (result.reply, shop.done) == ("Then not.", [])
        assert await results(agent) == ["error: the user did not approve this call: not on a Friday"]
        assert [c["ok"] for c in result.tool_calls] == [False]


async def test_of_two_that_ask_each_is_decided_alone() -> None:
    twice = say("", call("buy", what="tea"), call("buy", what="wine"), call("buy", what=""))
    async with opened(replace(twice, calls=twice.calls[:2]), "Tea it is.") as (_, agent, shop):
        await agent.ask("tea and wine")
        tea, wine = await waiting(agent)
        result = (await turns(agent.approve({tea: YES})))[-1]
        assert [c["call_id"] for c in result.approvals] == [wine]
        assert shop.done == ["bought tea"]
        with pytest.raises(Conflict, match="decided already"):
            await agent.decide({tea: NO, wine: NO})
        assert await waiting(agent) == [wine], "nothing of a refused request is kept"
        result = (await turns(agent.approve({wine: NO})))[-1]
        assert (result.reply, shop.done) == ("Tea it is.", ["bought tea"])


async def test_a_later_call_may_be_decided_first() -> None:
    async with opened(say("", call("buy", what="tea"), call("buy", what="wine")), "Done.") as (_, agent, shop):
        await agent.ask("tea and wine")
        tea, wine = await waiting(agent)
        assert (await turns(agent.approve({wine: YES})))[-1].stop_reason == "requires_approval"
        assert shop.done == []
        await turns(agent.approve({tea: YES}))
        assert shop.done == ["bought tea", "bought wine"]


async def test_what_cannot_run_asks_nobody() -> None:
    broken = replace(call("buy", what="tea"), arguments="{}", error="the arguments are not JSON")
    script = [say("", broken, call("buy", whom="tea"), call("steal", what="tea")), "I cannot."]
    async with opened(*script) as (runtime, agent, shop):
        result = await agent.ask("tea")
        assert (result.stop_reason, shop.done) == ("end_turn", [])
        llm: Any = runtime.llm()
        assert "steal" not in str(llm.requests[0].tools), "a tool that never runs is not shown"
        assert [r.split(";")[0] for r in await results(agent)] == [
            "error: the arguments are not JSON", "error: argument 'what' is missing", "error: there is no tool 'steal'",
        ]  # fmt: skip


async def test_an_agent_may_have_it_otherwise() -> None:
    buy = [say("", call("buy", what=n)) for n in ("one", "two")]
    steal, late = say("", call("steal", what="it")), say("", call("look", what="it"))
    async with opened(buy[0], "1", late, buy[1], "2", steal, "3") as (runtime, agent, shop):
        await runtime.set_approval(agent.id, "buy", "always")
        agent = await runtime.agent("ada")
        assert (await agent.ask("buy it")).reply == "1"
        await runtime.set_approval(agent.id, "buy", "never")
        await runtime.set_approval(agent.id, "look", "ask")
        agent = await runtime.agent("ada")
        await agent.ask("look at it")
        await turns(agent.approve({(await waiting(agent))[0]: NO}))
        assert (await results(agent))[-1].startswith("error: there is no tool 'buy'")
        await runtime.set_approval(agent.id, "steal", "ask")
        await runtime.set_approval(agent.id, "look", None)
        agent = await runtime.agent("ada")
        await agent.ask("take it")
        await runtime.set_approval(agent.id, "steal", "always")  # what waits goes on waiting
        agent = await runtime.agent("ada")
        assert not await turns(agent.run())
        await turns(agent.approve({(await waiting(agent))[0]: YES}))
        assert shop.done == ["bought one", "stole it"]
        with pytest.raises(NotFound, match="borrow"):
            await runtime.set_approval(agent.id, "borrow", "ask")
        wrong: Any = "sometimes"
        with pytest.raises(UsageError, match="always, ask, never"):
            await runtime.set_approval(agent.id, "buy", wrong)


# never bricked


async def test_a_message_refuses_what_waits_and_its_own_turn_begins() -> None:
    script = [say("", call("look", what="it"), call("buy", what="tea"), call("look", what="milk")), "Coffee then."]
    async with opened(*script) as (runtime, agent, shop):
        first = await agent.ask("tea")
        old, new = await turns(agent.send("no, coffee"))
        assert (old.run_id, old.stop_reason, old.approvals) == (first.run_id, "requires_approval", [])
        assert old.error == "buy was not approved: the user wrote something else instead"
        assert old.reply == "", "nobody needs a word about it"
        assert (new.stop_reason, new.reply) == ("end_turn", "Coffee then.")
        assert (await results(agent))[1:] == [
            "error: the user did not approve this call: the user wrote something else instead",
            "error: not run, the turn stopped: requires_approval",
        ]
        run = await runtime.store.read(lambda tx: tx.run(first.run_id))
        assert (run.status, run.stop_reason, run.ended_at) == ("completed", "requires_approval", runtime.clock.now())
        assert shop.done == ["looked at it"]


async def test_a_chat_that_is_open_keeps_what_was_set_elsewhere() -> None:
    script = [say("", call("look", what="it")), "Seen.", say("", call("look", what="it again"))]
    async with opened(*script) as (runtime, agent, shop):
        talk = HomeTalk(runtime, "ada", agent)
        assert [t.stop_reason for t in await turns(talk.send("look"))] == ["end_turn"]
        await runtime.set_approval(agent.id, "look", "ask")
        assert [t.stop_reason for t in await turns(talk.send("look again"))] == ["requires_approval"]
        assert shop.done == ["looked at it"]


async def test_timers_schedules_and_the_systems_words_wait() -> None:
    later = {"when": "1h", "note": "water"}
    script = [say("", call("set_timer", **later), call("buy", what="tea")), "bought", "watered", "brief", "asked"]
    async with opened(*script) as (runtime, agent, _):
        dispatcher = Dispatcher(runtime)
        await agent.ask("tea, and remind me")
        clock: Any = runtime.clock
        now = clock.advance(timedelta(hours=2))
        schedule = Schedule("schedule-1", agent.id, now, (Input("how was it?"),), next_at=now)
        await runtime.store.write(lambda tx: tx.add_schedule(schedule))
        brief = await agent.accept([Input("be brief", origin="runtime", kind="alert", name="system")])
        assert not await due(runtime), "a sweep finds nothing to do"
        assert await HomeTalk(runtime, "ada", agent).news(unfinished=True) is None, "nor does a chat"
        await dispatcher.sweep()
        assert not dispatcher.running
        assert await runtime.store.read(lambda tx: tx.due_schedules(now)), "it fires when there is a decision"
        item = await dispatcher.decide(agent.id, {(await waiting(agent))[0]: YES})
        result = await dispatcher.result(item)
        assert result is not None
        assert result.reply == "bought"
        assert await dispatcher.result(brief)
        await dispatcher.sweep()
        await dispatcher.drain(agent.id)
        said = [m.content for m in (await agent.state()).queue if m.role == "assistant"]
        assert said[-3:] == ["watered", "brief", "asked"]
        await dispatcher.stop(1.0)


async def test_what_a_schedule_sent_before_is_no_answer() -> None:
    async with opened(say("", call("buy", what="tea")), "ok", "fine") as (runtime, agent, _):
        now = runtime.clock.now()
        await agent.accept(["tea"])
        schedule = Schedule("schedule-1", agent.id, now, (Input("how was it?"),), next_at=now)
        await runtime.store.write(lambda tx: tx.add_schedule(schedule))
        await agent.accept(schedule.inputs, otid=f"schedule-1@{now.isoformat()}")
        assert [r.stop_reason for r in await turns(agent.run())] == ["requires_approval"]
        assert not await due(runtime)
        await agent.decide({(await waiting(agent))[0]: YES})
        assert await due(runtime) == [agent.id]
        assert len(await turns(agent.run())) == 2


async def test_a_decision_that_meets_a_message_holds_for_one_of_them() -> None:
    """The message was seen first, but the decision was saved before the turn could be ended."""
    async with opened(say("", call("buy", what="tea")), "bought", "second") as (_, agent, shop):
        await agent.ask("tea")
        (call_id,) = await waiting(agent)
        await agent.accept(["or not"])
        parts, store = agent.parts, agent.parts.store

        class Between:
            """Another process decides right before the first commit."""

            done = False

            def read(self, work: Callable[[Any], Any]) -> Any:
                return store.read(work)

            async def write(self, work: Callable[[Any], Any]) -> Any:
                if not self.done:
                    self.done = True
                    await agent.decide({call_id: YES})
                return await store.write(work)

        other = Agent(agent.id, replace(parts, store=Between()), agent._lock)
        ended = await turns(other.run())
        assert [r.reply for r in ended] == ["bought", "second"]
        assert shop.done == ["bought tea"]


async def test_what_waits_can_be_cancelled() -> None:
    async with opened(say("", call("buy", what="tea")), "later") as (runtime, agent, shop):
        dispatcher = Dispatcher(runtime)
        item = await dispatcher.accept(agent.id, ["tea"])
        result = await dispatcher.result(item)
        assert result is not None
        assert result.approvals
        assert await dispatcher.cancel(agent.id) == {item.run_id: "cancelled"}
        await dispatcher.drain(agent.id)
        result = await dispatcher.result(item)
        assert result is not None
        assert (result.stop_reason, result.approvals) == ("cancelled", [])
        assert await results(agent) == ["error: not run, the turn stopped: cancelled"]
        assert (await agent.ask("and now")).reply == "later"
        assert shop.done == []
        await dispatcher.stop(1.0)


async def test_who_was_told_that_it_waits_hears_its_end_too() -> None:
    async with opened(say("", call("buy", what="tea")), "There.") as (runtime, agent, _):
        dispatcher = Dispatcher(runtime)
        item = await dispatcher.accept(agent.id, ["tea"])
        first = await dispatcher.result(item)
        assert first is not None
        await agent.decide({first.approvals[0]["call_id"]: YES})  # as another process would
        assert await dispatcher.result(item, 0.0) is None
        await dispatcher.drain(agent.id)
        last = await dispatcher.result(item)
        assert last is not None
        assert last.reply == "There."
        await dispatcher.stop(1.0)


# after a restart


def runtime_at(folder: Path, shop: Shop, *script: Any, **settings: Any) -> Runtime:
    return Runtime(
        Settings(home=folder, **settings), llm=ScriptedLLM(script), tools=shop.tools, clock=FixedClock(),
        embedder=HashEmbedder(), index=ExactIndex(),
    )  # fmt: skip


async def test_it_survives_a_restart_and_a_kill_behind_the_decision(tmp_path: Path) -> None:
    shop = Shop()
    async with runtime_at(tmp_path, shop, say("", call("buy", what="tea"))) as runtime:
        assert (await (await runtime.agent("ada")).ask("tea")).stop_reason == "requires_approval"
    async with runtime_at(tmp_path, shop) as runtime:
        agent = await runtime.agent("ada")
        dispatcher = Dispatcher(runtime)
        await dispatcher.start()
        await dispatcher.sweep()
        assert not dispatcher.running
        await dispatcher.stop(0.0)
        await agent.decide({(await waiting(agent))[0]: YES})
    # and here the process was killed: what was decided is done at the next start
    async with runtime_at(tmp_path, shop, "There.") as runtime:
        dispatcher = Dispatcher(runtime)
        await dispatcher.sweep()
        agent = await runtime.agent("ada")
        await dispatcher.drain(agent.id)
        assert shop.done == ["bought tea"]
        assert await results(agent) == ["bought tea"]
        await dispatcher.stop(0.0)


async def test_a_kill_in_the_approved_call_leaves_it_as_any_other() -> None:
    async with opened(say("", call("buy", what="tea")), "I cannot tell.") as (runtime, agent, shop):
        await agent.ask("tea")
        (call_id,) = await waiting(agent)
        await agent.decide({call_id: YES})
        store = runtime.store

        class Dies:
            """The process ends behind the mark that the call began."""

            def read(self, work: Callable[[Any], Any]) -> Any:
                return store.read(work)

            async def write(self, work: Callable[[Any], Any]) -> Any:
                await store.write(work)
                raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await turns(Agent(agent.id, replace(agent.parts, store=Dies()), agent._lock).run())
        assert (await turns(agent.run()))[-1].reply == "I cannot tell."
        assert shop.done == []
        assert (await results(agent))[0].startswith("error: interrupted, may have happened")


async def test_on_postgresql_another_process_decides(postgres: Server, tmp_path: Path) -> None:
    url, shop = postgres.database(), Shop()
    asks = [say("", call("buy", what=n)) for n in ("tea", "wine")]
    places = [tmp_path / "one", tmp_path / "two"]
    async with (
        runtime_at(places[0], shop, asks[0], asks[1], database_url=url) as one,
        runtime_at(places[1], shop, "There.", "Then not.", database_url=url) as two,
    ):
        here = await one.agent("ada")
        await here.ask("tea")
        assert await due(two) == []
        there = await two.agent_of(here.id)
        both = await asyncio.gather(
            here.decide(dict.fromkeys(await waiting(here), YES)),
            there.decide(dict.fromkeys(await waiting(there), YES)),
            return_exceptions=True,
        )
        assert sorted(type(b) for b in both if isinstance(b, Exception)) == [Conflict], "one of two decides"
        assert (await turns(there.run()))[-1].reply == "There."
        assert (await here.ask("wine")).stop_reason == "requires_approval"
        assert await there.parts.store.read(lambda tx: tx.leased([here.id])) == set(), "no lease is held meanwhile"
        old, new = await turns(there.send("no"))
        assert (old.stop_reason, new.reply) == ("requires_approval", "Then not.")
        assert shop.done == ["bought tea"]
        parts: list[Part] = ["call", "request", "decision"]
        found = [await one.store.read(partial(_page, here.id, part)) for part in parts]
        assert [len(page) for page in found] == [0, 2, 1]


def _page(agent_id: str, part: Part, tx: Any) -> list[Message]:
    page: list[Message] = tx.history(agent_id, True, None, None, 10, [part])
    return page


# over HTTP


@contextmanager
def serving_shop(*script: Any) -> Iterator[tuple[Served, Shop]]:
    shop = Shop()
    with served(ScriptedLLM(script), tools=shop.tools) as home:
        yield home, shop


def said(text: str) -> Any:
    return [{"role": "user", "content": text}]


def answered(call_id: str, approve: bool, reason: str | None = None) -> Any:
    given = {"type": "approval", "tool_call_id": call_id, "approve": approve, "reason": reason}
    return [{"type": "approval", "approvals": [given]}]


def kinds(values: Iterable[Any]) -> list[str]:
    return [value.message_type for value in values]


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_lettas_client_is_asked_and_answers() -> None:
    both = say("", call("look", what="tea"), call("buy", what="tea"))
    script = [both, "There.", say("", call("buy", what="wine")), "Then not.", say("", call("buy", what="ale")), "next"]
    with serving_shop(*script) as (home, shop):
        letta, ada = home.letta, home.letta.agents.create(name="ada").id
        first = letta.agents.messages.create(ada, messages=[{**said("tea")[0], "otid": "one"}])
        assert first.stop_reason.stop_reason == "requires_approval"
        assert kinds(first.messages) == ["tool_call_message", "approval_request_message", "tool_return_message"]
        request: Any = first.messages[1]
        assert (request.tool_call.name, request.tool_call.arguments) == ("buy", '{"what": "tea"}')
        call_id = request.tool_call.tool_call_id
        pending = letta.agents.retrieve(ada).pending_approval
        assert pending is not None
        assert (pending.id, pending.tool_calls[0].tool_call_id) == (request.id, call_id)  # type: ignore[index,union-attr]
        (run,) = letta.runs.list(agent_id=ada)
        assert (run.status, run.stop_reason) == ("running", "requires_approval")
        for kind in ("approval_request_message", "tool_call_message"):
            listed = letta.agents.messages.list(ada, include_return_message_types=[kind], limit=1)  # type: ignore[list-item]
            assert [m.message_type for m in listed] == [kind]

        with pytest.raises(ConflictError) as refused:
            letta.agents.messages.create(ada, messages=said("and?"))
        assert refused.value.body == {"detail": {
            "code": "PENDING_APPROVAL",
            "message": "calls of this agent wait for approval; decide on them, or cancel their run",
        }}  # fmt: skip
        again = letta.agents.messages.create(ada, messages=[{**said("tea")[0], "otid": "one"}])
        assert [m.id for m in again.messages] == [m.id for m in first.messages], "its own sender hears the same again"
        with pytest.raises(ConflictError, match="does not wait"):
            letta.agents.messages.create(ada, messages=answered("call_none", True))
        with pytest.raises(ConflictError, match="message-none"):
            letta.agents.messages.create(
                ada, messages=[{"type": "approval", "approve": True, "approval_request_id": "message-none"}]
            )

        done = letta.agents.messages.create(ada, messages=answered(call_id, True))
        assert kinds(done.messages) == ["tool_return_message", "assistant_message"], "what is new"
        assert (done.stop_reason.stop_reason, shop.done) == ("end_turn", ["looked at tea", "bought tea"])
        repeated = letta.agents.messages.create(ada, messages=answered(call_id, True))
        assert [m.id for m in repeated.messages] == [m.id for m in done.messages], "the same decision again is one"
        with pytest.raises(ConflictError):
            letta.agents.messages.create(ada, messages=answered(call_id, False))
        assert letta.agents.retrieve(ada).pending_approval is None

        with letta.agents.messages.stream(ada, messages=said("wine")) as stream:
            streamed = list(stream)
        assert kinds(streamed) == ["approval_request_message", "stop_reason", "usage_statistics"]
        refusal = [
            {"type": "approval", "approve": False, "reason": "on a Friday?", "approval_request_id": streamed[0].id}
        ]  # type: ignore[union-attr]
        with letta.agents.messages.create(ada, messages=refusal, streaming=True) as stream:  # type: ignore[call-overload]
            streamed = list(stream)
        assert kinds(streamed) == ["tool_return_message", "assistant_message", "stop_reason", "usage_statistics"]
        assert "not approve this call: on a Friday?" in streamed[0].tool_return  # type: ignore[union-attr,operator]
        only = letta.agents.messages.list(ada, include_return_message_types=["approval_response_message"], limit=1)
        assert [(m.approve, m.reason) for m in only] == [(False, "on a Friday?"), (True, None)]  # type: ignore[union-attr]
        assert "approval_response_message" in kinds(letta.runs.messages.list(run.id))

        letta.agents.messages.create(ada, messages=said("ale"))
        assert set(letta.agents.messages.cancel(ada).values()) == {"cancelled"}
        assert letta.agents.messages.create(ada, messages=said("what now")).messages[-1].content == "next"  # type: ignore[union-attr]
        assert shop.done == ["looked at tea", "bought tea"]


def test_which_tools_ask_over_lettas_api() -> None:
    with serving_shop("ok") as (home, _):
        letta = home.letta
        rule: Any = {"type": "requires_approval", "tool_name": "look"}
        ada = letta.agents.create(name="ada", tool_rules=[rule], context_window_limit=16_000).id
        by_name = {t.name: t for t in letta.agents.tools.list(ada, limit=100)}
        assert (by_name["buy"].default_requires_approval, by_name["look"].default_requires_approval) == (True, None)

        def own() -> dict[str, str]:
            return dict(home.read(lambda tx: tx.agent(ada).approvals))

        assert own() == {"look": "ask"}
        state = letta.agents.tools.update_approval("buy", agent_id=ada, body_requires_approval=False)
        assert state is not None
        assert [r.tool_name for r in state.tool_rules or ()] == ["look"]
        assert own() == {"look": "ask", "buy": "always"}
        letta.agents.update(ada, description="a shopper")
        letta.agents.update(ada, tool_rules=[])
        assert own() == {"buy": "always"}
        assert letta.agents.retrieve(ada).context_window_limit == 16_000  # type: ignore[attr-defined]
        with pytest.raises(NotFoundError, match="borrow"):
            letta.agents.tools.update_approval("borrow", agent_id=ada, body_requires_approval=True)
        source = 'def lend(what: str):\n    """Lend something."""'
        lend = letta.tools.create(source_code=source, default_requires_approval=True)
        assert letta.tools.retrieve(lend.id).default_requires_approval is True
        letta.agents.tools.attach(lend.id, agent_id=ada)
        agent = home.run(home.service.runtime.agent_of(ada))
        assert agent.parts.tools.tools["lend"].approval == "ask"
        letta.tools.update(lend.id, default_requires_approval=False)
        assert letta.tools.retrieve(lend.id).default_requires_approval is None


def test_our_own_api_and_openais() -> None:
    buys = [say("", call("buy", what=n)) for n in ("tea", "wine", "ale")]
    with serving_shop(buys[0], "There.", buys[1], "Then not.", buys[2]) as (home, shop):
        ada = home.create("ada")
        path = "/agentos/v1/agents/ada/approvals"
        assert home.ask("GET", path)[1] == []

        def ask_openai(text: str, **more: Any) -> Any:
            body = {"model": "ada", "messages": said(text), **more}
            return home.ask("POST", "/v1/chat/completions", body)[1]

        completion = ask_openai("tea")
        words = completion["choices"][0]["message"]["content"]
        assert words.startswith('[waits for approval: buy {"what": "tea"}. It is given by `agentos approve ada`')
        assert completion["agentos"]["stop_reason"] == "requires_approval"
        (waits,) = home.ask("GET", path)[1]
        assert waits == {
            "run_id": completion["agentos"]["run_id"], "call_id": waits["call_id"], "name": "buy",
            "arguments": {"what": "tea"},
        }  # fmt: skip
        assert home.ask("GET", "/agentos/v1/agents")[1][0]["approvals"] == [waits]
        assert home.ask("POST", path, {"decisions": {}})[0] == 422
        status, refused, _ = home.ask("POST", path, {"decisions": {"call_x": {"approve": True}}})
        assert (status, "call_x" in refused["detail"]) == (409, True)
        yes = {"run_id": waits["run_id"], "by": "Eva", "decisions": {waits["call_id"]: {"approve": True}}}
        stream = home.http.post(path, json=yes).text
        events = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: ")]
        assert [e["type"] for e in events if e["type"] != "saved"] == [
            "tool_result",
            "heartbeat",
            "text_delta",
            "result",
        ]
        assert (events[-1]["stop_reason"], shop.done) == ("end_turn", ["bought tea"])
        assert home.read(lambda tx: tx.run(waits["run_id"]).decisions[waits["call_id"]].by) == "Eva"
        assert home.ask("POST", path, yes)[0] == 409

        assert "waits for approval" in ask_openai("wine")["choices"][0]["message"]["content"]
        assert ask_openai("no")["choices"][0]["message"]["content"] == "Then not.", "another message refuses"
        body = {"model": "ada", "messages": said("ale"), "stream": True}
        streamed = home.http.post("/v1/chat/completions", json=body).text
        assert "[waits for approval: buy" in streamed
        assert streamed.rstrip().endswith("[DONE]")
        assert shop.done == ["bought tea"]
        assert home.ask("DELETE", f"/v1/agents/{ada}")[0] == 200


def test_what_is_told_late_of_a_stop_does_not_end_the_answer_to_a_decision() -> None:
    with serving_shop(say("", call("buy", what="tea")), "There.") as (home, _):
        ada, service = home.create("ada"), home.service
        feeds = service.dispatcher.feeds

        async def work() -> list[str]:
            stopped = await service.dispatcher.result(await service.dispatcher.accept(ada, ["tea"]))
            assert stopped is not None
            late = TurnEnded(stopped, run_id=stopped.run_id)
            with ExitStack() as stack:
                queue = stack.enter_context(feeds.listen(ada))
                item = await service.dispatcher.decide(ada, {stopped.approvals[0]["call_id"]: YES})
                queue.put_nowait(late)  # as another process tells it
                async with feeds.follow(item.run_id) as feed:
                    feed.take(late)
                    last = await service.dispatcher.result(item)
                events = [e async for e in _turn(service, item, queue, stack.pop_all())]
            assert last is not None
            return [last.reply, *(e.result.reply for e in events if isinstance(e, TurnEnded))]

        assert home.run(work()) == ["There.", "There."]


async def test_a_chat_over_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOS_TOKEN", TOKEN)
    with serving_shop(say("", call("buy", what="tea")), "Then not.") as (home, shop):
        with pytest.raises(UsageError, match="ada"):
            async with open_remote(Chosen("ada", server=home.url, known=True)):
                pass
        async with open_remote(Chosen("ada", server=home.url)) as talk:
            (result,) = await turns(talk.send("tea"))
            (waits,) = await talk.approvals()
            assert [{"run_id": result.run_id, **c} for c in result.approvals] == [waits]
            assert (await talk.status())["approvals"] == [waits]
            (result,) = await turns(talk.approve(waits["run_id"], {waits["call_id"]: NO}))
            assert (result.reply, shop.done) == ("Then not.", [])
            with pytest.raises(UsageError, match="no call"):
                await turns(talk.approve(waits["run_id"], {waits["call_id"]: NO}))


# at the command line


def test_the_command_line_lists_and_decides(forks: Forks, tmp_path: Path) -> None:
    environment = {**os.environ, "AGENTOS_HOME": str(tmp_path / "home"), "AGENTOS_MODEL": "offline"}

    def run(*args: str, stdin: str = "") -> Any:
        return forks.run([*args], stdin, environment, tmp_path)

    assert run("approve", "ada").returncode == 2, "there is no such agent"
    assert run("agents", "create", "ada").returncode == 0
    assert run("agents", "approval", "ada", "core_memory_append").returncode == 2
    assert "ask     core_memory_append" in run("agents", "approval", "ada", "core_memory_append", "ask").stdout
    listed = json.loads(run("agents", "approval", "ada", "--json").stdout)
    assert {"name": "core_memory_append", "approval": "ask"} in listed
    assert run("approve", "ada").stdout == "no call waits for approval\n"
    assert run("approve", "ada", "--yes").returncode == 2

    lines = "My name is Grace Hopper.\nHow are you?\n"
    stopped = run("chat", "--agent", "ada", "--output-format", "json", stdin=lines)
    result = json.loads(stopped.stdout)  # one object: the next line would have refused the call
    assert (stopped.returncode, result["stop_reason"]) == (5, "requires_approval")
    assert result["approvals"][0]["name"] == "core_memory_append"
    assert "waits for approval: core_memory_append" in stopped.stderr
    assert "`agentos approve ada` with --yes or --deny REASON" in stopped.stderr
    assert "waits for approval: core_memory_append" in run("agents", "list").stdout
    (waits,) = json.loads(run("approve", "ada", "--json").stdout)
    assert waits["call_id"] == result["approvals"][0]["call_id"]
    assert "Grace Hopper" in run("approve", "ada").stdout
    assert run("approve", "ada", "--yes", "--call", "call_x").returncode == 2
    assert run("approve", "ada", "--yes", "--deny", "no").returncode == 2
    done = run("approve", "ada", "--yes", "--call", waits["call_id"], "--json")
    assert (done.returncode, json.loads(done.stdout)["stop_reason"]) == (0, "end_turn")
    assert "Grace Hopper" in run("memory", "show", "ada").stdout

    assert run("chat", "--agent", "ada", "-p", "I live in Porto.").returncode == 5
    assert run("approve", "ada", "--deny", "that is private").returncode == 0
    assert "Porto" not in run("memory", "show", "ada").stdout


def test_a_call_is_shown_whole_and_tame() -> None:
    value = {"name": "buy\x1b[2J", "arguments": {"what": "tea\x1b]0;\u202e\x07" + "x" * 5000 + "rm -rf"}}
    console = Console(width=10_000, file=io.StringIO())
    console.print(calls([value]))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "rm -rf" in shown
    assert not [c for c in shown if not c.isprintable() and c != "\n"]


@pytest.mark.filterwarnings("ignore:.*forkpty:DeprecationWarning")
def test_a_chat_asks_its_user(forks: Forks, tmp_path: Path) -> None:
    home = tmp_path / "home"
    environment = {**os.environ, "AGENTOS_HOME": str(home), "AGENTOS_MODEL": "offline"}
    for args in (["create", "ada"], ["approval", "ada", "core_memory_append", "ask"]):
        assert forks.run(["agents", *args], "", environment, tmp_path).returncode == 0
    question = "run it? [y]es / [n]o / why not:"
    with chatting(home, "--agent", "ada") as chat:
        chat.wait_line("", 1)
        chat.type("My name is Grace Hopper.", ENTER)
        shown = chat.wait(question)
        assert '? core_memory_append {"label": "human", "content":' in shown
        assert "waits for approval (/approve): core_memory_append" in shown
        chat.type("y", ENTER)
        assert "core_memory_append ✓" in chat.wait_line("", 2)

        chat.type("I live in Porto.", ENTER)
        chat.wait(question, 2)
        chat.type(CTRL_C)
        chat.wait("/approve asks again")
        chat.wait_line("", 3)
        chat.type("/approve", ENTER)
        chat.wait(question, 3)
        chat.type("that is private", ENTER)
        chat.wait_line("", 4)
        chat.wait("✗ the user did not approve this call: that is private")

        chat.type("I live in Lisbon.", ENTER)
        chat.wait(question, 4)
        chat.type(CTRL_D)
    with chatting(home, "--agent", "ada") as chat:  # and it waits over the end of the chat
        chat.wait(question)
        chat.type("y", ENTER)
        assert "core_memory_append ✓" in chat.wait_line("", 1)
        chat.type("/approve", ENTER)
        chat.wait("no call waits for approval")
