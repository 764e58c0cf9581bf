"""OpenAI's chat completions: each agent is a model, and `plain/NAME` is that agent's model without the agent.

An agent keeps its own history: of a request only the last user message is its input. A turn that fails is an answer
whose text says so; `agentos` beside it holds the run, the stop reason and the error.
"""

import json
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from agentos import values
from agentos.errors import AgentOSError, NotFound, Stopping, UsageError
from agentos.messages import Input, Reply, Usage, clean_text
from agentos.protocols import LLM, Delta, LLMRequest
from agentos.server.letta.turns import stream_run
from agentos.server.replies import answer, dumps, event_stream, patient, sse
from agentos.server.service import Service, Serving
from agentos.state import AgentRecord, InboxItem, StepRecord

router = APIRouter(tags=["openai"])
Json = dict[str, Any]
_PLAIN = "plain/"
_MOST_MESSAGES = 10_000
_MOST_AGENTS = 1000
"""In one list of models: OpenAI's clients ask for no second page."""
_CUT = {"max_steps": "length", "budget": "length"}


class ModelNotFound(NotFound):
    """No agent of that name."""

    code, param = "model_not_found", "model"


class ChatPart(BaseModel):
    """A part of a message's content; only text is read."""

    type: str
    text: str | None = None


class ChatMessage(BaseModel):
    """One message of the request."""

    model_config = ConfigDict(extra="ignore")
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ChatPart] | None = None
    name: str | None = Field(None, max_length=200)

    def words(self) -> str:
        """The text; `UsageError` where there is anything else."""
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        if odd := next((part.type for part in self.content if part.type != "text"), None):
            raise UsageError(f"content of type {odd!r} cannot be read here; send text")
        return "\n".join(part.text or "" for part in self.content)


class StreamOptions(BaseModel):
    """What a stream tells besides its text."""

    include_usage: bool = False


class ChatRequest(BaseModel):
    """A chat completion. What shapes the model's sampling, and tools, are the agent's own matter and ignored."""

    model_config = ConfigDict(extra="ignore")
    model: str = Field(max_length=200)
    messages: list[ChatMessage] = Field(min_length=1, max_length=_MOST_MESSAGES)
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)

    def said(self) -> Input:
        """The last message of the user's."""
        message = next((m for m in reversed(self.messages) if m.role == "user"), None)
        if message is None:
            raise UsageError("there is no message of role 'user'; the last one of them is what the agent is told")
        return Input(message.words(), name=message.name)

    def plain(self, llm: LLM) -> LLMRequest:
        """The same for the model itself: system text first, nothing empty."""
        texts = [(m.role, clean_text(m.words())) for m in self.messages]
        texts = [(role, text) for role, text in texts if text.strip()]
        told = "\n\n".join(text for role, text in texts if role in ("system", "developer"))
        talk = [{"role": role, "content": text} for role, text in texts if role in ("user", "assistant")]
        if not any(m["role"] == "user" for m in talk):
            raise UsageError("there is no message of role 'user'; write one")
        most = min(n for n in (self.max_tokens, self.max_completion_tokens, llm.max_output_tokens) if n)
        return LLMRequest([{"role": "system", "content": told}] * bool(told) + talk, max_tokens=most)


class _Answer:
    """One completion in the making; its parts share id, time and model."""

    def __init__(self, model: str) -> None:
        self.model, self._id, self._created = model, f"chatcmpl-{uuid.uuid4().hex}", int(time.time())

    def whole(self, text: str, usage: Usage, reason: str, error: str | None, run_id: str | None) -> Json:
        """The object of an answer that is not streamed."""
        if reason == "llm_error":
            text = "\n\n".join(filter(None, [text, f"[error: {error}]"]))
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": _CUT.get(reason, "stop"), "logprobs": None}
        ours = {"run_id": run_id, "stop_reason": reason, "error": error}
        return self._head("chat.completion") | {"choices": [choice], "usage": _usage(usage), "agentos": ours}

    def piece(self, text: str, *, first: bool = False) -> bytes:
        """A piece of text."""
        return self._event({"content": text, **({"role": "assistant"} if first else {})})

    def end(self, reason: str, error: str | None, run_id: str | None) -> bytes:
        """The last piece, with why it is the last."""
        ours = {"run_id": run_id, "stop_reason": reason, "error": error}
        return self._event({}, _CUT.get(reason, "stop"), agentos=ours)

    def usage(self, usage: Usage) -> bytes:
        """What it used, behind the last piece."""
        return sse(self._head("chat.completion.chunk") | {"choices": [], "usage": _usage(usage)})

    def _event(self, delta: Json, finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return sse(self._head("chat.completion.chunk") | {"choices": [choice], **more})

    def _head(self, kind: str) -> Json:
        return {"id": self._id, "object": kind, "created": self._created, "model": self.model}


def _usage(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }  # fmt: skip


# models


@router.get("/models")
async def list_models(
    serving: Serving,
    limit: Annotated[int, Query(ge=1, le=_MOST_AGENTS)] = _MOST_AGENTS,
    after: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Agents by name, each as a model and its model as `plain/NAME`; `limit` agents, behind the model `after`."""
    last = None if after is None else (await _agent(serving, after))[0].id
    agents = await serving.store.read(lambda tx: tx.agent_page(order_by="name", after=last, limit=limit + 1))
    found = [m for agent in agents[:limit] for m in _models(agent)]
    return answer({"object": "list", "data": found, "has_more": len(agents) > limit})


@router.get("/models/{model:path}")
async def get_model(model: str, serving: Serving) -> Response:
    """One model."""
    agent, _ = await _agent(serving, model)
    return answer(next(m for m in _models(agent) if m["id"] == model))


def _models(agent: AgentRecord) -> list[Json]:
    rest = {"object": "model", "created": int(agent.created_at.timestamp()), "owned_by": "agentos"}
    return [{"id": name, **rest} for name in (agent.name, _PLAIN + agent.name)]


async def _agent(service: Service, model: str) -> tuple[AgentRecord, bool]:
    """(the agent behind a model's name, whether its plain model is meant)."""
    name = model.removeprefix(_PLAIN)
    record = await service.store.read(lambda tx: tx.agent_named(name))
    if record is None:
        raise ModelNotFound(f"there is no agent {name!r} to be the model {model!r}; GET /v1/models lists them")
    return record, name != model


# completions


@router.post("/chat/completions")
async def create_completion(
    body: ChatRequest,
    serving: Serving,
    idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
    x_stainless_retry_count: Annotated[int, Header(ge=0)] = 0,
) -> Response:
    """A turn of an agent, or a plain call of its model."""
    agent, plain = await _agent(serving, body.model)
    made = _Answer(body.model)
    counted = body.stream_options is not None and body.stream_options.include_usage
    if plain:
        llm = serving.runtime.llm(agent.model)
        calling = _plain_call(serving, agent, llm, body.plain(llm))
        if body.stream:
            return event_stream(_plain_pieces(made, calling, counted))
        text, usage, error = await _plain_reply(calling)
        return answer(made.whole(text, usage, "end_turn" if error is None else "llm_error", error, None))
    repeated = x_stainless_retry_count > 0
    said = [body.said()]
    item = await serving.dispatcher.accept(agent.id, said, otid=idempotency_key or None, repeated=repeated)
    if body.stream:
        return event_stream(_turn_pieces(made, serving, item, counted))
    return await patient(_whole_turn(made, serving, item))


async def _whole_turn(made: _Answer, service: Service, item: InboxItem) -> AsyncGenerator[bytes, None]:
    """The completion; spaces before it, where it takes long, keep its client waiting."""
    while (result := await service.dispatcher.result(item, service.keep_alive_seconds)) is None:
        yield b" "
    said = "\n\n".join(filter(None, [result.reply, _asking(result.agent, result.approvals)]))
    yield dumps(made.whole(said, result.usage, result.stop_reason, result.error, result.run_id))


async def _turn_pieces(made: _Answer, service: Service, item: InboxItem, counted: bool) -> AsyncGenerator[bytes, None]:
    """A turn's text as it is written; several messages of one turn stand apart as paragraphs."""
    run = await service.store.read(lambda tx: tx.run(item.run_id))
    yield made.piece("", first=True)
    speaking: str | None = None
    with suppress(Stopping):  # the turn goes on at the next start
        async with aclosing(stream_run(service, run, tokens=True, kinds={"assistant_message"})) as said:
            async for value in said:
                if value is None or value["message_type"] == "ping":
                    yield b": still at work\n\n"
                elif value["message_type"] == "assistant_message":
                    apart = "\n\n" if speaking not in (None, value["id"]) else ""
                    speaking = value["id"]
                    yield made.piece(apart + value["content"])
    run, waiting = await service.store.read(lambda tx: (tx.run(item.run_id), values.approvals_value(tx, item.agent_id)))
    if run is not None and run.stop_reason is None:
        return
    reason, error = (run.stop_reason, run.error) if run else ("llm_error", "the agent was deleted")
    if run is not None and run.awaits_approval:
        yield made.piece(("\n\n" if speaking else "") + _asking(made.model, waiting))
    if reason == "llm_error":
        yield made.piece(("\n\n" if speaking else "") + f"[error: {error}]")
    yield made.end(reason, error, item.run_id)
    if counted and run is not None:
        yield made.usage(run.usage)
    yield b"data: [DONE]\n\n"


def _asking(agent: str, waiting: Sequence[Json]) -> str:
    """In words, what waits for approval and where it is given; nothing where nothing waits."""
    if not waiting:
        return ""
    calls = ", ".join(f"{call['name']} {json.dumps(call['arguments'], ensure_ascii=False)}" for call in waiting)
    where = f"`agentos approve {agent}`, or POST /agentos/v1/agents/{agent}/approvals"
    return f"[waits for approval: {calls}. It is given by {where}; another message refuses it.]"


# plain calls: nothing of them is saved but what they used


async def _plain_call(
    service: Service, agent: AgentRecord, llm: LLM, request: LLMRequest
) -> AsyncGenerator[str | Reply, None]:
    """The model's text in pieces, then its whole reply, whose usage stands in the ledger by then."""
    started, said = time.perf_counter(), False
    async with aclosing(llm.stream(request)) as stream:
        async for item in stream:
            if isinstance(item, Reply):
                reply = replace(item, usage=item.usage or _estimate(llm, request, item))
                step = StepRecord(
                    run_id="", agent_id=agent.id, created_at=service.runtime.clock.now(), kind="plain",
                    model=reply.model or llm.name, usage=reply.usage or Usage(), estimated_tokens=0,
                    expected_cached_tokens=0, cache_note="", finish_reason=reply.finish_reason,
                    latency_ms=round(1000 * (time.perf_counter() - started)),
                )  # fmt: skip
                await service.store.write(partial(_add_step, step))
                if reply.text and not said:
                    yield reply.text
                yield reply
            elif isinstance(item, Delta) and item.text:
                said = True
                yield item.text


async def _plain_reply(calling: AsyncGenerator[str | Reply, None]) -> tuple[str, Usage, str | None]:
    """(text, usage, what went wrong)."""
    reply = Reply()
    try:
        async with aclosing(calling):
            async for item in calling:
                reply = item if isinstance(item, Reply) else reply
    except AgentOSError as error:
        return "", Usage(), str(error)
    return reply.text, reply.usage or Usage(), None


async def _plain_pieces(
    made: _Answer, calling: AsyncGenerator[str | Reply, None], counted: bool
) -> AsyncGenerator[bytes, None]:
    said, usage, error = False, Usage(), None
    yield made.piece("", first=True)
    try:
        async with aclosing(calling):
            async for item in calling:
                if isinstance(item, Reply):
                    usage = item.usage or usage
                else:
                    said = True
                    yield made.piece(item)
    except AgentOSError as failure:
        error = str(failure)
        yield made.piece(("\n\n" if said else "") + f"[error: {error}]")
    yield made.end("end_turn" if error is None else "llm_error", error, None)
    if counted:
        yield made.usage(usage)
    yield b"data: [DONE]\n\n"


def _add_step(step: StepRecord, tx: Any) -> None:
    tx.add_step(step)


def _estimate(llm: LLM, request: LLMRequest, reply: Reply) -> Usage:
    """Our own count, where the provider reports none."""
    return Usage(sum(llm.count_tokens(m["content"]) for m in request.messages), llm.count_tokens(reply.text))
