"""The MCP side: what a client asks becomes calls of `SharedMemory`, which is loaded when it is first needed."""

import json
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError

import agentos
from agentos.errors import AgentOSError
from agentos.messages import clean_json
from agentos.tokens import Grant

if TYPE_CHECKING:
    from agentos.mcp_server.memory import SharedMemory

INSTRUCTIONS = (
    "The long-term memory of one or more agents. Call `recall` before you say that you do not know something about the "
    "user or earlier work, `remember` for what will matter again (say in `source` where you have it from), and "
    "`update_memory` where a fact changed: the old one is kept as history."
)
_ODD = re.compile(r"[^\w .,:/@()+-]+")
_LONGEST_NAME = 60


def make_server(memory: Callable[[], Awaitable["SharedMemory"]], grant: Callable[[Any], Grant]) -> Server[Any]:
    """A server over the memory that `memory()` gives; `grant` says what the client behind an HTTP request may do.

    It is called once there is a memory, and over stdio, where there is no request, with None.
    """

    async def list_tools(ctx: Any, _: Any) -> types.ListToolsResult:
        shown = (await memory()).tools(grant(ctx.request))
        return types.ListToolsResult(tools=[types.Tool(**tool) for tool in shown])

    async def call_tool(ctx: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        try:
            shared = await memory()
            allowed = grant(ctx.request)
            value = await shared.call(allowed, client_name(ctx, allowed), params.name, params.arguments or {})
        except AgentOSError as error:
            return _result(str(error), is_error=True)
        return _result(value)

    async def list_resources(ctx: Any, params: types.PaginatedRequestParams | None) -> types.ListResourcesResult:
        cursor = params.cursor if params else None
        found, following = await _told(lambda m: m.resources(grant(ctx.request), cursor))
        return types.ListResourcesResult(resources=[types.Resource(**r) for r in found], next_cursor=following)

    async def list_templates(ctx: Any, _: Any) -> types.ListResourceTemplatesResult:
        found = (await memory()).templates()
        return types.ListResourceTemplatesResult(resource_templates=[types.ResourceTemplate(**t) for t in found])

    async def read_resource(ctx: Any, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        text = await _told(lambda m: m.read(grant(ctx.request), params.uri))
        contents = types.TextResourceContents(uri=params.uri, text=text, mime_type="text/plain")
        return types.ReadResourceResult(contents=[contents])

    async def _told(work: "Callable[[SharedMemory], Awaitable[Any]]") -> Any:
        try:
            return await work(await memory())
        except AgentOSError as error:
            raise MCPError(code=types.INVALID_PARAMS, message=clean_json(str(error))) from None

    return Server(
        "agentos", version=agentos.__version__, instructions=INSTRUCTIONS, on_list_tools=list_tools,
        on_call_tool=call_tool, on_list_resources=list_resources, on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
    )  # fmt: skip


def client_name(ctx: Any, grant: Grant) -> str:
    """What the client calls itself, fit for the journal, with the name of its token."""
    params = ctx.session.client_params
    said = _plain(params.client_info.name if params else "")[:_LONGEST_NAME].strip() or "unknown"
    return f"{said} ({_plain(grant.name)})" if grant.name else said


def _plain(name: str) -> str:
    return " ".join(_ODD.sub(" ", name).split())


def _result(value: Any, *, is_error: bool = False) -> types.CallToolResult:
    """A value as its JSON text and as structured content; an error as its sentence."""
    value = clean_json(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=text)], is_error=is_error,
        structured_content=None if is_error else value,
    )  # fmt: skip
