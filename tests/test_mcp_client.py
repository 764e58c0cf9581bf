"""Tools of MCP servers, given to agents: by real servers, and by one that does little right."""

import asyncio
import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentos import values
from agentos.context.validator import violations
from agentos.errors import AgentOSError, Conflict, NotFound, ToolError, UsageError
from agentos.llm.offline import OfflineLLM
from agentos.mcp_client.connection import Connection
from agentos.messages import Reply
from agentos.protocols import Delta, LLMRequest
from agentos.runtime import Runtime
from agentos.settings import Settings
from agentos.store.database import Database
from agentos.store.migrations import migrate
from agentos.testing import ExactIndex, HashEmbedder, ScriptedLLM, call, say, temporary_runtime
from agentos.tools.described import DescribedTool
from agentos.tools.servers import McpServer, StoredServer, listed_tools, read_server, tool_name
from conftest import Home, collect, ending, of
from serving import Served, free_port, served, until
from test_cli import Cli, cli  # noqa: F401  # a fixture

HERE = Path(__file__).parent
ROGUE = HERE / "mcp_rogue.py"
TOOLS = HERE / "mcp_tools.py"
SECRET = "sesame-open-up"


def rogue(way: str = "honest", *args: str, **values: Any) -> McpServer:
    """The server that was written by hand; it starts in no time."""
    return read_server(
        name="rogue", command=sys.executable, args=[str(ROGUE), way, *args], **{"approval": "always"} | values
    )


def gone(pid: int) -> bool:
    """Whether a process has ended; one that only waits to be counted has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@asynccontextmanager
async def given(server: McpServer, llm: Any = None) -> AsyncIterator[tuple[Runtime, StoredServer]]:
    """A home in memory whose agent `ada` has the server."""
    async with temporary_runtime(llm or ScriptedLLM([])) as runtime:
        record = await runtime.create_agent("ada")
        stored, left_out = await runtime.mcp.add(record.id, server)
        assert (stored.problem, left_out) == ("", [])
        yield runtime, stored


async def ask(runtime: Runtime, stored: StoredServer, name: str = "rogue__echo", **arguments: Any) -> str:
    """The result of a call."""
    tool = next(t for t in runtime.mcp.tools(stored) if t.name == name)
    assert isinstance(tool, DescribedTool)
    return str(await tool.function(arguments))


# a real server


async def test_a_turn_calls_the_tools_of_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTES_SECRET", SECRET)
    server = read_server(
        name="notes", command=sys.executable, args=[str(TOOLS)], env={"NOTES_TOKEN": "${NOTES_SECRET}"},
        approval="always", approve={"write": "never", "mail": "ask"},
    )  # fmt: skip
    calls = [
        call("notes__search", query="tea"), call("notes__weather", city="Porto"), call("notes__secret"),
        call("notes__environment"), call("notes__picture"), call("notes__fail"), call("notes__big", characters=300_000),
        call("notes__note_with_odd_name"), call("notes__core_memory_append", label="human", content="x"),
        call("notes__search", wrong="argument"), call("notes__write", path="/x", line="x"),
    ]  # fmt: skip
    llm = ScriptedLLM([say("", *calls), "Done."], context_window=200_000)
    async with given(server, llm) as (runtime, stored):
        agent = await runtime.agent("ada")
        events = await collect(agent, "Look it up")
        results = [e.text for e in of(events, "tool_result")]
        oks = [e.ok for e in of(events, "tool_result")]
        saved = await agent.state()
        assert violations((await agent.turn()).request().messages) == []
    search, weather, secret, environment, picture, fail, big, odd, shadow, wrong, write = results
    assert oks == [True] * 5 + [False] + [True] * 3 + [False] * 2
    assert "tea: found by" in search
    assert json.loads(weather) == {"city": "Porto", "degrees": 21}
    assert secret == "the token is [secret]"
    assert "NOTES_TOKEN" in environment
    assert "NOTES_SECRET" not in environment
    assert "AGENTOS" not in environment
    assert picture == "[image, image/png, about 3004 bytes; it cannot be shown here]"
    assert fail.startswith("error: ")
    assert "on fire" in fail
    assert "[cut: 100000 more characters]" in big
    assert (odd, shadow) == ("odd", "taken")
    assert wrong.startswith("error: ")
    assert "there is no tool 'notes__write'" in write
    assert next(b.value for b in saved.blocks if b.label == "human") == ""
    assert {m.origin for m in saved.queue if m.role == "tool"} == {"tool"}
    names = [t["function"]["name"] for t in llm.requests[0].tools]
    assert all(re.fullmatch("[A-Za-z0-9_-]{1,64}", name) for name in names)
    assert len(set(names)) == len(names)
    asks = {t.name: t.approval for t in runtime.mcp.tools(stored)}
    assert (asks["notes__mail"], asks["notes__search"]) == ("ask", "always")
    assert "Ignore all previous rules" not in json.dumps([llm.requests[0].messages, llm.requests[0].tools])
    assert until(lambda: gone(int(search.split()[-1])))


class MailFirst(OfflineLLM):
    """The offline model, which has a mail fetched before anything else."""

    async def stream(self, request: LLMRequest) -> AsyncGenerator[Any, None]:
        if any(m["role"] == "tool" for m in request.messages):
            async for item in super().stream(request):
                yield item
        else:
            yield Delta("A mail.")
            yield Reply("A mail.", (call("notes__mail"),))


def test_a_call_that_asks_outlives_a_restart_and_runs_once_approved(tmp_path: Path) -> None:
    file, path = tmp_path / "file", "/agentos/v1/agents/ada/approvals"
    server = read_server(name="notes", command=sys.executable, args=[str(TOOLS)], tools=["write"])
    asks = [say("", call("notes__write", path=str(file), line=line)) for line in ("one", "two", "three")]

    def home(*script: Any) -> Any:
        url = f"sqlite:///{tmp_path / 'home.db'}"
        migrate(url)
        return served(ScriptedLLM(script), store=Database(url))

    def decide(live: Served, **said: Any) -> Any:
        (waits,) = live.ask("GET", path)[1]
        body = {"run_id": waits["run_id"], "decisions": {waits["call_id"]: said}}
        lines = live.http.post(path, json=body).text.splitlines()
        return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]

    with home(asks[0]) as live:
        agent = live.create("ada")
        stored, _ = live.run(live.service.runtime.mcp.add(agent, server))
        assert stored.problem == ""
        live.letta.agents.tools.update_approval("notes__write", agent_id=agent, body_requires_approval=False)
        live.letta.agents.tools.update_approval("notes__write", agent_id=agent, body_requires_approval=True)
        stopped = live.letta.agents.messages.create(agent, input="Write it down")
        assert stopped.stop_reason.stop_reason == "requires_approval"
    assert not file.exists()
    with home("Written.", asks[1], "Then not.", asks[2], "Nothing there.") as live:
        (waits,) = live.ask("GET", path)[1]
        assert (waits["name"], waits["arguments"]) == ("notes__write", {"path": str(file), "line": "one"})
        assert live.ask("GET", "/agentos/v1/agents")[1][0]["approvals"] == [waits]
        assert waits["call_id"] in live.http.get("/agents/ada/chat").text
        events = decide(live, approve=True)
        assert [e["text"] for e in events if e["type"] == "tool_result"] == ["written"]
        assert (events[-1]["reply"], events[-1]["stop_reason"]) == ("Written.", "end_turn")
        assert [line.split()[0] for line in file.read_text().splitlines()] == ["one"]
        live.letta.agents.messages.create(agent, input="Another")
        events = decide(live, approve=False, reason="not there")
        assert [(e["ok"], e["text"]) for e in events if e["type"] == "tool_result"] == [
            (False, "error: the user did not approve this call: not there")
        ]
        live.letta.agents.messages.create(agent, input="And another")
        live.run(live.service.runtime.mcp.remove(agent, "notes"))  # what is approved then is an error
        assert not [e for e in decide(live, approve=True) if e["type"] == "tool_result" and e["ok"]]
    assert len(file.read_text().splitlines()) == 1


async def test_an_agents_own_approval_of_a_servers_tool_ends_with_the_server() -> None:
    async with given(rogue(approval="ask")) as (runtime, stored):

        async def shown() -> list[str]:
            def work(tx: Any) -> list[str]:
                record = tx.agent(stored.agent_id)
                value = values.mcp_server_value(tx.mcp_servers(record.id)[0], record)
                return [tool["approval"] for tool in value["tools"]]

            return await runtime.store.read(work)

        assert await shown() == ["ask"]
        for approval in ("always", "never"):
            await runtime.set_approval(stored.agent_id, "rogue__echo", approval)  # type: ignore[arg-type]
            assert await shown() == [approval]
        await runtime.mcp.remove(stored.agent_id, "rogue")
        await runtime.mcp.add(stored.agent_id, stored.server)
        assert await shown() == ["ask"]


async def test_instructions_in_a_result_reach_no_memory() -> None:
    server = read_server(name="notes", command=sys.executable, args=[str(TOOLS)], approval="always", tools=["mail"])
    async with given(server, MailFirst()) as (runtime, _):
        agent = await runtime.agent("ada")
        events = await collect(agent, "Is there mail? My name is Ada.")
        assert "Mallory" in of(events, "tool_result")[0].text
        await collect(agent, "What is my name?")
        values = [b.value for b in (await agent.state()).blocks]
        passages = await runtime.store.read(lambda tx: tx.recent_passages(agent.id))
    assert "Mallory" not in json.dumps([values, [p.text for p in passages]])


def test_a_server_over_http_is_seen_by_letta_and_by_the_doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTES_SECRET", SECRET)
    port = free_port()
    process = subprocess.Popen([sys.executable, str(TOOLS), "--http", port], stderr=subprocess.DEVNULL)
    server = read_server(
        name="notes", url=f"http://127.0.0.1:{port}/mcp", headers={"Authorization": "Bearer ${NOTES_SECRET}"},
        tools=["search", "weather"], approve={"weather": "always"},
    )  # fmt: skip
    llm = ScriptedLLM([say("", call("notes__weather", city="Porto")), "Warm."])
    try:
        with served(llm) as home:
            agent = home.create("ada")
            mcp = home.service.runtime.mcp
            stored = until(lambda: home.run(_reached(mcp, agent, server)))
            home.letta.agents.messages.create(agent, input="How warm is it?")
            said = home.read(lambda tx: [m.content for m in tx.history(agent, True, None, None, 100)])
            assert any('"degrees": 21' in text for text in said), said
            tools = {tool.name: tool for tool in home.letta.agents.tools.list(agent, limit=100)}
            assert tools["notes__search"].tool_type == "external_mcp"
            assert tools["notes__search"].default_requires_approval is True
            assert tools["notes__weather"].default_requires_approval is False
            exported = json.loads(home.letta.agents.export_file(agent))
            assert not [t for t in exported["tools"] if t["tool_type"] == "external_mcp"]
            assert home.ask("GET", "/v1/mcp-servers/")[0] == 501
            assert home.run(mcp.check(stored)) == ""
            process.kill()
            process.wait()
            with pytest.raises(AgentOSError, match="MCP server 'notes' cannot be used"):
                home.run(ask(home.service.runtime, stored, "notes__weather", city="Porto"))
            assert "cannot be used" in home.run(mcp.check(stored))
    finally:
        process.kill()
        process.wait()


async def _reached(mcp: Any, agent_id: str, server: McpServer) -> StoredServer | None:
    """The server once it listens."""
    try:
        stored, _ = await mcp.add(agent_id, server)
    except Conflict:
        stored, _ = await mcp.ask(agent_id, server.name)
    await asyncio.sleep(0.05)
    return None if stored.problem else stored


# one that lies


@pytest.mark.parametrize(
    ("way", "error"),
    [
        ("wrong id", "did not answer within 0.5 seconds; what was asked may have happened"),
        ("endless", "sent more than 8 MiB for one request; what was asked may have happened"),
        ("flood", "sent more than 8 MiB for one request"),
        ("rubbish", "what it prints are no MCP messages"),
        ("no result", "not what MCP asks for"),
        ("error", r"^(no ){666}"),
        ("die", "it ended and said last: I .*fell; what was asked may have happened"),
    ],
)
async def test_a_lie_costs_one_call(way: str, error: str) -> None:
    async with given(rogue()) as (runtime, stored):
        seconds = 0.5 if way == "wrong id" else 60.0
        hasty = replace(stored, server=stored.server.model_copy(update={"timeout_seconds": seconds}))
        with pytest.raises(AgentOSError, match=error) as raised:
            await ask(runtime, hasty, way=way)
        assert len(str(raised.value)) < 3000
        if isinstance(raised.value, ToolError):  # the server is still there
            assert "again" in await ask(runtime, stored, way="again")
        else:
            with pytest.raises(AgentOSError, match=r"tried again in \d seconds"):
                await ask(runtime, stored)


async def test_a_server_that_died_is_started_again_after_a_rest() -> None:
    async with given(rogue()) as (runtime, stored):
        first = await ask(runtime, stored)
        with pytest.raises(AgentOSError, match="may have happened"):
            await ask(runtime, stored, way="die")
        with pytest.raises(ToolError, match=r"it ended and said last: .* it is tried again in 1 seconds"):
            await ask(runtime, stored)
        await asyncio.sleep(1.05)  # whoever asks meanwhile does not make it longer
        assert await ask(runtime, stored) != first


async def test_what_we_do_not_offer_is_refused_and_the_call_goes_on() -> None:
    async with given(rogue("banner")) as (runtime, stored):
        assert "echo of" in await ask(runtime, stored, way="asks")
        assert "echo of" in await ask(runtime, stored, way="stderr")
        parts = (await ask(runtime, stored, way="parts")).split("\n")
        assert parts == [
            "words", "[audio, audio/wav, about 3 bytes; it cannot be shown here]", "[resource a: file:///a]",
            "[resource file:///b]", "read me", "[resource file:///c, binary, about 3 bytes; it cannot be shown here]",
            '{"a": 1}',
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("server", "error"),
    [
        (rogue("silent", timeout_seconds=0.3), "it was not ready within 0.3 seconds"),
        (rogue("other"), "not what MCP asks for"),
        (rogue("pages"), "more than 20 pages"),
        (rogue("no list"), "not what MCP asks for"),
        (rogue().model_copy(update={"command": "/no/such/program"}), "/no/such/program is not there"),
        (rogue(cwd="/no/such/folder"), "/no/such/folder is not there"),
        (rogue(env={"A": "${NOT_SET_ANYWHERE}"}), "the environment variable NOT_SET_ANYWHERE is not set"),
        (read_server(name="rogue", command=sys.executable, args=["-c", "raise SystemExit('no key')"]), "no key"),
        (read_server(name="rogue", url="http://127.0.0.1:9/mcp"), "cannot be used"),
    ],
)
async def test_a_server_that_cannot_be_asked_is_saved_without_tools(server: McpServer, error: str) -> None:
    async with temporary_runtime(ScriptedLLM(["Hello."])) as runtime:
        record = await runtime.create_agent("ada")
        stored, _ = await runtime.mcp.add(record.id, server)
        assert stored.tools is None
        assert error in stored.problem
        assert (await (await runtime.agent("ada")).ask("Hi")).reply == "Hello."
        with pytest.raises(Conflict, match="remove it first"):
            await runtime.mcp.add(record.id, server)
        await runtime.mcp.remove(record.id, "rogue")
        with pytest.raises(NotFound, match="no MCP server"):
            await runtime.mcp.ask(record.id, "rogue")


@pytest.mark.parametrize(
    ("headers", "part", "error"),
    [
        ("Content-Type: application/json", b" " * (1 << 20), "sent more than 8 MiB for one request"),
        ("Content-Type: text/event-stream", b": " + b"x" * (1 << 20) + b"\n", "ended without a response"),
        ("Content-Type: application/json\r\nContent-Encoding: gzip", b"x", "a packed body"),
        ("Content-Type: text/html", b"<p>Hello</p>", "Unexpected content type"),
        ("Content-Type: application/json", b"your key is x", "cannot be used: the server's answer is not what MCP"),
    ],
)
async def test_a_body_without_end_is_broken_off(headers: str, part: bytes, error: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\n{headers}\r\n\r\n".encode())
        with suppress(ConnectionError):
            for _ in range(20):
                writer.write(part)
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as web, temporary_runtime(ScriptedLLM([])) as runtime:
        port = web.sockets[0].getsockname()[1]
        record = await runtime.create_agent("ada")
        server = read_server(name="web", url=f"http://127.0.0.1:{port}/mcp", timeout_seconds=20)
        stored, _ = await runtime.mcp.add(record.id, server)
    assert error in stored.problem


async def test_more_tools_than_there_is_room_for_are_refused() -> None:
    async with temporary_runtime(ScriptedLLM([], context_window=12_000)) as runtime:
        record = await runtime.create_agent("ada")
        with pytest.raises(UsageError, match="10000 tools and may have 100"):
            await runtime.mcp.add(record.id, rogue("many"))
        with pytest.raises(UsageError, match="half of the window"):
            await runtime.mcp.add(record.id, rogue("several"))
        assert await runtime.store.read(lambda tx: tx.mcp_servers()) == []
        stored, _ = await runtime.mcp.add(record.id, rogue("several", tools=["tool_0", "tool_1"]))
        assert [tool["name"] for tool in stored.tools or ()] == ["rogue__tool_0", "rogue__tool_1"]


async def test_odd_tools_are_named_anew_or_left_out() -> None:
    async with temporary_runtime(ScriptedLLM([])) as runtime:
        record = await runtime.create_agent("ada")
        stored, left_out = await runtime.mcp.add(record.id, rogue("odd"))
    tools = stored.tools or ()
    names = [tool["name"] for tool in tools]
    assert len(set(names)) == len(names) == 6
    assert all(re.fullmatch("rogue__[A-Za-z0-9_-]{1,57}", name) for name in names)
    assert [len(tool["description"]) for tool in tools if tool["tool"] == "echo"] == [1000]
    assert len(left_out) == 1
    assert "50000" in left_out[0]


async def test_processes_and_their_children_are_gone_with_the_runtime(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    async with given(rogue("stubborn", str(file))) as (runtime, stored):
        task = asyncio.create_task(ask(runtime, stored, way="never"))
        await asyncio.sleep(0.05)
        pids = list(map(int, file.read_text().split()))
        assert not any(map(gone, pids))
    assert all(until(lambda pid=pid: gone(pid)) for pid in pids)
    with pytest.raises(AgentOSError, match="may have happened"):
        await task


async def test_an_idle_connection_ends_by_itself() -> None:
    connection = Connection(rogue(), {"url": ""}, idle_seconds=0.05)
    await connection.open()
    pid = int((await connection.call("echo", {})).split()[-1])
    await asyncio.to_thread(until, lambda: not connection.alive)
    await connection.close()
    assert gone(pid)


# tools are saved


async def test_saved_tools_stay_until_they_are_asked_for_anew(tmp_path: Path) -> None:
    file = tmp_path / "tools"
    file.write_text("b a")
    llm = ScriptedLLM(["One.", "Two.", "Three.", "Four."])
    async with given(rogue("changing", str(file)), llm) as (runtime, stored):
        agent = await runtime.agent("ada")
        await agent.ask("1")
        file.write_text("a c")
        await (await runtime.agent_of(agent.id)).ask("2")
        assert llm.requests[0].tools == llm.requests[1].tools
        assert llm.requests[1].messages[: len(llm.requests[0].messages)] == llm.requests[0].messages
        await runtime.mcp.ask(agent.id, "rogue")
        again = await runtime.agent_of(agent.id)
        await again.ask("3")
        names = [[t["function"]["name"] for t in request.tools][-2:] for request in llm.requests]
        assert names == [["rogue__a", "rogue__b"]] * 2 + [["rogue__a", "rogue__c"]]
        rebases = await runtime.store.read(lambda tx: tx.events(agent.id, actions=("rebase",)))
        assert rebases[0]["note"] == "tools"
        assert len(rebases) == 2
        os.remove(file)
        await runtime.mcp.close()
        stored, _ = await runtime.mcp.ask(agent.id, "rogue")
        assert "cannot be used" in stored.problem
        await (await runtime.agent_of(agent.id)).ask("4")
        assert llm.requests[3].tools == llm.requests[2].tools


async def test_a_persona_brings_servers_and_nothing_is_started_for_a_turn(tmp_path: Path) -> None:
    folder = tmp_path / "personas" / "ops"
    folder.mkdir(parents=True)
    (folder / "server.py").write_text(ROGUE.read_text() + "\n")
    front = {"name": "rogue", "command": sys.executable, "args": ["server.py", "honest"], "approval": "always"}
    persona = f"---\nmcp_servers:\n  - {json.dumps(front)}\n---\nYou run things.\n"
    (folder / "persona.md").write_text(persona)
    settings = Settings(home=tmp_path / "home", personas=folder.parent)
    parts: dict[str, Any] = {"embedder": HashEmbedder(), "index": ExactIndex()}
    async with Runtime(settings, llm=(llm := ScriptedLLM(["Hello."])), **parts) as runtime:
        await (await runtime.agent("ada", persona="ops")).ask("Hi")
        assert llm.requests[0].tools[-1]["function"]["name"] == "rogue__echo"
    (folder / "server.py").unlink()  # the next start does without it
    llm = ScriptedLLM([say("", call("rogue__echo")), "It is gone."])
    async with Runtime(settings, llm=llm, **parts) as runtime:
        result = await (await runtime.agent("ada")).ask("Hi")
        assert (result.reply, result.tool_calls[0]["ok"]) == ("It is gone.", False)
        assert "cannot be used" in llm.requests[1].messages[-1]["content"]
    for wrong, sentence in (("{name: A}", "mcp_servers.0.name"), ("{name: a}", "a command or a url")):
        (folder / "persona.md").write_text(f"---\nmcp_servers: [{wrong}]\n---\n")
        async with temporary_runtime(ScriptedLLM([]), settings=settings) as runtime:
            with pytest.raises(AgentOSError, match=sentence):
                await runtime.agent("eve", persona="ops")


async def test_servers_are_rows_of_their_agent(either_home: Home) -> None:
    ada, eve = await either_home.agent(ScriptedLLM([])), await either_home.agent(ScriptedLLM([]), name="eve")
    now = either_home.clock.now()
    tool = {"tool": "echo", "name": "rogue__echo", "description": "", "parameters": {"type": "object"}}
    stored = StoredServer(ada.id, rogue(), now, (tool,))
    for one in (stored, replace(stored, agent_id=eve.id, tools=None, problem="gone"), stored):
        await either_home.store.write(lambda tx, one=one: tx.save_mcp_server(one))
    found = await either_home.store.read(lambda tx: tx.mcp_servers(ada.id))
    assert [replace(s, revision="") for s in found] == [stored]
    assert found[0].revision
    assert len(await either_home.store.read(lambda tx: tx.mcp_servers())) == 2
    await either_home.store.write(lambda tx: tx.delete_agent(ada.id))
    assert [s.problem for s in await either_home.store.read(lambda tx: tx.mcp_servers())] == ["gone"]
    with pytest.raises(NotFound, match="deleted"):
        await either_home.store.write(lambda tx: tx.save_mcp_server(stored))


def test_names_are_the_same_each_time_and_clash_with_none_of_ours() -> None:
    assert tool_name("git", "core_memory_append") == "git__core_memory_append"
    assert tool_name("git", "x" * 100) == tool_name("git", "x" * 100)
    assert len(tool_name("git", "x" * 100)) == 64
    listed = [("a b", "", {}), ("a.b", "x\x00\n y", {}), ("a", "", None)]
    server = read_server(name="git", command="git")
    tools, left_out = listed_tools(server, listed)
    assert (tools, left_out) == listed_tools(server, listed[::-1])
    assert [tool["tool"] for tool in tools] == ["a", "a b", "a.b"]
    assert len({tool["name"] for tool in tools}) == 3
    assert tools[2]["description"] == "x\ufffd y"
    approving = read_server(name="git", command="git", approve={"delete": "never"})
    assert "has no tool 'delete'" in listed_tools(approving, listed)[1][0]
    with pytest.raises(UsageError, match="no tool 'c'"):
        listed_tools(read_server(name="git", command="git", tools=["a", "c"]), listed)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"name": "Bad Name", "url": "http://x"}, "name: use at most 32 small letters, digits, - and _"),
        ({"name": "a__b", "url": "http://x"}, "name: "),
        ({"name": "a", "url": "http://x", "command": "x"}, "a command or a url"),
        ({"name": "a", "url": "http://x", "args": ["x"]}, "go with a command"),
        ({"name": "a", "command": "x", "headers": {"A": "b"}}, "headers go with a url"),
        ({"name": "a", "url": "ftp://x"}, "http://"),
        ({"name": "a", "url": "http://me:pass@x"}, "password"),
        ({"name": "a", "url": "http://x", "headers": {"A": "b\r\nC: d"}}, "headers.A"),
        ({"name": "a", "url": "http://x", "approve": {"x": "perhaps"}}, "approve.x"),
        ({"name": "a", "url": "http://x", "timeout_seconds": 0}, "timeout_seconds"),
    ],
)
def test_a_server_that_makes_no_sense_is_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=re.escape(sentence)):
        read_server(**values)


# a crash


_TURN = """
import asyncio, sys
from pathlib import Path
from agentos.runtime import Runtime
from agentos.settings import Settings
from agentos.testing import ExactIndex, HashEmbedder, ScriptedLLM, call, say
from agentos.tools.servers import read_server

async def main(home, tools, file):
    server = read_server(name="notes", command=sys.executable, args=[tools], approval="always", tools=["write"])
    script = [say("", call("notes__write", path=file, line="once", seconds=60)), "Done."]
    parts = {"llm": ScriptedLLM(script), "embedder": HashEmbedder(), "index": ExactIndex()}
    async with Runtime(Settings(home=Path(home)), **parts) as runtime:
        await runtime.mcp.add((await runtime.create_agent("ada")).id, server)
        await (await runtime.agent("ada")).ask("Write it down", otid="o1")

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_call_that_a_kill_interrupted_may_have_happened(tmp_path: Path) -> None:
    home, file = tmp_path / "home", tmp_path / "file"
    process = subprocess.Popen([sys.executable, "-c", _TURN, str(home), str(TOOLS), str(file)])  # noqa: ASYNC220
    line = await asyncio.to_thread(until, lambda: file.exists() and file.read_text())
    process.send_signal(signal.SIGKILL)
    process.wait()
    await asyncio.to_thread(until, lambda: gone(int(line.split()[1])))
    parts: dict[str, Any] = {"embedder": HashEmbedder(), "index": ExactIndex()}
    async with Runtime(Settings(home=home), llm=ScriptedLLM(["It may be written."]), **parts) as runtime:
        agent = await runtime.agent("ada")
        events = await collect(agent, "Write it down", otid="o1")
    assert of(events, "tool_result")[0].text == "error: interrupted, may have happened; check before you do it again"
    assert ending(events).reply == "It may be written."
    assert len(file.read_text().splitlines()) == 1


# the command line


def test_servers_by_command(cli: Cli) -> None:  # noqa: F811
    cli.ok("agents", "create", "ada")
    words = ["mcp", "add", "rogue", "--agent", "ada", "--env", "KEY=${ROGUE_SECRET}", "--env", "PLAIN=word-of-honour"]
    command = ["--approve", "echo=always", "--", sys.executable, str(ROGUE), "honest"]
    unset = cli(*words, *command)
    assert unset.returncode == 0
    assert "ROGUE_SECRET is not set" in unset.stderr
    assert "agentos mcp test rogue --agent ada" in unset.stderr
    assert cli("mcp", "test", "rogue", "--agent", "ada").returncode == 1
    env = {"ROGUE_SECRET": SECRET}
    tested = cli("mcp", "test", "rogue", "--agent", "ada", env=env)
    assert (tested.returncode, tested.stdout) == (0, "rogue answers: 1 tool: rogue__echo\n")
    (one,) = cli.json("mcp", "list", "--agent", "ada")
    assert one["env"] == {"KEY": "${ROGUE_SECRET}", "PLAIN": "(hidden)"}
    assert [(tool["name"], tool["approval"]) for tool in one["tools"]] == [("rogue__echo", "always")]
    assert one["cwd"] == str(cli.home.parent)
    assert "rogue__echo" in cli.ok("mcp", "list")
    assert "mcp       1 of 1 servers in order" in cli("doctor", env=env).stdout
    assert "ROGUE_SECRET is not set" in cli("doctor").stdout
    with sqlite3.connect(cli.home / "agentos.db") as database:
        dump = "\n".join(database.iterdump())
    assert "${ROGUE_SECRET}" in dump
    assert SECRET not in dump
    for arguments, sentence in (
        (["add", "rogue", "--agent", "ada", "--url", "http://x"], "remove it first"),
        (["add", "a", "--agent", "ada"], "a command or a url"),
        (["add", "a", "--agent", "ada", "--url", "http://x", "--header", "nothing"], "--header takes NAME:VALUE"),
        (["remove", "nothing", "--agent", "ada"], "no MCP server 'nothing'"),
    ):
        done = cli("mcp", *arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert sentence in done.stderr
        assert len(done.stderr.splitlines()) == 1
    cli.ok("mcp", "remove", "rogue", "--agent", "ada")
    assert cli.json("mcp", "list") == []


def test_a_chat_without_servers_does_not_load_mcp(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['agentos', 'chat', '-p', 'hi']\n"
        "from agentos.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('mcp', 'mcp_types', 'httpx2') if m in sys.modules])"
    )
    env = {**os.environ, "AGENTOS_HOME": str(tmp_path), "AGENTOS_MODEL": "offline"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_what_the_page_shows_runs(cli: Cli) -> None:  # noqa: F811
    page = (HERE.parent / "docs/mcp-tools.md").read_text()
    cli.home.parent.joinpath("notes.py").write_text(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1])  # type: ignore[index]
    cli.env["PATH"] = f"{Path(sys.executable).parent}:{cli.env['PATH']}"
    said = []
    for command in re.findall(r"^\$ agentos (.*)$", page, re.MULTILINE):
        done = cli(*shlex.split(command))
        assert done.returncode == 0, done
        said.append(done.stdout)
    assert "notes__search (always)" in said[2]
    assert said[3] == "notes answers: 1 tool: notes__search\n"
    options = cli("mcp", "add", "--help").stdout
    assert set(re.findall(r"^\| `(--\w+)", page, re.MULTILINE)) == set(re.findall(r"--\w+", options)) - {"--help"}
    front = yaml.safe_load(re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1])  # type: ignore[index]
    assert [read_server(**server).name for server in front["mcp_servers"]] == ["notes", "wiki"]
