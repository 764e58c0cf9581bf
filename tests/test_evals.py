"""The evaluation suites on small files in the published formats, with figures that can be checked by hand."""

import gzip
import json
import os
import re
import runpy
import signal
import time
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agentos.cli.app import app
from agentos.errors import ProviderError, UsageError
from agentos.evals.compare import compare, read_result, require_same_data
from agentos.evals.evaluate import SUITES, Evaluation, find_suite
from agentos.evals.longmemeval import Question, _new_above_stale
from agentos.evals.report import render
from agentos.evals.suite import Suite, best_first, sessions_of, turn_recall
from agentos.messages import Reply
from agentos.protocols import Hit, LLMRequest
from agentos.settings import Settings
from agentos.testing import FunctionLLM, call, say
from forks import Forks

Json = dict[str, Any]


async def measure(suite: str | Suite, file: Path, home: Path, **options: Any) -> Json:
    """The result of a whole evaluation."""
    chosen = find_suite(suite) if isinstance(suite, str) else suite
    evaluation = Evaluation(chosen, file, Settings(home=home), **options)
    async for _ in evaluation.run():
        pass
    return evaluation.result()


def scores(result: Json) -> dict[str, Json]:
    """The result's rows by group, with their number of questions."""
    return {row["group"]: {"n": row["n"], **row["scores"]} for row in result["rows"]}


# --- the files ----------------------------------------------------------------------------------------


def locomo_turn(dia_id: str, speaker: str, text: str, **more: str) -> Json:
    return {"dia_id": dia_id, "speaker": speaker, "text": text, **more}


def locomo_file(path: Path) -> Path:
    """One talk: what the second session says of the ferry shares no word with the question about kites."""
    kites = [locomo_turn(f"D1:{n}", "Omar", f"Kites again, number {n}.") for n in range(4, 34)]
    talk = {
        "speaker_a": "Nora", "speaker_b": "Omar",
        "session_1_date_time": "1:56 pm on 8 May, 2023",
        "session_1": [
            locomo_turn("D1:1", "Nora", "My greyhound Biscuit won a ribbon."),
            locomo_turn("D1:2", "Omar", "I burned the soup."),
            locomo_turn("D1:3", "Nora", "Look at this!", blip_caption="a lighthouse at dusk"), *kites,
        ],
        "session_2_date_time": "10:05 am on 2 June, 2023",
        "session_2": [locomo_turn("D2:1", "Nora", "The ferry was late.")],
    }  # fmt: skip
    questions = [
        {"question": "What did the greyhound win?", "category": 4, "evidence": ["D1:1"], "answer": "a ribbon"},
        {"question": "Who saw a lighthouse?", "category": 2, "evidence": ["D:1:3; D9:9"], "answer": 2023},
        {"question": "How are kites and delays alike?", "category": 1, "evidence": ["D1:33", "D2:1"], "answer": "-"},
        {"question": "Who burned the bread?", "category": 5, "evidence": ["D1:2"], "adversarial_answer": "Omar"},
        {"question": "Asked without evidence?", "category": 4, "evidence": [], "answer": "-"},
    ]
    path.write_bytes(gzip.compress(json.dumps([{"sample_id": "x", "conversation": talk, "qa": questions}]).encode()))
    return path


def longmemeval_question(name: str, kind: str, text: str, *sessions: tuple[str, str, str], answers: list[str]) -> Json:
    """`sessions` are (id, date, what the user says); those of `answers` hold the answer."""
    talks = [
        [
            {"role": "user", "content": said, **({"has_answer": True} if session in answers else {})},
            {"role": "assistant", "content": "I see."},
        ]
        for session, _, said in sessions
    ]
    return {
        "question_id": name, "question_type": kind, "question": text, "question_date": "2024/01/20 (Sat) 12:00",
        "answer": "-", "haystack_dates": [date for _, date, _ in sessions], "haystack_sessions": talks,
        "haystack_session_ids": [session for session, _, _ in sessions], "answer_session_ids": answers,
    }  # fmt: skip


def longmemeval_file(path: Path) -> Path:
    old = ("s1", "2024/01/02 (Tue) 09:00", "My marathon record is four hours.")
    new = ("s2", "2024/01/09 (Tue) 09:00", "I ran a new marathon record today, under four hours.")
    pet = ("s3", "2024/01/03 (Wed) 08:30", "The parrot learned to whistle.")
    questions = [
        longmemeval_question("q1", "knowledge-update", "What is my marathon record?", new, old, answers=["s1", "s2"]),
        longmemeval_question("q2", "multi-session", "Who whistles zithers?", pet, answers=["s3"]),
        longmemeval_question("q3", "multi-session", "Zithers?", pet, old, answers=["s3"]),
        longmemeval_question("q4_abs", "multi-session", "Which boat do I own?", pet, answers=["s3"]),
    ]
    path.write_text(json.dumps(questions))
    return path


FACTS = ["Ines keeps bees.", "Ines lives in Faro."]


def core_memory_file(path: Path, rows: int = 1) -> Path:
    extra = {"facts": FACTS, "contradicting_fact": "Ines lives in Évora.", "supporting_fact_indices": [1]}
    row = {"input": "Where does Ines live?", "ground_truth": "évora", "agent_args": {"extra": extra}}
    read = {"input": "What does Ines keep?", "ground_truth": "Bees", "agent_args": {"extra": {"facts": FACTS}}}
    path.write_text("".join(json.dumps(one) + "\n" for one in [read, row] * rows))
    return path


def key(n: int) -> str:
    return f"{n:08d}-aaaa-4bbb-8ccc-{n:012d}"


def nested_kv_files(folder: Path) -> Path:
    pairs = [(key(n), key(1000 + n)) for n in range(50)]
    (folder / "nested_kv_50_keys.jsonl").write_text(json.dumps({"ordered_kv_records": pairs}) + "\n")
    (folder / "nested_kv_orderings_1_levels.jsonl").write_text("[7]\n")
    packed = gzip.compress(b"[3, 49, 0]\n[5, 6, 8]\n")
    (folder / "nested_kv_orderings_3_levels.jsonl.gz").write_bytes(packed)
    return folder / "nested_kv_50_keys.jsonl"


# --- the suites ---------------------------------------------------------------------------------------


async def test_locomo_counts_evidence_turns_by_category(tmp_path: Path) -> None:
    found = scores(await measure("locomo", locomo_file(tmp_path / "talk.json.gz"), tmp_path / "home"))
    assert list(found) == ["multi-hop", "temporal", "single-hop", "categories 1-4", "adversarial"]
    assert found["single-hop"]["n"] == 1  # the question without evidence is left out
    assert found["single-hop"]["recall@5"] == found["adversarial"]["recall@5"] == 1.0
    assert found["temporal"]["recall@5"] == 1.0  # by the picture's caption; the label that names no turn is left out
    assert found["multi-hop"]["recall@20"] <= 0.5  # of two evidence turns one shares no word
    assert found["categories 1-4"]["n"] == 3
    assert found["categories 1-4"]["session any@5"] == 1.0


async def test_locomo_with_a_model_looks_at_what_it_quotes(tmp_path: Path) -> None:
    def quote(request: LLMRequest) -> str:
        greyhound = "greyhound" in str(request.messages[-1]["content"])
        return (
            'On 2023-05-08, Nora said: "My greyhound Biscuit won a ribbon." See also m2.' if greyhound else 'No: "I".'
        )

    suite = replace(SUITES["locomo"], policy=lambda: FunctionLLM(quote))
    found = scores(await measure(suite, locomo_file(tmp_path / "talk.json.gz"), tmp_path / "home", model="test"))
    assert (found["single-hop"]["evidence quoted"], found["adversarial"]["evidence quoted"]) == (1.0, 0.0)


def hit(number: int, session: str, score: float, day: int = 1) -> Hit:
    when = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=day)
    return Hit(f"m{number}", "", when, score, "lexical", session=session, external_id=f"t{number}")


def test_measures_of_a_ranking() -> None:
    ranked = best_first([hit(n, f"s{n % 3}", score=1 / (n + 1)) for n in reversed(range(12))])
    assert [h.external_id for h in ranked[:2]] == ["t0", "t1"]
    assert sessions_of(ranked) == ["s0", "s1", "s2"]
    assert turn_recall(ranked, {"t0", "t4", "t5", "t99"}) == {"recall@5": 0.5, "recall@10": 0.75, "recall@20": 0.75}


def test_a_new_fact_counts_when_it_is_shown_above_the_stale_one() -> None:
    old, new = ("s1", "2024/01/02 (Tue) 09:00", "x"), ("s2", "2024/01/09 (Tue) 09:00", "y")
    values = longmemeval_question("q", "knowledge-update", "?", new, old, answers=["s1", "s2"])
    question = Question.model_validate(values)
    assert _new_above_stale([hit(1, "other", 9), hit(2, "s2", 1), hit(3, "s1", 5)], question)
    assert not _new_above_stale([hit(3, "s1", 5), hit(2, "s2", 9)], question)
    assert not _new_above_stale([hit(3, "s1", 5)], question)
    assert not _new_above_stale([], question)


async def test_longmemeval_pools_the_sessions_of_all_questions(tmp_path: Path) -> None:
    result = await measure("longmemeval", longmemeval_file(tmp_path / "chats.json"), tmp_path / "home")
    found = scores(result)
    assert list(found) == ["knowledge-update", "multi-session", "all types"]
    update = found["knowledge-update"]
    assert (update["session any@5"], update["session all@5"], update["recall@5"]) == (1.0, 1.0, 1.0)
    assert update["new above stale"] == 1.0
    assert found["multi-session"]["n"] == 2  # the one without an answer is left out
    assert found["multi-session"]["session any@5"] == 0.5  # the other shares no word with any session
    assert found["all types"]["session any@5"] == pytest.approx(2 / 3)
    assert "new above stale" not in found["multi-session"]
    assert 0 < result["query_ms"]["p50"] <= result["query_ms"]["p95"]
    limited = await measure("longmemeval", tmp_path / "chats.json", tmp_path / "home", limit=1)
    assert scores(limited)["all types"]["n"] == 1


def note_taker(*, mends: bool) -> FunctionLLM:
    """Writes each fact to core memory; one that mends replaces where Ines lives."""

    def reply(request: LLMRequest) -> Reply | str:
        last = request.messages[-1]
        text = str(last["content"])
        if last["role"] == "tool":
            return "Noted."
        if "Where" in text or "What" in text:
            return "That would be ÉVORA." if "Where" in text else "I do not know."
        fact = text.removeprefix("Remember that ")
        if mends and "Évora" in fact:
            return say("", call("core_memory_replace", label="human", old_content=FACTS[1], new_content=fact))
        return say("", call("core_memory_append", label="human", content=fact))

    return FunctionLLM(reply)


async def test_core_memory_looks_for_the_answer_and_for_the_contradicted_fact(tmp_path: Path) -> None:
    file = core_memory_file(tmp_path / "rows.jsonl")
    for mends in (False, True):
        suite = replace(SUITES["core-memory"], policy=lambda mends=mends: note_taker(mends=mends))
        found = scores(await measure(suite, file, tmp_path / f"home{mends}"))
        assert found["read"] == {"n": 1, "in core memory": 1.0, "in reply": 0.0, "in either": 1.0}
        assert found["update"]["in core memory"] == found["update"]["in reply"] == 1.0
        assert found["update"]["contradicted gone"] == float(mends)


async def test_the_persona_is_no_memory_of_what_was_told(tmp_path: Path) -> None:
    row = {"input": "What is kept?", "ground_truth": "you", "agent_args": {"extra": {"facts": FACTS}}}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    suite = replace(SUITES["core-memory"], policy=lambda: note_taker(mends=True))
    found = scores(await measure(suite, tmp_path / "rows.jsonl", tmp_path / "home"))
    assert found["read"]["in core memory"] == 0.0  # every persona says "you"


async def test_the_offline_model_is_what_core_memory_takes_by_itself(tmp_path: Path) -> None:
    result = await measure("core-memory", core_memory_file(tmp_path / "rows.jsonl"), tmp_path / "home")
    assert result["model"] == "offline"
    assert scores(result)["read"]["in reply"] == 1.0


async def test_a_model_that_is_down_ends_the_evaluation(tmp_path: Path) -> None:
    suite = replace(SUITES["core-memory"], policy=lambda: FunctionLLM(lambda _: ProviderError("no credit is left")))
    with pytest.raises(ProviderError, match="no credit is left"):
        await measure(suite, core_memory_file(tmp_path / "rows.jsonl"), tmp_path / "home")


async def test_nested_keys_are_followed_by_chained_searches(tmp_path: Path) -> None:
    evaluation = Evaluation(SUITES["nested-kv"], nested_kv_files(tmp_path), Settings(home=tmp_path / "home"))
    assert len([case async for case in evaluation.run()]) == 3
    assert scores(evaluation.result()) == {
        "1 level": {"n": 1, "exact match": 1.0}, "3 levels": {"n": 2, "exact match": 1.0},
        "all levels": {"n": 3, "exact match": 1.0},
    }  # fmt: skip
    searches = [len(outcome.query_ms) for outcome in evaluation.outcomes.values()]
    assert searches == [2, 4, 4]  # one for each pair of the chain, one to see that the value is no key
    one = await measure("nested-kv", tmp_path / "nested_kv_orderings_3_levels.jsonl.gz", tmp_path / "home", limit=1)
    assert scores(one)["3 levels"] == {"n": 1, "exact match": 1.0}


async def test_who_stops_at_the_first_value_fails_deeper_levels(tmp_path: Path) -> None:
    def shallow(request: LLMRequest) -> Any:
        reply = follower.reply(request)
        searched = [m for m in request.messages if "archival_memory_search" in str(m.get("tool_calls"))]
        return reply.calls[0].arguments.split('"')[3] if isinstance(reply, Reply) and searched else reply

    follower: Any = SUITES["nested-kv"].policy()  # type: ignore[misc]
    suite = replace(SUITES["nested-kv"], policy=lambda: FunctionLLM(shallow, context_window=200_000))
    found = scores(await measure(suite, nested_kv_files(tmp_path), tmp_path / "home"))
    assert (found["1 level"]["exact match"], found["3 levels"]["exact match"]) == (1.0, 0.0)


# --- resuming, comparing, reporting -------------------------------------------------------------------


async def test_an_interrupted_evaluation_goes_on_where_it_stopped(tmp_path: Path) -> None:
    file, settings = core_memory_file(tmp_path / "rows.jsonl", rows=2), Settings(home=tmp_path / "home")
    first = Evaluation(SUITES["core-memory"], file, settings)
    async with aclosing(first.run()) as cases:
        assert (await anext(cases)).id == "1"
        assert (await anext(cases)).id == "2"
    with first.path.open("a") as saved:
        saved.write('\n{"id": "3", "sco')  # the power went off
    assert Evaluation(SUITES["core-memory"], file, settings, limit=3).outcomes == {}  # another evaluation
    again = Evaluation(SUITES["core-memory"], file, settings)
    assert list(again.outcomes) == ["1", "2"]
    assert [case.id async for case in again.run()] == ["3", "4"]
    assert [case["id"] for case in again.result()["cases"]] == ["1", "2", "3", "4"]
    assert Evaluation(SUITES["core-memory"], file, settings).outcomes == {}  # a finished one is measured anew
    assert not first.path.exists()
    assert (settings.home.stat().st_mode & 0o777) == 0o700


def result_of(*values: float, suite: str = "locomo", sha256: str = "abc") -> Json:
    cases = [{"id": str(n), "groups": ["all"], "scores": {"recall": value}} for n, value in enumerate(values)]
    rows = [{"group": "all", "n": len(values), "scores": {"recall": sum(values) / len(values)}}]
    return {
        "suite": suite, "data": "<b>.json", "sha256": sha256, "model": None, "limit": None, "embedding": "static",
        "version": "1", "rows": rows, "query_ms": {"p50": 1.0, "p95": 2.0}, "cases": cases,
    }  # fmt: skip


def test_two_results_are_compared_case_by_case() -> None:
    old, new = result_of(*[0.0] * 30, *[1.0] * 30), result_of(*[1.0] * 15, *[0.0] * 15, *[1.0] * 30, 1.0)
    (row,) = compare(new, old)
    assert (row["n"], row["difference"]) == (60, 0.25)  # the last case has no counterpart
    assert 0.12 < row["low"] < 0.18 < 0.32 < row["high"] < 0.38  # 0.25 +- 1.96 * sqrt(0.25 * 0.75 / 60)
    assert [row] == list(compare(new, old))
    (same,) = compare(old, old)
    assert (same["difference"], same["low"], same["high"]) == (0, 0, 0)


def test_only_like_results_are_compared(tmp_path: Path) -> None:
    for other in (result_of(1.0, suite="nested-kv"), result_of(1.0, sha256="other")):
        with pytest.raises(UsageError, match="compare like with like"):
            require_same_data(result_of(1.0), other)
    for text in (
        "{",
        "[]",
        '{"suite": "locomo"}',
        '{"suite": 1, "sha256": "", "cases": []}',
        "3",
        '{"suite": "a", "sha256": "", "cases": [{"id": "1", "scores": {"x": "much"}}]}',
    ):
        (tmp_path / "old.json").write_text(text)
        with pytest.raises(UsageError, match="is no result"):
            read_result(tmp_path / "old.json")


def test_the_page_holds_the_tables_and_escapes_what_files_say() -> None:
    new = result_of(1.0, 0.5)
    page = render(new | {"against": list(compare(new, result_of(0.0, 0.0)))})
    assert "&lt;b&gt;.json" in page
    assert "<b>" not in page
    assert "0.750" in page
    assert "+0.750" in page
    assert "http" not in page  # nothing is fetched from elsewhere


# --- bad input, and the command --------------------------------------------------------------------------------------


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "AGENTOS_HOME": str(home)}


def test_the_command_prints_saves_and_compares(tmp_path: Path, forks: Forks) -> None:
    home, file = tmp_path / "home", str(longmemeval_file(tmp_path / "chats.json"))
    arguments = ["eval", "longmemeval", "--data", file, "--json", "--model", "offline"]
    done = forks.run(arguments, "", environment(home), tmp_path)
    assert (done.returncode, json.loads(done.stdout)["suite"]) == (0, "longmemeval"), done
    assert "--model has no part in it" in done.stderr


def test_the_line_to_beat_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(str(Path(__file__).parent.parent / "bench/plain_full_text.py"))["main"]
    main("locomo", locomo_file(tmp_path / "talk.json.gz"))
    main("longmemeval", longmemeval_file(tmp_path / "chats.json"))
    printed = capsys.readouterr().out
    assert re.search(r"^single-hop +recall@10 +n +1  1\.000$", printed, re.MULTILINE)
    assert re.search(r"^knowledge-update +new above stale, newest first +n +1  1\.000$", printed, re.MULTILINE)


def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    files = {
        "locomo": locomo_file(tmp_path / "talk.json.gz"), "longmemeval": longmemeval_file(tmp_path / "chats.json"),
        "core-memory": core_memory_file(tmp_path / "rows.jsonl"), "nested-kv": nested_kv_files(tmp_path),
    }  # fmt: skip
    page = (Path(__file__).parent.parent / "docs/evaluation.md").read_text()
    commands = re.findall(r"^\$ agentos (eval (\S+) .*?)(?: > (\S+))?$", page, re.MULTILINE)
    assert len(commands) == 6
    for arguments, suite, kept in commands:
        done = CliRunner().invoke(app, arguments.replace("FILE", str(files[suite])).split())
        assert done.exit_code == 0, (arguments, done)
        if kept:
            (tmp_path / kept).write_text(done.stdout)
    assert "knowledge-update" in done.stdout
    assert "+0.000 to +0.000" in done.stdout
    assert "knowledge-update" in (tmp_path / "out.html").read_text()


def test_bad_data_is_named_with_its_place(tmp_path: Path) -> None:
    def written(name: str, text: str | bytes) -> str:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return name

    good, lonely = core_memory_file(tmp_path / "rows.jsonl").name, written("lonely.jsonl", "[1, 2]\n")
    undated = json.loads(gzip.decompress(locomo_file(tmp_path / "talk.json.gz").read_bytes()))
    undated[0]["conversation"]["session_2_date_time"] = "yesterday"
    unknown = json.loads(longmemeval_file(tmp_path / "chats.json").read_text())
    unknown[1]["answer_session_ids"] = ["s99"]
    past = json.loads((tmp_path / "chats.json").read_text())
    past[0]["haystack_dates"][0] = "0001/01/01 (Mon) 00:00"
    cut = gzip.compress(b"[1]" * 99)[:20]
    rows = [
        ("nonsense", good, "there is no suite 'nonsense'; there are: locomo, longmemeval, core-memory, nested-kv"),
        ("locomo", "missing.json", "missing.json cannot be read"),
        ("locomo", written("empty.json", ""), "empty.json is not JSON at line 1, column 1"),
        ("locomo", written("none.json", "[]"), "none.json holds no JSON array with something in it"),
        ("locomo", written("cut.json.gz", cut), "damaged gzip file"),
        ("locomo", written("latin.json", b"\xe9"), "not UTF-8 at byte 0"),
        ("locomo", "chats.json", "chats.json, entry 1: conversation: Field required"),
        ("locomo", written("undated.json", json.dumps(undated)), "entry 1: session_2_date_time 'yesterday'"),
        ("longmemeval", written("unknown.json", json.dumps(unknown)), "unknown.json, entry 2: answer_session_ids"),
        (
            "core-memory",
            written(
                "mute.jsonl",
                json.dumps({"input": "Who?", "ground_truth": " ", "agent_args": {"extra": {"facts": ["a"]}}}),
            ),
            "mute.jsonl, line 1: ground_truth: String should have at least 1 character",
        ),
        ("longmemeval", written("past.json", json.dumps(past)), "past.json, entry 1: "),
        ("core-memory", written("bad.jsonl", '{"input": 1}\n'), "bad.jsonl, line 1: input: Input should be"),
        ("core-memory", written("half.jsonl", (tmp_path / good).read_text() + "{"), "half.jsonl, line 3 is not JSON"),
        ("core-memory", written("blank.jsonl", "\n\n"), "blank.jsonl is empty"),
        ("nested-kv", lonely, "needs a file named *kv*_keys*.jsonl*"),
        ("nested-kv", good, "needs a file named *orderings_*_levels*.jsonl*"),
    ]
    for suite, file, sentence in rows:
        with pytest.raises(UsageError) as error:
            Evaluation(find_suite(suite), tmp_path / file, Settings(home=tmp_path / "home"))
        assert sentence in str(error.value), (suite, file)
    nested_kv_files(tmp_path)
    with pytest.raises(UsageError, match=r"far.jsonl, line 1: \[3, 50\] are not all positions of the 50 pairs"):
        Evaluation(SUITES["nested-kv"], tmp_path / written("far.jsonl", "[3, 50]"), Settings(home=tmp_path / "home"))


def test_bad_input_is_one_sentence_and_an_exit_code(tmp_path: Path, forks: Forks) -> None:
    good = core_memory_file(tmp_path / "rows.jsonl").name
    rows = [
        (["nonsense", "--data", good], {}, 2, "there is no suite 'nonsense'"),
        (["core-memory", "--data", good, "--against", good], {}, 2, "rows.jsonl is no result"),
        (["core-memory", "--data", good, "--report", "no/folder/out.html"], {}, 2, "make it first"),
        (["core-memory", "--data", good], {"AGENTOS_HOME": "/dev/null/home"}, 1, "AGENTOS_HOME"),
        (["core-memory", "--data", good, "--model", " "], {}, 2, "--model is empty"),
        (["core-memory"], {}, 2, "--data"),
    ]

    for arguments, env, code, sentence in rows:
        done = forks.run(["eval", *arguments], "", environment(tmp_path / "home") | env, tmp_path)
        assert (done.returncode, done.stdout) == (code, ""), (arguments, done)
        assert sentence in done.stderr, (arguments, done)
        assert "Traceback" not in done.stderr, done


def test_ctrl_c_keeps_what_was_measured(tmp_path: Path, forks: Forks) -> None:
    home, file = tmp_path / "home", core_memory_file(tmp_path / "rows.jsonl", rows=200)

    def interrupt(pid: int) -> None:
        for _ in range(600):
            if any(path.stat().st_size for path in home.glob("evals/*.jsonl")):
                break
            time.sleep(0.05)
        os.kill(pid, signal.SIGINT)

    done = forks.run(["eval", "core-memory", "--data", str(file)], "", environment(home), tmp_path, interrupt)
    assert (done.returncode, done.stdout) == (130, "")
    assert "of 400 are kept; the same command goes on there" in done.stderr
    kept = Evaluation(SUITES["core-memory"], file, Settings(home=home)).outcomes
    assert kept.keys() == {str(n) for n in range(1, len(kept) + 1)}
    assert 0 < len(kept) < 400
