"""Runs: the turns of an agent, each step by step, while it goes on and afterwards."""

from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Form, Query, Request, Response
from pydantic import BaseModel, Field

from agentos import values
from agentos.messages import StopReason, clean_text
from agentos.server.inspector.forms import FormQuery
from agentos.server.inspector.live import NOTHING, written
from agentos.server.inspector.render import agent_path, page, see
from agentos.server.inspector.sessions import local_path
from agentos.server.own import agent_record
from agentos.server.replies import answer
from agentos.server.service import Serving
from agentos.state import Decision, RunStatus

pages = APIRouter(prefix="/agents/{name}/runs", include_in_schema=False)
router = APIRouter(prefix="/agentos/v1/agents/{agent}", tags=["agentos"])
_PAGE = 20
_ENTRIES = 30
STATUSES: tuple[str, ...] = get_args(RunStatus)
STOP_REASONS: tuple[str, ...] = get_args(StopReason)


class RunsQuery(FormQuery):
    """Which runs."""

    status: Literal[STATUSES] | None = None  # type: ignore[valid-type]  # the names are in one place
    stop_reason: Literal[STOP_REASONS] | None = None  # type: ignore[valid-type]
    before: str | None = Field(None, max_length=200)
    """Only runs accepted before this one: the last of the page before."""


After = Annotated[int, Query(ge=0, le=2**62)]


# as JSON


@router.get("/runs")
async def runs(
    agent: str,
    serving: Serving,
    query: Annotated[RunsQuery, Query()],
    limit: Annotated[int, Query(ge=1, le=1000)] = 25,
) -> Response:
    """The agent's turns, newest first, a page at a time."""
    record, asked = await agent_record(serving, agent), dict(query)
    return answer(await serving.store.read(lambda tx: values.run_page(tx, record.id, **asked, limit=limit)))


@router.get("/runs/{run_id}")
async def trace(
    agent: str, run_id: str, serving: Serving, after: After = 0, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> Response:
    """A turn as it went: what came in, model calls, tool calls with their results, notices and page-outs."""
    record = await agent_record(serving, agent)

    def work(tx: Any) -> values.Json:
        return values.trace_value(tx, values.own_run(tx, record.id, run_id), after=after, limit=limit)

    return answer(await serving.store.read(work))


class Cancel(BaseModel):
    """Which runs to stop; none named: all that have not ended."""

    run_ids: list[str] | None = Field(None, max_length=1000)


@router.post("/cancel")
async def cancel(agent: str, serving: Serving, body: Cancel | None = None) -> Response:
    """Stop runs: run id -> `cancelled`, or `failed` for one that had ended or is not this agent's."""
    record = await agent_record(serving, agent)
    return answer(await serving.dispatcher.cancel(record.id, body.run_ids if body else None))


# as pages


@pages.get("")
async def runs_page(request: Request, name: str, serving: Serving, query: Annotated[RunsQuery, Query()]) -> Response:
    """The turns, newest first."""
    record, asked = await agent_record(serving, name), dict(query)
    found = await serving.store.read(lambda tx: values.run_page(tx, record.id, **asked, limit=_PAGE))
    first = asked.pop("before") is None
    return page(
        request, "runs.html", agent=record.name, view="runs", shown=asked, first=first, statuses=STATUSES,
        stop_reasons=STOP_REASONS, **found,
    )  # fmt: skip


@pages.get("/{run_id}")
async def run_page(request: Request, name: str, run_id: str, serving: Serving, after: After = 0) -> Response:
    """One turn, step by step."""
    record = await agent_record(serving, name)

    def work(tx: Any) -> values.Json:
        return values.trace_value(tx, values.own_run(tx, record.id, run_id), after=after, limit=_ENTRIES)

    found = await serving.store.read(work)
    following = found.pop("after")
    last = max((e["message"]["place"] or 0 for e in found["entries"] if "message" in e), default=after)
    writing = await written(serving, run_id, last) if found["run"]["open"] else NOTHING
    return page(
        request, "run.html", agent=record.name, view="runs", after=following, first=after == 0, writing=writing,
        last=last, **found,
    )  # fmt: skip


@pages.post("/{run_id}/cancel")
async def cancel_page(name: str, run_id: str, serving: Serving) -> Response:
    """Stop one turn, at its next saved point."""
    record = await agent_record(serving, name)
    await serving.store.read(lambda tx: values.own_run(tx, record.id, run_id))
    await serving.dispatcher.cancel(record.id, [run_id])
    return see(agent_path(record.name, "runs", run_id))


@pages.post("/{run_id}/approvals")
async def decide(
    name: str,
    run_id: str,
    serving: Serving,
    call_id: Annotated[str, Form(max_length=200)],
    approve: Annotated[bool, Form()],
    reason: Annotated[str, Form(max_length=10_000)] = "",
    back: Annotated[str, Form()] = "",
) -> Response:
    """Approve or refuse a call that waits; then the turn goes on."""
    record = await agent_record(serving, name)
    said = {call_id: Decision(approve, clean_text(reason), "user")}
    await serving.dispatcher.decide(record.id, said, run_id=run_id)
    return see(local_path(back) if back else agent_path(record.name, "runs", run_id))
