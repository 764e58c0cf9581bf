"""What Letta's API has beyond this server: each answers 501 and says what to use instead."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request, Response

from agentos.server.replies import Unsupported

router = APIRouter()
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_INSTEAD = {
    "/conversations": "an agent has one conversation, reached by /v1/agents/{agent_id}/messages",
    "/archives": "each agent has its own archival memory, reached by /v1/agents/{agent_id}/archival-memory",
    "/agents/{agent_id}/archives": "each agent has its own archival memory",
    "/mcp-servers": "`agentos mcp add` gives an agent the tools of an MCP server",
    "/folders": "store texts in an agent's archival memory",
    "/sources": "store texts in an agent's archival memory",
    "/agents/{agent_id}/folders": "store texts in its archival memory",
    "/agents/{agent_id}/files": "store texts in its archival memory",
    "/agents/{agent_id}/sources": "store texts in its archival memory",
    "/groups": "agents share blocks instead",
    "/identities": "name a message's speaker by its `name`",
    "/jobs": "turns are runs, reached by /v1/runs/",
    "/messages/batches": "send messages to each agent; agents run side by side",
    "/agents/{agent_id}/context": "GET /v1/agents/{agent_id} shows its memory",
    "/agents/{agent_id}/groups": "agents share blocks instead",
}
"""Families of paths: what does their work here."""


def _refusing(instead: str) -> Callable[[Request], Awaitable[Response]]:
    async def unsupported(request: Request) -> Response:
        raise Unsupported(f"{request.method} {request.url.path} is not supported; {instead}")

    return unsupported


for _family, _instead in _INSTEAD.items():
    for _path in (_family, _family + "/{rest:path}"):
        router.add_api_route(_path, _refusing(_instead), methods=_METHODS, include_in_schema=False)
