"""Messages: sending them, reading them back, and what is done to the message queue."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import takewhile
from typing import Annotated, Any, Literal, NamedTuple

from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from agentos.actions.saved import undecided_calls
from agentos.agent import Agent
from agentos.errors import AgentBusy, Conflict, NotFound, UsageError
from agentos.messages import Input, Message, clean_text
from agentos.protocols import SearchQuery
from agentos.server.letta import render
from agentos.server.letta.agent_state import agent_answer
from agentos.server.letta.fields import MOST_LISTED
from agentos.server.letta.paging import Page
from agentos.server.letta.searching import search_agents
from agentos.server.letta.turns import events, stream_run, whole_answer
from agentos.server.replies import Unsupported, answer, event_stream, patient, stamp
from agentos.server.service import Service, Serving, existing_agent
from agentos.state import Decision, InboxItem, RunRecord
from agentos.store.history import Part
from agentos.values import moment

router = APIRouter(prefix="/agents/{agent_id}", tags=["messages"])
everywhere = APIRouter(prefix="/messages", tags=["messages"])
Json = dict[str, Any]
_IDLE_SECONDS = 30.0
_RECENT = 10
"""Runs among which a decision is looked for that is sent again."""
Retries = Annotated[int, Header(alias="x-stainless-retry-count", ge=0)]


class ContentPart(BaseModel):
    """A part of a message's content; only text is read."""

    type: str
    text: str | None = None


class CallDecision(BaseModel):
    """What is said of one call that waits for approval."""

    type: Literal["approval", "tool"] = "approval"
    tool_call_id: str = Field(max_length=200)
    approve: bool = False
    reason: str | None = Field(None, max_length=10_000)


class TurnMessage(BaseModel):
    """One message of a turn, or with type `approval` what is said of the calls that wait."""

    model_config = ConfigDict(extra="ignore")
    type: str | None = "message"
    role: Literal["user", "system", "assistant"] = "user"
    content: str | list[ContentPart] | None = ""
    name: str | None = Field(None, max_length=200)
    otid: str | None = Field(None, max_length=200)
    approvals: list[CallDecision] | None = Field(None, max_length=MOST_LISTED)
    approve: bool | None = None
    reason: str | None = Field(None, max_length=10_000)
    approval_request_id: str | None = Field(None, max_length=200)

    def decisions(self, waiting: Iterable[str]) -> dict[str, Decision]:
        """What is said of each call, by id; `approve` alone says it of all that wait."""
        if any(given.type == "tool" for given in self.approvals or ()):
            raise Unsupported("tool returns are not supported; tools are run by agents alone")
        if self.approvals is None and self.approve is not None:
            return {call_id: _decision(self.approve, self.reason) for call_id in waiting}
        return {given.tool_call_id: _decision(given.approve, given.reason) for given in self.approvals or ()}


def _decision(approve: bool, reason: str | None) -> Decision:
    return Decision(approve, clean_text(reason or ""))


class TurnRequest(BaseModel):
    """Input for one turn: `messages`, or `input` as text."""

    model_config = ConfigDict(extra="ignore")
    messages: list[TurnMessage] | None = Field(None, max_length=MOST_LISTED)
    input: str | list[ContentPart] | None = None
    max_steps: int | None = Field(None, ge=1, le=2**31)
    streaming: bool = False
    stream_tokens: bool = False
    background: bool = False
    include_pings: bool = True
    include_return_message_types: list[str] | None = None
    override_model: str | None = None
    override_system: str | None = None
    client_tools: list[dict[str, Any]] | None = None
    callback_url: str | None = None

    def inputs(self) -> tuple[list[Input], str | None]:
        """(what is said, the idempotency key). `Unsupported` for what this server does not do."""
        for name in ("override_model", "override_system", "client_tools", "callback_url"):
            if getattr(self, name):
                raise Unsupported(f"{name} is not supported; change the agent itself, or poll its runs")
        messages = self.messages or []
        if self.input is not None:
            messages = [*messages, TurnMessage(role="user", content=self.input)]
        otid = next((m.otid for m in messages if m.otid), None)
        return [input_of(m) for m in messages], otid

    @property
    def kinds(self) -> set[str] | None:
        """The message types that are asked for; None: all."""
        chosen = self.include_return_message_types
        return set(chosen) if chosen else None


def input_of(message: TurnMessage) -> Input:
    """What is said, as the kernel takes it in."""
    if message.type not in ("message", None):
        if message.type == "approval":
            raise UsageError("an approval stands alone in its request, as the one message of it")
        raise Unsupported(f"messages of type {message.type!r} are not supported; no tool here waits for a client")
    text = _text(message.content)
    if message.role == "system":  # whoever runs the agent, not its user: it establishes no facts about a user
        return Input(text, origin="runtime", kind="alert", name="system")
    if message.role == "assistant":
        raise UsageError("a message of role 'assistant' cannot be sent; import past conversations instead")
    return Input(text, name=clean_text(message.name) if message.name else None)


def _text(content: str | list[ContentPart] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if odd := next((part.type for part in content if part.type != "text"), None):
        raise Unsupported(f"content of type {odd!r} is not supported; send text")
    return "\n".join(part.text or "" for part in content)


class Accepted(NamedTuple):
    """A turn that was asked for, or that goes on."""

    item: InboxItem
    place: int = 0
    """Where in the queue what is new of it begins: behind this."""


async def accept(
    service: Service, agent_id: str, body: TurnRequest, retries: int, *, background: bool = False
) -> Accepted:
    """Save the input of a request; one that was sent again without a key of its own joins the first.

    While calls wait for approval only a decision is taken: any other message is a `PendingApproval`.
    """
    given = body.messages or []
    if body.input is None and [m.type for m in given] == ["approval"]:
        return await _decide(service, agent_id, given[0])
    inputs, otid = body.inputs()
    item = await service.dispatcher.accept(
        agent_id, inputs, otid=otid, repeated=retries > 0, refuses=False, max_steps=body.max_steps,
        background=background or body.background,
    )  # fmt: skip
    return Accepted(item)


async def _decide(service: Service, agent_id: str, message: TurnMessage) -> Accepted:
    """Save a decision; the same one again joins the first."""

    def work(tx: Any) -> tuple[dict[str, Decision], RunRecord | None, int]:
        existing_agent(tx, agent_id)
        run = tx.unfinished_run(agent_id)
        waiting = undecided_calls(tx, run) if run else []
        if message.approval_request_id and {render.id_of(m) for m, _ in waiting} - {message.approval_request_id}:
            raise Conflict(f"the calls of {message.approval_request_id!r} do not wait for approval")
        said = message.decisions(call.id for _, call in waiting)
        decided = (r for r in tx.runs(agent_id, _RECENT) if said and said == _plain(r.decisions, said))
        before = next(decided, None)
        messages = tx.run_messages((before or run).id) if before or run else []
        known = takewhile(lambda m: m.call_id not in said, messages)
        return said, before, max((m.seq or 0 for m in known), default=0)

    said, before, place = await service.store.read(work)
    if before is None:
        return Accepted(await service.dispatcher.decide(agent_id, said), place)
    return Accepted(InboxItem(before.inbox_id or 0, agent_id, before.created_at, run_id=before.id), place)


def _plain(decisions: dict[str, Decision], asked: Iterable[str]) -> dict[str, Decision]:
    """Those of the calls asked for, as they were sent."""
    return {i: replace(decisions[i], at=None) for i in asked if i in decisions}


async def run_of(service: Service, run_id: str) -> RunRecord:
    """A run that is known to exist."""
    run: RunRecord = await service.store.read(lambda tx: tx.run(run_id))
    return run


async def streamed(service: Service, accepted: Accepted, body: TurnRequest) -> Response:
    """The turn of an accepted input as a stream."""
    run = await run_of(service, accepted.item.run_id)
    after = render.seq_id(accepted.place, render.LAST) if accepted.place else 0
    values = stream_run(
        service, run, tokens=body.stream_tokens, pings=body.include_pings, kinds=body.kinds, after=after
    )
    return event_stream(events(values))


@router.post("/messages")
async def create_message(agent_id: str, body: TurnRequest, serving: Serving, x_retries: Retries = 0) -> Response:
    """One turn: its messages, why it ended, what it used. With `streaming` as a stream."""
    accepted = await accept(serving, agent_id, body, x_retries)
    if body.streaming:
        return await streamed(serving, accepted, body)
    return await patient(whole_answer(serving, accepted.item, body.kinds, accepted.place))


@router.post("/messages/stream")
async def stream_message(agent_id: str, body: TurnRequest, serving: Serving, x_retries: Retries = 0) -> Response:
    """One turn as a stream: whole messages, or with `stream_tokens` pieces as they are written."""
    return await streamed(serving, await accept(serving, agent_id, body, x_retries), body)


@router.post("/messages/async")
async def create_message_async(agent_id: str, body: TurnRequest, serving: Serving, x_retries: Retries = 0) -> Response:
    """Save input and return the run that answers it, at once."""
    item, _ = await accept(serving, agent_id, body, x_retries, background=True)
    return answer(render.run_value(await run_of(serving, item.run_id)))


class MessagePage(Page):
    """Which messages to list."""

    include_return_message_types: list[str] | None = None
    conversation_id: str | None = Field(None, max_length=200)

    @property
    def parts(self) -> list[Part] | None:
        """The parts of messages that are asked for; None: all."""
        types = self.include_return_message_types
        return None if types is None else [render.PARTS[kind] for kind in types if kind in render.PARTS]

    def rendered(self, groups: Iterable[list[Json]], ascending: bool) -> list[Json]:
        """Groups of values, each in its own order, as one list in the page's order, without what is not asked for."""
        types = self.include_return_message_types
        values = [value for group in groups for value in (group if ascending else reversed(group))]
        return [v for v in values if types is None or v["message_type"] in types]


@router.get("/messages")
async def list_messages(agent_id: str, page: Annotated[MessagePage, Query()], serving: Serving) -> Response:
    """The agent's history; one message of the agent's may be several here, under one id.

    Where a page-out ended, its summary follows. A page holds `limit` messages with all that belongs to them.
    """
    return answer(await history_values(serving, agent_id, page))


async def history_values(service: Service, agent_id: str, page: MessagePage) -> list[Json]:
    """A page of an agent's history."""
    only_conversation(page.conversation_id)
    ascending = page.ascends(False)

    def work(tx: Any) -> list[list[Json]]:
        existing_agent(tx, agent_id)
        ends = page.ends(lambda given: _cursor(tx, agent_id, given))
        return _groups(tx, tx.history(agent_id, ascending, *ends, page.size(100), page.parts))

    return page.rendered(await service.store.read(work), ascending)


def only_conversation(conversation_id: str | None) -> None:
    """`Unsupported` for a conversation other than the one that each agent has."""
    if conversation_id not in (None, "default"):
        raise Unsupported("conversations are not supported; an agent has one, called `default`")


def _groups(tx: Any, messages: Sequence[Message]) -> list[list[Json]]:
    """Each message in Letta's shapes, with the summary of the page-out that ended with it."""
    places: dict[str, list[int]] = {}
    for message in messages:
        if message.seq is not None:
            places.setdefault(message.agent_id, []).append(message.seq)
    entries = {agent_id: tx.entries_at(agent_id, numbers) for agent_id, numbers in places.items()}
    decisions = tx.decisions({m.run_id for m in messages if m.role == "tool"})
    groups = []
    for message in messages:
        values = render.message_values(message, decisions=decisions.get(message.run_id))
        entry = entries.get(message.agent_id, {}).get(message.seq)
        groups.append([*values, *([render.summary_value(entry)] if entry else [])])
    return groups


def existing_message(tx: Any, given: str) -> Message:
    """The message with this id, for a summary the last one it covers; `NotFound` when there is none."""
    agent_id, mark, number = render.read_message_id(given)
    message: Message | None
    if mark == "i":
        message = next((m for m in tx.messages(agent_id, [number]) if m.seq is None and m.external_id), None)
    elif mark == "s" and not tx.entries_at(agent_id, [number]):
        message = None
    else:
        message = tx.message_at(agent_id, number)
    if message is None:
        raise NotFound(f"there is no message {given!r}")
    return message


def _cursor(tx: Any, agent_id: str, given: str) -> tuple[int, int]:
    """A message's id as `history` takes it."""
    message = existing_message(tx, given)
    if message.agent_id != agent_id:
        raise NotFound(f"this agent has no message {given!r}")
    return (0, message.id) if message.seq is None else (message.seq, 0)


class CancelRequest(BaseModel):
    """Which runs to stop; none named: all of the agent's."""

    run_ids: list[str] | None = None


@router.post("/messages/cancel")
async def cancel(agent_id: str, serving: Serving, body: CancelRequest | None = None) -> Response:
    """Stop runs: run id -> `cancelled`, or `failed` for one that had ended."""
    await serving.agent_record(agent_id)
    return answer(await serving.dispatcher.cancel(agent_id, body.run_ids if body else None))


class ResetRequest(BaseModel):
    """How to empty the message queue. Nothing is said here without a client, so there are no first messages."""

    add_default_initial_messages: bool = False


@router.patch("/reset-messages")
async def reset(agent_id: str, serving: Serving, body: ResetRequest | None = None) -> Response:
    """Empty the message queue and the summary; memory stays, and every message can still be found."""
    agent = await idle_agent(serving, agent_id)
    await agent.new_conversation()
    return await agent_answer(serving, agent_id)


@router.post("/summarize")
async def compact(agent_id: str, serving: Serving) -> Response:
    """Move all but the newest exchange out of the context now; a summary stands for it."""
    agent = await idle_agent(serving, agent_id)
    before = len((await agent.state()).queue)
    async with aclosing(agent.compact()) as events:
        async for _ in events:
            pass
    state = await agent.state()
    summary = "\n".join(entry.rendered for entry in state.entries)
    return answer({"summary": summary, "num_messages_before": before, "num_messages_after": len(state.queue)})


async def idle_agent(service: Service, agent_id: str) -> Agent:
    """An agent that runs no turn; `AgentBusy` when its turns take longer than a client waits."""
    for _ in range(int(_IDLE_SECONDS / 0.05)):
        if service.runtime.running(agent_id) is None:
            return await service.runtime.agent_of(agent_id)
        await asyncio.sleep(0.05)
    raise AgentBusy(f"turns of this agent have been running for {_IDLE_SECONDS:.0f} s; cancel them, or try again later")


# messages of all agents


@everywhere.get("")
async def list_all(page: Annotated[MessagePage, Query()], serving: Serving) -> Response:
    """What was said by and to all agents, in the order in which it was saved."""
    only_conversation(page.conversation_id)
    ascending = page.ascends(False)

    def work(tx: Any) -> list[list[Json]]:
        ends = page.ends(lambda given: existing_message(tx, given).id)
        return _groups(tx, tx.said(ascending, *ends, page.size(100), page.parts))

    return answer(page.rendered(await serving.store.read(work), ascending))


@everywhere.get("/{message_id}")
async def get_message(message_id: str, serving: Serving) -> Response:
    """One message: all that stands under its id."""

    def work(tx: Any) -> list[Json]:
        return [v for v in _groups(tx, [existing_message(tx, message_id)])[0] if v["id"] == message_id]

    return answer(await serving.store.read(work))


class MessageSearch(BaseModel):
    """What to look for among messages; `search_mode` is always hybrid here."""

    query: str = Field(max_length=10_000)
    agent_id: str | None = None
    conversation_id: str | None = None
    limit: int = Field(50, ge=1, le=100)
    search_mode: Literal["vector", "fts", "hybrid"] = "hybrid"
    start_date: str | None = Field(None, max_length=100)
    end_date: str | None = Field(None, max_length=100)


@everywhere.post("/search")
async def search_messages(body: MessageSearch, serving: Serving) -> Response:
    """The messages that answer best to words and meaning, best first; without `agent_id` among those of all agents."""
    only_conversation(body.conversation_id)
    now = serving.runtime.clock.now()
    query = SearchQuery(
        clean_text(body.query), "recall", start=moment("start_date", body.start_date, now),
        end=moment("end_date", body.end_date, now, end=True), limit=body.limit, now=now,
    )  # fmt: skip
    hits = await search_agents(serving, body.agent_id, query)

    def work(tx: Any) -> list[Json]:
        found = []
        for agent_id, hit in hits:
            for message in tx.messages(agent_id, [int(hit.ref[1:])]):
                kind = "assistant_message" if hit.role == "assistant" else "user_message"
                kind = kind if message.kind in ("message", "fallback") else "system_message"
                found.append({
                    "message_type": kind, "message_id": render.id_of(message), "content": message.content,
                    "created_at": stamp(message.created_at), "agent_id": agent_id, "conversation_id": None,
                })  # fmt: skip
        return found

    return answer(await serving.store.read(work))
