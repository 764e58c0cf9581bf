"""The tools that clients described, and the MCP servers of agents."""

import uuid
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from agentos.errors import Conflict, NotFound
from agentos.state import StoredTool
from agentos.store.agents import AgentRows
from agentos.store.rows import fields, table
from agentos.store.tables import McpServerRow, ToolRow
from agentos.tools.servers import McpServer, StoredServer

_tool, _server = table(ToolRow), table(McpServerRow)


class ToolRows(AgentRows):
    """Statements on tools and MCP servers."""

    # tools that clients described

    def add_tool(self, tool: StoredTool) -> None:
        """Insert a tool; `Conflict` when the name is taken."""
        if self.tools_named([tool.name]):
            raise Conflict(f"a tool named {tool.name!r} exists already; choose another name, or change that one")
        self.insert(ToolRow, **fields(tool) | {"tags": list(tool.tags)})

    def tool(self, tool_id: str) -> StoredTool | None:
        """The tool with this id."""
        row = self.first(sa.select(_tool).where(_tool.c.id == tool_id))
        return None if row is None else _to_tool(row)

    def tools_named(self, names: Sequence[str]) -> list[StoredTool]:
        """The tools with these names, oldest first."""
        if not names:
            return []
        query = sa.select(_tool).where(_tool.c.name.in_(list(names)))
        return [_to_tool(row) for row in self.all(query.order_by(_tool.c.created_at, _tool.c.id))]

    def tools(self) -> list[StoredTool]:
        """Every tool, oldest first."""
        return [_to_tool(row) for row in self.all(sa.select(_tool).order_by(_tool.c.created_at, _tool.c.id))]

    def update_tool(self, tool: StoredTool) -> None:
        """Write a tool's current values."""
        values = fields(tool) | {"tags": list(tool.tags)}
        self.update(ToolRow, values.pop("id"), **values)

    def delete_tool(self, tool: StoredTool) -> None:
        """Remove a tool, from every agent that has it."""
        for record in self.tool_users(tool.name):
            self.update_agent(record.id, tools=[n for n in record.tools or () if n != tool.name])
        self.connection.execute(sa.delete(_tool).where(_tool.c.id == tool.id))

    # MCP servers

    def mcp_servers(self, agent_id: str | None = None) -> list[StoredServer]:
        """The MCP servers of an agent, or of all, by agent and name."""
        query = sa.select(_server).order_by(_server.c.agent_id, _server.c.name)
        rows = self.all(query if agent_id is None else query.where(_server.c.agent_id == agent_id))
        return [_to_server(row) for row in rows]

    def save_mcp_server(self, stored: StoredServer) -> None:
        """Insert a server, in place of the agent's one of that name; `NotFound` when the agent was deleted."""
        if not self.lock_agent(stored.agent_id):
            raise NotFound("this agent was deleted; `agentos agents list` shows which there are")
        self.delete_mcp_server(stored.agent_id, stored.name)
        values = {"config": stored.server.model_dump(mode="json"), "name": stored.name}
        tools = None if stored.tools is None else list(stored.tools)
        self.insert(
            McpServerRow, agent_id=stored.agent_id, created_at=stored.created_at, tools=tools, problem=stored.problem,
            revision=uuid.uuid4().hex, **values,
        )  # fmt: skip

    def delete_mcp_server(self, agent_id: str, name: str) -> bool:
        """Remove a server; whether there was one."""
        query = sa.delete(_server).where(_server.c.agent_id == agent_id, _server.c.name == name)
        return self.connection.execute(query).rowcount > 0


def _to_tool(row: Any) -> StoredTool:
    return StoredTool(**{**row, "tags": tuple(row["tags"])})


def _to_server(row: Any) -> StoredServer:
    values = {**row, "tools": None if row["tools"] is None else tuple(row["tools"])}
    del values["name"]
    return StoredServer(server=McpServer.model_validate(values.pop("config")), **values)
