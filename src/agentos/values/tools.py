"""An agent's tools, the calls of them that wait for approval, and its MCP servers, as plain JSON."""

from typing import Any

from agentos.actions.saved import approval_value, undecided_calls
from agentos.runtime import Runtime
from agentos.state import AgentRecord, RunRecord
from agentos.tools.servers import StoredServer
from agentos.values.plain import Json, local


def approvals_value(tx: Any, agent_id: str) -> list[Json]:
    """The calls of an agent that wait for approval."""
    return waiting_calls(tx, tx.unfinished_run(agent_id))


def waiting_calls(tx: Any, run: RunRecord | None) -> list[Json]:
    """The calls of an unfinished run that wait for approval."""
    return [{"run_id": run.id, **approval_value(call)} for _, call in undecided_calls(tx, run)] if run else []


def tools_value(tx: Any, runtime: Runtime, record: AgentRecord) -> list[Json]:
    """The tools of an agent, each with whether its calls run without asking."""
    tools = runtime.tools_of(tx, record).tools.values()
    return [{"name": t.name, "approval": record.approvals.get(t.name, t.approval)} for t in tools]


def mcp_server_value(stored: StoredServer, record: AgentRecord) -> Json:
    """An MCP server of the agent; values that could be secrets are hidden."""
    server = stored.server
    offered = {tool["tool"]: record.approvals.get(tool["name"]) for tool in stored.offered}
    tools = [
        {"name": tool["name"], "tool": tool["tool"], "description": tool["description"],
         "approval": offered.get(tool["tool"]) or server.approval_of(tool["tool"])}
        for tool in stored.tools or ()
    ]  # fmt: skip
    shown = server.shown()
    return {
        "agent": record.name, "name": server.name, **shown, "only": shown["tools"], "tools": tools,
        "reached": stored.tools is not None, "problem": stored.problem, "created_at": local(stored.created_at),
    }  # fmt: skip
