"""How the window filled, and the request that was sent last, as plain JSON."""

from dataclasses import replace
from typing import Any

from agentos.actions.turn import Turn
from agentos.context import compiler
from agentos.context.tokens import scaled
from agentos.memory import core
from agentos.messages import Message, SummaryEntry
from agentos.runtime import Runtime
from agentos.state import StepRecord
from agentos.values.context import entry_value, step_value
from agentos.values.plain import Json, local


def filling_value(tx: Any, agent_id: str, limit: int = 120) -> list[Json]:
    """The size of the prompt at each of the last steps, oldest first, and which was the first behind a page-out."""
    steps: list[StepRecord] = [s for s in tx.steps(agent_id, limit=2 * limit) if s.kind == "conversation"]
    return [
        {
            "created_at": local(step.created_at), "run_id": step.run_id, "prompt_tokens": step.usage.prompt_tokens,
            "cached_tokens": step.usage.cached_tokens, "page_out": step.cache_note == "page_out",
        }
        for step in reversed(steps[:limit])
        if step.usage.prompt_tokens
    ]  # fmt: skip


def page_out_page(tx: Any, agent_id: str, *, before: int | None = None, limit: int = 10) -> Json:
    """Receipts, newest first: {"page_outs", "before"}; the latter, an entry's number, goes on, or is None."""
    found: list[SummaryEntry] = tx.entries(agent_id, retired=True)[::-1]
    found = [entry for entry in found if before is None or entry.id < before]
    return {
        "page_outs": [entry_value(entry) for entry in found[:limit]],
        "before": found[limit - 1].id if len(found) > limit else None,
    }


async def request_value(runtime: Runtime, turn: Turn, *, after: int = 0, limit: int = 20) -> Json:
    """The request that was sent last, part by part; where a rebase threw that one away, the one that comes next.

    {"sent", "exact", "step", "parts", "after"}: `sent` tells which of the two it is. It is made again by the compiler
    from the saved snapshot and queue, and `exact` tells that system text, tools and model are those of the time: then
    its message list is what was sent, byte for byte, but for the marks that a provider's cache wants. Parts have
    `section`, `tokens` and `cached`: how many of these the provider reported (`step`) as found in its cache. The
    messages of the queue are a page, those behind the place `after`.
    """
    state, agent = turn.state, turn.state.agent
    sent = agent.anchor_seq > 0
    queue = [m for m in state.queue if not sent or (m.seq or 0) < agent.anchor_seq]
    steps = await runtime.store.read(lambda tx: tx.steps(agent.id, limit=10))
    step = next((s for s in steps if s.kind == "conversation" and not s.error), None) if sent else None
    parts = _head(turn)
    head = len(parts)
    provider = turn.parts.llm.provider
    wires = compiler.compile_context(replace(state, queue=queue), turn.parts.system, provider)[-len(queue) :]
    parts += [_message_part(turn, m, wire) for m, wire in zip(queue, wires if queue else [], strict=True)]
    _mark_cached(parts, step)
    shown = [part for part in parts[head:] if part["place"] > after]
    now, then = turn.snapshot_parts(), agent.snapshot.parts if agent.snapshot else {}
    return {
        "sent": sent, "exact": sent and all(now[name] == then.get(name) for name in ("system", "tools", "model")),
        "step": step and step_value(step), "messages": len(queue), "tokens": sum(part["tokens"] for part in parts),
        "parts": [*(parts[:head] if not after else ()), *shown[:limit]],
        "after": shown[limit - 1]["place"] if len(shown) > limit else None,
    }  # fmt: skip


def _head(turn: Turn) -> list[Json]:
    """What stands in front of the messages, in the order in which providers read it."""
    state, count = turn.state, turn.counter.count
    texts = [
        ("system", turn.parts.system),
        ("core memory", core.render(state.snapshot_blocks or state.blocks)),
        ("summary", compiler.render_summary(state.entries, state.snapshot_blocks) if state.entries else ""),
    ]
    made = [_part("system" if name != "summary" else "user", name, text, count(text)) for name, text in texts if text]
    schemas = turn.parts.tools.schemas
    tools = _part("", "tools", "", turn.counter.json(schemas)) | {"tools": [s["function"]["name"] for s in schemas]}
    return [_scale(turn, part) for part in ([tools] if schemas else []) + made]


def _part(role: str, section: str, text: str, tokens: int) -> Json:
    return {
        "section": section, "role": role, "id": None, "place": 0, "text": text, "calls": [], "tokens": tokens,
        "cached": 0, "tools": [],
    }  # fmt: skip


def _message_part(turn: Turn, message: Message, wire: Json) -> Json:
    calls = [{"id": c["id"], **c["function"]} for c in wire.get("tool_calls", ())]
    part = _part(wire["role"], "messages", wire["content"] or "", turn.counter.message(message))
    return _scale(turn, part | {"id": message.ref, "place": message.seq, "calls": calls})


def _scale(turn: Turn, part: Json) -> Json:
    return part | {"tokens": scaled(part["tokens"], turn.state.agent.token_ratio)}


def _mark_cached(parts: list[Json], step: StepRecord | None) -> None:
    """Lay what the provider found in its cache over the parts, from the first on."""
    total = sum(part["tokens"] for part in parts)
    if step is None or not step.usage.cached_tokens or not total:
        return
    left = round(total * min(1.0, step.usage.cached_tokens / max(1, step.usage.prompt_tokens)))
    for part in parts:
        part["cached"] = min(left, part["tokens"])
        left -= part["cached"]
