"""Reply text that is not meant to be read: calls written as JSON, and reasoning between `<think>` tags.

Models without native tool calls write a call as a fenced JSON block, between `<tool_call>` tags, or as a
reply that is one bare object: `{"name": ..., "arguments": {...}}`. Only known tools count; whatever is
malformed stays text.
"""

import json
import re
import uuid
from collections.abc import Collection

from agentos.llm.arguments import parse_arguments
from agentos.messages import ToolCall

_OPENERS = ("```json", "```tool_call", "```", "<tool_call>")
_OPENER = re.compile(r"(?m)^[ \t]*(?:```(?:json|tool_call)?[ \t]*$|<tool_call>)")
_MAX_BLOCK = 100_000
"""Characters; a longer block is text. Keeps the search linear."""
_MAX_HELD = 16_000
"""Characters a stream holds back before it shows them after all."""


def new_call_id() -> str:
    """An id for a call that came without a usable one."""
    return f"call_{uuid.uuid4().hex}"


def find_text_calls(text: str, names: Collection[str]) -> tuple[str, tuple[ToolCall, ...]]:
    """The text without its calls to tools in `names`, and those calls in order.

    Text without a call comes back unchanged.
    """
    if text.lstrip().startswith("{") and (call := _as_call(text, names)):
        return "", (call,)
    calls, kept, begin, at = [], [], 0, 0
    while (opener := _OPENER.search(text, at)) is not None:
        at = opener.end()
        if (end := _block_end(text, opener)) and (call := _as_call(text[at : end[0]], names)):
            calls.append(call)
            kept.append(text[begin : opener.start()])
            begin = at = end[1]
    if not calls:
        return text, ()
    return "".join([*kept, text[begin:]]).rstrip(), tuple(calls)


def _block_end(text: str, opener: re.Match[str]) -> tuple[int, int] | None:
    """Where the block's content ends and where its closing mark ends."""
    close = "</tool_call>" if opener[0].endswith(">") else "```"
    end = text.find(close, opener.end(), opener.end() + _MAX_BLOCK)
    return (end, end + len(close)) if end >= 0 else None


def _as_call(block: str, names: Collection[str]) -> ToolCall | None:
    try:
        value = json.loads(block, strict=False)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or value["name"] not in names:
        return None
    given = value.get("arguments", value.get("parameters"))
    arguments, error = parse_arguments(given if isinstance(given, str) else json.dumps(given))
    return ToolCall(new_call_id(), value["name"], arguments) if error is None else None


class TextGate:
    """Lets the text of a streamed reply through, except what may turn out to be a call.

    `feed` returns what may be shown now. A native call (`release`) shows that nothing else is one. `finish`
    returns what is left to show, the reply's text, and its calls.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(names)
        self._free = not names
        self._all: list[str] = []
        self._shown = 0
        self._held = ""
        self._line_start = True

    def feed(self, piece: str) -> str:
        """Take in a piece; the text that may be shown now."""
        self._all.append(piece)
        if self._free:
            return self._show(piece)
        self._held += piece
        cut = len(self._held) if len(self._held) > _MAX_HELD else self._clear()
        show, self._held = self._held[:cut], self._held[cut:]
        return self._show(show)

    def release(self) -> str:
        """Hold nothing back from now on; the text that was held."""
        show, self._held, self._free = self._held, "", True
        return self._show(show)

    def finish(self) -> tuple[str, str, tuple[ToolCall, ...]]:
        """(what is left to show, the reply's text, its calls); call it once, last."""
        text, calls = find_text_calls("".join(self._all), () if self._free else self._names)
        return text[self._shown :], text, calls

    def _show(self, text: str) -> str:
        self._shown += len(text)
        self._line_start = text.endswith("\n") if text else self._line_start
        return text

    def _clear(self) -> int:
        """How much of the held text can be shown: all up to the space before the first possible call."""
        held = self._held
        if not self._shown and held.lstrip()[:1] in ("{", ""):
            return 0
        at = 0 if self._line_start else _next_line(held, 0)
        while at < len(held):
            line, newline, _ = held[at:].partition("\n")
            if self._may_open(line.strip(), bool(newline), held[at:]):
                return len(held[:at].rstrip())
            at = _next_line(held, at)
        return len(held.rstrip())

    def _may_open(self, head: str, complete: bool, rest: str) -> bool:
        """Whether a call may begin with the line `head`, after which the reply so far goes on as `rest`."""
        if not complete and any(opener.startswith(head) for opener in _OPENERS):
            return True
        if (opener := _OPENER.match(rest)) is None:
            return False
        if (end := _block_end(rest, opener)) is not None:
            return _as_call(rest[opener.end() : end[0]], self._names) is not None
        return rest[opener.end() :].lstrip()[:1] in ("{", "")


def _next_line(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end + 1


class ThinkSplitter:
    """Splits a reply that begins with `<think>...</think>` into (reasoning, text), across pieces."""

    def __init__(self) -> None:
        self._feed = self._before
        self._held = ""

    def feed(self, piece: str) -> tuple[str, str]:
        """The (reasoning, text) that is certain now."""
        self._held += piece
        return self._feed()

    def finish(self) -> tuple[str, str]:
        """What was still held, once the reply has ended."""
        held, self._held = self._held, ""
        return (held, "") if self._feed == self._inside else ("", held)

    def _before(self) -> tuple[str, str]:
        head = self._held.lstrip()
        if len(head) < len("<think>") and "<think>".startswith(head):
            return "", ""
        if not head.startswith("<think>"):
            self._feed = self._after
        else:
            self._held = head.removeprefix("<think>")
            self._feed = self._inside
        return self._feed()

    def _inside(self) -> tuple[str, str]:
        reasoning, tag, rest = self._held.partition("</think>")
        if tag:
            self._held, self._feed = rest, self._between
            return reasoning, self._feed()[1]
        keep = next((n for n in range(len("</think>") - 1, 0, -1) if self._held.endswith("</think>"[:n])), 0)
        cut = len(self._held) - keep
        show, self._held = self._held[:cut], self._held[cut:]
        return show, ""

    def _between(self) -> tuple[str, str]:
        """The blank lines after the reasoning belong to neither."""
        self._held = self._held.lstrip()
        if self._held:
            self._feed = self._after
        return "", self._feed()[1] if self._held else ""

    def _after(self) -> tuple[str, str]:
        text, self._held = self._held, ""
        return "", text
