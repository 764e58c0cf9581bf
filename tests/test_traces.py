"""A run as it is traced, and the request as it is made again, from what is saved."""

import json
from typing import Any

from agentos import values
from agentos.errors import ProviderError
from agentos.events import PageOut
from agentos.messages import Usage
from agentos.testing import FunctionLLM, call, say
from conftest import Home, collect, of


async def trace(home: Home, agent_id: str, **page: Any) -> Any:
    def work(tx: Any) -> Any:
        return values.trace_value(tx, tx.run_page(False, None, None, 1, agent_ids=[agent_id])[0], **page)

    return await home.store.read(work)


def kinds(trace: Any) -> list[str]:
    return [entry["type"] for entry in trace["entries"]]


async def test_a_page_out_stands_between_the_messages_of_its_run(home: Home) -> None:
    agent = await home.agent(FunctionLLM(lambda request: "notes", context_window=8000))
    out: list[Any] = []
    while not out:
        out = of(await collect(agent, "word " * 120), PageOut.type)
    found = await trace(home, agent.id)
    shown = [entry for entry in found["entries"] if entry["type"] in ("page_out", "model_call")]
    assert {entry["type"] for entry in shown} >= {"page_out"}
    [receipt] = [entry["page_out"] for entry in shown if entry["type"] == "page_out"]
    assert receipt["messages"] == len(out[0].message_ids)
    assert [e["step"]["kind"] for e in shown if e["type"] == "model_call"] == ["summary"]
    assert await home.store.read(lambda tx: values.page_out_page(tx, agent.id)["page_outs"][0]["id"]) == receipt["id"]
    await collect(agent, "and on")
    filling = await home.store.read(lambda tx: values.filling_value(tx, agent.id))
    assert sum(step["page_out"] for step in filling) == 1


async def test_calls_have_their_results_also_across_pages(home: Home) -> None:
    script = [
        say("", *(call("core_memory_append", label="human", content=f"fact {n}") for n in range(3))),
        ProviderError("the model is away"),
    ]
    agent = await home.agent(FunctionLLM(lambda request: script.pop(0)))
    await collect(agent, "note it")
    whole = await trace(home, agent.id)
    assert (kinds(whole), whole["after"]) == (["input", "reply", "model_call"], None)
    assert [c["result"]["ok"] for c in whole["entries"][1]["message"]["calls"]] == [True] * 3
    assert "the model is away" in whole["entries"][2]["step"]["error"]
    assert (whole["run"]["status"], whole["run"]["input"]) == ("failed", "note it")
    pages, after = [], 0
    while after is not None:
        page = await trace(home, agent.id, after=after, limit=2)
        pages += kinds(page)
        after = page["after"]
    assert pages == ["input", "reply", "result", "result", "result", "model_call"]
    assert json.dumps(whole)


async def test_what_was_cached_is_laid_over_the_request_from_its_start(home: Home) -> None:
    class Cached(FunctionLLM):
        cached = 0

        def answer(self, request: Any) -> Any:
            tokens = sum(self.count_tokens(str(m)) for m in request.messages)
            return say("ok", usage=Usage(tokens, 1, tokens * self.cached // 100))

    llm = Cached(lambda request: llm.answer(request))
    agent = await home.agent(llm)
    before = await values.request_value(home, await agent.turn())  # type: ignore[arg-type]  # it has a store
    assert (before["sent"], before["exact"], before["step"]) == (False, False, None)
    await collect(agent, "first")
    llm.cached = 50
    await collect(agent, "second")
    found = await values.request_value(home, await agent.turn())  # type: ignore[arg-type]
    assert (found["sent"], found["exact"]) == (True, True)
    share = sum(p["cached"] for p in found["parts"]) / found["tokens"]
    assert 0.49 < share < 0.51
    cached = [p["cached"] / p["tokens"] for p in found["parts"]]
    assert cached == sorted(cached, reverse=True)
    assert [m["content"] for m in llm.requests[-1].messages][1:] == [
        p["text"] for p in found["parts"] if p["section"] == "messages"
    ]
    page = await values.request_value(home, await agent.turn(), limit=1)  # type: ignore[arg-type]
    rest = await values.request_value(home, await agent.turn(), after=page["after"])  # type: ignore[arg-type]
    assert [p["id"] for p in [*page["parts"], *rest["parts"]]] == [p["id"] for p in found["parts"]]


async def test_what_pages_ask_of_either_database(either_home: Home) -> None:
    script: list[Any] = [
        say("", call("archival_memory_insert", content="the boat Aurora lies in Porto", tags=["boat", "a b"])),
        "stored",
        say("", call("archival_memory_search", query="Aurora")),
        "in Porto",
        "ok",
    ]
    agent = await either_home.agent(FunctionLLM(lambda request: script.pop(0)))
    for text in ("store it", "where is it?", "thanks"):
        await collect(agent, text)

    def work(tx: Any) -> Any:
        said = tx.message_page(agent.id, None, 100)
        first = tx.message_page(agent.id, said[1], 1, role="user", end=said[0].created_at, start=said[-1].created_at)
        tagged = [tx.passage_page(agent.id, False, None, None, 9, tag=tag) for tag in ("boat", "a b", "a")]
        return (
            [m.content for m in tx.neighbours(said[3], 1)],
            first[0].content,
            list(map(len, tagged)),
            values.passage_values(tx, agent.id, tagged[0])[0]["last_used_at"],
            [run["input"] for run in values.run_page(tx, agent.id, stop_reason="end_turn", limit=2)["runs"]],
            values.conversation_value(tx, agent.id, limit=2)["messages"][0]["text"],
        )

    around, first, tagged, used, inputs, last = await either_home.store.read(work)
    assert around[2] == "in Porto"
    assert "Aurora" in around[1]
    assert (first, tagged, inputs, last) == ("where is it?", [1, 1, 0], ["thanks", "where is it?"], "thanks")
    assert used == values.local(either_home.clock.now())
