"""Messages, the inbox and summary entries."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa

from agentos.errors import Conflict, NotFound
from agentos.messages import REASONING_FIELDS, Message, SummaryEntry, ToolCall
from agentos.state import InboxItem, RunRecord
from agentos.store.rows import fields, table
from agentos.store.runs import RunRows
from agentos.store.tables import AgentRow, InboxRow, JournalRow, MessageRow, RunRow, SummaryRow
from agentos.store.timers import TimerRows

_message, _inbox, _run = table(MessageRow), table(InboxRow), table(RunRow)
_summary, _journal = table(SummaryRow), table(JournalRow)
_MESSAGE_FIELDS = [f for f in Message.__dataclass_fields__ if f != "id"]

_WAITING = (
    sa.select(_inbox, _run.c.max_steps, _run.c.background)
    .join(_run, _run.c.id == _inbox.c.run_id)
    .where(_run.c.agent_id == sa.bindparam("agent_id"), _run.c.status == "created")
    .order_by(_inbox.c.id)
    .limit(1)
)
_STATUS = sa.select(_run.c.status).where(_run.c.id == sa.bindparam("run_id"))
_BY_TIME = [_message.c.created_at, _message.c.id]
_OF_RUN = sa.select(_message).where(_message.c.run_id == sa.bindparam("run_id")).order_by(_message.c.seq)
_OF_INPUT = sa.select(_message).where(_message.c.inbox_id == sa.bindparam("inbox_id")).order_by(_message.c.id)
Part = Literal["input", "notice", "reasoning", "text", "call", "request", "result", "decision", "summary"]
"""What a message may hold, or the summary's entry that ends with it."""


class HistoryRows(RunRows, TimerRows):
    """Statements on what was said and done."""

    # messages

    def add_message(self, message: Message) -> Message:
        """Insert a message; returned with its id."""
        values = {name: getattr(message, name) for name in _MESSAGE_FIELDS}
        values["calls"] = [fields(call) for call in message.calls] or None
        values["sources"] = list(message.sources) or None
        values["keywords"] = message.keywords
        return replace(message, id=self.insert(MessageRow, **values))

    def queue(self, agent_id: str, head_seq: int) -> list[Message]:
        """The messages in context: those placed after `head_seq`, in order."""
        query = sa.select(_message).where(_message.c.agent_id == agent_id, _message.c.seq > head_seq)
        return [_to_message(row) for row in self.all(query.order_by(_message.c.seq))]

    def messages(self, agent_id: str, ids: Iterable[int]) -> list[Message]:
        """The messages with these ids that belong to the agent, oldest first."""
        # + "": a mere filter, else SQLite would rather walk all rows of the agent than look these up
        query = sa.select(_message).where(_message.c.agent_id + "" == agent_id, _message.c.id.in_(list(ids)))
        return [_to_message(row) for row in self.all(query.order_by(_message.c.id))]

    def recent_messages(self, agent_id: str, limit: int, before_id: int | None = None) -> list[Message]:
        """The newest messages, newest first."""
        query = sa.select(_message).where(_message.c.agent_id == agent_id)
        if before_id is not None:
            query = query.where(_message.c.id < before_id)
        return [_to_message(row) for row in self.all(query.order_by(_message.c.id.desc()).limit(limit))]

    def history(
        self,
        agent_id: str,
        ascending: bool,
        after: Sequence[int] | None,
        before: Sequence[int] | None,
        limit: int,
        parts: Collection[Part] | None = None,
    ) -> list[Message]:
        """A page of what was said: first what was imported, then the queue in its order, or the other way round.

        `after` and `before` are (place, 0) of a queued message or (0, id) of an imported one, later and earlier in
        that order. With `before` alone it is the page that ends there. With `parts`, only messages that have one.
        """
        mine = sa.select(_message).where(_message.c.agent_id == agent_id)
        if parts is not None:
            mine = mine.where(sa.or_(sa.false(), *(_having(part) for part in parts)))
        backwards = before is not None and after is None
        found: list[Message] = []
        for queued in (False, True) if ascending != backwards else (True, False):
            if queued:
                order = [_message.c.seq]
                ends = [end and end[:1] for end in (after, before)]
                rows = mine.where(_message.c.seq.is_not(None))
            else:
                order = _BY_TIME
                ends = [self._moment(agent_id, end) for end in (after, before)]
                rows = mine.where(_message.c.external_id.is_not(None))
            if len(found) < limit:
                page = list(map(_to_message, self.page(rows, order, ascending, ends, limit - len(found))))
                found = page + found if backwards else found + page
        return found

    def message_at(self, agent_id: str, place: int) -> Message | None:
        """The message at a place of the agent's queue, in context or not."""
        row = self.first(sa.select(_message).where(_message.c.agent_id == agent_id, _message.c.seq == place))
        return None if row is None else _to_message(row)

    def said(
        self,
        ascending: bool,
        after: int | None,
        before: int | None,
        limit: int,
        parts: Collection[Part] | None = None,
    ) -> list[Message]:
        """A page of what was said by and to all agents, in the order in which it was saved; cursors are row ids."""
        query = sa.select(_message).where(sa.or_(_message.c.seq.is_not(None), _message.c.external_id.is_not(None)))
        if parts is not None:
            query = query.where(sa.or_(sa.false(), *(_having(part) for part in parts)))
        ends = [None if end is None else (end,) for end in (after, before)]
        return [_to_message(row) for row in self.page(query, [_message.c.id], ascending, ends, limit)]

    def _moment(self, agent_id: str, end: Sequence[int] | None) -> tuple[Any, ...] | None:
        """A cursor as it bounds imported messages: those are all earlier than any queued one."""
        if end is None:
            return None
        if end[0]:
            return (datetime.max.replace(tzinfo=UTC), 0)
        message = next(iter(self.messages(agent_id, [end[1]])), None)
        if message is None:
            raise NotFound(f"this agent has no imported message {end[1]}")
        return (message.created_at, message.id)

    def run_messages(self, run_id: str) -> list[Message]:
        """Every message of a run, in order."""
        return [_to_message(row) for row in self.all(_OF_RUN, run_id=run_id)]

    def run_part(self, run_id: str, after: int, limit: int) -> list[Message]:
        """The messages of a run behind the place `after`, in order."""
        query = sa.select(_message).where(_message.c.run_id == run_id, _message.c.seq > after)
        return [_to_message(row) for row in self.all(query.order_by(_message.c.seq).limit(limit))]

    def inputs(self, inbox_ids: Iterable[int]) -> dict[int, list[Message]]:
        """The messages of accepted inputs, by input."""
        query = sa.select(_message).where(_message.c.inbox_id.in_(list(inbox_ids))).order_by(_message.c.id)
        found: dict[int, list[Message]] = {}
        for row in self.all(query):
            found.setdefault(row["inbox_id"], []).append(_to_message(row))
        return found

    def last_quoted(self, agent_id: str, tools: Sequence[str], last: int) -> dict[str, datetime]:
        """When the agent's last results of these tools quoted what: id (`p2`) -> time."""
        query = sa.select(_message.c.created_at, _message.c.sources).where(
            _message.c.agent_id == agent_id, _message.c.name.in_(tools)
        )
        rows = self.all(query.order_by(_message.c.id.desc()).limit(last))
        return {ref: row["created_at"] for row in reversed(rows) for ref in row["sources"] or ()}

    def neighbours(self, message: Message, count: int) -> list[Message]:
        """A message among those before and behind it: in the queue, or of the same imported session."""
        query = sa.select(_message).where(_message.c.agent_id == message.agent_id)
        key: list[Any]
        if message.seq is not None:
            order, key = [_message.c.seq], [message.seq]
            query = query.where(_message.c.seq.is_not(None))
        else:
            order, key = _BY_TIME, [message.created_at, message.id]
            query = query.where(_message.c.seq.is_(None), _message.c.session.is_not_distinct_from(message.session))
        before, behind = (self.page(query, order, True, ends, count) for ends in ((None, key), (key, None)))
        return [*map(_to_message, before), message, *map(_to_message, behind)]

    def message_page(
        self,
        agent_id: str,
        before: Message | None,
        limit: int,
        *,
        role: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> list[Message]:
        """A page of the agent's messages by their time, newest first: of one role, and of a time, ends included."""
        query = sa.select(_message).where(_message.c.agent_id == agent_id)
        if role is not None:
            query = query.where(_message.c.role == role)
        if start is not None:
            query = query.where(_message.c.created_at >= start)
        if end is not None:
            query = query.where(_message.c.created_at <= end)
        key = None if before is None else (before.created_at, before.id)
        return [_to_message(row) for row in self.page(query, _BY_TIME, False, [key, None], limit)]

    def count_messages(self, agent_id: str) -> int:
        """How many messages are stored for the agent."""
        return int(self.scalar(sa.select(sa.func.count()).select_from(_message).where(_message.c.agent_id == agent_id)))

    def known_externals(self, agent_id: str, external_ids: Sequence[str]) -> set[str]:
        """Which of these imported lines the agent has already."""
        found: set[str] = set()
        for start in range(0, len(external_ids), 500):
            query = sa.select(_message.c.external_id).where(
                _message.c.agent_id == agent_id, _message.c.external_id.in_(external_ids[start : start + 500])
            )
            found |= set(self.connection.execute(query).scalars())
        return found

    # the inbox

    def accept(self, item: InboxItem, messages: Sequence[Message]) -> tuple[InboxItem, bool]:
        """Save input once per `otid`, with the run that waits to answer it: (the item as saved, whether it is new).

        The same `otid` with other content raises `Conflict`.
        """
        self.lock_agent(item.agent_id)
        if item.otid is not None:
            query = sa.select(_inbox).where(_inbox.c.agent_id == item.agent_id, _inbox.c.otid == item.otid)
            row = self.first(query)
            if row is not None:
                if row["body_hash"] != item.body_hash:
                    raise Conflict(f"otid {item.otid!r} was used for another message; use a new one")
                return InboxItem(**row), False
        values = fields(item)
        for name in ("id", "max_steps", "background"):
            del values[name]
        saved = replace(item, id=self.insert(InboxRow, **values))
        run = RunRecord(
            item.run_id, item.agent_id, item.created_at, inbox_id=saved.id, status="created", max_steps=item.max_steps,
            background=item.background,
        )  # fmt: skip
        self.add_run(run)
        for message in messages:
            self.add_message(replace(message, inbox_id=saved.id))
        return saved, True

    def accepted_since(self, agent_id: str, body_hash: str, since: datetime) -> InboxItem | None:
        """The agent's newest input with this content that was accepted after `since`."""
        query = sa.select(_inbox).where(
            _inbox.c.agent_id == agent_id, _inbox.c.body_hash == body_hash, _inbox.c.created_at > since
        )
        row = self.first(query.order_by(_inbox.c.id.desc()).limit(1))
        return None if row is None else InboxItem(**row)

    def waiting(self, agent_id: str) -> InboxItem | None:
        """The oldest accepted input whose turn has not begun."""
        row = self.first(_WAITING, agent_id=agent_id)
        return None if row is None else InboxItem(**row)

    def take(self, item: InboxItem, last_seq: int) -> list[Message]:
        """Move an input's messages into the queue, after `last_seq`; returns them as they are now.

        None of them where its run was cancelled meanwhile.
        """
        if self.scalar(_STATUS, run_id=item.run_id) != "created":
            return []
        rows = self.all(_OF_INPUT, inbox_id=item.id)
        taken = [replace(_to_message(row), seq=last_seq + n, run_id=item.run_id) for n, row in enumerate(rows, 1)]
        for message in taken:
            self.update(MessageRow, message.id, seq=message.seq, run_id=item.run_id)
        return taken

    def add_notice(self, notice: Message) -> None:
        """A notice that enters the queue at the agent's next step."""
        self.add_message(notice)
        self.update(AgentRow, notice.agent_id)

    def notices(self, agent_id: str) -> list[Message]:
        """Notices that have not entered the queue, oldest first."""
        query = sa.select(_message).where(
            _message.c.agent_id == agent_id, _message.c.seq.is_(None), _message.c.origin == "runtime",
            _message.c.inbox_id.is_(None),  # what a client says as the system waits for its own turn
        )  # fmt: skip
        return [_to_message(row) for row in self.all(query.order_by(_message.c.id))]

    def place_notice(self, notice: Message) -> Message:
        """Enter a waiting notice into the queue, at the place it now has."""
        self.update(MessageRow, notice.id, seq=notice.seq, run_id=notice.run_id)
        return notice

    def fault_rate(self, agent_id: str, search_tools: Sequence[str], last: int = 50) -> float:
        """Page faults per search over the agent's last searches: 0 to 1, 0 before the first."""
        query = sa.select(_message.c.call_id).where(_message.c.agent_id == agent_id, _message.c.name.in_(search_tools))
        calls = list(self.connection.execute(query.order_by(_message.c.id.desc()).limit(last)).scalars())
        faults = sa.select(sa.func.count(_journal.c.call_id.distinct())).where(
            _journal.c.agent_id == agent_id, _journal.c.action == "page_fault", _journal.c.call_id.in_(calls)
        )
        return int(self.scalar(faults)) / len(calls) if calls else 0.0

    # summary entries

    def add_entry(self, entry: SummaryEntry) -> SummaryEntry:
        """Insert a page-out's record."""
        values = fields(entry)
        del values["id"]
        values["message_ids"] = list(entry.message_ids)
        return replace(entry, id=self.insert(SummaryRow, **values))

    def entries(self, agent_id: str, retired: bool = False) -> list[SummaryEntry]:
        """The summary's entries, oldest first; with `retired` also those that left it."""
        query = sa.select(_summary).where(_summary.c.agent_id == agent_id).order_by(_summary.c.id)
        if not retired:
            query = query.where(_summary.c.retired.is_(False))
        return [_to_entry(row) for row in self.all(query)]

    def entries_at(self, agent_id: str, places: Collection[int]) -> dict[int, SummaryEntry]:
        """The agent's page-outs that ended with a message at one of these places of the queue, by place."""
        query = sa.select(_summary).where(_summary.c.agent_id == agent_id, _summary.c.last_seq.in_(places))
        return {row["last_seq"]: _to_entry(row) for row in self.all(query)}

    def update_entry(self, entry_id: int, **values: Any) -> None:
        """Complete an entry's prose, or retire it."""
        self.update(SummaryRow, entry_id, **values)


def _to_message(row: Any) -> Message:
    values = dict(row)
    values["calls"] = tuple(ToolCall(**call) for call in values["calls"] or ())
    values["sources"] = tuple(values["sources"] or ())
    del values["keywords"]
    return Message(**values)


def _having(part: Part) -> Any:
    """Messages of which this is a part."""
    if part == "summary":
        ended = sa.select(_summary.c.last_seq).where(_summary.c.agent_id == _message.c.agent_id)
        return _message.c.seq.in_(ended)
    if part in ("input", "notice"):
        return sa.and_(_message.c.role == "user", (_message.c.kind == "message") == (part == "input"))
    if part == "reasoning":
        thoughts = (_message.c.provider["fields", name].as_string() for name in REASONING_FIELDS)
        return sa.or_(*(thought != "" for thought in thoughts))
    if part == "text":
        return sa.and_(_message.c.role == "assistant", _message.c.content != "")
    if part in ("call", "request"):  # what runs by itself, and what somebody has to approve first
        calls = sa.cast(_message.c.calls, sa.String)
        asking = calls.contains('"asks": true')
        return asking if part == "request" else sa.or_(calls.contains('"asks": false'), ~asking)
    if part == "decision":
        decided = sa.cast(_run.c.decisions, sa.String).contains(_message.c.call_id)
        return sa.exists().where(_run.c.id == _message.c.run_id, decided)
    return _message.c.role == "tool"


def _to_entry(row: Any) -> SummaryEntry:
    return SummaryEntry(**{**row, "message_ids": tuple(row["message_ids"])})
