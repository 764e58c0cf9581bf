"""Recall memory: every past message, looked through and searched, and one message among its neighbours."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from agentos import values
from agentos.errors import AgentOSError, NotFound
from agentos.messages import Message
from agentos.protocols import SearchQuery
from agentos.server.inspector.forms import FormQuery
from agentos.server.inspector.render import page, text_part
from agentos.server.letta.searching import moment
from agentos.server.own import Json, agent_record
from agentos.server.replies import answer
from agentos.server.service import Service, Serving
from agentos.state import AgentRecord

pages = APIRouter(prefix="/agents/{name}/recall", include_in_schema=False)
router = APIRouter(prefix="/agentos/v1/agents/{agent}/messages", tags=["agentos"])
_PAGE, _AROUND = 15, 4
Text = Annotated[str | None, Field(max_length=200)]


class MessageQuery(FormQuery):
    """Which messages: those that a search finds, or all, newest first."""

    query: str | None = Field(None, max_length=10_000)
    role: Literal["user", "assistant", "tool"] | None = None
    start: Text = None
    end: Text = None
    """ISO dates or times, both included."""
    page: int = Field(0, ge=0, le=100)
    """Of a search: 0 for the best hits, 1 for the next ones."""
    after: Text = None
    """Without a search: only messages older than this one, the last of the page before."""


@router.get("")
async def messages(
    agent: str,
    serving: Serving,
    asked: Annotated[MessageQuery, Query()],
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Past messages, newest first, or what a search finds, best first."""
    found = await _found(serving, await agent_record(serving, agent), asked, limit)
    return answer(found["messages"])


@router.get("/{message}")
async def show(agent: str, message: str, serving: Serving) -> Response:
    """One message and its neighbours: {"message", "around"}."""
    return answer(await _shown(serving, await agent_record(serving, agent), message))


@pages.get("")
async def recall_page(
    request: Request, name: str, serving: Serving, asked: Annotated[MessageQuery, Query()]
) -> Response:
    """The messages."""
    record, status, refused = await agent_record(serving, name), 200, None
    try:
        found = await _found(serving, record, asked, _PAGE)
    except AgentOSError as error:
        found, refused, status = {"messages": [], "after": None, "more": False}, str(error), 400
    return page(
        request, "recall.html", status, agent=record.name, view="recall", refused=refused, number=asked.page,
        first=asked.after is None and not asked.page, shown=asked.model_dump(exclude={"page", "after"}), **found,
    )  # fmt: skip


@pages.get("/{message}")
async def message_page(
    request: Request, name: str, message: str, serving: Serving, at: Annotated[int, Query(ge=0, le=2**62)] = 0
) -> Response:
    """One message; of a long one what begins at character `at`."""
    record = await agent_record(serving, name)
    found = await _shown(serving, record, message)
    part = text_part(found["message"]["text"], at)
    return page(request, "message.html", agent=record.name, view="recall", part=part, **found)


async def _message(serving: Service, record: AgentRecord, ref: str) -> Message:
    if ref[:1] != "m" or not (ref[1:].isascii() and ref[1:].isdigit() and len(ref) < 17):
        raise NotFound(f"{ref!r} is no message; ids look like m12")
    found: list[Message] = await serving.store.read(lambda tx: tx.messages(record.id, [int(ref[1:])]))
    if not found:
        raise NotFound(f"this agent has no message {ref}")
    return found[0]


async def _shown(serving: Service, record: AgentRecord, ref: str) -> Json:
    message = await _message(serving, record, ref)
    around: list[Message] = await serving.store.read(lambda tx: tx.neighbours(message, _AROUND))
    return {"message": values.message_value(message), "around": [values.message_value(m) for m in around]}


async def _found(serving: Service, record: AgentRecord, query: MessageQuery, limit: int) -> Json:
    """{"messages", "after", "more"}: `after` goes on behind a list, `more` tells of a search's next page."""
    now = serving.runtime.clock.now()
    start, end = moment("start", query.start, now), moment("end", query.end, now, end=True)
    if query.query is None or not query.query.strip():
        last = await _message(serving, record, query.after) if query.after else None

        def listed(tx: Any) -> list[Message]:
            found: list[Message] = tx.message_page(record.id, last, limit + 1, role=query.role, start=start, end=end)
            return found

        found = await serving.store.read(listed)
        after = found[limit - 1].ref if len(found) > limit else None
        return {"messages": [values.message_value(m) for m in found[:limit]], "after": after, "more": False}
    roles = (query.role,) if query.role else ()
    asked = SearchQuery(query.query, "recall", roles=roles, start=start, end=end, limit=limit, page=query.page, now=now)
    hits = sorted(await serving.runtime.search(record.id, asked), key=lambda hit: -hit.score)
    said = {hit.ref: {"why": hit.why, "score": round(hit.score, 4)} for hit in hits}
    rows: list[Message] = await serving.store.read(lambda tx: tx.messages(record.id, [int(r[1:]) for r in said]))
    by_ref = {m.ref: m for m in rows}
    kept = [by_ref[hit.ref] for hit in hits if hit.ref in by_ref]
    shown = [values.message_value(m) | said[m.ref] for m in kept]
    return {"messages": shown, "after": None, "more": len(hits) == limit}
