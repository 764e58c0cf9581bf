"""A tool: a Python function whose schema is made from its signature and docstring."""

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Protocol, get_type_hints, overload

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from agentos.errors import ToolError
from agentos.messages import Approval, Block, Cause, Message, Passage
from agentos.protocols import Hit, SearchQuery, Tx

HEARTBEAT = "request_heartbeat"


class MemoryPort(Protocol):
    """What the memory tools may ask while they prepare; none of it changes anything."""

    async def search(self, query: SearchQuery) -> list[Hit]:
        """Hybrid search of the agent's own memory, without the running turn's messages."""
        ...

    async def embed(self, text: str) -> tuple[bytes, str] | None:
        """(vector, fingerprint) by an in-process embedder; None when it is remote or failed."""
        ...

    async def messages(self, ids: list[int]) -> list[Message]:
        """The agent's messages with these ids."""
        ...

    async def passages(self, ids: list[int]) -> list[Passage]:
        """The agent's passages with these ids."""
        ...


@dataclass(frozen=True)
class ToolContext:
    """What a call may know about the turn it is part of."""

    cause: Cause
    now: datetime
    memory: MemoryPort
    crowds: Callable[[Tx, Block, str], str | None]
    """Why this text in place of the block's would crowd out a conversation; None when it does not."""
    room_chars: int
    """About how many characters of a result fit the context."""
    refused_writes: int = 0
    """Core memory writes of this turn that were refused for size."""
    evicted: tuple[int, int] = (0, 0)
    """Places (first, last) of the messages paged out a few turns ago: a hit there is a page fault."""


@dataclass(frozen=True)
class Tool:
    """One function the model can call."""

    name: str
    description: str
    function: Callable[..., Any]
    continues: bool = False
    """Whether the turn goes on after a call that does not say so itself."""
    idempotent: bool = False
    """Whether a call that began before a crash may simply run again."""
    transactional: bool = False
    """True for tools that only prepare a change of our own database: they run again until they commit."""
    approval: Approval = "always"
    """Whether its calls run without asking (`always`), each once somebody approved it (`ask`), or `never`."""

    @cached_property
    def arguments(self) -> type[BaseModel]:
        """The pydantic model of the call's arguments."""
        hints = get_type_hints(self.function, include_extras=True)
        about = _argument_docs(self.function)
        fields: dict[str, Any] = {}
        for name, parameter in inspect.signature(self.function).parameters.items():
            if hints.get(name) is ToolContext:
                continue
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[name] = (hints.get(name, str), Field(default, description=about.get(name)))
        after = "true" if self.continues else "false"
        doc = f"Whether you get another step right after this call (default {after})."
        fields[HEARTBEAT] = (bool, Field(self.continues, description=doc))
        return create_model(f"{self.name}_arguments", __config__=ConfigDict(extra="forbid"), **fields)

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The tool in the chat completions format."""
        parameters = _without_titles(self.arguments.model_json_schema())
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": parameters},
        }

    @property
    def signature(self) -> str:
        """How a call looks, for error messages."""
        required = self.arguments.model_json_schema().get("required", [])
        names = [n if n in required else f"{n}=" for n in self.arguments.model_fields if n != HEARTBEAT]
        return f"{self.name}({', '.join(names)})"

    def parse(self, values: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """(arguments for the function, whether another step is wanted); `ToolError` says what is wrong."""
        try:
            parsed = self.arguments.model_validate(values)
        except ValidationError as error:
            faults = "; ".join(_fault(e) for e in error.errors()[:5])
            raise ToolError(f"{faults}. The call is {self.signature}") from None
        given = {name: getattr(parsed, name) for name in self.arguments.model_fields}
        return given, given.pop(HEARTBEAT)

    async def call(self, context: ToolContext, given: dict[str, Any]) -> Any:
        """Run the function; a plain function that is not ours runs in a thread."""
        hints = get_type_hints(self.function)
        given |= {name: context for name, kind in hints.items() if kind is ToolContext}
        if inspect.iscoroutinefunction(self.function):
            return await self.function(**given)
        if self.transactional:
            return self.function(**given)
        result = await asyncio.to_thread(self.function, **given)
        return await result if isinstance(result, Awaitable) else result


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    *, name: str | None = None, continues: bool = True, idempotent: bool = False, approval: Approval = "always"
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    continues: bool = True,
    idempotent: bool = False,
    approval: Approval = "always",
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a tool of a Python function, plain or async.

    The description is the docstring's first paragraph, the arguments' are its `Args:` section, the
    schema comes from the signature. The function returns text or any JSON value; what it raises goes
    back to the model as an error. `continues`: whether the model gets another step to use the result.
    `idempotent`: whether a call that a crash interrupted may run again; otherwise it is answered
    "interrupted, may have happened". `approval`: `ask` has each call wait until somebody approves it,
    `never` hides the tool; an agent may have it otherwise.
    """

    def make(function: Callable[..., Any]) -> Tool:
        description = (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ").strip()
        if not description:
            raise ValueError(f"tool {function.__name__} needs a docstring: it is what the model reads")
        if odd := [n for n in inspect.signature(function).parameters if n.startswith("_")]:
            raise ValueError(f"tool {function.__name__} cannot have an argument {odd[0]}; name it without underscore")
        return Tool(name or function.__name__, description, function, continues, idempotent, approval=approval)

    return make if function is None else make(function)


def _argument_docs(function: Callable[..., Any]) -> dict[str, str]:
    """The lines of the docstring's `Args:` section, by name."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?)+)", inspect.getdoc(function) or "", re.MULTILINE)
    pairs = re.findall(r"^ +(\w+): (.+)$", section.group(1), re.MULTILINE) if section else []
    return dict(pairs)


def _without_titles(schema: Any) -> Any:
    """The schema without pydantic's generated titles and descriptions: fewer tokens, same meaning."""
    if isinstance(schema, dict):
        return {k: _without_titles(v) for k, v in schema.items() if not (k == "title" and isinstance(v, str))}
    return [_without_titles(item) for item in schema] if isinstance(schema, list) else schema


def _fault(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return f"argument {place!r} is missing"
    if error["type"] == "extra_forbidden":
        return f"there is no argument {place!r}"
    return f"argument {place!r}: {error['msg'][0].lower()}{error['msg'][1:]}"
