"""A turn over HTTP: waited for, streamed, or left to a run."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from agentos.events import TurnResult
from agentos.messages import Message
from agentos.server.letta import render
from agentos.server.replies import dumps, stamp
from agentos.server.service import Service
from agentos.state import OPEN, InboxItem, RunRecord

Json = dict[str, Any]
_KEEP_ALIVE_SECONDS = 20.0
"""Clients give up after 60 s without a byte."""


async def whole_answer(service: Service, item: InboxItem, kinds: set[str] | None) -> AsyncGenerator[bytes, None]:
    """The `LettaResponse` of an input's turn; spaces before it, where it takes long, keep its client waiting."""
    while (result := await service.dispatcher.result(item, _KEEP_ALIVE_SECONDS)) is None:
        yield b" "
    yield dumps(await response_value(service, result, kinds))


async def response_value(service: Service, result: TurnResult, kinds: set[str] | None) -> Json:
    """A `LettaResponse`: what the agent said and did in a turn, why it ended, what it used."""
    run_id = result.run_id
    messages: list[Message] = await service.store.read(lambda tx: tx.run_messages(run_id))
    values = [v for m in messages if not _is_input(m) for v in render.message_values(m)]
    return {
        "messages": [v for v in values if kinds is None or v["message_type"] in kinds],
        "stop_reason": render.stop_value(result.stop_reason),
        "usage": render.usage_value(result.usage, result.steps, run_id),
    }


async def stream_run(
    service: Service, run: RunRecord, *, tokens: bool, pings: bool = True, after: int = 0,
    kinds: set[str] | None = None,
) -> AsyncGenerator[Json, None]:  # fmt: skip
    """What a run says and does from `after` (a `seq_id`) on, as it happens, until its end.

    Everything but the message being written is read from the database: a stream can begin at any time,
    in any process, and a client that reads slowly gets larger pieces later.
    """
    place, position = render.read_seq_id(after)
    if not after:
        position = -1
    async with service.dispatcher.follow(run.id) as feed:
        seen = -1
        while True:
            if seen != feed.saved or not feed.place:
                seen = feed.saved
                current, messages = await _saved(service, run.id, place)
                for message in messages:
                    behind = position if message.seq == place else -1
                    if not _is_input(message):
                        for value in render.message_values(message, behind):
                            if kinds is None or value["message_type"] in kinds:
                                yield value
                    place, position = message.seq or 0, render.LAST
                if current.status not in OPEN:
                    for value in _ending(current):
                        yield value
                    return
                if service.dispatcher.stopped:  # what is missing can be streamed once the server has started again
                    return
            if tokens and feed.place > place:
                place, position = feed.place, 0
            if tokens and place and feed.place == place and position < len(feed.text) and position != render.LAST:
                piece, position = feed.text[max(0, position) :], len(feed.text)
                if kinds is None or "assistant_message" in kinds:
                    date = stamp(service.runtime.clock.now())
                    yield render.piece_value(run.agent_id, run.id, place, position, piece, date)
            elif not await feed.changed(service.dispatcher.patience(run.agent_id, _KEEP_ALIVE_SECONDS)):
                seen = -1
                if pings:
                    yield {"message_type": "ping", "id": f"ping-{run.id}", "date": stamp(service.runtime.clock.now())}


async def sse(values: AsyncGenerator[Json, None]) -> AsyncGenerator[bytes, None]:
    """Values as server-sent events, `[DONE]` last."""
    try:
        async for value in values:
            yield b"data: " + dumps(value) + b"\n\n"
        yield b"data: [DONE]\n\n"
    except asyncio.CancelledError:  # the client left; the turn goes on
        raise
    finally:
        await values.aclose()


async def _saved(service: Service, run_id: str, place: int) -> tuple[RunRecord, list[Message]]:
    """The run as it is, and its messages from `place` on."""

    def work(tx: Any) -> tuple[RunRecord, list[Message]]:
        return tx.run(run_id), [m for m in tx.run_messages(run_id) if (m.seq or 0) >= place]

    return await service.store.read(work)


def _is_input(message: Message) -> bool:
    """Whether a client said it, and need not hear it again."""
    return message.role == "user" and message.inbox_id is not None


def _ending(run: RunRecord) -> list[Json]:
    values = []
    if run.status == "failed":
        values.append({
            "message_type": "error_message", "run_id": run.id, "error_type": render.stop_reason(run.stop_reason),
            "message": run.error or "the turn failed", "detail": None,
        })  # fmt: skip
    return [*values, render.stop_value(run.stop_reason), render.usage_value(run.usage, run.steps, run.id)]
