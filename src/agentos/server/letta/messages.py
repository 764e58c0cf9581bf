"""Messages: sending them, reading them back, and what is done to the message queue."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from agentos.errors import UsageError
from agentos.messages import Input, Message
from agentos.server.letta import render
from agentos.server.letta.paging import Page, Paged
from agentos.server.letta.turns import sse, stream_run, whole_answer
from agentos.server.replies import Unsupported, answer
from agentos.server.service import Service, Serving, existing_agent
from agentos.state import InboxItem, RunRecord

router = APIRouter(prefix="/agents/{agent_id}", tags=["messages"])
Retries = Annotated[int, Header(alias="x-stainless-retry-count", ge=0)]


class Part(BaseModel):
    """A part of a message's content; only text is read."""

    type: str
    text: str | None = None


class TurnMessage(BaseModel):
    """One message of a turn."""

    model_config = ConfigDict(extra="allow")
    type: str = "message"
    role: Literal["user", "system", "assistant"] = "user"
    content: str | list[Part] = ""
    name: str | None = Field(None, max_length=200)
    otid: str | None = Field(None, max_length=200)


class TurnRequest(BaseModel):
    """Input for one turn: `messages`, or `input` as text."""

    model_config = ConfigDict(extra="ignore")
    messages: list[TurnMessage] | None = None
    input: str | list[Part] | None = None
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
        return [_input(m) for m in messages], otid

    @property
    def kinds(self) -> set[str] | None:
        """The message types that are asked for; None: all."""
        chosen = self.include_return_message_types
        return set(chosen) if chosen else None


def _input(message: TurnMessage) -> Input:
    if message.type != "message":
        raise Unsupported(f"messages of type {message.type!r} are not supported; no tool here waits for a client")
    text = _text(message.content)
    if message.role == "system":  # whoever runs the agent, not its user: it establishes no facts about a user
        return Input(text, origin="runtime", kind="alert", name="system")
    if message.role == "assistant":
        raise UsageError("a message of role 'assistant' cannot be sent; import past conversations instead")
    return Input(text, name=message.name)


def _text(content: str | list[Part]) -> str:
    if isinstance(content, str):
        return content
    if odd := next((part.type for part in content if part.type != "text"), None):
        raise Unsupported(f"content of type {odd!r} is not supported; send text")
    return "\n".join(part.text or "" for part in content)


async def _accept(service: Service, agent_id: str, body: TurnRequest, retries: int) -> InboxItem:
    inputs, otid = body.inputs()
    await service.agent_record(agent_id)
    return await service.dispatcher.accept(agent_id, inputs, otid=otid, repeated=retries > 0)


async def run_of(service: Service, run_id: str) -> RunRecord:
    """A run that is known to exist."""
    run: RunRecord = await service.store.read(lambda tx: tx.run(run_id))
    return run


async def _streamed(service: Service, item: InboxItem, body: TurnRequest) -> Response:
    run = await run_of(service, item.run_id)
    values = stream_run(service, run, tokens=body.stream_tokens, pings=body.include_pings, kinds=body.kinds)
    return StreamingResponse(sse(values), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


@router.post("/messages")
async def create_message(agent_id: str, body: TurnRequest, serving: Serving, x_retries: Retries = 0) -> Response:
    """One turn: its messages, why it ended, what it used. With `streaming` as a stream."""
    item = await _accept(serving, agent_id, body, x_retries)
    if body.streaming:
        return await _streamed(serving, item, body)
    whole = whole_answer(serving, item, body.kinds)
    first = await anext(whole)
    if first != b" ":
        return Response(first, media_type="application/json")

    async def rest() -> Any:
        yield first
        async for part in whole:
            yield part

    return StreamingResponse(rest(), media_type="application/json")


@router.post("/messages/stream")
async def stream_message(agent_id: str, body: TurnRequest, serving: Serving, x_retries: Retries = 0) -> Response:
    """One turn as a stream: whole messages, or with `stream_tokens` pieces as they are written."""
    return await _streamed(serving, await _accept(serving, agent_id, body, x_retries), body)


@router.post("/messages/async")
async def create_message_async(agent_id: str, body: TurnRequest, serving: Serving, x_retries: Retries = 0) -> Response:
    """Save input and return the run that answers it, at once."""
    item = await _accept(serving, agent_id, body, x_retries)
    return answer(render.run_value(await run_of(serving, item.run_id)) | {"background": True})


@router.get("/messages")
async def list_messages(agent_id: str, page: Paged, serving: Serving) -> Response:
    """The agent's history; one message of the agent's may be several here, under one id."""

    def work(tx: Any) -> list[Message]:
        existing_agent(tx, agent_id)
        return message_page(tx, agent_id, page)

    messages = await serving.store.read(work)
    ascending = page.ascends(False)
    groups = [list(render.message_values(m)) for m in messages]
    return answer([value for group in groups for value in (group if ascending else reversed(group))])


def message_page(tx: Any, agent_id: str, page: Page) -> list[Message]:
    """One page of an agent's history."""
    ascending = page.ascends(False)
    cursors: list[Sequence[int] | None] = []
    for given in (page.after, page.before):
        if given is None:
            cursors.append(None)
            continue
        _, mark, number = render.read_message_id(given)
        cursors.append((0, number) if mark == "i" else (number, 0))
    found: list[Message] = tx.history(agent_id, ascending, *cursors, page.size(100))
    return found


class CancelRequest(BaseModel):
    """Which runs to stop; none named: all of the agent's."""

    run_ids: list[str] | None = None


@router.post("/messages/cancel")
async def cancel(agent_id: str, serving: Serving, body: CancelRequest | None = None) -> Response:
    """Stop runs: run id -> `cancelled`, or `failed` for one that had ended."""
    await serving.agent_record(agent_id)
    return answer(await serving.dispatcher.cancel(agent_id, body.run_ids if body else None))
