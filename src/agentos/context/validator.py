"""The rules of the strictest provider, as a check over a finished request."""

import json
import re
from collections.abc import Sequence
from typing import Any

_UNSENDABLE = re.compile("[\x00\ud800-\udfff]")


def violations(messages: Sequence[dict[str, Any]]) -> list[str]:
    """What a strict provider would refuse in this message list; empty when it is valid.

    Every call answered at once by exactly one result, ids unique and at most 64 characters,
    arguments a JSON object, no empty content, no NUL or lone surrogate, system text only at the
    head, first other message from the user.
    """
    found: list[str] = []
    seen: set[str] = set()
    open_calls: list[str] = []
    for place, message in enumerate(messages):
        role, content = message["role"], message.get("content")
        calls = message.get("tool_calls", [])
        if role == "system" and place:
            found.append(f"message {place}: system text behind the head")
        if place == 1 and role != "user":
            found.append(f"message 1: the first message after the system text is from {role}")
        if not calls and not (content or "").strip():
            found.append(f"message {place}: empty content")
        if content is not None and _UNSENDABLE.search(content):
            found.append(f"message {place}: NUL or lone surrogate")
        if role == "tool":
            if message["tool_call_id"] not in open_calls:
                found.append(f"message {place}: a result without its call")
            else:
                open_calls.remove(message["tool_call_id"])
        elif open_calls:
            found.append(f"message {place}: calls {open_calls} are not answered at once")
            open_calls = []
        for call in calls:
            found += _call_violations(place, call, seen)
            seen.add(call["id"])
            open_calls.append(call["id"])
    if open_calls:
        found.append(f"end: calls {open_calls} have no result")
    return found


def _call_violations(place: int, call: dict[str, Any], seen: set[str]) -> list[str]:
    found = []
    if call["id"] in seen or not 0 < len(call["id"]) <= 64:
        found.append(f"message {place}: call id {call['id']!r} is used twice, empty or longer than 64")
    try:
        if not isinstance(json.loads(call["function"]["arguments"]), dict):
            found.append(f"message {place}: arguments are not an object")
    except ValueError:
        found.append(f"message {place}: arguments are not JSON")
    if not call["function"]["name"]:
        found.append(f"message {place}: a call without a name")
    return found
