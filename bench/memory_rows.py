"""Rows about what is stored and found."""

import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import accumulate, product
from pathlib import Path
from typing import Any

from agentos import Runtime
from agentos.memory.vectors import to_bytes
from agentos.messages import Cause, Message, Passage, Reply
from agentos.protocols import LLMRequest, SearchQuery
from agentos.testing.homes import temporary_runtime
from agentos.testing.llms import FunctionLLM, ScriptedLLM, call, say
from common import home, p50, percentile, timed

SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
WORDS = ["".join(parts) for parts in product(SYLLABLES, repeat=3)][:20_000]
"""Made-up words; how often each occurs follows Zipf's law, as in real talk, without its hundred stop words."""
WEIGHTS = list(accumulate((rank + 100) ** -1.07 for rank in range(len(WORDS))))


def _text(rng: random.Random, n: int) -> str:
    """A passage of twelve content words and a number of its own."""
    return f"{' '.join(rng.choices(WORDS, cum_weights=WEIGHTS, k=12))}, note {n}"


async def fill(runtime: Runtime, agent_id: str, count: int) -> None:
    """Passages with their vectors, in the index as well."""
    rng, now = random.Random(7), datetime.now(UTC)
    for start in range(0, count, 1000):
        texts = [_text(rng, n) for n in range(start, min(count, start + 1000))]
        vectors = await runtime.embedder.embed(texts)
        rows = [
            Passage(0, agent_id, text, "agent", now + timedelta(seconds=start + i), embedding=to_bytes(vector),
                    fingerprint=runtime.embedder.fingerprint)
            for i, (text, vector) in enumerate(zip(texts, vectors, strict=True))
        ]  # fmt: skip

        def work(tx: Any, rows: list[Passage] = rows) -> None:
            for row in rows:
                tx.add_passage(row, Cause(agent_id, "import"))

        await runtime.store.write(work)
    while await runtime.store.read(lambda tx: tx.outbox_sizes()):
        report = await runtime.sync.drain()
        if report.problem:
            raise RuntimeError(report.problem)


async def insert(folder: Path) -> str:
    """The whole call as an agent makes it: embedding, transaction, result message."""
    script = [
        say("ok", call("archival_memory_insert", content=f"A fresh memory, number {n}, of the pier")) for n in range(60)
    ]
    async with home(folder, ScriptedLLM(script)) as runtime:
        agent = await runtime.agent("bench")
        await fill(runtime, agent.id, 100_000)
        taken = []
        for n in range(60):
            called = 0.0
            async for event in agent.send(f"keep {n}"):
                if event.type == "tool_call":
                    called = time.perf_counter()
                if event.type == "tool_result":
                    taken.append(1000 * (time.perf_counter() - called))
    taken = sorted(taken[10:])
    return f"{p50(taken):.1f} / {percentile(taken, 0.95):.1f} ms"


async def search(folder: Path) -> str:
    rng = random.Random(3)
    async with home(folder, FunctionLLM(lambda _: Reply("ok"))) as runtime:
        found = []
        for count in (1000, 100_000):
            agent = await runtime.agent(f"with-{count}")
            await fill(runtime, agent.id, count)
            queries = [" ".join(_text(rng, 0).split()[:6]) for _ in range(200)]

            async def one(agent_id: str = agent.id, queries: list[str] = queries) -> None:
                assert await runtime.search(agent_id, SearchQuery(queries.pop()))

            found.append(await timed(one, 150, warmup=20))
    return " / ".join(f"{percentile(values, 0.95):.1f}" for values in found) + " ms"


async def lost(_: Path) -> str:
    """Small windows and small blocks under random sessions: is every planted fact still there?"""
    refused = evicted = checked = 0
    for seed in range(500):
        rng = random.Random(seed)
        async with _session(rng) as (runtime, agent_id, planted_in_talk, planted_in_writes):
            for fact in planted_in_writes:
                refused += not await _anywhere(runtime, agent_id, fact)
            for fact in planted_in_talk:
                checked += 1
                hits = await runtime.search(agent_id, SearchQuery(fact, "recall"))
                by_id = await _messages(runtime, agent_id, [int(hit.ref[1:]) for hit in hits])
                evicted += not any(fact in m.content for m in by_id)
    return f"{refused}; {evicted} (of {checked} planted)"


@asynccontextmanager
async def _session(rng: random.Random) -> AsyncIterator[tuple[Runtime, str, list[str], list[str]]]:
    """One random session in memory: 12 to 30 turns with facts in the talk and in core writes that may not fit."""
    talk: list[str] = []
    writes: list[str] = []

    def model(request: LLMRequest) -> Reply:
        if rng.random() < 0.5 and "[summary request]" not in request.messages[-1]["content"]:
            fact = f"QW-{rng.randrange(10**9)}"
            writes.append(fact)
            content = f"code {fact} " + "x" * rng.randrange(1, 900)
            return say("noted", call("core_memory_append", label="human", content=content))
        return say("yes " * rng.randrange(1, 120))

    async with temporary_runtime(FunctionLLM(model, context_window=rng.choice([6000, 8000, 12_000]))) as runtime:
        agent = await runtime.agent("bench")
        for _ in range(rng.randrange(12, 30)):
            fact = f"ZX-{rng.randrange(10**9)}"
            talk.append(fact)
            await agent.ask(f"the code is {fact} " + "word " * rng.randrange(1, 300))
        yield runtime, agent.id, talk, writes


async def _messages(runtime: Runtime, agent_id: str, ids: list[int]) -> list[Message]:
    return await runtime.store.read(lambda tx: tx.messages(agent_id, ids))


async def _anywhere(runtime: Runtime, agent_id: str, fact: str) -> bool:
    """Whether a fact the agent tried to keep is in core or archival memory."""
    blocks = await runtime.store.read(lambda tx: tx.blocks(agent_id))
    hits = await runtime.search(agent_id, SearchQuery(fact))
    return any(fact in b.value for b in blocks) or any(fact in hit.text for hit in hits)
