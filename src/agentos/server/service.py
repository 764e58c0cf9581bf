"""What every request can reach."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request

from agentos.dispatch import Dispatcher
from agentos.errors import NotFound
from agentos.protocols import Store
from agentos.runtime import Runtime
from agentos.state import AgentRecord


@dataclass
class Service:
    """The open home with its running turns, and how requests may reach it."""

    runtime: Runtime
    dispatcher: Dispatcher
    token: str = field(repr=False)
    hosts: frozenset[str] = frozenset({"localhost", "127.0.0.1", "::1"})
    """Names by which the server may be called."""
    max_body_bytes: int = 10 * 1024 * 1024
    body_seconds: float = 30.0
    """How long a request's body may take to arrive."""
    keep_alive_seconds: float = 20.0
    """After how long without a word a client that waits is sent something; they give up after 60 s."""
    ready: bool = True

    @property
    def store(self) -> Store:
        """The session database."""
        return self.runtime.store

    async def agent_record(self, agent_id: str) -> AgentRecord:
        """The agent with this id; `NotFound` when there is none."""
        return await self.store.read(lambda tx: existing_agent(tx, agent_id))


def existing_agent(tx: Any, agent_id: str) -> AgentRecord:
    """The agent's row; `NotFound` when there is none."""
    record: AgentRecord | None = tx.agent(agent_id)
    if record is None:
        raise NotFound(f"there is no agent {agent_id!r}; GET /v1/agents/ lists them")
    return record


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Serving = Annotated[Service, Depends(_service)]
