"""Turns as saved work: order, repetition, bounds, cancelling, failures, the clock."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agentos import Agent, Runtime, tool
from agentos.dispatch import Dispatcher
from agentos.errors import ConfigError, Conflict, NotFound, Overloaded
from agentos.events import Event, TextDelta
from agentos.feeds import Feeds
from agentos.messages import Input, Reply
from agentos.protocols import LLM, LLMRequest
from agentos.schedules import add_schedule
from agentos.settings import Settings
from agentos.state import InboxItem
from agentos.testing import FixedClock, FunctionLLM, call, say, temporary_runtime
from agentos.testing.indexes import ExactIndex, HashEmbedder


@asynccontextmanager
async def dispatching(llm: LLM, **options: Any) -> AsyncIterator[Dispatcher]:
    """A dispatcher over a home in memory."""
    names = ("most_turns", "most_waiting", "rest_seconds", "relay")
    chosen = {name: options.pop(name) for name in names if name in options}
    async with temporary_runtime(llm, **options) as runtime:
        dispatcher = Dispatcher(runtime, **chosen)
        await dispatcher.start()
        try:
            yield dispatcher
        finally:
            await dispatcher.stop(5.0)


class Gate:
    """A model that answers `re: <what was said>` once it is let."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.open = asyncio.Event()
        self.llm = FunctionLLM(self._answer)

    async def _answer(self, request: LLMRequest) -> Reply:
        said = request.messages[-1]["content"].partition("] ")[2]
        self.asked.append(said)
        await self.open.wait()
        return say(f"re: {said}")

    async def until(self, count: int) -> None:
        """Wait until so many requests came."""
        await until(lambda: len(self.asked) >= count)


class Line:
    """What another process tells, without one."""

    connected = True
    hear: Callable[[str, Event | str], None]

    def start(self, hear: Callable[[str, Event | str], None]) -> None:
        self.hear = hear

    def tell(self, agent_id: str, event: Event | str) -> None:
        pass

    async def stop(self) -> None:
        pass


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what other tasks bring about."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # what is waited for has no event of its own
            await asyncio.sleep(0.005)


async def agent_ids(runtime: Runtime, *names: str) -> list[str]:
    return [(await runtime.create_agent(name)).id for name in names]


async def test_each_agents_turns_run_in_order_of_arrival_and_agents_side_by_side() -> None:
    gate = Gate()
    async with dispatching(gate.llm) as dispatcher:
        ada, bob = await agent_ids(dispatcher.runtime, "ada", "bob")
        items = [await dispatcher.accept(ada, [f"a{n}"]) for n in range(3)]
        items += [await dispatcher.accept(bob, [f"b{n}"]) for n in range(2)]
        await gate.until(2)
        assert sorted(gate.asked) == ["a0", "b0"]
        runs = await dispatcher.runtime.store.read(lambda tx: tx.open_runs(ada))
        assert [r.status for r in runs] == ["running", "created", "created"]
        gate.open.set()
        results = [await dispatcher.result(item) for item in items]
    assert [r.reply for r in results if r] == ["re: a0", "re: a1", "re: a2", "re: b0", "re: b1"]
    assert [said for said in gate.asked if said[0] == "a"] == ["a0", "a1", "a2"]


async def test_with_one_slot_agents_take_turns() -> None:
    gate = Gate()
    async with dispatching(gate.llm, most_turns=1) as dispatcher:
        ada, bob = await agent_ids(dispatcher.runtime, "ada", "bob")
        items = [await dispatcher.accept(ada, ["a0"]), await dispatcher.accept(ada, ["a1"])]
        items.append(await dispatcher.accept(bob, ["b0"]))
        gate.open.set()
        for item in items:
            await dispatcher.result(item)
    assert gate.asked == ["a0", "b0", "a1"]


async def test_one_otid_is_one_turn_however_often_it_comes() -> None:
    gate = Gate()
    gate.open.set()
    async with dispatching(gate.llm) as dispatcher:
        (ada,) = await agent_ids(dispatcher.runtime, "ada")
        items = [await dispatcher.accept(ada, ["hello"], otid="o1") for _ in range(3)]
        results = [await dispatcher.result(item) for item in items]
        again = await dispatcher.result(await dispatcher.accept(ada, ["hello"], otid="o1"))
        with pytest.raises(Conflict, match="o1"):
            await dispatcher.accept(ada, ["something else"], otid="o1")
    assert gate.asked == ["hello"]
    assert {r.run_id for r in [*results, again] if r} == {items[0].run_id}


async def test_a_request_that_is_sent_again_joins_the_first_for_a_while() -> None:
    gate, clock = Gate(), FixedClock()
    gate.open.set()
    async with dispatching(gate.llm, clock=clock) as dispatcher:
        (ada,) = await agent_ids(dispatcher.runtime, "ada")
        first = await dispatcher.accept(ada, ["yes"])
        assert (await dispatcher.accept(ada, ["yes"], repeated=True)).id == first.id
        assert (await dispatcher.accept(ada, ["no"], repeated=True)).id != first.id
        assert (await dispatcher.accept(ada, ["yes"])).id != first.id
        clock.advance(timedelta(hours=1))  # an old "yes" is no answer to a new one
        assert (await dispatcher.result(await dispatcher.accept(ada, ["yes"], repeated=True))) is not None
    assert gate.asked.count("yes") == 3


async def test_beyond_the_bound_nothing_is_saved_and_known_input_still_joins() -> None:
    gate = Gate()
    async with dispatching(gate.llm, most_waiting=(2, 3)) as dispatcher:
        ada, bob = await agent_ids(dispatcher.runtime, "ada", "bob")
        await dispatcher.accept(ada, ["runs"])
        await gate.until(1)
        waiting = [await dispatcher.accept(ada, [text], otid=text) for text in ("one", "two")]
        with pytest.raises(Overloaded, match="2 messages wait for this agent") as refused:
            await dispatcher.accept(ada, ["three"], otid="three")
        assert refused.value.retry_after_seconds > 0
        assert (await dispatcher.accept(ada, ["two"], otid="two")).id == waiting[1].id
        dispatcher.stopping = True  # so that bob's turns wait too
        await dispatcher.accept(bob, ["four"])
        with pytest.raises(Overloaded, match="3 messages wait for the server"):
            await dispatcher.accept(bob, ["five"])
        dispatcher.stopping = False
        gate.open.set()
        dispatcher.wake(bob)
        assert await dispatcher.result(waiting[1])
        late = await dispatcher.accept(ada, ["three"], otid="three")
        assert await dispatcher.result(late)
    assert sorted(gate.asked) == ["four", "one", "runs", "three", "two"]


async def test_cancelling_reaches_a_turn_whose_agent_was_changed_meanwhile() -> None:
    gate = Gate()
    async with dispatching(gate.llm) as dispatcher:
        (ada,) = await agent_ids(dispatcher.runtime, "ada")
        item = await dispatcher.accept(ada, ["hello"])
        await gate.until(1)
        await dispatcher.runtime.update_agent(ada, system="Be brief.")
        assert await dispatcher.cancel(ada) == {item.run_id: "cancelled"}
        result = await dispatcher.result(item)
        assert result is not None
        assert result.stop_reason == "cancelled"


async def test_cancelling_what_has_not_begun_leaves_what_comes_behind_it() -> None:
    gate = Gate()
    gate.open.set()
    async with temporary_runtime(gate.llm) as runtime:
        agent = await runtime.agent("ada")
        items = [await agent.accept([text]) for text in ("one", "two")]
        async with runtime.lock(agent.id):
            running = asyncio.create_task(drained(agent))
            await until(lambda: agent.busy)
            agent.cancel()
        await running
        results = [await agent.result(item) for item in items]
    assert [r.stop_reason for r in results if r] == ["cancelled", "end_turn"]


class LateWindow(FunctionLLM):
    """A model whose first caller waits long to hear of its window."""

    tokens = 0

    def __init__(self, reply: Callable[[LLMRequest], Any]) -> None:
        self.asked, self.told = threading.Event(), threading.Event()
        super().__init__(reply)

    @property
    def context_window(self) -> int:  # type: ignore[override]
        if not self.asked.is_set():
            self.asked.set()
            self.told.wait(10)
        return self.tokens

    @context_window.setter
    def context_window(self, value: int) -> None:
        self.tokens = value


async def test_who_looks_while_a_turn_begins_does_not_take_its_place() -> None:
    gate = Gate()
    llm = LateWindow(gate.llm.reply)
    async with temporary_runtime(llm) as runtime:
        agent = runtime.attach(await runtime.create_agent("ada"))
        looking = asyncio.create_task(agent.state())
        await until(llm.asked.is_set)
        item = await agent.accept(["hello"])
        running = asyncio.create_task(drained(agent))
        await gate.until(1)
        llm.told.set()
        assert (await looking).agent.name == "ada"
        agent.cancel()
        async with asyncio.timeout(10):
            await running
        result = await agent.result(item)
    assert result is not None
    assert result.stop_reason == "cancelled"


async def drained(agent: Agent, until: InboxItem | None = None) -> None:
    async for _ in agent.run(until):
        pass


async def test_what_is_deleted_leaves_nothing_behind(tmp_path: Path) -> None:
    gate = Gate()
    gate.open.set()
    options: dict[str, Any] = {"embedder": HashEmbedder(), "index": ExactIndex()}
    async with Runtime(Settings(home=tmp_path), llm=gate.llm, **options) as runtime:
        agent = await runtime.agent("ada")
        await agent.ask("hello")
        assert list((tmp_path / "locks").iterdir()) != []
        await runtime.delete_agent(agent.id)
        assert list((tmp_path / "locks").iterdir()) == []
        assert runtime._locks == {}


async def test_a_run_of_another_process_that_nobody_follows_is_forgotten() -> None:
    feeds, piece = Feeds(), TextDelta("hel", place=3, run_id="run-1")
    async with feeds.follow("run-1") as feed:
        feeds.hear("ada", piece)
        assert feed.text == "hel"
    feeds.hear("ada", replace(piece, text="lo", at=3))
    assert feeds._feeds == {}


async def test_cancelling_reaches_the_turn_that_runs_and_those_that_wait() -> None:
    gate = Gate()
    async with dispatching(gate.llm) as dispatcher:
        (ada,) = await agent_ids(dispatcher.runtime, "ada")
        items = [await dispatcher.accept(ada, [f"a{n}"]) for n in range(3)]
        await gate.until(1)
        assert await dispatcher.cancel(ada, [items[1].run_id, "run-of-nobody"]) == {
            items[1].run_id: "cancelled",
            "run-of-nobody": "failed",
        }
        told = await dispatcher.cancel(ada)
        assert told == {items[0].run_id: "cancelled", items[2].run_id: "cancelled"}
        results = [await dispatcher.result(item) for item in items]
        assert [r and r.stop_reason for r in results] == ["cancelled"] * 3
        gate.open.set()
        after = await dispatcher.result(await dispatcher.accept(ada, ["after"]))
    assert after is not None
    assert after.reply == "re: after"
    assert gate.asked == ["a0", "after"]


async def test_another_process_cancels_the_run_it_names_and_no_later_one() -> None:
    gate, line = Gate(), Line()
    async with dispatching(gate.llm, relay=line) as dispatcher:
        (ada,) = await agent_ids(dispatcher.runtime, "ada")
        items = [await dispatcher.accept(ada, [text]) for text in ("stays", "goes")]
        await gate.until(1)
        line.hear(ada, "run-that-has-ended")
        line.hear(ada, items[1].run_id)
        gate.open.set()
        results = [await dispatcher.result(item) for item in items]
    assert [r and r.stop_reason for r in results] == ["end_turn", "cancelled"]


async def test_a_run_that_nobody_runs_is_cancelled_at_once() -> None:
    waiting = asyncio.Event()

    @tool
    async def wait() -> str:
        """Wait."""
        waiting.set()
        await asyncio.Event().wait()
        return "never"

    def answer(request: LLMRequest) -> Reply:
        last = str(request.messages[-1]["content"])
        if last.endswith("break off"):
            raise RuntimeError("a bug")
        return say("", call("wait")) if last.endswith("go") else say("fine")

    async with temporary_runtime(FunctionLLM(answer), tools=[wait]) as runtime:
        dispatcher = Dispatcher(runtime, rest_seconds=(60.0,))
        (ada,) = await agent_ids(runtime, "ada")
        item = await dispatcher.accept(ada, ["go"])
        await waiting.wait()
        await dispatcher.stop(0.01)  # with a call under way
        dispatcher = Dispatcher(runtime, rest_seconds=(60.0,))
        assert await dispatcher.cancel(ada, [item.run_id]) == {item.run_id: "cancelled"}
        ended = await dispatcher.result(item, 0.0)
        said = await runtime.store.read(lambda tx: tx.run_messages(item.run_id))
        resting = await dispatcher.accept(ada, ["break off"])
        await until(lambda: dispatcher.running == 0)
        following = await (await runtime.agent_of(ada)).accept(["hello"])
        assert await dispatcher.cancel(ada, [resting.run_id]) == {resting.run_id: "cancelled"}
        assert await dispatcher.cancel(ada, [resting.run_id]) == {resting.run_id: "failed"}
        assert not await dispatcher._stop(ada, resting.run_id), "nor one that ended while it was asked for"
        await dispatcher.sweep()  # the agent rests no longer
        after = await dispatcher.result(following)
        with pytest.raises(NotFound):
            await dispatcher.cancel("agent-of-nobody")
        await dispatcher.stop(5.0)
    assert ended is not None
    assert ended.stop_reason == "cancelled"
    assert (said[-1].role, said[-1].content) == ("tool", "error: not run, the turn stopped: cancelled")
    assert after is not None
    assert after.reply == "fine"


async def test_a_run_that_another_process_runs_is_not_called_cancelled(tmp_path: Path) -> None:
    gate = Gate()
    options: dict[str, Any] = {"llm": gate.llm, "embedder": HashEmbedder(), "index": ExactIndex()}
    async with Runtime(Settings(home=tmp_path), **options) as other, Runtime(Settings(home=tmp_path), **options) as own:
        agent = await other.agent("ada")
        item = await agent.accept(["hello"])
        running = asyncio.create_task(drained(agent, item))
        await gate.until(1)
        dispatcher = Dispatcher(own)
        assert await dispatcher.cancel(agent.id) == {item.run_id: "failed"}
        later = await dispatcher.accept(agent.id, ["later"])
        await until(lambda: own.running(agent.id) is not None)  # it waits for the other
        assert await dispatcher.cancel(agent.id, [item.run_id]) == {item.run_id: "failed"}
        gate.open.set()
        await running
        results = [await dispatcher.result(i) for i in (item, later)]
        await dispatcher.stop(5.0)
    assert [r and r.reply for r in results] == ["re: hello", "re: later"], "and the next one is not taken for it"


async def test_a_turns_own_limit_of_steps_outlives_a_restart() -> None:
    stepped = asyncio.Event()

    @tool
    async def step() -> str:
        """Step."""
        if not stepped.is_set():
            stepped.set()
            await asyncio.Event().wait()
        return str(len(llm.requests))

    llm = FunctionLLM(lambda request: say("", call("step", request_heartbeat=True)))
    async with temporary_runtime(llm, tools=[step]) as runtime:
        (ada,) = await agent_ids(runtime, "ada")
        dispatcher = Dispatcher(runtime)
        item = await dispatcher.accept(ada, ["go"], max_steps=3)
        await stepped.wait()
        await dispatcher.stop(0.0)
        dispatcher = Dispatcher(runtime)
        dispatcher.wake(ada)
        result = await dispatcher.result(item)
        other = await dispatcher.result(await dispatcher.accept(ada, ["go"], max_steps=1000))
        await dispatcher.stop(5.0)
    assert result is not None
    assert (result.stop_reason, result.steps) == ("max_steps", 3)
    assert "raise max_steps" in (result.error or "")
    assert other is not None
    assert (other.stop_reason, other.steps) == ("max_steps", 25), "never above the agent's"


async def test_what_is_unfinished_goes_on_when_a_dispatcher_starts() -> None:
    gate = Gate()
    gate.open.set()
    async with temporary_runtime(gate.llm) as runtime:
        (ada,) = await agent_ids(runtime, "ada")
        agent = await runtime.agent_of(ada)
        items = [await agent.accept([f"a{n}"]) for n in range(2)]
        dispatcher = Dispatcher(runtime)
        await dispatcher.start()
        results = [await dispatcher.result(item) for item in items]
        await dispatcher.stop(5.0)
    assert [r.reply for r in results if r] == ["re: a0", "re: a1"]


async def test_stopping_lets_a_turn_end_and_begins_no_other() -> None:
    gate = Gate()
    async with temporary_runtime(gate.llm) as runtime:
        dispatcher = Dispatcher(runtime)
        await dispatcher.start()
        (ada,) = await agent_ids(runtime, "ada")
        items = [await dispatcher.accept(ada, [f"a{n}"]) for n in range(2)]
        await gate.until(1)
        stop = asyncio.create_task(dispatcher.stop(10.0))
        await asyncio.sleep(0)
        gate.open.set()
        await stop
        agent = await runtime.agent_of(ada)
        first, second = [await agent.result(item) for item in items]
        assert first is not None
        assert second is None
        runs = await runtime.store.read(lambda tx: tx.open_runs(ada))
    assert [r.status for r in runs] == ["created"]


async def test_what_takes_longer_than_the_grace_goes_on_at_the_next_start() -> None:
    gate = Gate()
    async with temporary_runtime(gate.llm) as runtime:
        dispatcher = Dispatcher(runtime)
        await dispatcher.start()
        (ada,) = await agent_ids(runtime, "ada")
        item = await dispatcher.accept(ada, ["slow"])
        await gate.until(1)
        await dispatcher.stop(0.01)
        gate.open.set()
        following = Dispatcher(runtime)
        await following.start()
        result = await following.result(item)
        await following.stop(5.0)
    assert result is not None
    assert (result.reply, result.stop_reason) == ("re: slow", "end_turn")


async def test_a_turn_that_breaks_off_each_time_is_given_up_and_its_agent_goes_on() -> None:
    broken = 0

    def answer(request: LLMRequest) -> Reply:
        nonlocal broken
        if request.messages[-1]["content"].endswith("poison"):
            broken += 1
            raise RuntimeError("a bug")
        return say("fine")

    async with dispatching(FunctionLLM(answer), rest_seconds=(0.0,)) as dispatcher:
        (ada,) = await agent_ids(dispatcher.runtime, "ada")
        bad = await dispatcher.accept(ada, ["poison"])
        good = await dispatcher.accept(ada, ["hello"])
        async with asyncio.timeout(20):
            while await dispatcher.result(bad, 0.0) is None:
                await dispatcher.sweep()
                await asyncio.sleep(0.01)
        failed, fine = await dispatcher.result(bad), await dispatcher.result(good)
    assert failed is not None
    assert failed.stop_reason == "llm_error"
    assert "broke off 3 times (RuntimeError)" in (failed.error or "")
    assert fine is not None
    assert fine.reply == "fine"
    assert broken == 3


async def test_a_timer_wakes_its_agent_and_waits_while_it_is_busy() -> None:
    clock, order = FixedClock(), []
    busy = asyncio.Event()

    async def answer(request: LLMRequest) -> Reply:
        last = request.messages[-1]["content"]
        if last.endswith("remind me"):
            return say("I will.", call("set_timer", when="1h", note="tea"))
        order.append("timer" if "tea" in str(last) else "user")
        if order[-1] == "user" and len(order) == 1:
            await busy.wait()
        return say("noted")

    async with dispatching(FunctionLLM(answer), clock=clock) as dispatcher:
        (ada,) = await agent_ids(dispatcher.runtime, "ada")
        await dispatcher.result(await dispatcher.accept(ada, ["remind me"]))
        order.clear()
        item = await dispatcher.accept(ada, ["talk"])
        await until(lambda: bool(order))
        clock.advance(timedelta(hours=2))
        await dispatcher.sweep()
        assert order == ["user"]
        busy.set()
        await dispatcher.result(item)
        await until(lambda: order == ["user", "timer"])


async def test_a_schedule_that_cannot_fire_is_told_once_and_tried_now_and_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Missing(FunctionLLM):
        asked = 0

        @property
        def context_window(self) -> int:  # type: ignore[override]
            self.asked += 1
            raise ConfigError("there is no such model")

        @context_window.setter
        def context_window(self, value: int) -> None:
            pass

    llm = Missing(lambda request: "")
    async with temporary_runtime(llm) as runtime:
        dispatcher = Dispatcher(runtime)
        (ada,) = await agent_ids(runtime, "ada")
        schedule = await add_schedule(runtime.store, runtime.clock, ada, [Input("hello")], at=runtime.clock.now())
        for _ in range(3):
            await dispatcher.sweep()
        assert llm.asked == 1
        dispatcher._unfired[schedule.id] = (0.0, dispatcher._unfired[schedule.id][1])  # a minute later
        await dispatcher.sweep()
        assert llm.asked == 2
        assert [r.message for r in caplog.records].count("schedule waits") == 1
        await runtime.store.write(lambda tx: tx.delete_schedule(ada, schedule.id))
        await dispatcher.sweep()
        assert dispatcher._unfired == {}


async def test_a_follower_that_is_slow_gets_all_of_it_in_larger_pieces() -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    @tool
    async def wait() -> str:
        """Wait."""
        started.set()
        await go_on.wait()
        return "waited"

    def answer(request: LLMRequest) -> Reply:
        return say("done") if request.messages[-1]["role"] == "tool" else say("I wait.", call("wait"))

    async with dispatching(FunctionLLM(answer), tools=[wait]) as dispatcher:
        (ada,) = await agent_ids(dispatcher.runtime, "ada")
        item = await dispatcher.accept(ada, ["go"])
        await started.wait()
        async with dispatcher.feeds.follow(item.run_id) as feed:
            assert feed.text == "I wait."
            before = feed.saved
            go_on.set()
            while feed.result is None:
                assert await feed.changed(10)
            assert feed.saved > before
            assert feed.result.reply == "I wait.\n\ndone"
            assert not await feed.changed(0.01)


async def test_an_agent_that_is_not_there() -> None:
    async with dispatching(FunctionLLM(lambda _: "ok")) as dispatcher:
        with pytest.raises(NotFound):
            await dispatcher.accept("agent-of-nobody", ["hello"])


async def test_what_was_changed_while_a_wake_up_waited_for_the_lock_holds() -> None:
    sent: list[str] = []

    def answer(request: LLMRequest) -> str:
        sent.append(str(request.messages[0]["content"]))
        return "ok"

    async with temporary_runtime(FunctionLLM(answer)) as runtime:
        agent, dispatcher = await runtime.agent("ada"), Dispatcher(runtime)
        async with runtime.lock(agent.id):
            await agent.accept(["hello"])
            drained = asyncio.create_task(dispatcher.drain(agent.id))
            while not agent.busy:  # noqa: ASYNC110  it has read the agent's row and waits
                await asyncio.sleep(0.001)
            await runtime.update_agent(agent.id, system="Be brief.")
        await drained
    [system] = sent
    assert system.startswith("Be brief.")
