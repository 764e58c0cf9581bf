"""Rows about turns and steps."""

import asyncio
import json
import statistics
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from agentos.llm.litellm import LiteLLM
from agentos.messages import Message, Reply, Usage
from agentos.protocols import LLMRequest
from agentos.testing.llms import FunctionLLM, ScriptedLLM, call, say
from common import fake_server, home, p50, percentile, store_messages, timed

REPLY = Reply("That sounds good, let us do it.", usage=Usage(2000, 12))


async def http(folder: Path) -> str:
    """A whole turn against the fake server, and litellm alone doing the same request."""
    with fake_server() as url:
        llm = LiteLLM("openai/fake", api_base=url, api_key="none")
        async with home(folder, llm) as runtime:
            agent = await runtime.agent("bench")
            whole = await timed(lambda: agent.ask("hello there"), 100)
            request = (await agent.turn()).request()
        import litellm

        async def bare() -> None:
            stream = await litellm.acompletion(
                model="openai/fake", api_base=url, api_key="none", messages=request.messages, tools=request.tools,
                stream=True, stream_options={"include_usage": True},
            )  # fmt: skip
            async for _ in stream:
                pass

        alone = await timed(bare, 100)
    return f"{p50(whole):.1f} ms (bare litellm {p50(alone):.1f} ms)"


async def scripted(folder: Path) -> str:
    async with home(folder, FunctionLLM(lambda _: REPLY, keep_requests=False)) as runtime:
        agent = await runtime.agent("bench")
        return f"{p50(await timed(lambda: agent.ask('hello there'), 200)):.1f} ms"


async def chain(folder: Path) -> str:
    """Ten calls, each its own step, then an answer: the time of one step."""
    with fake_server() as url:
        async with home(folder, LiteLLM("openai/fake", api_base=url, api_key="none")) as runtime:
            agent = await runtime.agent("bench")
            result = await agent.ask("chain 10")
            taken = await timed(lambda: agent.ask("chain 10"), 10, warmup=1)
    return f"{p50(taken) / result.steps:.1f} ms ({result.steps} steps a turn)"


async def long_context(folder: Path) -> str:
    llm = FunctionLLM(lambda _: REPLY, context_window=1_000_000, keep_requests=False)
    async with home(folder, llm) as runtime:
        agent = await runtime.agent("bench")
        await store_messages(runtime, agent.id, 1000, in_queue=True)
        taken = await timed(lambda: agent.ask("hello there"), 100)
        assert len((await agent.state()).queue) > 1000
    return f"{p50(taken):.1f} ms"


async def many_stored(folder: Path) -> str:
    llm = FunctionLLM(lambda _: REPLY, context_window=1_000_000, keep_requests=False)
    async with home(folder, llm) as runtime:
        few, many = await runtime.agent("few"), await runtime.agent("many")
        await store_messages(runtime, few.id, 10, in_queue=False)
        await store_messages(runtime, many.id, 100_000, in_queue=False)
        ratios = []
        for _ in range(7):  # in turn, so that a drifting machine touches both alike
            a = await timed(lambda: few.ask("hello there"), 20, warmup=2)
            b = await timed(lambda: many.ask("hello there"), 20, warmup=2)
            ratios.append(p50(b) / p50(a))
    return f"{statistics.median(ratios):.2f} x"


async def prefix(folder: Path) -> str:
    """Core edits and archival inserts between the requests, no page-out."""
    script = []
    for n in range(20):
        script.append(say(f"noted {n}", call("core_memory_append", label="human", content=f"Fact {n}")))
        script.append(say(f"stored {n}", call("archival_memory_insert", content=f"Detail number {n}")))
    llm = ScriptedLLM(script, context_window=200_000)
    async with home(folder, llm) as runtime:
        agent = await runtime.agent("bench")
        for n in range(40):
            await agent.ask(f"message {n}")
    shares = [_repeated(a, b) for a, b in zip(llm.requests, llm.requests[1:], strict=False)]
    return f"{100 * min(shares):.1f} % at least, {100 * statistics.mean(shares):.1f} % on average, {len(shares)} pairs"


def _repeated(before: LLMRequest, after: LLMRequest) -> float:
    old, new = json.dumps(before.messages)[:-1], json.dumps(after.messages)
    same = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    return same / len(old)


async def model_calls(folder: Path) -> str:
    async with home(folder, model="offline") as runtime:
        agent = await runtime.agent("bench")
        result = await agent.ask("My name is Ada and I live in Porto.")
        human = next(b.value for b in (await agent.state()).blocks if b.label == "human")
    assert "Ada" in human, human
    assert "Porto" in human, human
    return str(result.llm_calls)


async def commits(folder: Path) -> str:
    """Every agent saves a step, waits 50 to 150 ms as for a quick model, and goes on; commits are timed alone."""
    async with home(folder, FunctionLLM(lambda _: REPLY)) as runtime:
        agents = [await runtime.agent(f"a{n}") for n in range(64)]
        turns = [await agent.turn() for agent in agents]
        taken: list[float] = []

        async def work(place: int) -> None:
            turn = turns[place]
            for n in range(30):
                message = _plain_message(turn.state.agent.id, n)
                started = time.perf_counter()
                await turn.commit(partial(_save, message=message))
                taken.append(1000 * (time.perf_counter() - started))
                await asyncio.sleep(0.05 + 0.1 * ((place * 31 + n * 17) % 100) / 100)

        started = time.perf_counter()
        await asyncio.gather(*(work(place) for place in range(64)))
        spread, rate = sorted(taken), len(taken) / (time.perf_counter() - started)
        burst: list[float] = []

        async def once(place: int, n: int) -> None:
            message = _plain_message(turns[place].state.agent.id, n)
            started = time.perf_counter()
            await turns[place].commit(partial(_save, message=message))
            burst.append(1000 * (time.perf_counter() - started))

        for n in range(100, 110):
            await asyncio.gather(*(once(place, n) for place in range(64)))
    burst.sort()
    return (
        f"{percentile(spread, 0.95):.1f} / {spread[-1]:.1f} ms at {rate:.0f} commits/s; "
        f"all 64 in the same instant {percentile(burst, 0.95):.1f} / {burst[-1]:.1f} ms"
    )


def _save(tx: Any, message: Message) -> None:
    tx.add_message(message)
    tx.update_agent(message.agent_id, last_seq=message.seq)


def _plain_message(agent_id: str, n: int) -> Message:
    return Message(0, agent_id, "assistant", f"step {n}", "agent", datetime.now(UTC), seq=n + 1)
