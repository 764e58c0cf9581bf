"""How long texts, times and figures are written on pages."""

import json
from typing import Any


def _first_words(text: str, length: int) -> str:
    """The beginning of a text on one line."""
    flat = " ".join(text[: 4 * length].split())
    return flat if len(flat) <= length and len(text) <= 4 * length else f"{flat[:length].rstrip()} …"


def _first_chars(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]} …"


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


FORMATS = {"first_words": _first_words, "first_chars": _first_chars, "seconds": _seconds, "json_lines": _json_lines}
"""Filters of the templates."""
