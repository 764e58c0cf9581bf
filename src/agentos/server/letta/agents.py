"""Agents: made, listed, read, changed, deleted."""

import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import PlainTextResponse
from pydantic import ConfigDict, Field

from agentos import curate
from agentos.context.compiler import compile_context
from agentos.messages import Block
from agentos.server.letta.agent_state import AgentQuery, agent_answer, agent_values
from agentos.server.letta.fields import MOST_LISTED, Json, Label, Limit, Object, Request, Tags, Text
from agentos.server.letta.render import read_block_id
from agentos.server.letta.toolbox import chosen_tools
from agentos.server.replies import Unsupported, answer
from agentos.server.service import Serving, existing_agent

router = APIRouter(prefix="/agents", tags=["agents"])
_UNSUPPORTED = {
    "initial_message_sequence": "import past conversations instead",
    "message_ids": "the message queue changes by turns, by summarize and by reset-messages alone",
    "secrets": "no tool is run for clients",
    "tool_exec_environment_variables": "no tool is run for clients",
    "folder_ids": "put texts into archival memory",
    "source_ids": "put texts into archival memory",
    "from_template": "name blocks, tools and system text",
    "memory_variables": "write the blocks' values as they shall be",
}
"""Fields that would promise what nobody keeps, and what to do instead. Other fields that are not known are ignored."""
_System = Annotated[Text, Field(max_length=1_000_000)]
_Names = Annotated[list[Text], Field(max_length=MOST_LISTED)]
_Tokens = Annotated[int, Field(ge=1, le=2**31)]


class NewBlock(Request):
    """A block of core memory that is made with its agent."""

    label: Label
    value: Text = ""
    limit: Limit = 100_000
    description: Text | None = None
    read_only: bool = False
    tags: Tags | None = None
    metadata: Object | None = None

    @property
    def block(self) -> Block:
        """The same as the kernel has it; `UsageError` where it is too long."""
        block = Block(
            self.label, self.value, self.limit, self.description or "", self.read_only, tags=tuple(self.tags or ()),
            meta=self.metadata or {},
        )  # fmt: skip
        return curate.fitting(block)


class ModelConfig(Request):
    """The old way to name a model."""

    model: str | None = None
    handle: str | None = None
    model_endpoint_type: str | None = None
    context_window: _Tokens | None = None

    @property
    def name(self) -> str | None:
        """provider/model."""
        if self.handle or not self.model or not self.model_endpoint_type or "/" in self.model:
            return self.handle or self.model
        return f"{self.model_endpoint_type}/{self.model}"


class ToolRule(Request):
    """A rule for a tool; only that its calls wait for approval is kept, other rules are passed over."""

    type: Text | None = None
    tool_name: Text = ""


class AgentFields(Request):
    """What an agent is made with and can be changed to."""

    model_config = ConfigDict(extra="allow")
    name: Text | None = None
    model: Annotated[Text, Field(max_length=200)] | None = None
    llm_config: ModelConfig | None = None
    context_window_limit: _Tokens | None = None
    system: _System | None = None
    description: Annotated[Text, Field(max_length=100_000)] | None = None
    tags: Tags | None = None
    metadata: Object | None = None
    response_format: Object | None = None
    block_ids: _Names | None = None
    tools: _Names | None = None
    tool_ids: _Names | None = None
    tool_rules: Annotated[list[ToolRule], Field(max_length=MOST_LISTED)] | None = None

    def values(self) -> Json:
        """What was said, as fields of `AgentRecord`, apart from blocks and tools; null stands for the default.

        `Unsupported` names what this server has not.
        """
        for name, remedy in _UNSUPPORTED.items():
            if (self.model_extra or {}).get(name):
                raise Unsupported(f"{name} is not supported; {remedy}")
        if (self.response_format or {}).get("type", "text") != "text":
            raise Unsupported("response_format is not supported; ask for the format in the system text")
        default: Json = {"model": None, "system": None, "description": "", "tags": [], "metadata": {}}
        said = self.given("name", *default, reset=default)
        if self.llm_config is not None and self.llm_config.name and not self.model:
            said["model"] = self.llm_config.name
        said["model"] = said.get("model") or None
        if "model" not in self.model_fields_set and said["model"] is None:
            del said["model"]
        if "tags" in said:
            said["tags"] = tuple(said["tags"])
        if "metadata" in said:
            said["meta"] = said.pop("metadata")
        return said

    @property
    def window(self) -> int | None:
        """Tokens of the model's window that it shall use at most."""
        return self.context_window_limit or (self.llm_config and self.llm_config.context_window) or None

    def approvals(self, before: Mapping[str, str]) -> Json:
        """Tool name -> approval, with exactly the tools asking that the rules name; without rules as `before`."""
        if self.tool_rules is None:
            return dict(before)
        asking = {rule.tool_name: "ask" for rule in self.tool_rules if rule.type == "requires_approval"}
        return {name: approval for name, approval in before.items() if approval != "ask"} | asking

    @property
    def blocks_meant(self) -> list[int]:
        """The numbers of the blocks that are named."""
        return list(dict.fromkeys(map(read_block_id, self.block_ids or ())))


class AgentCreate(AgentFields):
    """A new agent; whatever is left out has a default."""

    memory_blocks: Annotated[list[NewBlock], Field(max_length=MOST_LISTED)] | None = None
    include_base_tools: bool = True


@router.post("")
async def create_agent(body: AgentCreate, serving: Serving) -> Response:
    """A new agent; refused where tools, system text and core memory would take more than half of its window."""
    runtime, values, shared = serving.runtime, body.values(), body.blocks_meant
    blocks = None if body.memory_blocks is None and not shared else [b.block for b in body.memory_blocks or ()]
    name = values.pop("name", None) or f"agent-{uuid.uuid4().hex[:8]}"
    if body.window is not None or body.tool_rules:
        window = {} if body.window is None else {"context_window": body.window}
        values["settings"] = {**window, "approvals": body.approvals({})}
    chosen: list[str] = await serving.store.read(
        lambda tx: chosen_tools(tx, runtime, body.tools or (), body.tool_ids or ())
    )
    if not body.include_base_tools:
        values["tools"] = tuple(chosen)
    elif more := [n for n in chosen if n not in runtime.tools.tools]:
        values["tools"] = (*runtime.tools.tools, *more)
    record = await runtime.create_agent(name, blocks=blocks, shared=shared, measured=True, **values)
    return await agent_answer(serving, record.id)


@router.get("")
async def list_agents(query: Annotated[AgentQuery, Query()], serving: Serving) -> Response:
    """Agents, the newest first."""
    return answer(await agent_values(serving, query))


@router.get("/{agent_id}")
async def get_agent(agent_id: str, serving: Serving) -> Response:
    """One agent."""
    return await agent_answer(serving, agent_id)


@router.patch("/{agent_id}")
async def change_agent(agent_id: str, body: AgentFields, serving: Serving) -> Response:
    """Change an agent, from its next turn on; null resets model, system text, description, tags and metadata."""
    values = body.values()

    def work(tx: Any) -> tuple[Json, list[str]]:
        chosen = chosen_tools(tx, serving.runtime, body.tools or (), body.tool_ids or ())
        return dict(existing_agent(tx, agent_id).settings), chosen

    async with serving.edits:
        settings, chosen = await serving.store.read(work)
        if body.tools is not None or body.tool_ids is not None:
            values["tools"] = tuple(chosen)
        if body.window is not None:
            settings["context_window"] = body.window
        elif "context_window_limit" in body.model_fields_set:
            settings.pop("context_window", None)
        values["settings"] = {**settings, "approvals": body.approvals(settings.get("approvals", {}))}
        blocks = None if body.block_ids is None else body.blocks_meant
        await serving.runtime.update_agent(agent_id, blocks=blocks, **values)
    return await agent_answer(serving, agent_id)


@router.delete("/{agent_id}")
async def delete_agent(agent_id: str, serving: Serving) -> Response:
    """Remove an agent with all it knows, also in mid-turn; blocks that others have stay with them."""
    await serving.dispatcher.cancel(agent_id)
    await serving.runtime.delete_agent(agent_id)
    return answer(None)


@router.post("/{agent_id}/recompile")
async def recompile(agent_id: str, serving: Serving) -> Response:
    """The system message as it would be made anew now. It is made anew by itself where that is due."""
    turn = await (await serving.runtime.agent_of(agent_id)).turn()
    state = replace(turn.state, snapshot_blocks=turn.state.blocks, queue=[], entries=[])
    return PlainTextResponse(compile_context(state, turn.parts.system, "")[0]["content"])
