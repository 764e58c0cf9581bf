"""The web application: which requests lead where."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from starlette.middleware import Middleware

import agentos
from agentos.server import health, openai, own, usage
from agentos.server.access import Access
from agentos.server.inspector import agents as agent_pages
from agentos.server.inspector import archival, chat, context, core, recall, sign_in, static_files, timeline
from agentos.server.inspector import runs as run_pages
from agentos.server.letta import (
    agent_files,
    agents,
    blocks,
    conversations,
    messages,
    models,
    passages,
    runs,
    schedules,
    steps,
    tools,
    unsupported,
)
from agentos.server.replies import add_error_handlers
from agentos.server.service import Service


def create_app(service: Service) -> FastAPI:
    """The application over an open home."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await service.mcp.close()

    app = FastAPI(
        title="agentos", version=agentos.__version__, docs_url=None, redoc_url=None, openapi_url="/openapi.json",
        redirect_slashes=False, lifespan=lifespan, middleware=[Middleware(Access, service=service)],
    )  # fmt: skip
    app.state.service = service
    add_error_handlers(app)

    for router in (
        health.router,
        sign_in.router,
        sign_in.links,
        static_files.router,
        agent_pages.router,
        core.pages,
        core.router,
        timeline.pages,
        *(part for view in (archival, chat, context, recall, run_pages) for part in (view.pages, view.router)),
    ):
        app.include_router(router)

    @app.api_route("/mcp", methods=["POST", "DELETE"], include_in_schema=False)  # a protocol of its own
    async def mcp(request: Request) -> Response:
        """The memory of the token's agents, for MCP clients (streamable HTTP)."""
        return await service.mcp.answer(request)

    app.include_router(own.router)
    app.include_router(usage.router, prefix="/agentos/v1")
    for router in (
        agents.router, agent_files.router, blocks.router, tools.router, models.router, messages.router,
        messages.everywhere, passages.router, passages.everywhere, runs.router, steps.router, schedules.router,
        conversations.router,
        openai.router,  # behind Letta's, whose /v1/models/embedding is no agent
        unsupported.router,  # last: what has a handler of its own comes first
    ):  # fmt: skip
        app.include_router(router, prefix="/v1")
    app.include_router(openai.router, prefix="/openai/v1", include_in_schema=False)
    return app
