"""The heartbeat loop: start reading here."""

import asyncio
import hashlib
import json
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

from agentos.actions.approve import await_approval, decide
from agentos.actions.ask import ask
from agentos.actions.begin import begin, tell
from agentos.actions.call import run_call
from agentos.actions.end import end
from agentos.actions.page_out import page_out
from agentos.actions.saved import input_result, load_state, require_agent
from agentos.actions.turn import Parts, Turn, fit_window, utc_offset
from agentos.context import pager
from agentos.context.tokens import clip
from agentos.errors import Overloaded, PendingApproval, UsageError
from agentos.events import Event, TurnEnded, TurnResult
from agentos.messages import Input, Message, clean_text
from agentos.next_action import AskModel, AwaitApproval, Begin, End, Idle, PageOut, RunCall, Tell, next_action
from agentos.state import AgentRecord, AgentState, Decision, InboxItem, RunRecord
from agentos.tracing import Trace

_PERFORM: dict[type, Callable[[Turn, Any], AsyncGenerator[Event, None]]] = {
    Begin: begin, Tell: tell, AskModel: ask, RunCall: run_call, AwaitApproval: await_approval,
    PageOut: page_out, End: end,
}  # fmt: skip

_REPEATED = timedelta(minutes=10)
"""How long a request that is sent again without a key of its own may take to arrive."""
_RETRY_AFTER_SECONDS = 5


class Agent:
    """One agent: input goes in by `send` or `accept`, events come out while its turns run.

    Turns of one agent run one after another, also across processes; `lock` (agent id -> context
    manager) sees to it, and where it is a lease it yields the epoch that each commit of the turn checks.
    Everything is saved as it happens: an agent object holds nothing that a new one would not find in the
    database.
    """

    def __init__(
        self,
        agent_id: str,
        parts: Parts,
        lock: Callable[[str], AbstractAsyncContextManager[int | None]],
        made_of: AgentRecord | None = None,
    ) -> None:
        self.id = agent_id
        self.parts = parts
        self.made_of = made_of
        """Its row, as it was when somebody last asked for this object."""
        self._lock = lock
        self._turn: Turn | None = None
        self._trace = Trace()
        self._running = 0
        self._holds = False
        """Whether the agent's lock is had, and not only waited for."""
        self._cancel_next = False
        """Whether `cancel` came before the turn that it was meant for had begun."""
        self._unwanted: set[str] = set()
        """Runs that are to be cancelled once they are taken up."""

    async def run(self, until: InboxItem | None = None, *, anew: bool = False) -> AsyncGenerator[Event, None]:
        """Do everything that is due: unfinished turns first, then input and timers in order of arrival.

        An interrupted turn goes on here where it stopped: the next action is computed from what is saved.
        With `until` it ends behind that input's turn, and leaves what came later to whoever sent it. With `anew`
        it does nothing where it is `outdated`: the caller makes the agent anew.
        """
        async with self._held() as lease:
            turn = await self._open(lease=lease)
            count, answered = 0, None
            if anew and self.outdated:
                return
            self._cancel_begun(turn, until)
            try:
                while not isinstance(action := next_action(turn.state, turn.room()), Idle):
                    count = 0 if isinstance(action, Begin) else count
                    async with aclosing(_PERFORM[type(action)](turn, action)) as events:
                        async for event in events:
                            yield replace(event, run_id=event.run_id or turn.run.id, seq=count)
                            count += 1
                            answered = event.run_id if isinstance(event, TurnEnded) else None
                    self._cancel_begun(turn, until)
                    if until is not None and answered == until.run_id:
                        return
                    if turn.stale:
                        await turn.refresh()
            except BaseException:
                self._turn = None  # what is in memory may be ahead of or behind what is saved
                raise

    async def send(self, text: str, *, otid: str | None = None) -> AsyncGenerator[Event, None]:
        """Save `text` as the user's, then run; the last event is the `TurnEnded` of its turn.

        `otid` is an idempotency key: the same one again runs nothing twice and yields the same end.
        """
        item = await self.accept([text], otid=otid)
        async with aclosing(self._until_end(item)) as events:
            async for event in events:
                yield event

    async def approve(
        self, decisions: Mapping[str, Decision], *, run_id: str | None = None
    ) -> AsyncGenerator[Event, None]:
        """Save decisions (`decide`), then go on with the turn; the last event is its `TurnEnded`."""
        item = await self.decide(decisions, run_id=run_id)
        async with aclosing(self._until_end(item)) as events:
            async for event in events:
                yield event

    async def _until_end(self, item: InboxItem) -> AsyncGenerator[Event, None]:
        """Run what is due up to the end of an input's turn, or to where it stops for approval."""
        ended = False
        async with aclosing(self.run(until=item)) as events:
            async for event in events:
                ended = isinstance(event, TurnEnded) and event.run_id == item.run_id
                yield event
        if not ended and (result := await self.result(item)) is not None:
            yield TurnEnded(result, item.id or None, run_id=result.run_id)  # run by another process, or long ago

    async def ask(self, text: str, *, otid: str | None = None) -> TurnResult:
        """Send `text` and wait for the end of its turn."""
        result: TurnResult | None = None
        async with aclosing(self.send(text, otid=otid)) as events:
            async for event in events:
                result = event.result if isinstance(event, TurnEnded) else result
        assert result is not None, "a turn that was run has a result"
        return result

    async def accept(
        self,
        inputs: Sequence[str | Input],
        *,
        otid: str | None = None,
        repeated: bool = False,
        most_waiting: tuple[int, int] | None = None,
        refuses: bool = True,
        max_steps: int | None = None,
        background: bool = False,
    ) -> InboxItem:
        """Save input: one item is one turn to come, and its run waits with it. It is on disk when this returns.

        `otid` is an idempotency key: the same one again saves nothing and returns the item of the first time.
        Where a sender has none but says that the request is `repeated`, it joins the same input of the last minutes.
        Text that is empty is a `UsageError`, as is a model too small for the agent; an `otid` that came with
        other text before is a `Conflict`. `most_waiting` (of this agent, of all) bounds what may wait: `Overloaded`.
        A turn that failed at the provider is taken up again when its `otid` comes again. A user's text refuses the
        calls that wait for approval; where it is not to (`refuses`), it is a `PendingApproval` while some do.
        `max_steps` limits this turn, as far as the agent's own limits allow it more; `background` says that nobody
        waits for it.
        """
        given = [Input(i) if isinstance(i, str) else i for i in inputs]
        if not any(i.text.strip() for i in given):
            raise UsageError("the message is empty; write something")
        turn = self._turn or await self._seen()
        if turn.misfit() and (misfit := (await self._seen()).misfit()):  # as it is now: a person may have cut it
            raise UsageError(misfit)
        now, otid = self.parts.clock.now(), otid and clean_text(otid)
        digest = hashlib.sha256(json.dumps([list(vars(i).values()) for i in given]).encode()).hexdigest()
        room = turn.window.tokens // 4 // len(given)
        texts = [(i, clean_text(i.text)) for i in given if i.text.strip()]
        messages = [
            Message(
                id=0, agent_id=self.id, role="user", content=text, origin=i.origin, kind=i.kind, created_at=now,
                name=i.name and clean_text(i.name), utc_offset=utc_offset(now),
                shown=clip(text, room, turn.counter.count),
            )
            for i, text in texts
        ]  # fmt: skip
        new = InboxItem(0, self.id, now, otid, digest, f"run-{uuid.uuid4()}", max_steps, background)

        def work(tx: Any) -> tuple[InboxItem, bool]:
            joined = tx.accepted_since(self.id, digest, now - _REPEATED) if repeated and otid is None else None
            item: InboxItem = joined or tx.accept(new, messages)[0]
            require_agent(tx, self.id)  # which another process may have been deleting
            if not refuses and tx.awaits_approval(self.id):
                _refuse_pending(tx.run(item.run_id), item.run_id == new.run_id)
            if item.run_id == new.run_id:
                _refuse_excess(tx, self.id, most_waiting)  # the new one is counted, and undone where it is too much
                return item, False
            run = tx.run(item.run_id)
            again = run.stop_reason == "llm_error"
            if again:
                tx.save_run(replace(run, status="running", stop_reason=None, error=None, ended_at=None))
                tx.update_agent(self.id)
            return item, again

        item, again = await turn.commit(work, leased=False)
        turn.stale = turn.stale or again
        return item

    async def decide(self, decisions: Mapping[str, Decision], *, run_id: str | None = None) -> InboxItem:
        """Save what was decided of calls (by id) that wait for approval; on disk when this returns, done by `run`.

        An approved call runs as any other, a refused one gets an error as its result, and the turn goes on; where
        others still wait it stops at the next of them. `Conflict` for a call that does not wait (any more), or not
        in the run `run_id`: then nothing is saved. Returns what stands for the turn, as `accept` does.
        """
        now = self.parts.clock.now()
        return await self.parts.store.write(lambda tx: decide(tx, self.id, decisions, now, run_id))

    async def result(self, item: InboxItem) -> TurnResult | None:
        """How the turn of an accepted input ended, or why it waits for approval: `input_result`."""
        return await self.parts.store.read(lambda tx: input_result(tx, item))

    async def give_up(self, error: str) -> AsyncGenerator[Event, None]:
        """End the unfinished turn as failed; its input can be sent again by its `otid`."""
        async with self._held() as lease:
            turn = await self._open(lease=lease)
            if turn.state.run is not None:
                async for event in end(turn, End("llm_error", error)):
                    yield replace(event, run_id=event.run_id or turn.run.id)

    def cancel(self, run_id: str | None = None) -> bool:
        """Stop what runs at its next saved point: a turn, one that waits to begin, or the notes of a page-out.

        Nothing happens when nothing runs. With `run_id` only that unfinished run is stopped; whether it is: not where
        another process holds the agent.
        """
        if not self._running:
            return False
        run = self._turn.state.run if self._holds and self._turn is not None else None
        if run_id is not None and (run is None or run.id != run_id):
            self._unwanted.add(run_id)
            return self._holds
        self._cancel_next = self._turn is None or self._turn.state.run is None
        if self._turn is not None:
            self._turn.cancel()
        return True

    def _cancel_begun(self, turn: Turn, until: InboxItem | None) -> None:
        """Stop a turn, of `until` where it is given, for which `cancel` came too early; those behind it go on."""
        run = turn.state.run
        if run is not None and run.id in self._unwanted:
            turn.cancel()
        if self._cancel_next and run is not None and (until is None or until.run_id == run.id):
            self._cancel_next = False
            turn.cancel()

    @property
    def outdated(self) -> bool:
        """Whether the agent's model, tools, system text or approvals changed since: another object has them."""
        if self._turn is None or self.made_of is None:
            return False
        return _fixed(self._turn.state.agent) != _fixed(self.made_of)

    @property
    def busy(self) -> bool:
        """Whether a turn of it runs here, or waits to."""
        return self._running > 0

    @asynccontextmanager
    async def _held(self) -> AsyncIterator[int | None]:
        """While the agent runs, and while it waits to."""
        self._running += 1
        try:
            async with self._lock(self.id) as lease:
                self._holds = True
                try:
                    yield lease
                finally:
                    self._holds = False
        finally:
            self._running -= 1
            if not self._running:
                self._trace.end()
                self._cancel_next = False
                self._unwanted.clear()
                if self._turn is not None:
                    self._turn.cancelled = False

    async def compact(self) -> AsyncGenerator[Event, None]:
        """Page out now: all but the newest exchange. Nothing happens while a turn is unfinished."""
        async with self._held() as lease:
            turn = await self._open(lease=lease)
            evicted = pager.before_newest_exchange(turn.state.queue)
            if turn.state.run is None and evicted:
                async for event in page_out(turn, PageOut(tuple(evicted), saving_step="not asked")):
                    yield event

    async def new_conversation(self) -> None:
        """Empty the message queue and the summary; memory stays, and every message can still be found."""
        async with self._held() as lease:
            turn = await self._open(lease=lease)
            agent = turn.state.agent

            def work(tx: Any) -> None:
                for entry in turn.state.entries:
                    tx.update_entry(entry.id, retired=True)
                values = {"head_seq": agent.last_seq, "fill_seq": agent.last_seq}
                tx.update_agent(self.id, **values, snapshot=None, anchor_seq=0, anchor_tokens=0)

            if turn.state.run is not None:
                raise UsageError("a turn is running or waits for approval; see to its end or cancel it before /new")
            await turn.commit(work)
            await turn.reload()

    async def state(self) -> AgentState:
        """The saved state, read anew."""
        return (await self._seen()).state

    async def turn(self) -> Turn:
        """The state with its measures, for views."""
        return await self._seen()

    async def _open(self, *, lease: int | None) -> Turn:
        """The agent's state for who has just got its lock, read anew when somebody else changed it."""
        if self._turn is None:
            self._turn = await self._loaded()
        else:
            await self._turn.refresh()
        self._turn.lease = lease
        return self._turn

    async def _seen(self) -> Turn:
        """The same for who only looks. What a running turn holds is its own to renew, and nobody else's to replace."""
        turn = self._turn
        if turn is None or (not self.busy and await turn.outdated()):
            turn = await self._loaded()
            if not self.busy:
                self._turn = turn
        return turn

    async def _loaded(self) -> Turn:
        agent_id, now = self.id, self.parts.clock.now()
        # a model's window may take seconds to find out: not on the event loop
        believed = (await asyncio.to_thread(fit_window, self.parts, None)).tokens

        def work(tx: Any) -> tuple[AgentState, int | None]:
            return load_state(tx, agent_id, now), tx.learned_window(self.parts.llm.name, believed)

        state, learned = await self.parts.store.read(work)
        return Turn(self.parts, state, learned, self._trace)


def _fixed(record: AgentRecord) -> tuple[object, ...]:
    return record.model, record.tools, record.system, record.window_tokens, record.approvals


def _refuse_pending(run: RunRecord, fresh: bool) -> None:
    """`PendingApproval` for input that is new or would be taken up again; what was accepted before is answered."""
    if fresh or run.stop_reason == "llm_error":
        raise PendingApproval("calls of this agent wait for approval; decide on them, or cancel their run")


def _refuse_excess(tx: Any, agent_id: str, most: tuple[int, int] | None) -> None:
    """`Overloaded` where more input waits than may: of the agent, or of all."""
    for limit, whose in zip(most or (), (agent_id, None), strict=False):
        if tx.count_waiting(whose) > limit:
            who = "this agent" if whose else "the server"
            raise Overloaded(f"{limit} messages wait for {who} already; send it again later", _RETRY_AFTER_SECONDS)
