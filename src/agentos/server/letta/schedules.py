"""Schedules: messages that are sent to an agent by the clock."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from agentos.errors import NotFound, UsageError
from agentos.schedules import add_schedule
from agentos.server.letta.fields import MOST_LISTED
from agentos.server.letta.messages import TurnMessage, input_of
from agentos.server.letta.paging import slice_of
from agentos.server.replies import Unsupported, answer, stamp
from agentos.server.service import Serving, existing_agent
from agentos.state import Schedule

router = APIRouter(prefix="/agents/{agent_id}/schedule", tags=["schedules"])
Json = dict[str, Any]
_MILLISECONDS_FROM = 1e11
"""A time from this on counts milliseconds since 1970, one below seconds: the year 1973, or the year 5138."""


class Once(BaseModel):
    """At one time: seconds or milliseconds since 1970, as its size tells; a past one is sent at once."""

    type: Literal["one-time"] = "one-time"
    scheduled_at: float = Field(ge=0, allow_inf_nan=False)

    @property
    def at(self) -> datetime:
        """The time; `UsageError` where the calendar has none."""
        seconds = self.scheduled_at / 1000 if self.scheduled_at >= _MILLISECONDS_FROM else self.scheduled_at
        try:
            return datetime.fromtimestamp(seconds, UTC)
        except (ValueError, OverflowError, OSError):
            raise UsageError(
                f"scheduled_at is {self.scheduled_at}; give the time in seconds or milliseconds since 1970"
            ) from None


class Recurring(BaseModel):
    """Again and again, by a cron expression in UTC."""

    type: Literal["recurring"]
    cron_expression: str = Field(max_length=200)


class NewSchedule(BaseModel):
    """What to send, and when."""

    messages: list[TurnMessage] = Field(min_length=1, max_length=MOST_LISTED)
    schedule: Recurring | Once
    callback_url: str | None = None


@router.post("")
async def create_schedule(agent_id: str, body: NewSchedule, serving: Serving) -> Response:
    """A new schedule; its messages become one turn each time."""
    if body.callback_url:
        raise Unsupported("callback_url is not supported; poll the agent's runs")
    await serving.agent_record(agent_id)
    when = body.schedule
    schedule = await add_schedule(
        serving.store, serving.runtime.clock, agent_id, [input_of(m) for m in body.messages],
        cron=when.cron_expression if isinstance(when, Recurring) else None,
        at=when.at if isinstance(when, Once) else None, zone="UTC" if isinstance(when, Recurring) else "",
    )  # fmt: skip
    return answer({"id": schedule.id, "next_scheduled_at": stamp(schedule.next_at)})


class SchedulePage(BaseModel):
    """Which schedules to list."""

    after: str | None = Field(None, max_length=200)
    limit: int = Field(100, ge=0, le=1000)


@router.get("")
async def list_schedules(agent_id: str, page: Annotated[SchedulePage, Query()], serving: Serving) -> Response:
    """The agent's schedules that are not over, oldest first."""

    def work(tx: Any) -> list[Schedule]:
        existing_agent(tx, agent_id)
        after = None if page.after is None else _key(_existing(tx, agent_id, page.after))
        found = sorted(((_key(s), s) for s in tx.schedules(agent_id)), key=lambda item: item[0])
        return slice_of(found, True, (after, None), page.limit + 1)

    found = await serving.store.read(work)
    shown = [_value(schedule) for schedule in found[: page.limit]]
    return answer({"scheduled_messages": shown, "has_next_page": len(found) > page.limit})


@router.get("/{schedule_id}")
async def get_schedule(agent_id: str, schedule_id: str, serving: Serving) -> Response:
    """One schedule."""
    return answer(_value(await serving.store.read(lambda tx: _existing(tx, agent_id, schedule_id))))


@router.delete("/{schedule_id}")
async def delete_schedule(agent_id: str, schedule_id: str, serving: Serving) -> Response:
    """Send it no more."""

    def work(tx: Any) -> None:
        _existing(tx, agent_id, schedule_id)
        tx.delete_schedule(agent_id, schedule_id)

    await serving.store.write(work)
    return answer({"success": True})


def _existing(tx: Any, agent_id: str, schedule_id: str) -> Schedule:
    """An agent's schedule, also one that is over; `NotFound` when there is none."""
    existing_agent(tx, agent_id)
    schedule: Schedule | None = tx.schedule(agent_id, schedule_id)
    if schedule is None:
        raise NotFound(f"this agent has no schedule {schedule_id!r}")
    return schedule


def _key(schedule: Schedule) -> tuple[datetime, str]:
    return schedule.created_at, schedule.id


def _value(schedule: Schedule) -> Json:
    if schedule.cron is not None:
        when: Json = {"type": "recurring", "cron_expression": schedule.cron, "time_zone": schedule.zone or "local"}
    else:
        when = {"type": "one-time", "scheduled_at": schedule.next_at and schedule.next_at.timestamp() * 1000}
    roles = {"user": "user", "runtime": "system"}
    said = [{"role": roles[i.origin], "content": i.text, "name": i.name, "type": "message"} for i in schedule.inputs]
    return {
        "id": schedule.id, "agent_id": schedule.agent_id, "message": {"messages": said}, "schedule": when,
        "next_scheduled_time": stamp(schedule.next_at),
    }  # fmt: skip
