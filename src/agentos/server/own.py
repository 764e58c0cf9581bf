"""What neither Letta's API nor OpenAI's has: `/agentos/v1/`, the views of the command line as JSON."""

import asyncio
import uuid
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from agentos import curate, values
from agentos.errors import AgentBusy, NotFound
from agentos.events import Event, Saved, TurnEnded
from agentos.protocols import SearchQuery
from agentos.runtime import AgentMemory
from agentos.server.letta.searching import moment
from agentos.server.replies import answer, event_stream, sse
from agentos.server.service import Service, Serving
from agentos.state import AgentRecord, Decision, InboxItem
from agentos.talk import HomeTalk

router = APIRouter(prefix="/agentos/v1", tags=["agentos"])
Json = dict[str, Any]
Moment = Annotated[str | None, Query(max_length=100)]
_LOOK_SECONDS = 1.0


async def _record(service: Service, agent: str) -> AgentRecord:
    """The agent with this name or id."""

    record: AgentRecord | None = await service.store.read(lambda tx: tx.agent_named(agent) or tx.agent(agent))
    if record is None:
        raise NotFound(f"there is no agent {agent!r}; GET /agentos/v1/agents lists them")
    return record


async def _talk(service: Service, agent: str) -> HomeTalk:
    record = await _record(service, agent)
    return HomeTalk(service.runtime, record.name, await service.runtime.agent_of(record.id))


async def _details(service: Service, record: AgentRecord) -> Json:
    limits = service.runtime.default_limits
    found = await service.store.read(lambda tx: values.agent_details(tx, record, limits))
    return {**found, "answers": service.runtime.llm(record.model).name}


@router.get("/agents")
async def agents(
    serving: Serving,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Agents by name: the first, or those behind the agent with the id `after`."""

    def work(tx: Any) -> list[Json]:
        return [values.agent_value(tx, a) for a in tx.agent_page(order_by="name", after=after, limit=limit)]

    return answer(await serving.store.read(work))


class NewAgent(BaseModel):
    """An agent to be made."""

    model_config = ConfigDict(extra="forbid")
    name: str
    persona: str = "assistant"
    model: str | None = None


@router.post("/agents")
async def create(body: NewAgent, serving: Serving) -> Response:
    """A new agent of a persona; 409 when the name is taken."""
    record = await serving.runtime.create_agent(body.name, persona=body.persona, model=body.model)
    return answer(await _details(serving, record))


@router.get("/agents/{agent}")
async def show(agent: str, serving: Serving) -> Response:
    """One agent in full, by name or id."""
    return answer(await _details(serving, await _record(serving, agent)))


@router.get("/agents/{agent}/status")
async def status(agent: str, serving: Serving) -> Response:
    """How full the context is, the labels of the blocks, the names of the agents."""
    return answer(await (await _talk(serving, agent)).status())


@router.get("/agents/{agent}/memory")
async def memory(agent: str, serving: Serving, label: str | None = None) -> Response:
    """Core memory, or one block of it."""
    return answer(await (await _talk(serving, agent)).memory(label))


@router.get("/agents/{agent}/context")
async def context(agent: str, serving: Serving) -> Response:
    """What fills the window, page-out receipts, the cache ledger."""
    return answer(await (await _talk(serving, agent)).context())


@router.get("/agents/{agent}/search")
async def search(
    agent: str,
    serving: Serving,
    query: Annotated[str, Query(min_length=1, max_length=10_000)],
    scope: Annotated[Literal["archival", "recall"], Query(alias="in")] = "archival",
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
    as_of: Moment = None,
    include_superseded: bool = False,
) -> Response:
    """Hybrid search of archival memory or of past messages."""
    record, now = await _record(serving, agent), serving.runtime.clock.now()
    then = moment("as_of", as_of, now, end=True)
    asked = SearchQuery(query, scope, limit=limit, now=now, as_of=then, include_superseded=include_superseded)
    return answer([values.hit_value(hit) for hit in await serving.runtime.search(record.id, asked)])


@router.get("/agents/{agent}/passages")
async def passages(
    agent: str,
    serving: Serving,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str | None, Query(max_length=200)] = None,
    tag: Annotated[str | None, Query(max_length=1000)] = None,
    start: Moment = None,
    end: Moment = None,
    include_superseded: bool = False,
) -> Response:
    """Archival memory, newest first: the first passages, or those behind the passage `after`."""
    record, now = await _record(serving, agent), serving.runtime.clock.now()
    first, last = moment("start", start, now), moment("end", end, now, end=True)

    def work(tx: Any) -> list[Json]:
        found = tx.passages(record.id, [curate.passage_id(after)]) if after else [None]
        if not found:
            raise NotFound(f"this agent has no passage {after} that the list could go on from")
        page = tx.passage_page(
            record.id, False, found[0], None, limit, tag=tag, start=first, end=last,
            include_superseded=include_superseded,
        )  # fmt: skip
        return [values.passage_value(p) for p in page]

    return answer(await serving.store.read(work))


class NewPassage(BaseModel):
    """A text for archival memory."""

    model_config = ConfigDict(extra="forbid")
    text: str = Field(max_length=1_000_000)
    tags: list[str] = Field([], max_length=1000)
    replaces: str | None = Field(None, max_length=200)


@router.post("/agents/{agent}/passages")
async def add_passage(agent: str, body: NewPassage, serving: Serving) -> Response:
    """Store a text; one that is stored already is returned. 409 when what it `replaces` is valid no more."""
    runtime, record = serving.runtime, await _record(serving, agent)
    saved = await curate.insert_passage(
        runtime.store, runtime.clock, AgentMemory(runtime, record.id, None), record.id, body.text, body.tags,
        replaces=None if body.replaces is None else curate.passage_id(body.replaces),
    )  # fmt: skip
    return answer(values.passage_value(saved))


@router.delete("/agents/{agent}/passages/{passage}")
async def delete_passage(agent: str, passage: str, serving: Serving) -> Response:
    """Take a passage out of archival memory; undo brings it back."""
    record, number = await _record(serving, agent), curate.passage_id(passage)
    return answer(
        values.passage_value(await curate.delete_passage(serving.store, serving.runtime.clock, record.id, number))
    )


@router.get("/agents/{agent}/history")
async def history(
    agent: str, serving: Serving, limit: Annotated[int, Query(ge=1, le=1000)] = 50, label: str | None = None
) -> Response:
    """The journal, newest first."""
    record = await _record(serving, agent)
    return answer(await serving.store.read(lambda tx: values.history_value(tx, record.id, limit, label)))


@router.get("/agents/{agent}/why")
async def why(agent: str, serving: Serving, what: Annotated[str, Query(min_length=1, max_length=10_000)]) -> Response:
    """Where a memory came from: one chain for each memory that was found."""
    record = await _record(serving, agent)
    return answer([values.chain_value(chain) for chain in await curate.why(serving.store, record.id, what)])


class Undo(BaseModel):
    """Which event to take back; none named: the last one."""

    event_id: int | None = Field(None, ge=1)


@router.post("/agents/{agent}/undo")
async def undo(agent: str, serving: Serving, body: Undo | None = None) -> Response:
    """Take back one memory event."""
    return answer(await (await _talk(serving, agent)).undo(body.event_id if body else None))


@router.get("/agents/{agent}/usage")
async def usage(agent: str, serving: Serving) -> Response:
    """Tokens and cost of all the agent's turns."""
    return answer(await (await _talk(serving, agent)).usage())


@router.post("/agents/{agent}/new")
async def new_conversation(agent: str, serving: Serving) -> Response:
    """Empty the message queue; memory stays."""
    await (await _talk(serving, agent)).new_conversation()
    return answer({"ok": True})


class NewTurn(BaseModel):
    """What a user says."""

    text: str
    otid: str | None = Field(None, max_length=200)


@router.post("/agents/{agent}/turns")
async def turn(agent: str, body: NewTurn, serving: Serving) -> Response:
    """A turn as the stream of its events, as `--output-format stream-json` prints them; its result is the last."""
    record = await _record(serving, agent)
    with ExitStack() as stack:
        queue = stack.enter_context(serving.dispatcher.feeds.listen(record.id))  # before there is anything to hear
        item = await serving.dispatcher.accept(record.id, [body.text], otid=body.otid or str(uuid.uuid4()))
        return _stream(_turn(serving, item, queue, stack.pop_all()))


@router.get("/agents/{agent}/approvals")
async def approvals(agent: str, serving: Serving) -> Response:
    """The calls that wait for approval."""
    return answer(await (await _talk(serving, agent)).approvals())


class Decided(BaseModel):
    """What is said of one call."""

    model_config = ConfigDict(extra="forbid")
    approve: bool
    reason: str = Field("", max_length=10_000)


class Decisions(BaseModel):
    """What is said of the calls that wait, by `call_id`; `run_id` guards against another turn's."""

    model_config = ConfigDict(extra="forbid")
    decisions: dict[str, Decided] = Field(min_length=1, max_length=1000)
    run_id: str | None = None
    by: str = Field("user", min_length=1, max_length=200)


@router.post("/agents/{agent}/approvals")
async def decide(agent: str, body: Decisions, serving: Serving) -> Response:
    """Approve or refuse calls; the turn goes on as the stream of its events. 409 for a call that does not wait."""
    record = await _record(serving, agent)
    said = {call_id: Decision(given.approve, given.reason, body.by) for call_id, given in body.decisions.items()}
    with ExitStack() as stack:
        queue = stack.enter_context(serving.dispatcher.feeds.listen(record.id))
        item = await serving.dispatcher.decide(record.id, said, run_id=body.run_id)
        return _stream(_turn(serving, item, queue, stack.pop_all()))


async def _turn(
    service: Service, item: InboxItem, queue: asyncio.Queue[Event], listening: ExitStack
) -> AsyncGenerator[Event | None, None]:
    """The events of an input's turn and of what is due before it."""
    with listening:
        while True:
            # not for long: the turn may have ended before anybody listened, as one that is sent again has
            event = await _next(queue, service.dispatcher.patience(item.agent_id, _LOOK_SECONDS))
            if event is None or isinstance(event, Saved):
                result = await service.dispatcher.result(item, 0.0)
                if result is not None:  # run by another process, or long ago
                    event = TurnEnded(result, item.id or None, run_id=result.run_id)
            yield event
            if isinstance(event, TurnEnded) and event.run_id == item.run_id:
                return


async def _next(queue: asyncio.Queue[Event], seconds: float) -> Event | None:
    """The next event; None when none came in time."""
    try:
        async with asyncio.timeout(seconds):
            return await queue.get()
    except TimeoutError:
        return None


@router.get("/agents/{agent}/events")
async def events(agent: str, serving: Serving) -> Response:
    """All that the agent does from now on, as it happens."""
    record = await _record(serving, agent)

    async def follow() -> AsyncGenerator[Event | None, None]:
        with serving.dispatcher.feeds.listen(record.id) as queue:
            while not serving.dispatcher.stopped:
                yield await _next(queue, serving.keep_alive_seconds)

    return _stream(follow())


@router.post("/agents/{agent}/compact")
async def compact(agent: str, serving: Serving) -> Response:
    """Page out now, as the stream of its events; 409 while a turn of the agent runs."""
    talk = await _talk(serving, agent)
    try:
        async with serving.runtime.lock(talk.agent.id, wait_seconds=0):
            pass  # what was refused later could only be told in the stream
    except AgentBusy:
        raise AgentBusy("a turn of this agent is running; wait for its end or cancel it, then ask again") from None
    return _stream(talk.compact())


def _stream(source: AsyncGenerator[Event | None, None] | AsyncGenerator[Event, None]) -> Response:
    return event_stream(_sse(source))


async def _sse(
    source: AsyncGenerator[Event | None, None] | AsyncGenerator[Event, None],
) -> AsyncGenerator[bytes, None]:
    """Events as server-sent events; None is a comment that shows that the server is there."""
    yield b": begin\n\n"
    async with aclosing(source):
        async for event in source:
            yield b": still there\n\n" if event is None else sse(event.as_json())
