"""Taking back all that came from one source, and letting a block read as it did: on each kind of database."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from agentos import curate, values
from agentos.agent import Agent
from agentos.curate import taking_back
from agentos.errors import NotFound, UsageError
from agentos.memory import core
from agentos.messages import Cause, Passage
from agentos.testing import FixedClock, FunctionLLM, ScriptedLLM, call, say, temporary_runtime
from conftest import Home, Memory, collect


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


# what a program or an import brought


async def remember(
    home: Home, agent: Agent, text: str, *tags: str, client: str = "", replaces: int | None = None
) -> str:
    """A fact as a program stores it, or without a name a person; its id."""
    memory = Memory(home.search, agent.id, None)
    saved = await curate.insert_passage(
        home.store, home.clock, memory, agent.id, text, tags, replaces=replaces, client=client
    )
    return saved.ref


async def valid(home: Home, agent: Agent) -> dict[str, tuple[str, ...]]:
    """The tags of what is valid, by text."""
    return {p.text: p.tags for p in await home.store.read(lambda tx: tx.recent_passages(agent.id))}


async def undo(home: Home, agent: Agent, event_id: int | None = None) -> curate.Undone:
    return await curate.undo(home.store, home.clock, await agent.turn(), event_id)


async def test_all_that_a_client_wrote_is_taken_back(either_home: Home, clock: FixedClock) -> None:
    home = either_home
    agent = await home.agent(FunctionLLM(lambda request: "ok"))
    mine = await remember(home, agent, "the user's fact", "kept")
    for name in ("Desk", "desk", "Desk (laptop)"):  # others, though they have much of the name in common
        await remember(home, agent, f"a fact of {name}", client=name)
    old = await remember(home, agent, "Rui", client="Desk")
    week = clock.advance(timedelta(days=7))
    await remember(home, agent, "Ines", client="Desk", replaces=int(old[1:]))
    await remember(home, agent, "the user's fact", "added", client="Desk")
    await curate.edit_block(
        home.store, await agent.turn(), "human", lambda block: core.append(block, "by Desk"), client="Desk"
    )
    made = await valid(home, agent)
    assert made["the user's fact"] == ("kept", "added")

    done = await take_back(home, agent, client="Desk", since=week)
    assert done == ["block.edit", "passage.tag", "passage.supersede"]
    others = {"a fact of desk": (), "a fact of Desk (laptop)": ()}
    assert await valid(home, agent) == {"the user's fact": ("kept",), "a fact of Desk": (), "Rui": ()} | others
    assert (await home.block(agent)).value == ""
    told = [n.content for n in (await home.saved(agent)).notices if "by the user" in n.content]
    assert told == [
        f"The tags of passage {mine} were put back by the user: kept. "
        f"Passage {old} was put back into archival memory by the user. "
        "Passage p6 was taken out of archival memory by the user."
    ], "one notice of all"
    assert await take_back(home, agent, client="Desk") == ["passage.insert", "passage.insert"]
    with pytest.raises(
        UsageError, match=r"clients that wrote to this agent's memory: 'Desk', 'Desk \(laptop\)', 'desk'"
    ):
        await take_back(home, agent, client="Desk")
    for event in await journal(home, agent, kind="undo"):  # an undo of all can be undone like others
        still = (await journal(home, agent, before=event["id"] + 1, kind="undo"))[0]
        if still["undoable"]:
            await undo(home, agent, event["id"])
    assert await valid(home, agent) == made
    assert (await home.block(agent)).value == "by Desk"
    for wrong in ({"client": "Desk", "imported": True}, {"since": week}):
        with pytest.raises(UsageError):
            curate.Source(**wrong)


async def test_of_a_client_all_or_nothing_is_taken_back(home: Home) -> None:
    agent = await home.agent(FunctionLLM(lambda request: "ok"))
    tea = await remember(home, agent, "likes tea", client="Desk")
    await remember(home, agent, "likes cake", client="Desk")
    await remember(home, agent, "likes coffee", replaces=int(tea[1:]))
    made = await valid(home, agent)
    with pytest.raises(UsageError) as refused:
        await take_back(home, agent, client="Desk")
    for part in ("nothing was taken back", "likes tea", "likes coffee", "superseded it"):
        assert part in str(refused.value)
    assert await valid(home, agent) == made
    many = await home.agent(FunctionLLM(lambda request: "ok"), name="many")
    for n in range(30):
        await remember(home, many, f"fact {n}", client="Desk")
    assert await take_back(home, many, client="Desk") == ["passage.insert"] * 30
    [notice] = (await home.saved(many)).notices
    assert notice.content.count("was taken out") == taking_back._SAID_AT_ONCE
    assert notice.content.endswith("So were 10 more changes taken back.")


async def test_what_was_deleted_since_is_out_already(home: Home) -> None:
    async def delete(ref: str, client: str = "") -> None:
        await curate.delete_passage(home.store, home.clock, agent.id, int(ref[1:]), client=client)

    agent = await home.agent(FunctionLLM(lambda request: "ok"))
    by_hand, own, _ = [await remember(home, agent, text, client="Desk") for text in ("one", "two", "three")]
    await delete(by_hand)
    await delete(own, "Desk")
    assert await take_back(home, agent, client="Desk") == ["passage.delete", "passage.insert", "passage.insert"]
    assert await valid(home, agent) == {}
    with pytest.raises(UsageError, match="still stands"):
        await take_back(home, agent, client="Desk")


async def test_a_block_must_fit_as_it_reads_in_the_end(home: Home) -> None:
    agent = await home.agent(FunctionLLM(lambda request: "ok"))
    for text in ("long " * 100, "short", "shorter"):
        await curate.edit_block(home.store, await agent.turn(), "human", text, client="Desk")
    block = await home.block(agent)
    await curate.change_block(home.store, block.id, await agent.turn(), limit=100)
    newest = next(e["id"] for e in await journal(home, agent, kind="block", actor="client"))
    await undo(home, agent, newest)
    with pytest.raises(UsageError, match="has 500 characters and the limit is now 100"):
        await undo(home, agent, newest - 1)
    assert (await home.block(agent)).value == "short"
    assert await take_back(home, agent, client="Desk") == ["block.edit", "block.edit"]
    assert (await home.block(agent)).value == ""


async def test_many_changes_of_one_thing_are_taken_back(home: Home) -> None:
    agent = await home.agent(FunctionLLM(lambda request: "ok"))
    await remember(home, agent, "likes tea", "drink")

    def tag(tx: Any) -> None:
        passage = tx.recent_passages(agent.id)[0]
        for n in range(510):
            tx.add_passage(replace(passage, tags=(f"tag {n}",)), Cause(agent.id, "client", client="Desk"))

    await home.store.write(tag)
    assert await take_back(home, agent, client="Desk") == ["passage.tag"] * 510
    assert await valid(home, agent) == {"likes tea": ("drink",)}


async def test_too_many_events_are_refused_with_a_way_on(home: Home) -> None:
    def fill(tx: Any) -> None:
        for cause in (Cause(agent.id, "client", client="Desk"), Cause(agent.id, "import")):
            for n in range(taking_back._MOST_AT_ONCE + 1):
                tx.journal(cause, "block.edit", f"b{n}", before=1, after=2)

    agent = await home.agent(FunctionLLM(lambda request: "ok"))
    await home.store.write(fill)
    with pytest.raises(UsageError, match=r"2001 events .* begin with the newest: those since 20"):
        await take_back(home, agent, client="Desk")
    with pytest.raises(UsageError, match=r"2001 events .* an agent file makes an agent of its own: delete that one"):
        await take_back(home, agent, imported=True)


async def test_what_an_import_brought_is_taken_back(home: Home) -> None:
    agent = await home.agent(FunctionLLM(lambda request: "ok"))
    lines = ['{"role": "user", "content": "long ago"}']
    await curate.import_conversation(home.store, home.clock, agent.id, lines)
    [event] = await journal(home, agent, kind="import")
    with pytest.raises(UsageError, match="imported past messages, which are not taken back"):
        await undo(home, agent, event["id"])
    with pytest.raises(UsageError, match="imported messages are past conversation, which is not taken back"):
        await take_back(home, agent, imported=True)

    def bring(tx: Any) -> None:  # as an agent file does
        now = Passage(0, agent.id, "Ines", "import", home.clock.now())
        taker = tx.add_passage(now, Cause(agent.id, "import"))[0]
        then = replace(now, text="Rui", valid_to=now.created_at, superseded_by=taker.id)
        tx.add_passage(then, Cause(agent.id, "import"))
        tx.add_passage(replace(now, text="a cat"), Cause(agent.id, "import"))

    await home.store.write(bring)
    await remember(home, agent, "the user's own")
    assert await take_back(home, agent, imported=True) == ["passage.insert"] * 2
    assert set(await valid(home, agent)) == {"the user's own"}


async def test_tags_are_taken_back(either_home: Home) -> None:
    home = either_home
    agent = await home.agent(FunctionLLM(lambda request: "ok"))
    ref = await remember(home, agent, "likes tea", "drink")
    for tag, client in (("hot", "Desk"), ("green", "")):
        await remember(home, agent, "likes tea", tag, client=client)
    newer, older, stored = await journal(home, agent, target=ref)
    assert [(e["action"], e["changes"], e["undoable"]) for e in (newer, older)] == [
        ("passage.tag", "+ green", True), ("passage.tag", "+ hot", True),
    ]  # fmt: skip
    with pytest.raises(UsageError, match=r"made them: drink, hot\nThey now are: drink, hot, green"):
        await undo(home, agent, older["id"])
    undone = await undo(home, agent)
    assert (undone.event_id, values.undone_value(undone)["changes"]) == (newer["id"], "- green")
    await undo(home, agent, older["id"])
    assert await valid(home, agent) == {"likes tea": ("drink",)}
    back = (await journal(home, agent, target=ref, kind="passage"))[0]
    assert (back["action"], back["changes"], back["undo_of"]) == ("undo.tags", "- hot", older["id"])
    await undo(home, agent, back["id"])
    assert await valid(home, agent) == {"likes tea": ("drink", "hot")}
    await undo(home, agent, stored["id"])
    assert await valid(home, agent) == {}, "tags since are no change of what it says"


async def test_the_journal_has_the_time_of_the_clock() -> None:
    clock = FixedClock()
    async with temporary_runtime(ScriptedLLM([say("", append("one")), "ok"]), clock=clock) as runtime:
        agent = await runtime.agent("ada")
        made = clock.now()
        later = clock.advance(timedelta(days=30))
        await collect(agent, "a month later")
        events = await runtime.store.read(lambda tx: tx.events(agent.id))
        block = (await runtime.store.read(lambda tx: tx.blocks(agent.id)))[0]
        versions = await runtime.store.read(lambda tx: tx.block_versions(block.id))
    assert {e["created_at"] for e in events} == {made, later}
    assert {v["created_at"] for v in versions} <= {made, later}
    assert events[0]["created_at"] == later
