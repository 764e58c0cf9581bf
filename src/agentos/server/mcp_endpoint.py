"""`/mcp`: MCP over streamable HTTP. It starts at its first request and ends with the server."""

import asyncio
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agentos.dispatch import Dispatcher
from agentos.errors import UsageError
from agentos.events import TurnResult
from agentos.messages import Input
from agentos.runtime import Runtime

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

MOST_SESSIONS = 1000
IDLE_SECONDS = 1800.0
"""After this long without a request a session is closed; its client begins a new one."""
_LOOK_SECONDS = 1.0
"""How often to look whether an earlier turn waits for approval, and so all behind it."""
_LARGEST_BODY = 2**40
"""The server bounds bodies already."""


class McpEndpoint:
    """The sessions of MCP clients; each belongs to the token that began it."""

    def __init__(self, runtime: Runtime, dispatcher: Dispatcher) -> None:
        self._runtime, self._dispatcher = runtime, dispatcher
        self._starting = asyncio.Lock()
        self._closing = asyncio.Event()
        self._manager: StreamableHTTPSessionManager | None = None
        self._held: asyncio.Task[None] | None = None

    async def answer(self, request: Request) -> Response:
        """The response to one request, which reads its body itself; `UsageError` where that is no JSON."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if request.method == "POST" and kind != "application/json":
            raise UsageError("MCP is spoken in JSON; send it with Content-Type: application/json")
        async with self._starting:
            if self._manager is None:
                manager, began = await asyncio.to_thread(self._make), asyncio.Event()  # a second that few servers pay
                held = asyncio.create_task(self._hold(manager, began))
                held.add_done_callback(lambda _: began.set())  # where it fails at once, so does this request
                await began.wait()
                if held.done():
                    held.result()
                self._manager, self._held = manager, held
        request.scope["user"] = _owner(request)
        return _Passed(self._manager)

    async def close(self) -> None:
        """End every session."""
        self._closing.set()
        if self._held is not None:
            await asyncio.wait([self._held])

    def _make(self) -> "StreamableHTTPSessionManager":
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

        from agentos.mcp_server.memory import SharedMemory
        from agentos.mcp_server.protocol import make_server

        shared = SharedMemory(self._runtime, self._ask)

        async def memory() -> SharedMemory:
            return shared

        server = make_server(memory, lambda request: request.scope["agentos.grant"])
        return StreamableHTTPSessionManager(
            server, session_idle_timeout=IDLE_SECONDS, max_sessions=MOST_SESSIONS, max_request_body_size=_LARGEST_BODY
        )

    async def _hold(self, manager: "StreamableHTTPSessionManager", began: asyncio.Event) -> None:
        async with manager.run():  # begins and ends in one task
            began.set()
            await self._closing.wait()

    async def _ask(self, agent_id: str, text: str, client: str) -> TurnResult | None:
        item = await self._dispatcher.accept(agent_id, [Input(text, origin="client", name=client)], refuses=False)
        while (result := await self._dispatcher.result(item, _LOOK_SECONDS)) is None:
            if await self._runtime.store.read(lambda tx: tx.awaits_approval(agent_id)):
                return await self._dispatcher.result(item, 0.0)  # it may be this turn itself that waits
        return result


class _Passed(Response):
    """What the session manager answers."""

    def __init__(self, manager: "StreamableHTTPSessionManager") -> None:
        super().__init__()
        self._manager = manager

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let it read and write."""
        await self._manager.handle_request(scope, receive, send)


def _owner(request: Request) -> Any:
    """Who a session belongs to, as the session manager compares it."""
    from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
    from mcp.server.auth.provider import AccessToken

    token = request.scope["agentos.grant"].id or "server"
    return AuthenticatedUser(AccessToken(token="", client_id=token, scopes=[]))
