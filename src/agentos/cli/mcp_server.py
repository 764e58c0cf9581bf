"""`agentos mcp`: the memory of some agents for one MCP client, over stdin and stdout."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

from agentos.mcp_server.stdio import serve_stdio
from agentos.tokens import Grant

if TYPE_CHECKING:
    from agentos.events import TurnResult
    from agentos.mcp_server.memory import SharedMemory
    from agentos.runtime import Runtime


def serve(names: list[str], read_only: bool) -> None:
    """Serve until the client goes away; agents are made on first use, unless they are only read."""

    @asynccontextmanager
    async def open_home() -> "AsyncIterator[tuple[SharedMemory, Grant]]":
        await asyncio.to_thread(_load)
        from agentos.cli.opening import existing, open_runtime
        from agentos.mcp_server.memory import SharedMemory

        async with open_runtime() as runtime:
            ids = [(await existing(runtime, n)).id if read_only else (await runtime.agent(n)).id for n in names]
            yield SharedMemory(runtime, _asking(runtime)), Grant(frozenset(ids), read_only)

    asyncio.run(serve_stdio(open_home))


def _load() -> None:
    """What takes a second to import."""
    import agentos.cli.opening
    import agentos.mcp_server.memory  # noqa: F401


def _asking(runtime: "Runtime") -> "Callable[[str, str, str], Awaitable[TurnResult | None]]":
    """Turns that run here, side by side with those of a server on this home."""
    from agentos.messages import Input

    async def ask(agent_id: str, text: str, client: str) -> "TurnResult | None":
        agent = await runtime.agent_of(agent_id)
        item = await agent.accept([Input(text, origin="client", name=client)], refuses=False)
        async with aclosing(agent.run(until=item)) as events:
            async for _ in events:
                pass
        return await agent.result(item)  # None where a turn before it stopped

    return ask
