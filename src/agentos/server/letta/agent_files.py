"""Agent files: an agent as one JSON object, taken out of one home and into another."""

import json
import uuid
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Form, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from pydantic import Field, ValidationError

from agentos import curate
from agentos.errors import UsageError
from agentos.messages import Cause, Message, Passage
from agentos.prompts import prompt
from agentos.server.letta.agents import ModelConfig, NewBlock
from agentos.server.letta.fields import Json, Moment, Object, Request, Tags, Text
from agentos.server.letta.render import block_value
from agentos.server.letta.toolbox import LETTA_TOOLS, tool_values
from agentos.server.letta.tools import ToolRequest, save_tool
from agentos.server.replies import Unsupported, answer, stamp
from agentos.server.service import Service, Serving, existing_agent

router = APIRouter(prefix="/agents", tags=["agents"])
_ALL = 2**31


@router.get("/{agent_id}/export")
async def export_agent(agent_id: str, serving: Serving, scrub_messages: bool = False) -> Response:
    """An agent with its blocks, tools, messages and passages as an agent file."""

    def work(tx: Any) -> Json:
        record = existing_agent(tx, agent_id)
        blocks = [block_value(b) | {"id": f"block-{n}"} for n, b in enumerate(tx.blocks(agent_id))]
        # an MCP server stays behind: elsewhere neither its command nor its secrets would be there
        own = [v for v in tool_values(tx, serving.runtime, record) if v["tool_type"] != "external_mcp"]
        tools = [v | {"id": f"tool-{n}"} for n, v in enumerate(own)]
        messages = [] if scrub_messages else tx.history(agent_id, True, None, None, _ALL)
        agent = {
            "id": "agent-0", "name": record.name, "agent_type": "memgpt_v2_agent", "system": record.system,
            "model": record.model, "description": record.description, "tags": list(record.tags),
            "metadata": record.meta, "block_ids": [b["id"] for b in blocks], "tool_ids": [t["id"] for t in tools],
            "context_window_limit": record.window_tokens, "messages": [_message(m) for m in messages],
            **_passages(tx, agent_id),
        }  # fmt: skip
        return {
            "agents": [agent], "blocks": blocks, "tools": tools, "groups": [], "files": [], "sources": [],
            "mcp_servers": [], "metadata": {}, "created_at": stamp(serving.runtime.clock.now()),
        }  # fmt: skip

    return answer(await serving.store.read(work))


def _passages(tx: Any, agent_id: str) -> Json:
    """What is valid, and beside it, lest a reader that knows nothing of them take them for valid, what was superseded.

    Each superseded one comes behind what took its place.
    """
    every = tx.passage_page(agent_id, True, None, None, _ALL, include_superseded=True)
    taken: dict[int, list[Passage]] = {}
    for p in every:
        taken.setdefault(p.superseded_by or 0, []).append(p)
    listed = [*taken.get(0, ())]
    for p in listed:  # what a deleted one superseded is left out
        listed += taken.get(p.id, ())
    place = {p.id: n for n, p in enumerate(listed)}
    ended = [p for p in listed if p.superseded_by is not None]
    return {
        "passages": [_passage(p) for p in listed[: len(listed) - len(ended)]],
        "superseded_passages": [
            {**_passage(p), "valid_to": stamp(p.valid_to), "superseded_by": place[p.superseded_by]} for p in ended
        ],
    }


def _passage(passage: Passage) -> Json:
    return {"text": passage.text, "tags": list(passage.tags), "created_at": stamp(passage.created_at)}


def _message(message: Message) -> Json:
    calls = [{"id": c.id, "function": {"name": c.name, "arguments": c.arguments}} for c in message.calls]
    role = "system" if message.role == "user" and message.kind != "message" else message.role
    return {
        "id": message.external_id or message.ref, "role": role, "content": [{"type": "text", "text": message.content}],
        "name": message.name, "tool_calls": calls or None, "tool_call_id": message.call_id,
        "created_at": stamp(message.created_at),
    }  # fmt: skip


class _Block(NewBlock):
    id: str = ""


class _Tool(ToolRequest):
    id: str = ""
    name: str = ""
    tool_type: str = "custom"


class _Message(Request):
    id: str | None = None
    role: str = ""
    content: str | list[Json] | None = None
    name: str | None = None
    created_at: str | None = None

    @property
    def text(self) -> str:
        """The text of its parts."""
        if isinstance(self.content, list):
            return "\n".join(str(part.get("text") or "") for part in self.content)
        return self.content or ""


class _Passage(Request):
    text: Annotated[Text, Field(min_length=1)]
    tags: Tags | None = None
    created_at: Moment | None = None


class _Superseded(_Passage):
    valid_to: Moment
    superseded_by: int = Field(ge=0)
    """The place of what took its place, in `passages` and then these."""


class _Agent(Request):
    name: Text | None = None
    system: Annotated[Text, Field(max_length=1_000_000)] | None = None
    model: Text | None = None
    llm_config: ModelConfig | None = None
    context_window_limit: int | None = Field(None, ge=1, le=2**31)
    description: Text | None = None
    tags: Tags | None = None
    metadata: Object | None = None
    block_ids: list[str] | None = None
    core_memory: list[_Block] | None = None
    tool_ids: list[str] | None = None
    messages: list[_Message] | None = None
    passages: list[_Passage] | None = None
    superseded_passages: list[_Superseded] | None = None


class AgentFile(Request):
    """What of an agent file is read; of its messages what user and agent said, as past conversation."""

    agents: list[_Agent] = Field(min_length=1, max_length=100)
    blocks: list[_Block] = Field([])
    tools: list[_Tool] = Field([])


class ImportForm(Request):
    """The form that comes with an agent file."""

    file: UploadFile
    name: Text | None = None
    override_name: Text | None = None
    model: Text | None = None
    override_model_handle: Text | None = None
    append_copy_suffix: bool = True
    override_existing_tools: bool = True
    strip_messages: bool = False
    secrets: str | None = None
    env_vars_json: str | None = None


@router.post("/import")
async def import_agents(
    form: Annotated[ImportForm, Form(media_type="multipart/form-data")], serving: Serving
) -> Response:
    """Make the agents of an agent file; all of them or none."""
    if form.secrets or form.env_vars_json:
        raise Unsupported("secrets are not supported; no tool is run for clients")
    try:
        file = AgentFile.model_validate_json(await form.file.read())
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None
    known = serving.runtime.tools.tools
    for tool in file.tools:
        if tool.tool_type == "custom" and tool.name not in known and tool.name not in LETTA_TOOLS:
            await save_tool(serving, tool, replace_existing=form.override_existing_tools)
    made: list[str] = []
    try:
        for agent in file.agents:
            made.append(await _make(serving, file, agent, form))
            await _remember(serving, made[-1], agent, form)
    except BaseException:
        for agent_id in made:
            await serving.runtime.delete_agent(agent_id)
        raise
    return answer({"agent_ids": made})


async def _make(service: Service, file: AgentFile, agent: _Agent, form: ImportForm) -> str:
    """The agent with its blocks and tools; returns its id."""
    blocks = {block.id: block for block in file.blocks}
    own = [blocks[i] for i in agent.block_ids or () if i in blocks] or agent.core_memory or []
    names = {tool.id: tool.name for tool in file.tools}
    wanted = [names[i] for i in agent.tool_ids or () if i in names]
    built_in = service.runtime.tools.tools
    # a file of another system knows nothing of our own tools: its agent gets them all
    ours = not any(name in LETTA_TOOLS for name in wanted) and any(name in built_in for name in wanted)
    described = [name for name in wanted if name not in LETTA_TOOLS and name not in built_in]
    tools = [name for name in built_in if not ours or name in wanted] + described
    name = form.override_name or form.name or agent.name or f"agent-{uuid.uuid4().hex[:8]}"
    if form.append_copy_suffix and not (form.override_name or form.name):
        name = f"{name}_copy"
    config = agent.llm_config or ModelConfig()
    window = agent.context_window_limit or config.context_window
    record = await service.runtime.create_agent(
        name, model=form.override_model_handle or form.model or agent.model or config.name,
        system=None if agent.system == prompt("system") else agent.system, description=agent.description or "",
        tags=tuple(agent.tags or ()), meta=agent.metadata or {}, blocks=[b.block for b in own],
        tools=None if tools == [*built_in] else tuple(tools),
        settings={} if window is None else {"context_window": window}, measured=True,
    )  # fmt: skip
    return record.id


async def _remember(service: Service, agent_id: str, agent: _Agent, form: ImportForm) -> None:
    """Its past conversation and its passages."""
    now = service.runtime.clock.now()
    said = [m for m in agent.messages or () if m.role in ("user", "assistant") and m.text.strip()]
    if said and not form.strip_messages:
        lines = [
            json.dumps({"role": m.role, "content": m.text, "name": m.name, "created_at": m.created_at, "id": m.id})
            for m in said
        ]
        await curate.import_conversation(service.store, service.runtime.clock, agent_id, lines)

    def work(tx: Any) -> None:
        ids: list[int] = []
        for p in [*(agent.passages or ()), *(agent.superseded_passages or ())]:
            passage = Passage(0, agent_id, p.text, "import", p.created_at or now, tuple(p.tags or ()))
            if isinstance(p, _Superseded):
                if p.superseded_by >= len(ids):
                    raise UsageError(f"superseded_by is {p.superseded_by}, which names no passage before it")
                passage = replace(passage, valid_to=p.valid_to, superseded_by=ids[p.superseded_by])
            ids.append(tx.add_passage(passage, Cause(agent_id, "import"))[0].id)

    await service.store.write(work)
