"""What an agent's rows say, read and written as a whole."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from agentos.context.compiler import take_snapshot
from agentos.errors import NotFound
from agentos.events import TurnResult
from agentos.messages import Block, Cause, Message, ToolCall
from agentos.state import AgentRecord, AgentState, InboxItem, RunRecord


def load_state(tx: Any, agent_id: str, now: datetime) -> AgentState:
    """The saved state of an agent: what the loop needs and nothing of its past."""
    agent = require_agent(tx, agent_id)
    run = tx.unfinished_run(agent_id)
    state = AgentState(
        agent=agent,
        blocks=tx.blocks(agent_id),
        snapshot_blocks=tx.blocks_at(agent.snapshot.versions) if agent.snapshot else [],
        queue=tx.queue(agent_id, agent.head_seq),
        entries=tx.entries(agent_id),
        run=run,
        waiting=tx.waiting(agent_id),
        due=tx.timers(agent_id, due_by=now),
        notices=tx.notices(agent_id),
        previous_prompt_tokens=tx.last_prompt_tokens(agent_id),
    )
    pending = {call.id for call in state.pending_calls()}
    if run and run.awaits_approval:
        state.spoken_to = tx.user_waits(agent_id)
    state.started = tx.started_calls(run.id) & pending if run and pending else set()
    return state


def require_agent(tx: Any, agent_id: str) -> AgentRecord:
    """The agent's row; `NotFound` when it was deleted meanwhile."""
    agent: AgentRecord | None = tx.agent(agent_id)
    if agent is None:
        raise NotFound("this agent was deleted; `agentos agents list` shows which there are")
    return agent


def rebase(tx: Any, agent_id: str, blocks: Sequence[Block], parts: dict[str, str], reason: str, core_room: int) -> None:
    """Make the snapshot what core memory is now, and journal why; `core_room`: see `AgentRecord`."""
    tx.mark_seen(agent_id, {b.id: b.version_id for b in blocks})
    snapshot = take_snapshot(blocks, parts, reason)
    tx.update_agent(agent_id, snapshot=snapshot, anchor_seq=0, anchor_tokens=0, core_room=core_room)
    tx.journal(Cause(agent_id, "runtime"), "rebase", agent_id, reason)


def input_result(tx: Any, item: InboxItem) -> TurnResult | None:
    """How the turn of an accepted input ended, or why it waits for approval; None while it does neither.

    `NotFound` once the agent is deleted.
    """
    agent, run = require_agent(tx, item.agent_id), tx.run(item.run_id)
    return turn_result(tx, agent.name, run) if run.stopped else None


def turn_result(tx: Any, agent: str, run: RunRecord) -> TurnResult:
    """How a run ended, from its rows."""
    messages: list[Message] = tx.run_messages(run.id)
    outcome = {m.call_id: bool(m.ok) for m in messages if m.role == "tool"}
    calls = [call for m in messages for call in m.calls if call.id in outcome]
    return TurnResult(
        agent=agent,
        reply="\n\n".join(m.content for m in messages if m.role == "assistant" and m.content.strip()),
        run_id=run.id,
        stop_reason=run.stop_reason or "end_turn",
        steps=run.steps,
        llm_calls=run.llm_calls,
        usage=run.usage,
        tool_calls=[{"name": c.name, "arguments": json.loads(c.arguments), "ok": outcome[c.id]} for c in calls],
        error=run.error,
        approvals=[approval_value(call) for _, call in undecided_calls(tx, run)],
    )


def undecided_calls(tx: Any, run: RunRecord) -> list[tuple[Message, ToolCall]]:
    """The calls of a run that awaits approval on which nobody has decided, each with the message that made it."""
    if not run.awaits_approval:
        return []
    caller = next(m for m in reversed(tx.run_messages(run.id)) if m.role == "assistant")
    return [(caller, call) for call in caller.calls if call.asks and call.id not in run.decisions]


def approval_value(call: ToolCall) -> dict[str, Any]:
    """A call that waits for approval, as plain JSON values."""
    return {"call_id": call.id, "name": call.name, "arguments": call.values}
