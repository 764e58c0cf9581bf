"""Tools: those that are built in, and those that clients describe. No source that a client sends is ever run."""

import uuid
from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import Field

from agentos.errors import Conflict, NotFound, UsageError
from agentos.messages import Approval
from agentos.server.letta.agent_state import agent_answer
from agentos.server.letta.fields import Json, Object, Request, Tags, Text
from agentos.server.letta.paging import Page, Paged
from agentos.server.letta.toolbox import built_in, built_in_value, chosen_tools, stored_value, tool_values
from agentos.server.replies import Unsupported, answer
from agentos.server.service import Service, Serving, existing_agent
from agentos.state import AgentRecord, StoredTool
from agentos.tools.described import checked_schema, schema_of

router = APIRouter(tags=["tools"])


class ToolRequest(Request):
    """What a tool is; its name comes from `json_schema`, else from the last function of `source_code`."""

    source_code: Annotated[Text, Field(max_length=500_000)] | None = None
    source_type: Annotated[Text, Field(max_length=50)] | None = None
    json_schema: Object | None = None
    args_json_schema: Object | None = None
    description: Annotated[Text, Field(max_length=20_000)] | None = None
    tags: Tags | None = None
    return_char_limit: int | None = Field(None, ge=1, le=1_000_000)
    default_requires_approval: bool | None = None

    @property
    def approval(self) -> Approval:
        """The same as the kernel has it."""
        return "ask" if self.default_requires_approval else "always"

    def schema_of(self, before: StoredTool | None = None) -> Json:
        """The function that is described, checked; where nothing is said of it, that of the tool `before`."""
        given = self.json_schema
        if given is None and self.source_code and (self.source_type or "python") == "python":
            given = schema_of(self.source_code)
        if given is None and before is not None:
            given = before.json_schema
        if given is None:
            raise UsageError("a tool needs a json_schema, or source_code in Python that one can be made from")
        changes = {"parameters": self.args_json_schema, "description": self.description}
        return checked_schema({**given, **{name: v for name, v in changes.items() if v is not None}})


class NewTool(ToolRequest):
    """A new tool."""

    source_code: Annotated[Text, Field(max_length=500_000)]


class ToolChange(ToolRequest):
    """What of a tool changes."""

    metadata_: Object | None = None


class ToolQuery(Page):
    """Which tools."""

    name: str | None = None
    names: list[str] = Field([], max_length=1000)
    tool_ids: list[str] = Field([], max_length=1000)
    tool_types: list[str] = Field([], max_length=100)
    exclude_tool_types: list[str] = Field([], max_length=100)
    search: str | None = None
    return_only_letta_tools: bool = False

    def wants(self, value: Json) -> bool:
        """Whether a tool is among those asked for."""
        kind, name = value["tool_type"], value["name"]
        return (
            self.name in (None, name)
            and (not self.names or name in _split(self.names))
            and (not self.tool_ids or value["id"] in _split(self.tool_ids))
            and (not self.tool_types or kind in _split(self.tool_types))
            and kind not in _split(self.exclude_tool_types)
            and (self.search or "").lower() in name.lower()
            and (not self.return_only_letta_tools or kind.startswith("letta_"))
        )


def _split(given: Iterable[str]) -> set[str]:
    """Words that were given one by one or with commas between them."""
    return {word.strip() for text in given for word in text.split(",")}


@router.post("/tools")
async def create_tool(body: NewTool, serving: Serving) -> Response:
    """Describe a tool."""
    tool = _new(serving, body)
    await serving.store.write(lambda tx: tx.add_tool(tool))
    return answer(stored_value(tool))


@router.put("/tools")
async def upsert_tool(body: NewTool, serving: Serving) -> Response:
    """Describe a tool, in place of the one with this name."""
    return answer(stored_value(await save_tool(serving, body)))


async def save_tool(service: Service, body: ToolRequest, *, replace_existing: bool = True) -> StoredTool:
    """Save a described tool; one that has the name keeps its id, and where it is not to be replaced, everything."""
    new = _new(service, body)
    known: list[StoredTool] = await service.store.read(lambda tx: tx.tools_named([new.name]))
    if not known:
        await service.store.write(lambda tx: tx.add_tool(new))
        return new
    if not replace_existing:
        return known[0]
    tool = replace(new, id=known[0].id, created_at=known[0].created_at)
    await service.runtime.replace_tool(tool)
    return tool


@router.get("/tools")
async def list_tools(query: Annotated[ToolQuery, Query()], serving: Serving) -> Response:
    """Every tool, the newest first and those that are built in last."""
    stored: list[StoredTool] = await serving.store.read(lambda tx: tx.tools())
    values = [*map(built_in_value, serving.runtime.tools.tools.values()), *map(stored_value, stored)]
    return answer(query.cut([value for value in values if query.wants(value)], 50, ascending=False))


class ToolSearch(Request):
    """What to look for among the tools."""

    query: str | None = None
    tags: list[str] | None = None
    tool_types: list[str] | None = None
    limit: int = Field(50, ge=1, le=100)


@router.post("/tools/search")
async def search_tools(body: ToolSearch, serving: Serving) -> Response:
    """The tools that have most of the query's words in name or description."""
    words = {word.lower() for word in (body.query or "").split()}
    stored: list[StoredTool] = await serving.store.read(lambda tx: tx.tools())
    found: list[tuple[float, Json]] = []
    for value in (*map(built_in_value, serving.runtime.tools.tools.values()), *map(stored_value, stored)):
        text = f"{value['name']} {value['description']}".lower()
        score = sum(word in text for word in words) / len(words) if words else 1.0
        tagged = not body.tags or set(body.tags) & set(value["tags"])
        if score and tagged and (not body.tool_types or value["tool_type"] in body.tool_types):
            found.append((score, value))
    found.sort(key=lambda hit: -hit[0])
    return answer([{"tool": value, "combined_score": score} for score, value in found[: body.limit]])


@router.get("/tools/{tool_id}")
async def get_tool(tool_id: str, serving: Serving) -> Response:
    """One tool."""
    if own := built_in(serving.runtime, tool_id):
        return answer(built_in_value(own))
    return answer(stored_value(await _stored(serving, tool_id)))


@router.patch("/tools/{tool_id}")
async def change_tool(tool_id: str, body: ToolChange, serving: Serving) -> Response:
    """Describe a tool anew; its name stays, and agents that have it see the change at their next turn."""
    tool = await _stored(serving, tool_id, change=True)
    schema = body.schema_of(tool)
    if schema["name"] != tool.name:
        raise Conflict(f"the tool is named {tool.name!r} and keeps its name; make a new one for {schema['name']!r}")
    said = body.given("source_code", "source_type", "tags", "return_char_limit", "metadata_", reset={"tags": []})
    said = {"meta" if name == "metadata_" else name: value for name, value in said.items()}
    said |= {"tags": tuple(said.get("tags", tool.tags))}
    said |= {"approval": body.approval} if body.default_requires_approval is not None else {}
    changed = replace(tool, json_schema=schema, description=schema["description"], **said)
    await serving.runtime.replace_tool(changed)
    return answer(stored_value(changed))


@router.delete("/tools/{tool_id}")
async def delete_tool(tool_id: str, serving: Serving) -> Response:
    """Remove a tool, from every agent that has it."""
    tool = await _stored(serving, tool_id, change=True)
    await serving.store.write(lambda tx: tx.delete_tool(tool))
    return answer(None)


@router.get("/agents/{agent_id}/tools")
async def list_agent_tools(agent_id: str, page: Paged, serving: Serving) -> Response:
    """The tools of an agent, the last one first."""

    def work(tx: Any) -> list[Json]:
        return tool_values(tx, serving.runtime, existing_agent(tx, agent_id))

    return answer(page.cut(await serving.store.read(work), 10, ascending=False))


@router.patch("/agents/{agent_id}/tools/attach/{tool_id}")
async def attach_tool(agent_id: str, tool_id: str, serving: Serving) -> Response:
    """Give an agent a tool, from its next turn on."""
    return await _change_tools(serving, agent_id, tool_id, attach=True)


@router.patch("/agents/{agent_id}/tools/detach/{tool_id}")
async def detach_tool(agent_id: str, tool_id: str, serving: Serving) -> Response:
    """Take a tool from an agent, from its next turn on."""
    return await _change_tools(serving, agent_id, tool_id, attach=False)


class ApprovalChange(Request):
    """Whether a tool's calls wait for approval."""

    requires_approval: bool | None = None


@router.patch("/agents/{agent_id}/tools/approval/{tool_name}")
async def change_approval(
    agent_id: str,
    tool_name: str,
    serving: Serving,
    body: ApprovalChange | None = None,
    requires_approval: bool | None = None,
) -> Response:
    """Have an agent's calls of a tool wait for approval or run by themselves, from its next turn on."""
    asked = body.requires_approval if body and body.requires_approval is not None else requires_approval
    if asked is None:
        raise UsageError("requires_approval is missing; it is true or false")
    await serving.agent_record(agent_id)
    async with serving.edits:
        await serving.runtime.set_approval(agent_id, tool_name, "ask" if asked else "always")
    return await agent_answer(serving, agent_id)


@router.post("/agents/{agent_id}/tools/{tool_name}/run", include_in_schema=False)
async def unsupported_use(agent_id: str, tool_name: str) -> Response:
    """What is done with tools elsewhere."""
    raise Unsupported("tools are run by agents alone; send the agent a message")


async def _change_tools(service: Service, agent_id: str, tool_id: str, *, attach: bool) -> Response:
    def work(tx: Any) -> tuple[AgentRecord, list[str]]:
        return existing_agent(tx, agent_id), chosen_tools(tx, service.runtime, (), [tool_id])

    async with service.edits:
        record, [name] = await service.store.read(work)
        has = list(service.runtime.tools.tools if record.tools is None else record.tools)
        if attach != (name in has):
            tools = (*has, name) if attach else tuple(n for n in has if n != name)
            await service.runtime.update_agent(agent_id, tools=tools)
    return await agent_answer(service, agent_id)


async def _stored(service: Service, tool_id: str, *, change: bool = False) -> StoredTool:
    if change and (tool := built_in(service.runtime, tool_id)):
        raise UsageError(f"tool {tool.name!r} is built in; detach it from agents that shall not have it")
    stored: StoredTool | None = await service.store.read(lambda tx: tx.tool(tool_id))
    if stored is None:
        raise NotFound(f"there is no tool {tool_id!r}; GET /v1/tools/ lists them")
    return stored


def _new(service: Service, body: ToolRequest) -> StoredTool:
    schema = body.schema_of()
    if schema["name"] in service.runtime.tools.tools:
        raise Conflict(f"a tool named {schema['name']!r} is built in; choose another name")
    return StoredTool(
        f"tool-{uuid.uuid4()}", schema["name"], service.runtime.clock.now(), schema["description"], schema,
        body.source_code or "", body.source_type or "python", tuple(body.tags or ()), body.return_char_limit or 50_000,
        approval=body.approval,
    )  # fmt: skip
