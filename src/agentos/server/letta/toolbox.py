"""Tools as Letta's API shows them, and which of them a name or an id means."""

import uuid
from collections.abc import Sequence
from itertools import chain
from typing import Any

from agentos.errors import NotFound, UsageError
from agentos.runtime import Runtime
from agentos.server.letta.fields import Json
from agentos.state import AgentRecord, StoredTool
from agentos.tools.memory import MEMORY_TOOLS
from agentos.tools.servers import StoredServer
from agentos.tools.tool import Tool

LETTA_TOOLS: dict[str, tuple[str, ...]] = {
    "memory": ("core_memory_append", "core_memory_replace"),
    "memory_insert": ("core_memory_append",),
    "memory_replace": ("core_memory_replace",),
    "memory_rethink": ("core_memory_replace",),
    "memory_apply_patch": ("core_memory_replace",),
    "memory_finish_edits": (),
    "rethink_memory": ("core_memory_replace",),
    "finish_rethinking_memory": (),
    "store_memories": ("archival_memory_insert",),
    "rethink_user_memory": ("core_memory_replace",),
    "search_memory": ("archival_memory_search", "conversation_search"),
    "conversation_search_date": ("conversation_search",),
    "send_message": (),  # what an agent writes is its message
    "send_message_to_agent_and_wait_for_reply": (),
    "send_message_to_agent_async": (),
    "send_message_to_agents_matching_all_tags": (),
    "send_message_to_agents_matching_tags": (),
    "web_search": (),
    "fetch_webpage": (),
    "run_code": (),
    "run_code_with_tools": (),
    "open_files": (),
    "grep_files": (),
    "semantic_search_files": (),
}
"""Names of Letta's own tools that are no names of ours, and ours that stand for them; `()`: accepted and ignored."""
_MEMORY_CORE = ("core_memory_append", "core_memory_replace")


def chosen_tools(tx: Any, runtime: Runtime, names: Sequence[str], ids: Sequence[str]) -> list[str]:
    """The names of the tools that are meant; `UsageError` for a name and `NotFound` for an id that nothing has."""
    known = {tool.name for tool in tx.tools_named(names)} | set(runtime.tools.tools)
    chosen: list[str] = []
    for name in names:
        if name not in known and name not in LETTA_TOOLS:
            raise UsageError(f"there is no tool {name!r}; GET /v1/tools/ lists them, POST /v1/tools/ adds one")
        chosen += [name] if name in known else LETTA_TOOLS[name]
    for tool_id in ids:
        tool = built_in(runtime, tool_id) or tx.tool(tool_id)
        if tool is None:
            raise NotFound(f"there is no tool {tool_id!r}; GET /v1/tools/ lists them")
        chosen.append(tool.name)
    return list(dict.fromkeys(chosen))


def tool_values(tx: Any, runtime: Runtime, record: AgentRecord) -> list[Json]:
    """An agent's tools, those that are built in first."""
    own = runtime.tools.only(record.tools).tools.values()
    described = map(stored_value, tx.tools_named(record.tools or ()))
    values = [
        *map(built_in_value, own),
        *described,
        *chain(*(_server_values(s, record) for s in tx.mcp_servers(record.id))),
    ]
    return [*{value["name"]: value for value in reversed(values)}.values()][::-1]  # as the agent has them


def _server_values(stored: StoredServer, record: AgentRecord) -> list[Json]:
    """The tools of an MCP server."""
    return [
        {
            "id": built_in_id(f"{stored.agent_id}/{tool['name']}"), "name": tool["name"],
            "description": tool["description"], "json_schema": {k: v for k, v in tool.items() if k != "tool"},
            "args_json_schema": tool["parameters"], "source_code": None, "source_type": "json",
            "tool_type": "external_mcp", "tags": [f"mcp:{stored.name}"], "return_char_limit": 50_000,
            "default_requires_approval": (
                record.approvals.get(tool["name"], stored.server.approval_of(tool["tool"])) == "ask"
            ),
            "metadata_": {"mcp": {"server_name": stored.name}},
        }
        for tool in stored.offered
    ]  # fmt: skip


def built_in_id(name: str) -> str:
    """The id of a built-in tool: the same in every home."""
    return f"tool-{uuid.uuid5(uuid.NAMESPACE_OID, f'agentos/{name}')}"


def built_in_value(tool: Tool) -> Json:
    """A tool of the runtime's own."""
    ours = any(tool is known for known in MEMORY_TOOLS)
    kind = "letta_memory_core" if tool.name in _MEMORY_CORE else "letta_core"
    schema = tool.schema["function"]
    return {
        "id": built_in_id(tool.name), "name": tool.name, "description": tool.description, "json_schema": schema,
        "args_json_schema": schema["parameters"], "source_code": None, "source_type": "python",
        "tool_type": kind if ours else "custom", "tags": [], "return_char_limit": 50_000,
        "default_requires_approval": tool.approval == "ask" or None, "metadata_": {},
    }  # fmt: skip


def stored_value(tool: StoredTool) -> Json:
    """A tool that a client described."""
    return {
        "id": tool.id, "name": tool.name, "description": tool.description, "json_schema": tool.json_schema,
        "args_json_schema": tool.json_schema["parameters"], "source_code": tool.source_code,
        "source_type": tool.source_type, "tool_type": "custom", "tags": list(tool.tags),
        "return_char_limit": tool.return_char_limit,
        "default_requires_approval": tool.approval == "ask" or None, "metadata_": tool.meta,
    }  # fmt: skip


def built_in(runtime: Runtime, tool_id: str) -> Tool | None:
    """The runtime's own tool with this id."""
    return next((tool for name, tool in runtime.tools.tools.items() if built_in_id(name) == tool_id), None)
