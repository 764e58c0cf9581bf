"""The machine's clock."""

from datetime import datetime


class SystemClock:
    """The machine's clock, in local time."""

    def now(self) -> datetime:
        """The current time."""
        return datetime.now().astimezone()
