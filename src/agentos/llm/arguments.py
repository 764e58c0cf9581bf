"""The arguments of a call, as text from a model: a JSON object, or a sentence that says why not. Nothing is guessed."""

import json
from typing import Any, NoReturn

from agentos.messages import clean_text

_QUOTED = 20
"""Characters shown on each side of the place where the JSON broke."""


def parse_arguments(text: str) -> tuple[str, str | None]:
    """The canonical JSON text of the object in `text`, and None; or `{}`, and what is wrong with it.

    Empty text is the empty object: many servers send that for a call without arguments.
    """
    if not text.strip():
        return "{}", None
    try:
        # strict=False: a raw line break in a string breaks the standard but not the meaning
        value = json.loads(text, strict=False, parse_constant=_refuse)
        if not isinstance(value, dict):
            return "{}", f"the arguments are {_kind(value)}, not a JSON object; send the call again with one object"
        return json.dumps(_clean(value), ensure_ascii=False, allow_nan=False), None
    except json.JSONDecodeError as error:
        near = text[max(0, error.pos - _QUOTED) : error.pos + _QUOTED]
        return "{}", (
            f"the arguments are not valid JSON: {error.msg} at character {error.pos}, near {near!r}; "
            "send the call again with one complete JSON object"
        )
    except (ValueError, RecursionError):
        return "{}", (
            "the arguments hold a number outside JSON's range or are nested too deeply; "
            "send the call again with plain strings, numbers and short lists"
        )


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _kind(value: object) -> str:
    names = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _clean(value: Any) -> Any:
    """The same value with text that every party can store and send."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {clean_text(key): _clean(item) for key, item in value.items()}
    return value
