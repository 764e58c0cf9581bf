"""What the rows share: a home, agents in it, and percentiles."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agentos import Runtime, Settings
from agentos.messages import Message
from agentos.protocols import LLM


@asynccontextmanager
async def home(folder: Path, llm: LLM | None = None, **settings: Any) -> AsyncIterator[Runtime]:
    """A runtime on a real SQLite file in `folder`."""
    async with Runtime(Settings(home=folder, **settings), llm=llm) as runtime:
        yield runtime


@contextmanager
def fake_server() -> Iterator[str]:
    """The fake OpenAI server as a process of its own; its URL."""
    command = [sys.executable, "-m", "agentos.testing.fake_openai", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


async def timed(work: Callable[[], Awaitable[object]], times: int, warmup: int = 5) -> list[float]:
    """Milliseconds of each run, sorted."""
    for _ in range(warmup):
        await work()
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        await work()
        taken.append(1000 * (time.perf_counter() - started))
    return sorted(taken)


def percentile(values: list[float], share: float) -> float:
    """A value of a sorted list."""
    return values[min(len(values) - 1, int(share * len(values)))]


def p50(values: list[float]) -> float:
    """The median of a sorted list."""
    return percentile(values, 0.5)


async def store_messages(runtime: Runtime, agent_id: str, count: int, *, in_queue: bool) -> None:
    """Stored messages of a plausible size, in the queue or only in recall memory."""
    now = datetime.now(UTC)

    def batch(start: int) -> Callable[[Any], None]:
        def work(tx: Any) -> None:
            last = start
            for n in range(start, min(start + 1000, count)):
                last = n + 1
                tx.add_message(
                    Message(
                        id=0, agent_id=agent_id, role="assistant" if n % 2 else "user", origin="user", created_at=now,
                        content=f"note {n}: the harbour tour with number {n * 7919 % 10007} went well and we talked",
                        seq=n + 1,
                    )
                )  # fmt: skip
            tx.update_agent(agent_id, last_seq=last, **({} if in_queue else {"head_seq": last, "fill_seq": last}))

        return work

    for start in range(0, count, 1000):
        await runtime.store.write(batch(start))
    await asyncio.sleep(0)
