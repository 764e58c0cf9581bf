"""Turns as saved work: what waits in the database is run here, each agent's in order, agents side by side."""

import asyncio
import contextvars
import logging
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any, Protocol

from agentos.actions.end import end_left
from agentos.actions.saved import input_result, turn_result
from agentos.errors import AgentBusy, AgentOSError, ConfigError, NotFound, Stopping, StoreError, UsageError
from agentos.events import Event, TurnEnded, TurnResult
from agentos.feeds import Feed, Feeds
from agentos.messages import Input
from agentos.runtime import Runtime
from agentos.schedules import next_time
from agentos.state import Decision, InboxItem

_log = logging.getLogger(__name__)
_SWEEP_SECONDS = 1.0
_ELSEWHERE_SECONDS = 0.25
"""How often a run that goes on in another process is looked up."""
_TOLD_SECONDS = 2.0
"""The same where that process tells what happens: a notice may be lost."""
_SAME_SWEEP_SECONDS = 3
_UNFIRED_SECONDS = 60.0
"""How long a schedule that could not fire is left alone."""
_FAULTS = 3
"""Failures in a row, of ours and not of the model or the disk, after which a turn is given up."""


class Engine(Protocol):
    """Hands out wake-ups ("run what is due for this agent") to the processes that share a database."""

    async def start(self, work: Callable[[str], Coroutine[Any, Any, None]] | None, most: int) -> None:
        """Take wake-ups and do `work(agent id)` for each, `most` at once; with None only make them."""
        ...

    async def wake(self, agent_id: str, reason: str) -> None:
        """Make a wake-up; the same `reason` again is the same one. Those of one agent run one after another."""
        ...

    async def forgotten(self, agent_ids: set[str], after_seconds: float) -> set[str]:
        """Those agents, which nobody runs, for whom no wake-up waits either.

        One that began so long ago and whose agent nobody holds is of a process that died: it is dropped.
        """
        ...

    async def stop(self) -> None:
        """Take no more."""
        ...


class Relay(Protocol):
    """Tells other processes what happens here, and hears what happens there."""

    @property
    def connected(self) -> bool:
        """Whether what others tell arrives now."""
        ...

    def start(self, hear: Callable[[str, Event | str], None]) -> None:
        """Begin; `hear` gets (agent id, event), and the id of a run for the wish to cancel it."""
        ...

    def tell(self, agent_id: str, event: Event | str) -> None:
        """Pass it on, soon and perhaps not at all."""
        ...

    async def stop(self) -> None:
        """Tell nothing more."""
        ...


class Dispatcher:
    """Runs the turns of one home in this process.

    `most_turns` run at once. At most `most_waiting` inputs (of one agent, of all) may wait; beyond,
    `accept` raises `Overloaded`. Between `start` and `stop` every unfinished turn goes on by itself,
    also one that another process left behind, and timers and schedules are looked after. `rest_seconds`:
    how long an agent is left alone after its first, second and further failures in a row. With an `engine`
    the processes that share a database share the turns; without turns of its own (`most_turns` 0) one only
    takes input. A `relay` tells the others what happens here.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        most_turns: int = 256,
        most_waiting: tuple[int, int] = (100, 10_000),
        rest_seconds: Sequence[float] = (1.0, 5.0, 30.0),
        engine: Engine | None = None,
        relay: Relay | None = None,
    ) -> None:
        self.runtime = runtime
        self.feeds = Feeds()
        """What becomes of the runs, for whoever follows them."""
        self._rest_seconds = rest_seconds
        self._most_turns = most_turns
        self._engine, self._relay = engine, relay
        self.most_waiting = most_waiting
        self.stopping = False
        self.stopped = False
        """Whether nothing more will become of any run here."""
        self.listeners: list[Callable[[str, Event, float], object]] = []
        """Each is called with (agent id, event, seconds that its turn has run here)."""
        self._slots = asyncio.Semaphore(most_turns)
        self._drains: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        """Agents for which something came while their turns ran."""
        self._faults: dict[str, int] = {}
        self._resting: dict[str, float] = {}
        """Agents that are left alone until this time (monotonic), for a failure."""
        self._unfired: dict[str, tuple[float, str]] = {}
        """Schedules that could not fire: (left alone until this time (monotonic), why)."""
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take up what is unfinished, then whatever comes."""
        if self._relay is not None:
            self._relay.start(self._hear)
        if self._engine is not None:
            await self._engine.start(self.drain if self._most_turns else None, self._most_turns)
        self._sweeper = asyncio.create_task(self._sweep_for_ever())

    async def stop(self, grace_seconds: float) -> None:
        """Begin no more turns and let those that run end; what takes longer goes on at the next start."""
        self.stopping = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        tasks = list(self._drains.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace_seconds)
            for task in late:
                task.cancel()
        await asyncio.gather(*tasks, *filter(None, [self._sweeper]), return_exceptions=True)
        self.stopped = True
        self.feeds.look_again()
        for part in (self._engine, self._relay):
            if part is not None:
                await part.stop()

    @property
    def running(self) -> int:
        """How many agents have turns running or waiting to here."""
        return len(self._drains)

    # input

    async def accept(self, agent_id: str, inputs: Sequence[str | Input], **options: Any) -> InboxItem:
        """Save input and see to its turn; `options` are those of `Agent.accept`."""
        agent = await self.runtime.agent_of(agent_id)
        item = await agent.accept(inputs, most_waiting=self.most_waiting, **options)
        self.feeds.ended.pop(item.run_id, None)  # it may be taken up again
        _log.info("accepted", extra={"agent_id": agent_id, "run_id": item.run_id})
        await self._have_run(agent_id, item.run_id)
        return item

    async def decide(self, agent_id: str, decisions: Mapping[str, Decision], *, run_id: str | None = None) -> InboxItem:
        """Take decisions in (`Agent.decide`) and see to it that the turn goes on."""
        item = await (await self.runtime.agent_of(agent_id)).decide(decisions, run_id=run_id)
        _log.info("decided", extra={"agent_id": agent_id, "run_id": item.run_id})
        await self._have_run(agent_id, f"{item.run_id}-{uuid.uuid4()}")
        return item

    async def drain(self, agent_id: str) -> None:
        """Run what is due for an agent, here and now."""
        self.wake(agent_id)
        if task := self._drains.get(agent_id):
            await asyncio.wait([task])

    async def _have_run(self, agent_id: str, reason: str) -> None:
        """Have what is due for this agent run, here or where the engine says."""
        if self._engine is None:
            self.wake(agent_id)
            return
        try:
            await self._engine.wake(agent_id, reason)
        except StoreError as error:  # the input is saved, and a sweep makes up for it
            _log.warning("wake-up failed", extra={"agent_id": agent_id, "error": str(error)})

    def wake(self, agent_id: str) -> None:
        """Something is due for this agent, to be run in this process."""
        if self.stopping:
            return
        if agent_id in self._drains:
            self._again.add(agent_id)
        else:
            # in a context of its own: a turn is not a part of the request that happened to wake its agent
            task = asyncio.create_task(self._drain(agent_id), context=contextvars.Context())
            self._drains[agent_id] = task

    async def cancel(self, agent_id: str, run_ids: Sequence[str] | None = None) -> dict[str, str]:
        """Stop runs of an agent, all that have not ended where none is named: run id -> `cancelled` or `failed`.

        One that waits never begins; one that runs stops at its next saved point; one that was begun and that nobody
        runs now ends at once. `failed` are those that had ended, are not this agent's, or run in another process
        that cannot be told.
        """
        now = self.runtime.clock.now()

        def work(tx: Any) -> tuple[list[str], list[str], list[str]]:
            if not tx.lock_agent(agent_id):  # a run that waits must not begin in this moment
                raise NotFound(f"there is no agent {agent_id!r}")
            unfinished = tx.open_runs(agent_id)
            asked = [r.id for r in unfinished] if run_ids is None else list(run_ids)
            waiting = [r for r in unfinished if r.id in asked and r.status == "created"]
            for run in waiting:
                tx.cancel_run(run, now)
            return asked, [r.id for r in waiting], [r.id for r in unfinished if r.id in asked and r not in waiting]

        asked, stopped, begun = await self.runtime.store.write(work)
        stopped += [run_id for run_id in begun if await self._stop(agent_id, run_id)]
        for run_id in stopped:
            self.feeds.look_again(run_id)
        return {run_id: "cancelled" if run_id in stopped else "failed" for run_id in asked}

    async def _stop(self, agent_id: str, run_id: str) -> bool:
        """Have a run that has begun stop, here, nowhere, or in the process that has it; whether it will."""
        running = self.runtime.running(agent_id)
        if running is not None and running.cancel(run_id):
            return True
        now = self.runtime.clock.now()

        def work(tx: Any) -> bool:
            tx.check_lease(agent_id, lease)
            return end_left(tx, agent_id, run_id, now)

        try:
            async with self.runtime.lock(agent_id, wait_seconds=0) as lease:
                stopped: bool = await self.runtime.store.write(work)
        except AgentBusy:
            if self._relay is not None:
                self._relay.tell(agent_id, run_id)
            return self._relay is not None
        self._faults.pop(agent_id, None)  # what it rests from is over
        self._resting.pop(agent_id, None)
        return stopped

    # output

    def patience(self, agent_id: str, seconds: float) -> float:
        """How long to wait for a feed before the database is asked: `seconds` where the agent's turns run here."""
        told = agent_id in self._drains or (self._relay is not None and self._relay.connected)
        return seconds if told and self._engine is None else min(seconds, _TOLD_SECONDS if told else _ELSEWHERE_SECONDS)

    async def result(self, item: InboxItem, timeout_seconds: float | None = None) -> TurnResult | None:
        """How the turn of an accepted input ended, once it has; None after the time-out.

        `Stopping` when this process ends before.
        """
        end = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        async with self.feeds.follow(item.run_id) as feed:
            while True:
                saved = feed.saved  # what happens while the database is read must not be waited for
                result = feed.result or await self._saved_result(item)
                left = 10.0 if end is None else end - time.monotonic()
                if result is None and self.stopped:
                    raise Stopping
                if result is not None or left <= 0:
                    return result
                await self._next(feed, saved, self.patience(item.agent_id, min(10.0, left)))

    async def _saved_result(self, item: InboxItem) -> TurnResult | None:
        """How the input's turn ended, if it has."""
        if (result := self.feeds.ended.get(item.run_id)) is not None:
            return result
        return await self.runtime.store.read(lambda tx: input_result(tx, item))

    async def _next(self, feed: Feed, saved: int, seconds: float) -> None:
        """Wait until more of the run is saved than when the feed's count was `saved`."""
        end = time.monotonic() + seconds
        while feed.saved == saved and (left := end - time.monotonic()) > 0:
            await feed.changed(left)

    def _publish(self, agent_id: str, event: Event, seconds: float) -> Feed:
        for listener in self.listeners:
            listener(agent_id, event, seconds)
        if self._relay is not None:
            self._relay.tell(agent_id, event)
        if isinstance(event, TurnEnded):
            extra = {"agent_id": agent_id, "run_id": event.run_id, "status": event.result.stop_reason}
            _log.info("turn", extra={**extra, "steps": event.result.steps, "ms": round(1000 * seconds)})
        return self.feeds.publish(agent_id, event)

    def _hear(self, agent_id: str, event: Event | str) -> None:
        """What another process tells of a turn, or that it wants the run of this id cancelled."""
        if not isinstance(event, str):
            self.feeds.hear(agent_id, event)
        elif running := self.runtime.running(agent_id):
            running.cancel(event)

    # turns

    async def _drain(self, agent_id: str) -> None:
        """Run what is due for one agent, until nothing is; hand the slot on after a turn where others wait for one."""
        try:
            more = True
            while more and not self.stopping:
                async with self._slots:
                    self._again.discard(agent_id)
                    more = await self._run(agent_id) or agent_id in self._again
        finally:
            del self._drains[agent_id]

    async def _run(self, agent_id: str) -> bool:
        """Run turns of an agent; whether it left off though more may be due."""
        feed, started, since = Feed(), time.monotonic(), self.runtime.clock.now()
        try:
            agent = await self.runtime.agent_of(agent_id)
            async with aclosing(agent.run(anew=True)) as events:
                async for event in events:
                    feed = self._publish(agent_id, event, time.monotonic() - started)
                    if isinstance(event, TurnEnded):
                        started, since = time.monotonic(), self.runtime.clock.now()
                        self._faults.pop(agent_id, None)
                        if self.stopping or self._slots.locked():
                            return True
                        if agent.outdated:
                            return True
            self._faults.pop(agent_id, None)
            if agent.outdated:  # changed while it waited for the agent's lock
                return True
        except NotFound:  # deleted meanwhile
            self.feeds.look_again()
        except ConfigError as error:
            feed.broke_off()
            if ended := await self._refused(agent_id, since):  # the next run may do better
                self._publish(agent_id, ended, time.monotonic() - started)
                return True
            if self._rest(agent_id, error) >= _FAULTS:
                await self._give_up(agent_id, error)
        except (AgentBusy, StoreError) as error:
            self._rest(agent_id, error)
        except Exception as error:
            _log.exception("turn broke off", extra={"agent_id": agent_id})
            if self._rest(agent_id, error) >= _FAULTS:
                await self._give_up(agent_id, error)
        feed.broke_off()
        return False

    async def _refused(self, agent_id: str, since: datetime) -> TurnEnded | None:
        """The end of the run that failed since then, for a setting and so without an event."""

        def work(tx: Any) -> TurnEnded | None:
            run, agent = tx.last_failed_run(agent_id), tx.agent(agent_id)
            if run is None or agent is None or run.ended_at < since:
                return None
            return TurnEnded(turn_result(tx, agent.name, run), run.inbox_id, run_id=run.id)

        try:
            return await self.runtime.store.read(work)
        except StoreError:
            return None

    def _rest(self, agent_id: str, error: Exception) -> int:
        """Leave the agent alone for a while; returns how often this happened in a row."""
        faults = self._faults[agent_id] = self._faults.get(agent_id, 0) + 1
        seconds = self._rest_seconds[min(faults, len(self._rest_seconds)) - 1]
        self._resting[agent_id] = time.monotonic() + seconds
        why = str(error) if isinstance(error, AgentOSError) else type(error).__name__  # a bug's may quote anything
        _log.warning("turn waits", extra={"agent_id": agent_id, "seconds": seconds, "error": why})
        return faults

    async def _give_up(self, agent_id: str, error: Exception) -> None:
        """One turn that breaks off each time must not keep its agent from ever answering again."""
        try:
            agent = await self.runtime.agent_of(agent_id)
            told = str(error) if isinstance(error, AgentOSError) else type(error).__name__
            why = f"the turn broke off {_FAULTS} times ({told}); the server's log says why"
            async with aclosing(agent.give_up(why)) as events:
                async for event in events:
                    self._publish(agent_id, event, 0.0)
            self._faults.pop(agent_id, None)
        except Exception:
            _log.exception("turn cannot be given up", extra={"agent_id": agent_id})

    # the clock

    async def _sweep_for_ever(self) -> None:
        while True:
            try:
                await self.sweep()
            except AgentOSError as error:
                _log.warning("sweep failed", extra={"error": str(error)})
            except Exception:
                _log.exception("sweep failed")
            await asyncio.sleep(_SWEEP_SECONDS)

    async def sweep(self) -> None:
        """Fire schedules, then wake every agent that has something due and does not run."""
        store, now = self.runtime.store, self.runtime.clock.now()
        schedules = await store.read(lambda tx: tx.due_schedules(now))
        self._unfired = {s.id: self._unfired[s.id] for s in schedules if s.id in self._unfired}
        for schedule in schedules:
            until, told = self._unfired.get(schedule.id, (0.0, ""))
            if time.monotonic() < until:
                continue
            try:
                await self._fire(schedule, now)
            except AgentOSError as error:  # one that cannot fire keeps no other from it
                why = str(error)
                self._unfired[schedule.id] = (time.monotonic() + _UNFIRED_SECONDS, why)
                if why != told:
                    _log.warning("schedule waits", extra={"agent_id": schedule.agent_id, "error": why})
        tired = time.monotonic()
        self._resting = {agent_id: until for agent_id, until in self._resting.items() if until > tired}
        due = set(await store.read(lambda tx: tx.agents_due(now)))
        due -= self._drains.keys() | self._resting.keys()
        if self._engine is None:
            for agent_id in due:
                self.wake(agent_id)
        elif due:
            held = await store.read(lambda tx: tx.leased(due))
            # the same name in all processes for a while, so that one of them makes the wake-up
            name = int(time.time() // _SAME_SWEEP_SECONDS)
            for agent_id in await self._engine.forgotten(due - held, self.runtime.settings.lease_seconds):
                await self._have_run(agent_id, f"{agent_id}-{name}")

    async def _fire(self, schedule: Any, now: Any) -> None:
        """Send a schedule's input once, however many of its times were missed, and not while the last still waits."""
        store, key = self.runtime.store, f"{schedule.id}@"
        if await store.read(lambda tx: tx.awaits_approval(schedule.agent_id)):
            return  # it fires once somebody has decided
        if not await store.read(lambda tx: tx.waits(schedule.agent_id, key)):
            agent = await self.runtime.agent_of(schedule.agent_id)
            try:
                await agent.accept(schedule.inputs, otid=f"{key}{schedule.next_at.isoformat()}")
            except UsageError as error:  # the agent cannot take it now, and would not a second later
                _log.warning("schedule missed", extra={"agent_id": schedule.agent_id, "error": str(error)})
        following = None if schedule.cron is None else next_time(schedule.cron, schedule.zone, now)
        await store.write(lambda tx: tx.reschedule(schedule, following))
