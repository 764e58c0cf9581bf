"""Runs: the saved records of turns."""

from typing import Annotated, Any, get_args

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from agentos.errors import NotFound
from agentos.messages import Message, StopReason
from agentos.server.letta import render
from agentos.server.letta.messages import existing_message, only_conversation
from agentos.server.letta.paging import Page, Paged, slice_of
from agentos.server.letta.steps import step_page
from agentos.server.letta.turns import events, stream_run
from agentos.server.replies import answer, event_stream, stamp
from agentos.server.service import Service, Serving
from agentos.state import OPEN, RunRecord, StepRecord

router = APIRouter(prefix="/runs", tags=["runs"])
Json = dict[str, Any]


def existing_run(tx: Any, run_id: str) -> RunRecord:
    """The run with this id; `NotFound` when there is none."""
    run: RunRecord | None = tx.run(run_id)
    if run is None:
        raise NotFound(f"there is no run {run_id!r}; GET /v1/runs/ lists them")
    return run


class RunPage(Page):
    """Which runs to list."""

    agent_id: str | None = Field(None, max_length=200)
    agent_ids: list[str] | None = None
    statuses: list[str] | None = None
    active: bool = False
    background: bool | None = None
    stop_reason: str | None = Field(None, max_length=100)
    conversation_id: str | None = Field(None, max_length=200)


@router.get("")
async def list_runs(page: Annotated[RunPage, Query()], serving: Serving) -> Response:
    """Runs, those accepted last first."""
    only_conversation(page.conversation_id)
    filters: dict[str, Any] = {"agent_ids": page.agent_ids, "statuses": page.statuses, "background": page.background}
    if page.agent_id is not None:
        filters["agent_ids"] = [page.agent_id]
    if page.active:
        filters["statuses"] = [status for status in OPEN if page.statuses is None or status in page.statuses]
    if page.stop_reason is not None:
        filters["stop_reasons"] = [r for r in get_args(StopReason) if render.stop_reason(r) == page.stop_reason]

    def work(tx: Any) -> list[RunRecord]:
        ends = page.ends(lambda given: existing_run(tx, given))
        found: list[RunRecord] = tx.run_page(page.ascends(False), *ends, page.size(100), **filters)
        return found

    return answer([render.run_value(run) for run in await serving.store.read(work)])


@router.get("/{run_id}")
async def get_run(run_id: str, serving: Serving) -> Response:
    """One run."""
    return answer(render.run_value(await _run(serving, run_id)))


@router.get("/{run_id}/messages")
async def list_messages(run_id: str, page: Paged, serving: Serving) -> Response:
    """What was said and done in a run, its input first; one message of the agent's may be several here."""

    def work(tx: Any) -> tuple[RunRecord, list[Message]]:
        run = existing_run(tx, run_id)
        ends = page.ends(lambda given: existing_message(tx, given).seq)
        messages = [(m.seq or 0, m) for m in tx.run_messages(run_id)]
        return run, slice_of(messages, page.ascends(True), ends, page.size(100))

    run, messages = await serving.store.read(work)
    groups = [list(render.message_values(m, decisions=run.decisions)) for m in messages]
    return answer([v for group in groups for v in (group if page.ascends(True) else reversed(group))])


@router.get("/{run_id}/usage")
async def usage(run_id: str, serving: Serving) -> Response:
    """What the run's model calls used."""
    run = await _run(serving, run_id)
    return answer(render.usage_value(run.usage, run.steps, run.id))


@router.get("/{run_id}/steps")
async def list_steps(run_id: str, page: Paged, serving: Serving) -> Response:
    """The run's model calls, newest first."""

    def work(tx: Any) -> list[StepRecord]:
        existing_run(tx, run_id)
        return step_page(tx, page, 100, run_id=run_id)

    return answer([render.step_value(step) for step in await serving.store.read(work)])


class TraceLimit(BaseModel):
    """How much of a trace to show."""

    limit: int = Field(1000, ge=1, le=10_000)


@router.get("/{run_id}/trace")
async def trace(run_id: str, asked: Annotated[TraceLimit, Query()], serving: Serving) -> Response:
    """The run's model calls in order, each with when it ended and how long it took."""

    def work(tx: Any) -> list[StepRecord]:
        existing_run(tx, run_id)
        found: list[StepRecord] = tx.step_page(True, None, None, asked.limit, run_id=run_id)
        return found

    def span(step: StepRecord) -> Json:
        value = render.step_value(step)
        name, took = f"{step.kind} {step.model}", step.latency_ms * 1_000_000
        return {"name": name, "ended_at": stamp(step.created_at), "duration_ns": took, "attributes": value}

    return answer([span(step) for step in await serving.store.read(work)])


class StreamRequest(BaseModel):
    """From where to stream a run again."""

    starting_after: int = Field(0, ge=0)
    include_pings: bool = True


@router.post("/{run_id}/stream")
async def stream(run_id: str, serving: Serving, body: StreamRequest | None = None) -> Response:
    """What a run says and does behind a `seq_id`, as it happens, until its end."""
    return await stream_again(serving, run_id, body or StreamRequest())


async def stream_again(service: Service, run_id: str, body: StreamRequest) -> Response:
    """A run's stream from a place on."""
    run = await _run(service, run_id)
    values = stream_run(service, run, tokens=True, pings=body.include_pings, after=body.starting_after)
    return event_stream(events(values))


async def _run(service: Service, run_id: str) -> RunRecord:
    return await service.store.read(lambda tx: existing_run(tx, run_id))
