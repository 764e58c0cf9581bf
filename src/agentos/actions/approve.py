"""Stopping a turn at calls that somebody has to approve, and taking the decision in."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from agentos.actions.saved import require_agent, turn_result, undecided_calls
from agentos.actions.turn import Turn
from agentos.errors import Conflict, UsageError
from agentos.events import Event, TurnEnded, TurnResult
from agentos.messages import Cause, clean_text
from agentos.next_action import AwaitApproval
from agentos.state import Decision, InboxItem, RunRecord


async def await_approval(turn: Turn, action: AwaitApproval) -> AsyncGenerator[Event, None]:
    """Stop the turn. Its run stays unfinished, and its calls pending, until there is a decision."""
    agent, run = turn.state.agent, replace(turn.run, stop_reason="requires_approval")

    def work(tx: Any) -> tuple[TurnResult, bool]:
        tx.save_run(run)
        tx.update_agent(agent.id)
        return turn_result(tx, agent.name, run), tx.user_waits(agent.id)

    result, turn.state.spoken_to = await turn.commit(work)
    turn.state.run = run
    turn.trace.end("requires_approval", run.usage)
    yield TurnEnded(result, run.inbox_id, run_id=run.id)


def decide(
    tx: Any, agent_id: str, decisions: Mapping[str, Decision], now: datetime, run_id: str | None = None
) -> InboxItem:
    """Save what was decided of calls (by id) that wait for approval; returns what stands for the turn that goes on.

    `Conflict` where one of them does not wait, or not in the run `run_id`; then nothing is saved.
    """
    tx.lock_agent(agent_id)
    require_agent(tx, agent_id)
    run: RunRecord | None = tx.unfinished_run(agent_id)
    if run is None or not run.awaits_approval or run_id not in (None, run.id):
        raise Conflict("no call of this agent waits for approval; it was decided already, or its turn has ended")
    if not decisions:
        raise UsageError("nothing is decided; name the calls, and for each whether it is approved")
    waiting = {call.id: message for message, call in undecided_calls(tx, run)}
    for call_id, decision in decisions.items():
        if call_id in run.decisions:
            raise Conflict(f"it was decided already of call {call_id!r}; what waits is {', '.join(waiting)}")
        if call_id not in waiting:
            raise Conflict(f"call {call_id!r} does not wait for approval; what waits is {', '.join(waiting)}")
        cause = Cause(agent_id, "user", run.id, waiting[call_id].id, call_id)
        tx.journal(cause, "call.approve" if decision.approve else "call.deny", call_id)
    decided = {
        call_id: Decision(given.approve, clean_text(given.reason), clean_text(given.by), now)
        for call_id, given in decisions.items()
    }
    tx.save_run(replace(run, stop_reason=None, decisions=run.decisions | decided))
    tx.update_agent(agent_id)
    return InboxItem(run.inbox_id or 0, agent_id, run.created_at, run_id=run.id)
