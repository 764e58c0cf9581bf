"""Errors as pages: one sentence, and a way on."""

from http import HTTPStatus

from fastapi import Request, Response

from agentos.errors import AgentOSError
from agentos.server.inspector.render import is_part, notice, page
from agentos.state import AgentRecord

_TITLES = {
    401: "Sign in first", 404: "Not here", 405: "Not here", 409: "Changed meanwhile", 422: "Not understood",
    429: "Not now", 500: "It failed", 503: "Not now",
}  # fmt: skip
_SENTENCES = {
    404: "There is no page at this address.",
    405: "This address only takes what a form on another page sends.",
}
"""What stands for the framework's own words."""


async def error_page(request: Request, status: int, detail: str) -> Response:
    """A refusal as a page; to a part of a page, as a notice above it."""
    if detail == HTTPStatus(status).phrase:
        detail = _SENTENCES.get(status, detail)
    if is_part(request):
        return notice(status, detail)
    agent, title = await _agent(request), _TITLES.get(status, "Refused")
    return page(request, "error.html", status, detail=detail, agent=agent, view=None, title=title)


async def _agent(request: Request) -> str | None:
    """The agent whose pages the address is under, if there is one and who asks may know of it."""
    first, _, rest = request.scope["path"].lstrip("/").partition("/")
    if first != "agents" or request.scope.get("agentos.session") is None:
        return None
    name, store = rest.partition("/")[0], request.app.state.service.store
    try:
        found: AgentRecord | None = await store.read(lambda tx: tx.agent_named(name) or tx.agent(name))
    except AgentOSError:  # the page says what is wrong without it
        return None
    return found.name if found else None
