"""Scenarios: the shipped ones pass, broken agents fail them, and mistakes in a file are named by line."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
import tomllib
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer import BadParameter

from agentos.agent import Agent
from agentos.cli.app import app
from agentos.errors import AgentOSError, ConfigError, UsageError
from agentos.llm.offline import UNKNOWN, OfflineLLM
from agentos.messages import Reply, ToolCall
from agentos.personas import Persona
from agentos.protocols import Hit, SearchQuery
from agentos.runtime import Runtime
from agentos.scenarios.check import check, wilson
from agentos.scenarios.load import find_scenarios, load_bounds, load_scenario, persona_folder
from agentos.scenarios.model import SCHEMA, Bounds, Expect, Kill, Scenario, Turn, compare, json_schema, period
from agentos.scenarios.run import play
from agentos.scenarios.session import Session
from agentos.scenarios.trajectory import Trajectory, TurnRecord, load_trajectory
from agentos.settings import Settings
from agentos.testing import FunctionLLM, say
from agentos.testing.fake_openai import FakeOpenAI, FakeReply
from agentos.testing.fake_openai import call as tool_call
from agentos.tools.toolset import Toolset
from forks import Forks

ROOT = Path(__file__).parent.parent
PERSONAS = ROOT / "personas"
PAGE = (ROOT / "docs/scenarios.md").read_text()


async def failures_of(path: Path, **options: Any) -> list[str]:
    """What does not hold when the scenario of a file is played."""
    scenario = load_scenario(path)
    options = {"personas": persona_folder(path)} | options
    return [str(failure) for failure in check(scenario, await play(scenario, **options))]


def shipped(name: str) -> Path:
    return PERSONAS / f"{name.replace('/', '/scenarios/')}.scenario.yaml"


@pytest.mark.parametrize("path", find_scenarios([PERSONAS]), ids=lambda p: p.name.removesuffix(".scenario.yaml"))
async def test_a_shipped_scenario_goes_as_expected(path: Path) -> None:
    assert await failures_of(path) == []


def test_each_persona_has_scenarios_of_several_weeks() -> None:
    for persona in PERSONAS.glob("*/persona.md"):
        assert len(find_scenarios([persona.parent])) >= 6
    for path in find_scenarios([PERSONAS]):
        turns = load_scenario(path).turns
        passed = (str(turn.advance or turn.restart) for turn in turns if turn.advance or turn.restart)
        assert sum(map(period, passed), timedelta()) >= timedelta(weeks=3), path


# broken agents


def never_pages_out(settings: Settings, **parts: Any) -> Runtime:
    return Runtime(settings.model_copy(update={"context_window": 200_000}), **parts)


class Appending(OfflineLLM):
    """A model that adds the new fact and leaves the old one."""

    async def stream(self, request: Any) -> AsyncGenerator[Any, None]:
        async for item in super().stream(request):
            yield replace(item, calls=tuple(map(self._appended, item.calls))) if isinstance(item, Reply) else item

    def _appended(self, call: ToolCall) -> ToolCall:
        if call.name != "core_memory_replace":
            return call
        given = {"label": call.values["label"], "content": call.values["new_content"]}
        return replace(call, name="core_memory_append", arguments=json.dumps(given))


def appends(settings: Settings, *, llm: Any, **parts: Any) -> Runtime:
    return Runtime(settings, llm=Appending(), **parts)


class SharesArchival(Runtime):
    """Every agent's searches of archival memory go through that of all."""

    def open(self) -> None:
        super().open()
        own = self.search

        async def everywhere(agent_id: str, query: SearchQuery, **options: Any) -> list[Hit]:
            if query.scope != "archival":
                return await own(agent_id, query, **options)
            agents = await self.store.read(lambda tx: tx.agents())
            return [hit for agent in agents for hit in await own(agent.id, query, **options)]

        self.search = everywhere  # type: ignore[assignment]


class NoHeartbeats(Toolset):
    def wants_heartbeat(self, call: ToolCall) -> bool:
        return False


class IgnoresHeartbeats(Runtime):
    """No call, however it asks, gets another step."""

    def attach(self, *args: Any, **options: Any) -> Agent:
        agent = super().attach(*args, **options)
        agent.parts = replace(agent.parts, tools=NoHeartbeats(agent.parts.tools.tools.values()))
        return agent


class ForgetsTimers(Runtime):
    """What was due at the start is dropped."""

    def open(self) -> None:
        super().open()
        with self.store.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE timer SET fired_at = due_at")


def knows_nothing(settings: Settings, *, llm: Any, **parts: Any) -> Runtime:
    return Runtime(settings, llm=FunctionLLM(lambda request: say(UNKNOWN)), **parts)


@pytest.mark.parametrize(
    ("name", "broken", "told"),
    [
        ("assistant/paged-out", never_pages_out, "page_outs >= 1"),
        ("assistant/corrected-twice", appends, "block human excludes 'Lisbon'"),
        ("assistant/same-name", SharesArchival, "'7731-B' of anna-m stays private"),
        ("support/two-customers", SharesArchival, "'courier' of maria-l stays private"),
        ("tutor/two-learners", appends, "reply excludes 'biology'"),
        ("assistant/preference-ends", knows_nothing, "reply contains 'green tea'"),
        ("support/injected", IgnoresHeartbeats, "heartbeats 2"),
        ("assistant/reminder", ForgetsTimers, "reply contains 'call Ben'"),
    ],
)
async def test_a_broken_agent_fails_the_scenario_meant_to_catch_it(
    name: str, broken: Callable[..., Runtime], told: str
) -> None:
    assert f"expected: {told}" in "\n".join(await failures_of(shipped(name), open_runtime=broken))


async def test_a_persona_whose_policy_can_be_written_fails_the_injection(tmp_path: Path) -> None:
    folder = tmp_path / "personas" / "support"
    shutil.copytree(PERSONAS / "support", folder)
    persona = folder / "persona.md"
    persona.write_text(persona.read_text().replace("read_only: true", "read_only: false"))
    told = await failures_of(folder / "scenarios" / "injected.scenario.yaml")
    assert "block policy excludes 'always granted'" in "\n".join(told)
    assert "policy: + 2. Refunds are always granted, up to 5000 dollars." in "\n".join(told)


# playing


def scenario_of(*turns: dict[str, Any], **values: Any) -> Scenario:
    return Scenario.model_validate({"name": "x", "model": "script", "turns": turns, **values})


SAVES = {
    "say": "Noted.",
    "calls": [
        {"core_memory_append": {"label": "human", "content": "Home: Faro", "request_heartbeat": True}},
        {"archival_memory_insert": {"content": "Rui is the landlord."}},
    ],
}


async def test_a_script_with_a_line_too_few_or_too_many_fails_its_turn() -> None:
    scenario = scenario_of({"user": "hi", "script": []}, {"user": "ho", "script": ["a", "b"]})
    few, many = check(scenario, await play(scenario))
    assert (few.turn, many.turn) == (1, 2)
    assert "llm_error: the script of this turn has no line left" in few.found
    assert "1 of the turn's script lines were not asked for" in many.found


async def test_a_kill_at_a_point_that_never_comes_fails_its_turn() -> None:
    scenario = scenario_of({"user": "hi", "script": ["hello"], "kill": {"before": "set_timer"}})
    (failure,) = check(scenario, await play(scenario))
    assert "never came to the point before set_timer" in failure.found


async def test_a_killed_turn_ran_in_another_process_and_made_no_call_twice() -> None:
    scenario = scenario_of({"user": "hi", "script": [SAVES, "Done."], "kill": {"after": "core_memory_append"}})
    trajectory = await play(scenario)
    assert check(scenario, trajectory) == []
    (turn,) = trajectory.turns
    assert [event["type"] for event in turn.events] == [
        "tool_call", "tool_call", "tool_result",  # until SIGKILL
        "tool_result", "heartbeat", "result",
    ]  # fmt: skip
    assert turn.memory["user"].blocks["human"] == "Home: Faro"
    assert turn.llm_calls == 2


async def test_users_may_share_an_agent_and_their_words_still_show_in_replies() -> None:
    turns = {"as": "mia", "user": "hi", "script": ["Hi."]}, {"as": "ben", "user": "hi", "script": ["Mia said hi."]}
    scenario = scenario_of(*turns, agents={"mia": "family", "ben": "family"}, expect={"private": {"mia": "mia said"}})
    trajectory = await play(scenario)
    assert set(trajectory.turns[-1].memory) == {"family"}
    (failure,) = check(scenario, trajectory)
    assert failure.found == "it is in the replies to ben: Mia said hi."


async def test_line_separators_in_a_message_stay_in_it(tmp_path: Path) -> None:
    text = "The key\u2028hangs\u2029in\x85the shed."
    search = {"say": "", "calls": [{"archival_memory_search": {"query": "key"}}]}
    scenario = scenario_of({"inject": {"document": text}}, {"user": text, "script": [search, text]})
    trajectory = await play(scenario)
    assert check(scenario, trajectory) == []
    ((hit,),) = trajectory.turns[1].memory["user"].shown
    assert hit.text == text
    trajectory.save(tmp_path / "a.jsonl")
    assert load_trajectory(tmp_path / "a.jsonl").model_dump_json() == trajectory.model_dump_json()


# expectations


LANDLORD = {"query": "landlord", "finds": "Rui", "rank": 1}


async def played() -> tuple[Scenario, Trajectory]:
    scenario = scenario_of({"user": "I live in Faro.", "script": [SAVES, "Done."], "expect": {"search": [LANDLORD]}})
    return scenario, await play(scenario)


MET_AND_UNMET = [
    ({"reply": {"contains": "done", "matches": r"^Noted"}}, {"reply": {"excludes": "noted"}}),
    ({"reply": {"contains": ["Noted", "Done"]}}, {"reply": {"matches": "^noted"}}),
    ({"blocks": {"human": {"contains": "faro", "length": 10}}}, {"blocks": {"human": {"length": "> 10"}}}),
    ({"blocks": {"rules": {"length": 0}}}, {"blocks": {"humans": {"length": 0}}}),
    ({"archival": {"contains": "Rui"}}, {"archival": {"excludes": "rui"}}),
    ({"recall": {"contains": "I live in Faro."}}, {"recall": {"contains": "Oslo"}}),
    ({"search": [LANDLORD]}, {"search": [{"query": "landlord", "finds": "x"}]}),
    ({"search": [{"query": "landlord", "excludes": "Oslo"}]}, {"search": [{"query": "landlord", "excludes": "rui"}]}),
    ({}, {"search": [{"query": "another", "finds": "Rui"}]}),
    (
        {"calls": [{"core_memory_append": {"content": "faro"}}, {"archival_memory_insert": {}}]},
        {"calls": [{"archival_memory_insert": {}}, {"core_memory_append": {}}]},
    ),
    ({"calls": [{"core_memory_append": {"request_heartbeat": True}}]}, {"calls": []}),
    ({"heartbeats": 1, "page_outs": 0, "llm_calls": "<= 2"}, {"llm_calls": "< 2"}),
    ({"prompt_tokens": "> 1000", "cost_usd": 0, "fill": "< 0.5"}, {"fill": "<= 0.001"}),
    ({"stop_reason": "end_turn"}, {"stop_reason": "max_steps"}),
]


async def test_each_expectation_holds_or_does_not() -> None:
    scenario, trajectory = await played()
    for met, unmet in MET_AND_UNMET:
        for wanted, count in ((met, 0), (unmet, 1)):
            turn = scenario.turns[0].model_copy(update={"expect": Expect.model_validate(wanted)})
            found = check(scenario.model_copy(update={"turns": [turn]}), trajectory)
            assert len(found) == count, wanted


LANDLORDS = scenario_of(
    {"user": "Rui.", "script": [{"say": "Ok", "calls": [{"archival_memory_insert": {"content": "It is Rui"}}]}]},
    {"restart": "2 days"},
    {"user": "Ines.", "script": [
        {"say": "Ok", "calls": [{"archival_memory_insert": {"content": "It is Ines", "replaces": "p1"}}]}]},
)  # fmt: skip


async def test_what_is_valid_and_what_was_superseded_can_be_expected() -> None:
    ask = {"query": "who is it"}
    for met, unmet in (
        ({"superseded": {"rui": "ines"}}, {"superseded": {"Ines": "Rui"}}),
        ({"archival": {"contains": "Ines", "excludes": "Rui"}}, {"archival": {"contains": "Rui"}}),
        ({"search": [ask | {"finds": "Ines", "excludes": "Rui"}]}, {"search": [ask | {"finds": "Rui"}]}),
        ({"search": [ask | {"finds": who, "include_superseded": True} for who in ("Rui", "Ines")]},
         {"search": [ask | {"excludes": "Rui", "include_superseded": True}]}),
        ({"search": [ask | {"finds": "Rui", "excludes": "Ines", "as_of": "2026-05-09"}]},
         {"search": [ask | {"finds": "Ines", "as_of": "2026-05-09T12:00:00+00:00"}]}),
    ):  # fmt: skip
        for wanted, count in ((met, 0), (unmet, 1)):
            scenario = LANDLORDS.model_copy(update={"expect": Expect.model_validate(wanted)})
            assert len(check(scenario, await play(scenario))) == count, wanted


# approvals


BUYS: list[dict[str, Any]] = [
    {"inject": {"tool": "buy", "result": "bought"}},
    {"user": "Tea.", "script": [{"say": "Wait.", "calls": [{"buy": {"query": "tea"}}, {"buy": {"query": "milk"}}]}]},
]
WAITS = {"waits": [{"buy": {"query": "tea"}}, {"buy": {"query": "milk"}}]}


def buying(*turns: dict[str, Any], **expect: Any) -> Scenario:
    return scenario_of(BUYS[0], BUYS[1] | {"expect": expect or WAITS}, *turns, approvals={"buy": "ask"})


@pytest.mark.parametrize("approve", [True, False])
async def test_a_person_decides_after_a_restart_and_only_what_came_since_counts(approve: bool) -> None:
    asleep = {"restart": "3 days", "expect": WAITS | {"llm_calls": 0, "calls": []}}
    expect = {"llm_calls": 1, "calls": [{"buy": {}}, {"buy": {}}], "reply": {"matches": r"\ADone\.\Z"}, "waits": []}
    decided = {"approve": approve, "reason": "it is late", "script": ["Done."], "expect": expect}
    scenario = buying(asleep, decided)
    trajectory = await play(scenario)
    assert check(scenario, trajectory) == []
    last = trajectory.turns[-1]
    assert [call["ok"] for call in last.calls] == [approve, approve]
    assert last.action == f"a person {'approves' if approve else 'refuses'} what waits: it is late"
    assert ("it is late" in "".join(last.memory["user"].new_results)) is not approve
    total = sum(record.prompt_tokens for record in trajectory.turns)
    assert total == max(r["usage"]["prompt_tokens"] for r in last.events if r["type"] == "result")


async def test_a_call_that_waits_is_to_be_expected_and_a_decision_needs_one() -> None:
    for scenario, turn, told in (
        (buying(calls=[]), 2, "requires_approval: buy, buy"),
        (buying(waits=[{"buy": {"query": "beer"}}]), 2, "buy {'query'"),
        (buying({"restart": True, "expect": {"waits": []}}), 3, "buy {'query'"),
        (buying({"approve": True, "script": ["Ok."]}, {"approve": True}), 4, "no call of this agent waits"),
        (scenario_of({"user": "hi", "script": ["Hi."]}, {"approve": False}), 2, "no call of this agent waits"),
    ):  # fmt: skip
        (failure,) = check(scenario, await play(scenario))
        assert (failure.turn, told in failure.found) == (turn, True), failure
    spoken_to = buying(
        {"user": "No, thanks.", "script": ["Fine."], "expect": {"reply": {"matches": r"\AFine"}, "waits": []}}
    )
    assert check(spoken_to, await play(spoken_to)) == []
    never = scenario_of(BUYS[0], {"user": "Tea.", "script": ["I cannot."]}, approvals={"buy": "never"})
    assert check(never, await play(never)) == []


async def test_a_persona_says_which_tools_ask(tmp_path: Path) -> None:
    persona, timer = tmp_path / "own" / "persona.md", {"set_timer": {"when": "2h", "note": "tea"}}
    persona.parent.mkdir()
    turn = {"user": "Tea.", "script": [{"say": "Ok.", "calls": [timer]}]}

    async def ended(front: str, **values: Any) -> str | None:
        persona.write_text(f"---\n{front}\n---\nI am.")
        scenario = scenario_of(turn, persona="own", **values)
        return (await play(scenario, personas=tmp_path)).turns[0].stop_reason

    assert await ended("approvals: {set_timer: ask}") == "requires_approval"
    assert await ended("approvals: {set_timer: ask}", approvals={"set_timer": "always"}) == "end_turn"
    assert await ended("description: x") == "end_turn"
    with pytest.raises(ConfigError, match=r"persona 'own' names the tool 'buy'; there are: core_memory_append, "):
        await ended("approvals: {buy: ask}")
    with pytest.raises(
        ConfigError, match=r"persona.md: approvals.set_timer: Input should be 'always', 'ask' or 'never'"
    ):
        await ended("approvals: {set_timer: maybe}")


async def test_a_stop_reason_needs_a_run_and_at_the_end_is_that_of_all_turns() -> None:
    turns: list[dict[str, Any]] = [{"user": "Hi.", "script": ["Hi."]}, {"restart": True, "as": "user"}]
    for broken, stopped, at_the_end, expected in (
        (False, "end_turn", "end_turn", [(2, "nothing ran")]),
        (False, None, "llm_error", [(0, "end_turn")]),
        (False, None, "end_turn", []),
        (
            True,
            None,
            "llm_error",
            [(1, "llm_error: the script of this turn has no line left for this request; add one")],
        ),
        (True, None, "end_turn", 2),
    ):
        first = turns[0] | ({"script": []} if broken else {})
        second = turns[1] | ({"expect": {"stop_reason": stopped}} if stopped else {})
        scenario = scenario_of(first, second, expect={"stop_reason": at_the_end})
        failures = [(one.turn, one.found) for one in check(scenario, await play(scenario))]
        assert (failures if isinstance(expected, list) else len(failures)) == expected


async def test_a_trajectory_is_of_the_turns_as_they_were_but_for_their_expectations() -> None:
    turn = {"edit": {"human": "Home: Faro"}}
    trajectory = await play(scenario_of(turn))
    assert check(scenario_of(turn | {"expect": {"blocks": {"human": {"contains": "Faro"}}}}), trajectory) == []
    (failure,) = check(scenario_of({"edit": {"human": "Home: Oslo"}}), trajectory)
    assert "turns have changed since" in failure.found


async def test_a_failure_says_what_was_expected_what_was_there_and_what_changed() -> None:
    scenario, trajectory = await played()
    turn = scenario.turns[0].model_copy(update={"expect": Expect.model_validate({"archival": {"contains": "Oslo"}})})
    (failure,) = check(scenario.model_copy(update={"turns": [turn]}), trajectory)
    assert str(failure).splitlines() == [
        "turn 1 (user: I live in Faro.)",
        "  expected: archival contains 'Oslo'",
        "  found:    Rui is the landlord.",
        "  memory changed:",
        "      human: + Home: Faro",
        "      archival: + Rui is the landlord.",
    ]


def test_numbers_periods_and_intervals() -> None:
    assert [compare(n, 3) for n in (3, "<= 3", ">=3", "< 3", "> 3", 2)] == [True, True, True, False, False, False]
    assert period("1 week 2 hours 1 minute").total_seconds() == 7 * 86400 + 2 * 3600 + 60
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(5, 5) == (pytest.approx(0.5655, abs=1e-3), 1.0)
    assert wilson(5, 10) == (pytest.approx(0.2366, abs=1e-3), pytest.approx(0.7634, abs=1e-3))


# files


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("", 1, "the file is empty"),
        ("- a\n", 1, "'the scenario' cannot be a list; it has the keys: name, persona"),
        ("name: [", 1, "this is not YAML"),
        ("name: x\nstart: 2026-13-45\n", 1, "this is not YAML"),
        ("name: x\nname: y\n", 2, "'name' is there twice, first in line 1"),
        ("turns: [{user: hi}]\n", 1, "'name' is missing"),
        ("name: x\nturns:\n  - user: hi\n  - usr: ho\n", 4, "no 'usr' here; did you mean 'user'?"),
        (
            "name: x\nturns:\n  - user: hi\n    expect:\n      reply:\n        exclude: a\n",
            6,
            "mean 'excludes'?",
        ),
        ("name: x\nturns:\n  - user: hi\n    expect:\n      reply: a\n", 5, "it has the keys: contains, excludes"),
        ("name: x\nturns:\n  - user: hi\n    expect:\n      blocks:\n        human: {lenght: 3}\n", 6, "'length'?"),
        ("name: x\nturns:\n  - user: hi\n    expect:\n      search: [{querry: a}]\n", 5, "did you mean 'query'?"),
        ("name: x\nturns:\n  - user: hi\n    expect: {reply: {contains: 5}}\n", 4, "'contains' cannot be 5"),
        (
            "name: x\nturns:\n  - user: hi\n    expect: {heartbeats: many}\n",
            4,
            "'many' is no number; write",
        ),
        ("name: x\nturns:\n  - user: hi\n    expect: {reply: {matches: '('}}\n", 4, "'(' is no regular expression"),
        (
            "name: x\nmodel: script\nturns:\n  - user: hi\n    script:\n      - say: a\n        cals: []\n",
            7,
            "'calls'?",
        ),
        ("name: x\nmodel: ofline\nturns: [{user: hi}]\n", 2, "did you mean 'offline'?"),
        ("name: x\nturns:\n  - restart: 3 dayz\n", 3, "'3 dayz' is no time that passes"),
        ("name: x\nturns:\n  - user: hi\n    restart: true\n", 3, "one thing a turn: user and restart"),
        ("name: x\nturns:\n  - as: ada\n", 3, "say what happens: one of user, approve, edit"),
        ("name: x\nturns:\n  - approve: later\n", 3, "'approve' cannot be 'later'"),
        ("name: x\nturns:\n  - user: hi\n    reason: late\n", 3, "`reason` belongs to a turn with `approve`"),
        (
            "name: x\napprovals: {read_mail: ask}\nturns: [{user: hi}]\n",
            1,
            "approvals: there is no tool 'read_mail'; there",
        ),
        (
            "name: x\napprovals: {set_timer: asks}\nturns: [{user: hi}]\n",
            2,
            "'set_timer' is 'asks'; did you mean 'ask'?",
        ),
        ("name: x\nturns:\n  - expect: {search: [{query: a, finds: b, as_of: then}]}\n", 3, "'then' is no ISO date"),
        (
            "name: x\nturns:\n  - expect: {search: [{query: a, finds: b, in: recall, as_of: 2026-05-08}]}\n",
            3,
            "about archival",
        ),
        (
            "name: x\nturns:\n  - restart: true\n    repeat: 3\n",
            3,
            "`kill`, `repeat` and `needs` belong to a turn with",
        ),
        ("name: x\nturns:\n  - user: hi\n    kill: {}\n", 4, "give one of `before` and `after`"),
        ("name: x\nturns:\n  - inject: {tool: read_mail}\n", 3, "or `tool` with its `result`"),
        ("name: x\nturns:\n  - user: hi\n    script: [a]\n", 1, "say `model: script`"),
        ("name: x\nturns: [{user: hi}]\nexpect: {private: {ada: tea}}\n", 1, "no turn is `as: ada`"),
        ("name: x\nturns:\n  - {as: ada, user: hi}\n  - restart: true\nexpect: {llm_calls: 1}\n", 1, "give it `as`"),
        ("name: x\nturns:\n  - advance: 99999 weeks\n", 3, "is no time that passes"),
        ("name: x\nturns:\n  - user: hi\n    expect: {search: [{query: a, rank: 1}]}\n", 4, "`finds` or `excludes`"),
        (
            "name: x\nturns:\n- user: a\n  expect:\n    blocks:\n      strong:\n        max: 3\n",
            7,
            "no 'max' here",
        ),
        ("name: x\nturns:\n  user: hi\n", 2, "it is a list; begin each line below it with a hyphen"),
        ("name: x\nturns:\n  - user: yes\n", 3, "'user' cannot be True: it is a text; put quotes around it"),
        ("name: x\nmodel: script\nturns:\n  - user: a\n    script: [{calls: [{b: {}, c: {}}]}]\n", 5, "a call is one"),
        ("name: x\nfacts: {home: Oslo}\nturns: [{user: hi}]\n", 1, "no turn with `user` or `edit` says 'Oslo'"),
        ("name: x\nfacts: {a: [Hi, hi you]}\nturns: [{user: hi you}]\n", 1, "'hi' is part of 'hi you'"),
        ("name: x\nremarks: Oslo\nturns: [{user: hi}]\n", 1, "no turn says 'Oslo'"),
        ("name: x\nfacts: {a: hi}\nturns:\n  - user: hi\n    needs: b\n", 1, "no fact 'b'; the facts are: a"),
        ("name: x\nfacts: {a: hi}\nturns:\n  - user: hi\n    needs: a\n", 1, "the fact 'a', which is told later"),
        ("name: x\nturns:\n  - user: hi\n    kill: {during: tool}\n", 4, "expected: 'model'"),
        ("name: x\nstart: 2026-05-08T09:30:00\nturns: [{user: hi}]\n", 2, "it has an offset, such as"),
        (
            "name: x\nfacts: {a: []}\nturns:\n  - user: hi\n    needs: a\n",
            2,
            "'a' cannot be a list: it is empty; write",
        ),
        ("name: x\nfacts: {a: ''}\nturns: [{user: hi}]\n", 2, "'a' cannot be '': it has at least one character"),
        ("name: x\nremarks: ['']\nturns: [{user: hi}]\n", 2, "'remarks' cannot be '': it has"),
        ("name: x\nturns:\n  - user: hi\n    expect: {reply: {contains: ''}}\n", 4, "'contains' cannot be ''"),
        ("name: x\nturns:\n  - user: hi\n    expect: {reply: {matches: []}}\n", 4, "'matches' cannot be a list: it is"),
        ("name: x\nturns:\n  - user: hi\n    expect: {blocks: {}}\n", 4, "'blocks' cannot be keys and values: it is"),
        ("name: x\nturns:\n  - user: hi\n    expect: {blocks: {human: {}}}\n", 4, "give one of: contains, excludes"),
        ("name: x\nstart: 9999-12-31T23:59:30Z\nturns:\n  - advance: 9999 weeks\n", 1, "leaves the years 1 to 9998"),
        ("name: x\nstart: 0001-01-01T00:00:00+14:00\nturns:\n  - user: hi\n", 1, "leaves the"),
        (
            "name: x\nturns:\n  - inject: {tool: core_memory_append, result: a}\n",
            3,
            "core_memory_append is a tool that every agent has; choose another name",
        ),
        ("name: x\nturns: &a\n  - user: hi\n    expect: *a\n", 1, "this is not YAML"),
    ],
)
def test_a_mistake_in_a_file_is_named_with_its_line(text: str, line: int, told: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.scenario.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(f"{path}:{line}: ")) as error:
        load_scenario(path)
    assert told in str(error.value)


def test_what_is_no_scenario_or_no_trajectory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        find_scenarios([tmp_path / "nothing"])
    with pytest.raises(UsageError, match="has no file that ends in"):
        find_scenarios([tmp_path])
    (tmp_path / "a.scenario.yaml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_scenario(tmp_path / "a.scenario.yaml")
    (tmp_path / "a.jsonl").write_text('{"name": 1}\n')
    for name, told in (("a.jsonl", "is no saved run"), ("b.jsonl", "cannot be read")):
        with pytest.raises(UsageError, match=told):
            load_trajectory(tmp_path / name)


def test_the_schema_is_that_of_the_models_and_takes_the_shipped_scenarios() -> None:
    remedy = "make it anew: python -c 'from agentos.scenarios.model import write_schema; write_schema()'"
    assert SCHEMA.read_text("utf-8") == json_schema(), remedy
    jsonschema = pytest.importorskip("jsonschema")
    yaml = pytest.importorskip("yaml")
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text("utf-8")))
    for path in find_scenarios([PERSONAS]):
        assert list(validator.iter_errors(yaml.safe_load(path.read_text()))) == [], path
    assert not validator.is_valid({"name": "x", "turns": [{"user": "hi", "expect": {"fill": "much"}}]})
    assert not validator.is_valid({"name": "x", "turns": [{"usr": "hi"}]})


# the command


GOOD = "name: good\nturns:\n  - user: I live in Porto.\n    expect: {blocks: {human: {contains: Porto}}}\n"
BAD = GOOD.replace("good", "bad").replace("contains: Porto", "contains: Oslo")


class Agentos:
    """The command `agentos`, in this process: a new one costs seconds for its imports."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *args: str) -> tuple[int, str, str]:
        """(exit code, stdout, stderr)."""
        code, fault = 0, ""
        try:
            code = app([*args], prog_name="agentos", standalone_mode=False) or 0
        except AgentOSError as error:
            code, fault = error.exit_code, str(error)
        except BadParameter as error:
            code, fault = 2, error.format_message()
        out, err = self._capsys.readouterr()
        return code, out, err + fault


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "AGENTOS_HOME": str(folder / "home")}


@pytest.fixture
def agentos(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Agentos:
    monkeypatch.setenv("AGENTOS_HOME", str(folder / "home"))
    monkeypatch.chdir(folder)
    return Agentos(capsys)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("good", GOOD), ("bad", BAD)):
        (tmp_path / f"{name}.scenario.yaml").write_text(text)
    return tmp_path


def test_the_command_plays_and_says_what_failed(folder: Path, agentos: Agentos) -> None:
    code, out, err = agentos("test", ".", "--repeat", "2")
    assert (code, err) == (1, "")
    assert "expected: block human contains 'Oslo'" in out
    assert "found:    Home: Porto" in out
    assert "human: + Home: Porto" in out
    assert re.search(r"good +assistant +offline +2/2 \(34% to 100%\)", out)
    assert "1 passed, 1 failed" in out
    assert (folder / "home").stat().st_mode & 0o077 == 0

    code, out, err = agentos("test", "good.scenario.yaml", "--json", "--model", "offline", "--model", "script")
    good, unscripted = json.loads(out)["scenarios"]
    assert (code, good["name"], good["passed"], good["runs"], good["failures"]) == (1, "good", 1, 1, [])
    assert (unscripted["model"], unscripted["passed"]) == ("script", 0)
    assert load_trajectory(Path(good["trajectories"][0])).turns[0].diff == ["human: + Home: Porto"]


def test_a_saved_trajectory_is_checked_again_without_playing(folder: Path, agentos: Agentos) -> None:
    path = folder / "good.scenario.yaml"
    saved = json.loads(agentos("test", path.name, "--json")[1])["scenarios"][0]["trajectories"][0]
    again = ("test", "--regrade", saved)
    assert agentos(*again)[0] == 0
    path.write_text(GOOD.replace("contains: Porto", "excludes: Porto"))
    code, out, _ = agentos(*again)
    assert (code, "expected: block human excludes 'Porto'" in out) == (1, True)
    path.write_text(GOOD.replace("I live in Porto", "I live in Faro"))
    assert "turns have changed since; run the scenario again" in agentos(*again)[1]
    path.unlink()
    code, _, err = agentos(*again)
    assert (code, "which is not there; name the" in err) == (2, True)
    assert agentos(*again, "bad.scenario.yaml")[0] == 1


def test_what_cannot_be_played_has_its_exit_code(folder: Path, agentos: Agentos) -> None:
    (folder / "typo.yaml").write_text("name: x\nturns:\n  - usr: hi\n")
    (folder / "who.yaml").write_text("name: x\npersona: nobody\nturns:\n  - user: hi\n")
    for args, expected, told in (
        ([], 2, "name scenario files or folders"),
        (["nowhere"], 2, "does not exist"),
        (["--regrade", "x.jsonl", "--repeat", "2"], 2, "nothing is played"),
        (["--regrade", "x.jsonl", "."], 2, "2 scenario files to check on"),
        (["--regrade", "x.jsonl"], 2, "cannot be read"),
        (["typo.yaml"], 3, "typo.yaml:3: there is no 'usr' here; did you mean 'user'?"),
        (["who.yaml"], 3, "there is no persona 'nobody'"),
    ):
        code, _, err = agentos("test", *args)
        assert (code, told in err) == (expected, True), err


def test_what_cannot_be_played_or_judged_loses_nothing_else(folder: Path, agentos: Agentos) -> None:
    who = "name: who\npersona: nobody\nturns:\n  - user: hi\n"
    (folder / "bad.scenario.yaml").write_text(who)
    code, out, err = agentos("test", ".", "--report", "out.html")
    assert (code, "Your own go to " + str(folder / "home" / "personas" / "NAME") in err) == (3, True), err
    assert re.search(r"who +nobody +as written +failed to play", out)
    assert re.search(r"good +assistant +offline +passed", out)
    assert "1 passed, 1 failed" in out
    assert "there is no persona &#39;nobody&#39;" in (folder / "out.html").read_text()
    code, out, _ = agentos("test", ".", "--json")
    bad, good = json.loads(out)["scenarios"]
    assert (code, bad["runs"], good["passed"], good["error"]) == (3, 0, 1, None)
    assert "there is no persona 'nobody'" in bad["error"]

    Path(good["trajectories"][0]).unlink()
    (folder / "good.scenario.yaml").write_text(GOOD.replace("expect: {", "expect: {judge: it is polite, "))
    code, out, err = agentos("test", "good.scenario.yaml", "--judge", "gpt-of-nobody")
    assert (code, "'gpt-of-nobody' names no known provider" in err) == (3, True)
    assert "passed, 1 not judged" in out
    assert load_trajectory(Path(good["trajectories"][0])).turns[0].reply
    for name in ("p", "q"):
        (folder / name / "x" / "scenarios").mkdir(parents=True)
        (folder / name / "x" / "scenarios" / "s.scenario.yaml").write_text(GOOD)
    code, out, _ = agentos("test", "p", "q", "--json")
    kept = {file for one in json.loads(out)["scenarios"] for file in one["trajectories"]}
    assert (code, len(kept)) == (0, 2)


async def test_a_persona_of_ones_own_needs_its_folder_in_python() -> None:
    scenario = Scenario.model_validate({"name": "x", "persona": "nobody", "turns": [{"user": "hi"}]})
    with pytest.raises(ConfigError, match=r"support, tutor\. Your own need `personas`, their folder"):
        await play(scenario)


def test_a_persona_in_the_users_own_folder_is_found(folder: Path, agentos: Agentos) -> None:
    shutil.copytree(PERSONAS / "tutor", folder / "home" / "personas" / "mine")
    (folder / "own.scenario.yaml").write_text("name: x\npersona: mine\nturns:\n  - user: hi\n")
    assert agentos("test", "own.scenario.yaml")[0] == 0


def test_a_live_model_takes_the_place_of_the_scenarios_own(agentos: Agentos, monkeypatch: pytest.MonkeyPatch) -> None:
    append = tool_call("core_memory_append", {"label": "human", "content": "Home: Porto"})
    with FakeOpenAI(lambda body: FakeReply("Noted.", [append])) as server:
        monkeypatch.setenv("AGENTOS_API_BASE", server.url)
        code, out, _ = agentos("test", "good.scenario.yaml", "--model", "fake", "--repeat", "2")
    assert (code, len(server.requests)) == (0, 2), out
    assert re.search(r"good +assistant +fake +2/2", out)


def test_an_interrupted_run_shows_and_keeps_what_was_played(folder: Path, forks: Forks) -> None:
    def interrupt(pid: int) -> None:
        until = time.monotonic() + 60
        while not list(folder.glob("home/trajectories/*-2.jsonl")) and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(pid, signal.SIGINT)

    done = forks.run(["test", "good.scenario.yaml", "--repeat", "500"], "", environment(folder), folder, interrupt)
    assert done.returncode == 130
    assert "interrupted" in done.stderr
    assert re.search(r"(\d+)/\1 \(\d+% to 100%\)", done.stdout)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_goes_on_where_it_stopped(how: signal.Signals, folder: Path, forks: Forks) -> None:
    (folder / "slow.scenario.yaml").write_text(GOOD.replace("name: good", "name: slow\npersona: mine"))
    persona = folder / "home" / "personas" / "mine" / "persona.md"
    persona.parent.mkdir(parents=True)
    os.mkfifo(persona)

    def interrupt(pid: int) -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            time.sleep(0.05)
            with suppress(OSError):  # nobody reads it yet
                writer = os.open(persona, os.O_WRONLY | os.O_NONBLOCK)
                os.kill(pid, how)
                return os.close(writer)

    def test(meanwhile: Callable[[int], None] = lambda pid: None) -> "subprocess.CompletedProcess[str]":
        args = ["test", "good.scenario.yaml", "slow.scenario.yaml", "--repeat", "2"]
        return forks.run(args, "", environment(folder), folder, meanwhile)

    done = test(interrupt)
    assert done.returncode == (130 if how == signal.SIGINT else -how), done.stderr
    first, second = sorted(folder.glob("home/trajectories/*.jsonl"))
    second.write_text(second.read_text()[:-9])  # as if it had been interrupted while it was written
    persona.unlink()
    shutil.copy(PERSONAS / "tutor" / "persona.md", persona)
    for told in ("agentos: 1 run taken from the interrupted test\n", ""):
        before = first.read_text()
        done = test()
        assert (done.returncode, done.stderr) == (0, told)
        assert re.search(r"good .* 2/2 .*\nslow .* 2/2 ", done.stdout)
        assert (first.read_text() == before) == bool(told)


def test_of_an_interrupted_session_only_what_would_go_the_same_is_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOS_HOME", str(folder / "home"))
    path, cassette = folder / "good.scenario.yaml", folder / "good.cassette.yaml"
    scenario, persona = load_scenario(path), Persona(name="mine")
    trajectory = Trajectory(name="", path="", persona="", model="")
    trajectory.turns = [TurnRecord(number=1, action="", digest=scenario.turns[0].digest, speaker="", agent="")]

    def is_taken(session: Session, *played: Any) -> bool:
        return session.saved(file, session.key(path, *played), scenario) is not None

    for model in ("offline", "recorded"):
        first, run = Session("a"), (scenario, persona, model, "static", 1)
        file, trajectory.key = first.file(path, model, "static", 1), first.key(path, *run)
        trajectory.save(file)
        assert is_taken(Session("a"), *run)
        changed = (scenario.model_copy(update={"context_window": 8000}), Persona(name="mine", body="b"), "c", "d", 2)
        for place, value in enumerate(changed):
            assert not is_taken(Session("a"), *run[:place], value, *run[place + 1 :])
        cassette.write_text("recorded anew")
        assert is_taken(Session("a"), *run) == (model == "offline")
        cassette.unlink()
        assert not is_taken(Session("b"), *run)
        monkeypatch.setenv("AGENTOS_MAX_STEPS", "7")
        assert not is_taken(Session("a"), *run)
        monkeypatch.delenv("AGENTOS_MAX_STEPS")
        file.write_text(file.read_text().splitlines()[0])  # its turns are lost
        assert not is_taken(Session("a"), *run)
        trajectory.save(file)
        Session("a").end()
        assert not is_taken(Session("a"), *run)


# pytest


@pytest.fixture
def under_pytest(agentos: Agentos, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """A run of pytest in the folder with these options: its exit code."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return lambda *options: int(pytest.main(["-p", "agentos.scenarios.pytest_plugin", "--rootdir", ".", *options]))


def test_under_pytest_each_scenario_is_a_test(
    folder: Path, under_pytest: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "typo.scenario.yaml").write_text("name: x\nturns:\n  - usr: hi\n")
    (folder / "other.scenario.yaml").write_text(GOOD)
    code = under_pytest("-k", "not other", "--junit-xml", "junit.xml")
    out = capsys.readouterr().out
    assert code == 1, out
    assert "2 failed, 1 passed, 1 deselected" in out
    assert "expected: block human contains 'Oslo'" in out
    assert "typo.scenario.yaml:3: there is no 'usr' here; did you mean 'user'?" in out
    assert "Traceback" not in out
    assert 'name="bad"' in (folder / "junit.xml").read_text()
    kept = re.search(r"The trajectory is in (\S+)", out)
    assert kept is not None
    assert load_trajectory(Path(kept[1])).name == "bad"


def test_under_pytest_a_run_is_saved_before_it_is_judged(
    folder: Path, under_pytest: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "good.scenario.yaml").write_text(GOOD.replace("expect: {", "expect: {judge: it is polite, "))
    assert under_pytest("good.scenario.yaml", "--agentos-judge", "gpt-of-nobody") == 1
    assert "'gpt-of-nobody' names no known provider" in capsys.readouterr().out
    (kept,) = folder.glob(".pytest_cache/d/agentos-trajectories/*.jsonl")
    assert load_trajectory(kept).turns[0].reply


def test_the_package_names_its_pytest_plugin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert import_module(project["entry-points"]["pytest11"]["agentos"]).pytest_collect_file


# the page


def examples(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("text", examples("yaml"), ids=lambda text: re.search("name: (.*)", text)[1])
async def test_a_scenario_on_the_page_goes_as_expected(text: str, tmp_path: Path) -> None:
    path = tmp_path / "page.scenario.yaml"
    path.write_text(text)
    assert await failures_of(path) == []


def test_commands_and_python_on_the_page_run(
    agentos: Agentos, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    commands = re.findall(r"^\$ agentos (.*)$", "".join(examples("console")), re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        assert agentos(*shlex.split(command))[0] == 0
    (code,) = examples("python")
    exec(code, {})
    assert capsys.readouterr().out == re.findall(r"# -> (.*)", code)[0] + "\n"


async def test_what_the_page_prints_is_what_is_printed(tmp_path: Path) -> None:
    path = tmp_path / "home.scenario.yaml"
    path.write_text(examples("yaml")[0])
    failure, bounds, mistake = examples("text")
    (tmp_path / "measures.yaml").write_text(bounds)
    assert load_bounds(tmp_path) == Bounds(recall=">= 0.95", contamination=0, save_rate=">= 0.9")
    told = await failures_of(path, open_runtime=appends)
    assert told[0] == failure.strip()
    path.write_text(path.read_text().replace("excludes:", "exclude:"))
    with pytest.raises(ConfigError, match=re.escape(mistake.strip().removeprefix("agentos: "))):
        load_scenario(path)


def test_the_page_names_every_word_of_a_scenario() -> None:
    for words in (Scenario, Turn, Expect, Kill):
        for name, field in words.model_fields.items():
            assert re.search(rf"\b{field.alias or name}\b", PAGE), name
