"""How bytes go to and from an MCP server, and never more of them than it may send."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import anyio
import httpx2
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.stdio import get_default_environment
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCRequest, jsonrpc_message_adapter

from agentos.tools.servers import McpServer

MOST_BYTES = 8 << 20
"""What a server may send for one request, and the longest line or body."""
_MOST_RUBBISH = 100
"""Lines that are no messages before it counts as no MCP server: some print a banner first."""
_POLL_SECONDS = 0.005
_LEAVE_POLLS = 200
"""What a process has to end by itself, and again after SIGTERM."""
_KEPT_ERRORS = 2000
"""Characters of what it wrote to stderr last."""

Streams = tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]


class Line:
    """One line to a server, from when it is opened until it breaks."""

    def __init__(self, server: McpServer, filled: dict[str, str]) -> None:
        """`filled`: the url and the values of env and headers as they are sent (`url`, `env NAME`, `header NAME`)."""
        self.server, self._filled = server, filled
        self.broken = asyncio.Event()
        self.reason = ""
        """Why it broke, where that is known."""
        self._errors = ""
        self._received = 0

    @property
    def last_words(self) -> str:
        """What the process wrote to stderr last, on one line."""
        return " ".join(self._errors.split())[-300:]

    def opened(self) -> AbstractAsyncContextManager[Streams]:
        """Open it; yields the streams that `mcp` reads and writes. Leaving ends the process, with its children."""
        return self._process() if self.server.command else self._http()

    def _break(self, reason: str = "") -> None:
        self.reason = self.reason or reason
        self.broken.set()

    # a process

    @asynccontextmanager
    async def _process(self) -> AsyncGenerator[Streams, None]:
        server, command = self.server, self.server.command
        assert command is not None
        process = await asyncio.create_subprocess_exec(
            command, *server.args, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE, cwd=server.cwd, limit=MOST_BYTES, start_new_session=True,
            env=get_default_environment() | {name: self._filled[f"env {name}"] for name in server.env},
        )  # fmt: skip
        put_in, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        write, take_out = anyio.create_memory_object_stream[SessionMessage](0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._read, process, put_in)
            tasks.start_soon(self._write, process, take_out)
            tasks.start_soon(self._listen, process)
            try:
                yield read, write
            finally:
                with anyio.CancelScope(shield=True):
                    await _ended(process)
                tasks.cancel_scope.cancel()
                for stream in (put_in, read, write, take_out):
                    stream.close()

    async def _read(
        self, process: asyncio.subprocess.Process, to: MemoryObjectSendStream[SessionMessage | Exception]
    ) -> None:
        assert process.stdout is not None
        rubbish = 0
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError), to:
            try:
                while line := await process.stdout.readline():
                    self._count(len(line))
                    try:
                        message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                    except ValueError:
                        rubbish += 1
                        if rubbish > _MOST_RUBBISH:
                            raise _Excess("what it prints are no MCP messages") from None
                        continue
                    await to.send(SessionMessage(message))
                self._break("it ended")
            except ValueError:  # a line beyond the limit
                self._break(_TOO_MUCH)
            except _Excess as error:
                self._break(str(error))
            except OSError as error:
                self._break(str(error))

    async def _write(
        self, process: asyncio.subprocess.Process, source: MemoryObjectReceiveStream[SessionMessage]
    ) -> None:
        assert process.stdin is not None
        try:
            async for item in source:
                if isinstance(item.message, JSONRPCRequest):
                    self._received = 0
                process.stdin.write(item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
                await process.stdin.drain()
        except OSError:  # `_read` says that it ended
            source.close()

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Keep the end of what it writes to stderr, at a pace that a flood cannot burn our time."""
        assert process.stderr is not None
        while some := await process.stderr.read(1 << 16):
            self._errors = (self._errors + some.decode(errors="replace"))[-_KEPT_ERRORS:]
            if len(some) > _KEPT_ERRORS:
                await asyncio.sleep(0.01)

    def _count(self, size: int) -> None:
        self._received += size
        if self._received > MOST_BYTES:
            raise _Excess(_TOO_MUCH)

    # elsewhere

    @asynccontextmanager
    async def _http(self) -> AsyncGenerator[Streams, None]:
        headers = {name: self._filled[f"header {name}"] for name in self.server.headers}
        # a small body could unpack into a huge one
        headers = {"Accept-Encoding": "identity"} | headers
        client = httpx2.AsyncClient(
            headers=headers, timeout=httpx2.Timeout(30.0, read=300.0), event_hooks={"response": [_bound]}
        )
        async with (
            client,
            streamable_http_client(self._filled["url"], http_client=client, max_sse_event_size=MOST_BYTES) as streams,
        ):
            yield streams  # type: ignore[misc]  # its streams do what those of anyio do


_TOO_MUCH = f"it sent more than {MOST_BYTES >> 20} MiB for one request"


class _Excess(Exception):
    pass


async def _bound(response: httpx2.Response) -> None:
    """See to it that no more of a response is read than may be."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise httpx2.RemoteProtocolError("it sends a packed body that was not asked for")
    response.stream = _Bounded(response.stream)  # type: ignore[arg-type]


class _Bounded(httpx2.AsyncByteStream):
    """A body that breaks off where it gets too long."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for part in self._stream:
            size += len(part)
            if size > MOST_BYTES:
                raise httpx2.RemoteProtocolError(_TOO_MUCH)
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Have a process and its children end: its stdin closes, then come SIGTERM and SIGKILL for the whole group."""
    assert process.stdin is not None
    process.stdin.close()
    for then in (signal.SIGTERM, signal.SIGKILL, 0):  # one that the kernel holds fast after that is left to it
        for _ in range(_LEAVE_POLLS):
            if process.returncode is not None:  # `wait` would wait for who inherited its pipes, too
                break
            await asyncio.sleep(_POLL_SECONDS)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, then)
    transport = process._transport  # type: ignore[attr-defined]  # nothing public closes pipes that others hold
    transport.close()
