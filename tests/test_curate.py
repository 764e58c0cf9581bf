"""What a person does to an agent's memory: edits that race, undo with its refusals, why, imports."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agentos import curate
from agentos.agent import Agent
from agentos.errors import UsageError
from agentos.messages import Block, Cause, Passage
from agentos.protocols import SearchQuery
from agentos.testing import FunctionLLM, ScriptedLLM, call, say
from agentos.tools.memory import PARKED
from conftest import Home, collect, of


async def told(home: Home, *calls: Any, text: str = "I am Ada and I like tea", **options: Any) -> Agent:
    """An agent that made these calls in one turn."""
    agent = await home.agent(ScriptedLLM([say("Noted.", *calls), *["ok"] * 9]), **options)
    await collect(agent, text)
    return agent


def append(text: str) -> Any:
    return call("core_memory_append", label="human", content=text)


# edits


async def test_an_edit_replaces_the_block_and_is_journaled(home: Home) -> None:
    agent = await told(home, append("Name: Ada"))
    before, after = await curate.edit_block(home.store, await agent.turn(), "human", "Name: Grace\x00")
    assert (before.value, after.value) == ("Name: Ada", "Name: Grace\ufffd")
    [event] = await home.store.read(lambda tx: tx.events(agent.id, actions=("block.edit",)))
    assert (event["actor"], event["before_id"], event["after_id"]) == ("user", before.version_id, after.version_id)
    assert len(event["hash"]) == 32
    again, same = await curate.edit_block(home.store, await agent.turn(), "human", after.value)
    assert again == same
    assert len(await home.store.read(lambda tx: tx.events(agent.id, actions=("block.edit",)))) == 1


async def test_an_edit_that_raced_is_refused(home: Home) -> None:
    agent = await told(home, append("Name: Ada"))
    seen = (await home.block(agent)).version_id
    await curate.edit_block(home.store, await agent.turn(), "human", "first", expected=seen)
    with pytest.raises(UsageError, match="'human' changed while you edited it and was left as it now is"):
        await curate.edit_block(home.store, await agent.turn(), "human", "second", expected=seen)
    assert (await home.block(agent)).value == "first"


async def test_the_limits_hold_for_people_too(home: Home) -> None:
    agent = await told(home, blocks=[Block("human", limit=10), Block("big", limit=1_000_000)])
    with pytest.raises(UsageError, match="11 characters and its limit is 10"):
        await curate.edit_block(home.store, await agent.turn(), "human", "x" * 11)
    with pytest.raises(UsageError, match="there is no block 'humn'; the blocks are: human, big"):
        await curate.edit_block(home.store, await agent.turn(), "humn", "x")
    with pytest.raises(UsageError, match="half of the window"):
        await curate.edit_block(home.store, await agent.turn(), "big", "word " * 20_000)
    assert (await home.block(agent, "big")).value == ""


# undo


async def test_undo_takes_back_one_event_after_the_other(home: Home) -> None:
    agent = await told(home, append("one"), append("two"), call("archival_memory_insert", content="a fact"))
    undone = [await curate.undo(home.store, home.clock, await agent.turn()) for _ in range(3)]
    assert [(u.action, u.before, u.after) for u in undone] == [
        ("passage.insert", "a fact", ""), ("block.append", "one\ntwo", "one"), ("block.append", "one", ""),
    ]  # fmt: skip
    assert (await home.block(agent)).value == ""
    assert await home.search(agent.id, SearchQuery("fact")) == []
    with pytest.raises(UsageError, match="there is no memory event to undo"):
        await curate.undo(home.store, home.clock, await agent.turn())


async def test_an_undo_can_be_undone_by_its_number(home: Home) -> None:
    agent = await told(home, append("one"), call("archival_memory_insert", content="a fact"))
    for _ in range(2):
        await curate.undo(home.store, home.clock, await agent.turn())
    events = await home.store.read(lambda tx: tx.events(agent.id, actions=("undo.",)))
    for event in events:
        await curate.undo(home.store, home.clock, await agent.turn(), event["id"])
    assert (await home.block(agent)).value == "one"
    assert [h.text for h in await home.search(agent.id, SearchQuery("fact"))] == ["a fact"]
    messages = await home.store.read(lambda tx: tx.recent_messages(agent.id, 50))
    assert any(m.content == "I am Ada and I like tea" for m in messages), "messages are never removed"


async def test_undo_is_refused_with_both_versions_when_the_block_changed_since(home: Home) -> None:
    agent = await told(home, append("one"), append("two"))
    first = (await home.store.read(lambda tx: tx.events(agent.id, actions=("block.append",))))[-1]
    with pytest.raises(UsageError) as caught:
        await curate.undo(home.store, home.clock, await agent.turn(), first["id"])
    made, now = first["after_id"], (await home.block(agent)).version_id
    said = f"Event {first['id']} made it (version {made}):\none\nIt now reads (version {now}):\none\ntwo"
    assert said in str(caught.value)
    assert (await home.block(agent)).value == "one\ntwo"


async def test_undo_is_refused_when_the_passage_changed_since(home: Home) -> None:
    agent = await told(home, call("archival_memory_insert", content="a fact"))
    [event] = await home.store.read(lambda tx: tx.events(agent.id, actions=("passage.insert",)))
    await curate.delete_passage(home.store, home.clock, agent.id, 1)
    with pytest.raises(
        UsageError, match=r"passage p1 changed since event .*no longer in archival memory. It reads:\na fact"
    ):
        await curate.undo(home.store, home.clock, await agent.turn(), event["id"])
    deleted = await curate.undo(home.store, home.clock, await agent.turn())
    assert (deleted.action, deleted.before, deleted.after) == ("passage.delete", "", "a fact")
    assert [h.text for h in await home.search(agent.id, SearchQuery("fact"))] == ["a fact"]


async def take_back(home: Home, agent: Agent, event_id: int | None = None) -> int:
    """The number of the event that the undo made."""
    await curate.undo(home.store, home.clock, await agent.turn(), event_id)
    [event] = await home.store.read(lambda tx: tx.events(agent.id, actions=("undo.",), limit=1))
    return int(event["id"])


async def numbers(home: Home, agent: Agent, *actions: str) -> list[int]:
    """The agent's events of these kinds, oldest first."""
    events = await home.store.read(lambda tx: tx.events(agent.id, actions=actions))
    return [e["id"] for e in reversed(events)]


async def test_undo_is_refused_when_later_edits_only_led_back_to_the_same_text(home: Home) -> None:
    agent = await told(home, append("one"))
    for text in ("other", "one"):
        await curate.edit_block(home.store, await agent.turn(), "human", text)
    [first] = await numbers(home, agent, "block.append")
    with pytest.raises(UsageError, match="block 'human' changed since event"):
        await take_back(home, agent, first)
    for _ in range(3):  # from the newest on they can all be taken back
        await take_back(home, agent)
    assert (await home.block(agent)).value == ""


async def test_undoing_and_redoing_leads_through_every_state(home: Home) -> None:
    agent = await told(home, append("1"), append("2"))
    one, two = await numbers(home, agent, "block.append")
    three = await take_back(home, agent)
    four = await take_back(home, agent)
    with pytest.raises(UsageError, match="no memory event to undo"):
        await take_back(home, agent)
    for stale in (one, two, three):
        with pytest.raises(UsageError, match="changed since"):
            await take_back(home, agent, stale)
    await take_back(home, agent, four)
    assert (await home.block(agent)).value == "1"
    await take_back(home, agent, three)
    assert (await home.block(agent)).value == "1\n2"
    values = []
    for _ in range(2):  # what was redone is the last memory event again
        await take_back(home, agent)
        values.append((await home.block(agent)).value)
    assert values == ["1", ""]


async def test_a_deletion_that_was_undone_and_made_again_is_undone_by_its_own_number(home: Home) -> None:
    agent = await told(home, call("archival_memory_insert", content="a fact"))
    await curate.delete_passage(home.store, home.clock, agent.id, 1)
    await take_back(home, agent)
    await curate.delete_passage(home.store, home.clock, agent.id, 1)
    first, _ = await numbers(home, agent, "passage.delete")
    with pytest.raises(UsageError, match="p1 changed since event"):
        await take_back(home, agent, first)
    await take_back(home, agent)
    await take_back(home, agent)
    assert await home.search(agent.id, SearchQuery("fact")) == []


async def test_a_passage_does_not_come_back_beside_an_equal_one(home: Home) -> None:
    agent = await told(home, call("archival_memory_insert", content="a fact"))
    await curate.delete_passage(home.store, home.clock, agent.id, 1)
    again = await home.agent(ScriptedLLM([say("ok", call("archival_memory_insert", content="a fact"))]))
    await collect(again, "once more")
    [deletion] = await numbers(home, agent, "passage.delete")
    with pytest.raises(UsageError, match="p1 cannot come back: p2, stored since, holds the same text"):
        await take_back(home, agent, deletion)
    assert [h.ref for h in await home.search(agent.id, SearchQuery("fact"))] == ["p2"]


async def test_undo_of_a_passage_that_was_stored_anew_stays_single(home: Home) -> None:
    agent = await told(home, call("archival_memory_insert", content="a fact"))
    await curate.undo(home.store, home.clock, await agent.turn())
    other = await home.agent(ScriptedLLM([say("ok", call("archival_memory_insert", content="a fact"))]))
    await collect(other, "once more")
    assert [h.ref for h in await home.search(agent.id, SearchQuery("fact"))] == ["p2"]


@pytest.mark.parametrize("what", ["unknown", "page_out", "foreign"])
async def test_what_cannot_be_undone(home: Home, what: str) -> None:
    agent = await told(home, append("one"))
    bob = await home.agent(ScriptedLLM([say("ok", append("his"))]), name="bob")
    await collect(bob, "hi")
    events = await home.store.read(lambda tx: tx.events(bob.id if what == "foreign" else agent.id))
    number = {"unknown": 999, "page_out": next((e["id"] for e in events if e["action"] == "rebase"), 0)}
    with pytest.raises(UsageError):
        await curate.undo(home.store, home.clock, await agent.turn(), number.get(what, events[0]["id"]))


async def test_undo_respects_a_limit_that_was_lowered(home: Home) -> None:
    from agentos.store.tables import BlockRow

    agent = await told(home, append("a long line about Ada"))
    block = await home.block(agent)
    await curate.edit_block(home.store, await agent.turn(), "human", "short")
    await home.store.write(lambda tx: tx.update(BlockRow, block.id, limit=10))
    with pytest.raises(UsageError, match="the earlier text has 21 characters and the limit is now 10; raise it first"):
        await curate.undo(home.store, home.clock, await agent.turn())


async def test_a_shared_block_cannot_crowd_out_the_other_agents_conversation(home: Home) -> None:
    shared = [Block("notes", limit=200_000)]
    long = call("core_memory_append", label="notes", content="word " * 18_000)
    large = await home.agent(FunctionLLM(lambda r: "ok" if r.messages[-1]["role"] == "tool" else say("", long),
                                         context_window=200_000), name="large", blocks=shared)  # fmt: skip
    small_llm = FunctionLLM(lambda r: "ok", context_window=16_000)
    small = await home.agent(small_llm, name="small")
    await curate.share_block(home.store, large.id, "notes", await small.turn())
    [result] = of(await collect(large, "note it"), "tool_result")
    assert "agent 'small' shares the block and has room for" in result.text
    with pytest.raises(UsageError, match="agent 'small' shares the block"):
        await curate.edit_block(home.store, await large.turn(), "notes", "word " * 18_000)
    assert (await home.block(small, "notes")).value == ""
    assert [p.tags for p in await home.store.read(lambda tx: tx.recent_passages(large.id, limit=5))] == [(PARKED,)]


async def test_why_leaves_what_another_agent_was_told_to_that_agent(home: Home) -> None:
    writer = await told(home, append("likes tea"))
    reader = await home.agent(ScriptedLLM([]), name="reader", blocks=[Block("own", limit=100)])
    await curate.share_block(home.store, writer.id, "human", await reader.turn())
    [chain] = await curate.why(home.store, reader.id, "human")
    assert [o.what for o in chain] == ["block 'human'", "written by agent 'ada', which shares the block"]
    [own] = await curate.why(home.store, writer.id, "human")
    assert own[-1].what == "because of the user's message"


async def test_undo_never_lets_core_memory_crowd_out_the_conversation(home: Home) -> None:
    agent = await told(home, blocks=[Block("one", limit=1_000_000), Block("two", limit=1_000_000)])
    large = "word " * 7_000
    for label, text in (("one", large), ("one", "short"), ("two", large)):
        await curate.edit_block(home.store, await agent.turn(), label, text)
    shortened = (await home.store.read(lambda tx: tx.events(agent.id, limit=10)))[1]
    with pytest.raises(UsageError, match="half of the window"):
        await curate.undo(home.store, home.clock, await agent.turn(), shortened["id"])
    assert (await home.block(agent, "one")).value == "short"


async def test_a_passage_that_is_not_there_cannot_be_deleted(home: Home) -> None:
    agent = await told(home)
    with pytest.raises(UsageError, match="no passage p7"):
        await curate.delete_passage(home.store, home.clock, agent.id, 7)


# shared blocks


async def test_a_block_is_shared_edited_by_both_and_detached(home: Home) -> None:
    ada = await home.agent(ScriptedLLM(["hi", "ok"]), blocks=[Block("team", "Goal: ship"), Block("human")])
    bob = await home.agent(ScriptedLLM(["hi", say("ok", call("core_memory_append", label="team", content="His"))]),
                           name="bob", blocks=[Block("human", limit=500)])  # fmt: skip
    await collect(bob, "hello")
    with pytest.raises(UsageError, match="no other agent has block 'team'"):
        await curate.detach_block(home.store, ada.id, "team")
    block = await curate.share_block(home.store, ada.id, "team", await bob.turn())
    for label in ("team", "human"):
        with pytest.raises(UsageError, match=f"has a block '{label}' already"):
            await curate.share_block(home.store, ada.id, label, await bob.turn())
    await collect(bob, "go")
    seen = bob.parts.llm.requests[-1].messages[0]["content"]  # type: ignore[attr-defined]
    assert '<block label="team" limit="5000">\nGoal: ship\n</block>' in seen
    rebases = await home.store.read(lambda tx: tx.events(bob.id, actions=("rebase",)))
    assert rebases[0]["note"] == "blocks"
    assert (await home.block(ada, "team")).value == "Goal: ship\nHis"
    assert await home.store.read(lambda tx: tx.holders(block.id)) == {ada.id: "ada", bob.id: "bob"}

    await curate.detach_block(home.store, ada.id, "team")
    assert [b.label for b in (await home.saved(ada)).blocks] == ["human"]
    assert (await home.block(bob, "team")).value == "Goal: ship\nHis"
    for agent, action in ((bob, "block.attach"), (ada, "block.detach")):
        [event] = await home.store.read(lambda tx, a=agent, w=action: tx.events(a.id, actions=(w,)))
        assert (event["actor"], event["target"]) == ("user", f"b{block.id}")


async def test_a_shared_block_may_not_crowd_out_the_conversation(home: Home) -> None:
    ada = await home.agent(ScriptedLLM([]), blocks=[Block("team", "word " * 4000, limit=100_000)])
    bob = await home.agent(ScriptedLLM([], context_window=6000), name="bob")
    with pytest.raises(UsageError, match="half of the window of 6000"):
        await curate.share_block(home.store, ada.id, "team", await bob.turn())
    assert [b.label for b in (await home.saved(bob)).blocks] == ["human"]


async def test_an_undo_in_a_shared_block_counts_for_both_agents(home: Home) -> None:
    ada = await told(home, call("core_memory_append", label="team", content="hers"), blocks=[Block("team")])
    bob = await home.agent(ScriptedLLM([say("ok", call("core_memory_append", label="team", content="his"))]),
                           name="bob", blocks=[])  # fmt: skip
    await curate.share_block(home.store, ada.id, "team", await bob.turn())
    await collect(bob, "go")
    with pytest.raises(UsageError, match="changed since"):
        await take_back(home, ada)
    await take_back(home, bob)
    await take_back(home, ada)
    assert (await home.block(bob, "team")).value == ""


# why


async def test_memory_names_whose_words_led_to_it(home: Home) -> None:
    agent = await told(home, append("Name: Ada"), call("archival_memory_insert", content="Ada likes tea"),
                       call("set_timer", when="1h", note="tea"))  # fmt: skip
    home.clock.advance(timedelta(hours=2))  # type: ignore[attr-defined]
    note = call("archival_memory_insert", content="It was tea time")
    await collect(await home.agent(ScriptedLLM([say("", note), "ok"])))
    await curate.edit_block(home.store, await agent.turn(), "human", "A person wrote this")
    passages = await home.store.read(lambda tx: tx.recent_passages(agent.id))
    assert {p.text: p.about for p in passages} == {"Ada likes tea": "user", "It was tea time": None}
    versions = await home.store.read(lambda tx: tx.block_versions(1))
    assert [v["about"] for v in versions] == [None, "user", None]
    [chain] = await curate.why(home.store, agent.id, "p1")
    assert [link.about for link in chain] == ["user", None, None]


async def test_why_leads_from_a_memory_to_the_users_words(home: Home) -> None:
    agent = await told(home, append("Name: Ada"), call("archival_memory_insert", content="Ada likes tea"))
    await collect(agent, "something else")
    for what in ("human", "name: ada"):
        [chain] = [c for c in await curate.why(home.store, agent.id, what) if c[0].ref.startswith("b")]
        assert [link.what for link in chain] == [
            "block 'human'",
            "written by the agent",
            "because of the user's message",
        ]
        assert chain[1].text.startswith("core_memory_append {")
        assert chain[-1].text == "I am Ada and I like tea"
    for what in ("p1", "likes TEA"):
        [chain] = await curate.why(home.store, agent.id, what)
        assert chain[0].text == "Ada likes tea"
        assert chain[-1].text == "I am Ada and I like tea"


async def test_why_finds_a_memory_however_many_are_newer(home: Home) -> None:
    agent = await told(home, call("archival_memory_insert", content="100_% of the tea, and \u00c9vora"))

    def work(tx: Any) -> None:
        for number in range(2001):
            newer = Passage(0, agent.id, f"passage {number}", "user", home.clock.now())
            tx.add_passage(newer, Cause(agent.id, "user"))

    for word in ("\u00e9vora", "\u00c9VORA"):
        assert len(await curate.why(home.store, agent.id, word)) == 1
    await home.store.write(work)
    for what in ("OF THE TEA", "100_%", "\u00c9vora"):
        [chain] = await curate.why(home.store, agent.id, what)
        assert chain[0].ref == "p1"
    assert await curate.why(home.store, agent.id, "1_0") == await curate.why(home.store, agent.id, "\x00tea") == []


async def test_why_finds_the_edit_that_brought_the_words_in(home: Home) -> None:
    agent = await told(home, append("Name: Ada"), blocks=[Block("human", "Born with the persona")])
    await curate.edit_block(home.store, await agent.turn(), "human", "Name: Ada\nCity: Porto")
    [chain] = await curate.why(home.store, agent.id, "Porto")
    assert chain[1].what == "a person wrote it"
    [chain] = await curate.why(home.store, agent.id, "Name: Ada")
    assert chain[-1].text == "I am Ada and I like tea"
    assert await curate.why(home.store, agent.id, "nothing of the kind") == []
    other = await home.agent(ScriptedLLM([]), name="bob", blocks=[Block("human", "Born with the persona")])
    [chain] = await curate.why(home.store, other.id, "human")
    assert chain[1].what == "it came with the persona"


# imports


LINES = [
    {"role": "user", "content": "I moved to Porto", "name": "Ada", "created_at": "2024-03-01T10:00:00+00:00",
     "session": "s1", "id": "D1:1"},
    {"role": "assistant", "content": "How nice!"},
    {"role": "assistant", "content": "How nice!"},
]  # fmt: skip


async def bring_in(home: Home, agent: Agent, lines: list[Any]) -> tuple[int, int]:
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    done = await curate.import_conversation(home.store, home.clock, agent.id, text)
    return done.added, done.known


async def test_an_import_is_searchable_and_adds_nothing_the_second_time(home: Home) -> None:
    agent = await told(home)
    assert await bring_in(home, agent, ["", *LINES, "  "]) == (3, 0)
    assert await bring_in(home, agent, LINES) == (0, 3)
    assert await bring_in(home, agent, [*LINES, LINES[1]]) == (1, 3), "an equal line more is one more"
    hits = await home.search(agent.id, SearchQuery("Porto", "recall"))
    assert [(h.name, h.session, h.external_id) for h in hits] == [("Ada", "s1", "D1:1")]
    assert hits[0].created_at == datetime(2024, 3, 1, 10, tzinfo=UTC)
    assert all(m.origin != "import" for m in (await home.saved(agent)).queue)


async def test_an_imported_order_is_kept(home: Home) -> None:
    agent = await told(home)
    await bring_in(home, agent, [{"role": "user", "content": f"line {n}"} for n in range(700)])
    rows = await home.store.read(lambda tx: tx.recent_messages(agent.id, 700))
    assert [m.content for m in reversed(rows)] == [f"line {n}" for n in range(700)]
    times = [m.created_at for m in reversed(rows)]
    assert times == sorted(times)
    assert len(set(times)) == 700


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2 is not JSON"),
        ("[]", 'line 2 needs "role": "user" or "assistant"'),
        ({"role": "system", "content": "x"}, 'line 2 needs "role"'),
        ({"role": "user"}, 'line 2 needs "content" with some text'),
        ({"role": "user", "content": " "}, 'line 2 needs "content" with some text'),
        (
            {"role": "user", "content": "x", "created_at": "last May"},
            "line 2: created_at 'last May' is no ISO 8601 time",
        ),
    ],
)
async def test_a_line_that_cannot_be_used_keeps_the_whole_file_out(home: Home, line: Any, says: str) -> None:
    agent = await told(home)
    with pytest.raises(UsageError, match=says) as caught:
        await bring_in(home, agent, [LINES[0], line])
    assert str(caught.value).endswith("nothing was imported")
    assert await home.search(agent.id, SearchQuery("Porto", "recall")) == []


async def test_odd_text_is_imported_clean(home: Home) -> None:
    agent = await told(home)
    odd = {"role": "user", "content": "a\x00b\ud800", "id": "x\ud800", "name": "\x00"}
    assert await bring_in(home, agent, [odd]) == (1, 0)
    assert await bring_in(home, agent, [odd]) == (0, 1)
