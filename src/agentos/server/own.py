"""What neither Letta's API nor OpenAI's has: `/agentos/v1/`, the views of the command line as JSON."""

import asyncio
import uuid
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from agentos import curate, values
from agentos.errors import AgentBusy, NotFound, UsageError
from agentos.events import Event, Saved, TurnEnded, TurnResult
from agentos.messages import Usage, read_time
from agentos.protocols import SearchQuery
from agentos.server.replies import answer, event_stream, sse
from agentos.server.service import Service, Serving
from agentos.state import AgentRecord, Decision, InboxItem
from agentos.talk import HomeTalk

router = APIRouter(prefix="/agentos/v1", tags=["agentos"])
Json = dict[str, Any]
Moment = Annotated[str | None, Query(max_length=100)]
_LOOK_SECONDS = 1.0


async def agent_record(service: Service, agent: str) -> AgentRecord:
    """The agent with this name or id."""

    record: AgentRecord | None = await service.store.read(lambda tx: tx.agent_named(agent) or tx.agent(agent))
    if record is None:
        raise NotFound(f"there is no agent {agent!r}; the list of agents (/agentos/v1/agents) names all")
    return record


async def talk(service: Service, agent: str) -> HomeTalk:
    """What a person asks of the agent with this name or id."""
    record = await agent_record(service, agent)
    return HomeTalk(service.runtime, record.name, await service.runtime.agent_of(record.id))


@router.get("/agents")
async def agents(
    serving: Serving,
    find: Annotated[str, Query(max_length=200)] = "",
    after: Annotated[str | None, Query(max_length=200)] = None,
    before: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Agents by name: the first, or those behind the agent with the id `after`, or before another."""
    found = await values.agent_page(serving.runtime, text=find or None, after=after, before=before, limit=limit)
    return answer(found["agents"])


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
    return answer(await values.agent_details(serving.runtime, record))


@router.get("/agents/{agent}")
async def show(agent: str, serving: Serving) -> Response:
    """One agent in full, by name or id."""
    return answer(await values.agent_details(serving.runtime, await agent_record(serving, agent)))


@router.get("/agents/{agent}/status")
async def status(agent: str, serving: Serving) -> Response:
    """How full the context is, the labels of the blocks, the names of the agents."""
    return answer(await (await talk(serving, agent)).status())


@router.get("/agents/{agent}/memory")
async def memory(agent: str, serving: Serving, label: str | None = None) -> Response:
    """Core memory, or one block of it."""
    return answer(await (await talk(serving, agent)).memory(label))


@router.get("/agents/{agent}/context")
async def context(agent: str, serving: Serving) -> Response:
    """What fills the window, page-out receipts, the cache ledger."""
    return answer(await (await talk(serving, agent)).context())


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
    record, now = await agent_record(serving, agent), serving.runtime.clock.now()
    then = values.moment("as_of", as_of, now, end=True)
    asked = SearchQuery(query, scope, limit=limit, now=now, as_of=then, include_superseded=include_superseded)
    return answer([values.hit_value(hit) for hit in await serving.runtime.search(record.id, asked)])


Since = Annotated[AwareDatetime, AfterValidator(lambda when: read_time(when.isoformat(), when))]
"""A time with its offset; one that UTC has no day for is the first or last of the calendar."""


class OfSource(BaseModel):
    """A source of memory events: a turn, a message or one call of it, an MCP client, or what was imported."""

    run_id: str | None = None
    message: Annotated[str, Field(pattern=r"^m\d{1,18}$")] | None = None
    call_id: str | None = None
    client: str | None = None
    """Its name as the journal has it."""
    since: Since | None = None
    """Only what the client wrote from this time on."""
    imported: bool = False

    @property
    def source(self) -> curate.Source | None:
        """The source that is named; None where none is."""
        message = int(self.message[1:]) if self.message else None
        named = curate.Source(self.run_id, message, self.call_id, self.client, self.since, self.imported)
        return None if named == curate.Source() else named


class HistoryQuery(OfSource):
    """Which events of the journal."""

    label: str | None = None
    """A block's label, or an id such as `p3`."""
    actor: Literal[values.ACTORS] | None = None  # type: ignore[valid-type]  # the names are in one place
    kind: Literal[tuple(values.KINDS)] | None = None  # type: ignore[valid-type]
    before: int | None = Field(None, ge=1)
    """Only events older than this one: the last of the page before."""

    @property
    def filters(self) -> Json:
        """The same as `values.history_value` takes it."""
        target = {"target": self.label, "actor": self.actor, "kind": self.kind}
        return {**target, "source": self.source, "before": self.before}


@router.get("/agents/{agent}/history")
async def history(
    agent: str,
    serving: Serving,
    query: Annotated[HistoryQuery, Query()],
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> Response:
    """The journal, newest first."""
    record = await agent_record(serving, agent)
    filters = query.filters
    return answer(await serving.store.read(lambda tx: values.history_value(tx, record.id, limit, **filters)))


@router.get("/agents/{agent}/history/source")
async def history_source(agent: str, serving: Serving, query: Annotated[HistoryQuery, Query()]) -> Response:
    """What the source in the query is, back to the words that led to it: a chain, as `why` has them."""
    record, source = await agent_record(serving, agent), query.source
    if source is None:
        raise UsageError("name a source: run_id or message, and of a message call_id; or client; or imported")
    found = await serving.store.read(lambda tx: curate.source_chain(tx, record.id, source))
    return answer(values.chain_value(found))


@router.get("/agents/{agent}/why")
async def why(agent: str, serving: Serving, what: Annotated[str, Query(min_length=1, max_length=10_000)]) -> Response:
    """Where a memory came from: one chain for each memory that was found."""
    record = await agent_record(serving, agent)
    return answer([values.chain_value(chain) for chain in await curate.why(serving.store, record.id, what)])


class Undo(OfSource):
    """Which event to take back, or all that came from which source; none named: the last event."""

    event_id: int | None = Field(None, ge=1)


@router.post("/agents/{agent}/undo")
async def undo(agent: str, serving: Serving, body: Undo | None = None) -> Response:
    """Take back one memory event; of a source all its events, or none where one cannot be: {"undone": [...]}."""
    told, asked = await talk(serving, agent), body or Undo()
    source = asked.source
    if source is None:
        return answer(await told.undo(asked.event_id))
    if asked.event_id is not None:
        raise UsageError("event_id and a source both say what to take back; leave one out")
    return answer({"undone": await told.undo_all(source)})


@router.get("/agents/{agent}/usage")
async def usage(agent: str, serving: Serving) -> Response:
    """Tokens and cost of all the agent's turns."""
    return answer(await (await talk(serving, agent)).usage())


@router.post("/agents/{agent}/new")
async def new_conversation(agent: str, serving: Serving) -> Response:
    """Empty the message queue; memory stays."""
    await (await talk(serving, agent)).new_conversation()
    return answer({"ok": True})


class NewTurn(BaseModel):
    """What a user says."""

    text: str
    otid: str | None = Field(None, max_length=200)


@router.post("/agents/{agent}/turns")
async def turn(agent: str, body: NewTurn, serving: Serving) -> Response:
    """A turn as the stream of its events, as `--output-format stream-json` prints them; its result is the last."""
    record = await agent_record(serving, agent)
    with ExitStack() as stack:
        queue = stack.enter_context(serving.dispatcher.feeds.listen(record.id))  # before there is anything to hear
        item = await serving.dispatcher.accept(record.id, [body.text], otid=body.otid or str(uuid.uuid4()))
        return _stream(_turn(serving, item, queue, stack.pop_all()))


@router.get("/agents/{agent}/approvals")
async def approvals(agent: str, serving: Serving) -> Response:
    """The calls that wait for approval."""
    return answer(await (await talk(serving, agent)).approvals())


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
    record = await agent_record(serving, agent)
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
                result = await _result(service, item)
                if result is not None:  # run by another process, or long ago
                    event = TurnEnded(result, item.id or None, run_id=result.run_id)
            elif isinstance(event, TurnEnded) and event.run_id == item.run_id and event.result.approvals:
                result = await _result(service, item)
                if result is None:  # another process told of the stop only after the decision
                    continue
                event = replace(event, result=result)
            yield event
            if isinstance(event, TurnEnded) and event.run_id == item.run_id:
                return


async def _result(service: Service, item: InboxItem) -> TurnResult | None:
    """How the input's turn ended, if it has; also by the deletion of its agent, with which its run is gone."""
    try:
        return await service.dispatcher.result(item, 0.0)
    except NotFound as error:
        return TurnResult("", "", item.run_id, "cancelled", 0, 0, Usage(), error=str(error))


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
    record = await agent_record(serving, agent)

    async def follow() -> AsyncGenerator[Event | None, None]:
        with serving.dispatcher.feeds.listen(record.id) as queue:
            while not serving.dispatcher.stopped:
                yield await _next(queue, serving.keep_alive_seconds)

    return _stream(follow())


@router.post("/agents/{agent}/compact")
async def compact(agent: str, serving: Serving) -> Response:
    """Page out now, as the stream of its events; 409 while a turn of the agent runs."""
    asked = await talk(serving, agent)
    try:
        async with serving.runtime.lock(asked.agent.id, wait_seconds=0):
            pass  # what was refused later could only be told in the stream
    except AgentBusy:
        raise AgentBusy("a turn of this agent is running; wait for its end or cancel it, then ask again") from None
    return _stream(asked.compact())


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
