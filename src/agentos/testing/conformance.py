"""Conformance suites for session databases and language models: an adapter is right when its suite passes.

await store_conformance(lambda: my_fresh_store())
await llm_conformance(lambda: MyLLM())
"""

import asyncio
import copy
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from agentos.errors import Conflict, NotFound, StoreError, UsageError
from agentos.events import Retry
from agentos.messages import Block, Cause, Message, Passage, Reply
from agentos.protocols import LLM, Delta, LLMRequest
from agentos.state import AgentRecord, InboxItem

_NOW = datetime(2026, 5, 8, 9, 30, tzinfo=UTC)
_AGENT = AgentRecord("agent-0c0ffee0", "conformance", "assistant", _NOW)
_CAUSE = Cause(_AGENT.id, "user")
_ALL_TIMES: dict[str, Any] = {"tags": (), "start": None, "end": None}

# stores: each check gets an empty, migrated store; anything with `write`, `read` and `close`


async def check_order(store: Any) -> None:
    """Writes take effect in the order they were asked for, and each gets its own value back."""
    await store.write(lambda tx: tx.add_agent(_AGENT))
    waiting = [store.write(lambda tx, n=n: tx.add_message(_message(f"message {n}"))) for n in range(50)]
    saved = await asyncio.gather(*waiting)
    assert [m.content for m in saved] == [f"message {n}" for n in range(50)]
    assert [m.id for m in saved] == sorted(m.id for m in saved)


async def check_reads_the_last_write(store: Any) -> None:
    """A read that begins after a write was awaited sees it."""
    await store.write(lambda tx: tx.add_agent(_AGENT))
    for number in range(20):
        await store.write(lambda tx, n=number: tx.update_agent(_AGENT.id, last_seq=n))
        assert (await store.read(lambda tx: tx.agent(_AGENT.id))).last_seq == number


async def check_failing_work_is_undone_alone(store: Any) -> None:
    """Work that raises leaves no trace and hands its error over; its neighbours in the same commit are kept."""
    await store.write(lambda tx: tx.add_agent(_AGENT))

    def broken(tx: Any) -> None:
        tx.add_message(_message("half done"))
        raise UsageError("no")

    def doubled(tx: Any) -> None:
        tx.add_message(_message("half done"))
        for _ in range(2):
            tx.add_message(_message("twice", external_id="x"))

    outcomes = await asyncio.gather(
        store.write(lambda tx: tx.add_message(_message("before"))),
        store.write(broken),
        store.write(lambda tx: tx.add_message(_message("between"))),
        store.write(doubled),
        store.write(lambda tx: tx.add_message(_message("after"))),
        return_exceptions=True,
    )
    assert isinstance(outcomes[1], UsageError), outcomes[1]
    assert isinstance(outcomes[3], StoreError), outcomes[3]
    kept = await store.read(lambda tx: tx.recent_messages(_AGENT.id, 10))
    assert [m.content for m in kept] == ["after", "between", "before"]


async def check_accept(store: Any) -> None:
    """One `otid` is one input, however often it comes; with other content it is refused; without one each is new."""
    await store.write(lambda tx: tx.add_agent(_AGENT))

    runs = count(1)

    def accept(otid: str | None, digest: str) -> Any:
        item = InboxItem(0, _AGENT.id, _NOW, otid, digest, f"run-{next(runs)}")
        return store.write(lambda tx: tx.accept(item, [_message(digest)]))

    (first, new), (again, repeated) = await accept("o1", "hello"), await accept("o1", "hello")
    assert new
    assert not repeated
    assert first == again
    await _refused(accept("o1", "other"), Conflict)
    items = [first, (await accept("o2", "hello"))[0], (await accept(None, "x"))[0], (await accept(None, "x"))[0]]
    assert len({item.id for item in items}) == 4
    assert len(await store.read(lambda tx: tx.recent_messages(_AGENT.id, 10))) == 4
    assert (await store.read(lambda tx: tx.waiting(_AGENT.id))).id == first.id


async def check_ids_are_never_reused(store: Any) -> None:
    """What the journal and old results name stays what it was, also after an agent was deleted."""

    def fill(tx: Any) -> tuple[int, int, int, int]:
        tx.add_agent(_AGENT)
        block = tx.add_block(Block("human"), _CAUSE)
        passage, _ = tx.add_passage(Passage(0, _AGENT.id, "a text", "agent", _NOW), _CAUSE)
        return tx.add_message(_message("hello")).id, passage.id, block.id, block.version_id

    first = await store.write(fill)
    await store.write(lambda tx: tx.delete_agent(_AGENT.id))
    second = await store.write(fill)
    assert all(a < b for a, b in zip(first, second, strict=True)), (first, second)


async def check_equal_passages(store: Any) -> None:
    """Text equal to a valid passage returns that one with the tags united; an ended one does not count."""

    def add(*tags: str) -> Any:
        passage = Passage(0, _AGENT.id, "tea at four", "agent", _NOW, tags=tags)
        return store.write(lambda tx: tx.add_passage(passage, _CAUSE))

    await store.write(lambda tx: tx.add_agent(_AGENT))
    (first, new), (second, added) = await add("a"), await add("b", "a")
    assert new
    assert not added
    assert second.id == first.id
    assert second.tags == ("a", "b")
    await store.write(lambda tx: tx.end_passage(first.id, _NOW, _CAUSE, "passage.delete"))
    third, new = await add("c")
    assert new
    assert third.id > first.id


async def check_superseded_passages(store: Any) -> None:
    """A passage that another replaces ends when that begins, and both are linked, also with a united one; nothing else
    can be replaced. Text equal to a superseded one is new."""

    def add(text: str, day: int, replaces: int | None = None) -> Any:
        passage = Passage(0, _AGENT.id, text, "agent", _NOW + timedelta(days=day), replaces=replaces)
        return store.write(lambda tx: tx.add_passage(passage, _CAUSE))

    async def look(*ids: int) -> list[tuple[int | None, int | None, datetime | None]]:
        found = {p.id: p for p in await store.read(lambda tx: tx.passages(_AGENT.id, ids))}
        return [(found[n].replaces, found[n].superseded_by, found[n].valid_to) for n in ids]

    await store.write(lambda tx: tx.add_agent(_AGENT))
    (first, _), (other, _) = await add("tea at four", 0), await add("the cat is Tom", 0)
    second, new = await add("tea at five", 1, first.id)
    assert new
    assert second.replaces == first.id
    assert await look(first.id, second.id) == [(None, second.id, _NOW + timedelta(days=1)), (first.id, None, None)]
    await _refused(add("tea at six", 2, first.id), Conflict)
    await _refused(add("tea at six", 2, 10**15), NotFound)
    assert await add("tea at five", 2, second.id) == (second, False)
    third, new = await add("tea at four", 2)
    assert new
    united, new = await add("tea at four", 3, second.id)
    assert not new
    assert united == replace(third, replaces=second.id)
    assert (await look(second.id))[0][1:] == (third.id, _NOW + timedelta(days=3))
    await store.write(lambda tx: tx.end_passage(other.id, _NOW, _CAUSE, "passage.delete"))
    await _refused(add("the cat is Tim", 4, other.id), Conflict)
    valid = await store.read(lambda tx: tx.recent_passages(_AGENT.id))
    assert [p.id for p in valid] == [third.id]
    days = {0: {first.id}, 1: {second.id}, 2: {second.id, third.id}, 3: {third.id}}
    for day, ids in days.items():
        as_of = _NOW + timedelta(days=day)
        shown = await store.read(lambda tx, t=as_of: tx.shown_passages(_AGENT.id, range(10), **_ALL_TIMES, as_of=t))
        assert set(shown) == ids, f"day {day}"
    past = await store.read(lambda tx: tx.shown_passages(_AGENT.id, range(10), **_ALL_TIMES, include_superseded=True))
    assert past == [first.id, second.id, third.id]


async def check_closed(store: Any) -> None:
    """What waits is finished before it closes; later calls fail cleanly."""
    waiting = [asyncio.ensure_future(store.write(lambda tx: tx.home("id"))) for _ in range(5)]
    await store.close()
    assert len(set(await asyncio.gather(*waiting))) == 1
    for method in (store.write, store.read):
        await _refused(asyncio.wait_for(_call(method), 10), StoreError)


STORE_CHECKS: tuple[Callable[[Any], Awaitable[None]], ...] = (
    check_order, check_reads_the_last_write, check_failing_work_is_undone_alone, check_accept,
    check_ids_are_never_reused, check_equal_passages, check_superseded_passages, check_closed,
)  # fmt: skip


async def store_conformance(make_store: Callable[[], Any]) -> None:
    """The whole suite; `make_store` opens another empty store each time."""
    for check in STORE_CHECKS:
        store = make_store()
        try:
            await check(store)
        finally:
            if check is not check_closed:
                await store.close()


# models


_TOOL = {
    "type": "function",
    "function": {"name": "look", "description": "Look.", "parameters": {"type": "object", "properties": {}}},
}


def _request() -> LLMRequest:
    messages = [{"role": "system", "content": "You answer."}, {"role": "user", "content": "[2026-05-08] hello"}]
    return LLMRequest(messages, [copy.deepcopy(_TOOL)], max_tokens=64, cache_key="agent-1")


async def check_one_reply(llm: LLM) -> None:
    """The last item is the one `Reply`; text that was streamed is the reply's text."""
    items = [item async for item in llm.stream(_request())]
    assert isinstance(items[-1], Reply), "the last item is the reply"
    assert sum(isinstance(item, Reply) for item in items) == 1
    assert all(isinstance(item, Delta | Retry | Reply) for item in items)
    streamed = "".join(item.text for item in items if isinstance(item, Delta))
    assert streamed in ("", items[-1].text)
    assert all(call.id and isinstance(call.values, dict) for call in items[-1].calls)


async def check_request_unchanged(llm: LLM) -> None:
    """The adapter changes neither the request's list nor its members."""
    request = _request()
    before = copy.deepcopy(request)
    async for _ in llm.stream(request):
        pass
    assert request == before


async def check_closing_early(llm: LLM) -> None:
    """Closing the iterator after its first item, or before, is clean; the model answers again afterwards."""
    async with aclosing(llm.stream(_request())):
        pass
    async with aclosing(llm.stream(_request())) as stream:
        async for _ in stream:
            break
    await check_one_reply(llm)


async def check_sizes(llm: LLM) -> None:
    """Windows and counts are positive, counts grow with the text and never fail."""
    assert llm.name
    assert llm.provider
    assert 0 < llm.max_output_tokens < llm.context_window
    assert llm.count_tokens("") == 0
    assert 0 < llm.count_tokens("hello") < llm.count_tokens("hello there, how are you? " * 50)
    assert llm.count_tokens("日本語 🙂 \ud800 \x00") > 0


LLM_CHECKS: tuple[Callable[[LLM], Awaitable[None]], ...] = (
    check_one_reply, check_request_unchanged, check_closing_early, check_sizes,
)  # fmt: skip


async def llm_conformance(make_llm: Callable[[], LLM]) -> None:
    """The whole suite; `make_llm` makes a model that answers `hello` each time."""
    for check in LLM_CHECKS:
        await check(make_llm())


def _message(text: str, **values: Any) -> Message:
    return Message(id=0, agent_id=_AGENT.id, role="user", content=text, origin="user", created_at=_NOW, **values)


async def _call(method: Callable[..., Awaitable[Any]]) -> Any:
    return await method(lambda tx: tx.home("id"))


async def _refused(call: Awaitable[object], error: type[Exception]) -> None:
    try:
        await call
    except error:
        return
    raise AssertionError(f"no {error.__name__} was raised")
