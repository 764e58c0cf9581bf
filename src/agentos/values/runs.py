"""Runs, and what was said and done in them, as plain JSON."""

from collections.abc import Iterable
from typing import Any

from agentos.curate import Source
from agentos.errors import NotFound
from agentos.messages import Message, ToolCall
from agentos.state import OPEN, RunRecord, StepRecord
from agentos.values.agents import usage_value
from agentos.values.context import entry_value, step_value
from agentos.values.journal import history_value
from agentos.values.memory import block_value
from agentos.values.plain import Json, local
from agentos.values.tools import approvals_value

_STEPS = 2000
"""Model calls of one run that a trace looks at."""
_PAGE_OUTS = 100
_EVENTS = 20
"""Memory events of a turn that stand beside a conversation."""


def call_value(call: ToolCall) -> Json:
    """One call that the model asked for."""
    return {"id": call.id, "name": call.name, "arguments": call.values, "fault": call.error, "asks": call.asks}


def message_value(message: Message) -> Json:
    """One message in full."""
    return {
        "id": message.ref, "created_at": local(message.created_at), "role": message.role, "kind": message.kind,
        "origin": message.origin, "name": message.name, "text": message.content, "reasoning": message.reasoning,
        "calls": [call_value(call) for call in message.calls], "call_id": message.call_id, "ok": message.ok,
        "heartbeat": message.heartbeat, "run_id": message.run_id, "place": message.seq, "session": message.session,
        "external_id": message.external_id, "sources": list(message.sources), "waits": _waits(message),
    }  # fmt: skip


def _waits(message: Message) -> bool:
    """Whether it stands outside the queue until its turn begins."""
    return message.seq is None and message.inbox_id is not None


def run_value(run: RunRecord, said: Iterable[Message] = ()) -> Json:
    """One run, and the words that it answers."""
    took = None if run.ended_at is None else round((run.ended_at - run.created_at).total_seconds(), 3)
    return {
        "id": run.id, "created_at": local(run.created_at), "ended_at": local(run.ended_at), "seconds": took,
        "trigger": run.trigger, "status": run.status, "open": run.status in OPEN,
        "awaits_approval": run.awaits_approval, "stop_reason": run.stop_reason,
        "steps": run.steps, "model_calls": run.llm_calls, "usage": usage_value(run.usage), "error": run.error,
        "input": "\n".join(m.content for m in said),
    }  # fmt: skip


def run_page(
    tx: Any,
    agent_id: str,
    *,
    status: str | None = None,
    stop_reason: str | None = None,
    before: str | None = None,
    limit: int = 25,
) -> Json:
    """The runs of an agent, newest first: {"runs", "before"}; the latter, a run's id, goes on behind it.

    `NotFound` where the agent has no run `before`.
    """
    end = None if before is None else own_run(tx, agent_id, before)
    found = tx.run_page(
        False, end, None, limit + 1, agent_ids=[agent_id], statuses=[status] if status else None,
        stop_reasons=[stop_reason] if stop_reason else None,
    )  # fmt: skip
    runs = found[:limit]
    said = tx.inputs(run.inbox_id for run in runs if run.inbox_id)
    return {
        "runs": [run_value(run, said.get(run.inbox_id, ())) for run in runs],
        "before": runs[-1].id if len(found) > limit else None,
    }


def own_run(tx: Any, agent_id: str, run_id: str) -> RunRecord:
    """The agent's run with this id; `NotFound` when it has none."""
    run: RunRecord | None = tx.run(run_id)
    if run is None or run.agent_id != agent_id:
        raise NotFound(f"this agent has no run {run_id!r}; the list of its runs shows their ids")
    return run


def trace_value(tx: Any, run: RunRecord, *, after: int = 0, limit: int = 40) -> Json:
    """A run as it went: {"run", "entries", "after"}; the latter is the place of the message to go on behind, or None.

    Entries have a `type`: `input`, `notice`, `reply` (its `step` is the model call that gave it; each of its calls has
    its `result` and `decision`, or None, and whether it `waits` for one), `result` (of a call on the page before),
    `model_call` that gave no message (it failed, or wrote the notes of a page-out), and `page_out`.
    """
    found: list[Message] = tx.run_part(run.id, after, limit + 1)
    messages, more = found[:limit], len(found) > limit
    while more and messages[-1].role == "tool" and len(messages) > 1 and found[len(messages)].role == "tool":
        messages.pop()  # a call's results stay together as far as the page allows
    results = {m.call_id: m for m in messages if m.role == "tool"}
    outs = _page_outs(tx, run)
    calls = _unsaid(tx.step_page(True, None, None, _STEPS, run_id=run.id))
    entries: list[Json] = []
    shown: set[str | None] = set()
    for message in messages:
        while outs and (outs[0].last_seq < (message.seq or 0)) and outs[0].created_at <= message.created_at:
            entries.append({"type": "page_out", "page_out": entry_value(outs.pop(0))})
        if message.role == "tool":
            if message.call_id not in shown:
                entries.append({"type": "result", "message": message_value(message)})
            continue
        before, step = calls.pop(message.id, ([], None))
        entries += [{"type": "model_call", "step": step_value(s)} for s in before]
        value = message_value(message)
        kind = "reply" if message.role == "assistant" else "input" if message.kind == "message" else "notice"
        for call in value["calls"]:
            result = results.get(call["id"])
            shown.add(call["id"])
            decision = run.decisions.get(call["id"])
            call["result"] = None if result is None else message_value(result)
            call["decision"] = decision and {
                "approve": decision.approve, "reason": decision.reason, "by": decision.by, "at": local(decision.at),
            }  # fmt: skip
            call["waits"] = run.awaits_approval and call["asks"] and not (result or decision)
        entries.append({"type": kind, "message": value, "step": step and step_value(step)})
    if not more:
        entries += [{"type": "page_out", "page_out": entry_value(entry)} for entry in outs]
        entries += [{"type": "model_call", "step": step_value(s)} for s in calls.pop(0, ([], None))[0]]
    said = tx.inputs([run.inbox_id] if run.inbox_id else ())
    return {
        "run": run_value(run, said.get(run.inbox_id, ())), "entries": entries,
        "after": messages[-1].seq if more else None,
    }  # fmt: skip


def _unsaid(steps: list[StepRecord]) -> dict[int, tuple[list[StepRecord], StepRecord | None]]:
    """Message id -> (model calls before its own that gave no message, its own); at 0 those behind the last."""
    found: dict[int, tuple[list[StepRecord], StepRecord | None]] = {}
    before: list[StepRecord] = []
    for step in steps:
        if step.message_id is None:
            before.append(step)
        else:
            found[step.message_id] = (before, step)
            before = []
    return found | {0: (before, None)}


def _page_outs(tx: Any, run: RunRecord) -> list[Any]:
    """The page-outs of a run, oldest first."""
    events = tx.events(run.agent_id, None, ("page_out",), _PAGE_OUTS, run_id=run.id)
    wanted = {event["target"] for event in events}
    if not wanted:
        return []
    return [entry for entry in tx.entries(run.agent_id, retired=True) if f"s{entry.id}" in wanted]


def conversation_value(tx: Any, agent_id: str, *, before: int | None = None, limit: int = 30) -> Json:
    """What was said last, oldest first: {"messages", "before", "runs", "turn", "approvals", "events", "blocks"}.

    `before` (a message's number) goes on to older ones, and is None at the end; `runs` are those of the messages by
    id, `turn` is the newest run that began, with the memory events that came of it and the blocks as they are now.
    """
    found = tx.recent_messages(agent_id, limit + 1, before)
    messages = found[:limit][::-1]
    runs = {run_id: tx.run(run_id) for run_id in {m.run_id for m in messages if m.run_id}}
    begun = [run for run in tx.run_page(False, None, None, 10, agent_ids=[agent_id]) if run.status != "created"]
    running = tx.unfinished_run(agent_id)
    newest = running or next(iter(begun), None)
    events = history_value(tx, agent_id, _EVENTS, kind="memory", source=Source(newest.id, None, None)) if newest else []
    changed = {event["target_id"] for event in events}
    return {
        "messages": [message_value(m) for m in messages],
        "before": messages[0].id if len(found) > limit else None,
        "runs": {key: run_value(run) for key, run in runs.items() if run},
        "turn": newest and run_value(newest),
        "approvals": approvals_value(tx, agent_id),
        "events": events,
        "blocks": [{**block_value(tx, b, agent_id), "changed": f"b{b.id}" in changed} for b in tx.blocks(agent_id)],
    }
