"""Starting a turn, and telling the agent what happened around it."""

import uuid
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

from agentos.actions.turn import Turn
from agentos.events import Alert, Event
from agentos.messages import Message
from agentos.next_action import Begin, Tell
from agentos.prompts import prompt
from agentos.state import RunRecord


async def begin(turn: Turn, action: Begin) -> AsyncGenerator[Event, None]:
    """Take the waiting input, or the timers that are due, into the queue of a new run."""
    state, item, now = turn.state, action.item, turn.parts.clock.now()
    if item:
        run = RunRecord(
            item.run_id, state.agent.id, item.created_at, "user", item.id, max_steps=item.max_steps,
            background=item.background,
        )  # fmt: skip
    else:
        run = RunRecord(f"run-{uuid.uuid4()}", state.agent.id, now, "timer")
    notes = "\n".join(f"Timer: {timer.note}" for timer in action.timers)
    state.run, turn.shrinks, turn.cancelled = run, 0, False
    turn.window = turn.known_window

    def work(tx: Any) -> list[Message]:
        if item:
            messages: list[Message] = tx.take(item, state.agent.last_seq)
            if not messages:
                return []
            tx.save_run(run)
        else:
            tx.add_run(run)
            tx.fire_timers(action.timers, now)
            messages = [tx.add_message(turn.notice("timer", "timer", notes))]
        tx.update_agent(state.agent.id, last_seq=state.agent.last_seq + len(messages))
        return messages

    taken = await turn.commit(work)
    if not taken:  # it was cancelled in this moment
        state.run, turn.stale = None, True
        return
    turn.queued(taken)
    state.waiting, state.due = None, []
    if notes:
        yield Alert("timer", notes)


async def tell(turn: Turn, action: Tell) -> AsyncGenerator[Event, None]:
    """Enter a notice: memory pressure, an unanswered input, a block that changed from outside, or one that waits."""
    agent_id, block, waiting = turn.state.agent.id, action.block, action.waiting
    seen = {block.id: block.version_id} if block else {}
    if waiting:
        text = waiting.content
    elif block:
        text = prompt("outside_edit", label=block.label, value=block.value or "(empty)")
    elif action.name == "unanswered":
        text = prompt("unanswered", message=await _input_of(turn))
    else:
        room = turn.room()
        text = prompt("memory_pressure", percent=100 * room.prompt_tokens // room.window.tokens)
    notice = turn.notice("alert", action.name, text)
    if waiting:
        notice = replace(waiting, seq=notice.seq, run_id=notice.run_id)

    def work(tx: Any) -> Message:
        tx.mark_seen(agent_id, seen)
        tx.update_agent(agent_id, last_seq=notice.seq)
        saved: Message = tx.place_notice(notice) if waiting else tx.add_message(notice)
        return saved

    turn.queued([await turn.commit(work)])
    turn.state.notices = [n for n in turn.state.notices if n is not waiting]
    turn.state.blocks = [replace(b, seen_version_id=seen.get(b.id, b.seen_version_id)) for b in turn.state.blocks]
    yield Alert(action.name, text)


async def _input_of(turn: Turn) -> str:
    """What began the run, as its saved rows say."""
    run_id = turn.run.id
    messages = await turn.parts.store.read(lambda tx: tx.run_messages(run_id))
    return "\n".join(f"{m.ref}: {m.mark}{m.content}" for m in messages if m.inbox_id is not None)
