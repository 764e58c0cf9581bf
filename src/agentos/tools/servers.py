"""MCP servers as words: how one is reached, which of its tools an agent gets, and under which names."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from agentos.errors import UsageError
from agentos.messages import Approval, clean_text
from agentos.settings import references_only
from agentos.tools.described import checked_schema

_LONGEST_NAME = 64
"""What every provider takes as a function's name."""
_MOST_TOOLS = 100
"""Of one server; OpenAI takes 128 in all."""
_MOST_DESCRIPTION = 1000
"""Characters of a tool's description; every request carries it."""
_HIDDEN = "(hidden)"

Line = Annotated[str, StringConstraints(pattern=r"^[^\x00\r\n]*$")]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
VariableName = Annotated[str, StringConstraints(pattern=r"^[^\x00=]+$")]
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]


class McpServer(BaseModel):
    """How an MCP server is reached, a process of its own (`command`) or one elsewhere (`url`), and what it may do.

    `${NAME}` in `url` and in the values of `env` and `headers` is taken from the environment when it is connected.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9]*([_-][a-z0-9]+)*$", max_length=32)
    """Begins the names of its tools: no two underscores in a row, none at an end."""
    command: Text | None = Field(default=None, min_length=1)
    args: tuple[Text, ...] = ()
    env: dict[VariableName, Text] = Field(default_factory=dict)
    """Beside a few harmless ones, such as PATH and HOME; it sees nothing else of our environment."""
    cwd: Text | None = None
    url: Line | None = None
    headers: dict[HeaderName, Line] = Field(default_factory=dict)
    tools: tuple[str, ...] | None = None
    """Only these, by the server's own names; None: all."""
    approval: Approval = "ask"
    """Of its tools that `approve` does not name."""
    approve: dict[str, Approval] = Field(default_factory=dict)
    """By the server's own names of its tools."""
    timeout_seconds: float = Field(default=60.0, gt=0, le=3600)
    """For a call, the start of the server where it is due included."""

    @model_validator(mode="after")
    def _reachable(self) -> "McpServer":
        if (self.command is None) == (self.url is None):
            raise ValueError("an MCP server has a command or a url, one of them")
        if self.command is None and (self.args or self.env or self.cwd):
            raise ValueError("args, env and cwd go with a command")
        if self.url is None:
            if self.headers:
                raise ValueError("headers go with a url")
            return self
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("the url must begin with http:// or https:// and name a host")
        if parts.username or parts.password:
            raise ValueError("the url must not hold a password; put it into a header, as ${NAME}")
        return self

    def approval_of(self, tool: str) -> Approval:
        """Whether calls of a tool, by the server's own name, wait for somebody."""
        return self.approve.get(tool, self.approval)

    def shown(self) -> dict[str, Any]:
        """What may be printed: values that could be secrets are hidden, unless they only name a variable."""
        shown = self.model_dump(mode="json")
        for name in ("env", "headers"):
            shown[name] = {k: v if references_only(v) else _HIDDEN for k, v in shown[name].items()}
        if self.url and "?" in self.url:
            shown["url"] = f"{self.url.partition('?')[0]}?{_HIDDEN}"
        return shown

    @property
    def place(self) -> str:
        """In a few words, where it is."""
        return " ".join([self.command, *self.args]) if self.command else str(self.shown()["url"])


@dataclass(frozen=True)
class StoredServer:
    """An agent's MCP server and the tools it had when it was last asked."""

    agent_id: str
    server: McpServer
    created_at: datetime
    tools: tuple[dict[str, Any], ...] | None = None
    """{"tool" (the server's own name), "name", "description", "parameters"} each; None: it was never reached."""
    problem: str = ""
    """Why it could not be asked the last time."""
    revision: str = ""
    """Another one each time it is saved."""

    @property
    def name(self) -> str:
        """The server's name."""
        return self.server.name

    @property
    def offered(self) -> list[dict[str, Any]]:
        """The tools that may be used."""
        return [tool for tool in self.tools or () if self.server.approval_of(tool["tool"]) != "never"]


def read_server(**values: Any) -> McpServer:
    """The server with these fields; `UsageError` says what is wrong with one."""
    try:
        return McpServer(**values)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        said = first["msg"].removeprefix("Value error, ")
        if place == "name":
            said = "use at most 32 small letters, digits, - and _, such as notes or my-notes"
        raise UsageError(f"{place}: {said}" if place else said) from None


def listed_tools(
    server: McpServer, given: Iterable[tuple[str, str, Any]]
) -> tuple[tuple[dict[str, Any], ...], list[str]]:
    """(the tools for `StoredServer.tools`, sentences on what is wrong with some), in the same order each time.

    `given`: (the server's own name, description, JSON schema of the arguments) of each. `UsageError` when they are
    too many, or one that was chosen is not among them.
    """
    found = {name: (about, schema) for name, about, schema in given if server.tools is None or name in server.tools}
    if missing := sorted(set(server.tools or ()) - set(found)):
        raise UsageError(f"MCP server {server.name!r} has no tool {missing[0]!r}; it can be listed without --tool")
    if len(found) > _MOST_TOOLS:
        raise UsageError(
            f"MCP server {server.name!r} has {len(found)} tools and may have {_MOST_TOOLS}; choose some with --tool"
        )
    tools: dict[str, dict[str, Any]] = {}
    left_out = [
        f"MCP server {server.name!r} has no tool {name!r}, for which an approval is given"
        for name in sorted(set(server.approve) - set(found))
    ]
    for own, (about, schema) in sorted(found.items()):
        name = tool_name(server.name, own)
        name = _hashed(name, own) if name in tools else name
        text = " ".join(clean_text(about).split()) or f"The tool {own} of the MCP server {server.name}."
        text = text if len(text) <= _MOST_DESCRIPTION else text[: _MOST_DESCRIPTION - 1] + "…"
        try:
            tools[name] = {"tool": own, **checked_schema({"name": name, "description": text, "parameters": schema})}
        except UsageError as error:
            left_out.append(str(error))
    return tuple(tools.values()), left_out


def tool_name(server: str, tool: str) -> str:
    """What the model calls a server's tool: `server__tool`, in letters that every provider takes, 64 at most.

    No tool of our own has two underscores in its name, so that none can be taken for one of them.
    """
    name = f"{server}__{re.sub(r'[^A-Za-z0-9_-]', '_', tool)}"
    return name if len(name) <= _LONGEST_NAME else _hashed(name, tool)


def _hashed(name: str, tool: str) -> str:
    return f"{name[: _LONGEST_NAME - 9]}_{hashlib.sha256(tool.encode('utf-8', 'replace')).hexdigest()[:8]}"
