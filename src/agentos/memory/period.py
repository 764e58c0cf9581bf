"""The time that a question names: "two weeks ago", "last Friday"."""

import re
from datetime import datetime, time, timedelta

_NUMBERS = {
    word: number
    for number, words in enumerate(
        ["", "a an one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    )
    for word in words.split()
} | {"a couple of": 2, "a few": 3}
_DAYS = {"day": 1, "week": 7, "month": 30, "year": 365}
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_AGO = re.compile(rf"\b(\d{{1,3}}|{'|'.join(sorted(_NUMBERS, key=len, reverse=True))}) ({'|'.join(_DAYS)})s? ago\b")
_LAST = re.compile(rf"\b(?:last|past) ({'|'.join([*list(_DAYS)[1:], *_WEEKDAYS])})\b")


def named_period(question: str, now: datetime) -> tuple[datetime, datetime] | None:
    """(from, to) of the time that a question asked at `now` names; None when it names none.

    What people call "a month ago" is wide: a quarter of the unit to either side, at least a day.
    """
    text = question.lower()
    if match := _AGO.search(text):
        number, days = match.groups()
        middle = now - timedelta(days=_DAYS[days] * (int(number) if number.isdigit() else _NUMBERS[number]))
        around = timedelta(days=max(1, _DAYS[days] / 4))
        return _whole_days(middle - around, middle + around)
    if match := _LAST.search(text):
        if match[1] in _DAYS:
            return _whole_days(now - timedelta(days=2 * _DAYS[match[1]]), now)
        back = (now.weekday() - _WEEKDAYS.index(match[1]) - 1) % 7 + 1
        return _whole_days(now - timedelta(days=back), now - timedelta(days=back))
    if re.search(r"\byesterday\b", text):
        return _whole_days(now - timedelta(days=1), now - timedelta(days=1))
    return None


def _whole_days(first: datetime, last: datetime) -> tuple[datetime, datetime]:
    return (
        datetime.combine(first.date(), time.min, first.tzinfo),
        datetime.combine(last.date(), time.max, last.tzinfo),
    )
