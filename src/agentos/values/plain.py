"""Words that all values share."""

from datetime import datetime
from typing import Any

Json = dict[str, Any]


def local(when: datetime | None) -> str | None:
    """A time in the local zone, to the second, as ISO 8601."""
    return None if when is None else when.astimezone().isoformat(timespec="seconds")
