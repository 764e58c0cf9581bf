"""The heartbeat loop: why it goes on, why it stops, and what is saved on the way."""

import asyncio
import json
from collections.abc import Callable
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos import curate
from agentos.actions.saved import load_state
from agentos.agent import Agent
from agentos.context.validator import violations
from agentos.errors import ConfigError, ContextOverflow, ProviderError, UsageError
from agentos.events import Event, Heartbeat, PageOut, TextDelta, TurnEnded
from agentos.messages import Block, Reply, ToolCall, Usage
from agentos.protocols import Effect, ToolResult, Tx
from agentos.runtime import Runtime
from agentos.settings import Settings
from agentos.state import Limits
from agentos.testing import ExactIndex, FunctionLLM, ScriptedLLM, call, say
from agentos.tools.tool import Tool, ToolContext, tool
from conftest import Home, chances, collect, ending, memory_home, of

SEARCH = call("archival_memory_search", query="anything")


def append(text: str, **more: object) -> ToolCall:
    return call("core_memory_append", label="human", content=text, **more)


# going on and stopping


async def test_text_and_calls_in_one_step_cost_one_model_call(home: Home) -> None:
    llm = ScriptedLLM([say("Noted.", append("Name: Ada"), append("Lives in Lisbon"))])
    events = await collect(await home.agent(llm), "I am Ada from Lisbon")
    result = ending(events)
    assert (result.reply, result.stop_reason, result.steps, result.llm_calls) == ("Noted.", "end_turn", 1, 1)
    assert [c["ok"] for c in result.tool_calls] == [True, True]
    kinds = [e.type for e in events]
    assert kinds == ["text_delta", "tool_call", "tool_call", "tool_result", "tool_result", "result"]
    assert [e.seq for e in events] == list(range(6))
    assert len({e.run_id for e in events}) == 1


async def test_a_search_gives_another_step_and_a_write_does_not(home: Home) -> None:
    llm = ScriptedLLM([say("", SEARCH), say("Nothing found.", append("x"))])
    result = ending(await collect(await home.agent(llm), "what?"))
    assert (result.reply, result.steps) == ("Nothing found.", 2)


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (say("a", append("x", request_heartbeat=True)), "requested"),
        (say("a", call("core_memory_append", label="nope", content="x")), "failed call"),
        (say("a", call("archival_memory_search", query="x")), "requested"),
        (say("", append("x")), "nudge"),
        (say(""), "alert"),
    ],
)
async def test_why_the_loop_goes_on(home: Home, first: Reply, reason: str) -> None:
    events = await collect(await home.agent(ScriptedLLM([first, "done"])), "go")
    assert [e.reason for e in of(events, "heartbeat")] == [reason]
    assert ending(events).steps == 2


async def test_a_default_heartbeat_can_be_declined(home: Home) -> None:
    llm = ScriptedLLM([say("Looking.", call("archival_memory_search", query="x", request_heartbeat=False))])
    assert ending(await collect(await home.agent(llm), "go")).steps == 1


async def test_a_turn_without_a_word_is_nudged_once_and_then_says_what_was_done(home: Home) -> None:
    llm = ScriptedLLM([say("", append("x")), say("", append("y"))])
    events = await collect(await home.agent(llm), "go")
    result = ending(events)
    assert result.stop_reason == "end_turn"
    assert result.steps == 2
    assert result.reply == "I used core_memory_append (done), core_memory_append (done) and have nothing to add."
    [sentence] = [e for e in of(events, "text_delta") if e.fallback]
    assert sentence.text == result.reply


async def test_two_empty_replies_end_in_a_plain_sentence(home: Home) -> None:
    agent = await home.agent(ScriptedLLM(["", " \n", "hello"]))
    result = ending(await collect(agent, "go"))
    assert (result.reply, result.steps) == ("The model gave no answer; ask again.", 2)
    assert ending(await collect(agent, "again")).reply == "hello"
    for request in agent.parts.llm.requests:  # type: ignore[attr-defined]
        assert violations(request.messages) == []


async def test_the_same_call_with_the_same_result_three_times_running_stops(home: Home) -> None:
    llm = FunctionLLM(lambda r: say("", SEARCH))
    events = await collect(await home.agent(llm), "go")
    result = ending(events)
    assert result.stop_reason == "loop"
    assert result.steps == 3
    assert "archival_memory_search was called 3 times running with the same result" in (result.error or "")
    assert result.reply.startswith("I stopped: archival_memory_search was called 3 times running")


async def test_limits_set_later_hold_for_agents_made_before(tmp_path: Path) -> None:
    llm = FunctionLLM(lambda r: say("", call("archival_memory_search", query=f"q{len(llm.requests)}")))
    async with Runtime(Settings(home=tmp_path), llm=llm, index=ExactIndex()) as runtime:
        await runtime.agent("ada")
    async with Runtime(Settings(home=tmp_path, max_steps=3), llm=llm, index=ExactIndex()) as runtime:
        assert (await (await runtime.agent("ada")).ask("go")).steps == 3
    async with Runtime(Settings(home=tmp_path, max_turn_tokens=1), llm=llm, index=ExactIndex()) as runtime:
        assert (await (await runtime.agent("ada")).ask("go")).stop_reason == "budget"
    async with Runtime(Settings(home=tmp_path, max_steps=9), llm=llm, index=ExactIndex(), limits=Limits(2)) as runtime:
        assert (await (await runtime.agent("ada")).ask("go")).steps == 2


async def test_different_calls_are_no_loop(home: Home) -> None:
    script = [say("", call("archival_memory_search", query=f"q{n % 2}")) for n in range(6)]
    result = ending(await collect(await home.agent(ScriptedLLM([*script, "done"])), "go"))
    assert (result.stop_reason, result.steps) == ("end_turn", 7)


@pytest.mark.parametrize(
    ("limits", "reason", "says", "steps"),
    [
        (Limits(max_steps=4), "max_steps", "used its 4 steps", 4),
        (Limits(max_tokens=250), "budget", "used 330 of 250 tokens", 3),
        (Limits(max_cost_usd=0.05), "budget", "cost $0.0600 of $0.05", 3),
    ],
)
async def test_limits(home: Home, limits: Limits, reason: str, says: str, steps: int) -> None:
    def reply(request: object) -> Reply:
        number = len(llm.requests)
        return say("", call("archival_memory_search", query=f"q{number}"), usage=Usage(100, 10, 0, 0.02))

    llm = FunctionLLM(reply)
    events = await collect(await home.agent(llm, limits=limits), "go")
    result = ending(events)
    assert (result.stop_reason, result.steps) == (reason, steps)
    assert says in (result.error or "")
    assert result.reply.startswith("I stopped: ")
    assert len(of(events, "tool_result")) == len(of(events, "tool_call")) == steps


async def test_usage_and_costs_add_up(home: Home) -> None:
    usage = Usage(100, 10, 90, 0.5)
    llm = ScriptedLLM([say("", SEARCH, usage=usage), say("ok", usage=usage)])
    agent = await home.agent(llm)
    assert ending(await collect(agent, "go")).usage == Usage(200, 20, 180, 1.0)
    assert await home.store.read(lambda tx: tx.usage(agent.id)) == Usage(200, 20, 180, 1.0)


# calls that cannot be run


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (call("launch_rocket", where="moon"), "there is no tool 'launch_rocket'; the tools are: core_memory_append, "),
        (call("core_memory_append", label="human"), "argument 'content' is missing. The call is core_memory_append("),
        (call("archival_memory_search", query="x", limit=0), "argument 'limit'"),
        (call("archival_memory_search", query="x", start="yesterday"), "start is 'yesterday', which is no ISO date"),
        (call("conversation_search", query="x", roles=["boss"]), "there is no role 'boss'"),
        (call("page_in", ids=["17"]), "'17' is not an id"),
        (call("page_in", ids=["m999"]), "none of m999 exist"),
        (call("set_timer", when="soon", note="x"), "when is 'soon'"),
        (ToolCall("c1", "core_memory_append", "{}", error="the arguments were cut off; send them whole"), "cut off"),
        (call("archival_memory_insert", content=" "), "content is empty"),
    ],
)
async def test_a_bad_call_goes_back_as_an_error_and_the_turn_goes_on(home: Home, bad: ToolCall, says: str) -> None:
    events = await collect(await home.agent(ScriptedLLM([say("Hm.", bad), "sorry"])), "go")
    [result] = of(events, "tool_result")
    assert not result.ok
    assert result.text.startswith("error: ")
    assert says in result.text
    assert ending(events).steps == 2


async def test_call_ids_are_made_valid_and_unique(home: Home) -> None:
    def with_ids(*ids: str) -> Reply:
        return say(
            "", *(ToolCall(i, "archival_memory_insert", json.dumps({"content": f"t{n}"})) for n, i in enumerate(ids))
        )

    first, second = "toolu_01AbCdEf", "toolu_02AbCdEf"
    llm = ScriptedLLM([with_ids(first, first, "", "x" * 65), with_ids(first, second), "done"])
    agent = await home.agent(llm)
    await collect(agent, "one")
    await collect(agent, "two")
    assert all(violations(r.messages) == [] for r in llm.requests)
    ids = [c.id for m in (await home.saved(agent)).queue for c in m.calls]
    assert len(ids) == len(set(ids)) == 6
    assert ids[0] == first
    assert second in ids


async def test_ids_that_a_provider_counts_anew_are_unique_in_the_history(home: Home) -> None:
    again = [say("", ToolCall("call_0", "archival_memory_insert", json.dumps({"content": f"t{n}"}))) for n in range(2)]
    agent = await home.agent(ScriptedLLM([again[0], "ok", again[1], "ok"]))
    await collect(agent, "one")
    await agent.new_conversation()
    await collect(agent, "two")
    rows = await home.store.read(lambda tx: tx.recent_messages(agent.id, limit=20))
    ids = [m.call_id for m in rows if m.role == "tool"]
    assert len(ids) == len(set(ids)) == 2


async def test_only_so_many_calls_of_one_reply_are_run_and_the_model_is_told_of_the_rest(home: Home) -> None:
    llm = ScriptedLLM([say("ok", *(append(str(n)) for n in range(100))), "done"])
    events = await collect(await home.agent(llm), "go")
    results = of(events, "tool_result")
    assert [r.ok for r in results] == [True] * 32 + [False]
    assert "this one and 67 behind it were not run; make them again" in results[-1].text
    assert ending(events).reply == "ok\n\ndone"


async def test_calls_too_long_for_the_context_run_in_full_and_are_shown_clipped(home: Home) -> None:
    texts = [f"{n}" + "long word " * 600 for n in range(6)]
    llm = FunctionLLM(lambda r: "ok" if r.messages[-1]["role"] == "tool" else say(
        "", *(call("archival_memory_insert", content=text) for text in texts)), context_window=10_000)  # fmt: skip
    agent = await home.agent(llm)
    assert all(r.ok for r in of(await collect(agent, "go"), "tool_result"))
    passages = await home.store.read(lambda tx: tx.recent_passages(agent.id, limit=10))
    assert sorted(p.text for p in passages) == [t.strip() for t in texts]
    await collect(agent, "more")
    shown = [c["function"]["arguments"] for m in llm.requests[-1].messages for c in m.get("tool_calls", [])]
    assert shown
    assert all(len(arguments) < 100 for arguments in shown[-3:])
    assert "characters that were passed on in full" in shown[-1]


# providers that fail


async def test_a_provider_failure_keeps_the_message_and_its_otid_takes_the_turn_up_again(home: Home) -> None:
    llm = ScriptedLLM([ProviderError("the server is down"), "hello Ada"])
    agent = await home.agent(llm)
    failed = ending(await collect(agent, "I am Ada", otid="o1"))
    assert (failed.stop_reason, failed.reply, failed.error) == ("llm_error", "", "the server is down")
    assert [m.content for m in (await home.saved(agent)).queue] == ["I am Ada"]
    again = ending(await collect(agent, "I am Ada", otid="o1"))
    assert (again.stop_reason, again.reply, again.run_id) == ("end_turn", "hello Ada", failed.run_id)
    assert len(llm.requests[-1].messages) == 2
    assert ending(await collect(agent, "I am Ada", otid="o1")) == again
    assert len(llm.requests) == 2


async def test_a_failed_turn_can_be_taken_up_after_others(home: Home) -> None:
    llm = ScriptedLLM([ProviderError("down"), "second", "first at last"])
    agent = await home.agent(llm)
    failed = ending(await collect(agent, "the first question", otid="o1"))
    await collect(agent, "another")
    events = await collect(agent, "the first question", otid="o1")
    assert (ending(events).reply, ending(events).run_id) == ("first at last", failed.run_id)
    [alert] = of(events, "alert")
    assert "the first question" in alert.text
    assert llm.requests[-1].messages[-1]["role"] == "user"
    assert "the first question" in llm.requests[-1].messages[-1]["content"]


async def test_a_failed_turn_taken_up_while_another_runs_waits_for_it(home: Home) -> None:
    def reply(request: object) -> object:
        return [ProviderError("down"), say("", SEARCH), "second", "first"][len(llm.requests) - 1]

    llm = FunctionLLM(reply)
    agent = await home.agent(llm)
    failed = ending(await collect(agent, "first?", otid="o1"))
    events: list[Event] = []
    async for event in agent.send("second?"):
        if event.type == "tool_result":
            await agent.accept(["first?"], otid="o1")
        events.append(event)
    events += [event async for event in agent.run()]
    ends = of(events, "result")
    assert [e.result.reply for e in ends] == ["second", "first"]
    assert ends[1].result.run_id == failed.run_id


async def test_the_same_otid_is_one_turn(home: Home) -> None:
    llm = ScriptedLLM(["hello"])
    agent = await home.agent(llm)
    first = ending(await collect(agent, "hi", otid="o"))
    assert ending(await collect(agent, "hi", otid="o")) == first
    other = await home.agent(ScriptedLLM([]))
    assert ending(await collect(other, "hi", otid="o")) == first
    with pytest.raises(UsageError, match="otid 'o' was used for another message"):
        await agent.accept(["ho"], otid="o")


@pytest.mark.parametrize("texts", [[], [""], [" \n", ""]])
async def test_empty_input_is_refused(home: Home, texts: list[str]) -> None:
    with pytest.raises(UsageError, match="empty"):
        await (await home.agent(ScriptedLLM([]))).accept(texts)


async def test_several_texts_are_one_turn_and_inputs_keep_their_order(home: Home) -> None:
    llm = FunctionLLM(lambda r: f"reply to {r.messages[-1]['content'].split('] ')[-1]}")
    agent = await home.agent(llm)
    await agent.accept(["one", "two"])
    await agent.accept(["three"])
    events = await collect(agent)
    assert [e.result.reply for e in of(events, "result")] == ["reply to two", "reply to three"]
    assert len(llm.requests) == 2


async def test_a_request_that_is_too_long_learns_the_window(home: Home) -> None:
    def reply(request: object) -> object:
        size = sum(len(m["content"] or "") for m in request.messages) // 4  # type: ignore[attr-defined]
        return ContextOverflow("too long", 6000) if size > 6000 - 1800 - 1024 else "ok"

    llm = FunctionLLM(reply, context_window=100_000)
    agent = await home.agent(llm)
    ends = [ending(await collect(agent, f"{n} " + "word " * 300)) for n in range(16)]
    assert {e.stop_reason for e in ends} == {"end_turn"}
    assert await home.store.read(lambda tx: tx.learned_window(llm.name, 100_000)) == 6000
    again = await home.agent(llm)
    assert (await again.turn()).window.tokens == 6000
    grown = await home.agent(FunctionLLM(reply, context_window=50_000))  # another setting: the provider is asked anew
    assert (await grown.turn()).window.tokens == 50_000


async def test_a_request_that_never_fits_gives_up(home: Home) -> None:
    llm = FunctionLLM(lambda r: ContextOverflow("too long"))
    result = ending(await collect(await home.agent(llm), "go"))
    assert result.stop_reason == "llm_error"
    assert result.error
    assert len(llm.requests) < 10


async def test_refusals_that_teach_nothing_leave_no_mark(home: Home) -> None:
    healthy = False
    told = iter([9000, 10, None] * 10)
    llm = FunctionLLM(lambda r: "ok" if healthy else ContextOverflow("too long", next(told)), context_window=9000)
    agent = await home.agent(llm)
    for n in range(3):
        assert ending(await collect(agent, f"{n} " + "word " * 100)).stop_reason == "llm_error"
    healthy = True
    assert ending(await collect(agent, "and now")).reply == "ok"
    saved = (await home.saved(agent)).agent
    assert (saved.token_ratio, (await agent.turn()).window.tokens) == (1.0, 9000)


async def test_a_wrong_setting_reaches_the_caller_and_keeps_the_message(home: Home) -> None:
    llm = ScriptedLLM([ConfigError("the key was refused"), "hello"])
    agent = await home.agent(llm)
    with pytest.raises(ConfigError):
        await collect(agent, "I am Ada")
    saved = await home.saved(agent)
    assert (saved.run, [m.content for m in saved.queue]) == (None, ["I am Ada"])
    assert ending(await collect(agent, "are you there?")).reply == "hello"
    assert sum("I am Ada" in (m["content"] or "") for m in llm.requests[-1].messages) == 1


async def test_a_page_out_does_without_notes_where_the_key_is_refused(home: Home) -> None:
    agent = await home.agent(ScriptedLLM(["a", "b", ConfigError("the key was refused")]))
    await collect(agent, "one")
    await collect(agent, "two")
    [moved] = [event async for event in agent.compact()]
    assert len(moved.message_ids) == 2  # type: ignore[attr-defined]


async def test_unsendable_text_from_a_model_or_a_tool_breaks_nothing(home: Home) -> None:
    @tool
    def odd() -> str:
        """Return odd text."""
        return "a\x00b\ud800c"

    llm = ScriptedLLM([say("x\x00y\ud800", call("odd")), "fine"])
    agent = await home.agent(llm, tools=[odd])
    events = await collect(agent, "go \x00\ud800")
    assert ending(events).stop_reason == "end_turn"
    assert all(violations(r.messages) == [] for r in llm.requests)
    assert "x\ufffdy\ufffd" in llm.requests[-1].messages[2]["content"]


# stopping from outside


class SlowLLM(FunctionLLM):
    """Streams words until it is cut off."""

    def __init__(self, words: list[str]) -> None:
        super().__init__(lambda r: "never")
        self.words = words

    async def stream(self, request):  # type: ignore[no-untyped-def]
        from agentos.protocols import Delta

        self.requests.append(request)
        for word in self.words:
            yield Delta(word)
        await asyncio.Event().wait()


async def test_cancelled_in_the_middle_of_a_reply(home: Home) -> None:
    agent = await home.agent(SlowLLM(["one ", "two "]))
    events = []
    async for event in agent.send("count"):
        events.append(event)
        if isinstance(event, TextDelta) and event.text == "two ":
            agent.cancel()
    result = ending(events)
    assert (result.stop_reason, result.reply) == ("cancelled", "one two [cut off]")
    after = await home.agent(ScriptedLLM(["hello"]))
    assert ending(await collect(after, "again")).reply == "hello"
    assert violations(after.parts.llm.requests[0].messages) == []  # type: ignore[attr-defined]


async def test_cancelled_before_a_word(home: Home) -> None:
    asked = asyncio.Event()

    async def think(request: object) -> str:
        asked.set()
        await asyncio.Event().wait()
        return "never"

    agent = await home.agent(FunctionLLM(think))
    task = asyncio.create_task(collect(agent, "count"))
    await asked.wait()
    agent.cancel()
    assert ending(await task).stop_reason == "cancelled"
    assert [m.role for m in (await home.saved(agent)).queue] == ["user"]


async def test_cancelled_in_the_middle_of_a_tool(home: Home) -> None:
    started = asyncio.Event()

    @tool
    async def wait() -> str:
        """Wait for ever."""
        started.set()
        await asyncio.Event().wait()
        return "never"

    llm = ScriptedLLM([say("", call("wait"), append("x")), "hello"])
    agent = await home.agent(llm, tools=[wait])
    task = asyncio.create_task(collect(agent, "go"))
    await started.wait()
    agent.cancel()
    events = await task
    assert ending(events).stop_reason == "cancelled"
    results = [m for m in (await home.saved(agent)).queue if m.role == "tool"]
    assert [m.content for m in results] == [
        "error: cancelled by the user; it may have happened", "error: not run, the turn stopped: cancelled"
    ]  # fmt: skip
    assert (await home.block(agent)).value == ""
    await collect(agent, "again")
    assert violations(llm.requests[-1].messages) == []


async def until(true: Callable[[], bool]) -> None:
    """Step the event loop, so that what follows happens in the very step in which this became true."""
    while not true():  # noqa: ASYNC110
        await asyncio.sleep(0)


async def test_cancelled_in_the_moment_in_which_the_model_is_asked(home: Home) -> None:
    agent = await home.agent(SlowLLM([]))
    task = asyncio.create_task(collect(agent, "go"))
    await until(lambda: agent._turn is not None and agent._turn._task is not None)
    agent.cancel()  # its task was made and has not begun
    assert ending(await asyncio.wait_for(task, 5)).stop_reason == "cancelled"


async def test_cancelled_at_a_heartbeat_the_model_is_not_asked_again(home: Home) -> None:
    llm = ScriptedLLM(
        [say("Hm.", call("core_memory_append", label="human", content="x", request_heartbeat=True)), "no"]
    )
    agent, events = await home.agent(llm), []
    async for event in agent.send("go"):
        events.append(event)
        if isinstance(event, Heartbeat):
            agent.cancel()
    assert ending(events).stop_reason == "cancelled"
    assert len(llm.requests) == 1


async def test_cancelled_while_it_waits_for_another_process(home: Home) -> None:
    lock, llm = asyncio.Lock(), ScriptedLLM(["never", "hello"])
    agent = Agent("agent-ada", (await home.agent(llm)).parts, lambda _: lock)
    async with lock:
        task = asyncio.create_task(collect(agent, "go"))
        await until(lambda: agent._running > 0)
        agent.cancel()
    assert ending(await task).stop_reason == "cancelled"
    assert (ending(await collect(agent, "again")).reply, len(llm.requests)) == ("never", 1)


async def test_cancelling_a_page_out_leaves_out_its_notes(home: Home) -> None:
    agent = await home.agent(ScriptedLLM(["a", "b"]))
    await collect(agent, "one")
    await collect(agent, "two")
    slow = await home.agent(SlowLLM([]))
    moving = asyncio.ensure_future(anext(slow.compact()))
    await until(lambda: slow._turn is not None and slow._turn._task is not None)
    slow.cancel()
    assert isinstance(await asyncio.wait_for(moving, 5), PageOut)
    assert ending(await collect(await home.agent(ScriptedLLM(["c"])), "three")).stop_reason == "end_turn"


async def test_cancel_without_a_turn_does_nothing(home: Home) -> None:
    agent = await home.agent(ScriptedLLM(["hello"]))
    agent.cancel()
    await agent.turn()
    agent.cancel()
    assert ending(await collect(agent, "hi")).stop_reason == "end_turn"


@pytest.mark.parametrize("stop_at", range(9))
async def test_a_reader_that_leaves_loses_nothing(home: Home, stop_at: int) -> None:
    script = [say("a", append("1", request_heartbeat=True)), say("b", SEARCH), "c"]
    agent = await home.agent(FunctionLLM(lambda r: script[sum(m["role"] == "tool" for m in r.messages)]))
    async with aclosing(agent.send("go")) as events:
        for _ in range(stop_at):
            await anext(events)
    await collect(agent)
    run = (await home.store.read(lambda tx: tx.runs(agent.id)))[0] if stop_at else None
    if stop_at:
        assert run.status == "completed"  # type: ignore[union-attr]
        assert (await home.block(agent)).value == "1"
        assert violations((await agent.turn()).request().messages) == []


# timers, notices


async def test_timers_fire_at_the_next_run_together(home: Home) -> None:
    timers = [call("set_timer", when=w, note=f"note {w}") for w in ("90s", "2h", "1d", "2026-05-08T13:00:00+02:00")]
    llm = ScriptedLLM([say("Set.", *timers), "two at once", "the rest"])
    agent = await home.agent(llm)
    events = await collect(agent, "remind me")
    assert [r.text for r in of(events, "tool_result")] == [
        "timer t1 is set for 2026-05-08 09:31:30 +0000", "timer t2 is set for 2026-05-08 11:30:00 +0000",
        "timer t3 is set for 2026-05-09 09:30:00 +0000", "timer t4 is set for 2026-05-08 11:00:00 +0000",
    ]  # fmt: skip
    assert await collect(agent) == []
    home.clock.advance(timedelta(hours=1, minutes=30))  # type: ignore[attr-defined]
    events = await collect(agent)
    assert [e.text for e in of(events, "alert")] == ["Timer: note 90s\nTimer: note 2026-05-08T13:00:00+02:00"]
    assert ending(events).reply == "two at once"
    assert "[system notice] Timer: note 90s" in llm.requests[-1].messages[-1]["content"]
    assert await collect(agent) == []
    home.clock.advance(timedelta(days=30))  # type: ignore[attr-defined]
    other = await home.agent(llm)
    assert [e.text for e in of(await collect(other), "alert")] == ["Timer: note 2h\nTimer: note 1d"]


@pytest.mark.parametrize(
    ("when", "says"),
    [
        ("2026-05-08T09:00:00+00:00", "is in the past; it is 2026-05-08T09:30:00+00:00 now"),
        ("0s", "0s is too soon (a timer waits at least a second)"),
        ("2026-05-09T09:00:00", "has no offset; write it like 2026-05-08T09:30:00+00:00"),
        ("", "give an ISO 8601 time"),
        ("999999999999d", "give an ISO 8601 time"),
        ("-5m", "give an ISO 8601 time"),
    ],
)
async def test_timers_that_are_refused(home: Home, when: str, says: str) -> None:
    llm = ScriptedLLM([say("", call("set_timer", when=when, note="n")), "ok"])
    [result] = of(await collect(await home.agent(llm), "go"), "tool_result")
    assert says in result.text


async def test_timers_and_messages_have_their_turns_in_order_of_arrival(home: Home) -> None:
    llm = ScriptedLLM([say("ok", call("set_timer", when="1m", note="first")), "timer", "answer", "later"])
    agent = await home.agent(llm)
    await collect(agent, "go")
    home.clock.advance(timedelta(minutes=2))  # type: ignore[attr-defined]
    events = await collect(agent, "hello")
    assert [e.result.reply for e in events if isinstance(e, TurnEnded)] == ["timer", "answer"]


async def test_a_timer_turn_may_stay_silent(home: Home) -> None:
    agent = await home.agent(ScriptedLLM([say("ok", call("set_timer", when="1s", note="n")), ""]))
    await collect(agent, "go")
    home.clock.advance(timedelta(seconds=2))  # type: ignore[attr-defined]
    result = ending(await collect(agent))
    assert (result.stop_reason, result.reply, result.steps) == ("end_turn", "", 1)


async def test_an_edit_from_outside_is_told_once(home: Home) -> None:
    llm = FunctionLLM(lambda r: "ok")
    agent = await home.agent(llm)
    await collect(agent, "hi")
    await curate.edit_block(home.store, await agent.turn(), "human", "Name: Ada")
    events = await collect(agent, "and now?")
    assert [e.text for e in of(events, "alert")] == ['Block "human" was changed from outside; it now reads:\nName: Ada']
    assert of(await collect(agent, "more"), "alert") == []
    assert [m.kind for m in (await home.saved(agent)).queue].count("alert") == 1


async def test_an_edit_before_the_first_turn_needs_no_notice(home: Home) -> None:
    llm = FunctionLLM(lambda r: "ok")
    agent = await home.agent(llm)
    await curate.edit_block(home.store, await agent.turn(), "human", "Name: Ada")
    assert of(await collect(agent, "hi"), "alert") == []
    assert "Name: Ada" in llm.requests[0].messages[0]["content"]


async def test_an_undo_is_told_at_the_next_step(home: Home) -> None:
    llm = FunctionLLM(
        lambda r: say("ok", call("archival_memory_insert", content="tea")) if len(llm.requests) == 1 else "ok"
    )
    agent = await home.agent(llm)
    await collect(agent, "I like tea")
    await curate.undo(home.store, home.clock, await agent.turn())
    events = await collect(agent, "go on")
    assert [(e.kind, e.text) for e in of(events, "alert")] == [
        ("undo", "Passage p1 was taken out of archival memory by the user.")
    ]
    assert of(await collect(agent, "go on"), "alert") == []


async def test_new_conversation_keeps_memory(home: Home) -> None:
    llm = ScriptedLLM([say("ok", append("Name: Ada")), "hello"])
    agent = await home.agent(llm)
    await collect(agent, "I am Ada, code QX-77-1a")
    await agent.new_conversation()
    await collect(agent, "who am I?")
    assert len(llm.requests[-1].messages) == 2
    assert "Name: Ada" in llm.requests[-1].messages[0]["content"]


async def test_compact_never_parts_a_call_from_its_results(home: Home) -> None:
    llm = FunctionLLM(lambda r: say("ok", append("a"), append("b")) if r.tools and len(llm.requests) == 1 else "ok")
    agent = await home.agent(llm)
    await collect(agent, "go")
    async for _ in agent.compact():
        pass
    await collect(agent, "more")
    async for _ in agent.compact():
        pass
    await collect(agent, "more")
    assert all(violations(r.messages) == [] for r in llm.requests)


async def test_ask() -> None:
    async with memory_home() as home:
        agent = await home.agent(ScriptedLLM(["hello"]))
        assert (await agent.ask("hi")).reply == "hello"


# the property: what is in memory is what is saved


KINDS = ["text", "append", "insert", "search", "bad", "many", "empty", "fail", "overflow", "timer", "tool"]
MOVES = st.lists(st.sampled_from(KINDS), min_size=1, max_size=6)
SESSIONS = st.lists(
    st.tuples(st.sampled_from(["send", "edit", "undo", "wait", "compact", "new"]), MOVES), min_size=1, max_size=5
)


def moving(moves: list[str]) -> FunctionLLM:
    """A model that makes these moves, then says ok."""
    options = {
        "text": lambda: "some text", "append": lambda: say("", append(f"line {len(llm.requests)}")),
        "insert": lambda: say("kept", call("archival_memory_insert", content=f"fact {len(llm.requests)}")),
        "search": lambda: say("", SEARCH), "bad": lambda: say("", call("nothing")),
        "many": lambda: say("x", append("1"), SEARCH, call("tick"), append("y" * 2000)), "empty": lambda: "",
        "fail": lambda: ProviderError("down"), "overflow": lambda: ContextOverflow("too long"),
        "timer": lambda: say("", call("set_timer", when="30m", note="look")), "tool": lambda: say("", call("tick")),
    }  # fmt: skip

    def reply(request: object) -> object:
        return options[moves.pop(0)]() if moves else "ok"

    llm = FunctionLLM(reply, context_window=16_000)
    return llm


@tool
def tick() -> str:
    """Tick."""
    return "tock"


async def check_memory_is_what_is_saved(home: Home, agent: Agent) -> None:
    turn = agent._turn
    if turn is None or turn.stale:
        return
    now = home.clock.now()
    saved = await home.store.read(lambda tx: load_state(tx, agent.id, now))
    mine = turn.state
    if mine.run is None and mine.agent.version != saved.agent.version:
        return  # changed from outside between turns: the next one begins with a look
    saved.waiting = mine.waiting if mine.run else saved.waiting  # looked up only between turns
    saved.due = mine.due if mine.run else saved.due
    saved.agent = (
        mine.agent if saved.agent.version == mine.agent.version and _same(saved.agent, mine.agent) else saved.agent
    )
    assert mine == saved


def _same(a: object, b: object) -> bool:
    """Equal apart from a float's last bits."""
    names = [n for n in a.__dataclass_fields__ if n not in ("token_ratio", "limits")]  # type: ignore[attr-defined]
    return all(getattr(a, n) == getattr(b, n) for n in names) and abs(a.token_ratio - b.token_ratio) < 1e-9  # type: ignore[attr-defined]


@settings(max_examples=chances(120))
@given(session=SESSIONS)
def test_state_in_memory_equals_the_saved_state_after_every_event(session: list[tuple[str, list[str]]]) -> None:
    async def live() -> None:
        async with memory_home() as home:
            moves: list[str] = []
            llm = moving(moves)
            agent = await home.agent(llm, tools=[tick], limits=Limits(max_steps=8))
            for number, (action, steps) in enumerate(session):
                moves[:] = list(steps)
                await act(home, agent, action, number)
                await check_memory_is_what_is_saved(home, agent)
            assert all(violations(r.messages) == [] for r in llm.requests)

    asyncio.run(live())


async def act(home: Home, agent: Agent, action: str, number: int) -> None:
    if action == "edit":
        await curate.edit_block(home.store, await agent.turn(), "human", f"edited {number}")
    elif action == "undo":
        try:
            await curate.undo(home.store, home.clock, await agent.turn())
        except UsageError:
            return
    elif action == "wait":
        home.clock.advance(timedelta(hours=1))  # type: ignore[attr-defined]
        async for _ in agent.run():
            await check_memory_is_what_is_saved(home, agent)
    elif action == "compact":
        async for _ in agent.compact():
            await check_memory_is_what_is_saved(home, agent)
    elif action == "new":
        await agent.new_conversation()
    else:
        async for _ in agent.send(f"message {number}"):
            await check_memory_is_what_is_saved(home, agent)


async def test_blocks_of_other_agents_stay_out(home: Home) -> None:
    await home.agent(ScriptedLLM([]), blocks=[Block("secret", "hidden")])
    llm = ScriptedLLM(["ok"])
    bob = await home.agent(llm, name="bob", blocks=[Block("human", "Bob")])
    await collect(bob, "hi")
    assert "hidden" not in json.dumps(llm.requests[0].messages)


async def test_an_effect_that_raises_is_undone_and_told(home: Home) -> None:
    def odd_tool(context: ToolContext) -> Effect:
        """Does half of its work."""

        def effect(tx: Tx) -> ToolResult:
            block = tx.blocks(context.cause.agent_id)[0]
            tx.write_block(block, "half done", context.cause, "block.append")
            raise OverflowError("int too large")

        return effect

    odd = Tool("odd_tool", "Does half of its work.", odd_tool, transactional=True)
    llm = ScriptedLLM([say("", call("odd_tool")), "It failed."])
    agent = await home.agent(llm, tools=[odd])
    result = ending(await collect(agent, "go"))
    assert (result.reply, result.tool_calls[0]["ok"]) == ("It failed.", False)
    assert llm.requests[-1].messages[-1]["content"] == "error: odd_tool failed: OverflowError: int too large"
    assert (await home.block(agent)).value == ""


async def test_sizes_of_messages_that_left_the_context_are_forgotten(home: Home) -> None:
    agent = await home.agent(FunctionLLM(lambda request: "ok"))
    for n in range(5):
        await collect(agent, f"message {n}")
    async for _ in agent.compact():
        pass
    turn = await agent.turn()
    turn.room()
    assert len(turn.counter._by_message) == len(turn.state.queue) == 2
