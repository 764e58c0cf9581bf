"""What reaches the terminal: text made safe, JSON, and the one place that writes."""

import json
import re
import sys
from typing import Any

from rich.console import Console, RenderableType
from rich.theme import Theme

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_INVISIBLE = re.compile("[\u200b\u2028\u2029\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
"""Characters that reorder or hide what stands around them; no language needs them here."""
_RAW_IN_JSON = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

THEME = Theme({
    "quiet": "dim",
    "good": "green",
    "bad": "red",
    "warn": "yellow",
    "name": "bold cyan",
    "added": "green",
    "removed": "red",
})  # fmt: skip


def safe(text: object) -> str:
    """Text as a terminal may have it: newlines and tabs stay, other control characters show as `\\xNN`."""
    shown = _CONTROL.sub(lambda match: f"\\x{ord(match.group()):02x}", str(text).replace("\r\n", "\n"))
    return _INVISIBLE.sub("", shown)


def line(text: object, length: int = 100) -> str:
    """`text` made safe, on one line, cut to `length` characters."""
    flat = " ".join(safe(text).split())
    return flat if len(flat) <= length else flat[: length - 1] + "…"


def make_console(*, stderr: bool = False) -> Console:
    """A console that takes text as it is; without a terminal it writes plain text and breaks no line."""
    stream = sys.stderr if stderr else sys.stdout
    plain = not stream.isatty()
    return Console(
        stderr=stderr, theme=THEME, highlight=False, markup=False, emoji=False, width=10_000 if plain else None,
        soft_wrap=False,
    )  # fmt: skip


def show(renderable: RenderableType) -> None:
    """Print to stdout."""
    make_console().print(renderable)


def show_json(value: Any, *, indent: int | None = 2) -> None:
    """Print a JSON value; raw control and reordering characters are escaped."""
    sys.stdout.write(as_json(value, indent) + "\n")
    sys.stdout.flush()


def as_json(value: Any, indent: int | None = None) -> str:
    """JSON text without a raw control character, nor one that stdout's encoding lacks."""
    narrow = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    text = json.dumps(value, ensure_ascii=narrow, indent=indent, default=str)
    return _RAW_IN_JSON.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def complain(sentence: str) -> None:
    """One sentence on stderr."""
    sys.stderr.write(f"agentos: {safe(sentence)}\n")
