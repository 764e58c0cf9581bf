"""Who follows which run: what becomes of it goes out from here."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from agentos.events import Event, ReasoningDelta, Retry, Saved, TextDelta, TurnEnded, TurnResult
from agentos.messages import clean_text

_LISTENER_EVENTS = 10_000
_ENDED = 1000


class Feed:
    """What becomes of one run, for whoever follows it: a follower that is slow misses nothing and stops nobody.

    It holds no history. What is saved is read from the database; only the message being written is here.
    """

    def __init__(self) -> None:
        self.saved = 0
        """Grows with everything of the run that is saved."""
        self.place = 0
        """Place in the queue of the message being written."""
        self.attempts = 0
        """Grows where the message being written begins anew: what was told of it does not hold."""
        self.result: TurnResult | None = None
        """Set when the run has ended."""
        self.followers = 0
        self._writing = False
        self._said, self._thought = _Growing(), _Growing()
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def text(self) -> str:
        """What the message at `place` says so far."""
        return self._said.text

    @property
    def reasoning(self) -> str:
        """What the model thought so far before it."""
        return self._thought.text

    def take(self, event: Event) -> None:
        """Note an event of the run and wake its followers."""
        if isinstance(event, TextDelta | ReasoningDelta):
            self._writing, part = True, self._part(event)
            if event.place != self.place or (event.at == 0 and part.text):
                self.attempts += event.place == self.place
                self._forget()
                self.place, part = event.place, self._part(event)
            if not part.add(event.text, event.at):  # its beginning was not heard here: it comes whole, once it is saved
                self._forget()
        else:
            if isinstance(event, Retry):
                self.broke_off()
            self._writing = False
            self.saved += 1
            # where calls wait for approval it has not ended, and another process may tell so after the decision
            if isinstance(event, TurnEnded) and not event.result.approvals:
                self.result = event.result
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    def broke_off(self) -> None:
        """What was being written will be written anew."""
        self.attempts += self._writing
        self._forget()

    def _part(self, event: TextDelta | ReasoningDelta) -> "_Growing":
        return self._said if isinstance(event, TextDelta) else self._thought

    def _forget(self) -> None:
        self.place, self._said, self._thought = 0, _Growing(), _Growing()

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


class _Growing:
    """A text that comes in pieces."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._length = 0

    def add(self, piece: str, at: int) -> bool:
        """Add what follows; False for a piece that does not."""
        if at != self._length:
            return False
        self._pieces.append(clean_text(piece))
        self._length += len(piece)
        return True

    @property
    def text(self) -> str:
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""


class Feeds:
    """The feeds of the runs that go on or are followed here, and who listens to a whole agent."""

    def __init__(self) -> None:
        self.ended: OrderedDict[str, TurnResult] = OrderedDict()
        """How the runs ended that did so last, by id."""
        self._feeds: dict[str, Feed] = {}
        self._listeners: dict[str, set[asyncio.Queue[Event]]] = {}

    @asynccontextmanager
    async def follow(self, run_id: str) -> AsyncIterator[Feed]:
        """What becomes of a run, while the caller wants to know."""
        feed = self._feeds.setdefault(run_id, Feed())
        feed.followers += 1
        try:
            yield feed
        finally:
            feed.followers -= 1
            if not feed.followers and not feed.place and self._feeds.get(run_id) is feed:
                del self._feeds[run_id]

    @contextmanager
    def listen(self, agent_id: str) -> Iterator[asyncio.Queue[Event]]:
        """Every event of an agent's turns, from now on; who reads too slowly loses events."""
        queue: asyncio.Queue[Event] = asyncio.Queue(_LISTENER_EVENTS)
        queues = self._listeners.setdefault(agent_id, set())
        queues.add(queue)
        try:
            yield queue
        finally:
            queues.discard(queue)
            if not queues:
                self._listeners.pop(agent_id, None)

    def publish(self, agent_id: str, event: Event) -> Feed:
        """Tell an event of a turn that runs in this process."""
        self._tell_listeners(agent_id, event)
        feed = self._feeds.setdefault(event.run_id, Feed())
        feed.take(event)
        if isinstance(event, TurnEnded):  # whoever follows has it; where the run is taken up again, another begins
            del self._feeds[event.run_id]
            if event.result.stop_reason == "requires_approval":  # it may go on, and in another process
                return feed
            self.ended[event.run_id] = event.result
            if len(self.ended) > _ENDED:
                self.ended.popitem(last=False)
        return feed

    def hear(self, agent_id: str, event: Event) -> None:
        """Tell an event of a turn that runs elsewhere, to those who follow it here."""
        self._tell_listeners(agent_id, event)
        if feed := self._feeds.get(event.run_id):
            feed.take(event)
            if isinstance(event, TurnEnded) or not feed.followers:  # they may have left in the middle of a message
                del self._feeds[event.run_id]

    def look_again(self, run_id: str | None = None) -> None:
        """Whoever follows this run, or any and any agent, is to look at what is saved."""
        for feed in list(self._feeds.values()) if run_id is None else filter(None, [self._feeds.get(run_id)]):
            feed.take(Saved())
        for agent_id in self._listeners if run_id is None else ():
            self._tell_listeners(agent_id, Saved())

    def _tell_listeners(self, agent_id: str, event: Event) -> None:
        for queue in self._listeners.get(agent_id, ()):
            with suppress(asyncio.QueueFull):
                queue.put_nowait(event)
