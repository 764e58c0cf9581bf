"""The model of a machine without a model: no weights, deterministic, labelled as what it is.

It drives the same tools a real model uses and sees only what a real model sees, the request's messages
and tools: it notes what the user states about themself, keeps what it is asked to keep, and answers
by quoting the best memory with its date. Its rules are English: `policy` tries them in order, `facts` has what
counts as a fact, `memories` how a memory is chosen, `prompt` how a request is read.
"""

import hashlib
import json
import re
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from agentos.errors import ContextOverflow
from agentos.events import Retry
from agentos.llm.offline.policy import respond
from agentos.llm.offline.prompt import read_prompt
from agentos.llm.offline.turn import NamedCall
from agentos.messages import Reply, ToolCall, Usage
from agentos.protocols import Delta, LLMRequest

_PER_MESSAGE = 6
"""Tokens of role and separators around one message; twice that around a call."""


class OfflineLLM:
    """The `LLM` that is always there: instant, free, and unable to reach anything outside its request."""

    name = "offline"
    provider = "offline"

    def __init__(self, context_window: int = 32768, max_output_tokens: int = 1024) -> None:
        self.context_window = context_window
        self.max_output_tokens = max_output_tokens

    def count_tokens(self, text: str) -> int:
        """One token for each three bytes of UTF-8, rounded up: more than English takes, about what dense text does."""
        return -(-(len(text) if text.isascii() else len(text.encode("utf-8", "replace"))) // 3)

    async def stream(self, request: LLMRequest) -> AsyncGenerator[Delta | Retry | Reply, None]:
        """The reply word by word, then whole. Raises `ContextOverflow` when the prompt alone exceeds the window."""
        tools = self.count_tokens(json.dumps(request.tools)) if request.tools else 0
        sizes = [self._size(message) for message in request.messages]
        if tools + sum(sizes) > self.context_window:
            raise ContextOverflow(
                f"the prompt takes about {tools + sum(sizes)} tokens and the offline model's window has "
                f"{self.context_window}; page out more or raise AGENTOS_CONTEXT_WINDOW",
                self.context_window,
            )
        answer = respond(read_prompt(request.messages), frozenset(t["function"]["name"] for t in request.tools))
        text, whole = self._fitted(answer.text.strip(), request.max_tokens)
        for piece in re.findall(r"\s*\S+", text):
            yield Delta(piece)
        calls = _tool_calls(request.messages, answer.calls)
        said = self.count_tokens(text) + sum(self.count_tokens(c.name + c.arguments) + 2 * _PER_MESSAGE for c in calls)
        repeated = tools + sum(sizes[: request.previous_length]) if request.previous_length else 0
        usage = Usage(tools + sum(sizes), said, repeated, 0.0)
        finish = "tool_calls" if calls else "stop" if whole else "length"
        yield Reply(text, calls, usage, finish, model=self.name)

    def _size(self, message: dict[str, Any]) -> int:
        """Tokens of one message; cheap enough to be counted anew for each request."""
        content = message.get("content") or ""
        tokens = _PER_MESSAGE + self.count_tokens(content if isinstance(content, str) else json.dumps(content))
        for call in message.get("tool_calls") or ():
            function = call["function"]
            tokens += 2 * _PER_MESSAGE + self.count_tokens(function["name"]) + self.count_tokens(function["arguments"])
        return tokens

    def _fitted(self, text: str, max_tokens: int) -> tuple[str, bool]:
        """The text within `max_tokens`, and whether it is all of it."""
        if self.count_tokens(text) <= max_tokens:
            return text, True
        room = text.encode("utf-8", "replace")[: max(0, 3 * max_tokens)].decode("utf-8", "ignore")
        return room.rsplit(None, 1)[0] if room.strip() else "", False


def _tool_calls(messages: Sequence[dict[str, Any]], calls: Sequence[NamedCall]) -> tuple[ToolCall, ...]:
    """Calls with ids that depend on the talk so far: equal for an equal request, new for every other."""
    recent = json.dumps([len(messages), messages[-4:]], default=str).encode()
    digest = hashlib.sha256(recent).hexdigest()[:20]
    return tuple(
        ToolCall(f"off_{digest}_{i}", name, json.dumps(arguments, ensure_ascii=False))
        for i, (name, arguments) in enumerate(calls)
    )
