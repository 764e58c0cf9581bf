"""One agent's saved state in memory, what is measured about it, and how both change together."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any, TypeVar

from agentos.actions.saved import load_state
from agentos.context import compiler, pager
from agentos.context.tokens import TokenCounter, clip, prompt_tokens, scaled
from agentos.events import Retry
from agentos.memory import core
from agentos.messages import Block, Kind, Message, Reply
from agentos.next_action import Room
from agentos.protocols import LLM, Clock, Delta, LLMRequest, Store
from agentos.state import AgentState, InboxItem, Limits, RunRecord, Timer
from agentos.tools.tool import MemoryPort
from agentos.tools.toolset import Toolset
from agentos.tracing import Trace, chat, replied

T = TypeVar("T")


@dataclass(frozen=True)
class Parts:
    """What an agent is made of; the runtime chooses them."""

    store: Store
    llm: LLM
    tools: Toolset
    memory: Callable[[str, str | None], MemoryPort]
    """The agent's memory as its tools see it: (agent id, id of the running turn) -> port."""
    clock: Clock
    system: str
    """The system prompt."""
    cache_ttl_seconds: int = 300
    window_tokens: int | None = None
    """Use at most this much of the model's window."""
    limits: Limits = field(default_factory=Limits)
    """What one turn may spend in this process, whatever the agent's own limits say."""
    default_limits: Limits = field(default_factory=lambda: Limits(max_steps=25))
    """What one turn may spend where neither says."""


class Turn:
    """The state of one agent between two commits. Every change goes through `commit`."""

    def __init__(
        self, parts: Parts, state: AgentState, learned_window: int | None = None, trace: Trace | None = None
    ) -> None:
        self.parts = parts
        self.trace = trace or Trace()
        self.state = self._limited(state)
        self.counter = TokenCounter(parts.llm.count_tokens)
        self.window = self.known_window = fit_window(parts, learned_window)
        """`window` may be a guess for this run, after a refusal that named no number."""
        self.cancelled = False
        self.stale = False
        """Whether somebody else changed the agent since its state was read."""
        self.lease: int | None = None
        """The epoch under which this process holds the agent, where machines share the database."""
        self.shrinks = 0
        """Times in this run that the provider found the request too long."""
        self._task: asyncio.Task[Any] | None = None
        self._head: tuple[object, int] = (None, 0)

    # measuring

    def room(self) -> Room:
        """How full the context is."""
        head, ratio = self.head_tokens(), self.state.agent.token_ratio
        return Room(
            window=self.window,
            head_tokens=scaled(head, ratio),
            prompt_tokens=prompt_tokens(self.state, self.counter, head),
            size=lambda message: scaled(self.counter.message(message), ratio),
            cancelled=self.cancelled,
        )

    def head_tokens(self) -> int:
        """Our estimate for tools, system message and summary."""
        key = (self.state.agent.snapshot, self.state.entries)
        if self._head[0] is None or self._head[0] != key:
            self._head = ((key[0], list(key[1])), self.estimate_head(self.state))
        return self._head[1]

    def estimate_head(self, state: AgentState) -> int:
        """The same for another state."""
        head = compiler.compile_context(replace(state, queue=[]), self.parts.system, "")
        return sum(map(self.counter.wire, head)) + self.counter.json(self.parts.tools.schemas)

    def crowding(self, blocks: list[Block]) -> str | None:
        """Why core memory with these blocks would crowd out the conversation; None when it fits."""
        text = f"{self.parts.system}\n\n{core.render(blocks)}"
        estimate = self.counter.count(text) + self.counter.json(self.parts.tools.schemas)
        tokens, half = scaled(estimate, self.state.agent.token_ratio), self.window.tokens // 2
        if tokens <= half:
            return None
        return (
            f"tools, system text and core memory would take {tokens} tokens and may take {half}, half of the window "
            f"of {self.window.tokens}"
        )

    def crowds(self, tx: Any, block: Block, value: str) -> str | None:
        """Why `value` in place of the block's text would crowd out a conversation; None when it does not.

        This agent's, or that of one that shares the block. A text that gets shorter always may.
        """
        return None if len(value) <= len(block.value) else self.crowds_as(tx, replace(block, value=value))

    def crowds_as(self, tx: Any, block: Block) -> str | None:
        """The same for a block that becomes this one."""
        if crowded := self.crowding(_with(tx.blocks(self.state.agent.id), block)):
            return crowded
        for agent_id, name in tx.holders(block.id).items():
            room = tx.agent(agent_id).core_room if agent_id != self.state.agent.id else 0
            took = self.counter.count(core.render(_with(tx.blocks(agent_id), block))) if room else 0
            if took > room:
                return f"agent {name!r} shares the block and has room for {room} tokens of core memory, not for {took}"
        return None

    def core_room(self) -> int:
        """Tokens, by our count, that core memory may take."""
        fixed = self.counter.count(self.parts.system) + self.counter.json(self.parts.tools.schemas)
        return max(1, int(self.window.tokens // 2 / self.state.agent.token_ratio) - fixed)

    def misfit(self) -> str | None:
        """Why a model or window that is new to the agent is too small for it; None for one that it used before."""
        snapshot, model = self.state.agent.snapshot, self.parts.llm.name
        if snapshot is not None and snapshot.parts.get("model") == self._fixed_parts["model"]:
            return None
        crowded = self.crowding(self.state.blocks)
        return crowded and (
            f"model {model!r} is too small for this agent: {crowded}; `agentos memory edit` shortens core memory, "
            "--model or AGENTOS_CONTEXT_WINDOW gives more room"
        )

    def snapshot_parts(self) -> dict[str, str]:
        """Hashes of what the prompt's head is made from now."""
        return {**self._fixed_parts, "blocks": compiler.blocks_hash(self.state.blocks)}

    @cached_property
    def _fixed_parts(self) -> dict[str, str]:
        """Those of them that stay as they are while this process runs."""
        parts = self.parts
        model = f"{parts.llm.name} {parts.llm.provider} {parts.window_tokens}"
        values = {"system": parts.system, "tools": parts.tools.schemas, "model": model}
        return {name: compiler.part_hash(value) for name, value in values.items()}

    def request(self) -> LLMRequest:
        """The next conversation request."""
        agent, queue = self.state.agent, self.state.queue
        messages = compiler.compile_context(self.state, self.parts.system, self.parts.llm.provider)
        # the previous request ended right before the message that anchors the count
        since = sum(1 for m in queue if (m.seq or 0) >= agent.anchor_seq) if agent.anchor_seq else len(messages)
        return LLMRequest(
            messages, self.parts.tools.schemas, max_tokens=self.window.reply, cache_key=agent.id,
            previous_length=len(messages) - since,
        )  # fmt: skip

    def expected_cache(self) -> tuple[int, str]:
        """(tokens of the next prompt that the provider's cache should hold, why it holds none)."""
        agent, now = self.state.agent, self.parts.clock.now()
        if not agent.anchor_seq:
            return 0, agent.snapshot.reason if agent.snapshot else "start"
        if agent.last_step_at and (now - agent.last_step_at).total_seconds() > self.parts.cache_ttl_seconds:
            return 0, "pause"
        return self.state.previous_prompt_tokens, ""

    # what can be broken off

    async def ask(self, request: LLMRequest) -> AsyncGenerator[Delta | Retry | Reply, None]:
        """The model's reply, read by a task of its own so that `cancel` can break it off; then it just ends."""
        items: asyncio.Queue[Delta | Retry | Reply | None] = asyncio.Queue()

        async def pump() -> None:
            llm = self.parts.llm
            with chat(self.span(), llm.provider, llm.name, request.max_tokens, self.state.agent.id) as span:
                async with aclosing(llm.stream(request)) as stream:
                    async for item in stream:
                        if isinstance(item, Reply):
                            replied(span, item)
                        items.put_nowait(item)

        if self.cancelled:
            return
        task = self._task = asyncio.create_task(pump())
        task.add_done_callback(lambda _: items.put_nowait(None))  # also where it was cancelled before it began
        try:
            while (item := await items.get()) is not None:
                yield item
            if not task.cancelled():
                task.result()
        finally:
            task.cancel()
            await asyncio.wait([task])
            _ = task.cancelled() or task.exception()  # nobody waits for it any more
            self._task = None

    async def interruptible(self, work: Coroutine[Any, Any, T]) -> T | None:
        """The value of `work`, or None when `cancel` broke it off."""
        if self.cancelled:
            work.close()
            return None
        task = self._task = asyncio.create_task(work)
        try:
            await asyncio.wait([task])
            return None if task.cancelled() else task.result()
        finally:
            task.cancel()
            self._task = None

    def cancel(self) -> None:
        """Stop the run at the next saved point; a model or tool call that is under way is broken off."""
        self.cancelled = True
        if self._task is not None:
            self._task.cancel()

    # keeping state and database together

    async def commit(self, work: Callable[[Any], T], *, leased: bool = True) -> T:
        """Save; afterwards `stale` tells whether anybody else changed the agent in between.

        `LeaseLost` when another process holds the agent by now; what is not the turn's own needs no lease.
        """
        agent_id, lease = self.state.agent.id, self.lease if leased else None

        def whole(tx: Any) -> tuple[T, int, int]:
            tx.check_lease(agent_id, lease)
            before = tx.bumps.get(agent_id, 0)
            value = work(tx)
            return value, tx.agent_version(agent_id) or 0, tx.bumps.get(agent_id, 0) - before

        value, version, ours = await _finished(self.parts.store.write(whole))
        self.stale = self.stale or version != self.state.agent.version + ours
        self.state.agent = replace(self.state.agent, version=version)
        return value

    async def reload(self) -> None:
        """Read the state anew."""
        agent_id, now = self.state.agent.id, self.parts.clock.now()
        self.state = self._limited(await self.parts.store.read(lambda tx: load_state(tx, agent_id, now)))
        self.counter.forget_all_but(self.state.queue)
        self.stale = False

    def _limited(self, state: AgentState) -> AgentState:
        """The state under the limits that hold in this process."""
        limits = self.parts.limits.over(state.agent.limits).over(self.parts.default_limits)
        state.agent = replace(state.agent, limits=limits)
        return state

    async def outdated(self) -> bool:
        """Whether the agent was changed since its state was read."""
        agent_id = self.state.agent.id
        return self.stale or self.state.agent.version != await self.parts.store.read(
            lambda tx: tx.agent_version(agent_id)
        )

    async def refresh(self) -> None:
        """See what came from elsewhere: waiting input and due timers, and the whole state where it was changed."""
        agent_id, now = self.state.agent.id, self.parts.clock.now()

        def work(tx: Any) -> tuple[int | None, InboxItem | None, list[Timer]]:
            return tx.agent_version(agent_id), tx.waiting(agent_id), tx.timers(agent_id, due_by=now)

        version, self.state.waiting, self.state.due = await self.parts.store.read(work)
        run = self.state.run
        if self.stale or version != self.state.agent.version:
            await self.reload()
        elif run and run.awaits_approval and self.state.waiting:
            self.state.spoken_to = await self.parts.store.read(lambda tx: tx.user_waits(agent_id))

    def queued(self, messages: list[Message]) -> None:
        """Mirror messages that were saved into the queue."""
        if messages:
            self.state.queue.extend(messages)
            self.state.agent = replace(self.state.agent, last_seq=messages[-1].seq or 0)

    def message(self, role: Any, content: str, *, place: int = 1, **values: Any) -> Message:
        """A new message of the run at the queue's end, made now; `place` counts those made together."""
        now = self.parts.clock.now()
        return Message(
            id=0, agent_id=self.state.agent.id, role=role, content=content, created_at=now, utc_offset=utc_offset(now),
            seq=self.state.agent.last_seq + place, run_id=self.run.id, **values,
        )  # fmt: skip

    def notice(self, kind: Kind, name: str, text: str) -> Message:
        """A notice of the runtime to the model."""
        shown = clip(text, self.window.tokens // 8, self.counter.count)
        return self.message("user", text, origin="runtime", kind=kind, name=name, shown=shown)

    def span(self) -> Any:
        """The trace context of the unfinished run, if there is one."""
        agent, run = self.state.agent, self.state.run
        return self.trace.turn(run.id if run else None, agent.id, agent.name)

    @property
    def run(self) -> RunRecord:
        """The unfinished run."""
        assert self.state.run is not None
        return self.state.run


def _with(blocks: list[Block], block: Block) -> list[Block]:
    return [block if b.id == block.id else b for b in blocks]


def fit_window(parts: Parts, learned: int | None, reply: int | None = None) -> pager.Window:
    """The room there is: the smallest of the model's window, the configured and the learned one."""
    tokens = min(t for t in (parts.llm.context_window, parts.window_tokens, learned) if t)
    return pager.Window(tokens, min(reply or parts.llm.max_output_tokens, tokens // 4))


def utc_offset(now: datetime) -> int:
    """Minutes east of UTC of an aware time."""
    offset = now.utcoffset()
    return 0 if offset is None else round(offset.total_seconds() / 60)


async def _finished(write: Awaitable[T]) -> T:
    """The outcome of a write, waited for also when the waiting task is cancelled: durable or undone, never unknown."""
    future = asyncio.ensure_future(write)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])  # whoever holds a lock keeps it until the commit is over
        raise
