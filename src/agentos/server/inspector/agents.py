"""The first page: every agent, and what it is doing."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from agentos import values
from agentos.server.inspector.render import agent_path, page, see
from agentos.server.service import Serving

router = APIRouter(include_in_schema=False)
_PAGE = 20


@router.get("/")
async def agents(
    request: Request,
    serving: Serving,
    find: Annotated[str, Query(max_length=200)] = "",
    after: str | None = None,
    before: str | None = None,
) -> Response:
    """The agents by name, a page at a time."""
    found = await values.agent_page(serving.runtime, text=find or None, after=after, before=before, limit=_PAGE)
    return page(request, "agents.html", find=find, **found)


@router.get("/agents/{name}")
async def agent(name: str) -> Response:
    """An agent's first page."""
    return see(agent_path(name, "core"))
