"""A step: ask the model, save what it said and what it cost."""

import json
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from agentos.actions.end import end
from agentos.actions.saved import rebase
from agentos.actions.turn import Turn, fit_window
from agentos.context.compiler import rebase_reason
from agentos.context.tokens import PER_MESSAGE, clip, prompt_tokens, scaled
from agentos.errors import AgentOSError, ConfigError, ContextOverflow, ProviderError
from agentos.events import Event, Heartbeat, ReasoningDelta, Retry, TextDelta, ToolCallEvent
from agentos.messages import Message, Reply, ToolCall, Usage, clean_text
from agentos.next_action import AskModel, End
from agentos.prompts import prompt
from agentos.state import StepRecord

_MOST_CALLS = 32
"""Calls of one reply that are run; the model is told of those behind them."""
_MOST_SHRINKS = 6
"""Times in one run that a provider may find the request too long."""
_LEAST_WINDOW = 2048
"""Tokens; a refusal that names fewer means something else."""
_LEAST_ROOM = 500
"""Tokens that a guessed window leaves for messages."""


@dataclass
class _Asked:
    """What became of one model call."""

    started: float = field(default_factory=time.perf_counter)
    said: list[str] = field(default_factory=list)
    said_chars: int = 0
    thought_chars: int = 0
    reply: Reply | None = None

    @property
    def latency_ms(self) -> int:
        return round(1000 * (time.perf_counter() - self.started))


async def ask(turn: Turn, action: AskModel) -> AsyncGenerator[Event, None]:
    """One step of the turn. What the prompt's new head no longer leaves room for is paged out first."""
    if (await _rebased(turn) and turn.room().prompt_tokens > turn.window.prompt) or turn.cancelled:
        return
    if action.reason:
        yield Heartbeat(action.reason)
    asked = _Asked()
    try:
        async with aclosing(turn.ask(turn.request())) as stream:
            async for item in stream:
                if isinstance(item, Reply):
                    asked.reply = item
                elif isinstance(item, Retry):
                    yield item
                else:
                    if item.reasoning:
                        yield ReasoningDelta(
                            item.reasoning, place=turn.state.agent.last_seq + 1, at=asked.thought_chars
                        )
                        asked.thought_chars += len(item.reasoning)
                    if item.text:
                        yield TextDelta(item.text, place=turn.state.agent.last_seq + 1, at=asked.said_chars)
                        asked.said.append(item.text)
                        asked.said_chars += len(item.text)
    except ContextOverflow as error:
        following = _shrink(turn, error)
    except ProviderError as error:
        following = _failed(turn, asked, error)
    except ConfigError as error:  # a key that is refused: whoever runs the turn has to act
        async for _ in _failed(turn, asked, error):
            pass
        raise
    else:
        following = _save(turn, action, asked)
    async for event in following:
        yield event


async def _rebased(turn: Turn) -> bool:
    """Take the snapshot anew where the rules ask for it; nothing else may change the prompt's head."""
    parts, now = turn.snapshot_parts(), turn.parts.clock.now()
    reason = rebase_reason(turn.state, parts, now, turn.parts.cache_ttl_seconds)
    if reason is not None:
        agent_id, blocks, room = turn.state.agent.id, turn.state.blocks, turn.core_room()
        await turn.commit(lambda tx: rebase(tx, agent_id, blocks, parts, reason, room))
        await turn.reload()
    return reason is not None


async def _save(turn: Turn, action: AskModel, asked: _Asked) -> AsyncGenerator[Event, None]:
    """Save the reply, its step and its usage; an empty one is nudged once."""
    reply = asked.reply or _cut_off("".join(asked.said))
    if reply.text and not asked.said:
        yield TextDelta(reply.text, place=turn.state.agent.last_seq + 1)
    message = _fitted(turn, reply)
    empty = not message.content.strip() and not message.calls
    step = _step(turn, reply, message, asked.latency_ms)
    run = turn.run
    nudge = empty and run.trigger == "user" and not (run.spoke or run.nudged or turn.cancelled)
    run = replace(
        run, steps=run.steps + 1, llm_calls=run.llm_calls + 1, usage=run.usage + step.usage,
        spoke=run.spoke or bool(message.content.strip()), nudged=run.nudged or nudge or action.reason == "nudge",
    )  # fmt: skip
    values: dict[str, Any] = {"last_step_at": step.created_at}
    kept = nudge or not empty
    if nudge:
        message = turn.notice("alert", "empty_reply", prompt("empty_reply"))
    if kept:
        reported = reply.usage is not None and reply.usage.prompt_tokens > 0
        values |= {"last_seq": message.seq, **_anchor(turn, message, step, reported)}

    def work(tx: Any) -> Message:
        saved: Message = tx.add_message(message) if kept else message
        tx.add_step(replace(step, message_id=saved.id or None))
        tx.save_run(run)
        tx.update_agent(run.agent_id, **values)
        return saved

    saved = await turn.commit(work)
    turn.state.run = run
    turn.state.agent = replace(turn.state.agent, **values)
    turn.state.previous_prompt_tokens = step.usage.prompt_tokens or turn.state.previous_prompt_tokens
    if kept:
        turn.queued([saved])
    for call in saved.calls:
        yield ToolCallEvent(call.id, call.name, call.values)
    if empty and not nudge and not turn.cancelled:  # a second empty reply, or one that nobody waits for
        async for event in end(turn, End("end_turn")):
            yield event


def _cut_off(text: str) -> Reply:
    """What a cancelled call leaves: its text, all that was shown of it, marked; its unfinished calls are dropped."""
    marked = text + ("[cut off]" if text[-1:].isspace() else " [cut off]")
    return Reply(text=marked if text.strip() else "", usage=Usage(), finish_reason="cancelled")


def _fitted(turn: Turn, reply: Reply) -> Message:
    """The reply as a message: call ids unique in the history, and no more in view than the context can bear."""
    used = {call.id for m in turn.state.queue for call in m.calls}
    room = turn.window.tokens // 8
    text = clean_text(reply.text) if reply.text.strip() else ""
    shown = clip(text, room, turn.counter.count)
    calls = []
    for call in _bounded(reply.calls, max(4, min(_MOST_CALLS, turn.window.tokens // 512))):
        # short ids (`call_0`) are those that providers count anew in each reply
        ident = call.id if 8 < len(call.id) <= 64 and call.id not in used else f"call_{uuid.uuid4().hex}"
        used.add(ident)
        if clip(call.arguments, room, turn.counter.count) is not None:
            view = json.dumps({"clipped": f"{len(call.arguments)} characters that were passed on in full"})
            call = replace(call, shown=view)
        room -= turn.counter.count(call.in_context)
        calls.append(replace(call, id=ident, asks=turn.parts.tools.asks(call)))
    return turn.message("assistant", text, origin="agent", calls=tuple(calls), provider=reply.provider, shown=shown)


def _bounded(calls: Sequence[ToolCall], most: int) -> Sequence[ToolCall]:
    """The first `most` calls, and behind them one that tells how many were left out."""
    left = len(calls) - most
    if left <= 0:
        return calls
    fault = f"a reply may make {most} calls here: this one and {left - 1} behind it were not run; make them again"
    return [*calls[:most], replace(calls[most], arguments="{}", error=fault)]


def _step(turn: Turn, reply: Reply, message: Message, latency_ms: int) -> StepRecord:
    """The step's row, with what the cache should have held beside what it did."""
    estimated = prompt_tokens(turn.state, turn.counter, turn.head_tokens())
    usage = reply.usage or Usage(estimated, turn.counter.wire(message.wire))
    now = turn.parts.clock.now()
    expected, note = (0, "cancelled") if reply.finish_reason == "cancelled" else turn.expected_cache()
    return StepRecord(
        run_id=turn.run.id, agent_id=turn.state.agent.id, created_at=now, kind="conversation",
        model=reply.model or turn.parts.llm.name, usage=usage, estimated_tokens=estimated,
        expected_cached_tokens=expected, cache_note=note, latency_ms=latency_ms, finish_reason=reply.finish_reason,
    )  # fmt: skip


def _anchor(turn: Turn, message: Message, step: StepRecord, reported: bool) -> dict[str, Any]:
    """The size of this step's prompt and of `message` behind it; where it was reported, how our estimate compares."""
    prompt, ratio = step.usage.prompt_tokens or step.estimated_tokens, turn.state.agent.token_ratio
    if reported:
        ours = turn.head_tokens() + turn.counter.messages(turn.state.queue)
        ratio = min(3.0, max(0.5, prompt / max(1, ours)))
    behind = scaled(turn.counter.wire(message.wire), ratio)
    if reported and message.role == "assistant" and message.shown is None and not any(c.error for c in message.calls):
        # it comes back in the next prompt as it came, with its role and separators
        behind = step.usage.completion_tokens + PER_MESSAGE
    return {"anchor_seq": message.seq, "anchor_tokens": prompt + behind, "token_ratio": ratio}


async def _failed(turn: Turn, asked: _Asked, error: AgentOSError) -> AsyncGenerator[Event, None]:
    """The provider failed for good: the input stays, the run can be taken up again."""
    run = turn.run
    step = StepRecord(
        run_id=run.id, agent_id=run.agent_id, created_at=turn.parts.clock.now(), kind="conversation",
        model=turn.parts.llm.name, usage=Usage(), estimated_tokens=0, expected_cached_tokens=0, cache_note="",
        latency_ms=asked.latency_ms, error=str(error),
    )  # fmt: skip
    await turn.commit(lambda tx: tx.add_step(step))
    async for event in end(turn, End("llm_error", str(error))):
        yield event


async def _shrink(turn: Turn, error: ContextOverflow) -> AsyncGenerator[Event, None]:
    """Learn the provider's true window, so that the next action pages out; give up after a few times.

    Without a window that is smaller than ours the room is guessed, for this run only: the refusal may have
    had another reason, and what an agent remembers of it must not keep it from ever fitting again.
    """
    turn.shrinks += 1
    if turn.shrinks > _MOST_SHRINKS:
        async for event in end(turn, End("llm_error", f"{error}; choose a model with a larger window")):
            yield event
        return
    name, room, told = turn.parts.llm.name, turn.room(), error.window_tokens
    if told and _LEAST_WINDOW <= told < turn.known_window.tokens:
        turn.window = turn.known_window = fit_window(turn.parts, told)
        await turn.commit(lambda tx: tx.learn_window(name, fit_window(turn.parts, None).tokens, told))
    else:
        guess = max(room.prompt_tokens * 9 // 10, room.head_tokens + turn.window.reply + _LEAST_ROOM)
        turn.window = fit_window(turn.parts, guess)
    yield Retry(str(error), attempt=turn.shrinks, wait_seconds=0.0)
