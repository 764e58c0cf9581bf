"""The cache ledger: what each model call expected of the provider's cache, why it expected nothing, what it used."""

from datetime import timedelta
from typing import Any

from agentos.errors import ProviderError
from agentos.messages import Usage
from agentos.protocols import LLMRequest
from agentos.state import StepRecord
from agentos.testing import FixedClock, FunctionLLM, say
from conftest import Home, collect, ending


def wants_notes(request: LLMRequest) -> bool:
    return "[summary request]" in (request.messages[-1]["content"] or "")


async def ledger(home: Home, agent: Any) -> list[StepRecord]:
    """The agent's steps, oldest first."""
    steps = await home.store.read(lambda tx: tx.steps(agent.id, limit=1000))
    return list(reversed(steps))


async def test_each_step_expects_the_previous_prompt(home: Home, clock: FixedClock) -> None:
    prompts = iter(range(1000, 9000, 100))
    llm = FunctionLLM(lambda r: say("Hm.", usage=Usage(next(prompts), 5)))
    agent = await home.agent(llm)
    for text in ("one", "two", "three"):
        await collect(agent, text)
    clock.advance(timedelta(hours=1))
    await collect(agent, "later")
    other = await home.agent(FunctionLLM(lambda r: "Ah.", name="test/other"))
    await collect(other, "who are you")
    steps = [(s.expected_cached_tokens, s.cache_note) for s in await ledger(home, agent)]
    assert steps == [(0, "start"), (1000, ""), (1100, ""), (0, "pause"), (0, "model")]


async def test_without_reported_usage_the_estimate_is_expected(home: Home) -> None:
    llm = FunctionLLM(lambda r: "Hm.")
    agent = await home.agent(llm)
    for text in ("one", "two"):
        await collect(agent, text)
    first, second = await ledger(home, agent)
    assert (first.expected_cached_tokens, first.cache_note) == (0, "start")
    assert (second.expected_cached_tokens, second.cache_note) == (first.estimated_tokens, "")
    assert first.estimated_tokens == first.usage.prompt_tokens > 0
    assert [r.previous_length for r in llm.requests] == [0, 2]


async def test_notes_of_a_page_out_are_paid_for_and_expect_the_cached_prompt(home: Home) -> None:
    def reply(request: LLMRequest) -> object:
        return say("Notes.", usage=Usage(4000, 9)) if wants_notes(request) else "ok " + "w " * 300

    agent = await home.agent(FunctionLLM(reply, context_window=8000))
    results = []
    while not any(s.kind == "summary" for s in await ledger(home, agent)):
        results.append(ending(await collect(agent, "message " + "x " * 200)))
    steps = await ledger(home, agent)
    place = next(i for i, s in enumerate(steps) if s.kind == "summary")
    notes, before = steps[place], steps[place - 1]
    assert (notes.expected_cached_tokens, notes.cache_note) == (before.usage.prompt_tokens, "")
    assert notes.estimated_tokens > before.estimated_tokens
    await collect(agent, "and now")
    assert (await ledger(home, agent))[-1].cache_note == "page_out"
    last = results[-1]
    mine = [s.usage for s in steps if s.run_id == last.run_id]
    assert sum((u.prompt_tokens for u in mine), 0) == last.usage.prompt_tokens
    assert len(mine) == last.llm_calls


async def test_notes_that_fail_leave_their_step(home: Home) -> None:
    def reply(request: LLMRequest) -> object:
        return ProviderError("no notes today") if wants_notes(request) else "ok " + "w " * 300

    agent = await home.agent(FunctionLLM(reply, context_window=8000))
    while not (failed := [s for s in await ledger(home, agent) if s.kind == "summary"]):
        result = ending(await collect(agent, "message " + "x " * 200))
    assert [s.error for s in failed] == ["no notes today"]
    assert (result.stop_reason, result.llm_calls) == ("end_turn", result.steps)
