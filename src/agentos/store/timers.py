"""What comes by the clock: timers that agents set, and schedules."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from agentos.messages import Cause, Input
from agentos.state import OPEN, Schedule, Timer
from agentos.store.rows import Rows, fields, table
from agentos.store.tables import InboxRow, MessageRow, RunRow, ScheduleRow, TimerRow

_timer, _schedule, _run, _inbox, _message = (table(r) for r in (TimerRow, ScheduleRow, RunRow, InboxRow, MessageRow))
_TIMERS = (
    sa.select(_timer)
    .where(_timer.c.agent_id == sa.bindparam("agent_id"), _timer.c.fired_at.is_(None))
    .where(_timer.c.due_at <= sa.bindparam("due_by"))
    .order_by(_timer.c.due_at, _timer.c.id)
)


_AWAITING = sa.select(_run.c.agent_id).where(_run.c.status == "running", _run.c.stop_reason == "requires_approval")
_BY_SCHEDULE = sa.exists().where(
    _schedule.c.agent_id == _inbox.c.agent_id, _inbox.c.otid.startswith(_schedule.c.id + "@")
)
_SPOKEN_TO = (
    sa.select(_run.c.agent_id)
    .join(_inbox, _inbox.c.id == _run.c.inbox_id)
    .join(_message, _message.c.inbox_id == _inbox.c.id)
    .where(_run.c.status == "created", _message.c.origin == "user", ~_BY_SCHEDULE)
)
"""Agents for whom a message of a user's waits."""


class TimerRows(Rows):
    """Statements on timers and schedules."""

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

    def agents_due(self, now: datetime) -> list[str]:
        """Ids of the agents with a run that has not ended or a timer that is due.

        Of those that await approval only the ones to whom a user wrote.
        """
        runs = sa.select(_run.c.agent_id).where(_run.c.status.in_(OPEN))
        timers = sa.select(_timer.c.agent_id).where(_timer.c.fired_at.is_(None), _timer.c.due_at <= now)
        spoken_to = _SPOKEN_TO.where(_run.c.agent_id.in_(_AWAITING))
        found = (set(self.connection.execute(query).scalars()) for query in (runs.union(timers), _AWAITING, spoken_to))
        due, waiting, spoken = found
        return list(due - waiting | spoken)

    def awaits_approval(self, agent_id: str) -> bool:
        """Whether the agent's turn stopped at calls that somebody has yet to approve."""
        return self.first(_AWAITING.where(_run.c.agent_id == agent_id)) is not None

    def user_waits(self, agent_id: str) -> bool:
        """Whether a user's message waits for its turn: none of the system's, and none that a schedule sent."""
        return self.first(_SPOKEN_TO.where(_run.c.agent_id == agent_id).limit(1)) is not None

    # schedules

    def add_schedule(self, schedule: Schedule) -> None:
        """Insert a schedule."""
        values = fields(schedule) | {"inputs": [vars(i) for i in schedule.inputs]}
        self.insert(ScheduleRow, **values)

    def schedule(self, agent_id: str, schedule_id: str) -> Schedule | None:
        """One schedule of an agent."""
        query = sa.select(_schedule).where(_schedule.c.agent_id == agent_id, _schedule.c.id == schedule_id)
        row = self.first(query)
        return None if row is None else _to_schedule(row)

    def schedules(self, agent_id: str | None = None) -> list[Schedule]:
        """The schedules that are not over, soonest first; of one agent, or of all."""
        query = sa.select(_schedule).where(_schedule.c.next_at.is_not(None))
        if agent_id is not None:
            query = query.where(_schedule.c.agent_id == agent_id)
        return [_to_schedule(row) for row in self.all(query.order_by(_schedule.c.next_at, _schedule.c.id))]

    def due_schedules(self, now: datetime) -> list[Schedule]:
        """The schedules of all agents whose time has come."""
        query = sa.select(_schedule).where(_schedule.c.next_at <= now)
        return [_to_schedule(row) for row in self.all(query.order_by(_schedule.c.next_at))]

    def reschedule(self, schedule: Schedule, next_at: datetime | None) -> None:
        """Set when a schedule is due next, unless that was done meanwhile."""
        same = (_schedule.c.id == schedule.id, _schedule.c.next_at == schedule.next_at)
        self.connection.execute(sa.update(_schedule).where(*same).values(next_at=next_at))

    def delete_schedule(self, agent_id: str, schedule_id: str) -> bool:
        """Remove a schedule; whether there was one."""
        mine = (_schedule.c.agent_id == agent_id, _schedule.c.id == schedule_id)
        return bool(self.connection.execute(sa.delete(_schedule).where(*mine)).rowcount)

    def waits(self, agent_id: str, otid_prefix: str) -> bool:
        """Whether an input whose `otid` begins so waits for its turn."""
        query = sa.select(_inbox.c.id).join(_run, _run.c.id == _inbox.c.run_id)
        query = query.where(_run.c.agent_id == agent_id, _run.c.status == "created")
        return self.first(query.where(_inbox.c.otid.startswith(otid_prefix, autoescape=True)).limit(1)) is not None


def _to_schedule(row: Any) -> Schedule:
    return Schedule(**{**row, "inputs": tuple(Input(**i) for i in row["inputs"])})
