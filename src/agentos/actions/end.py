"""Ending a turn: every pending call answered, a word to the user, the run closed."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import datetime
from typing import Any

from agentos.actions.saved import load_state, turn_result
from agentos.actions.turn import Turn, utc_offset
from agentos.events import Event, TextDelta, TurnEnded, TurnResult
from agentos.messages import Message, StopReason, ToolCall
from agentos.next_action import SPOKEN_TO, End
from agentos.state import AgentState, InboxItem, RunRecord, RunStatus, Timer

_STATUS: dict[str, RunStatus] = {"llm_error": "failed", "cancelled": "cancelled"}


async def end(turn: Turn, action: End) -> AsyncGenerator[Event, None]:
    """Close the run in one commit."""
    agent = turn.state.agent
    closing = _unrun(turn.state, action.reason, turn.parts.clock.now())
    sentence = _fallback(turn, action)
    if sentence:
        place = len(closing) + 1
        closing.append(turn.message("assistant", sentence, place=place, origin="runtime", kind="fallback"))
    ended = replace(
        turn.run, status=_STATUS.get(action.reason, "completed"), stop_reason=action.reason, error=action.error,
        ended_at=turn.parts.clock.now(),
    )  # fmt: skip

    def work(tx: Any) -> tuple[list[Message], TurnResult, RunRecord | None, InboxItem | None, list[Timer]] | None:
        if action.reason == "requires_approval" and not tx.run(ended.id).awaits_approval:
            return None
        saved = [tx.add_message(message) for message in closing]
        tx.save_run(ended)
        tx.update_agent(agent.id, last_seq=agent.last_seq + len(closing))
        return (
            saved,
            turn_result(tx, agent.name, ended),
            tx.unfinished_run(agent.id),  # one that failed and was taken up again meanwhile
            tx.waiting(agent.id),
            tx.timers(agent.id, due_by=ended.ended_at),
        )

    committed = await turn.commit(work)
    if committed is None:  # somebody decided in this moment
        turn.stale = True
        return
    saved, result, turn.state.run, turn.state.waiting, turn.state.due = committed
    turn.queued(saved)
    turn.cancelled = False
    turn.trace.end(action.reason, ended.usage)
    if sentence:
        yield TextDelta(sentence, fallback=True, place=saved[-1].seq or 0, run_id=ended.id)
    yield TurnEnded(result, ended.inbox_id, run_id=ended.id)


def end_left(tx: Any, agent_id: str, run_id: str, now: datetime) -> bool:
    """Cancel a run that was begun and that nobody runs; False where it has ended meanwhile."""
    state, run = load_state(tx, agent_id, now), tx.run(run_id)
    if run is None or run.status != "running":
        return False
    # where a failed run was taken up again beside it, the calls are the newer one's
    closing = _unrun(state, "cancelled", now) if state.run is not None and state.run.id == run_id else []
    for message in closing:
        tx.add_message(message)
    tx.cancel_run(run, now)
    tx.update_agent(agent_id, last_seq=state.agent.last_seq + len(closing))
    return True


def _unrun(state: AgentState, reason: StopReason, now: datetime) -> list[Message]:
    """A result for each pending call of the unfinished run: it will not be run."""
    return [
        Message(
            id=0, agent_id=state.agent.id, role="tool", content=f"error: {_why(call, reason)}",
            origin="runtime", created_at=now, utc_offset=utc_offset(now), seq=state.agent.last_seq + place,
            run_id=state.run.id if state.run else None, call_id=call.id, name=call.name, ok=False,
        )
        for place, call in enumerate(state.pending_calls(), 1)
    ]  # fmt: skip


def _why(call: ToolCall, reason: StopReason) -> str:
    """Why a call that is still pending never ran."""
    if reason == "requires_approval" and call.asks:
        return f"the user did not approve this call: {SPOKEN_TO}"
    return f"not run, the turn stopped: {reason}"


def _fallback(turn: Turn, action: End) -> str | None:
    """The plain sentence for a turn of the user's that showed no word; None where the error itself is shown."""
    run = turn.run
    if run.trigger != "user" or run.spoke or action.reason in ("llm_error", "cancelled", "requires_approval"):
        return None
    results = [m for m in turn.state.turn_messages() if m.role == "tool"]
    done = ", ".join(f"{m.name} ({'done' if m.ok else 'failed'})" for m in results[-8:])
    if action.error:
        return f"I stopped: {action.error}. Until then I used {done}." if done else f"I stopped: {action.error}."
    return f"I used {done} and have nothing to add." if done else "The model gave no answer; ask again."
