"""Messages and archival memory by Letta's own client: what it sends, what it gets, and what happens in between."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from letta_client import (
    BadRequestError,
    ConflictError,
    InternalServerError,
    NotFoundError,
    RateLimitError,
    UnprocessableEntityError,
)

from agentos.dispatch import Dispatcher
from agentos.errors import ConfigError, ProviderError
from agentos.messages import Input, Reply
from agentos.protocols import Delta, LLMRequest
from agentos.runtime import Runtime
from agentos.server.letta.searching import MOST_AGENTS
from agentos.server.letta.turns import stream_run
from agentos.server.service import Service
from agentos.settings import Settings
from agentos.testing import ExactIndex, FunctionLLM, HashEmbedder, ScriptedLLM, call, say, temporary_runtime
from conftest import Home, collect, of
from serving import TOKEN, Served, served, until

pytestmark = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # of the client's methods
Hold = threading.Event


class Talker(FunctionLLM):
    """Streams a line of its script for each request: text, a `Delta`, a `Reply`; at a `Hold` it waits."""

    def __init__(self, *script: Iterable[str | Delta | Reply | Hold]) -> None:
        self.script = list(script)
        super().__init__(lambda request: "")

    async def stream(self, request: LLMRequest) -> AsyncGenerator[Any, None]:
        self.requests.append(request)
        said, reply = "", None
        for item in self.script.pop(0):
            if isinstance(item, Hold):
                while not item.is_set():  # noqa: ASYNC110  it is set by another thread
                    await asyncio.sleep(0.005)
            elif isinstance(item, Reply):
                reply = item
            else:
                delta = Delta(item) if isinstance(item, str) else item
                said += delta.text
                yield delta
        yield reply or Reply(said)


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """Starts a server whose model says what it is handed."""
    open_ones = []

    def start(*script: Any, llm: Any = None) -> Served:
        opened = served(llm or ScriptedLLM(script))
        open_ones.append(opened)
        return opened.__enter__()

    yield start
    for opened in open_ones:
        opened.__exit__(None, None, None)


def user(text: str, **values: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text, **values}]


def kinds(values: Iterable[Any]) -> list[str]:
    return [value.message_type for value in values]


TOOLS = say("Let me note that.", call("archival_memory_insert", content="tea", request_heartbeat=True))


# reading back


def test_history_by_pages_never_ends_inside_a_message(serve: Callable[..., Served]) -> None:
    home = serve(TOOLS, "Done.", "Again.", "b")
    letta, ada = home.letta, home.letta.agents.create(name="ada").id
    other = home.letta.agents.create(name="bob").id
    for agent, text in ((ada, "one"), (ada, "two"), (other, "three")):
        letta.agents.messages.create(agent, messages=user(text))
    whole = list(letta.agents.messages.list(ada, order="asc"))
    assert kinds(whole) == [
        "user_message", "assistant_message", "tool_call_message", "tool_return_message", "assistant_message",
        "user_message", "assistant_message",
    ]  # fmt: skip
    assert len({m.id for m in whole}) == 6
    assert [m.otid for m in letta.agents.messages.list(ada)] == [m.otid for m in whole][::-1]
    for limit in (1, 2):
        for order in ("asc", "desc"):
            pages = letta.agents.messages.list(ada, order=order, limit=limit).iter_pages()
            seen = [[m.id for m, *_ in [list(g) for _, g in groupby(p.items, key=lambda m: m.id)]] for p in pages]
            assert all(len(page) == limit for page in seen[:-1] if page), "a limit counts messages with all their parts"
            expected = [key for key, _ in groupby(m.id for m in whole)]
            assert [key for page in seen for key in page] == (expected if order == "asc" else expected[::-1])
    last = letta.agents.messages.list(ada, before=whole[-1].id, order="asc", limit=2)
    assert [m.id for m in last.items] == [m.id for m in whole[-3:-1]], (
        "the page nearest to the cursor, in listing order"
    )
    assert len(list(last)) == 6, "and on to the beginning"
    only = letta.agents.messages.list(ada, include_return_message_types=["assistant_message"], limit=1)
    assert [m.content for m in only] == ["Again.", "Done.", "Let me note that."]
    assert kinds(letta.agents.messages.list(ada, include_return_message_types=["tool_return_message"])) == [
        "tool_return_message"
    ]
    assert list(letta.agents.messages.list(ada, include_return_message_types=["approval_request_message"])) == []
    for cursor in ("message-1", whole[0].id[:-1] + "99", next(iter(letta.agents.messages.list(other))).id):
        with pytest.raises(NotFoundError):
            letta.agents.messages.list(ada, after=cursor)
    with pytest.raises(NotFoundError):
        letta.agents.messages.list("agent-none")


def test_messages_of_all_agents_and_one_by_its_id(serve: Callable[..., Served]) -> None:
    home = serve(TOOLS, "Done.", "b")
    letta = home.letta
    ada, bob = (letta.agents.create(name=name).id for name in ("ada", "bob"))
    letta.agents.messages.create(ada, messages=user("one"))
    letta.agents.messages.create(bob, messages=user("two"))
    whole = letta.messages.list(order="asc")
    assert kinds(whole) == [
        "user_message", "assistant_message", "tool_call_message", "tool_return_message", "assistant_message",
        "user_message", "assistant_message",
    ]  # fmt: skip
    assert [m.id for m in letta.messages.list(limit=2)] == [m.id for m in whole[:-3:-1]]
    assert [m.id for m in letta.messages.list(limit=2, after=whole[-2].id)] == [whole[-3].id, whole[-4].id]
    assert kinds(letta.messages.retrieve(whole[1].id)) == ["assistant_message", "tool_call_message"]
    for unknown in ("message-1", whole[0].id[:-1] + "77"):
        with pytest.raises(NotFoundError):
            letta.messages.retrieve(unknown)


def test_a_summary_stands_behind_what_it_covers(serve: Callable[..., Served]) -> None:
    home = serve("a", "b", "c", "They talked.", "d")
    letta, ada = home.letta, home.letta.agents.create(name="ada").id
    for text in ("walnut", "plum", "quince"):
        letta.agents.messages.create(ada, messages=user(text))
    done = letta.agents.messages.compact(ada)
    assert (done.num_messages_before, done.num_messages_after) == (6, 2)
    assert "walnut" in done.summary
    assert "They talked." in done.summary
    listed = list(letta.agents.messages.list(ada, order="asc"))
    assert kinds(listed) == [
        *["user_message", "assistant_message"] * 2, "summary_message", "user_message", "assistant_message",
    ]  # fmt: skip
    assert "They talked." in listed[4].summary
    for order in ("asc", "desc"):
        paged = [m.id for m in letta.agents.messages.list(ada, order=order, limit=1)]
        assert paged == [m.id for m in (listed if order == "asc" else listed[::-1])]
    back = letta.agents.messages.list(ada, order="desc", before=listed[4].id, limit=1)
    assert [m.id for m in back] == [listed[5].id, listed[6].id]
    assert [m.id for m in letta.agents.messages.list(ada, include_return_message_types=["summary_message"])] == [
        listed[4].id
    ]
    assert kinds(letta.messages.retrieve(listed[4].id)) == ["summary_message"]
    letta.agents.messages.reset(ada)
    letta.agents.messages.create(ada, messages=user("four"))
    shown = str(home.llm.requests[-1].messages)
    assert "four" in shown
    assert "quince" not in shown
    assert "They talked." not in shown
    assert letta.messages.search(query="quince", agent_id=ada)[0].content == "quince", "every message is still found"


def test_search_of_messages(serve: Callable[..., Served]) -> None:
    home = serve(llm=FunctionLLM(lambda request: "I see."))
    letta = home.letta
    ada, bob = (letta.agents.create(name=name).id for name in ("ada", "bob"))
    letta.agents.messages.create(ada, messages=user("the cat is called Minka"))
    letta.agents.messages.create(ada, messages=user("it rains in Porto"))
    letta.agents.messages.create(bob, messages=user("the cat is called Tom"))
    (found,) = letta.messages.search(query="Minka", agent_id=ada)
    assert (found.message_type, found.agent_id) == ("user_message", ada)
    assert letta.messages.retrieve(found.message_id)[0].content == found.content == "the cat is called Minka"
    both = letta.messages.search(query="what is the cat called", search_mode="fts")
    assert {m.agent_id for m in both} >= {ada, bob}
    assert len(letta.messages.search(query="cat", limit=1)) == 1
    today = found.created_at.date().isoformat()
    assert letta.messages.search(query="Minka", agent_id=ada, start_date=today, end_date=today)
    assert not letta.messages.search(query="Minka", agent_id=ada, end_date="2020-01-01T00:00:00+02:00")
    with pytest.raises(BadRequestError, match="no ISO date"):
        letta.messages.search(query="Minka", start_date="soon")
    with pytest.raises(InternalServerError, match="conversations are not supported"):
        letta.messages.search(query="Minka", conversation_id="conv-1")


# sending


def test_one_otid_is_one_turn(serve: Callable[..., Served]) -> None:
    home = serve("first", "second")
    letta, ada = home.letta, home.letta.agents.create(name="ada").id
    for _ in range(2):
        done = letta.agents.messages.create(ada, messages=user("hello", otid="o1"))
        assert [m.content for m in done.messages] == ["first"]  # type: ignore[union-attr]
    with letta.agents.messages.stream(ada, messages=user("hello", otid="o1")) as stream:
        assert kinds(stream) == ["assistant_message", "stop_reason", "usage_statistics"]
    with pytest.raises(ConflictError, match="o1") as refused:
        letta.agents.messages.create(ada, messages=user("another", otid="o1"))
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert letta.agents.messages.create(ada, messages=user("hello", otid="o2")).usage.step_count == 1
    assert len(list(letta.runs.list(agent_id=ada))) == 2


def test_a_retry_without_a_key_joins_its_first(serve: Callable[..., Served]) -> None:
    hold = Hold()
    home = serve(llm=Talker(["a", hold], ["b"]))
    ada, body = home.letta.agents.create(name="ada").id, {"messages": user("hello")}

    def post(retry: int) -> Any:
        return home.http.post(f"/v1/agents/{ada}/messages", json=body, headers={"x-stainless-retry-count": f"{retry}"})

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(post, 0)
        until(lambda: home.llm.requests)
        again = [pool.submit(post, retry) for retry in (1, 2)]
        time.sleep(0.05)
        hold.set()
        answers = [answer.result().json() for answer in (first, *again)]
    assert answers[0] == answers[1] == answers[2]
    assert post(0).json()["messages"][0]["content"] == "b", "the same words, said anew"
    assert home.http.post(f"/v1/agents/{ada}/messages", headers={"x-stainless-retry-count": "x"}).status_code == 422


def test_what_a_turn_may_consist_of(serve: Callable[..., Served]) -> None:
    home = serve(llm=FunctionLLM(lambda request: "ok"))
    letta, ada = home.letta, home.letta.agents.create(name="ada").id
    send = letta.agents.messages.create
    send(ada, messages=[*user("one"), *user([{"type": "text", "text": "two"}, {"type": "text", "text": "three"}])])
    send(ada, input="four")
    send(ada, messages=[{"role": "system", "content": "be brief"}])
    send(ada, messages=[{"role": "user", "content": "six", "name": "Eva"}])
    shown = [str(m["content"]).split("] ", 1)[-1] for m in home.llm.requests[-1].messages if m["role"] == "user"]
    assert shown == ["one", "two\nthree", "four", "[system notice] be brief", "six"]
    assert kinds(letta.agents.messages.list(ada, order="asc"))[:5] == [
        "user_message", "user_message", "assistant_message", "user_message", "assistant_message",
    ]  # fmt: skip
    assert kinds(letta.agents.messages.list(ada, limit=4).items) == [
        "assistant_message", "user_message", "assistant_message", "system_message",
    ]  # fmt: skip
    assert len(home.llm.requests) == 4
    for refused, error, words in (
        ([], BadRequestError, "empty"),
        (user(" "), BadRequestError, "empty"),
        ([{"role": "assistant", "content": "I said"}], BadRequestError, "assistant"),
        ([{"type": "approval", "approve": True}], ConflictError, "no call"),
        ([*user("and"), {"type": "approval", "approve": True}], BadRequestError, "stands alone"),
        ([{"type": "tool_return", "tool_returns": []}], InternalServerError, "tool_return"),
        (user([{"type": "image", "source": {}}]), InternalServerError, "image"),
    ):
        with pytest.raises(error, match=words):
            send(ada, messages=refused)
    assert len(list(letta.runs.list(agent_id=ada))) == 4, "what is refused leaves nothing behind"


def test_what_the_system_says_waits_for_its_own_turn(serve: Callable[..., Served]) -> None:
    hold = Hold()
    home = serve(llm=Talker([hold, TOOLS], ["b"], ["c"]))
    letta, ada = home.letta, home.letta.agents.create(name="ada").id
    first = letta.agents.messages.create_async(ada, messages=user("one"))
    until(lambda: home.llm.requests)
    second = letta.agents.messages.create_async(ada, messages=[{"role": "system", "content": "two"}])
    hold.set()
    until(lambda: letta.runs.retrieve(second.id).status == "completed")
    assert [m.content for m in letta.runs.messages.list(first.id) if m.message_type == "assistant_message"] == [
        "Let me note that.", "b",
    ]  # fmt: skip
    assert kinds(letta.runs.messages.list(second.id)) == ["system_message", "assistant_message"]


async def test_what_the_system_says_is_heard_once(home: Home) -> None:
    llm = FunctionLLM(lambda request: "ok")
    agent = await home.agent(llm)
    await collect(agent, "hello")
    await agent.accept([Input("be brief", origin="runtime", kind="alert", name="system")])
    events = await collect(await home.agent(llm))  # as another process finds it
    assert not of(events, "alert")
    assert [str(m["content"]).count("be brief") for m in llm.requests[-1].messages] == [0, 0, 0, 1]


def test_too_much_that_waits_is_refused(serve: Callable[..., Served]) -> None:
    hold = Hold()
    home = serve(llm=Talker(["a", hold], ["b"]))
    letta, ada = home.letta, home.letta.agents.create(name="ada").id
    home.service.dispatcher.most_waiting = (1, 10)
    letta.agents.messages.create_async(ada, messages=user("one"))
    until(lambda: home.llm.requests)
    letta.agents.messages.create_async(ada, messages=user("two"))
    with pytest.raises(RateLimitError) as refused:
        letta.agents.messages.create_async(ada, messages=user("three"))
    assert int(refused.value.response.headers["retry-after"]) > 0
    hold.set()
    until(lambda: len(list(letta.runs.list(statuses=["completed"]))) == 2)


# streams


def test_pieces_make_exactly_what_is_saved(serve: Callable[..., Served]) -> None:
    thought, noted = Delta(reasoning="Hm, \ud800 "), say("\n\n", call("archival_memory_insert", content="tea"))
    fields = {"name": "test", "fields": {"reasoning_content": "Hm, \ufffd so be it."}}
    home = serve(
        llm=Talker(
            ["\n", "\n", Reply("\n\n", calls=noted.calls)],
            [
                thought,
                Delta(reasoning="so be it."),
                " one",
                " two\x00",
                "\ud83d",
                Reply(" one two\x00\ud83d", provider=fields),
            ],
        )
    )
    letta, ada = home.letta, home.letta.agents.create(name="ada").id
    with letta.agents.messages.stream(ada, messages=user("hello"), stream_tokens=True) as stream:
        values = list(stream)
    saved = [m for m in letta.agents.messages.list(ada, order="asc") if m.message_type != "user_message"]
    assert list(dict.fromkeys(kinds(values))) == [
        "tool_call_message", "tool_return_message", "reasoning_message", "assistant_message", "stop_reason",
        "usage_statistics",
    ]  # fmt: skip
    for kind, field in (("assistant_message", "content"), ("reasoning_message", "reasoning")):
        pieces = [v for v in values if v.message_type == kind]
        (whole,) = [m for m in saved if m.message_type == kind]
        assert "".join(getattr(v, field) for v in pieces) == getattr(whole, field)
        assert {(v.id, v.otid) for v in pieces} == {(whole.id, whole.otid)}
    assert [v.seq_id for v in values[:-2]] == sorted(v.seq_id for v in values[:-2])
    run = values[0].run_id
    seqs = [v.seq_id for v in values[:-2]]
    for at, seq in enumerate(seqs):
        with letta.runs.messages.stream(run, starting_after=seq) as again:
            rest = list(again)
        assert text_of(rest) == text_of(values[at + 1 :]), "it goes on behind what was seen"
        assert [k for k in kinds(rest) if "tool" in k] == [k for k in kinds(values[at + 1 :]) if "tool" in k]
        assert kinds(rest)[-2:] == ["stop_reason", "usage_statistics"]


def text_of(values: Iterable[Any]) -> str:
    """What streamed messages say, joined."""
    return "".join(str(getattr(v, "content", None) or getattr(v, "reasoning", None) or "") for v in values)


def test_streams_without_tokens_and_of_chosen_types(serve: Callable[..., Served]) -> None:
    home = serve(TOOLS, "Done.", "b", "c")
    letta, ada = home.letta, home.letta.agents.create(name="ada").id
    with letta.agents.messages.stream(ada, messages=user("hello")) as stream:
        assert kinds(stream) == [
            "assistant_message", "tool_call_message", "tool_return_message", "assistant_message", "stop_reason",
            "usage_statistics",
        ]  # fmt: skip
    with letta.agents.messages.create(ada, messages=user("hello"), streaming=True) as stream:
        assert kinds(stream) == ["assistant_message", "stop_reason", "usage_statistics"]
    chosen: Any = ["tool_return_message"]
    with letta.agents.messages.stream(ada, messages=user("x"), include_return_message_types=chosen) as stream:
        assert kinds(stream) == ["stop_reason", "usage_statistics"]
    raw = home.http.post(f"/v1/agents/{ada}/messages/stream", json={"messages": user("hello", otid="x")})
    lines = raw.text.split("\n\n")
    assert raw.headers["content-type"].startswith("text/event-stream")
    assert lines[-2:] == ["data: [DONE]", ""]
    assert all(line.startswith("data: ") for line in lines[:-1])


def test_a_client_that_leaves_stops_no_turn_and_can_come_back(serve: Callable[..., Served]) -> None:
    hold = Hold()
    home = serve(llm=Talker(["one ", hold, "two"]))
    letta, ada = home.letta, home.letta.agents.create(name="ada").id
    with letta.agents.messages.stream(ada, messages=user("hello"), stream_tokens=True) as stream:
        first = next(iter(stream))
    assert (first.content, letta.runs.retrieve(first.run_id).status) == ("one ", "running")
    again = letta.runs.messages.stream(first.run_id, starting_after=first.seq_id)
    with ThreadPoolExecutor(1) as pool, again:
        later = pool.submit(list, again)
        hold.set()
        assert text_of(later.result()) == "two"
    assert letta.runs.retrieve(first.run_id).status == "completed"
    with letta.runs.messages.stream(first.run_id) as whole:
        assert text_of(whole) == "one two"


def test_a_turn_may_be_given_fewer_steps(serve: Callable[..., Served]) -> None:
    def step(request: LLMRequest) -> Reply:
        return say("", call("set_timer", when=f"{len(request.messages)}h", request_heartbeat=True))

    home = serve(llm=FunctionLLM(step))
    messages, ada = home.letta.agents.messages, home.letta.agents.create(name="ada").id
    done = messages.create(ada, messages=user("go"), max_steps=2)
    assert (done.stop_reason.stop_reason, done.usage.step_count) == ("max_steps", 2)
    for streaming in (
        messages.stream(ada, messages=user("go"), max_steps=1),
        home.letta.conversations.messages.create("default", agent_id=ada, messages=user("go"), max_steps=1),
    ):
        *_, usage = list(streaming)
        assert usage.step_count == 1  # type: ignore[union-attr]
    run = messages.create_async(ada, messages=user("go"), max_steps=1)
    assert run.background
    until(lambda: home.letta.runs.retrieve(run.id).stop_reason == "max_steps")
    for wrong in (0, -1, 2**40):
        with pytest.raises(UnprocessableEntityError):
            messages.create(ada, messages=user("go"), max_steps=wrong)


async def test_a_message_that_begins_anew_is_streamed_whole() -> None:
    """What was sent cannot be taken back; behind it stands the whole message, and no splice of two."""

    class Breaking(Talker):
        async def stream(self, request: LLMRequest) -> AsyncGenerator[Any, None]:
            async with aclosing(super().stream(request)) as items:
                async for item in items:
                    if isinstance(item, Reply) and item.text == "Hello wor":
                        raise RuntimeError("a bug")
                    yield item

    hold, again = Hold(), Hold()
    llm = Breaking(["Hello wor", hold], ["Hi", again, " there, Ada."])
    async with asyncio.timeout(10), temporary_runtime(llm) as runtime:
        dispatcher = Dispatcher(runtime, rest_seconds=(0.0,))
        service, agent = Service(runtime, dispatcher, TOKEN), await runtime.agent("ada")
        item = await dispatcher.accept(agent.id, ["hello"])
        run = await runtime.store.read(lambda tx: tx.run(item.run_id))
        said: list[str] = []
        async with aclosing(stream_run(service, run, tokens=True)) as values:
            async for value in values:
                if value is not None and value["message_type"] == "assistant_message":
                    said.append(value["content"])
                    (again if hold.is_set() else hold).set()
                    while len(said) == 1 and dispatcher.running:  # noqa: ASYNC110  until the turn has broken off
                        await asyncio.sleep(0.005)
                    await dispatcher.sweep()
        await dispatcher.stop(1)
    assert "".join(said) == "Hello worHi there, Ada."


async def test_a_run_is_streamed_again_after_a_restart(tmp_path: Path) -> None:
    def opened(llm: Any) -> Runtime:
        return Runtime(Settings(home=tmp_path), llm=llm, embedder=HashEmbedder(), index=ExactIndex())

    async with opened(ScriptedLLM([TOOLS, ProviderError("down")])) as runtime:
        agent = await runtime.agent("ada")
        service = Service(runtime, Dispatcher(runtime), TOKEN)
        item = await service.dispatcher.accept(agent.id, ["hello"], otid="o")
        assert await service.dispatcher.result(item)
        await service.dispatcher.stop(1)
    async with opened(ScriptedLLM(["Done."])) as runtime:
        service = Service(runtime, Dispatcher(runtime), TOKEN)
        item = await service.dispatcher.accept(agent.id, ["hello"], otid="o")
        run = await runtime.store.read(lambda tx: tx.run(item.run_id))
        async with aclosing(stream_run(service, run, tokens=True)) as stream:
            values = [value async for value in stream if value]
        assert text_of(map(_Value, values)) == "Let me note that.Done."
        async with aclosing(stream_run(service, run, tokens=True, after=values[2]["seq_id"])) as stream:
            rest = [value async for value in stream if value]
        assert [v["seq_id"] for v in rest[:-2]] == [v["seq_id"] for v in values[3:-2]]
        assert rest[-2:] == values[-2:]
        await service.dispatcher.stop(1)


class _Value:
    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)


class LateReads:
    """A store that hands over what one of its reads found only after `late` is set."""

    def __init__(self, store: Any) -> None:
        self._store, self.late, self.before = store, asyncio.Event(), -1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def read(self, work: Any) -> Any:
        value, self.before = await self._store.read(work), self.before - 1
        if self.before == -1:
            await self.late.wait()
        return value


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_end_that_comes_while_the_database_is_read_is_not_missed(streamed: bool) -> None:
    async def reply(request: LLMRequest) -> str:
        if "more" in str(request.messages):
            await asyncio.wait_for(over.wait(), 10)
            return "more"
        reads.before = 0 if streamed else 1  # the first of those that look for the end
        waiting.append(asyncio.create_task(look()))
        await asyncio.sleep(0.02)
        return "ok"

    async def look() -> Any:
        if streamed:
            return [value async for value in stream_run(service, run, tokens=False)]
        return await service.dispatcher.result(item)

    waiting: list[asyncio.Task[Any]] = []
    over = asyncio.Event()
    async with temporary_runtime(FunctionLLM(reply)) as runtime:
        reads = LateReads(runtime.store)
        runtime.store = reads  # type: ignore[assignment]
        agent, service = await runtime.agent("ada"), Service(runtime, Dispatcher(runtime), TOKEN)
        item = await service.dispatcher.accept(agent.id, ["hello"])
        run = await runtime.store.read(lambda tx: tx.run(item.run_id))
        await service.dispatcher.accept(agent.id, ["more"])  # what keeps the agent busy
        while len(runtime.llm().requests) < 2:  # type: ignore[attr-defined]  # noqa: ASYNC110  it tells nobody
            await asyncio.sleep(0.005)
        reads.late.set()
        assert await asyncio.wait_for(waiting[0], 3)
        over.set()
        await service.dispatcher.stop(3)


def test_who_waits_long_hears_something(serve: Callable[..., Served]) -> None:
    hold = Hold()
    home = serve(llm=Talker([hold, "late"]))
    ada = home.letta.agents.create(name="ada").id
    home.service.keep_alive_seconds = 0.05
    body = {"messages": user("hello", otid="o")}
    path = f"/v1/agents/{ada}/messages"
    quiet = body | {"include_pings": False}
    with ThreadPoolExecutor(3) as pool:
        plain = pool.submit(home.http.post, path, json=body)
        pinged = pool.submit(home.http.post, f"{path}/stream", json=body)
        silent = pool.submit(home.http.post, f"{path}/stream", json=quiet)
        until(lambda: home.llm.requests)
        time.sleep(0.3)
        hold.set()
    assert plain.result().text.startswith("  ")
    assert plain.result().json()["messages"][0]["content"] == "late"
    assert 2 <= pinged.result().text.count('"ping"') <= 20
    assert '"ping"' not in silent.result().text
    assert silent.result().text.startswith(": ")


def test_a_failure_is_an_answer(serve: Callable[..., Served]) -> None:
    home = serve(ProviderError("the model is down"), ProviderError("still down"), "back", ConfigError("a bad key"))
    letta, ada = home.letta, home.letta.agents.create(name="ada").id
    done = letta.agents.messages.create(ada, messages=user("hello", otid="o1"))
    assert (done.stop_reason.stop_reason, done.messages) == ("llm_api_error", [])
    with letta.agents.messages.stream(ada, messages=user("hello", otid="o1")) as stream:
        failure, *end = list(stream)
    assert (failure.message_type, failure.message) == ("error_message", "still down")
    assert (kinds(end), end[0].stop_reason) == (["stop_reason", "usage_statistics"], "llm_api_error")
    (run,) = letta.runs.list(agent_id=ada)
    assert (run.status, run.stop_reason) == ("failed", "llm_api_error")
    again = letta.agents.messages.create(ada, messages=user("hello", otid="o1"))
    assert (again.messages[-1].content, again.usage.run_ids) == ("back", [run.id])  # type: ignore[union-attr]
    begun = time.monotonic()
    refused = letta.agents.messages.create(ada, messages=user("a bad key"))
    assert refused.stop_reason.stop_reason == "llm_api_error"
    assert time.monotonic() - begun < 5, "its client need not wait to be told"


def test_cancelling_what_runs_and_what_waits(serve: Callable[..., Served]) -> None:
    hold = Hold()
    home = serve(llm=Talker(["one \n", hold], ["three"]))
    letta, ada = home.letta, home.letta.agents.create(name="ada").id
    waiting = None
    with letta.agents.messages.stream(ada, messages=user("hello"), stream_tokens=True) as stream:
        values = [next(iter(stream))]
        waiting = letta.agents.messages.create_async(ada, messages=user("two"))
        assert waiting.status == "created"
        answer = letta.agents.messages.cancel(ada)
        values += list(stream)
    run_id = values[0].run_id
    assert answer == {run_id: "cancelled", waiting.id: "cancelled"}
    assert (text_of(values), values[-2].stop_reason) == ("one \n[cut off]", "cancelled")
    until(lambda: {r.status for r in letta.runs.list(agent_id=ada)} == {"cancelled"})
    assert letta.agents.messages.cancel(ada, run_ids=[run_id, "run-none"]) == {run_id: "failed", "run-none": "failed"}
    assert letta.agents.messages.create(ada, messages=user("go on")).messages[0].content == "three"  # type: ignore[union-attr]
    assert "two" not in str(home.llm.requests[-1].messages)


def test_an_agent_that_is_deleted_keeps_nobody_waiting(serve: Callable[..., Served]) -> None:
    home = serve("never said")
    ada = home.letta.agents.create(name="ada").id
    home.service.dispatcher.stopping = True  # nothing is begun
    chat = {"model": "ada", "messages": user("hello"), "stream": True, "stream_options": {"include_usage": True}}
    with ThreadPoolExecutor(3) as pool:
        streaming = [
            pool.submit(home.http.post, f"/v1/agents/{ada}/messages/stream", json={"messages": user("hello")}),
            pool.submit(home.http.post, "/v1/chat/completions", json=chat),
        ]
        own = pool.submit(home.http.post, "/agentos/v1/agents/ada/turns", json={"text": "hello"})
        until(lambda: len(list(home.letta.runs.list(agent_id=ada))) == 3)
        home.run(home.service.runtime.delete_agent(ada))
        last = json.loads(own.result().text.strip().rpartition("data: ")[2])
        assert (last["type"], last["stop_reason"]) == ("result", "cancelled")
        assert "this agent was deleted" in last["error"]
        for stream in streaming:
            assert "the agent was deleted" in stream.result().text
            assert stream.result().text.endswith("data: [DONE]\n\n")
    assert home.http.post(f"/v1/agents/{ada}/messages", json={"messages": user("hello")}).status_code == 404


def test_the_default_conversation_is_the_agents_own(serve: Callable[..., Served]) -> None:
    home = serve("a", "b")
    letta, ada = home.letta, home.letta.agents.create(name="ada").id
    with letta.conversations.messages.create("default", agent_id=ada, messages=user("hello")) as stream:
        first, *_ = list(stream)
    assert first.content == "a"  # type: ignore[union-attr]
    assert kinds(letta.conversations.messages.list("default", agent_id=ada)) == ["assistant_message", "user_message"]
    with letta.conversations.messages.stream("default", run_id=first.run_id) as stream:  # type: ignore[union-attr]
        assert text_of(stream) == "a"
    for asked in (
        lambda: letta.conversations.create(agent_id=ada),
        lambda: letta.conversations.messages.create("conv-1", agent_id=ada, messages=user("hello")),
        lambda: letta.archives.list(),
        lambda: letta.mcp_servers.list(),
        lambda: letta.folders.create(name="x"),
        lambda: letta.agents.folders.list(ada),
        lambda: letta.agents.files.close_all(ada),
    ):
        with pytest.raises(InternalServerError) as refused:
            asked()
        assert refused.value.status_code == 501
        assert "is not supported; " in str(refused.value)
        assert refused.value.response.headers["x-should-retry"] == "false"
    for path in ("/v1/nothing", "/v1/templates", "/v1/environments", f"/v1/agents/{ada}/identities/attach/x"):
        assert home.http.get(path).status_code == 404, path
    assert home.http.put("/v1/runs/").status_code == 405


# what does not grow with the home


def test_lists_and_searches_of_many_agents_have_an_end(serve: Callable[..., Served]) -> None:
    home = serve(llm=FunctionLLM(lambda request: "ok"))
    names = [f"a{n:03}" for n in range(MOST_AGENTS + 1)]
    idents = {name: home.create(name) for name in names}
    for name in names[:2]:
        home.letta.agents.passages.create(idents[name], text="tea at four")
    assert [p.metadata["agent_id"] for p in home.letta.passages.search(query="tea")] == [idents["a001"]]  # type: ignore[index]
    assert home.letta.passages.search(query="tea", agent_id=idents["a000"])
    home.letta.agents.messages.create(idents["a000"], messages=user("I like tea"))
    assert {m.agent_id for m in home.letta.messages.search(query="tea")} == {idents["a000"]}

    def listed(**query: Any) -> list[str]:
        answer = home.http.get("/agentos/v1/agents", params=query)
        return [agent["name"] for agent in answer.json()] if answer.status_code == 200 else [str(answer.status_code)]

    assert listed() == names[:100]
    assert listed(limit=2, after=idents["a001"]) == names[2:4]
    assert listed(after=idents[names[-1]]) == []
    assert (listed(limit=0), listed(limit=1001), listed(after="agent-none")) == (["422"], ["422"], ["404"])
    first, last = (
        home.http.get("/v1/models", params=q).json() for q in ({"limit": 2}, {"after": f"plain/{names[-2]}"})
    )
    assert [m["id"] for m in first["data"]] == ["a000", "plain/a000", "a001", "plain/a001"]
    assert ([m["id"] for m in last["data"]], last["has_more"]) == ([names[-1], f"plain/{names[-1]}"], False)
    assert first["has_more"]
    assert home.http.get("/v1/models", params={"after": "nobody"}).status_code == 404


def test_a_page_out_is_refused_while_a_turn_runs(serve: Callable[..., Served]) -> None:
    hold = Hold()
    home = serve(llm=Talker(["one", hold], ["two"]))
    ada = home.letta.agents.create(name="ada").id
    home.letta.agents.messages.create_async(ada, messages=user("hello"))
    until(lambda: home.llm.requests)
    answer = home.http.post("/agentos/v1/agents/ada/compact")
    assert (answer.status_code, "a turn of this agent is running" in answer.json()["detail"]) == (409, True)
    hold.set()
    until(lambda: not home.letta.runs.list(agent_id=ada, active=True).items)
    assert home.http.post("/agentos/v1/agents/ada/compact").status_code == 200


# archival memory


def test_archival_memory(serve: Callable[..., Served]) -> None:
    home = serve("ok")
    letta, ada = home.letta, home.letta.agents.create(name="ada").id
    other = home.letta.agents.create(name="bob").id
    passages = letta.agents.passages
    made = [
        passages.create(ada, text=text, tags=tags, created_at=when)[0]
        for text, tags, when in (
            ("tea at four", ["drink", "daily"], "2025-03-04T05:06:07.123456+02:00"),
            ("coffee at eight", ["drink"], "2025-01-01"),
            ("100% rain_coat", [], "2025-01-01"),
        )
    ]
    made += passages.create(ada, text=" a new one ")
    assert [p.text for p in made][-1] == "a new one"
    assert made[0].created_at is not None
    assert made[0].created_at.isoformat() == "2025-03-04T03:06:07.123456+00:00"
    again = passages.create(ada, text="tea at four", tags=["hot"])[0]
    assert (again.id, again.tags) == (made[0].id, ["drink", "daily", "hot"])
    order = [made[1], made[2], made[0], made[3]]
    assert [p.id for p in passages.list(ada)] == [p.id for p in order]
    assert [p.id for p in passages.list(ada, ascending=False, limit=3)] == [p.id for p in order[:0:-1]]
    assert [p.id for p in passages.list(ada, after=made[1].id, limit=2)] == [made[2].id, made[0].id]
    assert [p.id for p in passages.list(ada, before=made[3].id, limit=2)] == [made[2].id, made[0].id]
    assert [p.text for p in passages.list(ada, search="% RAIN_")] == ["100% rain_coat"]

    def search(query: str, **values: Any) -> list[str]:
        found = passages.search(ada, query=query, **values)
        assert found.count == len(found.results)
        return [result.content for result in found.results]

    assert search("what do they drink at four")[0] == "tea at four"
    assert set(search("tea coffee", tags=["daily", "drink"])) == {"tea at four", "coffee at eight"}
    assert search("tea coffee", tags=["daily", "drink"], tag_match_mode="all") == ["tea at four"]
    assert search("at", start_datetime="2025-01-01", end_datetime="2025-01-01", tags=["drink"]) == ["coffee at eight"]
    assert len(search("tea coffee rain", top_k=1)) == 1
    found = letta.passages.search(query="tea", agent_id=ada, limit=1)
    assert (found[0].passage.id, found[0].passage.tags) == (made[0].id, again.tags)
    assert letta.passages.search(query="coffee")[0].passage.text == "coffee at eight"
    passages.delete(made[0].id, agent_id=ada)
    assert "tea at four" not in search("tea at four")
    assert [p.id for p in passages.list(ada, after=made[0].id)] == [made[3].id], "a deleted one is still a place"
    for unknown in (made[0].id, "passage-99", "passage-x", "p1"):
        with pytest.raises(NotFoundError):
            passages.delete(unknown, agent_id=ada)
    with pytest.raises(NotFoundError):
        passages.delete(made[1].id, agent_id=other)
    for bad in ({"text": " "}, {"text": "x", "created_at": "soon"}):
        with pytest.raises(BadRequestError):
            passages.create(ada, **bad)  # type: ignore[arg-type]
    with pytest.raises(NotFoundError):
        passages.create("agent-none", text="x")
    assert passages.list(other) == []
    letta.agents.messages.create(ada, messages=user("hello"))
    assert "was deleted by the user" in str(home.llm.requests[-1].messages), "the agent is told"


def test_a_request_that_hangs_on_a_busy_agent(serve: Callable[..., Served]) -> None:
    hold = Hold()
    home = serve(llm=Talker(["a", hold]))
    letta, ada = home.letta, home.letta.agents.create(name="ada").id
    letta.agents.messages.create_async(ada, messages=user("one"))
    until(lambda: home.llm.requests)
    with ThreadPoolExecutor(1) as pool:
        reset = pool.submit(letta.agents.messages.reset, ada)
        time.sleep(0.1)
        assert not reset.done(), "it waits for the turn"
        hold.set()
        assert reset.result() is not None


def test_what_no_database_holds_or_nobody_sends_is_refused(serve: Callable[..., Served]) -> None:
    home = serve("ok")
    agent = home.letta.agents.create(name="ada")
    path, half = f"/v1/agents/{agent.id}", "\ud800"
    for where, body, status in (
        ("/v1/messages/search", {"query": "x", "agent_id": half}, 400),
        ("/v1/passages/search", {"query": "x", "agent_id": half}, 400),
        ("/v1/conversations/default/stream", {"run_id": half}, 400),
        ("/agentos/v1/agents", {"name": "bob", "model": half}, 400),
        (f"{path}/messages", {"messages": [{"role": "user", "content": "x"}] * 1001}, 422),
        (f"{path}/archival-memory", {"text": "x" * 1_000_001}, 422),
    ):
        headers = {"content-type": "application/json"}
        response = home.http.post(where, content=json.dumps(body), headers=headers)
        assert (response.status_code, "detail" in response.json()) == (status, True), where
    assert home.read(lambda tx: (tx.runs(agent.id), len(tx.agents()))) == ([], 1)


def test_views_are_of_the_agent_with_all_its_tools(serve: Callable[..., Served]) -> None:
    home = serve()
    described = home.letta.tools.create(source_code="def weigh(things: list[str]):\n    pass")
    sizes = []
    for name, ids in (("plain", []), ("ada", [described.id])):
        home.letta.agents.create(name=name, tool_ids=ids)
        sizes.append(home.http.get(f"/agentos/v1/agents/{name}/context").json()["sections"]["tools"])
    assert sizes[1] > sizes[0]
