"""Runs and their steps, and what they used."""

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from agentos.messages import Usage
from agentos.state import OPEN, Decision, RunRecord, StepRecord
from agentos.store.rows import Rows, fields, table
from agentos.store.tables import InboxRow, JournalRow, RunRow, StepRow

_run, _step, _inbox, _journal = (table(r) for r in (RunRow, StepRow, InboxRow, JournalRow))

_SPENT = (
    sa.func.count().label("calls"),
    sa.func.count(_step.c.error).label("failed"),
    *(sa.func.sum(_step.c[n]).label(n) for n in ("prompt_tokens", "completion_tokens", "cached_tokens", "cost_usd")),
)
"""Sums over steps; the cost is None where no call has a price."""
_BY_ID = sa.select(_run).where(_run.c.id == sa.bindparam("run_id"))
_UNFINISHED = (
    sa.select(_run)
    .where(_run.c.agent_id == sa.bindparam("agent_id"), _run.c.status == "running")
    .order_by(_run.c.created_at.desc(), _run.c.inbox_id.desc())
    .limit(1)
)
_ALL_WAITING = sa.select(sa.func.count()).select_from(_run).where(_run.c.status == "created")
_ITS_WAITING = _ALL_WAITING.where(_run.c.agent_id == sa.bindparam("agent_id"))
_USAGE = ("prompt_tokens", "completion_tokens", "cached_tokens", "cost_usd")


def _pop_usage(values: dict[str, Any]) -> Usage:
    return Usage(**{name: values.pop(name) for name in _USAGE})


class RunRows(Rows):
    """Statements on runs and steps."""

    def add_run(self, run: RunRecord) -> None:
        """Insert a run."""
        self.insert(RunRow, **_run_values(run))

    def save_run(self, run: RunRecord) -> None:
        """Write a run's current values."""
        values = _run_values(run)
        self.update(RunRow, values.pop("id"), **values)

    def run(self, run_id: str) -> RunRecord | None:
        """One run."""
        row = self.first(_BY_ID, run_id=run_id)
        return None if row is None else _to_run(row)

    def unfinished_run(self, agent_id: str) -> RunRecord | None:
        """The agent's running run; the newest where a failed one was taken up again beside it."""
        row = self.first(_UNFINISHED, agent_id=agent_id)
        return None if row is None else _to_run(row)

    def last_failed_run(self, agent_id: str) -> RunRecord | None:
        """The agent's run that failed last."""
        query = sa.select(_run).where(_run.c.agent_id == agent_id, _run.c.status == "failed")
        row = self.first(query.order_by(_run.c.ended_at.desc()).limit(1))
        return None if row is None else _to_run(row)

    def open_runs(self, agent_id: str) -> list[RunRecord]:
        """The agent's runs that have not ended, in order of arrival."""
        query = sa.select(_run).where(_run.c.agent_id == agent_id, _run.c.status.in_(OPEN))
        return [_to_run(row) for row in self.all(query.order_by(_run.c.inbox_id))]

    def cancel_run(self, run: RunRecord, now: datetime) -> None:
        """End a run as cancelled; one that has not begun keeps its input out of the context."""
        self.save_run(replace(run, status="cancelled", stop_reason="cancelled", ended_at=now))

    def runs(self, agent_id: str, limit: int = 50) -> list[RunRecord]:
        """The agent's runs, newest first."""
        query = sa.select(_run).where(_run.c.agent_id == agent_id).order_by(_run.c.created_at.desc()).limit(limit)
        return [_to_run(row) for row in self.all(query)]

    def run_page(
        self,
        ascending: bool,
        after: RunRecord | None,
        before: RunRecord | None,
        limit: int,
        *,
        agent_ids: Collection[str] | None = None,
        statuses: Collection[str] | None = None,
        stop_reasons: Collection[str] | None = None,
        background: bool | None = None,
    ) -> list[RunRecord]:
        """A page of runs by the time they were accepted; of any agent, status and stop reason, or of those named.

        With `background` only those that nobody waited for, or only the others.
        """
        query = sa.select(_run) if background is None else sa.select(_run).where(_run.c.background == background)
        for column, wanted in (
            (_run.c.agent_id, agent_ids), (_run.c.status, statuses), (_run.c.stop_reason, stop_reasons),
        ):  # fmt: skip
            if wanted is not None:
                query = query.where(column.in_(wanted))
        order = [_run.c.created_at, sa.func.coalesce(_run.c.inbox_id, 0), _run.c.id]
        ends = [None if run is None else (run.created_at, run.inbox_id or 0, run.id) for run in (after, before)]
        return [_to_run(row) for row in self.page(query, order, ascending, ends, limit)]

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
        return [_to_step(row) for row in self.all(query)]

    def step(self, step_id: int) -> StepRecord | None:
        """One step."""
        row = self.first(sa.select(_step).where(_step.c.id == step_id))
        return None if row is None else _to_step(row)

    def step_page(
        self,
        ascending: bool,
        after: int | None,
        before: int | None,
        limit: int,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        **equal: str | None,
    ) -> list[StepRecord]:
        """A page of steps in order; `equal`: `run_id`, `agent_id`, `model`. Both ends of the time are included."""
        query = sa.select(_step).where(*(_step.c[name] == value for name, value in equal.items() if value is not None))
        if start is not None:
            query = query.where(_step.c.created_at >= start)
        if end is not None:
            query = query.where(_step.c.created_at <= end)
        ends = [None if at is None else (at,) for at in (after, before)]
        return [_to_step(row) for row in self.page(query, [_step.c.id], ascending, ends, limit)]

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

    def usage_by_day(
        self, agent_id: str | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> list[dict[str, Any]]:
        """What model calls used, by agent, model and day (UTC); `start` and `end` are included. Newest day first."""
        day = sa.func.substr(_step.c.created_at, 1, 10, type_=sa.String).label("day")
        of = (_step.c.agent_id, _step.c.model)
        query = sa.select(*of, day, *_SPENT).group_by(*of, "day")
        if agent_id is not None:
            query = query.where(_step.c.agent_id == agent_id)
        if start is not None:
            query = query.where(_step.c.created_at >= start)
        if end is not None:
            query = query.where(_step.c.created_at <= end)
        return [dict(row) for row in self.all(query.order_by(sa.desc("day"), *of))]

    def usage_after(self, step_id: int) -> tuple[int, list[dict[str, Any]]]:
        """(the newest step's id, what the steps behind `step_id` used by model)."""
        query = sa.select(_step.c.model, sa.func.max(_step.c.id).label("last"), *_SPENT).where(_step.c.id > step_id)
        rows = [dict(row) for row in self.all(query.group_by(_step.c.model))]
        return max((row.pop("last") for row in rows), default=step_id), rows

    def last_step_before(self, when: datetime) -> int:
        """Id of the newest step older than `when`; 0 when there is none."""
        return int(self.scalar(sa.select(sa.func.max(_step.c.id)).where(_step.c.created_at < when)) or 0)

    def decisions(self, run_ids: Collection[str]) -> dict[str, dict[str, Decision]]:
        """What was decided of these runs' calls: run id -> call id -> decision."""
        query = sa.select(_run.c.id, _run.c.decisions).where(_run.c.id.in_(run_ids), _run.c.decisions.is_not(None))
        return {row["id"]: _to_decisions(row["decisions"]) for row in self.all(query)}

    def started_calls(self, run_id: str) -> set[str]:
        """Ids of a run's calls that began outside our database."""
        query = sa.select(_journal.c.target).where(_journal.c.run_id == run_id, _journal.c.action == "call.started")
        return set(self.connection.execute(query).scalars())

    def count_waiting(self, agent_id: str | None = None) -> int:
        """How many accepted inputs wait for their turn to begin; of one agent, or of all."""
        return int(self.scalar(_ALL_WAITING) if agent_id is None else self.scalar(_ITS_WAITING, agent_id=agent_id))


def _to_step(row: Any) -> StepRecord:
    values = dict(row)
    return StepRecord(usage=_pop_usage(values), **values)


def _run_values(run: RunRecord) -> dict[str, Any]:
    values = fields(run) | fields(run.usage)
    del values["usage"]
    decisions = {call_id: vars(d) | {"at": d.at and d.at.isoformat()} for call_id, d in run.decisions.items()}
    values["decisions"] = decisions or None
    return values


def _to_run(row: Any) -> RunRecord:
    values = dict(row)
    values["decisions"] = _to_decisions(values["decisions"])
    return RunRecord(usage=_pop_usage(values), **values)


def _to_decisions(saved: dict[str, Any] | None) -> dict[str, Decision]:
    """What was decided of a run's calls, from its column."""
    return {call_id: Decision(**d | {"at": datetime.fromisoformat(d["at"])}) for call_id, d in (saved or {}).items()}
