"""Where a provider's prompt cache has to be told about a prompt that only grows. Pure: nothing given is changed.

Anthropic keeps an entry at each of at most four marks and looks up to 20 content blocks back from a
mark for an older entry. OpenAI routes requests with the same key to the same cache. Others need no help.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Literal

Wire = dict[str, Any]
CacheStyle = Literal["anthropic", "openai", "none"]

MAX_MARKS = 4
"""A fifth mark is refused by Anthropic."""
LOOK_BACK = 19
"""Blocks from one mark to the one before: 20 positions are looked at, the mark's own is the first."""
_MARK = {"type": "ephemeral"}
_CLAUDE_HOSTS = ("anthropic", "bedrock", "bedrock_converse", "vertex_ai", "openrouter")
_KEYED = ("openai", "azure")


def cache_style(provider: str, model: str) -> CacheStyle:
    """How `model` at litellm's `provider` wants to hear about its cache."""
    if provider == "anthropic" or (provider in _CLAUDE_HOSTS and "claude" in model.lower()):
        return "anthropic"
    return "openai" if provider in _KEYED else "none"


def plan_cache(
    style: CacheStyle, messages: Sequence[Wire], previous_length: int, cache_key: str
) -> tuple[list[Wire], dict[str, Any]]:
    """The messages with their marks, and extra arguments of the request.

    `previous_length`: how many of `messages` the previous request had (0: none). Apart from
    `cache_control` on a message the content is as it came; unmarked messages are the same objects.
    """
    if style == "openai" and cache_key:
        return list(messages), {"prompt_cache_key": cache_key}
    if style != "anthropic" or not messages:
        return list(messages), {}
    marks = set(_marks(messages, previous_length))
    return [m | {"cache_control": _MARK} if at in marks else m for at, m in enumerate(messages)], {}


def count_blocks(message: Wire) -> int:
    """Content blocks of one message: its text, each reasoning block, each call; a tool result is one."""
    content = message.get("content")
    texts = len(content) if isinstance(content, list) else int(bool(content))
    return max(1, texts + len(message.get("thinking_blocks") or ()) + len(message.get("tool_calls") or ()))


def _marks(messages: Sequence[Wire], previous_length: int) -> list[int]:
    """Indices to mark: end of the system text, end of the previous request, end, and what fills the widest gaps."""
    # an assistant message is never marked: its last block may be a call, where not every provider takes a mark
    allowed = [at for at, m in enumerate(messages) if m["role"] != "assistant" and m.get("content")]
    if not allowed:
        return []
    ends = list(accumulate(count_blocks(m) for m in messages))
    system = [at for at in allowed if messages[at]["role"] == "system"][-1:]
    previous = [at for at in allowed if at < previous_length][-1:]
    marks = sorted({*system, *previous, allowed[-1]})
    while len(marks) < MAX_MARKS and (extra := _fill(marks, allowed, ends)) is not None:
        marks = sorted({*marks, extra})
    return marks


def _fill(marks: list[int], allowed: list[int], ends: list[int]) -> int | None:
    """The mark that brings the last too wide gap within the look-back of its end; None when no gap is too wide."""
    for start, end in reversed(list(zip([-1, *marks], marks, strict=False))):
        inside = [at for at in allowed if start < at < end]
        if ends[end] - (ends[start] if start >= 0 else 0) > LOOK_BACK and inside:
            reachable = bisect_left(inside, ends[end] - LOOK_BACK, key=ends.__getitem__)
            return inside[min(reachable, len(inside) - 1)]
    return None
