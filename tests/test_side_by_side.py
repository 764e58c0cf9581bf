"""Two processes on one home, and replies that are larger than the context can bear."""

import asyncio
import os
from pathlib import Path

from agentos import Runtime, Settings
from agentos.context.validator import violations
from agentos.messages import Reply, Usage
from agentos.protocols import LLMRequest
from agentos.testing import ExactIndex, FunctionLLM, HashEmbedder, call, say, temporary_runtime


def runtime(home: Path, llm: FunctionLLM) -> Runtime:
    """As another process would open it: nothing is shared but the files."""
    return Runtime(Settings(home=home), llm=llm, embedder=HashEmbedder(), index=ExactIndex())


async def test_a_second_process_waits_and_goes_on_from_what_is_saved(tmp_path: Path) -> None:
    waiting, go_on = asyncio.Event(), asyncio.Event()

    async def chain(request: LLMRequest) -> Reply:
        done = sum(1 for m in request.messages if m["role"] == "tool")
        if done == 2:
            waiting.set()
            await go_on.wait()
        if done == 4:
            return say("done")
        return say("", call("core_memory_append", label="human", content=f"fact {done}", request_heartbeat=True))

    other = FunctionLLM(lambda request: "hello from the other")
    async with runtime(tmp_path, FunctionLLM(chain)) as one, runtime(tmp_path, other) as two:
        first = asyncio.create_task((await one.agent("ada")).ask("chain"))
        await waiting.wait()
        agent = await two.agent("ada")
        second = asyncio.create_task(agent.ask("and me"))
        for _ in range(500):  # until it is accepted: on disk, waiting for the lock
            if await two.store.read(lambda tx: tx.waiting(agent.id)):
                break
            await asyncio.sleep(0.01)
        go_on.set()
        results = [await first, await second]
        queue = (await agent.state()).queue
        human = next(b.value for b in (await agent.state()).blocks if b.label == "human")
    assert [(r.reply, r.steps, len(r.tool_calls)) for r in results] == [("done", 5, 4), ("hello from the other", 1, 0)]
    assert human == "fact 0\nfact 1\nfact 2\nfact 3"
    assert [m.seq for m in queue] == list(range(1, len(queue) + 1))
    assert len(other.requests) == 1
    assert violations(other.requests[0].messages) == []


async def test_many_processes_may_make_the_same_agent_at_once(tmp_path: Path) -> None:
    homes = [runtime(tmp_path, FunctionLLM(lambda request: "ok")) for _ in range(4)]
    for home in homes:
        home.open()
    agents = await asyncio.gather(*(home.agent("new") for home in homes))
    assert len({agent.id for agent in agents}) == 1
    for home in homes:
        await home.close()


async def test_a_huge_reply_with_honest_usage_does_not_fill_the_context() -> None:
    replies = [Reply("word " * 100_000, usage=Usage(2000, 125_000)), "fine", "still fine"]
    async with temporary_runtime(FunctionLLM(lambda request: replies.pop(0))) as home:
        agent = await home.agent("ada")
        assert [(await agent.ask(text)).stop_reason for text in ("hi", "again", "and again")] == ["end_turn"] * 3
        room = (await agent.turn()).room()
        assert room.prompt_tokens < room.window.prompt


async def test_a_home_may_have_any_name(tmp_path: Path) -> None:
    home = tmp_path / "odd ?name=1 #%41 ü"
    async with runtime(home, FunctionLLM(lambda request: "ok")) as opened:
        await (await opened.agent("ada")).ask("hi")
    assert os.listdir(tmp_path) == [home.name]
    assert "agentos.db" in os.listdir(home)
