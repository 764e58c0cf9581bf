"""What every request can reach."""

import asyncio
import ipaddress
import re
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request

from agentos.dispatch import Dispatcher
from agentos.errors import NotFound, UsageError
from agentos.protocols import Store
from agentos.runtime import Runtime
from agentos.server.inspector.sessions import Sessions
from agentos.server.mcp_endpoint import McpEndpoint
from agentos.server.metrics import Metrics
from agentos.state import AgentRecord

HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s\[\]:/?#@\\]+)(:\d{1,5})?", re.ASCII | re.IGNORECASE)
"""A Host header: name or IPv6 address, and a port."""


@dataclass
class Service:
    """The open home with its running turns, and how requests may reach it."""

    runtime: Runtime
    dispatcher: Dispatcher
    token: str = field(repr=False)
    hosts: frozenset[str] = frozenset({"localhost", "127.0.0.1", "::1"})
    """Names by which the server may be called: lower case, no port."""
    max_body_bytes: int = 1024 * 1024
    max_file_bytes: int = 10 * 1024 * 1024
    """The same where a whole file comes in."""
    head_seconds: float = 30.0
    """How long a request's line and headers may take to arrive."""
    body_seconds: float = 30.0
    """How long a request's body may take to arrive."""
    keep_alive_seconds: float = 20.0
    """After how long without a word a client that waits is sent something; they give up after 60 s."""
    ready: bool = True
    edits: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)
    """Held while an agent's row is read and changed by what was read."""
    wrong_token_seconds: float = 1.0
    """How long the sign-in page takes to refuse a token."""
    metrics: Metrics = field(init=False, repr=False)
    sessions: Sessions = field(init=False, repr=False)
    mcp: McpEndpoint = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.runtime, self.dispatcher)
        self.sessions = Sessions(self.token, self.store, lambda: self.runtime.clock.now().timestamp())
        self.mcp = McpEndpoint(self.runtime, self.dispatcher)

    def allow(self, *names: str) -> None:
        """Accept further names in the Host header; `UsageError` for what is none."""
        found = {name: host_name(f"[{name}]" if name.count(":") > 1 and name[0] != "[" else name) for name in names}
        if odd := [name for name in names if not found[name]]:
            raise UsageError(f"{odd[0]!r} is no name of a host; give one such as agents.example")
        self.hosts |= set(found.values())

    @property
    def store(self) -> Store:
        """The session database."""
        return self.runtime.store

    async def agent_record(self, agent_id: str) -> AgentRecord:
        """The agent with this id; `NotFound` when there is none."""
        return await self.store.read(lambda tx: existing_agent(tx, agent_id))


def host_name(host: str) -> str:
    """The name in a Host header: lower case, without port, trailing dot or brackets; empty for what is none."""
    match = HOST.fullmatch(host)
    if match is None:
        return ""
    name = match[1].lower().removesuffix(".")
    if not name.startswith("["):
        return name
    try:
        return str(ipaddress.IPv6Address(name[1:-1]))
    except ValueError:
        return ""


def existing_agent(tx: Any, agent_id: str) -> AgentRecord:
    """The agent's row; `NotFound` when there is none."""
    record: AgentRecord | None = tx.agent(agent_id)
    if record is None:
        raise NotFound(f"there is no agent {agent_id!r}; GET /v1/agents/ lists them")
    return record


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Serving = Annotated[Service, Depends(_service)]
