"""What happens to a turn, told to the other processes of a shared database while it happens: LISTEN and NOTIFY.

A hint and no more: what is lost is read from the database a little later.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agentos.events import Event, Saved, TextDelta, event_from_json

if TYPE_CHECKING:
    from psycopg import AsyncConnection

_log = logging.getLogger(__name__)
_CHANNEL = "agentos"
_GATHER_SECONDS = 0.01
"""Events that come within it go out together, pieces of one text as one."""
_MOST_BYTES = 7000
"""PostgreSQL takes 8,000."""
_MOST_WAITING = 10_000
_AGAIN_SECONDS = 1.0
Listener = Callable[[str, Event | str], None]
"""Called with (agent id, event); the id of a run: somebody wants it cancelled."""


class Relay:
    """Tells and hears over the database at `url`; `owner` names this process, which does not hear itself."""

    def __init__(self, url: str, owner: str) -> None:
        self._url, self._owner = url, owner
        self._outgoing: list[tuple[str, Event | str]] = []
        self._payloads: list[str] = []
        """What goes out now, or once there is a connection again."""
        self._something = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.connected = False
        """Whether what others tell arrives now."""

    def start(self, hear: Listener) -> None:
        """Begin, inside a running event loop."""
        self._hear = hear
        self._tasks = [asyncio.create_task(self._for_ever(part)) for part in (self._listen, self._speak)]

    async def stop(self) -> None:
        """Tell nothing more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def tell(self, agent_id: str, event: Event | str) -> None:
        """Have the others hear of an event of the agent's, or of the wish to cancel the run of this id."""
        last = self._outgoing[-1] if self._outgoing else None
        if last is not None and last[0] == agent_id and (joined := _joined(last[1], event)) is not None:
            self._outgoing[-1] = (agent_id, joined)
        elif len(self._outgoing) < _MOST_WAITING:
            self._outgoing.append((agent_id, event))
        self._something.set()

    async def _for_ever(self, part: Callable[["AsyncConnection[Any]"], Any]) -> None:
        from psycopg import AsyncConnection, Error

        while True:
            try:
                async with await AsyncConnection.connect(self._url, autocommit=True) as connection:
                    await part(connection)
            except Error as error:
                _log.warning("relay interrupted", extra={"error": str(error)})
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _listen(self, connection: "AsyncConnection[Any]") -> None:
        await connection.execute(f"LISTEN {_CHANNEL}")
        self.connected = True
        try:
            async for notice in connection.notifies():
                self._pass_on(notice.payload)
        finally:
            self.connected = False

    def _pass_on(self, payload: str) -> None:
        with suppress(ValueError, KeyError, TypeError):
            told = json.loads(payload)
            if told["from"] == self._owner:
                return
            for agent_id, values in told["events"]:
                event = values if isinstance(values, str) else event_from_json(values)
                if event is not None:
                    self._hear(agent_id, event)

    async def _speak(self, connection: "AsyncConnection[Any]") -> None:
        while True:
            while self._payloads:
                await connection.execute("SELECT pg_notify(%s, %s)", (_CHANNEL, self._payloads[0]))
                del self._payloads[0]
            await self._something.wait()
            await asyncio.sleep(_GATHER_SECONDS)
            self._something.clear()
            events, self._outgoing = self._outgoing, []
            self._payloads = _payloads(self._owner, events)


def _joined(first: Event | str, second: Event | str) -> Event | None:
    """Two pieces of one text as one; None where they are not."""
    if not isinstance(first, TextDelta) or not isinstance(second, TextDelta):
        return None
    if (first.run_id, first.place, first.fallback) != (second.run_id, second.place, second.fallback):
        return None
    return replace(first, text=first.text + second.text)


def _payloads(owner: str, events: list[tuple[str, Event | str]]) -> list[str]:
    """The events in as few notices as they fit; of one that is too long only that it happened."""
    payloads: list[str] = []
    batch: list[str] = []
    for agent_id, event in events:
        text = _told(agent_id, event)
        if sum(map(len, batch)) + len(text) > _MOST_BYTES and batch:
            payloads.append(_payload(owner, batch))
            batch = []
        batch.append(text)
    return [*payloads, _payload(owner, batch)] if batch else payloads


def _told(agent_id: str, event: Event | str) -> str:
    text = json.dumps([agent_id, event if isinstance(event, str) else event.as_json()])  # ASCII: a character is a byte
    if isinstance(event, str) or len(text) <= _MOST_BYTES:
        return text
    return json.dumps([agent_id, Saved(run_id=event.run_id, seq=event.seq).as_json()])


def _payload(owner: str, batch: list[str]) -> str:
    return f'{{"from": {json.dumps(owner)}, "events": [{", ".join(batch)}]}}'
