"""Words that all values share."""

from datetime import datetime
from typing import Any

from agentos.errors import UsageError
from agentos.messages import read_time

Json = dict[str, Any]


def local(when: datetime | None) -> str | None:
    """A time in the local zone, to the second, as ISO 8601."""
    return None if when is None else when.astimezone().isoformat(timespec="seconds")


def moment(name: str, text: str | None, now: datetime, *, end: bool = False) -> datetime | None:
    """The time that a field or option called `name` gives, as `read_time` has it; `UsageError` when it gives none."""
    try:
        return read_time(text, now, end=end) if text else None
    except ValueError:
        raise UsageError(
            f"{name} is {text!r}, which is no ISO date; write it like 2026-05-08 or 2026-05-08T13:30:00+00:00"
        ) from None
