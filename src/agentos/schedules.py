"""Input that comes by the clock: once at a set time, or again and again by a cron expression."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from agentos.actions.saved import require_agent
from agentos.errors import UsageError
from agentos.messages import Input, clean_text
from agentos.protocols import Clock, Store
from agentos.state import Schedule

_FARTHEST = timedelta(days=365 * 100)


class _MachineZone(tzinfo):
    """The machine's time zone with its rules of summer time; `astimezone()` gives an offset that never changes."""

    def utcoffset(self, when: datetime | None) -> timedelta | None:
        """By the rules in force then."""
        return None if when is None else when.replace(tzinfo=None).astimezone().utcoffset()

    def dst(self, when: datetime | None) -> timedelta | None:
        """Not told apart from the offset."""
        return None

    def tzname(self, when: datetime | None) -> str | None:
        """As the machine calls it."""
        return None if when is None else when.replace(tzinfo=None).astimezone().tzname()

    def fromutc(self, when: datetime) -> datetime:
        """Local time; of an hour that comes twice, which of the two."""
        local = when.replace(tzinfo=UTC).astimezone()
        wall = local.replace(tzinfo=self, fold=0)
        return wall if wall.utcoffset() == local.utcoffset() else wall.replace(fold=1)


def next_time(cron: str, zone: str, after: datetime) -> datetime:
    """The first time after `after` that `cron` names in the time zone `zone`, in UTC; `UsageError` when there is none.

    Without a zone it is the machine's, by the rules of summer time in force then.
    """
    try:
        local = after.astimezone(ZoneInfo(zone) if zone else _MachineZone())
        return next(CronSim(cron, local)).astimezone(UTC)
    except CronSimError as error:
        raise UsageError(
            f"{cron!r} is no cron expression: {error}; it has five fields, such as `0 9 * * 1-5` (minute, hour, day of "
            "the month, month, day of the week)"
        ) from None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(f"there is no time zone {zone!r}; use an IANA name such as Europe/Berlin") from None
    except StopIteration:
        raise UsageError(f"{cron!r} names no time that ever comes") from None


async def add_schedule(
    store: Store,
    clock: Clock,
    agent_id: str,
    inputs: Sequence[Input],
    *,
    cron: str | None = None,
    at: datetime | None = None,
    zone: str = "",
) -> Schedule:
    """Save a schedule that sends `inputs` as one turn, by `cron` or once `at` a time (a past one: at once).

    `UsageError` for both or neither, for an empty text, and for a time that will not be lived to see.
    """
    if (cron is None) == (at is None):
        raise UsageError("a schedule needs a cron expression or a time, one of them")
    if not any(i.text.strip() for i in inputs):
        raise UsageError("the message is empty; write what the agent is to be told")
    now = clock.now()
    due = next_time(cron, zone, now) if cron is not None else max(at or now, now)
    if due > now + _FARTHEST:
        raise UsageError(f"{due:%Y-%m-%d} is too far off; choose a time within {_FARTHEST.days // 365} years")
    said = tuple(replace(i, text=clean_text(i.text)) for i in inputs)
    schedule = Schedule(f"schedule-{uuid.uuid4()}", agent_id, now, said, cron, zone, due)

    def work(tx: Any) -> None:
        require_agent(tx, agent_id)
        tx.add_schedule(schedule)

    await store.write(work)
    return schedule
