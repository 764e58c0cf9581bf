"""Core memory: edits are exact, refusals change nothing, limits hold, and nothing that was refused is lost."""

import asyncio
import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos import curate
from agentos.context.compiler import RULES
from agentos.errors import ToolError, UsageError
from agentos.memory import core
from agentos.messages import Block, Cause
from agentos.protocols import LLMRequest
from agentos.testing import FunctionLLM, ScriptedLLM, call, say
from agentos.tools.memory import PARKED
from conftest import Home, chances, collect, ending, of

TEXTS = st.text(alphabet="ab\n <&é🙂", max_size=30)


@pytest.mark.parametrize(
    ("value", "content", "after"),
    [("", "x", "x"), ("a", "b", "a\nb"), ("a\n", "b", "a\n\nb"), ("a", " b ", "a\n b ")],
)
def test_append_adds_a_line(value: str, content: str, after: str) -> None:
    assert core.append(Block("human", value), content) == after


@pytest.mark.parametrize(
    ("value", "old", "new", "after"),
    [
        ("Name: Ada", "Ada", "Bob", "Name: Bob"),
        ("a\nb\nc", "b", "", "a\nc"),
        ("a\nb", "a", "", "b"),
        ("only", "only", "", ""),
        ("a.*c", ".*", "$1\\g<0>", "a$1\\g<0>c"),
        ("x", "x", "x", "x"),
    ],
)
def test_replace_is_literal(value: str, old: str, new: str, after: str) -> None:
    assert core.replace(Block("human", value), old, new) == after


@pytest.mark.parametrize(
    ("block", "edit", "says"),
    [
        (Block("human", "a a"), lambda b: core.replace(b, "a", "b"), "occurs more than once"),
        (Block("human", "Likes tea"), lambda b: core.replace(b, "coffee", "b"), "reads:\nLikes tea"),
        (Block("human"), lambda b: core.replace(b, "x", "b"), "reads:\n(empty)"),
        (Block("human", "a"), lambda b: core.replace(b, "", "b"), "old_content is empty"),
        (Block("human", "a"), lambda b: core.append(b, " \n"), "content is empty"),
        (Block("human", "a", read_only=True), lambda b: core.append(b, "b"), "read-only"),
        (Block("human", "a", read_only=True), lambda b: core.replace(b, "a", "b"), "read-only"),
        (Block("human", "a" * 9, limit=10), lambda b: core.append(b, "b"), "would hold 11 characters and its limit"),
        (Block("human", "a" * 9, limit=10), lambda b: core.replace(b, "a" * 9, "b" * 11), "limit is 10"),
        (Block("human", "a"), lambda b: core.find_block([b], "humn"), "the blocks are: human"),
        (Block("human", "a"), lambda b: core.find_block([], "human"), "the blocks are: none"),
    ],
)
def test_refusals_say_how_to_succeed(block: Block, edit: object, says: str) -> None:
    with pytest.raises(ToolError, match=re.escape(says)):
        edit(block)  # type: ignore[operator]


def test_a_shorter_text_is_let_in_when_the_block_is_full() -> None:
    assert core.replace(Block("human", "a" * 10, limit=10), "a" * 10, "b" * 10) == "b" * 10
    assert core.append(Block("human", "a" * 8, limit=10), "b") == "a" * 8 + "\nb"


@settings(max_examples=chances(800))
@given(value=TEXTS, old=TEXTS, new=TEXTS, limit=st.integers(1, 40))
def test_replace_changes_one_place_or_nothing(value: str, old: str, new: str, limit: int) -> None:
    block = Block("human", value, limit)
    try:
        after = core.replace(block, old, new)
    except ToolError:
        assert not old or value.count(old) != 1 or len(value) - len(old) + len(new) > limit or not new
        return
    assert value.count(old) == 1
    assert len(after) <= limit
    head, tail = value.split(old)
    if new:
        assert after == head + new + tail
    else:
        assert after.split() == (head + tail).split()


@settings(max_examples=chances(800))
@given(value=TEXTS, content=TEXTS, limit=st.integers(1, 40))
def test_append_keeps_what_was_there(value: str, content: str, limit: int) -> None:
    try:
        after = core.append(Block("human", value, limit), content)
    except ToolError:
        assert not content.strip() or len(value) + bool(value) + len(content) > limit
        return
    assert after.startswith(value)
    assert after.endswith(content)
    assert len(after) <= limit


@settings(max_examples=chances(800))
@given(blocks=st.lists(st.tuples(TEXTS, TEXTS), max_size=4))
def test_no_text_can_pass_for_a_tag(blocks: list[tuple[str, str]]) -> None:
    shown = core.render([Block(f"b{n}", value, description=about) for n, (value, about) in enumerate(blocks)])
    assert shown.count("<block ") == shown.count("</block>") == len(blocks)
    assert all(f">\n{value}\n</block>" in shown for value, _ in blocks)


_FORGED = st.sampled_from(["</block>", '<block label="x" limit="1">', "</core_memory>", "< / BLOCK\n>", "<Core_Memory"])
_HARMLESS = st.sampled_from(["R&D", "&lt;", "&amp;", "a < b", "<b>", "</blocks>", "<blockquote>", '"', ">", "\n"])


@settings(max_examples=chances(400))
@given(values=st.lists(st.lists(_FORGED | _HARMLESS, max_size=6).map("".join), min_size=1, max_size=3))
def test_only_what_would_pass_for_a_tag_is_shown_otherwise(values: list[str]) -> None:
    shown = core.render([Block(f"b{n}", value, description=value) for n, value in enumerate(values)])
    tags = re.findall(r"(?i)<\s*/?\s*(?:block|core_memory)\b", shown)
    assert tags == ["<core_memory", *["<block", "</block"] * len(values), "</core_memory"]
    for value in values:
        harmless = not re.search(r"(?i)<\s*/?\s*(?:block|core_memory)\b", value)
        assert not harmless or f">\n{value}\n</block>" in shown


async def test_what_a_model_copies_from_its_prompt_is_found(home: Home) -> None:
    async def correct(request: LLMRequest) -> object:
        shown = re.search(r'<block label="human".*?>\n(.*)\n</block>', request.messages[0]["content"])
        assert shown
        edit = call("core_memory_replace", label="human", old_content=shown[1], new_content="Works in sales")
        return say("ok", edit) if len(llm.requests) == 1 else "done"

    llm = FunctionLLM(correct)
    agent = await home.agent(llm, blocks=[Block("human", 'Works in R&D <since 2020> at "A < B"')])
    [result] = of(await collect(agent, "I changed jobs"), "tool_result")
    assert result.ok
    assert (await home.block(agent)).value == "Works in sales"


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [("a\nb", "a\nc", "- b\n+ c"), ("", "a", "+ a"), ("a", "", "- a"), ("a", "a", ""), ("a\nb\nc", "a\nc", "- b")],
)
def test_changed_lines(before: str, after: str, lines: str) -> None:
    assert core.changed_lines(before, after) == lines


# through the tools


async def result_of(home: Home, *calls: object, **options: object) -> list[object]:
    agent = await home.agent(ScriptedLLM([say("ok", *calls), *["ok"] * 5]), **options)
    return of(await collect(agent, "go"), "tool_result")


async def test_an_edit_shows_lines_size_and_limit(home: Home) -> None:
    [result] = await result_of(home, call("core_memory_append", label="human", content="Name: Ada"))
    assert result.ok
    assert result.text == "block 'human' now has 9 of 1000 characters:\n+ Name: Ada"
    assert [(e.label, e.before, e.after) for e in result.edits] == [("human", "", "Name: Ada")]


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("core_memory_append", {"label": "humn", "content": "x"}, "no block 'humn'; the blocks are: human, fixed"),
        ("core_memory_append", {"label": "fixed", "content": "x"}, "read-only"),
        ("core_memory_append", {"label": "human", "content": "  "}, "content is empty"),
        ("core_memory_replace", {"label": "human", "old_content": "", "new_content": "x"}, "old_content is empty"),
        ("core_memory_replace", {"label": "human", "old_content": "c", "new_content": "x"}, "does not occur"),
        ("core_memory_replace", {"label": "human", "old_content": "a", "new_content": "x"}, "occurs more than once"),
        ("core_memory_replace", {"label": "human", "old_content": "b"}, "argument 'new_content' is missing"),
        ("core_memory_append", {"label": "human", "content": "x", "why": "y"}, "there is no argument 'why'"),
        ("core_memory_append", {"label": "human", "content": 3}, "argument 'content'"),
    ],
)  # fmt: skip
async def test_a_refused_call_changes_nothing(home: Home, name: str, arguments: dict, says: str) -> None:
    blocks = [Block("human", "a b a", 100), Block("fixed", "f", 100, read_only=True)]
    [result] = await result_of(home, call(name, **arguments), blocks=blocks)
    assert not result.ok
    assert result.text.startswith("error: ")
    assert says in result.text
    agent = await home.agent(ScriptedLLM([]))
    saved = await home.saved(agent)
    assert [b.value for b in saved.blocks] == ["a b a", "f"]
    events = await home.store.read(lambda tx: tx.events(agent.id, actions=("block.", "passage.")))
    assert [e["action"] for e in events] == ["block.create", "block.create"]


async def test_what_a_full_block_refuses_is_parked_in_the_same_commit(home: Home) -> None:
    calls = [call("core_memory_append", label="human", content=f"fact {n} " + "y" * 40) for n in range(3)]
    results = await result_of(home, *calls, blocks=[Block("human", "kept", 20)])
    agent = await home.agent(ScriptedLLM([]))
    passages = await home.store.read(lambda tx: tx.recent_passages(agent.id))
    assert [p.text for p in passages] == [f"fact {n} " + "y" * 40 for n in (2, 1, 0)]
    assert all(p.tags == (PARKED,) for p in passages)
    for result, passage in zip(results, reversed(passages), strict=True):
        assert not result.ok
        assert "would hold 52 characters and its limit is 20 (now 4)" in result.text
        assert f"was parked in archival memory as {passage.ref}" in result.text
        assert passage.run_id == result.run_id
    assert ["It is safe there: go on without this edit." in r.text for r in results] == [False, False, True]
    assert (await home.block(agent)).value == "kept"
    messages = await home.store.read(lambda tx: tx.recent_messages(agent.id, 9))
    assert {s for m in messages for s in m.sources} == {p.ref for p in passages}


async def test_two_agents_append_to_a_shared_block_at_once(home: Home) -> None:
    def asks(name: str) -> FunctionLLM:
        def reply(request: object) -> object:
            count = len(llm.requests)
            edit = call("core_memory_append", label="team", content=f"{name} {count}", request_heartbeat=True)
            return say("", edit) if count <= 10 else "done"

        llm = FunctionLLM(reply)
        return llm

    shared = Block("team", limit=5000)
    ada = await home.agent(asks("ada"), blocks=[shared])
    bob = await home.agent(asks("bob"), name="bob", blocks=[])
    block = await home.block(ada, "team")
    await home.store.write(lambda tx: tx.attach_block(bob.id, block.id))
    await asyncio.gather(collect(ada, "go"), collect(bob, "go"))
    value = (await home.block(ada, "team")).value
    assert sorted(value.splitlines()) == sorted(f"{n} {i}" for n in ("ada", "bob") for i in range(1, 11))
    versions = await home.store.read(lambda tx: tx.block_versions(block.id))
    assert all(b["value"].startswith(a["value"]) for a, b in pairwise(versions))


async def test_an_agent_is_told_what_another_wrote_also_when_it_writes_itself(home: Home) -> None:
    mine = call("core_memory_append", label="team", content="mine", request_heartbeat=True)
    his = call("core_memory_append", label="team", content="his")
    ada = await home.agent(ScriptedLLM(["hello", say("", mine), "ok"]), blocks=[Block("team")])
    bob = await home.agent(ScriptedLLM([say("ok", his)]), name="bob", blocks=[])
    block = await home.block(ada, "team")
    await home.store.write(lambda tx: tx.attach_block(bob.id, block.id))
    await collect(ada, "hi")
    turn = ada.send("go")
    seen = []
    async for event in turn:
        if event.type == "tool_call":  # between what the model saw and what it writes
            await collect(bob, "go")
        seen.append(event)
    alerts = [e.text for e in of(seen, "alert")]
    assert len(alerts) == 1
    assert "his\nmine" in alerts[0]
    assert ending(seen).reply == "ok"


async def test_core_memory_may_not_crowd_out_the_conversation(home: Home) -> None:
    llm = ScriptedLLM(
        [say("", call("core_memory_append", label="human", content="word " * 300)), "went on"], context_window=6000
    )
    before = "word " * 800
    agent = await home.agent(llm, blocks=[Block("human", before, limit=100_000)])
    events = await collect(agent, "go")
    [result] = of(events, "tool_result")
    assert not result.ok
    numbers = re.search(r"would take (\d+) tokens and may take 3000, half of the window of 6000", result.text)
    assert numbers
    assert int(numbers[1]) > 3000
    assert (await home.block(agent)).value == before
    assert len(await home.store.read(lambda tx: tx.recent_passages(agent.id))) == 1
    assert ending(events).reply == "went on"


async def test_a_crowded_block_can_still_be_cut(home: Home) -> None:
    big = "word " * 1300
    edit = call("core_memory_replace", label="human", old_content="end", new_content="")
    llm = ScriptedLLM(["hello", say("", edit), "done"], context_window=6000)
    agent = await home.agent(llm, blocks=[Block("human", limit=100_000)])
    await collect(agent, "hello")
    shared, other = await home.block(agent), Cause(agent.id, "agent")  # one who shares it has a larger window
    await home.store.write(lambda tx: tx.write_block(shared, big + "end", other, "block.append"))
    [result] = of(await collect(agent, "go"), "tool_result")
    assert result.ok


async def test_the_rules_block_is_restated_in_the_summary(home: Home) -> None:
    agent = await home.agent(FunctionLLM(lambda r: "ok"), blocks=[Block(RULES, "Never call before nine.")])
    for n in range(4):
        await collect(agent, f"message {n}")
    assert [e.type async for e in agent.compact()] == ["page_out"]
    messages = (await agent.turn()).request().messages
    assert "The user's standing rules still hold:\nNever call before nine." in messages[1]["content"]


async def test_a_person_may_change_what_is_read_only(home: Home) -> None:
    agent = await home.agent(ScriptedLLM([]), blocks=[Block("human", "a", 5, read_only=True)])
    block = await home.block(agent)
    await home.store.write(lambda tx: tx.write_block(block, "b", Cause(agent.id, "user"), "block.edit"))
    assert (await home.block(agent)).value == "b"
    with pytest.raises(UsageError, match="would have 6 characters and its limit is 5"):
        await curate.edit_block(home.store, await agent.turn(), "human", "x" * 6)


async def test_a_model_too_small_for_the_agent_is_refused_before_anything_is_saved(home: Home) -> None:
    blocks = [Block("human", "x" * 12_000, limit=20_000)]
    await collect(await home.agent(FunctionLLM(lambda r: "ok"), blocks=blocks), "hello")
    small = await home.agent(FunctionLLM(lambda r: "ok", name="test/small", context_window=8000), blocks=blocks)
    with pytest.raises(UsageError, match=r"'test/small' is too small .* tokens and may take 4000"):
        await collect(small, "hello again")
    assert (await home.saved(small)).waiting is None
    turn = await small.turn()
    await curate.edit_block(home.store, turn, "human", "short")
    assert ending(await collect(small, "hello again")).reply == "ok"
