"""Turns as saved work: what waits in the database is run here, each agent's in order, agents side by side."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

from agentos.errors import AgentBusy, AgentOSError, ConfigError, NotFound, StoreError, UsageError
from agentos.events import Event, ReasoningDelta, Retry, TextDelta, TurnEnded, TurnResult
from agentos.messages import Input, clean_text
from agentos.runtime import Runtime
from agentos.schedules import next_time
from agentos.state import InboxItem

_log = logging.getLogger(__name__)
_SWEEP_SECONDS = 1.0
_ELSEWHERE_SECONDS = 0.25
"""How often a run that goes on in another process is looked up."""
_REST_SECONDS = (1.0, 5.0, 30.0)
"""How long an agent rests after its first, second and further failures in a row."""
_FAULTS = 3
"""Failures in a row, of ours and not of the model or the disk, after which a turn is given up."""


class Feed:
    """What becomes of one run, for whoever follows it: a follower that is slow misses nothing and stops nobody.

    It holds no history. What is saved is read from the database; only the message being written is here.
    """

    def __init__(self) -> None:
        self.saved = 0
        """Grows with everything of the run that is saved."""
        self.place = 0
        """Place in the queue of the message being written."""
        self.result: TurnResult | None = None
        """Set when the run has ended."""
        self.followers = 0
        self._pieces: list[str] = []
        self._thoughts: list[str] = []
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def text(self) -> str:
        """What the message at `place` says so far."""
        return _joined(self._pieces)

    @property
    def reasoning(self) -> str:
        """What the model thought so far before it."""
        return _joined(self._thoughts)

    def take(self, event: Event) -> None:
        """Note an event of the run and wake its followers."""
        if isinstance(event, TextDelta | ReasoningDelta):
            if event.place != self.place:
                self.broke_off()
                self.place = event.place
            (self._pieces if isinstance(event, TextDelta) else self._thoughts).append(clean_text(event.text))
        else:
            if isinstance(event, Retry):
                self.broke_off()
            self.saved += 1
            if isinstance(event, TurnEnded):
                self.result = event.result
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    def broke_off(self) -> None:
        """What was being written will be written anew."""
        self.place, self._pieces, self._thoughts = 0, [], []

    async def changed(self, timeout_seconds: float) -> bool:
        """Wait for the next event; False when none came in time."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            async with asyncio.timeout(timeout_seconds):
                await future
            return True
        except TimeoutError:
            return False
        finally:
            if future in self._waiting:
                self._waiting.remove(future)


def _joined(pieces: list[str]) -> str:
    if len(pieces) > 1:
        pieces[:] = ["".join(pieces)]
    return pieces[0] if pieces else ""


class Dispatcher:
    """Runs the turns of one home in this process.

    `most_turns` run at once. At most `most_waiting` inputs (of one agent, of all) may wait; beyond,
    `accept` raises `Overloaded`. Between `start` and `stop` every unfinished turn goes on by itself,
    also one that another process left behind, and timers and schedules are looked after.
    """

    def __init__(
        self, runtime: Runtime, *, most_turns: int = 256, most_waiting: tuple[int, int] = (100, 10_000)
    ) -> None:
        self.runtime = runtime
        self.most_waiting = most_waiting
        self.stopping = False
        self._slots = asyncio.Semaphore(most_turns)
        self._drains: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        """Agents for which something came while their turns ran."""
        self._faults: dict[str, int] = {}
        self._resting: dict[str, float] = {}
        """Agents that are left alone until this time (monotonic), for a failure."""
        self._feeds: dict[str, Feed] = {}
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take up what is unfinished, then whatever comes."""
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

    @property
    def running(self) -> int:
        """How many agents have turns running or waiting to here."""
        return len(self._drains)

    # input

    async def accept(
        self, agent_id: str, inputs: Sequence[str | Input], *, otid: str | None = None, repeated: bool = False
    ) -> InboxItem:
        """Save input (`Agent.accept`) and see to its turn."""
        agent = await self.runtime.agent_of(agent_id)
        item = await agent.accept(inputs, otid=otid, repeated=repeated, most_waiting=self.most_waiting)
        self.wake(agent_id)
        return item

    def wake(self, agent_id: str) -> None:
        """Something is due for this agent."""
        if self.stopping:
            return
        if agent_id in self._drains:
            self._again.add(agent_id)
        else:
            self._drains[agent_id] = asyncio.create_task(self._drain(agent_id))

    async def cancel(self, agent_id: str, run_ids: Sequence[str] | None = None) -> dict[str, str]:
        """Stop runs of an agent, all that have not ended where none is named: run id -> `cancelled` or `failed`.

        One that waits never begins; one that runs stops at its next saved point. `failed` are those that
        had ended, are not this agent's, or run in another process.
        """
        now = self.runtime.clock.now()

        def work(tx: Any) -> tuple[list[str], list[str]]:
            unfinished = tx.open_runs(agent_id)
            asked = [r.id for r in unfinished] if run_ids is None else list(run_ids)
            waiting = [r for r in unfinished if r.id in asked and r.status == "created"]
            for run in waiting:
                tx.cancel_run(run, now)
            return asked, [r.id for r in waiting]

        agent = await self.runtime.agent_of(agent_id)
        asked, stopped = await self.runtime.store.write(work)
        turn = await agent.state()
        if turn.run is not None and turn.run.id in asked and agent.busy:
            agent.cancel()
            stopped.append(turn.run.id)
        for run_id in stopped:
            if feed := self._feeds.get(run_id):
                feed.take(Event(run_id=run_id))  # its followers look at what is saved
        return {run_id: "cancelled" if run_id in stopped else "failed" for run_id in asked}

    # output

    @asynccontextmanager
    async def follow(self, run_id: str) -> AsyncIterator[Feed]:
        """What becomes of a run, while the caller wants to know."""
        feed = self._feeds.setdefault(run_id, Feed())
        feed.followers += 1
        try:
            yield feed
        finally:
            feed.followers -= 1
            self._tidy(run_id, feed)

    def patience(self, agent_id: str, seconds: float) -> float:
        """How long to wait for a feed before the database is asked: `seconds` where the agent's turns run here."""
        return seconds if agent_id in self._drains else min(seconds, _ELSEWHERE_SECONDS)

    async def result(self, item: InboxItem, timeout_seconds: float | None = None) -> TurnResult | None:
        """How the turn of an accepted input ended, once it has; None after the time-out."""
        end = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        agent = await self.runtime.agent_of(item.agent_id)
        async with self.follow(item.run_id) as feed:
            while True:
                saved = feed.saved  # what happens while the database is read must not be waited for
                result = feed.result or await agent.result(item)
                left = 10.0 if end is None else end - time.monotonic()
                if result is not None or left <= 0:
                    return result
                await self._next(feed, saved, self.patience(item.agent_id, min(10.0, left)))

    async def _next(self, feed: Feed, saved: int, seconds: float) -> None:
        """Wait until more of the run is saved than when the feed's count was `saved`."""
        end = time.monotonic() + seconds
        while feed.saved == saved and (left := end - time.monotonic()) > 0:
            await feed.changed(left)

    def _publish(self, event: Event) -> Feed:
        feed = self._feeds.setdefault(event.run_id, Feed())
        feed.take(event)
        if isinstance(event, TurnEnded):  # whoever follows has it; where the run is taken up again, another begins
            del self._feeds[event.run_id]
        return feed

    def _tidy(self, run_id: str, feed: Feed) -> None:
        """Let go of a feed that nobody follows and nothing more is written to."""
        if not feed.followers and not feed.place and self._feeds.get(run_id) is feed:
            del self._feeds[run_id]

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
        feed = Feed()
        try:
            agent = await self.runtime.agent_of(agent_id)
            async with aclosing(agent.run()) as events:
                async for event in events:
                    feed = self._publish(event)
                    if isinstance(event, TurnEnded):
                        self._faults.pop(agent_id, None)
                        if self.stopping or self._slots.locked():
                            return True
            self._faults.pop(agent_id, None)
        except NotFound:  # deleted meanwhile
            self._look_again()
        except ConfigError as error:  # the run has ended as failed; the next one may do better
            _log.warning("turn failed", extra={"agent_id": agent_id, "error": str(error)})
            feed.broke_off()
            self._look_again()
            return True
        except (AgentBusy, StoreError) as error:
            self._rest(agent_id, error)
        except Exception as error:
            _log.exception("turn broke off", extra={"agent_id": agent_id})
            if self._rest(agent_id, error) >= _FAULTS:
                await self._give_up(agent_id, error)
        feed.broke_off()
        return False

    def _look_again(self) -> None:
        """A run ended without an event of its own: whoever follows one looks at what is saved."""
        for feed in list(self._feeds.values()):
            feed.take(Event())

    def _rest(self, agent_id: str, error: Exception) -> int:
        """Leave the agent alone for a while; returns how often this happened in a row."""
        faults = self._faults[agent_id] = self._faults.get(agent_id, 0) + 1
        seconds = _REST_SECONDS[min(faults, len(_REST_SECONDS)) - 1]
        self._resting[agent_id] = time.monotonic() + seconds
        _log.warning("turn waits", extra={"agent_id": agent_id, "seconds": seconds, "error": str(error)})
        return faults

    async def _give_up(self, agent_id: str, error: Exception) -> None:
        """One turn that breaks off each time must not keep its agent from ever answering again."""
        try:
            agent = await self.runtime.agent_of(agent_id)
            async with aclosing(agent.give_up(f"the turn broke off {_FAULTS} times: {error}")) as events:
                async for event in events:
                    self._publish(event)
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
        for schedule in await store.read(lambda tx: tx.due_schedules(now)):
            try:
                await self._fire(schedule, now)
            except AgentOSError as error:  # one that cannot fire keeps no other from it
                _log.warning("schedule waits", extra={"agent_id": schedule.agent_id, "error": str(error)})
        tired = time.monotonic()
        self._resting = {agent_id: until for agent_id, until in self._resting.items() if until > tired}
        for agent_id in await store.read(lambda tx: tx.agents_due(now)):
            if agent_id not in self._drains and agent_id not in self._resting:
                self.wake(agent_id)

    async def _fire(self, schedule: Any, now: Any) -> None:
        """Send a schedule's input once, however many of its times were missed, and not while the last still waits."""
        store, key = self.runtime.store, f"{schedule.id}@"
        if not await store.read(lambda tx: tx.waits(schedule.agent_id, key)):
            agent = await self.runtime.agent_of(schedule.agent_id)
            try:
                await agent.accept(schedule.inputs, otid=f"{key}{schedule.next_at.isoformat()}")
            except UsageError as error:  # the agent cannot take it now, and would not a second later
                _log.warning("schedule missed", extra={"agent_id": schedule.agent_id, "error": str(error)})
        following = None if schedule.cron is None else next_time(schedule.cron, schedule.zone, now)
        await store.write(lambda tx: tx.reschedule(schedule, following))
