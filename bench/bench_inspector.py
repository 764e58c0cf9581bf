"""Speed and weight of the Inspector's pages, as a table: an agent with 10,000 messages, passages, turns and events.

python bench/bench_inspector.py               everything (about a minute)
python bench/bench_inspector.py core timeline only the rows whose name contains one of the words
"""

import asyncio
import logging
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.path.insert(0, str(Path(__file__).parent))

import httpx

from agentos.dispatch import Dispatcher
from agentos.messages import Cause, Message, Passage, ToolCall, Usage
from agentos.runtime import Runtime
from agentos.server.app import create_app
from agentos.server.service import Service
from agentos.state import RunRecord, StepRecord
from common import home, p50, percentile, store_messages, timed
from table import Measure, print_table

logging.disable(logging.INFO)  # a line for each request

TOKEN, NAME, COUNT = "bench-token-0123456789", "ada", 10_000
REACH = "100 ms, 200 kB"


@asynccontextmanager
async def full_home(folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the pages over a home whose agent has much behind it; the application runs in this process."""
    async with home(folder.parent / "home", model="offline") as runtime:
        if await runtime.store.read(lambda tx: tx.agent_named(NAME)) is None:  # the first row fills it for all
            await _fill(runtime)
        service = Service(runtime, Dispatcher(runtime), TOKEN)
        headers = {"authorization": f"Bearer {TOKEN}", "accept": "text/html"}
        transport = httpx.ASGITransport(create_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
            yield client


async def _fill(runtime: Runtime) -> None:
    agent_id = (await runtime.create_agent(NAME)).id
    for number in range(30):
        await runtime.create_agent(f"agent {number}")
    await store_messages(runtime, agent_id, COUNT, in_queue=False)
    await _store_memory(runtime, agent_id)
    await _store_runs(runtime, agent_id)
    while await runtime.store.read(lambda tx: tx.outbox_sizes()):  # noqa: ASYNC110  the index catches up by itself
        await asyncio.sleep(0.1)


async def _store_memory(runtime: Runtime, agent_id: str) -> None:
    """10,000 passages, whose insertions are half of the 10,000 events; edits of a block are the other half."""
    now = datetime.now(UTC)

    def passages(start: int) -> Callable[[Any], None]:
        def work(tx: Any) -> None:
            for n in range(start, start + 500):
                text = f"fact {n}: the boat called number {n * 7919 % 10007} lies in the harbour of Porto since spring"
                passage = Passage(id=0, agent_id=agent_id, text=text, origin="user", created_at=now)
                tx.add_passage(passage, Cause(agent_id, "agent" if n % 2 else "user"))

        return work

    def edits(start: int) -> Callable[[Any], None]:
        def work(tx: Any) -> None:
            block = next(b for b in tx.blocks(agent_id) if b.label == "human")
            for n in range(start, start + 500):
                text = f"Name: Ann\nVisits: {n}\nLikes the harbour"
                block = tx.write_block(block, text, Cause(agent_id, "user"), "block.edit")
                block = replace(block, seen_version_id=block.version_id)

        return work

    for start in range(0, COUNT, 500):
        await runtime.store.write(passages(start))
    for start in range(0, COUNT // 2, 500):
        await runtime.store.write(edits(start))


async def _store_runs(runtime: Runtime, agent_id: str) -> None:
    """10,000 turns of a model call each; the last one said and did much, and is in context."""
    now = datetime.now(UTC)

    def runs(start: int) -> Callable[[Any], None]:
        def work(tx: Any) -> None:
            for n in range(start, start + 500):
                usage = Usage(3000 + n, 50, 2900 + n, 0.001)
                tx.add_run(
                    RunRecord(f"run-{n}", agent_id, now, status="completed", stop_reason="end_turn", ended_at=now)
                )
                tx.add_step(
                    StepRecord(f"run-{n}", agent_id, now, "conversation", "offline", usage, 3000, 2900, "", 120)
                )

        return work

    def last(tx: Any) -> None:
        for n in range(200):
            role: Any = ("user", "assistant", "tool")[n % 3]
            calls = (ToolCall(f"call-{n}", "archival_memory_search", '{"query": "boats"}'),) if n % 3 == 1 else ()
            message = Message(
                id=0, agent_id=agent_id, role=role, content=f"message {n} of the turn, " + "with many words " * 20,
                origin="agent", created_at=now, seq=COUNT + n + 1, run_id=f"run-{COUNT - 1}", calls=calls,
                call_id=f"call-{n - 1}" if role == "tool" else None, ok=True if role == "tool" else None,
                name="archival_memory_search" if role == "tool" else None, sources=("p1", "p2"),
            )  # fmt: skip
            tx.add_message(message)
        tx.update_agent(agent_id, last_seq=COUNT + 200)

    for start in range(0, COUNT, 500):
        await runtime.store.write(runs(start))
    await runtime.store.write(last)


def measure(path: str) -> Callable[[Path], Coroutine[Any, Any, str]]:
    """A row's measurement: a page's time on the server, and what a browser loads for it."""

    async def run(folder: Path) -> str:
        async with full_home(folder) as client:
            answer = await client.get(path, follow_redirects=True)
            assert answer.status_code == 200, answer.text[:300]
            files = re.findall(r'(?:href|src)="(/static/[^"]+)"', answer.text)
            weight = len(answer.content) + sum([len((await client.get(file)).content) for file in files])
            taken = await timed(lambda: client.get(path), 60)
        return f"median {p50(taken):.1f} ms, p95 {percentile(taken, 0.95):.1f} ms; {weight / 1000:.0f} kB"

    return run


PAGES = {
    "agents": "/",
    "core": f"/agents/{NAME}/core",
    "versions": f"/agents/{NAME}/core/human",
    "timeline": f"/agents/{NAME}/timeline",
    "filtered": f"/agents/{NAME}/timeline?kind=passage&actor=agent&before=5000",
    "why": f"/agents/{NAME}/why?what=number+7919",
    "context": f"/agents/{NAME}/context",
    "archival": f"/agents/{NAME}/archival",
    "archival search": f"/agents/{NAME}/archival?query=boat+number+7919",
    "recall": f"/agents/{NAME}/recall",
    "recall search": f"/agents/{NAME}/recall?query=word+seven",
    "message": f"/agents/{NAME}/recall/m5000",
    "runs": f"/agents/{NAME}/runs",
    "run": f"/agents/{NAME}/runs/run-9999",
    "chat": f"/agents/{NAME}/chat",
}
MEASURES = [Measure(name, f"page {path}", REACH, measure(path)) for name, path in PAGES.items()]

if __name__ == "__main__":
    print_table("The Inspector's pages, in one process, uncompressed", MEASURES)
