"""The journal: every change of memory, with who made it and what it came from."""

import hashlib
import hmac
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from agentos.messages import Cause
from agentos.store.home import HomeRows
from agentos.store.rows import table
from agentos.store.tables import JournalRow, MessageRow

_journal, _message = table(JournalRow), table(MessageRow)


class JournalRows(HomeRows):
    """Statements on the journal."""

    def journal(
        self,
        cause: Cause,
        action: str,
        target: str,
        note: str = "",
        *,
        before: int | None = None,
        after: int | None = None,
        text: str | None = None,
        undo_of: int | None = None,
    ) -> int:
        """Append an event; of `text` only a salted hash is kept."""
        return self.insert(
            JournalRow, agent_id=cause.agent_id, created_at=self.clock.now(), actor=cause.actor, action=action,
            target=target, note=note, run_id=cause.run_id, message_id=cause.message_id, call_id=cause.call_id,
            before_id=before, after_id=after, hash=None if text is None else self._hash(text), undo_of=undo_of,
            client=cause.client or None,
        )  # fmt: skip

    def events(
        self,
        agent_id: str,
        target: str | None = None,
        actions: tuple[str, ...] = (),
        limit: int = 100,
        *,
        before: int | None = None,
        since: datetime | None = None,
        **equal: str | int | None,
    ) -> list[dict[str, Any]]:
        """Journal rows of an agent, newest first: those older than `before`, whose action begins with one of `actions`.

        `since`: only from this time on. `equal`: `actor`, `client`, `run_id`, `message_id`, `call_id`; None is no
        condition.
        """
        query = sa.select(_journal).where(_journal.c.agent_id == agent_id).order_by(_journal.c.id.desc()).limit(limit)
        query = query.where(*(_journal.c[name] == value for name, value in equal.items() if value is not None))
        if before is not None:
            query = query.where(_journal.c.id < before)
        if since is not None:
            query = query.where(_journal.c.created_at >= since)
        if target:
            query = query.where(_journal.c.target == target)
        if actions:
            query = query.where(sa.or_(*(_journal.c.action.startswith(a) for a in actions)))
        return [dict(row) for row in self.all(query)]

    def clients(self, agent_id: str) -> list[str]:
        """The names of the MCP clients that wrote to an agent's memory."""
        query = sa.select(_journal.c.client).where(_journal.c.agent_id == agent_id, _journal.c.client.is_not(None))
        return list(self.connection.execute(query.distinct().order_by(_journal.c.client)).scalars())

    def undos(self, agent_id: str, since: int) -> list[dict[str, Any]]:
        """(`id`, `undo_of`) of every undo of an agent behind the event `since`, newest first."""
        undo = sa.select(_journal.c.id, _journal.c.undo_of).where(_journal.c.agent_id == agent_id)
        behind = undo.where(_journal.c.id > since, _journal.c.undo_of.is_not(None))
        return [dict(row) for row in self.all(behind.order_by(_journal.c.id.desc()))]

    def events_since(
        self, agent_id: str, after: int, since: datetime | None, limit: int, actions: tuple[str, ...] = ()
    ) -> list[dict[str, Any]]:
        """Journal rows of an agent behind the event `after` and from the time `since` on, oldest first."""
        query = sa.select(_journal).where(_journal.c.agent_id == agent_id, _journal.c.id > after)
        if since is not None:
            query = query.where(_journal.c.created_at >= since)
        if actions:
            query = query.where(sa.or_(*(_journal.c.action.startswith(a) for a in actions)))
        return [dict(row) for row in self.all(query.order_by(_journal.c.id).limit(limit))]

    def event(self, event_id: int) -> dict[str, Any] | None:
        """One journal row."""
        row = self.first(sa.select(_journal).where(_journal.c.id == event_id))
        return None if row is None else dict(row)

    def _hash(self, text: str) -> str:
        return hmac.new(self.home("salt").encode(), text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[
            :32
        ]

    def speaker(self, cause: Cause) -> str | None:
        """Who spoke last in the turn that a change belongs to (`user` without a name); None: nobody did."""
        if cause.run_id is None:
            return None
        spoken = sa.select(sa.func.coalesce(_message.c.name, "user"))
        spoken = spoken.where(_message.c.run_id == cause.run_id, _message.c.role == "user", _message.c.origin == "user")
        name: str | None = self.scalar(spoken.order_by(_message.c.id.desc()).limit(1))
        return name
