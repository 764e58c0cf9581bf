"""What memory over MCP costs, as a table: `agentos mcp` and `agentos serve` are processes of their own.

python bench/bench_mcp.py            everything (a minute)
python bench/bench_mcp.py http       only the rows whose name contains one of the words
"""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # it would triple import times
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "tests")]

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from agentos import curate
from agentos.protocols import SearchQuery
from bench_serve import TOKEN, model, server
from common import home, p50, percentile, store_messages, timed
from table import Measure, print_table

logging.getLogger("httpx2").setLevel(logging.WARNING)
PASSAGES, CALLS, STARTS = 1000, 100, 5
_HELLO = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}},
}  # fmt: skip
_COMMAND = ["-m", "agentos", "mcp", "--agent", "ada"]


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "AGENTOS_HOME": str(folder), "AGENTOS_MODEL": "offline"}


async def filled(folder: Path) -> tuple[list[float], list[float]]:
    """A home with an agent that knows something; milliseconds of (a search, an insert) in this process."""
    async with home(folder, model="offline") as runtime:
        agent = await runtime.agent("ada")
        memory, number = runtime.memory(agent.id), 0

        async def insert() -> None:
            nonlocal number
            number += 1
            text = f"note {number}: the harbour tour with number {number * 7919 % 10007} went well"
            await curate.insert_passage(runtime.store, runtime.clock, memory, agent.id, text)

        async def search() -> None:
            await runtime.search(agent.id, SearchQuery("harbour tour", limit=10, now=runtime.clock.now()))

        await store_messages(runtime, agent.id, PASSAGES, in_queue=False)
        inserted = await timed(insert, PASSAGES)
        return await timed(search, CALLS), inserted


@contextmanager
def greeted(folder: Path) -> Iterator[float]:
    """`agentos mcp` that has answered the handshake; after how many seconds."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *_COMMAND], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=environment(folder),
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(_HELLO).encode() + b"\n")
    process.stdin.flush()
    assert b"serverInfo" in process.stdout.readline()
    try:
        yield time.perf_counter() - started
    finally:
        process.communicate()


async def start(folder: Path) -> str:
    await filled(folder)
    taken = []
    for _ in range(STARTS):
        with greeted(folder) as seconds:
            taken.append(seconds)
    return f"{p50(sorted(taken)):.2f} s (of {STARTS}: {min(taken):.2f} to {max(taken):.2f})"


@asynccontextmanager
async def over_stdio(folder: Path) -> AsyncIterator[Client]:
    process = StdioServerParameters(command=sys.executable, args=_COMMAND, env=environment(folder))
    async with Client(process) as client:
        yield client


@asynccontextmanager
async def over_http(folder: Path) -> AsyncIterator[Client]:
    with model(0.0) as base, server(folder, base) as served:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx2.AsyncClient(headers=headers, trust_env=False) as http:
            transport = streamable_http_client(f"http://127.0.0.1:{served.port}/mcp", http_client=http)
            async with Client(transport) as client:
                yield client


async def calls(folder: Path, connect: Callable[[Path], Any]) -> str:
    searched, inserted = await filled(folder)
    async with connect(folder) as client:
        number = 0

        async def recall() -> None:
            result = await client.call_tool("recall", {"query": "harbour tour", "scope": "archival"})
            assert len(result.structured_content["hits"]) == 10

        async def remember() -> None:
            nonlocal number
            number += 1
            result = await client.call_tool("remember", {"content": f"remark {number} on the harbour"})
            assert not result.is_error

        said = [await _beyond("recall", recall, searched), await _beyond("remember", remember, inserted)]
    return "; ".join(said)


async def _beyond(name: str, call: Callable[[], Awaitable[None]], alone: list[float]) -> str:
    taken = await timed(call, CALLS)
    return (
        f"{name} {p50(taken) - p50(alone):.1f} ms beyond ({p50(taken):.1f}, p95 {percentile(taken, 0.95):.1f}, "
        f"against {p50(alone):.1f} in process)"
    )


async def stdio(folder: Path) -> str:
    return await calls(folder, over_stdio)


async def http(folder: Path) -> str:
    return await calls(folder, over_http)


MEASURES = [
    Measure("start", "agentos mcp: start to its answer to initialize", "1.5 s", start),
    Measure("stdio", f"a call over stdio, the package's own client, {PASSAGES} passages", "20 ms beyond", stdio),
    Measure("http", f"a call over HTTP, the package's own client, {PASSAGES} passages", "20 ms beyond", http),
]


if __name__ == "__main__":
    print_table("agentos bench-mcp", MEASURES)
