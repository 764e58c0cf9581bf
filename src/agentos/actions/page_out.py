"""The page-out: the oldest messages leave the context, and a dated entry stands for them."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from agentos.actions.saved import rebase
from agentos.actions.turn import Turn
from agentos.context import compiler, pager
from agentos.context.tokens import PER_MESSAGE, clip, prompt_tokens, scaled
from agentos.errors import ConfigError, ProviderError
from agentos.events import Event
from agentos.events import PageOut as PageOutEvent
from agentos.messages import Cause, Message, Reply, SummaryEntry, Usage, clean_text
from agentos.next_action import PageOut
from agentos.prompts import prompt
from agentos.protocols import LLMRequest
from agentos.state import StepRecord
from agentos.tools.memory import SEARCH_TOOLS


async def page_out(turn: Turn, action: PageOut) -> AsyncGenerator[Event, None]:
    """Move messages to recall memory; a model that fails to write notes does not hold it up."""
    state, evicted = turn.state, list(action.evicted)
    before = turn.room().prompt_tokens
    notes = await _notes_on(turn, evicted)
    saving = action.saving_step or pager.saving_step(state) or "refused by budget"
    entry = _entry(turn, evicted, notes, saving, before)
    # a model that just failed is not asked again
    entries = await _completed(turn) if notes is not None else state.entries
    room = int(turn.window.tokens * pager.SUMMARY_SHARE) - turn.counter.count(compiler.render_summary([], []))
    leaving = pager.retired([*entries, entry], room, turn.counter.count)
    kept = [e for e in [*entries, entry] if e not in leaving]
    entry = replace(entry, tokens_after=_tokens_after(turn, kept))
    parts, run, agent, room_for_core = turn.snapshot_parts(), state.run, state.agent, turn.core_room()

    def work(tx: Any) -> None:
        record = tx.add_entry(entry)
        for old in entries:
            tx.update_entry(old.id, prose=old.prose, retired=old in leaving)
        cause = Cause(agent.id, "runtime", run.id if run else None)
        tx.journal(cause, "page_out", f"s{record.id}", f"{len(evicted)} messages; saving step {entry.saving_step}")
        rebase(tx, agent.id, state.blocks, parts, "page_out", room_for_core)
        faulting = tx.fault_rate(agent.id, SEARCH_TOOLS) > pager.FAULT_RATE
        tx.update_agent(agent.id, head_seq=entry.last_seq, fill_seq=agent.last_seq, faulting=faulting)

    await turn.commit(work)
    await turn.reload()
    yield PageOutEvent(entry.message_ids, before, entry.tokens_after, entry.saving_step)


def _entry(turn: Turn, evicted: list[Message], notes: str | None, saving: str, before: int) -> SummaryEntry:
    budget = turn.window.entry - (turn.counter.count(notes) if notes else 0)
    return SummaryEntry(
        id=0, agent_id=turn.state.agent.id, created_at=turn.parts.clock.now(), first_seq=evicted[0].seq or 0,
        last_seq=evicted[-1].seq or 0, message_ids=tuple(m.id for m in evicted),
        text=pager.entry_text(evicted, budget, turn.counter.count), prose=notes, saving_step=saving,
        tokens_before=before, tokens_after=0,
    )  # fmt: skip


def _tokens_after(turn: Turn, kept: list[SummaryEntry]) -> int:
    state = turn.state
    after = replace(
        state,
        agent=replace(state.agent, anchor_seq=0, anchor_tokens=0),
        queue=[m for m in state.queue if (m.seq or 0) > kept[-1].last_seq],
        entries=kept,
        snapshot_blocks=state.blocks,
    )
    return prompt_tokens(after, turn.counter, turn.estimate_head(after))


async def _notes_on(turn: Turn, evicted: list[Message]) -> str | None:
    """Notes by the model, asked for behind the very prompt that is cached; None without room or model."""
    words = max(20, turn.window.entry // 4)
    text = prompt("summary_request", first=evicted[0].ref, last=evicted[-1].ref, words=words)
    before = turn.room().prompt_tokens
    tokens = scaled(turn.counter.count(text) + PER_MESSAGE, turn.state.agent.token_ratio)
    if before + tokens > turn.window.prompt or turn.state.agent.snapshot is None:
        return None
    request = turn.request()
    request = replace(request, messages=[*request.messages, {"role": "user", "content": text}])
    request = replace(request, max_tokens=min(turn.window.reply, 4 * words))
    return await _notes(turn, request, before + tokens, *turn.expected_cache())


async def _completed(turn: Turn) -> list[SummaryEntry]:
    """The summary's entries, where one whose model call failed got its notes; only a rebase may show them."""
    entries = turn.state.entries
    entry = next((e for e in entries if e.prose is None), None)
    if entry is None:
        return entries
    agent_id = turn.state.agent.id
    messages = await turn.parts.store.read(lambda tx: tx.messages(agent_id, entry.message_ids))
    spoken = "\n".join(f"{m.role}: {m.mark}{m.content}" for m in messages if m.role != "tool" and m.origin != "runtime")
    head = prompt("summary_request", first=f"m{entry.message_ids[0]}", last=f"m{entry.message_ids[-1]}", words=60)
    body = f"{head}\n\n{spoken[: clip(spoken, turn.window.prompt // 2, turn.counter.count)]}"
    request = LLMRequest([{"role": "user", "content": body}], max_tokens=240)
    notes = await _notes(turn, request, turn.counter.count(body), 0, "separate prompt")
    return [replace(e, prose=notes) if e is entry else e for e in entries]


async def _notes(turn: Turn, request: LLMRequest, prompt_tokens: int, cached: int, cache_note: str) -> str | None:
    """The model's answer to a request for notes; its step and usage are saved also where it fails or is empty."""
    started, reply, error = time.perf_counter(), None, None
    try:
        async with aclosing(turn.ask(request)) as stream:
            async for item in stream:
                reply = item if isinstance(item, Reply) else reply
    except (ProviderError, ConfigError) as failure:
        error = str(failure)
    reply = reply or Reply(usage=Usage())
    run, usage = turn.state.run, reply.usage or Usage(prompt_tokens, turn.counter.count(reply.text))
    step = StepRecord(
        run_id=run.id if run else "", agent_id=turn.state.agent.id, created_at=turn.parts.clock.now(), kind="summary",
        model=reply.model or turn.parts.llm.name, usage=usage, estimated_tokens=prompt_tokens,
        expected_cached_tokens=cached, cache_note=cache_note, error=error,
        latency_ms=round(1000 * (time.perf_counter() - started)), finish_reason=reply.finish_reason,
    )  # fmt: skip
    spent = replace(run, llm_calls=run.llm_calls + 1, usage=run.usage + usage) if run and error is None else run

    def work(tx: Any) -> None:
        tx.add_step(step)
        if spent:
            tx.save_run(spent)

    await turn.commit(work)
    turn.state.run = spent
    text = " ".join(clean_text(reply.text).split())
    if not text:
        return None
    shown = clip(text, turn.window.entry // 2, turn.counter.count)
    return text if shown is None else f"{text[:shown]} …"
