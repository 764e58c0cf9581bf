"""Archival memory: texts stored, listed, searched, deleted."""

import re
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from agentos import curate
from agentos.errors import NotFound
from agentos.messages import Passage, clean_text
from agentos.protocols import SearchQuery
from agentos.server.letta import render
from agentos.server.letta.paging import Page
from agentos.server.letta.searching import search_agents
from agentos.server.replies import Unsupported, answer, stamp
from agentos.server.service import Serving, existing_agent
from agentos.values import moment

router = APIRouter(prefix="/agents/{agent_id}/archival-memory", tags=["archival memory"])
everywhere = APIRouter(prefix="/passages", tags=["archival memory"])
_MOST_CHARACTERS = 1_000_000
_ID = re.compile(r"passage-(\d{1,18})", re.ASCII)


class NewPassage(BaseModel):
    """A text to store."""

    text: str = Field(max_length=_MOST_CHARACTERS)
    tags: list[str] | None = None
    created_at: str | None = Field(None, max_length=100)


@router.post("")
async def create_passage(agent_id: str, body: NewPassage, serving: Serving) -> Response:
    """Store a text; one that is stored already is returned, with its tags and these."""
    runtime = serving.runtime
    await serving.agent_record(agent_id)
    made = await curate.insert_passage(
        runtime.store, runtime.clock, runtime.memory(agent_id), agent_id, body.text, body.tags or (),
        moment("created_at", body.created_at, runtime.clock.now()),
    )  # fmt: skip
    return answer([render.passage_value(made)])


class PassagePage(Page):
    """Which passages to list."""

    search: str | None = Field(None, max_length=10_000)


@router.get("")
async def list_passages(agent_id: str, page: Annotated[PassagePage, Query()], serving: Serving) -> Response:
    """Archival memory by its time, oldest first; with `search` only what holds that text."""

    def work(tx: Any) -> list[Passage]:
        existing_agent(tx, agent_id)
        ends = page.ends(lambda given: _existing(tx, agent_id, given))
        found: list[Passage] = tx.passage_page(agent_id, page.ascends(True), *ends, page.size(100), page.search)
        return found

    return answer([render.passage_value(p) for p in await serving.store.read(work)])


class PassageQuery(BaseModel):
    """What to look for in archival memory."""

    query: str = Field(max_length=10_000)
    tags: list[str] | None = None
    tag_match_mode: Literal["any", "all"] = "any"
    top_k: int = Field(10, ge=1, le=1000)
    start_datetime: str | None = Field(None, max_length=100)
    end_datetime: str | None = Field(None, max_length=100)


@router.get("/search")
async def search_passages(agent_id: str, asked: Annotated[PassageQuery, Query()], serving: Serving) -> Response:
    """The passages that answer best to words and meaning, best first."""
    now = serving.runtime.clock.now()
    query = SearchQuery(
        clean_text(asked.query), tags=_tags(asked.tags), all_tags=asked.tag_match_mode == "all",
        start=moment("start_datetime", asked.start_datetime, now),
        end=moment("end_datetime", asked.end_datetime, now, end=True), limit=asked.top_k,
    )  # fmt: skip
    results = [
        {"id": _id(hit.ref), "content": hit.text, "timestamp": stamp(hit.created_at), "tags": list(hit.tags)}
        for _, hit in await search_agents(serving, agent_id, query)
    ]
    return answer({"count": len(results), "results": results})


@router.delete("/{memory_id}")
async def delete_passage(agent_id: str, memory_id: str, serving: Serving) -> Response:
    """Take a passage out of archival memory; the agent is told, and it can be undone."""
    await serving.agent_record(agent_id)
    await curate.delete_passage(serving.store, serving.runtime.clock, agent_id, _number(memory_id))
    return answer(None)


class PassageSearch(BaseModel):
    """What to look for, in one agent's archival memory or in all."""

    query: str = Field(max_length=10_000)
    agent_id: str | None = None
    archive_id: str | None = None
    tags: list[str] | None = None
    tag_match_mode: Literal["any", "all"] = "any"
    limit: int = Field(50, ge=1, le=100)
    start_date: str | None = Field(None, max_length=100)
    end_date: str | None = Field(None, max_length=100)


@everywhere.post("/search")
async def search_everywhere(body: PassageSearch, serving: Serving) -> Response:
    """The passages that answer best to words and meaning, best first; without `agent_id` among those of all agents."""
    if body.archive_id is not None:
        raise Unsupported("archives are not supported; each agent has its own archival memory, named by agent_id")
    now = serving.runtime.clock.now()
    query = SearchQuery(
        clean_text(body.query), tags=_tags(body.tags), all_tags=body.tag_match_mode == "all",
        start=moment("start_date", body.start_date, now), end=moment("end_date", body.end_date, now, end=True),
        limit=body.limit,
    )  # fmt: skip
    found = []
    for agent_id, hit in await search_agents(serving, body.agent_id, query):
        passage: dict[str, Any] = {
            "id": _id(hit.ref), "text": hit.text, "tags": list(hit.tags), "created_at": stamp(hit.created_at),
            "archive_id": None, "metadata": {}, "embedding": None,
        }  # fmt: skip
        found.append({"passage": passage, "score": hit.score, "metadata": {"agent_id": agent_id, "why": hit.why}})
    return answer(found)


def _tags(tags: list[str] | None) -> tuple[str, ...]:
    return tuple(clean_text(tag).strip() for tag in tags or ())


def _id(ref: str) -> str:
    """The id on the wire of a passage that the kernel calls `ref`."""
    return f"passage-{ref.removeprefix('p')}"


def _number(memory_id: str) -> int:
    match = _ID.fullmatch(memory_id)
    if match is None:
        raise NotFound(f"there is no passage {memory_id!r}")
    return int(match[1])


def _existing(tx: Any, agent_id: str, memory_id: str) -> Passage:
    """A passage as a cursor, also one that was deleted meanwhile; `NotFound` when there is none."""
    passage: Passage | None = next(iter(tx.passages(agent_id, [_number(memory_id)])), None)
    if passage is None:
        raise NotFound(f"this agent has no passage {memory_id!r}")
    return passage
