"""Blocks of core memory: of an agent, or of nobody."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import Field

from agentos import curate
from agentos.errors import NotFound
from agentos.messages import Block, Cause
from agentos.server.letta import agents
from agentos.server.letta.agent_state import AgentQuery, agent_answer, agent_values
from agentos.server.letta.fields import Json, Label, Limit, Object, Request, Tags, Text
from agentos.server.letta.paging import Page, Paged
from agentos.server.letta.render import block_value, read_block_id
from agentos.server.replies import answer
from agentos.server.service import Service, Serving, existing_agent

router = APIRouter(tags=["blocks"])
_Count = Annotated[int, Field(ge=0, le=2**31)]


class NewBlock(agents.NewBlock):
    """A block, whose value must be said."""

    value: Text


class BlockChange(Request):
    """What of a block changes; null empties a description, tags and metadata."""

    value: Text | None = None
    label: Label | None = None
    limit: Limit | None = None
    description: Text | None = None
    read_only: bool | None = None
    tags: Tags | None = None
    metadata: Object | None = None

    @property
    def values(self) -> Json:
        """The same as fields of `Block`."""
        empty: Json = {"description": "", "tags": [], "metadata": {}}
        said = self.given(*BlockChange.model_fields, reset=empty)
        if "metadata" in said:
            said["meta"] = said.pop("metadata")
        if "tags" in said:
            said["tags"] = tuple(said["tags"])
        return said


class BlockQuery(Page):
    """Which blocks."""

    label: str | None = None
    name: str | None = None
    tags: list[str] = Field([], max_length=100)
    match_all_tags: bool = False
    label_search: str | None = None
    value_search: str | None = None
    description_search: str | None = None
    connected_to_agents_count_gt: _Count | None = None
    connected_to_agents_count_lt: _Count | None = None
    connected_to_agents_count_eq: list[_Count] = Field([], max_length=100)
    templates_only: bool = False


@router.post("/blocks")
async def create_block(body: NewBlock, serving: Serving) -> Response:
    """A block that no agent has yet."""
    block = body.block
    return answer(block_value(await serving.store.write(lambda tx: tx.add_block(block, Cause("", "user")))))


@router.get("/blocks")
async def list_blocks(query: Annotated[BlockQuery, Query()], serving: Serving) -> Response:
    """Blocks, the oldest first."""
    if query.templates_only or query.name is not None:  # there are no templates
        return answer([])
    part = query.part(50, ascending=True, key=read_block_id)
    found: list[Block] = await serving.store.read(
        lambda tx: tx.block_page(
            label=query.label, tags=query.tags, every_tag=query.match_all_tags, label_text=query.label_search,
            value_text=query.value_search, description_text=query.description_search,
            holders_over=query.connected_to_agents_count_gt, holders_under=query.connected_to_agents_count_lt,
            holders=query.connected_to_agents_count_eq, **part,
        )
    )  # fmt: skip
    return answer([block_value(block) for block in found])


@router.get("/blocks/{block_id}")
async def get_block(block_id: str, serving: Serving) -> Response:
    """One block."""
    return answer(block_value(await _block(serving, block_id)))


@router.patch("/blocks/{block_id}")
async def change_block(block_id: str, body: BlockChange, serving: Serving) -> Response:
    """Change a block; the agents that have it are told."""
    return answer(block_value(await _change(serving, read_block_id(block_id), body)))


@router.delete("/blocks/{block_id}")
async def delete_block(block_id: str, serving: Serving) -> Response:
    """Remove a block for good, from every agent that has it."""
    await curate.delete_block(serving.store, read_block_id(block_id))
    return answer(None)


@router.get("/blocks/{block_id}/agents")
async def list_block_agents(block_id: str, query: Annotated[AgentQuery, Query()], serving: Serving) -> Response:
    """The agents that have a block in context."""
    block = await _block(serving, block_id)
    return answer(await agent_values(serving, query, block_id=block.id))


@router.get("/agents/{agent_id}/core-memory/blocks")
async def list_agent_blocks(agent_id: str, page: Paged, serving: Serving) -> Response:
    """An agent's blocks, the first one last unless `order` is `asc`."""
    values = [block_value(block) for block in await _blocks_of(serving, agent_id)]
    return answer(page.cut(values, 100, ascending=False))


@router.get("/agents/{agent_id}/core-memory/blocks/{label:path}")
async def get_agent_block(agent_id: str, label: str, serving: Serving) -> Response:
    """One block of an agent."""
    return answer(block_value(_labelled(await _blocks_of(serving, agent_id), label)))


@router.patch("/agents/{agent_id}/core-memory/blocks/attach/{block_id}")
async def attach_block(agent_id: str, block_id: str, serving: Serving) -> Response:
    """Give an agent a block: all who have it read and edit the one text."""
    number = read_block_id(block_id)
    agent = await serving.runtime.agent_of(agent_id)
    await curate.attach_block(serving.store, number, await agent.turn())
    return await agent_answer(serving, agent_id)


@router.patch("/agents/{agent_id}/core-memory/blocks/detach/{block_id}")
async def detach_block(agent_id: str, block_id: str, serving: Serving) -> Response:
    """Take a block out of an agent's context; the block stays, with others or by itself."""
    number = read_block_id(block_id)
    block = next((b for b in await _blocks_of(serving, agent_id) if b.id == number), None)
    if block is None:
        raise NotFound(f"agent {agent_id!r} has no block {block_id!r}")
    await curate.detach_block(serving.store, agent_id, block.label, keep=True)
    return await agent_answer(serving, agent_id)


@router.patch("/agents/{agent_id}/core-memory/blocks/{label:path}")
async def change_agent_block(agent_id: str, label: str, body: BlockChange, serving: Serving) -> Response:
    """Change a block of an agent, as a person: the agent is told."""
    block = _labelled(await _blocks_of(serving, agent_id), label)
    return answer(block_value(await _change(serving, block.id, body)))


async def _block(service: Service, given: str) -> Block:
    number = read_block_id(given)
    block: Block | None = await service.store.read(lambda tx: tx.block(number))
    if block is None:
        raise NotFound(f"there is no block {given!r}; GET /v1/blocks/ lists them")
    return block


async def _blocks_of(service: Service, agent_id: str) -> list[Block]:
    def work(tx: Any) -> list[Block]:
        existing_agent(tx, agent_id)
        found: list[Block] = tx.blocks(agent_id)
        return found

    return await service.store.read(work)


def _labelled(blocks: list[Block], label: str) -> Block:
    block = next((b for b in blocks if b.label == label), None)
    if block is None:
        raise NotFound(f"the agent has no block {label!r}; it has: {', '.join(b.label for b in blocks) or 'none'}")
    return block


async def _change(service: Service, block_id: int, body: BlockChange) -> Block:
    holders: dict[str, str] = await service.store.read(lambda tx: tx.holders(block_id))
    first = next(iter(holders), None)
    turn = None if first is None else await (await service.runtime.agent_of(first)).turn()
    return await curate.change_block(service.store, block_id, turn, **body.values)
