"""A passage takes another's place: what then holds, what is shown, and how it is taken back."""

import json
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from agentos import curate, values
from agentos.agent import Agent
from agentos.archive.source import SqlIndexSource
from agentos.archive.sync import CheckedIndex, IndexSync
from agentos.errors import Conflict, NotFound, UsageError
from agentos.memory.search import HybridSearch
from agentos.messages import Passage
from agentos.protocols import SearchQuery
from agentos.scenarios.run import play
from agentos.testing import ExactIndex, HashEmbedder, ScriptedLLM, call, say
from conftest import Home, Memory, collect, of
from serving import served
from test_cli import Cli, cli  # noqa: F401  a fixture
from test_scenarios import scenario_of
from test_tools import found


async def use(home: Home, *calls: Any) -> list[str]:
    """The texts of what these calls gave in one turn of Ada's."""
    agent = await home.agent(ScriptedLLM([say("", *calls), *["ok"] * 9]))
    return [event.text for event in of(await collect(agent, "go"), "tool_result")]


def insert(content: str, replaces: str | None = None, **options: Any) -> Any:
    given = {"replaces": replaces} if replaces else {}
    return call("archival_memory_insert", content=content, **given, **options)


def search(query: str = "landlord", **options: Any) -> Any:
    return call("archival_memory_search", query=query, **options)


async def moved(home: Home) -> Agent:
    """Ada, who on the 8th heard that Rui is the landlord, and on the 10th that Ines is."""
    await use(home, insert("The landlord is Rui"))
    home.clock.advance(timedelta(days=2))  # type: ignore[attr-defined]
    assert await use(home, insert("The landlord is Ines", "p1")) == ["stored as p2 in place of p1"]
    return await home.agent(ScriptedLLM([]))


async def texts(home: Home, agent: Agent, **options: Any) -> set[str]:
    return {hit.text[-4:] for hit in await home.search(agent.id, SearchQuery("landlord", **options))}


async def rows(home: Home, agent: Agent) -> dict[str, tuple[Any, ...]]:
    """The links of every passage."""
    every = await home.store.read(lambda tx: tx.passages(agent.id, range(20)))
    return {p.ref: (p.valid_to is None, p.replaces, p.superseded_by) for p in every}


async def add(home: Home, agent: Agent, text: str, replaces: int | None = None) -> Passage:
    memory = Memory(home.search, agent.id, None)
    return await curate.insert_passage(home.store, home.clock, memory, agent.id, text, replaces=replaces)


async def take_back(home: Home, agent: Agent, event_id: int | None = None) -> curate.Undone:
    return await curate.undo(home.store, home.clock, await agent.turn(), event_id)


async def events(home: Home, agent: Agent) -> list[tuple[Any, ...]]:
    every = await home.store.read(lambda tx: tx.events(agent.id, actions=("passage.", "undo.")))
    return [(e["id"], e["action"], e["target"], e["note"], e["actor"]) for e in reversed(every)]


# what a search shows


async def test_a_search_shows_what_is_valid_then_or_marks_what_was_replaced(either_home: Home) -> None:
    home = either_home
    await moved(home)
    [gone] = await use(home, insert("The landlord is Zoe"))
    await use(home, search())
    await curate.delete_passage(home.store, home.clock, "agent-ada", 3)
    assert gone == "stored as p3"
    now, before, both, early, all_then = map(
        found,
        await use(
            home, search(), search(as_of="2026-05-09"), search(include_superseded=True), search(as_of="2026-05-07"),
            search(as_of="2026-05-10", include_superseded=True),
        ),
    )  # fmt: skip
    old = {"id": "p1", "date": "2026-05-08 09:30", "superseded": "on 2026-05-10 by p2", "text": "The landlord is Rui"}
    new = {"id": "p2", "date": "2026-05-10 09:30", "text": "The landlord is Ines"}
    assert now == [{**new, "rank": 1}]
    assert before == [{**old, "rank": 1}]
    assert [{**hit, "rank": 0} for hit in both] == [{**new, "rank": 0}, {**old, "rank": 0}]
    assert early == []
    assert all_then == both
    [paged_in] = found((await use(home, call("page_in", ids=["p1"])))[0])
    assert paged_in == old


async def test_the_index_lets_go_of_what_was_replaced_and_the_scan_finds_it(home: Home) -> None:
    agent = await moved(home)
    index = ExactIndex()
    sync = IndexSync(SqlIndexSource(home.store), index, HashEmbedder())
    assert (await sync.drain()).problem is None
    assert await index.count(agent.id) == 1
    assert (await sync.verify(agent.id)).sound
    hybrid = HybridSearch(home.store, HashEmbedder(), CheckedIndex(sync), exact_below=0)
    [vector] = await HashEmbedder().embed(["The landlord is Rui"])
    assert [key for key, _ in await index.query(agent.id, np.asarray(vector), 9)] == [2]
    for options, expected in (
        ({}, {"p2"}), ({"include_superseded": True}, {"p1", "p2"}),
        ({"as_of": home.clock.now() - timedelta(days=1)}, {"p1"}),
    ):  # fmt: skip
        hits = await hybrid(agent.id, SearchQuery("landlord", **options))  # type: ignore[arg-type]
        assert {hit.ref for hit in hits} == expected
        assert {hit.why for hit in hits} == {"both"}
    await take_back(home, agent)
    await sync.drain()
    assert [key for key, _ in await index.query(agent.id, np.asarray(vector), 9)] == [1]


# replacing


async def test_what_cannot_be_replaced_is_said_so_that_the_model_can_act(home: Home) -> None:
    agent = await moved(home)
    await use(home, insert("The cat is Tom"))
    await curate.delete_passage(home.store, home.clock, agent.id, 3)
    before = await rows(home, agent)
    for ref, said in (
        ("p99", "there is no passage p99 to replace; a search shows the ids"),
        ("p1", "p1 was superseded by p2; replace that one"),
        ("p3", "p3 was deleted; store the text without replacing it"),
        ("m1", "'m1' is no passage; give the id of one, such as p12"),
        ("p1-p2", "'p1-p2' is no passage"),
        ("the first", "'the first' is not an id"),
    ):
        [text] = await use(home, insert("something else", ref))
        assert text.startswith("error: ")
        assert said in text
    assert await rows(home, agent) == before
    with pytest.raises(Conflict, match="p1 is valid no more: it was superseded by p2"):
        await curate.delete_passage(home.store, home.clock, agent.id, 1)
    await use(home, insert("The landlord is Eva", "p2"))
    with pytest.raises(Conflict, match="p1 was superseded by p4; replace that one"):
        await add(home, agent, "something else", 1)
    await curate.delete_passage(home.store, home.clock, agent.id, 4)
    with pytest.raises(Conflict, match="p1 was superseded and what took its place was deleted"):
        await add(home, agent, "something else", 1)
    with pytest.raises(NotFound, match="there is no passage p99"):
        await add(home, agent, "something else", 99)


async def test_equal_texts(home: Home) -> None:
    agent = await moved(home)
    assert await use(home, insert("The landlord is Ines", "p2")) == ["already stored as p2"]
    assert await use(home, insert("The landlord is Rui", tags=["again"])) == ["stored as p3, tags: again"]
    assert await use(home, insert("The landlord is Rui", "p2", tags=["home"])) == [
        "already stored as p3 in place of p2, tags: again, home"
    ]
    assert await rows(home, agent) == {"p1": (False, None, 2), "p2": (False, 1, 3), "p3": (True, 2, None)}
    assert (await take_back(home, agent)).action == "passage.supersede"
    assert await rows(home, agent) == {"p1": (False, None, 2), "p2": (True, 1, None), "p3": (True, None, None)}
    (number, *_) = (await events(home, agent))[-1]
    await take_back(home, agent, number)
    assert (await rows(home, agent))["p2"] == (False, 1, 3)
    await take_back(home, agent)
    await curate.delete_passage(home.store, home.clock, agent.id, 3)
    with pytest.raises(UsageError, match="passage p3, which is to take the place of p2, is valid no more"):
        await take_back(home, agent, (await events(home, agent))[-2][0])


async def test_a_person_replaces_a_passage_and_the_agent_is_told(home: Home) -> None:
    agent = await moved(home)
    saved = await add(home, agent, "The landlord is Eva", 2)
    assert (saved.ref, saved.replaces) == ("p3", 2)
    alerts = of(await collect(await home.agent(ScriptedLLM(["ok"])), "hi"), "alert")
    assert [a.text for a in alerts] == ["Passage p2 was replaced by the user: p3 holds now."]
    assert [event[1:] for event in await events(home, agent)][-2:] == [
        ("passage.insert", "p3", "replaces p2", "user"), ("passage.supersede", "p2", "by p3", "user"),
    ]  # fmt: skip


# undo


async def test_both_halves_are_taken_back_in_one_go_and_back_again(either_home: Home) -> None:
    home = either_home
    agent = await moved(home)
    as_made = await rows(home, agent)
    numbers = {(action, target): number for number, action, target, *_ in await events(home, agent)}
    halves = [numbers["passage.insert", "p2"], numbers["passage.supersede", "p1"]]
    for which in (None, *halves):  # by either half, and again and again
        undone = await take_back(home, agent, which)
        assert (undone.before, undone.after) == ("The landlord is Ines", "The landlord is Rui")
        assert await rows(home, agent) == {"p1": (True, None, None), "p2": (False, None, None)}
        assert await texts(home, agent) == {" Rui"}
        notices = await home.store.read(lambda tx: tx.notices(agent.id))
        assert "Passage p1 was put back into archival memory by the user." in notices[-1].content
        assert "Passage p2 was taken out of archival memory by the user." in notices[-1].content
        shown = await home.store.read(lambda tx: values.history_value(tx, agent.id, 50))
        assert {event["target"] for event in shown if event["undone"]} == {"p1", "p2"}
        last = (await events(home, agent))[-1][0]
        redone = await take_back(home, agent, last)
        assert (redone.before, redone.after) == ("The landlord is Rui", "The landlord is Ines")
        assert await rows(home, agent) == as_made
        then = home.clock.now() - timedelta(days=1)
        assert await texts(home, agent, as_of=then) == {" Rui"}
        assert await texts(home, agent) == {"Ines"}


async def test_undo_is_refused_with_both_texts_where_something_changed_since(home: Home) -> None:
    agent = await moved(home)
    halves = [number for number, _, _, note, _ in await events(home, agent) if note]
    await use(home, insert("The landlord is Eva", "p2"))
    for number in halves:
        with pytest.raises(UsageError) as caught:
            await take_back(home, agent, number)
        said = f"passage p2 changed since event {number}: p3 superseded it. It reads:\nThe landlord is Ines\n"
        assert str(caught.value) == f"{said}p3 reads:\nThe landlord is Eva"
    await take_back(home, agent)
    await use(home, insert("Rui is in Faro"), insert("The landlord is Ines", "p4"))
    for number in halves:
        with pytest.raises(UsageError, match="p2 took the place of p4 too; undo that first"):
            await take_back(home, agent, number)
    await take_back(home, agent)
    await use(home, insert("The landlord is Rui"))
    for number in halves:
        with pytest.raises(UsageError, match="p1 cannot come back: p5, stored since, holds the same text"):
            await take_back(home, agent, number)
    for number in (5, 2):
        await curate.delete_passage(home.store, home.clock, agent.id, number)
    with pytest.raises(UsageError, match=r"p2 changed since event .*no longer in archival memory"):
        await take_back(home, agent, halves[1])
    assert (await rows(home, agent))["p1"] == (False, None, 2)


async def test_why_leads_through_what_was_replaced(home: Home) -> None:
    agent = await moved(home)
    await add(home, agent, "The landlord is Eva", 2)
    [chain] = await curate.why(home.store, agent.id, "p3")
    assert [(link.what, link.ref) for link in chain if link.ref.startswith("p")] == [
        ("passage", "p3"), ("in place of a passage, superseded on 2026-05-10 by p3", "p2"),
        ("in place of a passage, superseded on 2026-05-10 by p2", "p1"),
    ]  # fmt: skip
    assert [link.text for link in chain if link.what.startswith("because")] == ["go", "go"]
    [chain] = await curate.why(home.store, agent.id, "p1")
    assert chain[0].what == "passage, superseded on 2026-05-10 by p2"


# elsewhere


async def test_a_scenario_records_both_sides() -> None:
    scenario = scenario_of(
        {"user": "Rui is the landlord", "script": [{"say": "Ok", "calls": [
            {"archival_memory_insert": {"content": "The landlord is Rui"}}]}]},
        {"user": "It is Ines now", "script": [{"say": "Ok", "calls": [
            {"archival_memory_insert": {"content": "The landlord is Ines", "replaces": "p1"}}]}]},
        {"user": "Who was it?", "script": [{"calls": [
            {"archival_memory_search": {"query": "landlord", "include_superseded": True}}]}, "Rui"]},
    )  # fmt: skip
    _, second, third = (record.memory["user"] for record in (await play(scenario)).turns)
    assert second.archival == {"p2": "The landlord is Ines"}
    assert [(c.action, c.before, c.text) for c in second.journal if c.action.startswith("passage.")] == [
        ("passage.insert", None, "The landlord is Ines"), ("passage.supersede", "The landlord is Rui", None),
    ]  # fmt: skip
    assert {hit.ref: hit.superseded for hits in third.shown for hit in hits} == {"p1": True, "p2": False}


def test_passages_over_http() -> None:
    with served() as live:
        live.create("ada")

        def ask(method: str, path: str = "", body: Any = None) -> tuple[int, Any]:
            return live.ask(method, f"/agentos/v1/agents/ada/passages{path}", body)[:2]

        made = [ask("POST", "", {"text": f"Landlord {n}", "tags": ["home", f"n{n}"]})[1] for n in range(4)]
        assert [(p["id"], p["tags"], p["origin"], p["replaces"]) for p in made[:1]] == [
            ("p1", ["home", "n0"], "user", None)
        ]
        status, fifth = ask("POST", "", {"text": "Landlord Ines", "replaces": "p2"})
        assert (status, fifth["id"], fifth["replaces"]) == (200, "p5", "p2")
        pages = []
        while page := ask("GET", f"?limit=2{f'&after={pages[-1][-1]}' if pages else ''}")[1]:
            pages.append([p["id"] for p in page])
        assert pages == [["p5", "p4"], ["p3", "p1"]]
        every = ask("GET", "?include_superseded=true&tag=home")[1]
        assert [(p["id"], p["superseded_by"]) for p in every] == [
            ("p4", None),
            ("p3", None),
            ("p2", "p5"),
            ("p1", None),
        ]
        assert ask("GET", "?tag=n")[1] == ask("GET", "?end=2026-01-01")[1] == ask("GET", "?start=2100-01-01")[1] == []
        assert len(ask("GET", "?start=2026-01-01")[1]) == 4
        assert ask("DELETE", "/p4")[1]["id"] == "p4"
        for method, path, body, code, said in (
            ("POST", "", {"text": "x", "replaces": "p2"}, 409, "p2 was superseded by p5; replace that one"),
            ("POST", "", {"text": "x", "replaces": "p4"}, 409, "p4 was deleted"),
            ("POST", "", {"text": "x", "replaces": "p99"}, 404, "there is no passage p99"),
            ("POST", "", {"text": "x", "replaces": "m1"}, 404, "'m1' is no passage; ids look like p12"),
            ("POST", "", {"text": " "}, 400, "the text is empty"), ("POST", "", {"text": "x", "tag": "y"}, 422, "tag"),
            ("DELETE", "/p4", None, 404, "no passage p4"), ("DELETE", "/p2", None, 409, "superseded by p5"),
            ("GET", "?after=p99", None, 404, "no passage p99"), ("GET", "?start=soon", None, 400, "start is 'soon'"),
        ):  # fmt: skip
            status, value = ask(method, path, body)
            assert (status, said in json.dumps(value)) == (code, True), (method, path, body, value)
        at = "/agentos/v1/agents/ada/search?query=landlord&in=archival"
        refs = [{hit["id"] for hit in live.ask("GET", f"{at}{more}")[1]} for more in ("", "&include_superseded=true")]
        assert refs == [{"p1", "p3", "p5"}, {"p1", "p2", "p3", "p5"}]
        assert live.ask("GET", f"{at}&as_of=2026-01-01")[1] == []
        assert live.ask("GET", f"{at}&as_of=never")[0] == 400
        assert [event["action"] for event in live.ask("GET", "/agentos/v1/agents/ada/history?limit=3")[1]] == [
            "passage.delete", "passage.supersede", "passage.insert",
        ]  # fmt: skip


def test_passages_on_the_command_line(cli: Cli) -> None:  # noqa: F811
    cli.ok("agents", "create", "ada")
    assert cli.ok("memory", "add", "ada", "The landlord is Rui", "--tag", "home") == "stored as p1\n"
    assert cli.json("memory", "add", "ada", "The landlord is Ines", "--replaces", "p1")["replaces"] == "p1"
    [hit] = cli.json("memory", "search", "ada", "landlord", "--in", "archival")
    assert (hit["id"], hit["superseded_by"], hit["valid_to"]) == ("p2", None, None)
    assert cli.json("memory", "search", "ada", "landlord", "--in", "archival", "--as-of", "2026-01-01") == []
    past = cli.ok("memory", "search", "ada", "landlord", "--in", "archival", "--include-superseded")
    [marked] = [line for line in past.splitlines() if "superseded on" in line]
    assert marked.startswith("p1 ")
    assert marked.endswith(" by p2")
    history = cli.ok("memory", "history", "ada").splitlines()
    assert [line.split()[4:] for line in history if "passage." in line] == [
        ["passage.supersede", "p1", "by", "p2"], ["passage.insert", "p2", "replaces", "p1"], ["passage.insert", "p1"],
    ]  # fmt: skip
    assert [line.strip() for line in history if "landlord" in line] == [
        "- The landlord is Rui", "+ The landlord is Ines", "+ The landlord is Rui",
    ]  # fmt: skip
    undone = cli.ok("memory", "undo", "ada").splitlines()[1:]
    assert [line.strip() for line in undone] == ["- The landlord is Ines", "+ The landlord is Rui"]
    assert cli.json("memory", "delete", "ada", "p1")["id"] == "p1"
    for args, said in (
        (("add", "ada", "x", "--replaces", "p2"), "p2 was deleted; store the text without replacing it"),
        (("add", "ada", " "), "the text is empty"), (("add", "ada", "x", "--replaces", "2"), "'2' is no passage"),
        (("delete", "ada", "p7"), "no passage p7"), (("search", "ada", "x", "--as-of", "now"), "--as-of is 'now'"),
    ):  # fmt: skip
        done = cli("memory", *args)
        assert (done.returncode, done.stderr.count("\n"), said in done.stderr) == (2, 1, True), done.stderr
