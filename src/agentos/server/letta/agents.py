"""Agents: made, listed, read, changed, deleted."""

import uuid
from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from agentos.messages import Block
from agentos.server.letta import render
from agentos.server.replies import answer, stamp
from agentos.server.service import Service, Serving, existing_agent
from agentos.state import AgentRecord

router = APIRouter(prefix="/agents", tags=["agents"])
Json = dict[str, Any]


class NewBlock(BaseModel):
    """A block of core memory that is made with its agent."""

    model_config = ConfigDict(extra="ignore")
    label: str = Field(min_length=1, max_length=100)
    value: str = ""
    limit: int = Field(5000, ge=1, le=1_000_000)
    description: str | None = None
    read_only: bool = False


class AgentCreate(BaseModel):
    """A new agent; whatever is left out has a default."""

    model_config = ConfigDict(extra="ignore")
    name: str | None = None
    model: str | None = None
    system: str | None = None
    description: str | None = None
    memory_blocks: list[NewBlock] | None = None
    tags: list[str] | None = None
    metadata: Json | None = None


@router.post("")
async def create_agent(body: AgentCreate, serving: Serving) -> Response:
    """A new agent."""
    blocks = None
    if body.memory_blocks is not None:
        blocks = [Block(b.label, b.value, b.limit, b.description or "", b.read_only) for b in body.memory_blocks]
    record = await serving.runtime.create_agent(
        body.name or f"agent-{uuid.uuid4().hex[:8]}", model=body.model, blocks=blocks, system=body.system,
        description=body.description or "", tags=tuple(body.tags or ()), meta=body.metadata or {},
    )  # fmt: skip
    return answer(await agent_state(serving, record.id))


@router.get("/{agent_id}")
async def get_agent(agent_id: str, serving: Serving) -> Response:
    """One agent."""
    return answer(await agent_state(serving, agent_id))


async def agent_state(service: Service, agent_id: str) -> Json:
    """An agent with its blocks."""

    def work(tx: Any) -> tuple[AgentRecord, list[Block]]:
        return existing_agent(tx, agent_id), tx.blocks(agent_id)

    record, blocks = await service.store.read(work)
    llm = service.runtime.llm(record.model)
    values = [render.block_value(b) for b in blocks]
    return {
        "id": record.id, "name": record.name, "agent_type": "memgpt_v2_agent", "system": record.system or "",
        "model": llm.name, "description": record.description, "tags": list(record.tags), "metadata": record.meta,
        "blocks": values, "memory": {"blocks": values}, "tools": [], "sources": [],
        "llm_config": {"model": llm.name, "model_endpoint_type": llm.provider, "context_window": llm.context_window},
        "embedding": service.runtime.embedder.name, "created_at": stamp(record.created_at),
        "last_run_completion": stamp(record.last_step_at), "message_ids": [],
    }  # fmt: skip
