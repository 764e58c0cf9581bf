"""Agents, what is planned for them and what they used, as plain JSON."""

from dataclasses import asdict
from typing import Any

from agentos.errors import AgentOSError
from agentos.messages import Usage
from agentos.runtime import Runtime
from agentos.state import AgentRecord, Schedule
from agentos.values.memory import block_value
from agentos.values.plain import Json, local
from agentos.values.tools import waiting_calls


def agent_value(tx: Any, record: AgentRecord) -> Json:
    """One agent as `agents list` shows it."""
    run, timers = tx.unfinished_run(record.id), tx.timers(record.id)
    approvals, busy = waiting_calls(tx, run), run is not None or tx.waiting(record.id) is not None
    state = "waiting" if approvals else "busy" if busy else "timer" if timers else "idle"
    return {
        "name": record.name, "id": record.id, "persona": record.persona, "model": record.model,
        "messages": tx.count_messages(record.id), "passages": tx.count_passages(record.id),
        "created_at": local(record.created_at), "last_used_at": local(record.last_step_at),
        "unfinished_run": run.id if run else None, "state": state, "approvals": approvals,
        "next_timer_at": local(timers[0].due_at) if timers else None, "last_stop_reason": tx.newest_run(record.id)[0],
        "context_tokens": tx.last_prompt_tokens(record.id), "cost_usd": tx.usage(record.id).cost_usd,
    }  # fmt: skip


async def agent_page(
    runtime: Runtime,
    *,
    text: str | None = None,
    after: str | None = None,
    before: str | None = None,
    limit: int = 2**31,
) -> Json:
    """A page of the agents by name, with how full each context was when it was last sent.

    {"agents", "after": the id to go on behind, or None, "before": the id to go back from, or None}. `text` is in the
    names. A window is None where it takes loading the model's library to know it.
    """

    def work(tx: Any) -> list[tuple[AgentRecord, Json]]:
        part = {"after": after, "before": before, "limit": limit + 1, "ascending": True}
        found: list[AgentRecord] = tx.agent_page(text=text, order_by="name", **part)
        return [(record, agent_value(tx, record)) for record in found]

    rows = await runtime.store.read(work)
    backwards, more = before is not None and after is None, len(rows) > limit
    rows = rows[-limit:] if backwards else rows[:limit]
    agents = []
    windows = await runtime.known_windows([record for record, _ in rows])
    for (_, value), window in zip(rows, windows, strict=True):
        agents.append(value | _filled(value, window))
    onward, back = (True, more) if backwards else (more, after is not None)
    return {
        "agents": agents, "after": rows[-1][0].id if rows and onward else None,
        "before": rows[0][0].id if rows and back else None,
    }  # fmt: skip


def _filled(value: Json, window: int | None) -> Json:
    fill = None if not window else min(100, round(100 * value["context_tokens"] / window))
    return {"window_tokens": window, "fill_percent": fill}


async def agent_details(runtime: Runtime, record: AgentRecord) -> Json:
    """One agent as the list has it, with the model that answers, its blocks, the limits in force, timers and usage."""

    def work(tx: Any) -> Json:
        return {
            **agent_value(tx, record),
            "limits": asdict(record.limits.over(runtime.default_limits)),
            "tools": list(record.tools) if record.tools is not None else None,
            "blocks": [block_value(tx, b, record.id) for b in tx.blocks(record.id)],
            "timers": [{"due_at": local(t.due_at), "note": t.note} for t in tx.timers(record.id)],
            "usage": usage_value(tx.usage(record.id)),
        }

    value = await runtime.store.read(work)
    [window] = await runtime.known_windows([record])
    return value | _filled(value, window) | {"answers": _answering(runtime, record)}


def _answering(runtime: Runtime, record: AgentRecord) -> str | None:
    """The name of the agent's model; None where it cannot be used, which the next turn tells."""
    try:
        return runtime.llm(record.model).name
    except AgentOSError:
        return None


def schedule_value(schedule: Schedule, agent: str) -> Json:
    """One schedule of the agent called `agent`."""
    return {
        "id": schedule.id, "agent": agent, "cron": schedule.cron, "time_zone": schedule.zone or "local",
        "next_at": local(schedule.next_at), "messages": [i.text for i in schedule.inputs],
    }  # fmt: skip


def usage_value(usage: Usage) -> Json:
    """Tokens and cost."""
    return asdict(usage)
