"""Memory over MCP, by `/mcp` and `agentos mcp`: tools and resources, who may use them, and what they leave behind."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_types import Implementation

from agentos import curate, tokens, values
from agentos.cli.mcp_server import _asking
from agentos.errors import NotFound, ToolError, UsageError
from agentos.llm.offline import OfflineLLM
from agentos.llm.offline.prompt import read_prompt
from agentos.mcp_server.memory import SharedMemory
from agentos.messages import Block, Cause, Input, Message, Passage
from agentos.protocols import LLMRequest
from agentos.testing import FixedClock, FunctionLLM, ScriptedLLM, call, say, temporary_runtime
from conftest import Home
from forks import Forks
from serving import TOKEN, Served, served, until

NAME = "Desk; [from] Top\n"
"""What the clients of these tests call themselves; the journal has `Desk from Top`."""
TOOLS = ["remember", "recall", "read_core_memory", "update_memory", "forget", "ask", "list_changes"]
READING = ["recall", "read_core_memory", "list_changes"]


FREE = threading.Event()
"""The model answers while it is set."""
FREE.set()


async def echo(request: LLMRequest) -> str:
    await asyncio.to_thread(FREE.wait, 20)
    said = [str(m["content"]) for m in request.messages if m["role"] == "user"]
    return next(text for text in reversed(said) if "[system notice]" not in text)


@pytest.fixture(scope="module")
def live() -> Iterator[Served]:
    with served(FunctionLLM(echo)) as live:
        yield live


@asynccontextmanager
async def client(live: Served, token: str = TOKEN, mode: str = "auto") -> AsyncIterator[Client]:
    """The `mcp` package's client of `/mcp`."""
    headers = {"Authorization": f"Bearer {token}"}
    info = Implementation(name=NAME, version="1")
    async with httpx2.AsyncClient(headers=headers, trust_env=False, timeout=30) as http:
        transport = streamable_http_client(f"{live.url}/mcp", http_client=http)
        async with Client(transport, mode=mode, client_info=info) as found:
            yield found


async def ok(client: Client, tool: str, **arguments: Any) -> Any:
    """What a call gives back, in both of its forms."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert json.loads(result.content[0].text) == result.structured_content
    return result.structured_content


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    """The sentence of a call that is refused."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    [content] = result.content
    return str(content.text)


def make_token(live: Served, *names: str, **options: Any) -> tuple[str, tokens.Token]:
    runtime = live.service.runtime
    made: tuple[str, tokens.Token] = live.run(tokens.create_token(runtime.store, runtime.clock, list(names), **options))
    return made


# what the tools do, and the marks that they leave


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_the_tools_use_the_memory_and_are_marked_in_the_journal(live: Served, mode: str) -> None:
    name = f"ada-{mode}"
    agent_id = live.create(name)
    async with client(live, mode=mode) as mcp:
        assert [tool.name for tool in (await mcp.list_tools()).tools] == TOOLS
        stored = await ok(mcp, "remember", agent=name, content="Ada likes green tea", tags=["tea", "source:me"],
                          source="a letter\nof May", confidence=0.75)  # fmt: skip
        assert stored["tags"] == ["tea", "source:a letter of May", "confidence:0.75"]
        assert await ok(mcp, "remember", agent=name, content="Ada likes green tea") == stored
        [hit] = (await ok(mcp, "recall", agent=name, query="green tea", tags=["tea"]))["hits"]
        assert (hit["in"], hit["id"], hit["text"]) == ("archival", stored["id"], "Ada likes green tea")
        assert (await ok(mcp, "recall", agent=name, query="green tea", end="2020-01-01"))["hits"] == []

        newer = await ok(mcp, "update_memory", agent=name, target=stored["id"], content="Ada likes black tea now",
                         confidence=1)  # fmt: skip
        assert newer["supersedes"] == stored["id"]
        assert newer["tags"] == ["tea", "confidence:1"]
        found = (await ok(mcp, "recall", agent=name, query="tea", scope="archival"))["hits"]
        assert [hit["id"] for hit in found] == [newer["id"]]
        same = await ok(mcp, "update_memory", agent=name, target=newer["id"], content="Ada likes black tea now")
        assert (same["id"], "supersedes" in same) == (newer["id"], False)
        past = {"agent": name, "query": "tea", "scope": "archival"}
        found = (await ok(mcp, "recall", **past, include_superseded=True))["hits"]
        assert {hit["id"]: hit["superseded_by"] for hit in found} == {newer["id"]: None, stored["id"]: newer["id"]}
        assert (await ok(mcp, "recall", **past, as_of="2020-01-01"))["hits"] == []
        assert "as_of is 'then'" in await refused(mcp, "recall", **past, as_of="then")

        core = await ok(mcp, "read_core_memory", agent=name, label="human")
        version = core["blocks"][0]["version"]
        human = {"agent": name, "target": "human"}
        first = await ok(mcp, "update_memory", **human, content="Name: Ada", expected_version=version)
        second = await ok(mcp, "update_memory", **human, content="Name: Grace", old_content="Name: Ada")
        assert (first["changes"], second["changes"]) == ("+ Name: Ada", "- Name: Ada\n+ Name: Grace")
        stale = await refused(mcp, "update_memory", **human, content="x", expected_version=version)
        assert "was left as it is; it reads:\nName: Grace" in stale

        reply = await ok(mcp, "ask", agent=name, message="Where is [client Grace] now?")
        assert reply["stop_reason"] == "end_turn"
        assert "[client Desk from Top] Where is (client Grace) now?" in reply["reply"]
        [said] = (await ok(mcp, "recall", agent=name, query="Where is client Grace", scope="recall", limit=1))["hits"]
        assert (said["in"], said["role"]) == ("recall", "user")

        assert (await ok(mcp, "forget", agent=name, id=newer["id"]))["text"] == "Ada likes black tea now"
        changes = (await ok(mcp, "list_changes", agent=name))["changes"]
        events = [(c["action"], c["target"], c["actor"]) for c in changes if c["actor"] != "runtime"]
        assert events[0] == ("passage.insert", stored["id"], "client")
        assert events[-1] == ("passage.delete", newer["id"], "client")
        assert [e for e in events if e[0] == "block.edit"] == [("block.edit", "human", "client")] * 2
        assert {actor for _, _, actor in events} == {"client"}
        assert all(c["client"] == "Desk from Top" for c in changes if c["actor"] == "client")
        page = await ok(mcp, "list_changes", agent=name, limit=2)
        following = await ok(mcp, "list_changes", agent=name, after=page["next"])
        assert page["changes"] + following["changes"] == changes
        assert following["next"] is None
        assert (await ok(mcp, "list_changes", agent=name, since="2099-01-01"))["changes"] == []

    # as a person sees it
    [[head, link]] = live.run(curate.why(live.service.store, agent_id, stored["id"]))
    assert (head.about, link.what, link.text) == (
        None, "written by the client 'Desk from Top'", "source: a letter of May; confidence: 0.75",
    )  # fmt: skip
    [[_, link]] = live.run(curate.why(live.service.store, agent_id, "Grace"))
    assert link.what == "written by the client 'Desk from Top'"
    history = live.read(lambda tx: values.history_value(tx, agent_id, 50))
    assert ("client", "passage.delete", "Desk from Top") in [(e["actor"], e["action"], e["client"]) for e in history]
    [passage] = live.read(lambda tx: tx.passages(agent_id, [int(stored["id"][1:])]))
    assert (passage.origin, passage.message_id) == ("client", None)
    for action, lines in (
        ("passage.delete", "+ Ada likes black tea now"),
        ("passage.supersede", "- Ada likes black tea now\n+ Ada likes green tea"),
    ):
        number = next(e["id"] for e in history if e["action"] == action)
        status, undone, _ = live.ask("POST", f"/agentos/v1/agents/{name}/undo", {"event_id": number})
        assert (status, undone["changes"]) == (200, lines)
    found = live.ask("GET", f"/agentos/v1/agents/{name}/search?query=tea&include_superseded=true")[1]
    assert [(hit["id"], hit["superseded_by"]) for hit in found] == [(stored["id"], None)]
    heard = [m.content for m in live.read(lambda tx: tx.notices(agent_id))]
    assert f"Passage {newer['id']} was deleted by the client Desk from Top." in heard


async def test_refusals_say_what_to_do(live: Served) -> None:
    live.create("eve")
    live.create("eva")
    async with client(live) as mcp:
        assert "there is no tool 'x'; there are: remember, recall" in await refused(mcp, "x")
        assert "say in `agent` whose memory; there are: " in await refused(mcp, "recall", query="tea")
        assert "there is no agent 'nobody'; there are: " in await refused(mcp, "recall", agent="nobody", query="tea")
        for tool, arguments, sentence in (
            ("remember", {}, "argument 'content' is missing; correct the arguments and call remember again"),
            ("remember", {"content": ["x"]}, "argument 'content': input should be a valid string"),
            ("remember", {"content": "x", "contents": "y"}, "there is no argument 'contents'"),
            ("remember", {"content": "x" * 100_001}, "at most 100000 characters"),
            ("remember", {"content": " \n"}, "the text is empty; give the text to store"),
            ("remember", {"content": "x", "confidence": 1.5}, "'confidence': input should be less than or equal to 1"),
            ("recall", {"query": "tea", "scope": "core"}, "'archival', 'recall' or 'all'"),
            ("recall", {"query": "tea", "start": "May"}, "start is 'May', which is no ISO date; write it like"),
            ("recall", {"query": "tea", "limit": 51}, "'limit': input should be less than or equal to 50"),
            ("read_core_memory", {"label": "humn"}, "there is no block 'humn'; the blocks are: persona, human"),
            ("update_memory", {"target": "humn", "content": "x"}, "there is no block 'humn'"),
            ("update_memory", {"target": "human", "content": "x", "old_content": "y"}, "does not occur in 'human'"),
            ("update_memory", {"target": "human", "content": "x" * 90_000}, "its limit is"),
            ("update_memory", {"target": "human", "content": "x", "tags": ["t"]}, "is a block, which has no tags"),
            ("update_memory", {"target": "p1", "content": "x", "old_content": "y"}, "is replaced as a whole"),
            ("update_memory", {"target": "p999999", "content": "x"}, "p999999"),
            ("forget", {"id": "p999999"}, "no passage p999999"),
            ("forget", {"id": "m1"}, "'m1' is no passage; ids look like p12"),
            ("forget", {"id": "p" + "9" * 18}, "is no passage"),
            ("ask", {"message": " "}, "the message is empty; write something"),
            ("list_changes", {"after": -1}, "'after': input should be greater than or equal to 0"),
            ("list_changes", {"after": "x"}, "'after': input should be a valid integer"),
            ("list_changes", {"since": "May"}, "since is 'May', which is no ISO date; write it like"),
        ):  # fmt: skip
            assert sentence in await refused(mcp, tool, **arguments, agent="eve"), (tool, arguments)
    assert live.read(lambda tx: tx.count_passages(tx.agent_named("eve").id)) == 0


async def test_blocks_and_memories_are_resources(live: Served) -> None:
    agent_id = live.create("böb & co", blocks=[Block("a/b", "what is in it", 5000, "about it")])
    long = "tea " * 1000
    async with client(live) as mcp:
        saved = await ok(mcp, "remember", agent="böb & co", content=long)
        [hit] = (await ok(mcp, "recall", agent=agent_id, query="tea"))["hits"]
        assert (len(hit["text"]), hit["characters"]) == (2000, len(long.strip()))
        found = [r for r in (await mcp.list_resources()).resources if r.name == "böb & co: a/b"]
        assert [(r.uri, r.description) for r in found] == [("agentos://b%C3%B6b%20%26%20co/core/a%2Fb", "about it")]
        [contents] = (await mcp.read_resource(found[0].uri)).contents
        assert (contents.text, contents.mime_type) == ("what is in it", "text/plain")
        templates = (await mcp.list_resource_templates()).resource_templates
        assert [t.uri_template for t in templates] == [
            "agentos://{agent}/core/{label}",
            "agentos://{agent}/memory/{id}",
        ]
        [contents] = (await mcp.read_resource(f"agentos://{agent_id}/memory/{saved['id']}")).contents
        assert contents.text == long.strip()
        for uri in (f"agentos://{agent_id}/core/nothing", f"agentos://{agent_id}/memory/p99999", "agentos://x/core/human",
                    f"agentos://{agent_id}/memory/x1", f"agentos://{agent_id}", "file:///etc/passwd"):  # fmt: skip
            with pytest.raises(MCPError, match="there is no"):
                await mcp.read_resource(uri)
        with pytest.raises(MCPError, match="is no cursor of this list"):
            await mcp.list_resources(cursor="x")


async def test_a_long_list_of_blocks_comes_in_pages() -> None:
    with served() as live:
        for n in range(51):
            live.create(f"a{n:02}", blocks=[Block("human", f"{n}")])
        async with client(live) as mcp:
            first = await mcp.list_resources()
            rest = await mcp.list_resources(cursor=first.next_cursor)
    names = [r.name for r in (*first.resources, *rest.resources)]
    assert names == [f"a{n:02}: human" for n in range(51)]
    assert (len(first.resources), rest.next_cursor) == (50, None)


# who may do what


async def test_a_token_opens_its_agents_and_nothing_else(live: Served) -> None:
    mine, other = live.create("mine"), live.create("other")
    both, shared = make_token(live, "mine", "other", name="the two")
    secret, token = make_token(live, "mine")
    assert (shared.grant().kind, token.grant().kind, tokens.Grant().kind) == ("shared", "personal", "all")
    async with client(live) as mcp:
        passage = await ok(mcp, "remember", agent="other", content="a secret about otters")
    async with client(live, secret) as mcp:
        assert (await ok(mcp, "recall", query="otters"))["hits"] == []  # of its one agent, which it need not name
        for name in ("other", other, "nobody"):
            known = f"there is no agent {name!r}; there are: mine"
            assert await refused(mcp, "recall", agent=name, query="otters") == known
            assert await refused(mcp, "ask", agent=name, message="otters?") == known
            with pytest.raises(MCPError, match=known):
                await mcp.read_resource(f"agentos://{name}/core/human")
        for target in (f"agentos://mine/memory/{passage['id']}", f"agentos://{mine}/memory/m1"):
            with pytest.raises(MCPError, match="there is no memory"):
                await mcp.read_resource(target)
        assert passage["id"] in await refused(mcp, "forget", id=passage["id"])
        assert passage["id"] in await refused(mcp, "update_memory", target=passage["id"], content="x")
        assert {r.name.split(":")[0] for r in (await mcp.list_resources()).resources} == {"mine"}
        assert "other" not in json.dumps(await ok(mcp, "list_changes"))
    async with client(live, both) as mcp:
        assert len((await ok(mcp, "recall", agent="other", query="otters"))["hits"]) == 1
        stored = await ok(mcp, "remember", agent="mine", content="shared")
    [event] = live.read(lambda tx: tx.events(mine, target=stored["id"]))
    assert event["client"] == "Desk from Top (the two)"
    live.run(live.service.runtime.delete_agent(other))
    async with client(live, both) as mcp:
        assert len((await ok(mcp, "recall", query="shared"))["hits"]) == 1  # one is left, so it need not be named
    for path in ("/v1/agents/", f"/v1/agents/{mine}", "/agentos/v1/agents", "/metrics", "/openapi.json", "/nowhere"):
        status, value, _ = live.ask("GET", path, authorization=f"Bearer {secret}")
        assert (status, value["detail"]) == (403, "this token opens /mcp only; everything else needs the server's own")


async def test_a_reading_token_changes_nothing(live: Served) -> None:
    agent_id = live.create("read")
    secret, _ = make_token(live, "read", read_only=True)
    async with client(live, secret) as mcp:
        shown = (await mcp.list_tools()).tools
        assert [tool.name for tool in shown] == READING
        assert all(tool.annotations is not None and tool.annotations.read_only_hint for tool in shown)
        assert (await ok(mcp, "recall", query="tea"))["hits"] == []
        for tool in set(TOOLS) - set(READING):
            assert await refused(mcp, tool, content="x", message="x", id="p1", target="human") == (
                f"there is no tool {tool!r} (this client may only read); there are: {', '.join(READING)}"
            )
    assert live.read(lambda tx: (tx.count_passages(agent_id), tx.runs(agent_id))) == (0, [])


INITIALIZE = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}},
}  # fmt: skip
BOTH = "application/json, text/event-stream"


async def test_tokens_end(live: Served) -> None:
    live.create("ends")
    runtime = live.service.runtime
    clock: Any = runtime.clock
    secret, token = make_token(live, "ends", expires_at=clock.now() + timedelta(hours=1))
    revoked, gone = make_token(live, "ends", name="phone")

    def asked(given: str) -> int:
        return live.ask("POST", "/mcp", INITIALIZE, authorization=f"Bearer {given}", accept=BOTH)[0]

    assert (asked(secret), asked(revoked), asked(TOKEN)) == (200, 200, 200)
    kept = json.dumps(live.read(lambda tx: tx.homes("token:")))
    assert secret not in kept
    assert secret.removeprefix(tokens.PREFIX)[:8] not in kept
    assert live.run(tokens.revoke_token(runtime.store, gone.id)) == gone
    assert [t.id for t in live.read(tokens.tokens) if t.id in (token.id, gone.id)] == [token.id]
    for wrong in ("", f"{secret}x", secret[:-1], tokens.PREFIX, token.id, f"{tokens.PREFIX}{token.id}", revoked):
        status, value, headers = live.ask("POST", "/mcp", INITIALIZE, authorization=f"Bearer {wrong}", accept=BOTH)
        assert (status, headers["www-authenticate"], "server.token" in value["detail"]) == (401, "Bearer", True), wrong
    with pytest.raises(NotFound, match="there is no token"):
        live.run(tokens.revoke_token(runtime.store, gone.id))
    for options, sentence in (
        ({"names": []}, "one agent or more"), ({"names": ["nobody"]}, "there is no agent 'nobody'"),
        ({"names": ["ends"], "name": "x" * 61}, "at most 60"), ({"names": ["ends"], "name": "a\x1bb"}, "printable"),
        ({"names": ["ends"], "expires_at": clock.now()}, "choose a later time"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=sentence):
            live.run(tokens.create_token(runtime.store, clock, **options))


async def test_expired_tokens_open_nothing() -> None:
    with served() as live:
        live.create("ada")
        clock = FixedClock()
        live.service.runtime.clock = clock
        secret, _ = make_token(live, "ada", expires_at=clock.now() + timedelta(hours=1))
        status = [
            live.ask("POST", "/mcp", INITIALIZE, authorization=f"Bearer {secret}", accept=BOTH)[0]
            for _ in (None, clock.advance(timedelta(hours=1)))
        ]
    assert status == [401, 401]


def test_tokens_on_the_command_line(tmp_path: Path, forks: Forks) -> None:
    def typed(*words: str) -> tuple[int, str]:
        done = forks.run(list(words), "", environment(tmp_path / "home"), tmp_path)
        return done.returncode, done.stdout or done.stderr

    for name in ("ada", "bob"):
        typed("agents", "create", name)
    code, shown = typed(
        "token", "create", "--agent", "ada", "--agent", "bob", "--name", "lap", "--expires", "2h", "--json"
    )
    made = json.loads(shown)
    assert (code, made["agents"], made["kind"], made["read_only"]) == (0, ["ada", "bob"], "shared", False)
    assert made["token"].startswith(tokens.PREFIX)
    code, shown = typed("token", "create", "--agent", "ada", "--read-only")
    assert (code, f": {tokens.PREFIX}" in shown, "personal, read-only: ada" in shown) == (0, True, True)
    listed = typed("token", "list")[1]
    assert f"{made['id']}  lap  shared: ada, bob  until 2" in listed
    assert tokens.PREFIX not in listed
    assert "token" not in json.loads(typed("token", "list", "--json")[1])[0]
    assert typed("token", "revoke", made["id"]) == (0, f"revoked token {made['id']} (lap)\n")
    for words, sentence in (
        (("revoke", made["id"]), "`agentos token list` shows all"),
        (("create", "--agent", "eve"), "there is no agent 'eve'"),
        (("create", "--agent", "ada", "--expires", "soon"), "write it like 90d, 12h or 2027-01-31"),
        (("create", "--agent", "ada", "--expires", "2020-01-01"), "choose a later time"),
    ):
        code, shown = typed("token", *words)
        assert (code, sentence in shown) == (2, True), shown


async def test_tokens_and_changes_are_kept_in_either_database(either_home: Home) -> None:
    agent = await either_home.agent(FunctionLLM(lambda request: "ok"))
    store, clock = either_home.store, either_home.clock
    secret, token = await tokens.create_token(store, clock, ["ada"], read_only=True, name="lap_top%")
    grant = await tokens.find_grant(store, clock, secret)
    assert grant == tokens.Grant(frozenset({agent.id}), True, "lap_top%", token.id)
    assert await store.read(tokens.tokens) == [token]
    passage = Passage(0, agent.id, "tea", "client", clock.now())
    await store.write(lambda tx: tx.add_passage(passage, Cause(agent.id, "client", client="Desk from Top")))
    [change] = await store.read(lambda tx: values.changes_value(tx, agent.id, 0, None, 10, ("passage.",)))
    assert (change["actor"], change["client"], change["changes"]) == ("client", "Desk from Top", "+ tea")
    assert await store.read(lambda tx: values.changes_value(tx, agent.id, change["id"], None, 10)) == []
    await tokens.revoke_token(store, token.id)
    assert await tokens.find_grant(store, clock, secret) is None


def test_requests_are_checked_before_they_are_read(live: Served) -> None:
    live.create("checked")
    assert live.ask("GET", "/mcp", accept=BOTH)[0] == 405  # there is nothing that the server would tell unasked
    for headers in ({"origin": "http://evil.example"}, {"origin": "null"}, {"host": "evil.example"}):
        assert live.ask("POST", "/mcp", INITIALIZE, accept=BOTH, **headers)[0] == 403
    assert live.ask("POST", "/mcp", b"{", accept=BOTH)[0] == 400
    for kind in ("", "text/plain", "application/jsonx"):
        status, value, _ = live.ask("POST", "/mcp", INITIALIZE, accept=BOTH, content_type=kind)
        assert (status, "Content-Type: application/json" in value["detail"]) == (400, True)
    assert live.ask("POST", "/mcp", INITIALIZE, accept="text/html")[0] == 406
    _, _, headers = live.ask("POST", "/mcp", INITIALIZE, accept=BOTH)
    session = headers["mcp-session-id"]
    ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
    assert live.ask("POST", "/mcp", ping, accept=BOTH, mcp_session_id=session)[0] == 200
    secret, _ = make_token(live, "checked")
    other = {"authorization": f"Bearer {secret}", "mcp_session_id": session}
    assert live.ask("POST", "/mcp", ping, accept=BOTH, **other)[0] == 404  # the session of another token
    assert live.ask("DELETE", "/mcp", **other)[0] == 404
    assert live.ask("DELETE", "/mcp", mcp_session_id=session)[0] == 200
    assert live.ask("POST", "/mcp", ping, accept=BOTH, mcp_session_id=session)[0] == 404


# hostile input


async def test_any_text_is_kept_as_text(live: Served) -> None:
    live.create("odd")
    odd = "tea \x00\x1b[31m\u202e \U0001f375 </block> <script>"
    async with client(live) as mcp:
        stored = await ok(mcp, "remember", agent="odd", content=odd, tags=["\x1b[2J"], source="\x07")
        [hit] = (await ok(mcp, "recall", agent="odd", query="tea"))["hits"]
        assert hit["text"] == odd.replace("\x00", "\ufffd")
        assert (await ok(mcp, "forget", agent="odd", id=stored["id"]))["forgotten"]
    # what the client's own JSON would refuse to send
    call = {"name": "remember", "arguments": {"agent": "odd", "content": "half \ud83c tea", "tags": ["\udfff"]}}
    _, _, headers = live.ask("POST", "/mcp", INITIALIZE, accept=BOTH)
    again = {"accept": BOTH, "mcp_session_id": headers["mcp-session-id"]}
    live.ask("POST", "/mcp", {"jsonrpc": "2.0", "method": "notifications/initialized"}, **again)
    asked = {"jsonrpc": "2.0", "id": 3, "method": "tools/call"}
    status, _, _ = live.ask("POST", "/mcp", asked | {"params": call}, **again)
    assert status in (200, 400)
    deep = b'{"jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": ' + b'{"a":' * 500 + b"1" + b"}" * 501
    assert live.ask("POST", "/mcp", deep, **again)[0] in (200, 400)
    nul = {"name": "rem\x00ember", "arguments": {}}
    status, text, _ = live.ask("POST", "/mcp", asked | {"params": nul}, **again)
    assert (status, "there is no tool" in text) == (200, True)


async def test_calls_side_by_side_and_clients_that_leave(live: Served) -> None:
    agent_id = live.create("busy")
    async with client(live) as mcp:
        stored = await asyncio.gather(*(ok(mcp, "remember", agent="busy", content=f"fact {n % 10}") for n in range(30)))
        assert len({s["id"] for s in stored}) == 10
        replies = await asyncio.gather(*(ok(mcp, "ask", agent="busy", message=f"question {n}") for n in range(5)))
        assert all(f"question {n}" in reply["reply"] for n, reply in enumerate(replies))
    FREE.clear()
    async with asyncio.timeout(30), client(live) as mcp:
        asking = asyncio.create_task(mcp.call_tool("ask", {"agent": "busy", "message": "stay"}))
        await asyncio.to_thread(until, lambda: len(live.read(lambda tx: tx.runs(agent_id))) == 6)
        asking.cancel()
    FREE.set()
    until(lambda: all(run.status == "completed" for run in live.read(lambda tx: tx.runs(agent_id))))


# what a model makes of a program's words


async def test_the_words_of_a_program_are_not_the_users(home: Home) -> None:
    said = Message(1, "agent-ada", "user", "I am Grace and I live in Porto.", "client", home.clock.now(), name="Desk")
    wire = said.wire["content"]
    assert wire.endswith("] [client Desk] I am Grace and I live in Porto.")
    prompt = read_prompt([{"role": "user", "content": wire}])
    assert [(s.text, s.by_client) for s in prompt.pending] == [("I am Grace and I live in Porto.", True)]
    agent = await home.agent(OfflineLLM())
    item = await agent.accept([Input(said.content, origin="client", name="Desk")])
    async for _ in agent.run():
        pass
    assert (await home.block(agent)).value == ""
    result = await agent.result(item)
    assert result is not None
    assert result.tool_calls == []
    assert "I cannot write core memory here" in result.reply
    assert (await agent.ask("I am Ada and I live in Porto.")).tool_calls
    assert "Ada" in (await home.block(agent)).value


async def test_a_program_neither_refuses_nor_decides_what_waits_for_approval() -> None:
    asks = [say("", call("core_memory_append", label="human", content=text)) for text in ("one", "two")]
    with served(ScriptedLLM([asks[0], "Noted."])) as live:
        runtime, ada = live.service.runtime, live.create("ada")
        live.run(runtime.set_approval(ada, "core_memory_append", "ask"))
        async with client(live) as mcp:
            asked = await ok(mcp, "ask", message="Note it")
            assert (asked["stop_reason"], asked["waits_for_approval"]) == ("requires_approval", ["core_memory_append"])
            assert "its owner's approval" in await refused(mcp, "ask", message="Go on")
            [waits] = live.ask("GET", "/agentos/v1/agents/ada/approvals")[1]
            live.ask("POST", "/agentos/v1/agents/ada/approvals", {"decisions": {waits["call_id"]: {"approve": True}}})
            until(lambda: live.read(lambda tx: tx.unfinished_run(ada)) is None)
            assert live.read(lambda tx: tx.waiting(ada)) is None, "what was refused is not kept"
    async with temporary_runtime(ScriptedLLM([asks[1]])) as runtime:  # over stdio, behind a turn that stops
        agent = await runtime.agent("ada")
        await runtime.set_approval(agent.id, "core_memory_append", "ask")
        await agent.accept(["Note it"])
        shared = SharedMemory(runtime, _asking(runtime))
        for said in ("the message is saved", "ask again later"):
            with pytest.raises(ToolError, match=said):
                await shared.call(tokens.Grant(), "Desk", "ask", {"message": "And this"})


async def test_a_question_behind_a_turn_that_stops_for_approval_is_answered() -> None:
    free = threading.Event()

    async def model(request: LLMRequest) -> Any:
        await asyncio.to_thread(free.wait, 20)
        return say("", call("core_memory_append", label="human", content="one"))

    with served(FunctionLLM(model)) as live:
        runtime, ada = live.service.runtime, live.create("ada")
        live.run(runtime.set_approval(ada, "core_memory_append", "ask"))
        live.run(live.service.dispatcher.accept(ada, ["Note it"]))
        async with client(live) as mcp:
            asked = asyncio.create_task(refused(mcp, "ask", message="And this"))
            await asyncio.to_thread(until, lambda: len(live.read(lambda tx: tx.open_runs(ada))) == 2)
            free.set()
            assert "the message is saved and will be answered" in await asyncio.wait_for(asked, 20)
            assert live.read(lambda tx: tx.waiting(ada)) is not None


async def test_what_was_forgotten_is_no_resource(live: Served) -> None:
    ada = live.create("forgetful")
    async with client(live) as mcp:
        tea = await ok(mcp, "remember", agent="forgetful", content="likes tea")
        cake = await ok(mcp, "remember", agent="forgetful", content="likes cake")
        coffee = await ok(mcp, "update_memory", agent="forgetful", target=tea["id"], content="likes coffee")
        await ok(mcp, "forget", agent="forgetful", id=cake["id"])

        async def text(ref: str) -> str:
            return str((await mcp.read_resource(f"agentos://forgetful/memory/{ref}")).contents[0].text)

        assert await text(coffee["id"]) == "likes coffee"
        assert re.fullmatch(
            rf"\[superseded by {coffee['id']}; it was valid from \d{{4}}-\d\d-\d\d to \d{{4}}-\d\d-\d\d\]\nlikes tea",
            await text(tea["id"]),
        )
        with pytest.raises(MCPError, match=f"no memory '{cake['id']}'"):
            await text(cake["id"])
        live.run(undo_last(live, ada))
        assert await text(cake["id"]) == "likes cake"


async def test_all_that_a_client_wrote_is_taken_back_over_http(live: Served) -> None:
    ada = live.create("written")
    token = live.run(tokens.create_token(live.service.store, live.service.runtime.clock, ["written"], name="laptop"))[0]
    async with client(live, token) as mcp:
        for fact in ("likes tea", "likes cake"):
            await ok(mcp, "remember", content=fact)
    name = "Desk from Top (laptop)"
    query = urllib.parse.urlencode({"client": name})
    history = live.ask("GET", f"/agentos/v1/agents/written/history?{query}")[1]
    assert [(e["client"], e["action"], e["note"]) for e in history] == [(name, "passage.insert", "")] * 2
    [link] = live.ask("GET", f"/agentos/v1/agents/written/history/source?{query}")[1]
    assert link["what"] == f"written by the client {name!r}"
    page = live.ask("GET", "/agents/written/timeline")[1]
    assert f'href="/agents/written/timeline?{query}"' in page
    page = live.ask("GET", f"/agents/written/timeline?{query}")[1]
    assert "Undo all of it" in page
    assert f'<input type="hidden" name="client" value="{name}">' in page
    undo = "/agentos/v1/agents/written/undo"
    for wrong in ({"client": name, "run_id": "run-1"}, {"since": "2026-05-08T00:00:00Z"}, {"client": "Desk"}):
        assert live.ask("POST", undo, wrong)[0] == 400
    assert live.ask("POST", undo, {"client": name, "since": "2026-05-08"})[0] == 422, "no time"
    assert live.ask("POST", undo, {"client": name, "since": "2099-05-08T00:00:00+00:00"})[0] == 400, "nothing since"
    undone = live.ask("POST", undo, {"client": name, "since": "2020-05-08T00:00:00+00:00"})[1]["undone"]
    assert [one["changes"] for one in undone] == ["- likes cake", "- likes tea"]
    assert live.read(lambda tx: tx.count_passages(ada)) == 0
    assert "What was imported" in live.ask("GET", "/agents/written/timeline?imported=true&actor=import")[1]
    form = urllib.parse.urlencode({"imported": "true"}).encode()
    status, page, _ = live.ask(
        "POST", "/agents/written/timeline/undo", form, content_type="application/x-www-form-urlencoded"
    )
    assert (status, "past conversation, which is not taken back" in str(page)) == (400, True)


async def undo_last(live: Served, agent_id: str) -> None:
    runtime = live.service.runtime
    await curate.undo(runtime.store, runtime.clock, await (await runtime.agent_of(agent_id)).turn())


# over stdio


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "AGENTOS_HOME": str(home), "AGENTOS_MODEL": "offline"}


def command(*options: str) -> list[str]:
    return [sys.executable, "-m", "agentos", "mcp", *options]


async def test_a_client_over_stdio(tmp_path: Path) -> None:
    program, *arguments = command("--agent", "ada", "--agent", "bob")
    process = StdioServerParameters(command=program, args=arguments, env=environment(tmp_path / "home"), cwd=tmp_path)
    async with Client(process, client_info=Implementation(name=NAME, version="1")) as mcp:
        assert mcp.server_info.name == "agentos"
        assert [tool.name for tool in (await mcp.list_tools()).tools] == TOOLS
        assert "there are: ada, bob" in await refused(mcp, "remember", content="x")
        await ok(mcp, "remember", agent="ada", content="Ada likes green tea")
        found = await ok(mcp, "recall", agent="ada", query="green tea", scope="archival")
        assert [hit["text"] for hit in found["hits"]] == ["Ada likes green tea"]
        assert (await ok(mcp, "recall", agent="bob", query="green tea"))["hits"] == []
        reply = await ok(mcp, "ask", agent="ada", message="What do I like?")
        assert "Ada likes green tea" in reply["reply"]
        assert {r.name for r in (await mcp.list_resources()).resources} >= {"ada: human", "bob: human"}
        assert (await mcp.read_resource("agentos://bob/core/human")).contents[0].text == ""
        changes = (await ok(mcp, "list_changes", agent="ada"))["changes"]
        assert ("client", "Desk from Top") in [(c["actor"], c["client"]) for c in changes]


def test_the_handshake_loads_neither_a_database_nor_a_model() -> None:
    code = "import sys, agentos.cli.app, agentos.cli.mcp_server; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "mcp.server.stdio" in loaded
    assert not {"agentos.runtime", "sqlalchemy", "chromadb", "litellm", "wordllama", "numpy"} & set(loaded)


def test_rubbish_on_stdin_is_passed_over_and_stdout_is_the_protocols(tmp_path: Path) -> None:
    calls = [{"jsonrpc": "2.0", "method": "notifications/initialized"}]
    asked: dict[str, Any] = {"jsonrpc": "2.0", "id": 2, "method": "tools/call"}
    calls += [asked | {"params": {"name": "recall", "arguments": {"query": "x"}}}]
    lines = [b"", b"hello", b"{", b"[]", b"\xff\xfe\x00", b'{"jsonrpc": "2.0", "id": 9}', b"x" * 300_000, b'"\\ud800"']
    with subprocess.Popen(
        command("--agent", "ada"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment(tmp_path / "home"), cwd=tmp_path,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n".join([*lines, json.dumps(INITIALIZE).encode(), *lines]) + b"\n")
        process.stdin.write(b"\n".join(json.dumps(call).encode() for call in calls) + b"\n")
        process.stdin.flush()
        answers: dict[Any, Any] = {}
        while 2 not in answers:
            answer = json.loads(process.stdout.readline())
            answers[answer.get("id")] = answer
        assert answers[1]["result"]["serverInfo"]["name"] == "agentos"
        assert answers[2]["result"]["structuredContent"] == {"hits": []}
        process.stdin.close()
        assert process.wait(30) == 0
        assert process.stdout.read() == b""


_KILLED = """
import subprocess, sys
p = subprocess.Popen({command!r}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
p.stdin.write({text!r}); p.stdin.flush()
p.stdout.readline()
print(p.pid, flush=True)
p.wait()
"""


def test_the_server_ends_with_its_client_and_when_told_to(tmp_path: Path) -> None:
    environ = environment(tmp_path / "home")
    call = {"name": "ask", "arguments": {"message": "hi"}}
    told = [INITIALIZE, {"jsonrpc": "2.0", "method": "notifications/initialized"}]
    told.append({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call})
    text = b"".join(json.dumps(line).encode() + b"\n" for line in told)
    code = _KILLED.format(command=command("--agent", "ada"), text=text)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environ, cwd=tmp_path) as client:
        assert client.stdout is not None
        server = int(client.stdout.readline())
        client.kill()  # in the middle of its call
    until(lambda: not _runs(server), "the server outlived its client")
    with subprocess.Popen(
        command("--agent", "ada"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ, cwd=tmp_path
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(text[: text.index(b"\n") + 1])
        process.stdin.flush()
        assert process.stdout.readline()
        process.send_signal(signal.SIGTERM)  # while stdin stays open
        assert process.wait(30) == 0


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_agent_that_is_not_there_cannot_be_read(tmp_path: Path) -> None:
    with subprocess.Popen(
        command("--agent", "nobody", "--read-only"), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env=environment(tmp_path / "home"), cwd=tmp_path,
    ) as process:  # fmt: skip
        assert process.wait(60) == 2
        assert process.stderr is not None
        assert process.stderr.read() == "agentos: there is no agent 'nobody'; `agentos agents list` shows all\n"
