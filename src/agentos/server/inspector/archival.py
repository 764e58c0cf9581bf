"""Archival memory: looked through and searched, with why each hit ranked; added to, put right, and taken out of."""

from typing import Annotated

from fastapi import APIRouter, Form, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from agentos import curate, values
from agentos.errors import AgentOSError
from agentos.messages import Passage
from agentos.server.inspector.forms import FormQuery
from agentos.server.inspector.render import agent_path, page, see, text_part
from agentos.server.own import Json, agent_record
from agentos.server.replies import answer
from agentos.server.service import Service, Serving
from agentos.state import AgentRecord

pages = APIRouter(prefix="/agents/{name}/archival", include_in_schema=False)
router = APIRouter(prefix="/agentos/v1/agents/{agent}/passages", tags=["agentos"])
_PAGE = 15
Text = Annotated[str | None, Field(max_length=200)]


class PassageQuery(FormQuery):
    """Which passages: those that a search finds, or all, newest first."""

    query: str | None = Field(None, max_length=10_000)
    tag: str | None = Field(None, max_length=1000)
    start: Text = None
    end: Text = None
    """ISO dates or times, both included."""
    as_of: Text = None
    """Of a search: what was valid then."""
    include_superseded: bool = False
    page: int = Field(0, ge=0, le=100)
    """Of a search: 0 for the best hits, 1 for the next ones."""
    after: Text = None
    """Without a search: only passages older than this one, the last of the page before."""


class NewPassage(BaseModel):
    """A text for archival memory."""

    model_config = ConfigDict(extra="forbid")
    text: str = Field(max_length=1_000_000)
    tags: list[str] = Field([], max_length=1000)
    replaces: str | None = Field(None, max_length=200)
    """The passage whose place it takes."""


# as JSON


@router.get("")
async def passages(
    agent: str,
    serving: Serving,
    asked: Annotated[PassageQuery, Query()],
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Archival memory, newest first, or what a search finds, best first."""
    found = await _found(serving, await agent_record(serving, agent), asked, limit)
    return answer(found["passages"])


@router.post("")
async def add(agent: str, body: NewPassage, serving: Serving) -> Response:
    """Store a text; one that is stored already is returned. 409 when what it `replaces` is valid no more."""
    record = await agent_record(serving, agent)
    return answer(values.passage_value(await _add(serving, record, body.text, body.tags, body.replaces)))


@router.get("/{passage}")
async def show(agent: str, passage: str, serving: Serving) -> Response:
    """One passage, valid or not."""
    return answer(await values.shown_passage(serving.store, (await agent_record(serving, agent)).id, passage))


@router.delete("/{passage}")
async def delete(agent: str, passage: str, serving: Serving) -> Response:
    """Take a passage out of archival memory; undo brings it back."""
    record = await agent_record(serving, agent)
    gone = await curate.delete_passage(serving.store, serving.runtime.clock, record.id, curate.passage_id(passage))
    return answer(values.passage_value(gone))


# as pages


@pages.get("")
async def archival_page(
    request: Request,
    name: str,
    serving: Serving,
    asked: Annotated[PassageQuery, Query()],
    edit: str | None = None,
    done: str | None = None,
) -> Response:
    """The passages; `edit` (a passage's id, or `new`) opens a form, `done` tells what was just changed."""
    return await _page(request, serving, name, asked, edit=edit, done=done)


@pages.post("")
async def save(
    request: Request,
    name: str,
    serving: Serving,
    text: Annotated[str, Form()] = "",
    tags: Annotated[str, Form(max_length=10_000)] = "",
    replaces: Annotated[str, Form(max_length=200)] = "",
) -> Response:
    """Store a text, in the place of another where one is named; what cannot be stored is shown with the reason."""
    record = await agent_record(serving, name)
    try:
        saved = await _add(serving, record, text, tags.split(","), replaces or None)
    except AgentOSError as error:
        asked, edit = PassageQuery(), replaces or "new"
        return await _page(request, serving, name, asked, 400, edit=edit, typed=(text, tags), refused=str(error))
    return see(agent_path(record.name, "archival", done=saved.ref))


@pages.get("/{passage}")
async def passage_page(
    request: Request, name: str, passage: str, serving: Serving, edit: str | None = None,
    at: Annotated[int, Query(ge=0, le=2**62)] = 0,
) -> Response:  # fmt: skip
    """One passage; of a long one what begins at character `at`."""
    record = await agent_record(serving, name)
    found = await values.shown_passage(serving.store, record.id, passage)
    part = text_part(found["text"], at)
    return page(
        request, "passage.html", agent=record.name, view="archival", p=found, part=part, edit=edit, refused=None
    )


@pages.post("/{passage}/delete")
async def delete_page(name: str, passage: str, serving: Serving) -> Response:
    """Take a passage out."""
    record = await agent_record(serving, name)
    gone = await curate.delete_passage(serving.store, serving.runtime.clock, record.id, curate.passage_id(passage))
    return see(agent_path(record.name, "archival", done=f"-{gone.ref}"))


async def _page(
    request: Request, serving: Service, name: str, query: PassageQuery, status: int = 200, *, edit: str | None = None,
    done: str | None = None, typed: tuple[str, str] | None = None, refused: str | None = None,
) -> Response:  # fmt: skip
    record = await agent_record(serving, name)
    try:
        found = await _found(serving, record, query, _PAGE)
    except AgentOSError as error:
        found, refused, status = {"passages": [], "after": None, "more": False}, str(error), 400
    asked = query.model_dump(exclude={"page", "after"}) | {
        "include_superseded": "true" if query.include_superseded else None
    }
    return page(
        request, "archival.html", status, agent=record.name, view="archival", shown=asked, number=query.page,
        first=query.after is None and not query.page, edit=edit, done=done, typed=typed, refused=refused, **found,
    )  # fmt: skip


# what both do


async def _found(serving: Service, record: AgentRecord, query: PassageQuery, limit: int) -> Json:
    """`values.passage_page` of a query."""
    now = serving.runtime.clock.now()
    return await values.passage_page(
        serving.runtime, record.id, query.query, tag=query.tag, start=values.moment("start", query.start, now),
        end=values.moment("end", query.end, now, end=True), as_of=values.moment("as_of", query.as_of, now, end=True),
        include_superseded=query.include_superseded, limit=limit, page=query.page, after=query.after,
    )  # fmt: skip


async def _add(
    serving: Service, record: AgentRecord, text: str, tags: list[str], replaces: str | None = None
) -> Passage:
    runtime = serving.runtime
    old = None if replaces is None else curate.passage_id(replaces)
    memory = runtime.memory(record.id)
    return await curate.insert_passage(runtime.store, runtime.clock, memory, record.id, text, tags, replaces=old)
