"""Runs, steps and schedules by Letta's own client."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from letta_client import APIStatusError, BadRequestError, InternalServerError, NotFoundError

from agentos.dispatch import Dispatcher
from agentos.errors import ProviderError
from agentos.messages import Input
from agentos.runtime import Runtime
from agentos.schedules import add_schedule
from agentos.settings import Settings
from agentos.testing import (
    ExactIndex,
    FixedClock,
    FunctionLLM,
    HashEmbedder,
    ScriptedLLM,
    call,
    say,
    temporary_runtime,
)
from serving import Served, served
from test_letta_messages import kinds, user

pytestmark = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # of the client's methods


@pytest.fixture(scope="module")
def home() -> Iterator[Served]:
    """A server with two agents, ada with three turns (the last failed) and bob with one."""
    script = [
        say("", call("archival_memory_insert", content="tea", request_heartbeat=True)), "noted", "two",
        ProviderError("down"), "bob's",
    ]  # fmt: skip
    with served(ScriptedLLM(script)) as home:
        ada, bob = (home.letta.agents.create(name=name).id for name in ("ada", "bob"))
        for text in ("one", "two", "three"):
            home.letta.agents.messages.create(ada, messages=user(text))
        home.letta.agents.messages.create(bob, messages=user("four"), background=True)
        yield home


@pytest.fixture
def ids(home: Served) -> dict[str, str]:
    return {row.name: row.id for row in home.read(lambda tx: tx.agents())}


def test_runs_are_listed_and_filtered(home: Served, ids: dict[str, str]) -> None:
    runs = home.letta.runs
    whole = list(runs.list())
    assert [run.agent_id for run in whole] == [ids["bob"], *[ids["ada"]] * 3]
    assert [run.status for run in whole] == ["completed", "failed", "completed", "completed"]
    assert len({run.id for run in whole}) == 4
    for order, expected in (("asc", whole[::-1]), ("desc", whole)):
        assert [r.id for r in runs.list(order=order, limit=1)] == [r.id for r in expected]  # type: ignore[arg-type]
        before = runs.list(order=order, limit=2, before=expected[-1].id)  # type: ignore[arg-type]
        assert [r.id for r in before.items] == [r.id for r in expected[1:3]]
        assert len(list(before)) == 3
    for filters, found in (
        ({"agent_id": ids["bob"]}, whole[:1]),
        ({"agent_ids": [ids["ada"], ids["bob"]]}, whole),
        ({"agent_id": "agent-none"}, []),
        ({"statuses": ["failed", "running"]}, whole[1:2]),
        ({"stop_reason": "llm_api_error"}, whole[1:2]),
        ({"stop_reason": "max_steps"}, []),
        ({"active": True}, []),
        ({"background": True}, whole[:1]),
        ({"background": False, "agent_id": ids["bob"]}, []),
        ({"ascending": True}, whole[::-1]),
    ):
        assert [r.id for r in runs.list(**filters)] == [r.id for r in found], filters  # type: ignore[arg-type]
    for asked in (lambda: runs.list(after="run-none"), lambda: runs.retrieve("run-none")):
        with pytest.raises(NotFoundError):
            asked()


def test_what_a_run_consists_of(home: Served, ids: dict[str, str]) -> None:
    letta = home.letta
    run = next(iter(letta.runs.list(agent_id=ids["ada"], order="asc")))
    messages = list(letta.runs.messages.list(run.id))
    assert kinds(messages) == ["user_message", "tool_call_message", "tool_return_message", "assistant_message"]
    for order in ("asc", "desc"):
        paged = [m.id for m in letta.runs.messages.list(run.id, limit=1, order=order)]  # type: ignore[arg-type]
        assert paged == [m.id for m in (messages if order == "asc" else messages[::-1])]
    assert [m.id for m in letta.runs.messages.list(run.id, before=messages[3].id, limit=2).items] == [
        m.id for m in messages[1:3]
    ]
    used = letta.runs.usage.retrieve(run.id)
    steps = list(letta.runs.steps.list(run.id, limit=1))
    assert [step.status for step in steps] == ["success", "success"]
    assert used.prompt_tokens == sum(step.prompt_tokens or 0 for step in steps)
    assert used.total_tokens == used.prompt_tokens + used.completion_tokens
    trace: Any = letta.runs.trace.retrieve(run.id)
    assert [span["attributes"]["id"] for span in trace] == [step.id for step in steps[::-1]]

    step = letta.steps.retrieve(steps[1].id)
    assert (step.run_id, step.agent_id, step.model) == (run.id, ids["ada"], "test/scripted")
    assert kinds(letta.steps.messages.list(step.id)) == ["tool_call_message", "tool_return_message"]
    assert letta.steps.metrics.retrieve(step.id).llm_request_ns is not None
    assert letta.steps.trace.retrieve(step.id) is None
    failed = next(iter(letta.steps.list(agent_id=ids["ada"])))
    assert (failed.status, failed.stop_reason) == ("failed", "llm_api_error")
    assert len(list(letta.steps.list(limit=2))) == 5
    assert list(letta.steps.list(model="other")) == list(letta.steps.list(end_date="2020-01-01")) == []
    assert list(letta.steps.list(feedback="positive")) == []
    for unknown in ("step-99", "step-x", "1"):
        with pytest.raises(NotFoundError):
            letta.steps.retrieve(unknown)


# schedules


@pytest.mark.parametrize("unit", [1, 1000])
def test_schedules_over_the_api(unit: int) -> None:
    clock = FixedClock()
    with served(FunctionLLM(lambda request: "ok"), clock=clock) as home:
        letta, ada = home.letta, home.letta.agents.create(name="ada").id
        hour = clock.now() + timedelta(hours=1)
        once: Any = {"type": "one-time", "scheduled_at": hour.timestamp() * unit}
        made = letta.agents.schedule.create(ada, messages=user("water the plants"), schedule=once)
        assert made.next_scheduled_at == hour.isoformat(timespec="microseconds")
        cron: Any = {"type": "recurring", "cron_expression": "0 9 * * 1-5"}
        daily = letta.agents.schedule.create(
            ada, messages=[*user("a"), {"role": "system", "content": "b"}], schedule=cron
        )
        assert daily.next_scheduled_at == "2026-05-11T09:00:00.000000+00:00", "in UTC"
        first, second = (letta.agents.schedule.retrieve(one.id, agent_id=ada) for one in (made, daily))
        assert first.message.messages[0].content == "water the plants"
        assert first.schedule.scheduled_at == hour.timestamp() * 1000  # type: ignore[union-attr]
        assert second.schedule.cron_expression == "0 9 * * 1-5"  # type: ignore[union-attr]
        assert [m.role for m in second.message.messages] == ["user", "system"]
        page = letta.agents.schedule.list(ada, limit="1")
        rest = letta.agents.schedule.list(ada, after=page.scheduled_messages[0].id)
        assert (page.has_next_page, rest.has_next_page) == (True, False)
        assert {s.id for s in page.scheduled_messages + rest.scheduled_messages} == {made.id, daily.id}
        assert letta.agents.schedule.delete(daily.id, agent_id=ada).success
        bob = letta.agents.create(name="bob").id
        for asked in (
            lambda: letta.agents.schedule.delete(daily.id, agent_id=ada),
            lambda: letta.agents.schedule.retrieve(made.id, agent_id=bob),
            lambda: letta.agents.schedule.create("agent-none", messages=user("x"), schedule=once),
        ):
            with pytest.raises(NotFoundError):
                asked()
        for schedule, messages, error in (
            ({"type": "recurring", "cron_expression": "every day"}, user("x"), BadRequestError),
            ({"type": "recurring", "cron_expression": "0 0 31 2 *"}, user("x"), BadRequestError),
            ({"type": "one-time", "scheduled_at": 1e300}, user("x"), BadRequestError),
            ({"type": "one-time", "scheduled_at": 5e12}, user("x"), BadRequestError),
            ({"type": "one-time", "scheduled_at": -1}, user("x"), APIStatusError),
            (once, user(" "), BadRequestError),
            (once, [], APIStatusError),
        ):
            with pytest.raises(error) as refused:
                letta.agents.schedule.create(ada, messages=messages, schedule=schedule)  # type: ignore[arg-type]
            assert 400 <= refused.value.status_code < 500
        with pytest.raises(InternalServerError, match="callback_url"):
            letta.agents.schedule.create(ada, messages=user("x"), schedule=once, callback_url="http://a.b")
        clock.advance(timedelta(hours=2))
        home.run(settled(home.service.dispatcher))
        assert [m.scheduled_messages for m in [letta.agents.schedule.list(ada)]] == [[]]
        said = letta.agents.messages.list(ada, include_return_message_types=["user_message"])
        assert [m.content for m in said] == ["water the plants"]  # type: ignore[union-attr]


async def settled(dispatcher: Dispatcher) -> None:
    """Fire what is due and let the turns end."""
    await dispatcher.sweep()
    while dispatcher.running:  # noqa: ASYNC110  it tells nobody
        await asyncio.sleep(0.001)


async def heard(runtime: Runtime, agent_id: str) -> list[str]:
    """What schedules told an agent so far."""
    messages = await runtime.store.read(lambda tx: tx.recent_messages(agent_id, 100))
    return [m.content for m in reversed(messages) if m.origin == "user" and m.seq]


async def test_a_schedule_fires_once_for_all_times_missed() -> None:
    clock = FixedClock(datetime(2026, 5, 8, 8, 30, tzinfo=UTC))
    async with temporary_runtime(FunctionLLM(lambda request: "ok"), clock=clock) as runtime:
        agent, dispatcher = await runtime.agent("ada"), Dispatcher(runtime)
        hourly = await add_schedule(runtime.store, clock, agent.id, [Input("hourly")], cron="0 * * * *", zone="UTC")
        await add_schedule(runtime.store, clock, agent.id, [Input("once")], at=clock.now() + timedelta(minutes=45))
        await settled(dispatcher)
        assert await heard(runtime, agent.id) == []
        clock.advance(timedelta(minutes=30))
        for _ in range(2):
            await settled(dispatcher)
        assert await heard(runtime, agent.id) == ["hourly"]
        clock.advance(timedelta(hours=5))
        for _ in range(2):
            await settled(dispatcher)
        assert sorted(await heard(runtime, agent.id)) == ["hourly", "hourly", "once"]
        (left,) = await runtime.store.read(lambda tx: tx.schedules(agent.id))
        assert (left.id, left.next_at) == (hourly.id, datetime(2026, 5, 8, 15, tzinfo=UTC))


async def test_a_schedule_does_not_pile_up_while_its_last_input_waits() -> None:
    clock = FixedClock()
    async with temporary_runtime(FunctionLLM(lambda request: "ok"), clock=clock) as runtime:
        agent, dispatcher = await runtime.agent("ada"), Dispatcher(runtime)
        await add_schedule(runtime.store, clock, agent.id, [Input("tick")], cron="* * * * *", zone="UTC")
        dispatcher.stopping = True  # no turn begins
        for _ in range(3):
            clock.advance(timedelta(minutes=1))
            await dispatcher.sweep()
        assert len(await runtime.store.read(lambda tx: tx.open_runs(agent.id))) == 1
        dispatcher.stopping = False
        await settled(dispatcher)
        clock.advance(timedelta(minutes=1))
        await settled(dispatcher)
        assert await heard(runtime, agent.id) == ["tick", "tick"]


async def test_one_schedule_that_cannot_fire_keeps_no_other_from_it() -> None:
    clock = FixedClock()
    async with temporary_runtime(FunctionLLM(lambda request: "ok"), clock=clock) as runtime:
        ada, bob = [await runtime.agent(name) for name in ("ada", "bob")]
        dispatcher = Dispatcher(runtime)
        await add_schedule(runtime.store, clock, ada.id, [Input("never")], at=clock.now())
        await add_schedule(runtime.store, clock, bob.id, [Input("ever")], at=clock.now())
        await runtime.store.write(lambda tx: tx.update_agent(ada.id, system="too long " * 100_000))
        await settled(dispatcher)
        assert (await heard(runtime, ada.id), await heard(runtime, bob.id)) == ([], ["ever"])
        assert await runtime.store.read(lambda tx: tx.schedules()) == []


async def test_a_schedule_survives_a_restart(tmp_path: Path) -> None:
    clock = FixedClock()
    for hours, expected in ((0, []), (3, ["tick"]), (1, ["tick", "tick"])):
        clock.advance(timedelta(hours=hours))
        llm = FunctionLLM(lambda request: "ok")
        parts: dict[str, Any] = {"clock": clock, "embedder": HashEmbedder(), "index": ExactIndex()}
        async with Runtime(Settings(home=tmp_path), llm=llm, **parts) as runtime:
            agent = await runtime.agent("ada")
            if not hours:
                await add_schedule(runtime.store, clock, agent.id, [Input("tick")], cron="0 * * * *")
            await settled(Dispatcher(runtime))
            assert await heard(runtime, agent.id) == expected
