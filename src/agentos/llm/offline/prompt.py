"""What the offline model reads out of a request: core memory as it is now, and what waits for an answer."""

import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agentos.messages import clean_text

SEARCHES = ("conversation_search", "archival_memory_search")
_CORE_EDITS = ("core_memory_append", "core_memory_replace")


@dataclass(frozen=True)
class CoreBlock:
    """A block of core memory with the edits that the conversation shows."""

    label: str
    value: str
    limit: int
    read_only: bool = False


@dataclass(frozen=True)
class Said:
    """One message of the user."""

    text: str
    at: datetime | None = None
    """The local time it begins with."""
    by_client: bool = False
    """Whether a program said it, whose words are no facts about the user."""


@dataclass(frozen=True)
class Result:
    """A tool call with what came back."""

    tool: str
    arguments: dict[str, Any]
    text: str

    @property
    def ok(self) -> bool:
        """Whether the call did what it was to do."""
        return not self.text.startswith("error:")


@dataclass
class Prompt:
    """One request, read from its first message to its last."""

    blocks: list[CoreBlock] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    """Every message of the user that is in view, oldest first."""
    pending: list[Said] = field(default_factory=list)
    """The last of them, those that no text has answered yet."""
    timers: list[str] = field(default_factory=list)
    """Notes of timers that fired and that no text has passed on yet."""
    results: list[Result] = field(default_factory=list)
    """Of the calls since the last user message or text."""
    last_write: Result | None = None
    """The core memory edit made for the user message before the last."""
    summary_request: str | None = None
    """The request for a summary, when that is what comes last."""


@dataclass(frozen=True)
class _Edit:
    """A change of a block that the conversation shows."""

    label: str
    old: str | None
    """None appends; an empty text sets the whole value."""
    new: str
    length: int | None = None
    """Characters of the block afterwards, where the result says so."""


_CLIENT = r"\[client [^\]\n]*\] "
_TIME = r"\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)[^\]\n]*\] "
_NOTICE = "[system notice]"
_SUMMARY = "[summary of earlier conversation]"
_REQUEST = "[summary request]"
_UNANSWERED = "An earlier message of the user has no answer yet."
_OUTSIDE = r'(?s)Block "(?P<label>.+?)" was changed from outside; it now reads:\n(?P<value>.*)'
_LENGTH = r"now has (\d+) of \d+ characters"
_BLOCK = r'(?s)<block label="(?P<label>.*?)" limit="(?P<limit>\d+)"(?P<more>.*?)>\n(?P<value>.*?)\n</block>'
_ESCAPED = r"(?i)&lt;(?=\s*/?\s*(?:block|core_memory)\b)"


def read_prompt(messages: Sequence[dict[str, Any]]) -> Prompt:
    """The request's messages, in the chat completions format, as the offline model sees them."""
    prompt, system = Prompt(), ""
    calls: dict[str, dict[str, Any]] = {}
    edits: list[_Edit] = []
    written_after = 0  # user messages before the last core edit
    for message in messages:
        role, content = message.get("role"), _text(message.get("content"))
        if role == "system":
            system = system or content
        elif role == "assistant":
            calls |= {call["id"]: call["function"] for call in message.get("tool_calls") or ()}
            if content.strip():
                prompt.pending, prompt.timers, prompt.results = [], [], []
        elif role == "tool":
            result = _result(calls.get(str(message.get("tool_call_id"))), content)
            prompt.results.append(result)
            edit = _core_edit(result)
            if edit:
                edits.append(edit)
                prompt.last_write, written_after = result, len(prompt.said)
        else:
            _read_user(prompt, content, edits)
    if written_after != len(prompt.said) - 1:
        prompt.last_write = None
    prompt.blocks = [_replayed(block, [e for e in edits if e.label == block.label]) for block in _blocks(system)]
    return prompt


def _text(content: object) -> str:
    """A message's text; of content in parts, the text parts."""
    if isinstance(content, list):
        content = "\n".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return clean_text(content) if isinstance(content, str) else ""


def _read_user(prompt: Prompt, content: str, edits: list[_Edit]) -> None:
    time = re.match(_TIME, content)
    text = content[time.end() :] if time else content
    prompt.summary_request = text if text.startswith(_REQUEST) else None
    if text.startswith((_SUMMARY, _REQUEST)):
        return
    if text.startswith(_NOTICE):
        _read_notice(prompt, text.removeprefix(_NOTICE).strip(), edits)
        return
    said = _said(text, _moment(time[1]) if time else None)
    prompt.said.append(said)
    prompt.pending.append(said)
    prompt.results = []


def _said(text: str, at: datetime | None = None) -> Said:
    client = re.match(_CLIENT, text)
    return Said(text[client.end() if client else 0 :].strip(), at, client is not None)


def _read_notice(prompt: Prompt, text: str, edits: list[_Edit]) -> None:
    outside = re.fullmatch(_OUTSIDE, text)
    if outside:
        value = outside["value"]
        edits.append(_Edit(outside["label"], "", "" if value == "(empty)" else value))
    elif text.startswith(_UNANSWERED):
        prompt.pending = [_said(said) for said in re.split(r"(?m)^m\d+: ", text)[1:] if said.strip()]
        prompt.results = []
    elif text.startswith("Timer: "):
        prompt.timers += re.split(r"\nTimer: ", text.removeprefix("Timer: "))


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _result(call: dict[str, Any] | None, text: str) -> Result:
    """A tool message with its call; a call that cannot be read has no arguments."""
    if call is None:
        return Result("", {}, text)
    try:
        arguments = json.loads(call["arguments"])
    except (ValueError, TypeError, RecursionError):
        arguments = {}
    return Result(call["name"], arguments if isinstance(arguments, dict) else {}, text)


def _core_edit(result: Result) -> _Edit | None:
    values = result.arguments
    if result.tool not in _CORE_EDITS or not result.ok or "nothing changed" in result.text:
        return None
    append = result.tool == "core_memory_append"
    length = re.search(_LENGTH, result.text)
    return _Edit(
        str(values.get("label")),
        None if append else str(values.get("old_content") or ""),
        str(values.get("content" if append else "new_content") or ""),
        int(length[1]) if length else None,
    )


def _blocks(system: str) -> list[CoreBlock]:
    core = system[max(system.rfind("<core_memory>"), 0) :]
    return [
        CoreBlock(
            html.unescape(b["label"]),
            re.sub(_ESCAPED, "<", b["value"]),
            int(b["limit"]),
            b["more"].startswith(' read_only="true"'),
        )
        for b in re.finditer(_BLOCK, core)
    ]


def _replayed(block: CoreBlock, edits: Sequence[_Edit]) -> CoreBlock:
    """The block after the edits in view.

    A snapshot taken between them holds some of them already. The first of their suffixes that fits it,
    by the lengths that the results name, is the one that it lacks.
    """
    for first in range(len(edits)):
        value = _apply(block.value, edits[first:])
        if value is not None:
            return CoreBlock(block.label, value, block.limit, block.read_only)
    return block


def _apply(value: str, edits: Sequence[_Edit]) -> str | None:
    for edit in edits:
        changed = _edited(value, edit)
        if changed is None or edit.length not in (None, len(changed)):
            return None
        value = changed
    return value


def _edited(value: str, edit: _Edit) -> str | None:
    if edit.old is None:
        return f"{value}\n{edit.new}" if value else edit.new
    if not edit.old:
        return edit.new
    if value.count(edit.old) != 1:
        return None
    changed = value.replace(edit.old, edit.new)
    return changed if edit.new else changed.replace("\n\n", "\n").strip("\n")
