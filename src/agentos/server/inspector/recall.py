"""Recall memory: every past message, looked through and searched, and one message among its neighbours."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from agentos import values
from agentos.errors import AgentOSError
from agentos.server.inspector.forms import FormQuery
from agentos.server.inspector.render import page, text_part
from agentos.server.own import Json, agent_record
from agentos.server.replies import answer
from agentos.server.service import Service, Serving
from agentos.state import AgentRecord

pages = APIRouter(prefix="/agents/{name}/recall", include_in_schema=False)
router = APIRouter(prefix="/agentos/v1/agents/{agent}/messages", tags=["agentos"])
_PAGE = 15
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
    return answer(await values.shown_message(serving.store, (await agent_record(serving, agent)).id, message))


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
    found = await values.shown_message(serving.store, record.id, message)
    part = text_part(found["message"]["text"], at)
    return page(request, "message.html", agent=record.name, view="recall", part=part, **found)


async def _found(serving: Service, record: AgentRecord, query: MessageQuery, limit: int) -> Json:
    """`values.message_page` of a query."""
    now = serving.runtime.clock.now()
    return await values.message_page(
        serving.runtime, record.id, query.query, role=query.role, start=values.moment("start", query.start, now),
        end=values.moment("end", query.end, now, end=True), limit=limit, page=query.page, after=query.after,
    )  # fmt: skip
