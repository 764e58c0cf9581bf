"""A turn over HTTP: waited for, streamed, or left to a run."""

import time
from collections.abc import AsyncGenerator
from typing import Any

from agentos.errors import AgentOSError, Stopping
from agentos.events import TurnResult
from agentos.feeds import Feed
from agentos.messages import Message
from agentos.server.letta import render
from agentos.server.replies import dumps, sse, stamp
from agentos.server.service import Service
from agentos.state import InboxItem, RunRecord

Json = dict[str, Any]


async def whole_answer(
    service: Service, item: InboxItem, kinds: set[str] | None, place: int = 0
) -> AsyncGenerator[bytes, None]:
    """The `LettaResponse` of an input's turn; spaces before it, where it takes long, keep its client waiting."""
    while (result := await service.dispatcher.result(item, service.keep_alive_seconds)) is None:
        yield b" "
    yield dumps(await response_value(service, result, kinds, place))


async def response_value(service: Service, result: TurnResult, kinds: set[str] | None, place: int) -> Json:
    """A `LettaResponse`: what the agent said and did in a turn behind a place, why it ended, what all of it used."""
    run_id = result.run_id
    messages: list[Message] = await service.store.read(lambda tx: tx.run_messages(run_id))
    values = [v for m in messages if not _is_input(m) and (m.seq or 0) > place for v in render.message_values(m)]
    return {
        "messages": [v for v in values if kinds is None or v["message_type"] in kinds],
        "stop_reason": render.stop_value(result.stop_reason),
        "usage": render.usage_value(result.usage, result.steps, run_id),
    }


async def stream_run(
    service: Service, run: RunRecord, *, tokens: bool, pings: bool = True, after: int = 0,
    kinds: set[str] | None = None,
) -> AsyncGenerator[Json | None, None]:  # fmt: skip
    """What a run says and does behind `after` (a `seq_id`), as it happens, until its end; None keeps a client waiting.

    Everything but the message being written is read from the database: a stream can begin at any time,
    in any process, and a client that reads slowly gets larger pieces later. `Stopping` when this process
    ends before the run.
    """
    place, position = render.read_seq_id(after) if after else (0, -1)
    quiet_since = time.monotonic()
    async with service.dispatcher.feeds.follow(run.id) as feed:
        seen, attempts = -1, feed.attempts
        while True:
            values: list[Json | None] = []
            ended = False
            if feed.attempts != attempts:  # what was told cannot be taken back; whole behind it is better than spliced
                attempts = feed.attempts
                position = position if position == render.LAST else -1
            if seen != feed.saved or not feed.place:
                seen = feed.saved
                current, messages = await _saved(service, run.id, place)
                for message in messages:
                    if not _is_input(message):
                        values += render.message_values(message, position if message.seq == place else -1)
                    place, position = message.seq or 0, render.LAST
                ended = current is None or current.stopped
                values += _ending(current) if ended else []
            if tokens and not ended and feed.place >= place:
                for piece, end in _pieces(feed, position if feed.place == place else -1):
                    place, position = feed.place, end
                    values.append(render.piece_value(run, place, end, piece, stamp(service.runtime.clock.now())))
            if not values and time.monotonic() - quiet_since >= service.keep_alive_seconds:
                ping = {"message_type": "ping", "id": f"ping-{run.id}", "date": stamp(service.runtime.clock.now())}
                values.append(ping if pings else None)
            for value in values:
                if kinds is None or value is None or value["message_type"] in (*kinds, *_ALWAYS):
                    quiet_since = time.monotonic()
                    yield value
            if ended:
                return
            if service.dispatcher.stopped:  # what is missing can be streamed once it has started again
                raise Stopping
            if not values and seen == feed.saved:  # else more came meanwhile
                left = quiet_since + service.keep_alive_seconds - time.monotonic()
                if not await feed.changed(service.dispatcher.patience(run.agent_id, max(0.0, left))):
                    seen = -1


def _pieces(feed: Feed, position: int) -> list[tuple[str, int]]:
    """(what is new of the message being written, the position at which it ends), behind a position in it."""
    pieces = []
    thought, text = feed.reasoning[: render.TEXT - 1], feed.text
    if thought[max(0, position) :]:
        pieces.append((thought[max(0, position) :], len(thought)))
    told = max(0, position - render.TEXT)
    if text[told:] and text.strip():  # blank text is not kept where nothing follows it
        pieces.append((text[told:], render.TEXT + len(text)))
    return pieces


async def events(values: AsyncGenerator[Json | None, None]) -> AsyncGenerator[bytes, None]:
    """Values as server-sent events, `[DONE]` last. A client that leaves ends this, and no turn."""
    try:
        async for value in values:
            yield b": waiting\n\n" if value is None else sse(value)
    except AgentOSError as error:
        yield sse(_error_value(None, "server_error", str(error)))
    finally:
        await values.aclose()
    yield b"data: [DONE]\n\n"


async def _saved(service: Service, run_id: str, place: int) -> tuple[RunRecord | None, list[Message]]:
    """The run as it is, None once it is deleted, and its messages from `place` on."""

    def work(tx: Any) -> tuple[RunRecord | None, list[Message]]:
        return tx.run(run_id), [m for m in tx.run_messages(run_id) if (m.seq or 0) >= place]

    return await service.store.read(work)


def _is_input(message: Message) -> bool:
    """Whether a client said it, and need not hear it again."""
    return message.role == "user" and message.inbox_id is not None


_ALWAYS = ("ping", "error_message", "stop_reason", "usage_statistics")
"""What a stream holds whatever types of messages are asked for."""


def _ending(run: RunRecord | None) -> list[Json]:
    if run is None:
        return [_error_value(None, "error", "the agent was deleted"), render.stop_value("error")]
    values = []
    if run.status == "failed":
        values.append(_error_value(run.id, render.stop_reason(run.stop_reason), run.error or "the turn failed"))
    return [*values, render.stop_value(run.stop_reason), render.usage_value(run.usage, run.steps, run.id)]


def _error_value(run_id: str | None, kind: str, text: str) -> Json:
    return {"message_type": "error_message", "run_id": run_id, "error_type": kind, "message": text, "detail": None}
