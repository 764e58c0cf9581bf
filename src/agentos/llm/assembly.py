"""Puts a streamed reply together: what can be shown as it arrives, and the finished reply at the end."""

import json
import re
from collections.abc import Collection, Iterator
from typing import Any

from agentos.llm.arguments import parse_arguments
from agentos.llm.text_calls import TextGate, ThinkSplitter, new_call_id
from agentos.messages import REASONING_FIELDS, ToolCall, clean_text
from agentos.protocols import Delta

MAX_ID_CHARS = 64
_CUT_OFF = (
    "cut off: the reply ended inside this call's arguments after {chars} characters, so it was not run; "
    "send it again with shorter arguments, or split it into several calls"
)


class CallBuilder:
    """Joins the pieces of tool calls.

    Servers differ: some leave out the index or the id, repeat the id in every piece, give two calls one
    id, or send a call whole. A piece with a name begins a new call where the index is new, the id another,
    or the arguments before it complete.
    """

    def __init__(self) -> None:
        self._calls: list[_OpenCall] = []
        self._at: dict[int, _OpenCall] = {}

    def __bool__(self) -> bool:
        return bool(self._calls)

    def feed(self, piece: Any) -> None:
        """Take in one entry of a delta's `tool_calls`."""
        name, id = getattr(piece.function, "name", None) or "", piece.id or ""
        call = self._calls[-1] if piece.index is None and self._calls else self._at.get(piece.index)
        if call is None or (name and call.is_over(id)):
            call = _OpenCall()
            self._calls.append(call)
            self._at[piece.index] = call
        call.id, call.name = call.id or id, call.name or name
        arguments = getattr(piece.function, "arguments", None) or ""
        call.parts.append(arguments if isinstance(arguments, str) else json.dumps(arguments))

    def finish(self, cut_off: bool) -> tuple[ToolCall, ...]:
        """The calls in order; `cut_off`: the reply did not end by itself, so a broken last call was not meant."""
        used: set[str] = set()
        last = self._calls[-1] if self._calls else None
        return tuple(call.finish(used, cut_off and call is last) for call in self._calls)


class _OpenCall:
    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.parts: list[str] = []

    def is_over(self, next_id: str) -> bool:
        """Whether a named piece with `next_id` belongs to another call."""
        if self.id and next_id and self.id != next_id:
            return True
        # the cheap look at the last piece keeps servers that repeat the name in every piece linear
        return bool(self.name and self.parts[-1].rstrip().endswith("}") and not parse_arguments("".join(self.parts))[1])

    def finish(self, used: set[str], cut_off: bool) -> ToolCall:
        text = "".join(self.parts)
        arguments, error = parse_arguments(text)
        if cut_off and (error or not text.strip()):
            error = _CUT_OFF.format(chars=len(text))
        # a name outside this alphabet would make every later request invalid; no tool has one
        name = re.sub(r"[^a-zA-Z0-9_-]", "_", self.name)[:64]
        if not name:
            name, error = "unknown", "the call names no tool; send it again with the tool's name"
        return ToolCall(self._unique_id(used), name, arguments if error is None else "{}", error)

    def _unique_id(self, used: set[str]) -> str:
        usable = self.id.isascii() and self.id.isprintable() and 0 < len(self.id) <= MAX_ID_CHARS
        id = self.id if usable and self.id not in used else new_call_id()
        used.add(id)
        return id


class ReplyBuilder:
    """`feed` it the chunks of one streamed reply, then `finish` it, then read its parts."""

    def __init__(self, tool_names: Collection[str]) -> None:
        self.heard = False
        """Whether any chunk was part of a reply; an error page in place of a stream has none."""
        self.usage: Any = None
        """The last usage object the provider sent, as it is."""
        self.finish_reason: str | None = None
        self.model = ""
        self.text = ""
        self.calls: tuple[ToolCall, ...] = ()
        self._gate = TextGate(tool_names)
        self._think = ThinkSplitter()
        self._building = CallBuilder()
        self._reasoning: dict[str, list[str]] = {}
        self._blocks: list[dict[str, Any]] = []

    def feed(self, chunk: Any) -> Iterator[Delta]:
        """Take in one chunk of the chat completions format; what can be shown now."""
        self.model = getattr(chunk, "model", None) or self.model
        if getattr(chunk, "usage", None) is not None:
            self.usage, self.heard = chunk.usage, True
        for choice in (chunk.choices or ())[:1]:
            if choice.finish_reason:
                self.finish_reason, self.heard = choice.finish_reason, True
            if choice.delta is not None:
                yield from self._feed_delta(choice.delta)

    def finish(self) -> Iterator[Delta]:
        """End the reply; what is left to show."""
        reasoning, text = self._think.finish()
        yield from self._reason("reasoning_content", reasoning)
        yield from self._show(self._gate.feed(text))
        rest, text, text_calls = self._gate.finish()
        yield from self._show(rest)
        self.text = clean_text(text)
        self.calls = self._building.finish(self.finish_reason in ("length", None)) or text_calls

    @property
    def fields(self) -> dict[str, Any]:
        """The provider's own fields, to be sent back with this message."""
        fields: dict[str, Any] = {name: clean_text("".join(parts)) for name, parts in self._reasoning.items()}
        if self._blocks:
            fields["thinking_blocks"] = [_joined(block) for block in self._blocks]
        return fields

    def _feed_delta(self, delta: Any) -> Iterator[Delta]:
        if getattr(delta, "role", None):
            self.heard = True
        for name in REASONING_FIELDS:
            yield from self._reason(name, getattr(delta, name, None))
        for block in getattr(delta, "thinking_blocks", None) or ():
            self._feed_block(dict(block))
        if isinstance(delta.content, str) and delta.content:
            self.heard = True
            reasoning, text = self._think.feed(delta.content)
            yield from self._reason("reasoning_content", reasoning)
            yield from self._show(self._gate.feed(text))
        for piece in delta.tool_calls or ():
            self.heard = True
            yield from self._show(self._gate.release())
            self._building.feed(piece)

    def _reason(self, name: str, text: str | None) -> Iterator[Delta]:
        if text:
            self.heard = True
            self._reasoning.setdefault(name, []).append(text)
            yield Delta(reasoning=clean_text(text))

    def _show(self, text: str) -> Iterator[Delta]:
        if text:
            yield Delta(text=clean_text(text))

    def _feed_block(self, block: dict[str, Any]) -> None:
        """Thinking comes in pieces; its signature ends a block."""
        last = self._blocks[-1] if self._blocks else None
        if last is None or "thinking" not in block or "thinking" not in last or "signature" in last:
            self._blocks.append(block | {"thinking": [block["thinking"]]} if "thinking" in block else block)
            return
        last["thinking"].append(block.get("thinking") or "")
        if block.get("signature"):
            last["signature"] = block["signature"]


def _joined(block: dict[str, Any]) -> dict[str, Any]:
    return block | {"thinking": "".join(block["thinking"])} if "thinking" in block else block
