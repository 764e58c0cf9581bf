"""Runs: the saved records of turns."""

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from agentos.errors import NotFound
from agentos.server.letta import render
from agentos.server.letta.turns import sse, stream_run
from agentos.server.replies import answer
from agentos.server.service import Service, Serving
from agentos.state import RunRecord

router = APIRouter(prefix="/runs", tags=["runs"])


async def existing_run(service: Service, run_id: str) -> RunRecord:
    """The run with this id; `NotFound` when there is none."""
    run: RunRecord | None = await service.store.read(lambda tx: tx.run(run_id))
    if run is None:
        raise NotFound(f"there is no run {run_id!r}")
    return run


@router.get("/{run_id}")
async def get_run(run_id: str, serving: Serving) -> Response:
    """One run."""
    return answer(render.run_value(await existing_run(serving, run_id)))


class StreamRequest(BaseModel):
    """From where to stream a run again."""

    starting_after: int = Field(0, ge=0)
    include_pings: bool = True


@router.post("/{run_id}/stream")
async def stream(run_id: str, serving: Serving, body: StreamRequest | None = None) -> Response:
    """What a run says and does behind a `seq_id`, as it happens, until its end."""
    run, body = await existing_run(serving, run_id), body or StreamRequest()
    values = stream_run(serving, run, tokens=True, pings=body.include_pings, after=body.starting_after)
    return StreamingResponse(sse(values), media_type="text/event-stream", headers={"Cache-Control": "no-store"})
