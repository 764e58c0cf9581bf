"""What the loop does next, as a pure function of the saved state.

Resuming after a crash is this same function called again. Limits, the nudge and the loop breaker live here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from agentos.context import pager
from agentos.messages import Block, Message, StopReason, ToolCall
from agentos.state import AgentState, InboxItem, RunRecord, Timer

LOOP_AFTER = 3
"""The same call with the same result this many times running stops the turn."""


SPOKEN_TO = "the user wrote something else instead"


@dataclass(frozen=True)
class Begin:
    """Start a turn with the oldest waiting input, or with the timers that were due before it came."""

    item: InboxItem | None = None
    timers: tuple[Timer, ...] = ()


@dataclass(frozen=True)
class RunCall:
    """Run a pending tool call and save its result."""

    call: ToolCall
    refusal: str | None = None
    """Why it was not approved: then this is its result."""


@dataclass(frozen=True)
class AwaitApproval:
    """Stop the turn until somebody has decided on these calls."""

    calls: tuple[ToolCall, ...]


@dataclass(frozen=True)
class Tell:
    """Enter a notice: `memory_pressure`, `unanswered`, `outside_edit` of `block`, or one that waits."""

    name: str
    block: Block | None = None
    waiting: Message | None = None


@dataclass(frozen=True)
class PageOut:
    """Move these messages out of the context."""

    evicted: tuple[Message, ...]
    saving_step: pager.SavingStep | None = None
    """How the saving step went, where the caller knows; None reads it from the state."""


@dataclass(frozen=True)
class AskModel:
    """The next step. `reason` names the heartbeat, None for the turn's first step."""

    reason: Literal["requested", "failed call", "nudge", "timer", "alert"] | None = None


@dataclass(frozen=True)
class End:
    """End the turn."""

    reason: StopReason
    error: str | None = None


@dataclass(frozen=True)
class Idle:
    """Nothing is due, or nothing until somebody decides."""


Action = Begin | RunCall | AwaitApproval | Tell | PageOut | AskModel | End | Idle


@dataclass(frozen=True)
class Room:
    """What was measured about the context before the decision."""

    window: pager.Window
    head_tokens: int
    """Tools, system message and summary."""
    prompt_tokens: int
    """The next prompt as it stands."""
    size: Callable[[Message], int]
    """Tokens of one message, in the provider's own tokens."""
    cancelled: bool = False

    def evictable(self, state: AgentState) -> tuple[Message, ...]:
        """What a page-out would move now."""
        share = pager.PAGE_OUT_TO_FAULTING if state.agent.faulting else pager.PAGE_OUT_TO
        # the summary may grow by an entry, which the target has to leave room for
        fixed = self.head_tokens + self.window.entry
        return tuple(
            pager.choose_evicted(state.queue, self.size, fixed, int(self.window.tokens * share), self.window.prompt)
        )


def next_action(state: AgentState, room: Room) -> Action:
    """The one thing to do now."""
    if state.run is None:
        item = state.waiting
        due = tuple(t for t in state.due if item is None or t.due_at <= item.created_at)
        return Begin(timers=due) if due else Begin(item=item) if item else Idle()
    if room.cancelled:
        return End("cancelled")
    pending = state.pending_calls()
    if pending:
        return _call(state, state.run, pending[0])
    step = _next_step(state)
    if step is None:
        return _relief(state, room) or End("end_turn")
    return _limit(state) or _news(state) or _pressure(state, room) or step


def _call(state: AgentState, run: RunRecord, call: ToolCall) -> RunCall | AwaitApproval | End | Idle:
    """What becomes of the first pending call: calls run in order, up to one that somebody has yet to approve."""
    undecided = state.undecided_calls()
    if call not in undecided:
        return RunCall(call, run.refusal(call))
    if not run.awaits_approval:
        return AwaitApproval(tuple(undecided))
    if state.spoken_to:
        return End("requires_approval", f"{undecided[0].name} was not approved: {SPOKEN_TO}")
    return Idle()


def _next_step(state: AgentState) -> AskModel | None:
    """The heartbeat that is due, if one is."""
    assert state.run is not None
    turn = state.turn_messages()
    if not turn:  # all of it was paged out: the model has yet to see the outcome
        return AskModel("requested" if state.run.steps else None)
    last = turn[-1]
    if last.role == "user":
        if last.kind == "message":
            return AskModel()
        return AskModel("timer" if last.kind == "timer" else "alert" if state.run.steps else None)
    if last.role == "tool":
        results = pager.units(turn)[-1][1:]
        if any(not r.ok for r in results):
            return AskModel("failed call")
        if any(r.heartbeat for r in results):
            return AskModel("requested")
    if state.run.trigger == "user" and not state.run.spoke and not state.run.nudged:
        return AskModel("nudge")
    return None


def _limit(state: AgentState) -> End | None:
    """The limit that stops the turn before another step, if one does."""
    run, limits = state.run, state.agent.limits
    assert run is not None
    most_steps = min((n for n in (limits.max_steps, run.max_steps) if n is not None), default=None)
    if most_steps is not None and run.steps >= most_steps:
        name = "--max-steps" if most_steps == limits.max_steps else "max_steps"
        return End("max_steps", f"the turn used its {most_steps} steps; say “go on”, or raise {name}")
    used = run.usage.prompt_tokens + run.usage.completion_tokens
    if limits.max_tokens is not None and used >= limits.max_tokens:
        return End("budget", f"the turn used {used} of {limits.max_tokens} tokens; raise AGENTOS_MAX_TURN_TOKENS")
    cost = run.usage.cost_usd or 0.0
    if limits.max_cost_usd is not None and cost >= limits.max_cost_usd:
        return End("budget", f"the turn cost ${cost:.4f} of ${limits.max_cost_usd}; raise AGENTOS_MAX_TURN_COST_USD")
    repeated = _repeated_call(state.turn_messages())
    if repeated:
        return End("loop", f"{repeated} was called {LOOP_AFTER} times running with the same result; ask in another way")
    return None


def _repeated_call(turn: list[Message]) -> str | None:
    """The tool whose last calls and results were all equal."""
    calls = {call.id: call for message in turn for call in message.calls}
    results = [m for m in turn if m.role == "tool" and m.call_id in calls][-LOOP_AFTER:]
    seen = {(calls[m.call_id or ""].name, calls[m.call_id or ""].arguments, m.ok, m.content) for m in results}
    return next(iter(seen))[0] if len(results) == LOOP_AFTER and len(seen) == 1 else None


def _news(state: AgentState) -> Tell | None:
    """The oldest notice that waits, an input whose failed turn goes on, or the first block that changed unseen."""
    if state.notices:
        return Tell(state.notices[0].name or "alert", waiting=state.notices[0])
    if state.queue and not state.turn_messages():  # other turns came between, so the input is no longer the newest
        return Tell("unanswered")
    shown = {b.id for b in state.snapshot_blocks}
    for block in state.blocks:
        if block.version_id != block.seen_version_id and block.id in shown:
            return Tell("outside_edit", block)
    return None


def _pressure(state: AgentState, room: Room) -> Tell | PageOut | End | None:
    """What a filling context asks for before the next step."""
    if room.prompt_tokens > room.window.prompt:
        evicted = room.evictable(state)
        if evicted:
            return PageOut(evicted)
        return End(
            "llm_error",
            f"tools, system text and core memory take {room.head_tokens} tokens and leave no room in a window of "
            f"{room.window.tokens}; shorten core memory or choose a model with a larger window",
        )
    if room.prompt_tokens <= pager.ALERT_AT * room.window.tokens:
        return None
    if pager.pressure_told(state) is None:
        return Tell("memory_pressure") if room.evictable(state) else None
    return _relief(state, room)


def _relief(state: AgentState, room: Room) -> PageOut | None:
    """The page-out that follows the saving step while the context is still above the mark."""
    if room.prompt_tokens <= pager.ALERT_AT * room.window.tokens or pager.pressure_told(state) is None:
        return None
    if pager.saving_step(state) is None:
        return None
    evicted = room.evictable(state)
    return PageOut(evicted) if evicted else None
