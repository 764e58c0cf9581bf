"""Messages, the inbox, runs, steps, summary entries and timers."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from agentos.errors import UsageError
from agentos.messages import Cause, Message, SummaryEntry, ToolCall, Usage
from agentos.state import InboxItem, RunRecord, StepRecord, Timer
from agentos.store.rows import Rows, fields, table
from agentos.store.tables import AgentRow, InboxRow, JournalRow, MessageRow, RunRow, StepRow, SummaryRow, TimerRow

_message, _inbox, _run, _step = (table(r) for r in (MessageRow, InboxRow, RunRow, StepRow))
_summary, _timer, _journal = table(SummaryRow), table(TimerRow), table(JournalRow)
_MESSAGE_FIELDS = [f for f in Message.__dataclass_fields__ if f != "id"]

_WAITING = (
    sa.select(_inbox)
    .where(_inbox.c.agent_id == sa.bindparam("agent_id"), _inbox.c.run_id.is_(None))
    .order_by(_inbox.c.id)
    .limit(1)
)
_OF_RUN = sa.select(_message).where(_message.c.run_id == sa.bindparam("run_id")).order_by(_message.c.id)
_OF_INPUT = sa.select(_message).where(_message.c.inbox_id == sa.bindparam("inbox_id")).order_by(_message.c.id)
_TIMERS = (
    sa.select(_timer)
    .where(_timer.c.agent_id == sa.bindparam("agent_id"), _timer.c.fired_at.is_(None))
    .where(_timer.c.due_at <= sa.bindparam("due_by"))
    .order_by(_timer.c.due_at, _timer.c.id)
)


class HistoryRows(Rows):
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

    def run_messages(self, run_id: str) -> list[Message]:
        """Every message of a run, in order."""
        return [_to_message(row) for row in self.all(_OF_RUN, run_id=run_id)]

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
        """Save input once per `otid`: (the item as saved, whether it is new).

        The same `otid` with other content raises `UsageError`.
        """
        self.lock_agent(item.agent_id)
        if item.otid is not None:
            query = sa.select(_inbox).where(_inbox.c.agent_id == item.agent_id, _inbox.c.otid == item.otid)
            row = self.first(query)
            if row is not None:
                if row["body_hash"] != item.body_hash:
                    raise UsageError(f"otid {item.otid!r} was used for another message; use a new one")
                return InboxItem(**row), False
        values = fields(item)
        del values["id"]
        saved = replace(item, id=self.insert(InboxRow, **values))
        for message in messages:
            self.add_message(replace(message, inbox_id=saved.id))
        return saved, True

    def waiting(self, agent_id: str) -> InboxItem | None:
        """The oldest accepted input that no run has taken."""
        row = self.first(_WAITING, agent_id=agent_id)
        return None if row is None else InboxItem(**row)

    def take(self, item: InboxItem, run_id: str, last_seq: int) -> list[Message]:
        """Move an input's messages into the queue, after `last_seq`; returns them as they are now."""
        self.update(InboxRow, item.id, run_id=run_id)
        rows = self.all(_OF_INPUT, inbox_id=item.id)
        taken = [replace(_to_message(row), seq=last_seq + n, run_id=run_id) for n, row in enumerate(rows, 1)]
        for message in taken:
            self.update(MessageRow, message.id, seq=message.seq, run_id=run_id)
        return taken

    def add_notice(self, notice: Message) -> None:
        """A notice that enters the queue at the agent's next step."""
        self.add_message(notice)
        self.update(AgentRow, notice.agent_id)

    def notices(self, agent_id: str) -> list[Message]:
        """Notices that have not entered the queue, oldest first."""
        query = sa.select(_message).where(
            _message.c.agent_id == agent_id, _message.c.seq.is_(None), _message.c.origin == "runtime"
        )
        return [_to_message(row) for row in self.all(query.order_by(_message.c.id))]

    def place_notice(self, notice: Message) -> Message:
        """Enter a waiting notice into the queue, at the place it now has."""
        self.update(MessageRow, notice.id, seq=notice.seq, run_id=notice.run_id)
        return notice

    # runs and steps

    def add_run(self, run: RunRecord) -> None:
        """Insert a run."""
        self.insert(RunRow, **_run_values(run))

    def save_run(self, run: RunRecord) -> None:
        """Write a run's current values."""
        values = _run_values(run)
        self.update(RunRow, values.pop("id"), **values)

    def run(self, run_id: str) -> RunRecord | None:
        """One run."""
        row = self.first(sa.select(_run).where(_run.c.id == run_id))
        return None if row is None else _to_run(row)

    def run_of(self, inbox_id: int) -> RunRecord | None:
        """The run that took an input."""
        row = self.first(sa.select(_run).where(_run.c.inbox_id == inbox_id))
        return None if row is None else _to_run(row)

    def unfinished_run(self, agent_id: str) -> RunRecord | None:
        """The agent's running run; the newest where a failed one was taken up again beside it."""
        query = sa.select(_run).where(_run.c.agent_id == agent_id, _run.c.status == "running")
        row = self.first(query.order_by(_run.c.created_at.desc(), _run.c.inbox_id.desc()).limit(1))
        return None if row is None else _to_run(row)

    def runs(self, agent_id: str, limit: int = 50) -> list[RunRecord]:
        """The agent's runs, newest first."""
        query = sa.select(_run).where(_run.c.agent_id == agent_id).order_by(_run.c.created_at.desc()).limit(limit)
        return [_to_run(row) for row in self.all(query)]

    def add_step(self, step: StepRecord) -> int:
        """Insert a step; returns its id."""
        values = fields(step) | fields(step.usage)
        del values["usage"], values["id"]
        return self.insert(StepRow, **values)

    def steps(self, agent_id: str, run_id: str | None = None, limit: int = 100) -> list[StepRecord]:
        """Steps, newest first."""
        query = sa.select(_step).where(_step.c.agent_id == agent_id).order_by(_step.c.id.desc()).limit(limit)
        if run_id:
            query = query.where(_step.c.run_id == run_id)
        return [StepRecord(usage=_pop_usage(values), **values) for values in map(dict, self.all(query))]

    def last_prompt_tokens(self, agent_id: str) -> int:
        """Prompt tokens of the agent's last conversation step that was answered; 0 before the first."""
        query = sa.select(_step.c.prompt_tokens).where(
            _step.c.agent_id == agent_id, _step.c.kind == "conversation", _step.c.prompt_tokens > 0
        )
        return int(self.scalar(query.order_by(_step.c.id.desc()).limit(1)) or 0)

    def usage(self, agent_id: str) -> Usage:
        """What all model calls of an agent used."""
        row = self.first(
            sa.select(
                *(sa.func.coalesce(sa.func.sum(_step.c[n]), 0).label(n) for n in _USAGE[:3]),
                sa.func.sum(_step.c.cost_usd).label("cost_usd"),
            ).where(_step.c.agent_id == agent_id)
        )
        return Usage(**dict(row or {}))

    def started_calls(self, run_id: str) -> set[str]:
        """Ids of a run's calls that began outside our database."""
        query = sa.select(_journal.c.target).where(_journal.c.run_id == run_id, _journal.c.action == "call.started")
        return set(self.connection.execute(query).scalars())

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
        return [SummaryEntry(**{**row, "message_ids": tuple(row["message_ids"])}) for row in self.all(query)]

    def update_entry(self, entry_id: int, **values: Any) -> None:
        """Complete an entry's prose, or retire it."""
        self.update(SummaryRow, entry_id, **values)

    # timers

    def add_timer(self, agent_id: str, due_at: datetime, note: str, cause: Cause) -> int:
        """A wake-up at `due_at`."""
        timer_id = self.insert(TimerRow, agent_id=agent_id, due_at=due_at, note=note, call_id=cause.call_id)
        return timer_id

    def timers(self, agent_id: str, due_by: datetime | None = None) -> list[Timer]:
        """Timers that have not fired, soonest first; with `due_by` only those due."""
        rows = self.all(_TIMERS, agent_id=agent_id, due_by=due_by or datetime.max.replace(tzinfo=UTC))
        return [Timer(row["id"], row["agent_id"], row["due_at"], row["note"]) for row in rows]

    def fire_timers(self, timers: Sequence[Timer], at: datetime) -> None:
        """Mark timers as fired."""
        for timer in timers:
            self.update(TimerRow, timer.id, fired_at=at)


_USAGE = ("prompt_tokens", "completion_tokens", "cached_tokens", "cost_usd")


def _pop_usage(values: dict[str, Any]) -> Usage:
    return Usage(**{name: values.pop(name) for name in _USAGE})


def _to_message(row: Any) -> Message:
    values = dict(row)
    values["calls"] = tuple(ToolCall(**call) for call in values["calls"] or ())
    values["sources"] = tuple(values["sources"] or ())
    del values["keywords"]
    return Message(**values)


def _run_values(run: RunRecord) -> dict[str, Any]:
    values = fields(run) | fields(run.usage)
    del values["usage"]
    return values


def _to_run(row: Any) -> RunRecord:
    values = dict(row)
    return RunRecord(usage=_pop_usage(values), **values)
