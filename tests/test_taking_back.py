"""Taking back all that came from one source, and letting a block read as it did: on each kind of database."""

from typing import Any

import pytest

from agentos import curate, values
from agentos.agent import Agent
from agentos.errors import NotFound, UsageError
from agentos.testing import ScriptedLLM, call, say
from conftest import Home, collect


def append(text: str) -> Any:
    return call("core_memory_append", label="human", content=text)


async def two_turns(home: Home, name: str = "ada") -> tuple[Agent, list[str]]:
    """An agent after two turns that changed its memory; the turns' runs, oldest first."""
    fact = call("archival_memory_insert", content=f"a fact of {name}")
    agent = await home.agent(ScriptedLLM([say("", append("one"), fact), "ok", say("", append("two")), "ok"]), name=name)
    for text in ("first", "second"):
        await collect(agent, text)
    runs = await home.store.read(lambda tx: tx.runs(agent.id))
    return agent, [run.id for run in sorted(runs, key=lambda run: run.inbox_id)]


async def take_back(home: Home, agent: Agent, **source: Any) -> list[str]:
    done = await curate.undo_all(home.store, home.clock, await agent.turn(), curate.Source(**source))
    return [one.action for one in done]


async def journal(home: Home, agent: Agent, **filters: Any) -> list[values.Json]:
    return await home.store.read(lambda tx: values.history_value(tx, agent.id, 50, **filters))


async def test_all_of_a_turn_or_message_or_call_is_taken_back(either_home: Home) -> None:
    home = either_home
    agent, runs = await two_turns(home)
    with pytest.raises(UsageError) as refused:
        await take_back(home, agent, run_id=runs[0])
    assert "nothing was taken back" in str(refused.value)
    assert "changed since event" in str(refused.value)
    assert (await home.block(agent)).value == "one\ntwo"
    assert await home.store.read(lambda tx: tx.count_passages(agent.id)) == 1, "all of it or nothing"
    [event] = await journal(home, agent, source=curate.Source(run_id=runs[1]), kind="memory")
    assert await take_back(home, agent, message_id=int(event["message"][1:]), call_id=event["call_id"]) == [
        "block.append"
    ]
    assert (await home.block(agent)).value == "one"
    first = await home.store.read(lambda tx: tx.run_messages(runs[0]))
    assert first[0].role == "user"
    assert await take_back(home, agent, message_id=first[0].id) == ["passage.insert", "block.append"]
    assert (await home.block(agent)).value == ""
    assert await home.store.read(lambda tx: [p for p in tx.recent_passages(agent.id) if p.valid_to is None]) == []
    for source in ({"run_id": runs[0]}, {"run_id": "run-of-nobody"}):
        with pytest.raises(UsageError, match="nothing in memory that came from there still stands"):
            await take_back(home, agent, **source)
    undone = await journal(home, agent, kind="memory", actor="agent")
    assert all(e["undone"] and not e["undoable"] for e in undone if e["undo_of"] is None)


async def test_all_of_a_turn_goes_with_what_took_the_place_of_what(either_home: Home) -> None:
    def insert(content: str, replaces: str | None = None) -> Any:
        return call("archival_memory_insert", content=content, replaces=replaces)

    def links(tx: Any) -> dict[str, Any]:
        return {p.ref: (p.valid_to is None, p.replaces, p.superseded_by) for p in tx.passages(agent.id, range(1, 9))}

    home = either_home
    turns = [[insert("Rui")], [insert("Ines", "p1"), insert("Eva", "p2"), insert("a cat"), append("one")]]
    agent = await home.agent(ScriptedLLM([part for calls in turns for part in (say("", *calls), "ok")]))
    for text in ("first", "second"):
        await collect(agent, text)
    first, second = sorted(await home.store.read(lambda tx: tx.runs(agent.id)), key=lambda run: run.inbox_id)
    made = await home.store.read(links)
    assert made["p1"] == (False, None, 2)
    with pytest.raises(UsageError, match="p2 superseded it"):
        await take_back(home, agent, run_id=first.id)
    assert await home.store.read(links) == made
    done = await take_back(home, agent, run_id=second.id)
    assert done == ["block.append", "passage.insert", "passage.supersede", "passage.supersede"]
    left = await home.store.read(links)
    assert left["p1"] == (True, None, None)
    assert {ref for ref, (valid, _, _) in left.items() if valid} == {"p1"}
    assert (await home.block(agent)).value == ""
    assert await take_back(home, agent, run_id=first.id) == ["passage.insert"]


async def test_sources_of_other_agents_are_out_of_reach(home: Home) -> None:
    agent, _ = await two_turns(home)
    other, runs = await two_turns(home, "other")
    message = (await home.store.read(lambda tx: tx.run_messages(runs[0])))[0].id
    with pytest.raises(NotFound, match=f"no message m{message}"):
        await take_back(home, agent, message_id=message)
    with pytest.raises(UsageError, match="still stands"):
        await take_back(home, agent, run_id=runs[0])
    chain = await home.store.read(lambda tx: curate.source_chain(tx, agent.id, curate.Source(run_id=runs[0])))
    assert chain == []
    assert (await home.block(other)).value == "one\ntwo"


async def test_the_journal_by_pages_and_filters(either_home: Home) -> None:
    home = either_home
    agent, runs = await two_turns(home)
    whole = await journal(home, agent)
    found: list[values.Json] = []
    before = None
    while True:
        last = before
        page = await home.store.read(lambda tx: values.history_page(tx, agent.id, 2, before=last))  # noqa: B023
        found += page["events"]
        if (before := page["before"]) is None:
            break
    assert found == whole
    assert [e["id"] for e in whole] == sorted((e["id"] for e in whole), reverse=True)
    [told] = await journal(home, agent, target="human", source=curate.Source(run_id=runs[1]))
    assert (told["tool"], told["changes"], told["target_id"]) == ("core_memory_append", "+ two", "b1")
    assert {e["actor"] for e in await journal(home, agent, actor="runtime")} == {"runtime"}
    source = curate.Source(message_id=int(told["message"][1:]), call_id=told["call_id"])
    chain = await home.store.read(lambda tx: curate.source_chain(tx, agent.id, source))
    assert [(link.what, "second" in link.text) for link in chain] == [
        ("written by the agent", False), ("because of the user's message", True),
    ]  # fmt: skip


async def test_an_undo_on_a_newer_page_still_shows(home: Home) -> None:
    agent, _ = await two_turns(home)
    await curate.undo(home.store, home.clock, await agent.turn())
    event = (await journal(home, agent, kind="block", actor="agent", target="human"))[0]
    assert (event["undone"], event["undoable"]) == (True, False)


async def test_a_block_reads_again_as_it_did(either_home: Home) -> None:
    home = either_home
    agent, _ = await two_turns(home)
    now = await home.block(agent)
    [first] = [v for v in await home.store.read(lambda tx: tx.block_versions(now.id)) if v["value"] == "one"]
    restored = await curate.restore_block(home.store, await agent.turn(), now.id, first["id"], now.version_id)
    assert restored.value == "one"
    with pytest.raises(curate.BlockChanged) as lost:
        await curate.restore_block(home.store, await agent.turn(), now.id, now.version_id, now.version_id)
    assert lost.value.block.value == "one"
    [event] = await journal(home, agent, kind="block", actor="user")
    assert (event["action"], event["changes"]) == ("block.edit", "- two")
    await curate.undo(home.store, home.clock, await agent.turn())
    assert (await home.block(agent)).value == "one\ntwo"
    [chain] = await curate.why(home.store, agent.id, "two")
    assert chain[-1].text.endswith("second")
    with pytest.raises(NotFound):
        await curate.restore_block(home.store, await agent.turn(), now.id, 10**6)
    await curate.change_block(home.store, now.id, await agent.turn(), value="", limit=5)
    with pytest.raises(UsageError, match="limit is 5"):
        await curate.restore_block(home.store, await agent.turn(), now.id, now.version_id)
