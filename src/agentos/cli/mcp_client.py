"""What `agentos mcp add|list|test|remove` does."""

import os
from typing import Any

from rich.text import Text

from agentos import values
from agentos.cli.opening import blocking, existing, open_runtime
from agentos.cli.output import complain, line, safe, show, show_json
from agentos.errors import UsageError
from agentos.tools.servers import McpServer, StoredServer, read_server


def given_server(
    name: str, command: list[str], url: str | None, headers: list[str], env: list[str], cwd: str | None,
    tools: list[str] | None, approval: str, approve: list[str], timeout_seconds: float,
) -> McpServer:  # fmt: skip
    """The server that the options describe; a command without a folder runs where we are now."""
    folder = os.path.abspath(cwd or ".") if command else cwd
    return read_server(
        name=name, command=command[0] if command else None, args=command[1:], env=_pairs("--env", env, "="), cwd=folder,
        url=url, headers=_pairs("--header", headers, ":"), tools=tools, approval=approval,
        approve=_pairs("--approve", approve, "="), timeout_seconds=timeout_seconds,
    )  # fmt: skip


def _pairs(option: str, given: list[str], sign: str) -> dict[str, str]:
    for text in given:
        if sign not in text.lstrip(sign):
            raise UsageError(f"{option} takes NAME{sign}VALUE")
    return {name.strip(): value.strip() for name, _, value in (text.partition(sign) for text in given)}


@blocking
async def add(agent: str, server: McpServer) -> None:
    """Save a server, with its tools where it can be reached now."""
    async with open_runtime() as runtime:
        record = await existing(runtime, agent)
        stored, left_out = await runtime.mcp.add(record.id, server)
    show(f"added {server.name} to {line(agent)}: {_summary(stored)}")
    again = f"; agentos mcp test {server.name} --agent {line(agent)} tries again" if stored.problem else ""
    for sentence in [*left_out, *([stored.problem + again] if again else [])]:
        complain(sentence)


@blocking
async def list_servers(agent: str | None, as_json: bool) -> None:
    """The servers of an agent, or of all."""
    async with open_runtime() as runtime:
        agent_id = None if agent is None else (await existing(runtime, agent)).id

        def work(tx: Any) -> list[values.Json]:
            records = {record.id: record for record in tx.agents()}
            return [values.mcp_server_value(stored, records[stored.agent_id]) for stored in tx.mcp_servers(agent_id)]

        found = await runtime.store.read(work)
    show_json(found) if as_json else show(_table(found))


@blocking
async def test(agent: str, name: str) -> int:
    """Ask a server for its tools and save them; 1 where it cannot be asked."""
    async with open_runtime() as runtime:
        stored, left_out = await runtime.mcp.ask((await existing(runtime, agent)).id, name)
    for sentence in [*left_out, *filter(None, [stored.problem])]:
        complain(sentence)
    if not stored.problem:
        show(f"{name} answers: {_summary(stored)}")
    return int(bool(stored.problem))


@blocking
async def remove(agent: str, name: str) -> None:
    """Take a server from an agent."""
    async with open_runtime() as runtime:
        await runtime.mcp.remove((await existing(runtime, agent)).id, name)
    show(f"removed {line(name)} from {line(agent)}")


def _summary(stored: StoredServer) -> str:
    if stored.tools is None:
        return "its tools are not known yet"
    names = [tool["name"] for tool in stored.tools]
    return f"{len(names)} tool{'s' * (len(names) != 1)}{': ' * bool(names)}{', '.join(names)}"


def _table(found: list[values.Json]) -> Text:
    text = Text()
    for one in found:
        where = one["url"] or " ".join([one["command"], *one["args"]])
        text.append(f"{safe(one['name'])}", "name")
        text.append(f" of {line(one['agent'])}: {line(where)}\n")
        for tool in one["tools"] or ():
            text.append(f"  {tool['name']}", "good")
            text.append(f" ({tool['approval']}) {line(tool['description'], 70)}\n", "quiet")
        if one["problem"]:
            text.append(f"  {line(one['problem'], 300)}\n", "warn")
    text.rstrip()
    return text if found else Text("no agent has an MCP server; agentos mcp add gives it one", "quiet")
