"""Reminders that a message to the offline model asks for: pure functions over its text and its time."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from agentos.llm.offline.language import plain

_NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
            "nine": 9, "ten": 10, "twelve": 12, "fifteen": 15, "twenty": 20, "thirty": 30, "sixty": 60}  # fmt: skip
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SPAN = (
    r"(?:half an hour|(?:\d{1,5} ?|(?:an?|one|two|three|four|five|six|seven|eight|nine|ten|twelve|fifteen"
    r"|twenty|thirty|sixty) )"
    r"(?:seconds?|secs?|minutes?|mins?|hours?|hrs?|days?|weeks?|[smhd])\b)"
)
_IN = rf"(?:in|for) (?P<span>{_SPAN}(?:,? (?:and )?{_SPAN})?)"
_AT = (
    r"(?P<tomorrow>tomorrow ?)?(?:(?:on |at )?(?P<day>\d{4}-\d\d-\d\d)[T ]?)?(?:(?:at"
    r" )?(?P<hour>\d{1,2})(?::(?P<minute>\d\d)(?::\d\d)?)? ?(?P<half>am|pm)?(?P<offset>Z|[+-]\d\d:\d\d)?)?"
)
_REMIND = (
    r"(?is)(?:(?:please|can you|could you|ok|and|also|hey)[, ]+)*(?:remind me|wake me(?: up)?|set a (?:timer"
    r"|reminder))\b(?P<rest>.*)"
)


@dataclass(frozen=True)
class Reminder:
    """A timer that the user asked for."""

    when: str
    """A duration such as 1h30m, or an ISO time with offset; empty where no usable time was named."""
    note: str


def to_remind(text: str, said_at: datetime | None) -> Reminder | None:
    """The reminder that a message asks for, its local times counted from `said_at`; None for any other message."""
    found = re.fullmatch(_REMIND, plain(text)[:500])
    if not found or re.match(r" (?:what|who|where|when|how|which|why|of)\b", found["rest"], re.IGNORECASE):
        return None
    rest = found["rest"].strip(" .!?")
    for pattern in (_IN, _AT):
        for place in re.finditer(pattern, rest, re.IGNORECASE):
            when = _when(place, said_at)
            if when:
                note = f"{rest[: place.start()].strip(' ,')} {rest[place.end() :].strip(' ,')}".strip()
                return Reminder(
                    when,
                    re.sub(r"^(?:(?:to|about|that|for)\b\s*)+|\s*(?:\bat|\bon)$", "", note, flags=re.I).strip()
                    or "the time has come",
                )
    return Reminder("", rest)


def _when(found: re.Match[str], said_at: datetime | None) -> str:
    """A matched time as `set_timer` takes it; empty when it is none, or is past."""
    values = found.groupdict()
    if values.get("span"):
        return _duration(sum(_seconds(part) for part in re.findall(_SPAN, values["span"], re.IGNORECASE)))
    timed = values["hour"] and (
        values["minute"] or values["half"] or values["day"] or values["tomorrow"] or "at " in found.group()
    )
    if not (timed or values["tomorrow"] or values["day"]):
        return ""
    try:
        return _until(values, said_at)
    except (ValueError, OverflowError):  # no such day or hour
        return ""


def _until(values: dict[str, str | None], said_at: datetime | None) -> str:
    hour = int(values["hour"] or 9)
    if values["half"]:
        hour = hour % 12 + (12 if values["half"].lower() == "pm" else 0)
    clock = f"{hour:02d}:{values['minute'] or '00'}:00"
    if values["day"] and values["offset"]:
        return datetime.fromisoformat(f"{values['day']}T{clock}{values['offset']}").isoformat()
    if said_at is None:
        return ""
    due = datetime.fromisoformat(f"{values['day'] or said_at.date().isoformat()}T{clock}")
    if values["tomorrow"] or (not values["day"] and due <= said_at):
        due += timedelta(days=1)
    return _duration(int((due - said_at).total_seconds()))


def _seconds(span: str) -> int:
    if span.lower().startswith("half"):
        return 1800
    number, unit = re.fullmatch(
        r"(\d+|[a-z]+) ?([a-z]+)",
        span.lower(),
    ).groups()  # type: ignore[union-attr]  # a _SPAN
    return (int(number) if number.isdigit() else _NUMBERS[number]) * _SECONDS[unit[0]]


def _duration(seconds: int) -> str:
    parts, left = [], seconds
    for unit in "dhms":
        count, left = divmod(left, _SECONDS[unit])
        parts.append(f"{count}{unit}" if count else "")
    return "".join(parts) if seconds > 0 else ""
