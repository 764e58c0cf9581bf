"""Agents, blocks, tools, models and tags over HTTP, by Letta's own client and by what it cannot send."""

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import letta_client
import pytest

from agentos import curate
from agentos.errors import ProviderError
from agentos.messages import Cause
from agentos.server.letta.toolbox import LETTA_TOOLS
from agentos.server.replies import stamp
from agentos.server.serve import listening
from agentos.testing import FunctionLLM, call, say
from agentos.tools.memory import MEMORY_TOOLS
from serving import Served, served

BUILT_IN = [tool.name for tool in MEMORY_TOOLS]
SOURCE = '''
import os
os.mkdir({path!r})

def helper(x):
    return x

def roll(sides: int, names: list[str] | None = None, mode: "str" = "plain", agent_state=None) -> int:
    """Roll a die.

    Args:
        sides: How many sides it has.
        mode (str): How it falls.
    """
    os.mkdir({path!r})
'''
DESCRIBED = {
    "name": "lookup", "description": "Look a word up.",
    "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
}  # fmt: skip


@pytest.fixture(scope="module")
def home() -> Iterator[Served]:
    with served(FunctionLLM(lambda request: "ok")) as home:
        yield home


@pytest.fixture
def letta(home: Served) -> letta_client.Letta:
    """The client of a home without agents, blocks and tools of earlier tests."""
    for agent in list(home.letta.agents.list()):
        home.letta.agents.delete(agent.id)
    for block in list(home.letta.blocks.list()):
        home.letta.blocks.delete(block.id)
    for tool in list(home.letta.tools.list(tool_types=["custom"])):
        home.letta.tools.delete(tool.id)
    home.llm.reply = lambda request: "ok"
    home.llm.requests.clear()
    return home.letta


def ask(letta: Any, agent_id: str, text: str = "Hello") -> Any:
    return letta.agents.messages.create(agent_id, input=text)


def refused(status: int, work: Callable[[], Any], *words: str) -> None:
    """`work` is answered with this status and a detail that holds these words."""
    with pytest.raises(letta_client.APIStatusError) as caught:
        work()
    assert caught.value.status_code == status, caught.value
    for word in words:
        assert word in str(caught.value.body["detail"]), caught.value.body  # type: ignore[index]


def names_of(request: Any) -> list[str]:
    return [tool["function"]["name"] for tool in request.tools]


# agents


def test_an_agent_in_full(home: Served, letta: Any) -> None:
    shared = letta.blocks.create(label="team", value="We ship on Fridays.")
    made = letta.agents.create(
        name="ada", system="You are Ada.", model="test/function", embedding="openai/text-embedding-3-small",
        memory_blocks=[
            {"label": "human", "value": "Name: Ann", "limit": 300, "description": "Who", "tags": ["x"],
             "metadata": {"a": 1}},
            {"label": "law", "value": "Be kind.", "read_only": True},
        ],
        block_ids=[shared.id], tools=["send_message", "memory_insert"], tags=["b", " a ", "b"],
        description="An agent", metadata={"k": [1, None]}, context_window_limit=20_000, timezone="Europe/Lisbon",
        include_base_tool_rules=True, message_buffer_autoclear=False, agent_type="letta_v1_agent", hidden=False,
        model_settings={"provider_type": "openai", "temperature": 0.5},
    )  # fmt: skip
    assert letta.agents.retrieve(made.id) == made
    assert (made.name, made.system, made.description) == ("ada", "You are Ada.", "An agent")
    assert (made.tags, made.metadata) == (["b", "a"], {"k": [1, None]})
    assert (made.model, made.embedding) == ("test/function", home.service.runtime.embedder.name)
    assert made.llm_config.context_window == 20_000
    assert [b.label for b in made.blocks] == [b.label for b in made.memory.blocks] == ["human", "law", "team"]
    human, law, team = made.blocks
    assert (human.value, human.limit, human.description, human.tags, human.metadata) == (
        "Name: Ann", 300, "Who", ["x"], {"a": 1},
    )  # fmt: skip
    assert law.read_only
    assert team.id == shared.id
    assert [t.name for t in made.tools] == BUILT_IN
    assert made.message_ids == []
    assert (made.last_stop_reason, made.last_run_completion) == (None, None)

    ask(letta, made.id)
    [request] = home.llm.requests
    assert request.messages[0]["content"].startswith("You are Ada.")
    assert "We ship on Fridays." in request.messages[0]["content"]
    after = letta.agents.retrieve(made.id)
    assert after.last_stop_reason == "end_turn"
    assert after.last_run_completion is not None
    assert after.message_ids == [m.id for m in letta.agents.messages.list(made.id, order="asc")]


def test_defaults_of_an_agent(letta: Any) -> None:
    first, second = letta.agents.create(), letta.agents.create()
    assert first.name != second.name
    assert {"human"} <= {b.label for b in first.blocks}
    assert [t.name for t in first.tools] == BUILT_IN
    assert letta.agents.create(memory_blocks=[]).blocks == []
    bare = letta.agents.create(include_base_tools=False, tools=["archival_memory_insert", "memory", "web_search"])
    assert [t.name for t in bare.tools] == ["core_memory_append", "core_memory_replace", "archival_memory_insert"]
    assert letta.agents.create(include_base_tools=False).tools == []
    named = letta.agents.create(llm_config={
        "model": "small", "model_endpoint_type": "openai", "context_window": 9000
    })  # fmt: skip
    assert named.llm_config.context_window == 9000


def test_what_an_agent_cannot_be(home: Served, letta: Any) -> None:
    letta.agents.create(name="ada")
    before = len(list(letta.agents.list()))
    create = letta.agents.create
    refused(409, lambda: create(name="ada"), "exists already")
    refused(400, lambda: create(name="a/b"), "cannot be named")
    refused(400, lambda: create(name="big", system="word " * 20_000), "half of the window of 32768", "would take")
    refused(400, lambda: create(name="big", context_window_limit=1000), "half of the window of 1000")
    refused(
        400, lambda: create(memory_blocks=[{"label": "x", "value": "12345", "limit": 4}]), "5 characters", "limit is 4"
    )
    refused(400, lambda: create(memory_blocks=[{"label": "x", "value": ""}, {"label": "x", "value": ""}]), "'x'")
    refused(400, lambda: create(tools=["fly"]), "no tool 'fly'")
    refused(404, lambda: create(tool_ids=["tool-1"]), "no tool 'tool-1'")
    refused(404, lambda: create(block_ids=["block-999999"]), "no block")
    refused(404, lambda: create(block_ids=["block-x"]), "no block 'block-x'")
    for name, value in {
        "secrets": {"A": "b"}, "initial_message_sequence": [{"role": "user", "content": "x"}],
        "folder_ids": ["source-1"], "memory_variables": {"a": "b"},
    }.items():  # fmt: skip
        refused(501, lambda name=name, value=value: create(**{name: value}), name)
    create(name="empty", initial_message_sequence=[], secrets={})
    for body in (
        '{"name": 5}', "[]", '{"tags": "x"}', '{"memory_blocks": [{"value": "x"}]}', '{"metadata": [1]}', "{",
        '{"context_window_limit": 1e400}', '{"context_window_limit": 99999999999999999999}',
        '{"memory_blocks": [{"label": "", "value": ""}]}', '{"metadata": ' + '{"a":' * 5000 + "1" + "}" * 5001,
    ):  # fmt: skip
        answer = home.http.post("/v1/agents/", content=body, headers={"Content-Type": "application/json"})
        assert 400 <= answer.status_code < 500, (body[:80], answer.text)
        assert "detail" in answer.json()
    assert len(list(letta.agents.list())) == before + 1
    for deep in ('{"a":' * 900 + "1" + "}" * 900, '{"a": NaN}', '{"a": 1e999}'):
        for path, body in (("agents", "{}"), ("blocks", '{"label": "a", "value": ""}')):
            body = body.replace("}", f'{"," if ":" in body else ""} "metadata": {deep}}}')
            answer = home.http.post(f"/v1/{path}/", content=body, headers={"Content-Type": "application/json"})
            assert answer.status_code == 422, (body[:80], answer.text[:200])
    odd = letta.agents.create(name="odd", description="a\x00b", metadata={"big": 10**30, "\x00": "\x00"})
    assert odd.description == "a\ufffdb"
    refused(404, lambda: letta.agents.retrieve("agent-1"), "no agent 'agent-1'")
    refused(404, lambda: letta.agents.delete("agent-1"))
    refused(404, lambda: letta.agents.update("agent-1", name="x"))


def test_lists_of_agents(home: Served, letta: Any) -> None:
    tags = [["red"], ["red", "blue"], ["Blue"], [], ["red blue"]]
    made = [letta.agents.create(name=f"Agent {n}", tags=t, memory_blocks=[]).id for n, t in enumerate(tags)]
    ids = lambda **query: [a.id for a in letta.agents.list(**query)]  # noqa: E731
    assert ids() == made[::-1]
    for limit in (1, 2, 3, 100):
        assert ids(limit=limit) == made[::-1]
        assert ids(limit=limit, order="asc") == ids(limit=limit, ascending=True) == made
        found = ids(limit=limit, order="asc", before=made[4])  # the client walks towards the beginning
        assert sorted(found) == sorted(made[:4])
    assert letta.agents.list(order="asc", before=made[3], limit=2).items == letta.agents.list(order="asc").items[1:3]
    assert [a.id for a in letta.agents.list(after=made[3], before=made[0]).items] == [made[2], made[1]]
    assert ids(limit=0) == []
    refused(404, lambda: ids(after="agent-x"), "agent-x")
    assert ids(name="Agent 1") == [made[1]]
    assert ids(name="agent 1") == []
    assert ids(query_text="aGENT", order="asc") == made
    assert ids(query_text="%") == []
    assert ids(tags=["red", "blue"], order="asc") == [made[0], made[1]]
    assert ids(tags=["red", "blue"], match_all_tags=True) == [made[1]]
    assert letta.tags.list() == ["Blue", "blue", "red", "red blue"]
    assert letta.tags.list(name="BLUE", limit=2) == ["Blue", "blue"]
    assert letta.tags.list(after="blue") == ["red", "red blue"]
    assert letta.tags.list(order="desc", limit=1) == ["red blue"]

    ask(letta, made[1])
    home.llm.reply = lambda request: ProviderError("down")
    ask(letta, made[2])
    assert ids(last_stop_reason="end_turn") == [made[1]]
    assert ids(last_stop_reason="llm_api_error") == [made[2]]
    assert ids(last_stop_reason="max_steps") == []
    assert ids(order_by="last_run_completion", limit=2) == [made[2], made[1], made[4], made[3], made[0]]
    for query in ("limit=-1", "limit=x", "order=up", "order_by=version", "limit=99999999999999999999"):
        assert home.http.get(f"/v1/agents/?{query}").status_code == 422, query


def test_a_changed_agent(home: Served, letta: Any) -> None:
    block = letta.blocks.create(label="team", value="T")
    agent = letta.agents.create(
        name="ada", memory_blocks=[{"label": "human", "value": "H"}], tags=["a"], description="D", metadata={"a": 1},
        system="Old.",
    )  # fmt: skip
    ask(letta, agent.id)
    changed = letta.agents.update(
        agent.id, name="grace", system="New.", tags=["b"], description="E", metadata={"b": 2}, block_ids=[block.id],
        model="test/function", context_window_limit=16_000,
    )  # fmt: skip
    assert (changed.name, changed.system, changed.tags, changed.description) == ("grace", "New.", ["b"], "E")
    assert (changed.metadata, [b.label for b in changed.blocks]) == ({"b": 2}, ["team"])
    assert changed.llm_config.context_window == 16_000
    assert [t.name for t in changed.tools] == BUILT_IN
    assert letta.agents.update(agent.id) == changed
    ask(letta, agent.id)
    head = home.llm.requests[-1].messages[0]["content"]
    assert head.startswith("New.")
    assert '<block label="team"' in head
    assert '<block label="human"' not in head
    assert letta.blocks.retrieve(agent.blocks[0].id).value == "H"

    tools = [t.id for t in letta.tools.list() if t.name in ("page_in", "conversation_search")]
    letta.agents.update(agent.id, tool_ids=tools)
    ask(letta, agent.id)
    assert names_of(home.llm.requests[-1]) == ["conversation_search", "page_in"]

    reset = letta.agents.update(agent.id, system=None, description=None, tags=None, metadata=None, model=None)
    assert (reset.description, reset.tags, reset.metadata) == ("", [], {})
    assert reset.system != "New."
    assert letta.agents.update(agent.id, context_window_limit=None).llm_config.context_window == 32_768

    other = letta.agents.create(name="other")
    refused(409, lambda: letta.agents.update(other.id, name="grace"))
    assert letta.agents.update(other.id, name="other").name == "other"
    refused(400, lambda: letta.agents.update(other.id, name="-"))
    refused(400, lambda: letta.agents.update(other.id, system="word " * 20_000), "half of the window of 32768")
    refused(400, lambda: letta.agents.update(other.id, name="new", context_window_limit=2000), "window of 2000")
    refused(404, lambda: letta.agents.update(other.id, name="new", block_ids=["block-999999"]))
    refused(501, lambda: letta.agents.update(other.id, message_ids=["message-1"]))
    assert letta.agents.retrieve(other.id) == other


def test_a_waiting_turn_has_what_was_changed_meanwhile(home: Served, letta: Any) -> None:
    agent = letta.agents.create(system="Old.")
    go = asyncio.Event()

    async def slow(request: Any) -> str:
        await go.wait()
        return "ok"

    home.llm.reply = slow
    runs = [letta.agents.messages.create_async(agent.id, input=text).id for text in ("one", "two")]
    while not home.llm.requests:
        pass
    letta.agents.update(agent.id, system="New.")
    home.loop.call_soon_threadsafe(go.set)
    for run in runs:
        for _ in letta.runs.messages.stream(run):
            pass
    heads = [request.messages[0]["content"][:4] for request in home.llm.requests]
    assert heads == ["Old.", "New."]


def test_a_deleted_agent(home: Served, letta: Any) -> None:
    shared = letta.blocks.create(label="team", value="T")
    agent = letta.agents.create(memory_blocks=[{"label": "human", "value": "H"}], block_ids=[shared.id])
    other = letta.agents.create(memory_blocks=[], block_ids=[shared.id])
    never = asyncio.Event()

    async def slow(request: Any) -> str:
        await never.wait()
        return "never"

    home.llm.reply = slow
    letta.agents.messages.create_async(agent.id, input="Hello")
    while not home.llm.requests:
        pass
    letta.agents.delete(agent.id)
    refused(404, lambda: letta.agents.retrieve(agent.id))
    assert [a.id for a in letta.agents.list()] == [other.id]
    assert [b.label for b in letta.blocks.list()] == ["team"]


def test_the_system_message_made_anew(letta: Any) -> None:
    agent = letta.agents.create(system="You are Ada.", memory_blocks=[{"label": "human", "value": "Ann"}])
    text = letta.agents.recompile(agent.id)
    assert text.startswith("You are Ada.")
    assert "Ann" in text


def test_an_agent_file(home: Served, letta: Any, tmp_path: Path) -> None:
    letta.tools.create(source_code="def roll(): 'Roll a die.'")
    agent = letta.agents.create(
        name="ada", system="You are Ada.", tags=["a"], description="D", metadata={"k": 1}, tools=["roll"],
        memory_blocks=[{"label": "human", "value": "Ann", "limit": 99, "read_only": True}], context_window_limit=20_000,
    )  # fmt: skip
    home.llm.reply = lambda request: (
        say("Noted.", call("archival_memory_insert", content="Ann likes tea.", tags=["tea"]))
        if request.messages[-1]["role"] == "user"
        else "Done."
    )
    ask(letta, agent.id, "I like tea")
    memory, clock = home.service.runtime.memory(agent.id), home.service.runtime.clock
    for n, old in ((1, None), (2, 2), (1, 3)):  # the last text is equal to the first, which is valid no more by then
        home.run(curate.insert_passage(home.service.store, clock, memory, agent.id, f"Tea at {n}.", replaces=old))
    text = letta.agents.export_file(agent.id)
    assert "I like tea" not in letta.agents.export_file(agent.id, scrub_messages=True)
    [tool] = letta.tools.list(name="roll")
    letta.tools.delete(tool.id)

    [copy_id] = letta.agents.import_file(file=text.encode()).agent_ids
    copy = letta.agents.retrieve(copy_id)
    assert copy.name == "ada_copy"
    same = ("system", "tags", "description", "metadata", "model", "llm_config")
    assert [getattr(copy, name) for name in same] == [getattr(agent, name) for name in same]
    assert [(b.label, b.value, b.limit, b.read_only) for b in copy.blocks] == [("human", "Ann", 99, True)]
    assert [t.name for t in copy.tools] == [*BUILT_IN, "roll"]
    said = home.read(lambda tx: tx.history(copy_id, True, None, None, 10))
    assert [m.content for m in said] == ["I like tea", "Noted."]
    passages = home.read(lambda tx: tx.passage_page(copy_id, True, None, None, 9, include_superseded=True))
    ids = {p.id: p.text for p in passages}
    assert {(p.text, p.tags, ids.get(p.superseded_by), ids.get(p.replaces)) for p in passages} == {
        ("Ann likes tea.", ("tea",), None, None), ("Tea at 1.", (), "Tea at 2.", None),
        ("Tea at 2.", (), "Tea at 1.", "Tea at 1."), ("Tea at 1.", (), None, "Tea at 2."),
    }  # fmt: skip
    originals = home.read(lambda tx: tx.passage_page(agent.id, True, None, None, 9, include_superseded=True))
    assert {p.valid_to and stamp(p.valid_to) for p in passages} == {p.valid_to and stamp(p.valid_to) for p in originals}

    [bare_id] = letta.agents.import_file(file=text.encode(), override_name="bare", strip_messages=True).agent_ids
    assert letta.agents.retrieve(bare_id).name == "bare"
    assert list(letta.agents.messages.list(bare_id)) == []
    theirs = {
        "agents": [{
            "name": "theirs", "tool_ids": ["tool-0"], "llm_config": {"handle": "openai/gpt-4.1"},
            "core_memory": [{"label": "persona", "value": "P"}], "messages": [{"role": "user", "content": "Hi"}],
        }],
        "tools": [{"id": "tool-0", "name": "send_message", "tool_type": "letta_core"}],
    }  # fmt: skip
    [their_id] = letta.agents.import_file(file=json.dumps(theirs).encode(), append_copy_suffix=False).agent_ids
    assert [t.name for t in letta.agents.retrieve(their_id).tools] == BUILT_IN

    before = len(list(letta.agents.list()))
    refused(409, lambda: letta.agents.import_file(file=text.encode()), "exists already")
    refused(501, lambda: letta.agents.import_file(file=text.encode(), secrets="{}"))
    bad_time = {"agents": [{"name": "late", "messages": [{"role": "user", "content": "x", "created_at": "never"}]}]}
    refused(400, lambda: letta.agents.import_file(file=json.dumps(bad_time).encode()), "created_at")
    odd = {"text": "x", "valid_to": "2026-05-08T09:30:00Z", "superseded_by": 0}
    lost = {"agents": [{"name": "lost", "superseded_passages": [odd]}]}
    refused(400, lambda: letta.agents.import_file(file=json.dumps(lost).encode()), "superseded_by is 0")
    for bad in (b"", b"{", b"[]", b"\xff", b'{"agents": []}', b'{"agents": [{"name": 1}]}'):
        refused(422, lambda bad=bad: letta.agents.import_file(file=bad))
    assert home.http.post("/v1/agents/import", data={"name": "x"}).status_code == 422
    assert len(list(letta.agents.list())) == before
    refused(404, lambda: letta.agents.export_file("agent-1"))


# blocks


def test_blocks_of_nobody(home: Served, letta: Any) -> None:
    block = letta.blocks.create(label="team", value="T", description="D", limit=10, tags=["x"], metadata={"a": 1})
    assert letta.blocks.retrieve(block.id) == block
    assert (block.label, block.value, block.limit, block.description) == ("team", "T", 10, "D")
    assert (block.tags, block.metadata, block.read_only) == (["x"], {"a": 1}, False)
    changed = letta.blocks.update(block.id, value="twelve chars", limit=12, label="crew", read_only=True, tags=[])
    assert (changed.value, changed.limit, changed.label, changed.read_only) == ("twelve chars", 12, "crew", True)
    assert (changed.tags, changed.metadata, changed.description) == ([], {"a": 1}, "D")
    assert letta.blocks.update(block.id, description=None, metadata=None).description == ""
    refused(400, lambda: letta.blocks.update(block.id, limit=5), "12 characters", "limit is 5")
    refused(400, lambda: letta.blocks.create(label="x", value="12", limit=1), "limit is 1")
    refused(422, lambda: letta.blocks.create(label="", value=""))
    assert letta.blocks.retrieve(block.id).limit == 12
    letta.blocks.delete(block.id)
    for ident in (block.id, "block-0", "block-", "block-1e3", "human", "block-99999999999999999999"):
        refused(404, lambda ident=ident: letta.blocks.retrieve(ident))
        refused(404, lambda ident=ident: letta.blocks.update(ident, value="x"))
        refused(404, lambda ident=ident: letta.blocks.delete(ident))


def test_lists_of_blocks(letta: Any) -> None:
    made = [
        letta.blocks.create(label=f"label{n}", value=f"Value {n}", description="Even" if n % 2 == 0 else "", tags=t)
        for n, t in enumerate([["a"], ["a", "b"], ["b"], []])
    ]
    first = letta.agents.create(memory_blocks=[], block_ids=[made[0].id, made[1].id])
    second = letta.agents.create(memory_blocks=[], block_ids=[made[1].id])
    labels = lambda **query: [b.label[5:] for b in letta.blocks.list(**query)]  # noqa: E731
    for limit in (1, 3, 50):
        assert labels(limit=limit) == ["0", "1", "2", "3"]
        assert labels(limit=limit, order="desc") == ["3", "2", "1", "0"]
    assert labels(before=made[3].id, limit=2) == ["1", "2", "0"]
    assert labels(label="label2") == ["2"]
    assert labels(label_search="ABEL1") == ["1"]
    assert labels(value_search="value 3") == ["3"]
    assert labels(description_search="even") == ["0", "2"]
    assert labels(tags=["a"]) == ["0", "1"]
    assert labels(tags=["a", "b"], match_all_tags=True) == ["1"]
    assert labels(connected_to_agents_count_gt=1) == ["1"]
    assert labels(connected_to_agents_count_lt=1) == ["2", "3"]
    assert labels(connected_to_agents_count_eq=[1, 2]) == ["0", "1"]
    assert labels(templates_only=True) == []
    assert {a.id for a in letta.blocks.agents.list(made[1].id)} == {first.id, second.id}
    assert [a.id for a in letta.blocks.agents.list(made[1].id, limit=1, order="asc")] == [first.id, second.id]
    assert list(letta.blocks.agents.list(made[3].id)) == []
    refused(404, lambda: letta.blocks.agents.list("block-999999"))


def test_blocks_of_an_agent(home: Served, letta: Any) -> None:
    agent = letta.agents.create(memory_blocks=[{"label": n, "value": n.upper()} for n in ("a b/ü#", "two", "three")])
    labels = lambda **query: [b.label for b in letta.agents.blocks.list(agent.id, **query)]  # noqa: E731
    assert labels(order="asc") == ["a b/ü#", "two", "three"]
    assert labels(limit=1) == ["three", "two", "a b/ü#"]
    assert labels(before=agent.blocks[0].id, limit=1) == ["two", "three"]
    assert letta.agents.blocks.retrieve("a b/ü#", agent_id=agent.id).value == "A B/Ü#"
    refused(404, lambda: letta.agents.blocks.retrieve("four", agent_id=agent.id), "two")
    refused(404, lambda: letta.agents.blocks.retrieve("two", agent_id="agent-1"))

    ask(letta, agent.id)
    changed = letta.agents.blocks.update("two", agent_id=agent.id, value="deux")
    assert changed.value == "deux"
    ask(letta, agent.id)
    assert any("deux" in (m["content"] or "") for m in home.llm.requests[-1].messages[1:])
    [event] = home.read(lambda tx: tx.events(agent.id, actions=("block.edit",)))
    assert (event["actor"], event["target"]) == ("user", changed.id.replace("block-", "b"))
    refused(400, lambda: letta.agents.blocks.update("two", agent_id=agent.id, value="x" * 100_001), "limit is 100000")
    refused(400, lambda: letta.agents.blocks.update("two", agent_id=agent.id, value="word " * 15_000), "half of the")
    refused(400, lambda: letta.agents.blocks.update("two", agent_id=agent.id, label="three"), "'three' already")
    refused(400, lambda: letta.agents.blocks.update("two", agent_id=agent.id, description="word " * 15_000), "half")
    assert letta.agents.blocks.retrieve("two", agent_id=agent.id) == changed

    letta.agents.blocks.update("two", agent_id=agent.id, label="zwei", limit=50, read_only=True)
    home.llm.reply = lambda request: (
        say("", call("core_memory_append", label="zwei", content="x"))
        if request.messages[-1]["role"] == "user"
        else "done"
    )
    answered = ask(letta, agent.id)
    assert '<block label="zwei" limit="50" read_only="true">' in home.llm.requests[-1].messages[0]["content"]
    [back] = [m for m in answered.messages if m.message_type == "tool_return_message"]
    assert "read-only" in back.tool_return


def test_attach_and_detach(home: Served, letta: Any) -> None:
    agents = [letta.agents.create(memory_blocks=[{"label": "human", "value": "H"}]) for _ in range(2)]
    block = letta.blocks.create(label="team", value="Red")
    for agent in agents:
        state = letta.agents.blocks.attach(block.id, agent_id=agent.id)
        assert [b.label for b in state.blocks] == ["human", "team"]
    again = letta.agents.blocks.attach(block.id, agent_id=agents[0].id)
    assert len(again.blocks) == 2
    home.llm.reply = lambda request: (
        say("", call("core_memory_replace", label="team", old_content="Red", new_content="Blue"))
        if request.messages[-1]["role"] == "user"
        else "done"
    )
    ask(letta, agents[0].id)
    assert letta.agents.blocks.retrieve("team", agent_id=agents[1].id).value == "Blue"

    twin = letta.blocks.create(label="team", value="T")
    refused(400, lambda: letta.agents.blocks.attach(twin.id, agent_id=agents[0].id), "'team' already")
    huge = letta.blocks.create(label="huge", value="word " * 15_000)
    refused(400, lambda: letta.agents.blocks.attach(huge.id, agent_id=agents[0].id), "half of the window")
    refused(404, lambda: letta.agents.blocks.attach("block-999999", agent_id=agents[0].id))
    refused(404, lambda: letta.agents.blocks.attach(block.id, agent_id="agent-1"))
    refused(400, lambda: letta.agents.create(memory_blocks=[], block_ids=[huge.id]), "half of the window")
    grown = lambda: letta.blocks.update(block.id, value="word " * 15_000)  # noqa: E731
    refused(400, grown, "half of the window")

    for agent in agents:  # the last one, too: the block goes on by itself
        state = letta.agents.blocks.detach(block.id, agent_id=agent.id)
        assert [b.label for b in state.blocks] == ["human"]
    assert letta.blocks.retrieve(block.id).value == "Blue"
    assert grown().value == "word " * 15_000
    refused(404, lambda: letta.agents.blocks.detach(block.id, agent_id=agents[0].id), "has no block")

    human = agents[0].blocks[0].id
    ask(letta, agents[0].id)
    letta.blocks.delete(human)
    assert letta.agents.retrieve(agents[0].id).blocks == []
    home.llm.reply = lambda request: "ok"
    ask(letta, agents[0].id)
    assert '<block label="human"' not in home.llm.requests[-1].messages[0]["content"]


def test_who_shares_a_block_is_asked_before_it_grows(letta: Any) -> None:
    """Also one that never ran: what its core memory may take is known from the start."""
    block = letta.blocks.create(label="team", value="T")
    large = letta.agents.create(name="a", memory_blocks=[], block_ids=[block.id])
    letta.agents.create(name="small", memory_blocks=[], block_ids=[block.id], context_window_limit=9000)
    refused(400, lambda: letta.agents.blocks.update("team", agent_id=large.id, value="word " * 6000), "'small' shares")


# tools


def test_a_described_tool(home: Served, letta: Any, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    source = SOURCE.format(path=str(mark))
    tool = letta.tools.create(source_code=source, tags=["dice"], return_char_limit=100)
    assert (tool.name, tool.description, tool.tool_type, tool.tags) == ("roll", "Roll a die.", "custom", ["dice"])
    assert tool.json_schema["parameters"] == {
        "type": "object",
        "properties": {
            "sides": {"type": "integer", "description": "How many sides it has."},
            "names": {"type": "array", "items": {"type": "string"}},
            "mode": {"type": "string", "description": "How it falls."},
        },
        "required": ["sides"],
    }
    assert (tool.source_code, tool.source_type, tool.return_char_limit) == (source, "python", 100)
    assert letta.tools.retrieve(tool.id) == tool

    agent = letta.agents.create(tools=["roll"])
    assert [t.name for t in agent.tools] == [*BUILT_IN, "roll"]
    home.llm.reply = lambda request: (
        say("", call("roll", sides=6)) if request.messages[-1]["role"] == "user" else "I cannot."
    )
    answered = ask(letta, agent.id)
    [back] = [m for m in answered.messages if m.message_type == "tool_return_message"]
    assert back.status == "error"
    assert "cannot be run" in back.tool_return
    assert answered.messages[-1].content == "I cannot."
    shown = home.llm.requests[0].tools[-1]["function"]
    assert shown["name"] == "roll"
    assert set(shown["parameters"]["properties"]) == {"sides", "names", "mode", "request_heartbeat"}

    by_name = home.run(home.service.runtime.agent(agent.name))  # as the command line opens it
    assert by_name is home.run(home.service.runtime.agent_of(agent.id))

    letta.tools.update(tool.id, description="Throw a die.", metadata={"a": 1})
    ask(letta, agent.id)
    assert home.llm.requests[-1].tools[-1]["function"]["description"] == "Throw a die."
    letta.tools.delete(tool.id)
    assert [t.name for t in letta.agents.retrieve(agent.id).tools] == BUILT_IN
    ask(letta, agent.id)
    assert names_of(home.llm.requests[-1]) == BUILT_IN
    refused(404, lambda: letta.tools.retrieve(tool.id))
    assert not mark.exists()


def test_tools_by_schema(letta: Any) -> None:
    tool = letta.tools.create(source_code="function lookup() {}", source_type="typescript", json_schema=DESCRIBED)
    assert (tool.name, tool.json_schema) == ("lookup", DESCRIBED)
    refused(409, lambda: letta.tools.create(source_code="x", json_schema=DESCRIBED), "exists already")
    new = letta.tools.upsert(source_code="def lookup(term: str): 'Find a term.'")
    assert (new.id, new.description) == (tool.id, "Find a term.")
    assert list(new.json_schema["parameters"]["properties"]) == ["term"]
    again = letta.tools.update(tool.id, tags=["t"], metadata={"a": 1}, args_json_schema={
        "type": "object", "properties": {"b": {"type": "integer"}}, "required": []
    })  # fmt: skip
    assert (again.tags, again.metadata, again.source_code) == (["t"], {"a": 1}, new.source_code)
    assert list(again.json_schema["parameters"]["properties"]) == ["b"]
    assert letta.tools.upsert(source_code="async def other(*, a: float = 1): 'O.'").id != tool.id
    refused(409, lambda: letta.tools.update(tool.id, source_code="def another(): 'A.'"), "keeps its name")
    refused(409, lambda: letta.tools.create(source_code="def page_in(): 'P.'"), "built in")
    builtin = next(t for t in letta.tools.list(name="page_in"))
    refused(400, lambda: letta.tools.delete(builtin.id), "built in")
    refused(400, lambda: letta.tools.update(builtin.id, tags=["x"]), "built in")
    for source in ("x = 1", "def f(:", "def f():\n  '''" + "(" * 10_000, "-" * 50_000 + "1", "x\x00", ""):
        refused(400, lambda source=source: letta.tools.create(source_code=source), "source_code")
    deep: dict[str, Any] = {}
    for _ in range(2000):
        deep = {"items": deep}
    for schema in (
        {"name": "a b"}, {"name": 5}, {}, {"name": "x", "parameters": {"type": "array"}},
        {"name": "x", "parameters": {"properties": {"a": 1}}}, {"name": "x", "parameters": {"required": "a"}},
        {"name": "x", "parameters": 7}, {"name": "x" * 65}, {"name": "x", "description": "d" * 50_001},
    ):  # fmt: skip
        refused(400, lambda schema=schema: letta.tools.create(source_code="x", json_schema=schema))
    agent = letta.agents.create(context_window_limit=9000, tools=["lookup"], memory_blocks=[])
    wide = {"type": "object", "properties": {f"argument{n}": {"type": "string"} for n in range(800)}}
    refused(400, lambda: letta.tools.update(tool.id, args_json_schema=wide), "half of the window of 9000")
    assert letta.agents.retrieve(agent.id).tools[-1].json_schema == again.json_schema


def test_lists_of_tools(home: Served, letta: Any) -> None:
    for name in ("one", "two", "three"):
        letta.tools.create(source_code=f"def {name}(): 'The tool {name}.'", tags=[name])
    names = lambda **query: [t.name for t in letta.tools.list(**query)]  # noqa: E731
    everything = [*BUILT_IN, "one", "two", "three"]
    for limit in (1, 3, 50):
        assert names(limit=limit, order="asc") == everything
        assert names(limit=limit) == everything[::-1]
    assert names(name="two") == ["two"]
    assert names(names=["one", "page_in"], order="asc") == ["page_in", "one"]
    assert names(search="THR") == ["three"]
    assert names(tool_types=["custom"], order="asc") == ["one", "two", "three"]
    assert names(tool_types=["letta_memory_core"], order="asc") == ["core_memory_append", "core_memory_replace"]
    assert names(exclude_tool_types=["letta_memory_core,letta_core"], order="asc") == ["one", "two", "three"]
    assert names(return_only_letta_tools=True, order="asc") == BUILT_IN
    by_id = {t.name: t.id for t in letta.tools.list()}
    assert names(tool_ids=[by_id["one"], by_id["set_timer"]]) == ["one", "set_timer"]
    assert letta.tools.retrieve(by_id["set_timer"]).name == "set_timer"
    assert letta.tools.search(query="tool two")[0].tool.name == "two"

    agent = letta.agents.create()
    mine = lambda **query: [t.name for t in letta.agents.tools.list(agent.id, **query)]  # noqa: E731
    assert mine(order="asc", limit=2) == BUILT_IN
    letta.agents.tools.attach(by_id["two"], agent_id=agent.id)
    letta.agents.tools.attach(by_id["two"], agent_id=agent.id)
    assert mine(order="asc") == [*BUILT_IN, "two"]
    ask(letta, agent.id)
    assert names_of(home.llm.requests[-1]) == [*BUILT_IN, "two"]
    letta.agents.tools.detach(by_id["two"], agent_id=agent.id)
    letta.agents.tools.detach(by_id["set_timer"], agent_id=agent.id)
    assert mine(order="asc") == BUILT_IN[:-1]
    letta.agents.tools.attach(by_id["set_timer"], agent_id=agent.id)
    assert mine(order="asc") == BUILT_IN
    refused(404, lambda: letta.agents.tools.attach("tool-x", agent_id=agent.id))
    refused(404, lambda: letta.agents.tools.list("agent-1"))
    refused(501, lambda: letta.agents.tools.run("one", agent_id=agent.id, args={}))


def test_names_of_lettas_tools_mean_ours() -> None:
    assert {name for ours in LETTA_TOOLS.values() for name in ours} <= set(BUILT_IN)
    assert not set(LETTA_TOOLS) & set(BUILT_IN)


def test_small_answers_are_sent_at_once() -> None:
    """asyncio turns off the kernel's waiting only for sockets that name their protocol."""
    with closing(listening("127.0.0.1", 0)) as sock:
        assert sock.proto == socket.IPPROTO_TCP


# models


def test_models(letta: Any) -> None:
    [model] = letta.models.list()
    assert (model.handle, model.name, model.context_window) == ("test/function",) * 2 + (32_768,)
    assert letta.models.list(provider_name="openai") == []
    [embedder] = letta.models.embeddings.list()
    assert embedder.embedding_dim > 0
    assert embedder.name == letta.agents.create().embedding


async def test_a_block_that_nobody_has_has_a_history(home: Served) -> None:
    """Its journal names no agent."""
    block = home.letta.blocks.create(label="alone", value="one")
    home.letta.blocks.update(block.id, value="two")
    events = home.read(lambda tx: tx.events(Cause("", "user").agent_id, target=block.id.replace("block-", "b")))
    assert [e["action"] for e in events] == ["block.edit", "block.create"]
