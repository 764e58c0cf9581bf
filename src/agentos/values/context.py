"""The window and what went through it, as plain JSON."""

from typing import Any

from agentos.actions.turn import Turn
from agentos.context import pager
from agentos.context.compiler import render_summary
from agentos.context.tokens import scaled
from agentos.memory import core
from agentos.messages import SummaryEntry
from agentos.runtime import Runtime
from agentos.state import StepRecord
from agentos.tools.memory import SEARCH_TOOLS
from agentos.values.plain import Json, local


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
        "cost_usd": step.usage.cost_usd, "cause": step.cache_note, "latency_ms": step.latency_ms, "error": step.error,
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
        "alert_at_tokens": int(pager.ALERT_AT * room.window.tokens), "page_out_to_tokens": _target_tokens(turn),
        "sections": sections,
        "free_tokens": max(0, room.window.prompt - room.prompt_tokens), "messages": len(turn.state.queue),
        "snapshot": turn.state.agent.snapshot.reason if turn.state.agent.snapshot else None,
        **await runtime.store.read(work),
    }  # fmt: skip


def _target_tokens(turn: Turn) -> int:
    """What a page-out would leave of the window."""
    share = pager.PAGE_OUT_TO_FAULTING if turn.state.agent.faulting else pager.PAGE_OUT_TO
    return int(share * turn.window.tokens)


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
