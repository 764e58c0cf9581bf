"""How long texts, times and figures are written on pages."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_share = ContextVar("share", default=1.0)


@contextmanager
def shortened(share: float) -> Iterator[None]:
    """Cut long texts at this share of their usual length: a page full of them is light all the same."""
    before = _share.set(share)
    try:
        yield
    finally:
        _share.reset(before)


def shortened_to(length: int) -> int:
    """How much of a text is shown where `length` characters are usual."""
    return max(1, int(length * _share.get()))


def _first_words(text: str, length: int) -> str:
    """The beginning of a text on one line."""
    flat = " ".join(text[: 4 * length].split())
    return flat if len(flat) <= length and len(text) <= 4 * length else f"{flat[:length].rstrip()} …"


def _first_chars(text: str, length: int) -> str:
    """The beginning of a text; it equals the text where nothing was cut."""
    length = shortened_to(length)
    return text if len(text) <= length else f"{text[:length]} …"


def _first_items(texts: Sequence[str], length: int) -> list[str]:
    """The first of these texts that together have at most so many characters."""
    room, shown = shortened_to(length), []
    for text in texts:
        room -= len(text)
        if room < 0:
            break
        shown.append(text)
    return shown


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    if value < 0.95:
        return f"{1000 * value:,.0f} ms"
    if value < 60:
        return f"{value:,.1f} s"
    minutes, seconds = divmod(round(value), 60)
    return f"{minutes} min {seconds} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _json_lines(value: Any) -> str:
    """A call's arguments: one that is a text stands as it is, not as JSON writes it."""
    if not isinstance(value, dict):
        return str(value)
    return "\n".join(
        f"{name}: {given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)}"
        for name, given in value.items()
    )


FORMATS = {
    "first_words": _first_words, "first_chars": _first_chars, "first_items": _first_items, "seconds": _seconds,
    "json_lines": _json_lines,
}  # fmt: skip
"""Filters of the templates."""
