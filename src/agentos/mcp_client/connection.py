"""One open connection to an MCP server. The only importer of the client of `mcp`."""

import asyncio
import contextvars
import json
import logging
from importlib.metadata import version
from typing import Any

from mcp import MCPError
from mcp.client.client import Client
from mcp_types import (
    PARSE_ERROR,
    AudioContent,
    BlobResourceContents,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    Implementation,
    PaginatedRequestParams,
    ResourceLink,
    TextContent,
    TextResourceContents,
)
from pydantic import ValidationError

from agentos.errors import AgentOSError, ToolError
from agentos.mcp_client.transports import Line
from agentos.tools.servers import McpServer

_MOST_TEXT = 200_000
"""Characters of a result that are kept; how much of it the context shows is decided as for every tool."""
_MOST_ERROR = 2000
_MOST_PAGES = 20
_NOT_MCP = "the server's answer is not what MCP asks for"
_SECONDS_TO_CLOSE = 10.0

# what a server sends wrongly would be printed there, on the terminal of a chat, and urls may hold a secret
for _name, _level in (("mcp.client", logging.CRITICAL), ("httpx2", logging.WARNING)):
    logging.getLogger(_name).setLevel(_level)


class Unreachable(AgentOSError):
    """A server could not be started or reached, or went away; the text says why."""


class Connection:
    """A connection, held by a task of its own until `close`, a break, or `idle_seconds` without a call."""

    def __init__(self, server: McpServer, filled: dict[str, str], idle_seconds: float) -> None:
        self._server, self._idle_seconds = server, idle_seconds
        self._line = Line(server, filled)
        self._leave = asyncio.Event()
        self._client: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        # in a context of its own: it outlives the turn that happened to open it
        self._task = asyncio.create_task(self._hold(), context=contextvars.Context())
        self._reason = ""
        self.busy = 0
        self.used_at = asyncio.get_running_loop().time()

    @property
    def alive(self) -> bool:
        """Whether a call may be tried on it."""
        return not (self._task.done() or self._leave.is_set() or self._line.broken.is_set())

    async def open(self) -> None:
        """Wait until it can be used; `Unreachable` says why it cannot."""
        await asyncio.shield(self._client)

    async def close(self) -> None:
        """Let go of the server; its process is gone afterwards."""
        self._leave.set()
        if not self._client.done():
            self._task.cancel()
        await asyncio.wait([self._task], timeout=_SECONDS_TO_CLOSE)
        self._task.cancel()

    async def tools(self) -> list[tuple[str, str, Any]]:
        """(name, description, JSON schema of the arguments) of each tool."""
        found: list[tuple[str, str, Any]] = []
        params = PaginatedRequestParams()
        for _ in range(_MOST_PAGES):
            page = await self._asked(lambda client, params=params: client.session.list_tools(params=params))
            found += [(tool.name, tool.description or tool.title or "", tool.input_schema) for tool in page.tools]
            if not page.next_cursor:
                return found
            params = PaginatedRequestParams(cursor=page.next_cursor)
        raise Unreachable(f"it lists its tools on more than {_MOST_PAGES} pages")

    async def call(self, tool: str, arguments: dict[str, Any]) -> str:
        """A call's result as text; `ToolError` where the server says that it failed."""
        # not `call_tool`, which checks a result against a schema of the server's: a cunning one takes for ever
        request = CallToolRequest(params=CallToolRequestParams(name=tool, arguments=arguments))
        result = await self._asked(lambda client: client.session.send_request(request, CallToolResult))
        text = _text(result)
        if result.is_error:
            raise ToolError(_cut(text, _MOST_ERROR) or "the tool failed and does not say why")
        return _cut(text, _MOST_TEXT)

    async def _asked(self, ask: Any) -> Any:
        """The answer to a request; `ToolError` for an error that is one, `Unreachable` where none can come."""
        self.busy += 1
        try:
            return await ask(await asyncio.shield(self._client))
        except MCPError as error:
            if not self._line.broken.is_set() and not self._task.done() and error.message != "Connection closed":
                raise ToolError(_said(error)) from None
            await asyncio.wait([self._task], timeout=1.0)  # why it broke is known once it has ended
            raise Unreachable(self._reason or self._why(error)) from None
        except ValidationError:
            raise ToolError(_NOT_MCP) from None
        finally:
            self.busy -= 1
            self.used_at = asyncio.get_running_loop().time()

    async def _hold(self) -> None:
        try:
            async with Client(
                self._line.opened(),
                client_info=Implementation(name="agentos", version=version("agentos-kernel")), cache=None,
            ) as client:  # fmt: skip
                self._client.set_result(client)
                await self._until_left()
        except asyncio.CancelledError:
            self._gone("it was given up")
            raise
        except Exception as error:
            self._gone(self._why(error))

    def _gone(self, reason: str) -> None:
        self._leave.set()
        self._reason = reason
        if not self._client.done():
            self._client.set_exception(Unreachable(reason))
            self._client.exception()  # perhaps nobody waits any more

    async def _until_left(self) -> None:
        loop = asyncio.get_running_loop()
        waits = [asyncio.create_task(event.wait()) for event in (self._leave, self._line.broken)]
        try:
            rest = self._idle_seconds
            while rest > 0:
                done, _ = await asyncio.wait(waits, timeout=rest, return_when=asyncio.FIRST_COMPLETED)
                if done:
                    break
                rest = self._idle_seconds - (0 if self.busy else loop.time() - self.used_at)
            self._leave.set()  # before anything is awaited: no call begins any more
        finally:
            for task in waits:
                task.cancel()

    def _why(self, error: BaseException) -> str:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if self._line.reason:
            words = self._line.last_words
            return self._line.reason + (f" and said last: {words}" if words else "")
        if isinstance(error, ValidationError):
            return _NOT_MCP
        if isinstance(error, FileNotFoundError) and self._server.command:
            return f"{error.filename or self._server.command} is not there"
        return _said(error) or type(error).__name__


def _said(error: BaseException) -> str:
    """An error in words. `mcp` quotes a body that is no message, and what its validator says of it: not those."""
    unread = isinstance(error, MCPError) and error.code == PARSE_ERROR and error.message.startswith("Failed to parse ")
    return _NOT_MCP if unread else _cut(str(error), _MOST_ERROR)


def _text(result: CallToolResult) -> str:
    """A result in words: its texts, what else there is named, and structured content where no text repeats it."""
    parts = [_words(block) for block in result.content]
    value = result.structured_content
    if value is not None and not _repeats([b.text for b in result.content if isinstance(b, TextContent)], value):
        parts.append(json.dumps(value, ensure_ascii=False))
    return "\n".join(parts)


def _repeats(texts: list[str], value: dict[str, Any]) -> bool:
    """Whether texts say what structured content does; of a plain value that is `{"result": VALUE}`."""
    meant = [value, *(value.values() if len(value) == 1 else ())]
    return texts in meant or any(text in meant or _parsed(text) in meant for text in texts)


def _words(block: Any) -> str:
    match block:
        case TextContent():
            return block.text
        case ImageContent() | AudioContent():
            return f"[{block.type}, {block.mime_type}, about {_bytes(block.data)} bytes; it cannot be shown here]"
        case ResourceLink():
            return f"[resource {block.name}: {block.uri}]"
        case EmbeddedResource(resource=BlobResourceContents() as blob):
            kind = blob.mime_type or "binary"
            return f"[resource {blob.uri}, {kind}, about {_bytes(blob.blob)} bytes; it cannot be shown here]"
        case EmbeddedResource(resource=TextResourceContents() as resource):
            return f"[resource {resource.uri}]\n{resource.text}"
    return "[something that cannot be shown here]"


def _bytes(base64: str) -> int:
    return len(base64.rstrip("=")) * 3 // 4


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}\n[cut: {len(text) - most} more characters]"
