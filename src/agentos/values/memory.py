"""Core memory and what a search finds, as plain JSON."""

from collections.abc import Sequence
from typing import Any

from agentos.memory import core
from agentos.messages import Block, Passage
from agentos.state import AgentRecord
from agentos.tools.memory import SEARCH_TOOLS
from agentos.values.plain import Json, local

_SEARCHES = 300
"""Searches of an agent that are looked at for when they last showed a memory."""


def block_value(tx: Any, block: Block, agent_id: str) -> Json:
    """One block of core memory, and the other agents that have it."""
    others = [name for holder, name in tx.holders(block.id).items() if holder != agent_id]
    return {
        "id": f"b{block.id}", "label": block.label, "value": block.value, "characters": len(block.value),
        "limit": block.limit, "description": block.description, "read_only": block.read_only,
        "version": block.version_id, "shared_with": others,
    }  # fmt: skip


def memory_value(tx: Any, record: AgentRecord, label: str | None = None) -> Json:
    """An agent's core memory (one block of it with `label`) and what lies beside it. `ToolError`: no such block."""
    blocks: list[Block] = tx.blocks(record.id)
    if label is not None:
        blocks = [core.find_block(blocks, label)]
    return {
        "agent": record.name,
        "blocks": [block_value(tx, b, record.id) for b in blocks],
        "passages": tx.count_passages(record.id),
        "messages": tx.count_messages(record.id),
    }


def passage_value(passage: Passage) -> Json:
    """One passage, where it came from, and how it is linked with those that it replaces or that took its place."""
    replaces, taker = (None if n is None else f"p{n}" for n in (passage.replaces, passage.superseded_by))
    return {
        "id": passage.ref, "created_at": local(passage.created_at), "text": passage.text, "tags": list(passage.tags),
        "origin": passage.origin, "about": passage.about, "run_id": passage.run_id,
        "message": f"m{passage.message_id}" if passage.message_id else None, "call_id": passage.call_id,
        "replaces": replaces, "valid_to": local(passage.valid_to), "superseded_by": taker,
    }  # fmt: skip


def passage_values(tx: Any, agent_id: str, found: Sequence[Passage]) -> list[Json]:
    """Passages, each with when a search of the agent's last showed it (of its last 300; else None)."""
    used = tx.last_quoted(agent_id, SEARCH_TOOLS, _SEARCHES)
    return [{**passage_value(p), "last_used_at": local(used.get(p.ref))} for p in found]


def versions_value(tx: Any, block: Block, agent_id: str, before: int | None = None, limit: int = 20) -> Json:
    """The versions of a block, newest first, each with what it changed: {"block", "versions", "before"}.

    They are those older than version `before`; the `before` of the answer goes on, and is None at the end.
    """
    rows = tx.version_page(block.id, before=before, limit=limit + 1)
    names: dict[str, str | None] = {}
    for row in rows[:limit]:
        writer = row["agent_id"]
        if writer and writer not in names:
            record = tx.agent(writer)
            names[writer] = record.name if record else None
    older = [*[row["value"] for row in rows[1:]], ""]
    versions = [
        {
            "id": row["id"], "created_at": local(row["created_at"]), "actor": row["origin"],
            "agent": names.get(row["agent_id"]), "run_id": row["run_id"],
            "message": f"m{row['message_id']}" if row["message_id"] else None, "characters": len(row["value"]),
            "value": row["value"], "changes": core.changed_lines(before_it, row["value"]), "restores": row["restores"],
            "current": row["id"] == block.version_id,
        }
        for row, before_it in zip(rows[:limit], older, strict=False)
    ]  # fmt: skip
    following = rows[limit - 1]["id"] if len(rows) > limit else None
    return {"block": block_value(tx, block, agent_id), "versions": versions, "before": following}
