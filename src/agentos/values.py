"""What the views show, read from the kernel as plain JSON values: `--json` prints these very objects."""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from agentos.actions.saved import approval_value, undecided_calls
from agentos.actions.turn import Turn
from agentos.context import pager
from agentos.context.compiler import render_summary
from agentos.context.tokens import scaled
from agentos.curate import Origin, undone_events
from agentos.memory import core
from agentos.messages import Block, Passage, SummaryEntry, Usage
from agentos.protocols import Hit
from agentos.runtime import Runtime
from agentos.state import AgentRecord, Limits, RunRecord, Schedule, StepRecord
from agentos.tools.memory import SEARCH_TOOLS
from agentos.tools.servers import StoredServer

Json = dict[str, Any]


def local(when: datetime | None) -> str | None:
    """A time in the local zone, to the second, as ISO 8601."""
    return None if when is None else when.astimezone().isoformat(timespec="seconds")


def block_value(tx: Any, block: Block, agent_id: str) -> Json:
    """One block of core memory, and the other agents that have it."""
    others = [name for holder, name in tx.holders(block.id).items() if holder != agent_id]
    return {
        "id": f"b{block.id}", "label": block.label, "value": block.value, "characters": len(block.value),
        "limit": block.limit, "description": block.description, "read_only": block.read_only,
        "version": block.version_id, "shared_with": others,
    }  # fmt: skip


def mcp_server_value(stored: StoredServer, agent: str) -> Json:
    """An MCP server of the agent with this name; values that could be secrets are hidden."""
    server = stored.server
    tools = [
        {"name": tool["name"], "tool": tool["tool"], "description": tool["description"],
         "approval": server.approval_of(tool["tool"])}
        for tool in stored.tools or ()
    ]  # fmt: skip
    shown = server.shown()
    return {
        "agent": agent, "name": server.name, **shown, "only": shown["tools"], "tools": tools,
        "reached": stored.tools is not None, "problem": stored.problem, "created_at": local(stored.created_at),
    }  # fmt: skip


def agent_value(tx: Any, record: AgentRecord) -> Json:
    """One agent as `agents list` shows it."""
    run = tx.unfinished_run(record.id)
    return {
        "name": record.name, "id": record.id, "persona": record.persona, "model": record.model,
        "messages": tx.count_messages(record.id), "passages": tx.count_passages(record.id),
        "created_at": local(record.created_at), "last_used_at": local(record.last_step_at),
        "unfinished_run": run.id if run else None, "approvals": _waiting(tx, run),
    }  # fmt: skip


def approvals_value(tx: Any, agent_id: str) -> list[Json]:
    """The calls of an agent that wait for approval."""
    return _waiting(tx, tx.unfinished_run(agent_id))


def _waiting(tx: Any, run: RunRecord | None) -> list[Json]:
    return [{"run_id": run.id, **approval_value(call)} for _, call in undecided_calls(tx, run)] if run else []


def tools_value(tx: Any, runtime: Runtime, record: AgentRecord) -> list[Json]:
    """The tools of an agent, each with whether its calls run without asking."""
    tools = runtime.tools_of(tx, record).tools.values()
    return [{"name": t.name, "approval": record.approvals.get(t.name, t.approval)} for t in tools]


def agent_details(tx: Any, record: AgentRecord, limits: Limits) -> Json:
    """One agent with its blocks, limits (`limits` where it has none of its own), timers and usage."""
    return {
        **agent_value(tx, record),
        "limits": asdict(record.limits.over(limits)),
        "tools": list(record.tools) if record.tools is not None else None,
        "blocks": [block_value(tx, b, record.id) for b in tx.blocks(record.id)],
        "timers": [{"due_at": local(t.due_at), "note": t.note} for t in tx.timers(record.id)],
        "usage": usage_value(tx.usage(record.id)),
    }


def schedule_value(schedule: Schedule, agent: str) -> Json:
    """One schedule of the agent called `agent`."""
    return {
        "id": schedule.id, "agent": agent, "cron": schedule.cron, "time_zone": schedule.zone or "local",
        "next_at": local(schedule.next_at), "messages": [i.text for i in schedule.inputs],
    }  # fmt: skip


def usage_value(usage: Usage) -> Json:
    """Tokens and cost."""
    return asdict(usage)


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


def hit_value(hit: Hit) -> Json:
    """One search hit."""
    return {
        "id": hit.ref, "created_at": local(hit.created_at), "text": hit.text, "role": hit.role, "name": hit.name,
        "tags": list(hit.tags), "session": hit.session, "external_id": hit.external_id, "why": hit.why,
        "score": round(hit.score, 4), "valid_to": local(hit.valid_to), "superseded_by": hit.superseded_by,
    }  # fmt: skip


def passage_value(passage: Passage) -> Json:
    """One passage, and how it is linked with those that it replaces or that took its place."""
    replaces, taker = (None if n is None else f"p{n}" for n in (passage.replaces, passage.superseded_by))
    return {
        "id": passage.ref, "created_at": local(passage.created_at), "text": passage.text, "tags": list(passage.tags),
        "origin": passage.origin, "about": passage.about, "replaces": replaces, "valid_to": local(passage.valid_to),
        "superseded_by": taker,
    }  # fmt: skip


def history_value(tx: Any, agent_id: str, limit: int, label: str | None = None) -> list[Json]:
    """The journal, newest first, with the lines each event changed."""
    labels = {f"b{b.id}": b.label for b in tx.blocks(agent_id)}
    target = None
    if label is not None:
        target = next((ref for ref, known in labels.items() if known == label), label)
    events = tx.events(agent_id, target=target, limit=limit)
    undone = undone_events(events)
    return [_event_value(tx, event, labels, undone) for event in events]


def changes_value(
    tx: Any, agent_id: str, after: int, since: datetime | None, limit: int, actions: tuple[str, ...] = ()
) -> list[Json]:
    """What the journal says happened behind the event `after` and from `since` on, oldest first."""
    labels = {f"b{b.id}": b.label for b in tx.blocks(agent_id)}
    undone = undone_events(tx.events(agent_id, actions=("undo.",), limit=1000))
    events = tx.events_since(agent_id, after, since, limit, actions)
    return [_event_value(tx, event, labels, undone) for event in events]


def _event_value(tx: Any, event: Json, labels: dict[str, str], undone: set[int]) -> Json:
    target = "" if event["target"] == event["agent_id"] else event["target"]
    return {
        "id": event["id"], "created_at": local(event["created_at"]), "actor": event["actor"],
        "action": event["action"], "target": labels.get(target, target), "note": event["note"],
        "run_id": event["run_id"], "message": f"m{event['message_id']}" if event["message_id"] else None,
        "undo_of": event["undo_of"], "undone": event["id"] in undone, "changes": _changes(tx, event),
    }  # fmt: skip


def _changes(tx: Any, event: Json) -> str:
    """`- old` and `+ new` lines of a memory event; empty for the others."""
    agent_id, target = event["agent_id"], event["target"]
    if target[:1] == "b" and event["after_id"]:
        before, after = (tx.version(event[end]) or {"value": ""} for end in ("before_id", "after_id"))
        return core.changed_lines(before["value"], after["value"])
    if target[:1] == "p" and event["after_id"]:
        removed = event["action"] in ("passage.delete", "passage.supersede") or event["note"] == "ended"
        return "\n".join(f"{'-' if removed else '+'} {p.text}" for p in tx.passages(agent_id, [int(target[1:])]))
    return ""


def chain_value(chain: list[Origin]) -> list[Json]:
    """One chain of `why`, from the memory back to the words it came from."""
    return [
        {"what": o.what, "id": o.ref or None, "created_at": local(o.when), "text": o.text, "about": o.about}
        for o in chain
    ]


def entry_value(entry: SummaryEntry) -> Json:
    """One page-out's receipt."""
    return {
        "id": f"s{entry.id}", "created_at": local(entry.created_at), "messages": len(entry.message_ids),
        "first": f"m{entry.message_ids[0]}", "last": f"m{entry.message_ids[-1]}",
        "tokens_before": entry.tokens_before, "tokens_after": entry.tokens_after, "saving_step": entry.saving_step,
        "in_context": not entry.retired, "text": entry.rendered,
    }  # fmt: skip


def step_value(step: StepRecord) -> Json:
    """One row of the cache ledger."""
    return {
        "created_at": local(step.created_at), "kind": step.kind, "model": step.model,
        "prompt_tokens": step.usage.prompt_tokens, "completion_tokens": step.usage.completion_tokens,
        "expected_cached_tokens": step.expected_cached_tokens, "cached_tokens": step.usage.cached_tokens,
        "cause": step.cache_note, "latency_ms": step.latency_ms, "error": step.error,
    }  # fmt: skip


async def context_value(runtime: Runtime, turn: Turn) -> Json:
    """The window by section in tokens, with page-out receipts, page faults and the cache ledger's last rows."""
    agent_id, room = turn.state.agent.id, turn.room()

    def work(tx: Any) -> Json:
        return {
            "page_outs": [entry_value(e) for e in tx.entries(agent_id, retired=True)],
            "page_fault_rate": round(tx.fault_rate(agent_id, SEARCH_TOOLS), 2),
            "cache_ledger": [step_value(s) for s in tx.steps(agent_id, limit=6)],
        }

    sections = _sections(turn)
    sections["messages"] = max(0, room.prompt_tokens - sum(sections.values()))
    sections["reserved reply"] = room.window.reply
    return {
        "model": turn.parts.llm.name, "window_tokens": room.window.tokens, "prompt_tokens": room.prompt_tokens,
        "alert_at_tokens": int(pager.ALERT_AT * room.window.tokens), "sections": sections,
        "free_tokens": max(0, room.window.prompt - room.prompt_tokens), "messages": len(turn.state.queue),
        "snapshot": turn.state.agent.snapshot.reason if turn.state.agent.snapshot else None,
        **await runtime.store.read(work),
    }  # fmt: skip


def _sections(turn: Turn) -> dict[str, int]:
    """Tokens of the prompt's head, part by part."""
    state, count = turn.state, turn.counter.count
    blocks = state.snapshot_blocks or state.blocks
    summary = render_summary(state.entries, state.snapshot_blocks) if state.entries else ""
    estimates = {
        "tools": turn.counter.json(turn.parts.tools.schemas),
        "system": count(turn.parts.system),
        "core memory": count(core.render(blocks)),
        "summary": count(summary),
    }
    return {name: scaled(tokens, state.agent.token_ratio) for name, tokens in estimates.items()}


def fill_percent(turn: Turn) -> int:
    """How full the window is."""
    room = turn.room()
    return round(100 * room.prompt_tokens / room.window.tokens)
