"""What the views show, read from the kernel as plain JSON values: `--json` prints these very objects."""

from agentos.values.agents import agent_details, agent_page, agent_value, schedule_value, usage_value
from agentos.values.context import context_value, entry_value, fill_percent, step_value
from agentos.values.journal import ACTORS, KINDS, chain_value, changes_value, history_page, history_value, undone_value
from agentos.values.memory import block_value, memory_value, passage_value, passage_values, versions_value
from agentos.values.plain import Json, local, moment
from agentos.values.runs import (
    conversation_value,
    message_value,
    own_run,
    run_page,
    run_value,
    trace_value,
)
from agentos.values.search import hit_value, message_page, passage_page, shown_message, shown_passage
from agentos.values.tools import approvals_value, mcp_server_value, tools_value
from agentos.values.window import filling_value, page_out_page, request_value

__all__ = [
    "ACTORS",
    "KINDS",
    "Json",
    "agent_details",
    "agent_page",
    "agent_value",
    "approvals_value",
    "block_value",
    "chain_value",
    "changes_value",
    "context_value",
    "conversation_value",
    "entry_value",
    "fill_percent",
    "filling_value",
    "history_page",
    "history_value",
    "hit_value",
    "local",
    "mcp_server_value",
    "memory_value",
    "message_page",
    "message_value",
    "moment",
    "own_run",
    "page_out_page",
    "passage_page",
    "passage_value",
    "passage_values",
    "request_value",
    "run_page",
    "run_value",
    "schedule_value",
    "shown_message",
    "shown_passage",
    "step_value",
    "tools_value",
    "trace_value",
    "undone_value",
    "usage_value",
    "versions_value",
]
