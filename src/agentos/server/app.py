"""The web application: which requests lead where."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from starlette.middleware import Middleware

import agentos
from agentos.server import openai, own, usage
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
from agentos.server.metrics import CONTENT_TYPE
from agentos.server.replies import add_error_handlers, answer
from agentos.server.service import Service, Serving


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

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", tags=["health"])
    async def alive() -> Response:
        """Whether the process answers."""
        return answer({"status": "ok"})

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz", tags=["health"])
    async def ready(serving: Serving) -> Response:
        """Whether it takes requests: 503 while it starts or stops."""
        return answer({"status": "ready"} if serving.ready else {"detail": "stopping"}, 200 if serving.ready else 503)

    @app.get("/v1/health", tags=["health"])
    async def health() -> Response:
        """Status and version, as Letta's clients ask for them."""
        return answer({"status": "ok", "version": agentos.__version__})

    @app.get("/metrics", tags=["health"])
    async def metrics(serving: Serving) -> Response:
        """Figures in Prometheus' text format."""
        return Response(await serving.metrics.text(), media_type=CONTENT_TYPE)

    for router in (
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
