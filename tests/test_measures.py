"""Scenarios beyond pass and fail: measures of memory, reports, recorded models, judges."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agentos import curate
from agentos.errors import ConfigError, ProviderError
from agentos.scenarios.check import check, unjudged
from agentos.scenarios.judge import judge
from agentos.scenarios.load import load_bounds, load_scenario, persona_folder
from agentos.scenarios.measures import drift, mean, observe
from agentos.scenarios.model import MEASURES, Scenario
from agentos.scenarios.outcome import AS_WRITTEN, Outcome, sets
from agentos.scenarios.report import render
from agentos.scenarios.run import Stage, play
from agentos.scenarios.trajectory import Change, Found, Hits, Memory, Said, Trajectory, TurnRecord
from agentos.settings import Settings, secrets
from agentos.testing import ScriptedLLM
from agentos.testing.fake_openai import FakeOpenAI, FakeReply, in_order
from agentos.testing.fake_openai import call as tool_call
from test_scenarios import PERSONAS, Agentos, SharesArchival, appends, scenario_of, shipped

pytest_plugins = ["pytester"]


def run_pytest(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.RunResult:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return pytester.runpytest_inprocess("-p", "agentos.scenarios.pytest_plugin")


# measures of trajectories made by hand


def change(
    action: str, text: str = "", *, before: str = "", actor: str = "agent", messages: tuple[str, ...] = ()
) -> Change:
    at = datetime(2026, 5, 8, tzinfo=UTC)
    return Change(at=at, actor=actor, action=action, target="b1", before=before, text=text, messages=list(messages))


def found(*hits: tuple[str, int, str]) -> list[Found]:
    return [Found(ref=ref, rank=rank, text=text) for ref, rank, text in hits]


def memory(core: str = "", *archival: str, **values: Any) -> Memory:
    passages = {f"p{number}": text for number, text in enumerate(archival, 1)}
    empty: dict[str, Any] = {"summary": "", "new_messages": [], "new_results": [], "shown": [], "journal": []}
    return Memory(blocks={"human": core}, archival=passages, **(empty | values))


def trajectory_of(scenario: Scenario, *after: Memory, **values: dict[int, Any]) -> Trajectory:
    """What the one agent held after each turn; `values`: fields of some turns, from 0."""
    turns = []
    for at, (turn, held) in enumerate(zip(scenario.turns, after, strict=True)):
        speaker = turn.speaker
        given = {name: by_turn[at] for name, by_turn in values.items() if at in by_turn}
        held_by = {speaker: held, **given.pop("others", {})}
        shape: dict[str, Any] = {
            "action": turn.action, "digest": turn.digest, "speaker": speaker, "agent": speaker, "llm_calls": 1,
        }  # fmt: skip
        turns.append(TurnRecord(number=at + 1, memory=held_by, **(shape | given)))
    return Trajectory(name=scenario.name, path="", persona="assistant", model="m", turns=turns)


def measured(measure: str, scenario: Scenario, trajectory: Trajectory) -> dict[str, float]:
    """A measure by type of memory, where there was something to measure."""
    observations = observe(scenario, trajectory)
    means = {memory: mean(observations, measure, memory) for memory in ("all", "core", "archival", "recall")}
    return {memory: value for memory, value in means.items() if value is not None}


MOVED = scenario_of(
    {"user": "I live in Lisbon."},
    {"user": "I live in Porto."},
    {"user": "Where do I live?", "needs": "home"},
    model="offline",
    facts={"home": ["Lisbon", "Porto"]},
)
SAID = {"new_messages": [Said(ref="m1", role="user", text="I live in Porto.")]}
PAGED_OUT = change("page_out", messages=("m1",))


@pytest.mark.parametrize(
    ("before", "asked", "expected"),
    [
        ((memory("Home: Porto")), memory("Home: Porto"), {"all": 1, "core": 1, "archival": 0, "recall": 0}),
        (memory(), memory(shown=[found(("p1", 1, "porto"))]), {"all": 1, "core": 0, "archival": 1, "recall": 0}),
        (memory(), memory(shown=[found(("m1", 1, "Porto"))]), {"all": 1, "core": 0, "archival": 0, "recall": 1}),
        (memory(**SAID), memory(), {"all": 1, "core": 0, "archival": 0, "recall": 0}),
        (memory(**SAID), memory(journal=[PAGED_OUT]), {"all": 0, "core": 0, "archival": 0, "recall": 0}),
        (
            memory(**SAID),
            memory(journal=[PAGED_OUT], summary="Porto"),
            {"all": 1, "core": 0, "archival": 0, "recall": 0},
        ),
        (memory("Home: Lisbon"), memory("Home: Porto"), {"all": 0, "core": 0, "archival": 0, "recall": 0}),
    ],
)
def test_recall_is_whether_a_needed_fact_was_in_view(before: Memory, asked: Memory, expected: dict[str, float]) -> None:
    assert measured("recall", MOVED, trajectory_of(MOVED, memory(), before, asked)) == expected


def test_precision_counts_what_searches_showed_and_the_turn_needed() -> None:
    shown = [found(("p1", 1, "Porto"), ("p2", 2, "tea")), found(("m1", 1, "Porto"))]
    trajectory = trajectory_of(MOVED, memory(), memory(), memory(shown=shown))
    assert measured("precision", MOVED, trajectory) == {"all": pytest.approx(2 / 3), "archival": 0.5, "recall": 1}


def test_forgetting_counts_turns_until_the_old_value_is_used_no_more() -> None:
    old, new = memory("Home: Lisbon"), memory("Home: Porto")
    for held, replies, expected in (
        ((old, new, new), {}, {"all": 0, "core": 0}),
        ((old, old, new), {}, {"all": 1, "core": 1}),
        ((old, new, new), {1: "Not Lisbon, then."}, {"all": 0, "core": 0}),  # it says what it corrects
        ((old, new, new), {2: "In Lisbon."}, {"all": 2, "core": 0}),
        ((old, old, old), {}, {"all": 2, "core": 2}),
    ):
        assert measured("forgetting", MOVED, trajectory_of(MOVED, *held, reply=replies)) == expected


def test_staleness_is_an_old_value_above_the_new_one() -> None:
    both = found(("p1", 2, "Porto"), ("p2", 1, "Lisbon"))  # shown newest first, ranked the other way
    for held, expected in (
        (memory("Home: Porto"), {"all": 0, "core": 0}),
        (memory("Home: Lisbon\nHome: Porto"), {"all": 1, "core": 1}),
        (memory("Home: Porto (not Lisbon)"), {"all": 0, "core": 0}),
        (memory(shown=[both]), {"all": 0.5, "archival": 0.5}),
        (memory(shown=[found(("m1", 1, "Lisbon"))]), {"all": 1, "recall": 1}),
        (memory(shown=[[Found(ref="p2", text="Lisbon", superseded=True), *both[:1]]]), {"all": 0, "archival": 0}),
    ):
        assert measured("staleness", MOVED, trajectory_of(MOVED, memory(), memory(), held)) == expected
    asked = {2: [Hits(query="home", place="archival", texts=["Lisbon", "Porto"])]}
    trajectory = trajectory_of(MOVED, memory(), memory(), memory(), searches=asked)
    assert measured("staleness", MOVED, trajectory) == {"all": 1, "archival": 1}
    for past in ({"include_superseded": True}, {"as_of": "2026-05-08"}):
        asked = {2: [Hits(query="home", place="archival", texts=["Lisbon", "Porto"], **past)]}
        assert measured("staleness", MOVED, trajectory_of(MOVED, memory(), memory(), memory(), searches=asked)) == {}


def test_save_rate_is_of_facts_that_were_paged_out_and_of_what_came_before() -> None:
    for journal, expected in (
        ([], {}),
        ([PAGED_OUT], {"all": 0, "core": 0, "archival": 0}),
        ([change("block.append", "Home: Porto"), PAGED_OUT], {"all": 1, "core": 1, "archival": 0}),
        ([change("passage.insert", "Porto"), PAGED_OUT], {"all": 1, "core": 0, "archival": 1}),
        ([PAGED_OUT, change("block.append", "Home: Porto")], {"all": 0, "core": 0, "archival": 0}),
    ):
        trajectory = trajectory_of(MOVED, memory(), memory(**SAID), memory(journal=journal))
        assert measured("save_rate", MOVED, trajectory) == expected


def test_contamination_is_of_remarks_and_of_other_users_facts() -> None:
    remark = scenario_of({"user": "I am stupid."}, {"user": "Hi."}, model="offline", remarks="stupid")
    for entry, expected in (
        (change("block.append", "Says they are stupid"), {"all": 1, "core": 1, "archival": 0}),
        (change("passage.insert", "stupid"), {"all": 1, "core": 0, "archival": 1}),
        (change("passage.insert", "stupid", actor="import"), {"all": 0, "core": 0, "archival": 0}),
        (change("block.append", "stupid\ntea", before="stupid"), {"all": 0, "core": 0, "archival": 0}),
    ):
        trajectory = trajectory_of(remark, memory(), memory(journal=[entry]))
        assert measured("contamination", remark, trajectory) == expected

    turns = {"as": "ada", "user": "I live in Oslo."}, {"as": "ben", "user": "Hi."}
    two = scenario_of(*turns, model="offline", facts={"home": "Oslo"})
    nothing = {"all": 0, "core": 0, "archival": 0, "recall": 0}
    for held, place in (
        (memory("Home: Oslo"), "core"),
        (memory("", "Oslo"), "archival"),
        (memory(new_results=["Oslo"]), "recall"),
        (memory(), "all"),
    ):
        expected = nothing | ({place: 1, "all": 1} if place != "all" else {})
        assert measured("contamination", two, trajectory_of(two, memory("Oslo"), held)) == expected
    own = scenario_of(*turns, {"as": "ben", "user": "I live in Oslo, too."}, model="offline", facts={"home": "Oslo"})
    assert measured("contamination", own, trajectory_of(own, memory(), memory(), memory("Oslo"))) == {}


def test_drift_is_the_share_of_memories_that_differ_beyond_what_the_persona_brought() -> None:
    def remembering(core: str, *archival: str) -> Trajectory:
        created = change("block.create", "Be kind.", actor="runtime")
        held = memory(f"Be kind.\n{core}", *archival, journal=[created], shown=[found(("m1", 1, "hi"))])
        return trajectory_of(scenario_of({"user": "Hi."}, model="offline"), held)

    one = remembering("Home: Porto", "tea")
    means = {o.memory: o.value for o in drift(one, remembering("Home: Porto", "coffee", "tea"))}
    assert means == {"all": 0.25, "core": 0.0, "archival": 0.5, "recall": 0.0}
    assert {o.value for o in drift(one, one)} == {0.0}


# measures of what was played


async def outcome_of(path: Path, **options: Any) -> Outcome:
    scenario = load_scenario(path)
    outcome = Outcome(path, scenario, AS_WRITTEN, "static")
    outcome.add(await play(scenario, path=str(path), personas=persona_folder(path), **options), path)
    return outcome


async def test_a_played_story_is_measured_from_the_journal_and_what_searches_showed() -> None:
    (group,) = sets([await outcome_of(shipped("assistant/paged-out"))])
    means = {memory: mean(group.observations, "save_rate", memory) for memory in ("all", "core", "archival")}
    assert means == {"all": pytest.approx(2 / 3), "core": pytest.approx(1 / 3), "archival": pytest.approx(1 / 3)}
    assert mean(group.observations, "recall") == 1
    assert mean(group.observations, "recall", "archival") == pytest.approx(1 / 3)
    assert group.bounds is None  # a part of the folder was played


async def test_what_a_person_wrote_is_no_contamination_when_the_agent_changes_the_block() -> None:
    append = {"say": "Noted.", "calls": [{"core_memory_append": {"label": "human", "content": "Likes: tea"}}]}
    scenario = scenario_of(
        {"edit": {"human": "Says they are lazy"}}, {"user": "I like tea.", "script": [append]}, remarks="lazy"
    )
    trajectory = await play(scenario)
    assert measured("contamination", scenario, trajectory) == {"all": 0, "core": 0, "archival": 0}
    appended = next(one for one in trajectory.turns[1].memory["user"].journal if one.action == "block.append")
    assert (appended.before, appended.text) == ("Says they are lazy", "Says they are lazy\nLikes: tea")


async def test_a_passage_that_was_superseded_was_there_before() -> None:
    for replaces, expected in (({"replaces": "p1"}, 0), ({}, 1)):
        insert = {"archival_memory_insert": {"content": "Tom is lazy. His cat is Max."} | replaces}
        scenario = scenario_of(
            {"inject": {"document": "Tom is lazy. His cat is Rex."}},
            {"user": "His cat is Max.", "script": [{"say": "Noted.", "calls": [insert]}]}, remarks="lazy",
        )  # fmt: skip
        trajectory = await play(scenario)
        assert measured("contamination", scenario, trajectory) == {"all": expected, "core": 0, "archival": expected}


async def test_a_deleted_passage_was_there_before_and_is_not_after(tmp_path: Path) -> None:
    document, looking = {"inject": {"document": "I am lazy"}}, {"expect": {"archival": {"excludes": "lazy"}}}
    stage = Stage(scenario_of(document, looking), tmp_path)
    records = [await stage.act(1, stage.scenario.turns[0])]
    agent, runtime = await stage.agent("user"), await stage.runtime()
    await curate.delete_passage(runtime.store, stage.clock, agent.id, 1)
    records.append(await stage.act(2, stage.scenario.turns[1]))
    await stage.close()
    changes = [(one.action, one.before, one.text) for record in records for one in record.memory["user"].journal]
    assert changes[-2:] == [("passage.insert", None, "I am lazy"), ("passage.delete", "I am lazy", None)]


async def test_broken_agents_show_in_the_measures() -> None:
    observations = (await outcome_of(shipped("assistant/corrected-twice"), open_runtime=appends)).runs[0].observations
    assert (mean(observations, "forgetting"), mean(observations, "staleness")) == (2.5, 1)
    observations = (await outcome_of(shipped("assistant/same-name"), open_runtime=SharesArchival)).runs[0].observations
    leaks = [o.about for o in observations if o.measure == "contamination" and o.value]
    assert "7731-B, told to anna-m in turn 3 of 'Two people with one first name'" in leaks


MEASURED = """
name: measured
facts: {home: [Lisbon, Porto]}
turns:
  - user: I live in Lisbon. <script>alert(1)</script>
  - user: I live in Porto now.
  - user: Where do I live?
    needs: home
"""


@pytest.fixture
def agentos(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Agentos:
    monkeypatch.setenv("AGENTOS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return Agentos(capsys)


def test_the_command_shows_measures_keeps_to_their_bounds_and_writes_a_page(agentos: Agentos, tmp_path: Path) -> None:
    (tmp_path / "a.scenario.yaml").write_text(MEASURED)
    (tmp_path / "measures.yaml").write_text('recall: ">= 0.95"\nforgetting: 0\n')
    code, out, err = agentos("test", ".", "--measures", "--report", "out.html")
    assert (code, err) == (0, "")
    assert re.search(r"\. +as written +all +1\.00 +- +0\.00 +- +- +0\.00 +-", out)
    page = (tmp_path / "out.html").read_text()
    assert "<script" not in page.replace("&lt;script", "")
    assert not re.search(r"(src|href)=|https?://", page)
    for shown in ("<svg", "<polyline", "human: + Home: Porto", "You live in Porto.", "\n1/1", "core_memory_replace"):
        assert shown in page, shown

    (tmp_path / "measures.yaml").write_text("recall: 1\nforgetting: 2\nsave_rate: 1\ndrift: 0\n")
    code, out, _ = agentos("test", ".", "--json")
    (group,) = json.loads(out)["sets"]
    assert (code, group["measures"]["core"]["recall"], group["measures"]["all"]["drift"]) == (1, 1, None)
    assert [unmet["expected"] for unmet in group["unmet"]] == ["forgetting 2", "save_rate 1"]
    assert "'Lisbon" not in (told := group["unmet"][0]["found"])
    assert told == "0.000 over 1 (Lisbon, replaced by Porto in turn 2 of 'measured': 0)"
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("home/trajectories/*")}
    code, out, err = agentos("test", ".", "--report", "nowhere/out.html")
    assert (code, "nowhere/out.html cannot be written: there is no folder 'nowhere'; make it first" in err) == (2, True)
    assert kept == {path: path.stat().st_mtime_ns for path in tmp_path.glob("home/trajectories/*")}  # nothing played

    (tmp_path / "deeper").mkdir()  # another set, without bounds of its own
    (tmp_path / "deeper" / "b.scenario.yaml").write_text(MEASURED)
    (tmp_path / "measures.yaml").write_text("forgetting: 1\n")
    code, out, _ = agentos("test", "a.scenario.yaml")
    assert (code, out.count("forgetting 1, found 0.000")) == (1, 1)
    assert agentos("test", "deeper")[0] == 0
    (tmp_path / "c.scenario.yaml").write_text(MEASURED)
    assert agentos("test", "a.scenario.yaml")[0] == 0  # a part of the set

    (tmp_path / "measures.yaml").write_text("recal: 1\n")
    code, _, err = agentos("test", ".")
    assert (code, "measures.yaml:1: there is no 'recal' here; did you mean 'recall'?" in err) == (3, True)


def test_bounds_are_read_like_scenarios_and_shipped_with_the_personas(tmp_path: Path) -> None:
    assert load_bounds(tmp_path) is None
    (tmp_path / "measures.yaml").write_text("")
    assert load_bounds(tmp_path) is None  # of no scenarios
    (tmp_path / "a.scenario.yaml").write_text(MEASURED)
    with pytest.raises(
        ConfigError, match=re.escape(f"measures.yaml:1: the file is empty; it has some of: {MEASURES[0]}")
    ):
        load_bounds(tmp_path)
    for persona in PERSONAS.glob("*/persona.md"):
        assert load_bounds(persona.parent / "scenarios") is not None


def test_bounds_are_a_test_under_pytest(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    pytester.path.joinpath("a.scenario.yaml").write_text(MEASURED)
    pytester.path.joinpath("measures.yaml").write_text("recall: 0\n")
    result = run_pytest(pytester, monkeypatch)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["recall 0, found 1.000 over 1 (Porto in turn 3 of 'measured': 1)"])


async def test_a_page_shows_several_models_and_what_failed() -> None:
    scenario = scenario_of(
        {"user": "Hi.", "script": ["Hello & <b>welcome</b>"], "expect": {"reply": {"contains": "x<y"}}}
    )
    outcomes = []
    for model in ("script", "offline"):
        outcomes.append(Outcome(Path("a.scenario.yaml"), scenario, model, "static"))
        outcomes[-1].add(await play(scenario, model=model), Path("a.jsonl"))
    page = render(outcomes, [])
    assert "<th>script</th><th>offline</th>" in page.replace("\n", "")
    assert page.count("expected: reply contains &#39;x&lt;y&#39;") == 2
    assert "Hello &amp; &lt;b&gt;welcome&lt;/b&gt;" in page


# a process that dies while the model answers


async def test_a_turn_that_is_killed_while_the_model_answers_asks_again() -> None:
    save = {"say": "Noted.", "calls": [{"core_memory_append": {"label": "human", "content": "Home: Faro"}}]}
    scenario = scenario_of({"user": "I live in Faro.", "script": [save], "kill": {"during": "model"}})
    trajectory = await play(scenario)
    assert check(scenario, trajectory) == []
    (turn,) = trajectory.turns
    assert turn.action == "user: I live in Faro. (killed while the model answers)"
    assert [event["type"] for event in turn.events] == ["tool_call", "tool_result", "result"]
    assert (turn.memory["user"].blocks["human"], turn.reply) == ("Home: Faro", "Noted.")


# recorded models


RECORDED = """
name: recorded
model: recorded
turns:
  - user: I live in Porto.
  - restart: 1 week
  - user: Where do I live?
    expect: {reply: {contains: Porto}}
"""
KEY = "sk-never-to-be-kept"


def test_a_live_model_is_recorded_without_keys_and_played_back_offline(
    agentos: Agentos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cassette = tmp_path / "a.scenario.yaml", tmp_path / "a.cassette.yaml"
    path.write_text(RECORDED)
    code, _, err = agentos("test", ".")
    assert (code, "a.cassette.yaml is not there; record it anew with `agentos test" in err) == (3, True)

    append = tool_call("core_memory_append", {"label": "human", "content": "Home: Porto"})
    answers = FakeReply(status=503, headers={"retry-after": "0"}), FakeReply(f"Noted. {KEY}", [append])
    with FakeOpenAI(in_order(*answers, FakeReply("In Porto."))) as server:
        monkeypatch.setenv("AGENTOS_API_BASE", server.url)
        monkeypatch.setenv("AGENTOS_API_KEY", KEY)
        code, out, err = agentos("test", ".", "--record", "--model", "fake")
    monkeypatch.delenv("AGENTOS_API_BASE")
    monkeypatch.delenv("AGENTOS_API_KEY")
    assert (code, len(server.requests)) == (0, 3), out + err
    kept = cassette.read_text()
    assert KEY not in kept
    assert "Noted. HIDDEN" in kept
    assert "authorization" not in kept.lower()
    assert len(list(tmp_path.glob("a.*"))) == 2

    for _ in range(2):  # nobody listens any more
        code, out, err = agentos("test", ".")
        assert (code, err) == (0, ""), out

    with FakeOpenAI(in_order(FakeReply("Noted."), FakeReply(status=400))) as server:
        monkeypatch.setenv("AGENTOS_API_BASE", server.url)
        assert agentos("test", ".", "--record", "--model", "fake")[0] == 1
    monkeypatch.delenv("AGENTOS_API_BASE")
    assert cassette.read_text() == kept  # a recording that failed takes no sound one's place

    line = kept.splitlines().index("- request:", 3) + 1
    for text, told in (
        (RECORDED.replace("Where do", "So where do"), f"a.cassette.yaml:{line}: request 2 is not the one that was"),
        (
            RECORDED.replace("  - user: Where do I live?\n    expect: {reply: {contains: Porto}}\n", ""),
            "1 more request",
        ),
        (RECORDED + "  - user: Thanks.\n", "a.cassette.yaml has 2 requests and this is one more; record it anew"),
    ):
        path.write_text(text)
        code, out, _ = agentos("test", ".")
        assert (code, told in out) == (1, True), out

    cassette.write_text("interactions: 3\n")
    code, _, err = agentos("test", ".")
    assert (code, "a.cassette.yaml is no cassette" in err) == (3, True), err
    path.write_text(RECORDED.replace("Porto.\n", "Porto.\n    kill: {during: model}\n"))
    code, _, err = agentos("test", ".")
    assert (code, "leave `kill` out" in err) == (3, True), err
    for args in (["--model", "offline"], [], ["--model", "a", "--model", "b"], ["--model", "a", "--repeat", "2"]):
        code, _, err = agentos("test", ".", "--record", *args)
        assert (code, "name it with --model" in err) == (2, True), err


def test_keys_are_those_of_the_settings_and_of_the_environment() -> None:
    environ = {"OPENAI_API_KEY": "12345678", "HF_TOKEN": "abcdefghi", "SORT_KEY": "name", "HOME": "/home/somebody"}
    assert secrets(Settings(api_key="from-settings"), environ) == ["from-settings", "abcdefghi", "12345678"]


# judges


async def test_a_judge_answers_yes_or_no_and_what_it_leaves_open_is_not_met() -> None:
    expect = {"judge": ["the reply is polite", "the reply names a town"]}
    scenario = scenario_of({"user": "Hi.", "script": ["Hello!"], "expect": expect}, expect={"judge": "nobody swears"})
    trajectory = await play(scenario)
    open_ones = ["turn 1: the reply is polite", "turn 1: the reply names a town", "at the end: nobody swears"]
    assert (check(scenario, trajectory), unjudged(scenario, trajectory)) == ([], open_ones)

    llm = ScriptedLLM(["Yes.", "**No**, it does not", "Not that I know"])
    await judge(scenario, trajectory, llm)
    asked = str(llm.requests[1].messages[0]["content"])
    assert "user: Hi.\nagent: Hello!" in asked
    assert "The sentence: the reply names a town" in asked
    (failure,) = check(scenario, trajectory)
    assert (failure.turn, failure.expected) == (1, "judge 'the reply names a town'")
    assert failure.found == "the judge says: **No**, it does not"
    assert unjudged(scenario, trajectory) == ["at the end: nobody swears (the judge says: Not that I know)"]

    await judge(scenario, trajectory, ScriptedLLM(["yes", ProviderError("it is down; try later"), "yes"]))
    assert check(scenario, trajectory) == []
    assert unjudged(scenario, trajectory) == ["turn 1: the reply names a town (it is down; try later)"]


def test_what_was_not_judged_is_said(
    agentos: Agentos, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "name: x\nturns:\n  - user: Hi.\n    expect: {judge: the reply is polite}\n"
    (pytester.path / "a.scenario.yaml").write_text(text)
    code, out, _ = agentos("test", ".")
    assert (code, "passed, 1 not judged" in out, "x: turn 1: the reply is polite" in out) == (0, True, True)
    with FakeOpenAI(in_order(FakeReply("yes"), FakeReply("no"))) as server:
        monkeypatch.setenv("AGENTOS_API_BASE", server.url)
        for expected, result in ((0, "passed "), (1, "failed ")):
            code, out, err = agentos("test", ".", "--judge", "fake", "--report", "out.html")
            assert (code, result in out, "not judged" in out) == (expected, True, False), out + err
    assert "turn 1: the reply is polite (the judge says: no)" in (pytester.path / "out.html").read_text()
    run_pytest(pytester, monkeypatch).assert_outcomes(skipped=1)
