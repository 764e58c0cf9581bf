"""MCP over stdin and stdout: the handshake is answered at once, the home is opened behind it."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import AbstractAsyncContextManager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from mcp.server.stdio import stdio_server

from agentos.mcp_server.protocol import make_server

if TYPE_CHECKING:
    from agentos.mcp_server.memory import SharedMemory
    from agentos.tokens import Grant

_GREETING_SECONDS = 1.0
"""How long the home waits for the handshake to go first."""


async def serve_stdio(open_home: "Callable[[], AbstractAsyncContextManager[tuple[SharedMemory, Grant]]]") -> None:
    """Serve one client until it goes away or the process is told to stop.

    What `open_home` raises ends it; it is called once the client was greeted, as loading takes longer than that.
    """
    opened: asyncio.Future[tuple[SharedMemory, Grant]] = asyncio.get_running_loop().create_future()
    greeted, gone = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(greeted.wait(), _GREETING_SECONDS)
        async with open_home() as home:
            opened.set_result(home)
            await gone.wait()

    async def memory() -> "SharedMemory":
        return (await asyncio.shield(opened))[0]

    async def greet(ctx: Any, call_next: Any) -> Any:
        try:
            return await call_next(ctx)
        finally:
            greeted.set()

    server = make_server(memory, lambda _: opened.result()[1])
    server.middleware.append(greet)

    async def serve() -> None:
        async with stdio_server(stdin=_Lines()) as (read, write):  # type: ignore[arg-type]  # only iterated over
            await server.run(read, write, server.create_initialization_options())

    holding, serving = asyncio.create_task(hold()), asyncio.create_task(serve())
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, serving.cancel)
    try:
        await asyncio.wait([holding, serving], return_when=asyncio.FIRST_COMPLETED)
    finally:
        serving.cancel()
        await asyncio.wait([serving])
        gone.set()  # now that no call uses the home
        if not opened.done():
            holding.cancel()
        await asyncio.wait([holding])
        opened.cancel()
    if not holding.cancelled() and (error := holding.exception()):
        raise error
    if not serving.cancelled() and (error := serving.exception()) and not _is_gone(error):
        raise error


def _is_gone(error: BaseException) -> bool:
    """Whether the client just went away."""
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else [error]
    return all(_is_gone(e) if isinstance(e, BaseExceptionGroup) else isinstance(e, OSError) for e in inner)


class _Lines:
    """The lines of stdin, read by a thread of our own: one that reads for the event loop would keep it from ending."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[str] = asyncio.Queue(16)
        self._loop = asyncio.get_running_loop()
        source = os.fdopen(os.dup(0), "rb")
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)  # nobody else is to read what the client sends
        threading.Thread(target=self._read, args=(source,), daemon=True).start()

    def _read(self, source: BinaryIO) -> None:
        with suppress(RuntimeError, CancelledError):  # the loop has ended
            for line in source:
                self._put(line.decode("utf-8", "replace"))
            self._put("")

    def _put(self, line: str) -> None:
        asyncio.run_coroutine_threadsafe(self._queue.put(line), self._loop).result()

    def __aiter__(self) -> "_Lines":
        return self

    async def __anext__(self) -> str:
        """The next line."""
        line = await self._queue.get()
        if not line:
            raise StopAsyncIteration
        return line
