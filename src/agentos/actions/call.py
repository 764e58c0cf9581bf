"""Running a tool call and saving its result, its effect and its journal rows together."""

from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

from agentos.actions.turn import Turn
from agentos.context.tokens import clip
from agentos.errors import StoreError
from agentos.events import BlockEdit, Event, ToolResultEvent
from agentos.messages import Block, Cause, Message, ToolCall, clean_text
from agentos.next_action import RunCall
from agentos.protocols import Effect, ToolResult
from agentos.tools.tool import ToolContext
from agentos.tools.toolset import failure
from agentos.tracing import execute_tool, failed

_POINTER = 48
"""Tokens of the pointer behind clipped text."""


async def run_call(turn: Turn, action: RunCall) -> AsyncGenerator[Event, None]:
    """Run one pending call. Its effect happens exactly once, or, outside our database, at most once."""
    state, call = turn.state, action.call
    caller = next(m for m in reversed(state.queue) if m.role == "assistant")
    before = {b.id: b for b in state.blocks}
    cause = Cause(state.agent.id, "agent", turn.run.id, caller.id, call.id)
    room = _result_room(turn)

    def work(tx: Any, effect: Effect) -> tuple[Message, list[Block]]:
        result = effect(tx)
        text = clean_text(result.text)
        message = turn.message(
            "tool", text if text.strip() else "(empty)", origin="tool", call_id=call.id, name=call.name, ok=result.ok,
            sources=result.sources, heartbeat=result.ok and turn.parts.tools.wants_heartbeat(call),
            shown=clip(text, room, turn.counter.count),
        )  # fmt: skip
        tx.update_agent(state.agent.id, last_seq=message.seq)
        return tx.add_message(message), tx.blocks(state.agent.id)

    name = call.name if call.name in turn.parts.tools.tools else "unknown"  # a made-up one may say anything
    with execute_tool(turn.span(), name, call.id) as span:
        refused = action.refusal and f"the user did not approve this call: {action.refusal}"
        effect = _refusal(refused) if refused else await _effect(turn, call, cause)
        try:
            saved, state.blocks = await turn.commit(partial(work, effect=effect))
        except StoreError:  # nothing can be saved at all
            raise
        except Exception as error:  # the effect's own, and all of it was undone: the turn goes on with the bad news
            bad = failure(call, error)
            saved, state.blocks = await turn.commit(partial(work, effect=lambda tx: bad))
        if not saved.ok:
            failed(span)
    turn.queued([saved])
    state.started.discard(call.id)
    edits = tuple(
        BlockEdit(b.label, before[b.id].value, b.value)
        for b in state.blocks
        if b.id in before and before[b.id].value != b.value
    )
    yield ToolResultEvent(call.id, call.name, bool(saved.ok), saved.content, edits)


async def _effect(turn: Turn, call: ToolCall, cause: Cause) -> Effect:
    """Prepare the call; a tool outside our database is marked as started before it runs."""
    tools = turn.parts.tools
    if not tools.is_repeatable(call):
        if call.id in turn.state.started:
            return _refusal("interrupted, may have happened; check before you do it again")
        await turn.commit(lambda tx: tx.journal(cause, "call.started", call.id))
    effect = await turn.interruptible(tools.prepare(call, _context(turn, cause)))
    by = "the user" if turn.cancelled else "itself"
    return effect or _refusal(f"cancelled by {by}; it may have happened")


def _refusal(text: str) -> Effect:
    return lambda tx: ToolResult(f"error: {text}", ok=False)


def _context(turn: Turn, cause: Cause) -> ToolContext:
    results = [m for m in turn.state.turn_messages() if m.role == "tool"]
    recent = turn.state.entries[-2:]
    return ToolContext(
        cause=cause,
        now=turn.parts.clock.now(),
        memory=turn.parts.memory(cause.agent_id, cause.run_id),
        crowds=turn.crowds,
        room_chars=max(400, _result_room(turn) * 3),
        refused_writes=sum(1 for m in results if not m.ok and m.sources),
        evicted=(recent[0].first_seq, recent[-1].last_seq) if recent else (0, 0),
    )


def _result_room(turn: Turn) -> int:
    """Tokens one more result may take: what is left, shared with the other pending calls."""
    pending = max(1, len(turn.state.pending_calls()))
    left = turn.window.prompt - turn.room().prompt_tokens
    share = max(left, turn.window.tokens // 8) // pending
    return max(16, min(share, turn.window.tokens // 4) - _POINTER)
