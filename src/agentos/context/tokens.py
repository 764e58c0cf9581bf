"""How many tokens things take, anchored on what the provider last reported."""

import json
from collections.abc import Callable, Iterable
from typing import Any

from agentos.messages import Message
from agentos.state import AgentState

PER_MESSAGE = 6
"""Tokens of role and separators around one message, a little above what chat templates use."""


class TokenCounter:
    """Counts with a model's `count_tokens`, remembering each message of the queue."""

    def __init__(self, count: Callable[[str], int]) -> None:
        self.count = count
        self._by_message: dict[int, int] = {}

    def message(self, message: Message) -> int:
        """Tokens of one message as the context shows it."""
        if message.id and message.id in self._by_message:
            return self._by_message[message.id]
        tokens = self.wire(message.wire)
        if message.provider:
            tokens += self.count(json.dumps(message.provider["fields"], ensure_ascii=False))
        self._by_message[message.id] = tokens
        return tokens

    def forget_all_but(self, messages: Iterable[Message]) -> None:
        """Remember these messages alone: who lives long must not remember all that ever was said."""
        ids = {m.id for m in messages}
        self._by_message = {i: tokens for i, tokens in self._by_message.items() if i in ids}

    def messages(self, messages: Iterable[Message]) -> int:
        """Tokens of several messages."""
        return sum(self.message(m) for m in messages)

    def wire(self, wire: dict[str, Any]) -> int:
        """Tokens of one message in the chat completions format."""
        tokens = PER_MESSAGE + self.count(wire["content"] or "")
        for call in wire.get("tool_calls", ()):
            tokens += 2 * PER_MESSAGE + self.count(call["function"]["name"]) + self.count(call["function"]["arguments"])
        return tokens

    def json(self, value: object) -> int:
        """Tokens of a JSON value, such as the tools' schemas."""
        return self.count(json.dumps(value, ensure_ascii=False)) if value else 0


def prompt_tokens(state: AgentState, counter: TokenCounter, head_tokens: int) -> int:
    """Tokens of the next prompt: the size of the previous one plus a scaled estimate of what came since.

    `head_tokens` is the estimate for tools, system message and summary.
    """
    agent = state.agent
    if agent.anchor_seq:
        since = (m for m in reversed(state.queue) if m.seq is not None)
        tokens = 0
        for message in since:
            if message.seq <= agent.anchor_seq:  # type: ignore[operator]  # placed messages have a seq
                break
            tokens += counter.message(message)
        return agent.anchor_tokens + scaled(tokens, agent.token_ratio)
    return scaled(head_tokens + counter.messages(state.queue), agent.token_ratio)


def scaled(estimate: int, ratio: float) -> int:
    """An estimate in the provider's own tokens, rounded up."""
    return -int(-estimate * ratio // 1)


def clip(text: str, room_tokens: int, count: Callable[[str], int]) -> int | None:
    """How many characters of `text` fit `room_tokens`; None when all of it does."""
    if len(text) * 4 <= room_tokens:  # no tokenizer makes more than four tokens of a character
        return None
    length = min(len(text), max(room_tokens, 1) * 4)
    while length > 0 and (tokens := count(text[:length])) > room_tokens:
        length = min(length - 1, length * room_tokens // tokens)
    return None if length == len(text) else max(length, 0)
