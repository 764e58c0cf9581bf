"""The prompt: a snapshot that stays as it is, and a tail that only grows."""

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from agentos.memory import core
from agentos.messages import Block, Message, SummaryEntry
from agentos.state import AgentState, Snapshot

RULES = "rules"
"""The block of what the user pinned; restated after each page-out."""


def compile_context(state: AgentState, system: str, provider: str) -> list[dict[str, Any]]:
    """The message list for the next request, in the chat completions format.

    Equal to the previous list plus what came since, byte for byte, unless the snapshot was rebased.
    Provider fields of a message go only to the `provider` that made them.
    """
    head = [{"role": "system", "content": f"{system}\n\n{core.render(state.snapshot_blocks)}"}]
    if state.entries:
        head.append({"role": "user", "content": render_summary(state.entries, state.snapshot_blocks)})
    return head + [_wire(message, provider) for message in state.queue]


def render_summary(entries: Sequence[SummaryEntry], blocks: Sequence[Block]) -> str:
    """The summary message: dated entries, oldest first, then the pinned rules."""
    parts = [
        "[summary of earlier conversation] The messages below are in recall memory; "
        'conversation_search finds them, page_in(["m1-m9"]) shows them again.',
        *(entry.rendered for entry in entries),
    ]
    rules = next((b.value for b in blocks if b.label == RULES), "")
    if rules:
        parts.append(f"The user's standing rules still hold:\n{rules}")
    return "\n\n".join(parts)


def part_hash(part: object) -> str:
    """A short hash of one thing that the head of a prompt is made from (any JSON value)."""
    return hashlib.sha256(json.dumps(part).encode()).hexdigest()[:12]


def blocks_hash(blocks: Sequence[Block]) -> str:
    """The same of core memory, apart from the blocks' values."""
    return part_hash([(b.label, b.limit, b.description, b.read_only) for b in blocks])


def rebase_reason(state: AgentState, parts: dict[str, str], now: datetime, cache_ttl_seconds: int) -> str | None:
    """Why the snapshot must be taken anew before the next request; None keeps the prefix.

    A page-out rebases by itself. After a pause longer than the provider keeps its cache a rebase
    costs nothing, so edits made since the snapshot are folded in then.
    """
    snapshot = state.agent.snapshot
    if snapshot is None:
        return "start" if state.agent.last_step_at is None else "reset"
    for name in ("system", "tools", "model", "blocks"):
        if snapshot.parts.get(name) != parts[name]:
            return name
    last = state.agent.last_step_at
    edited = snapshot.versions != tuple(b.version_id for b in state.blocks)
    if edited and last is not None and (now - last).total_seconds() > cache_ttl_seconds:
        return "pause"
    return None


def take_snapshot(blocks: Sequence[Block], parts: dict[str, str], reason: str) -> Snapshot:
    """A snapshot of core memory as it is now."""
    return Snapshot(tuple(b.version_id for b in blocks), parts, reason)


def _wire(message: Message, provider: str) -> dict[str, Any]:
    if message.provider and message.provider.get("name") == provider:
        return {**message.wire, **message.provider["fields"]}
    return message.wire
