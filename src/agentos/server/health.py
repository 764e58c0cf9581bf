"""Whether the server lives and takes requests, and its figures."""

from fastapi import APIRouter, Response

import agentos
from agentos.server.metrics import CONTENT_TYPE
from agentos.server.replies import answer
from agentos.server.service import Serving

router = APIRouter(tags=["health"])


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz")
async def alive() -> Response:
    """Whether the process answers."""
    return answer({"status": "ok"})


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz")
async def ready(serving: Serving) -> Response:
    """Whether it takes requests: 503 while it starts or stops."""
    return answer({"status": "ready"} if serving.ready else {"detail": "stopping"}, 200 if serving.ready else 503)


@router.get("/v1/health")
async def health() -> Response:
    """Status and version, as Letta's clients ask for them."""
    return answer({"status": "ok", "version": agentos.__version__})


@router.get("/metrics")
async def metrics(serving: Serving) -> Response:
    """Figures in Prometheus' text format."""
    return Response(await serving.metrics.text(), media_type=CONTENT_TYPE)
