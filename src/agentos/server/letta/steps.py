"""Steps: the saved records of model calls."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import Field

from agentos.errors import NotFound
from agentos.messages import Message
from agentos.server.letta import render
from agentos.server.letta.messages import existing_message
from agentos.server.letta.paging import Page, Paged, slice_of
from agentos.server.replies import answer
from agentos.server.service import Serving
from agentos.state import StepRecord
from agentos.values import moment

router = APIRouter(prefix="/steps", tags=["steps"])
_ID = re.compile(r"step-(\d{1,18})", re.ASCII)


def existing_step(tx: Any, given: str) -> StepRecord:
    """The step with this id; `NotFound` when there is none."""
    match = _ID.fullmatch(given)
    step: StepRecord | None = tx.step(int(match[1])) if match else None
    if step is None:
        raise NotFound(f"there is no step {given!r}; GET /v1/steps/ lists them")
    return step


def step_page(tx: Any, page: Page, size: int, **filters: Any) -> list[StepRecord]:
    """A page of steps, `size` where it names no limit."""
    ends = page.ends(lambda given: existing_step(tx, given).id)
    found: list[StepRecord] = tx.step_page(page.ascends(False), *ends, page.size(size), **filters)
    return found


class StepPage(Page):
    """Which steps to list. Steps have no tags, feedback or traces here: who asks for some gets none."""

    agent_id: str | None = Field(None, max_length=200)
    model: str | None = Field(None, max_length=200)
    start_date: str | None = Field(None, max_length=100)
    end_date: str | None = Field(None, max_length=100)
    feedback: str | None = None
    has_feedback: bool | None = None
    tags: list[str] | None = None
    trace_ids: list[str] | None = None


@router.get("")
async def list_steps(page: Annotated[StepPage, Query()], serving: Serving) -> Response:
    """Model calls of all agents, newest first."""
    if page.feedback or page.has_feedback or page.tags or page.trace_ids:
        return answer([])
    now = serving.runtime.clock.now()
    filters = {
        "agent_id": page.agent_id, "model": page.model, "start": moment("start_date", page.start_date, now),
        "end": moment("end_date", page.end_date, now, end=True),
    }  # fmt: skip
    steps = await serving.store.read(lambda tx: step_page(tx, page, 50, **filters))
    return answer([render.step_value(step) for step in steps])


@router.get("/{step_id}")
async def get_step(step_id: str, serving: Serving) -> Response:
    """One step."""
    return answer(render.step_value(await serving.store.read(lambda tx: existing_step(tx, step_id))))


@router.get("/{step_id}/messages")
async def list_messages(step_id: str, page: Paged, serving: Serving) -> Response:
    """What the agent said in a step, and the results of its calls."""

    def work(tx: Any) -> list[Message]:
        step = existing_step(tx, step_id)
        ends = page.ends(lambda given: existing_message(tx, given).seq)
        messages = tx.run_messages(step.run_id)
        calls = {call.id for m in messages if m.id == step.message_id for call in m.calls}
        made = [m for m in messages if m.id == step.message_id or m.call_id in calls]
        return slice_of([(m.seq or 0, m) for m in made], page.ascends(True), ends, page.size(100))

    groups = [list(render.message_values(m)) for m in await serving.store.read(work)]
    return answer([v for group in groups for v in (group if page.ascends(True) else reversed(group))])


@router.get("/{step_id}/metrics")
async def metrics(step_id: str, serving: Serving) -> Response:
    """How long a step's model call took."""
    step = await serving.store.read(lambda tx: existing_step(tx, step_id))
    took = step.latency_ms * 1_000_000
    return answer({
        "id": step_id, "run_id": step.run_id or None, "agent_id": step.agent_id, "llm_request_ns": took,
        "tool_execution_ns": None, "step_ns": took,
    })  # fmt: skip


@router.get("/{step_id}/trace")
async def trace(step_id: str, serving: Serving) -> Response:
    """Nothing: requests are not kept."""
    await serving.store.read(lambda tx: existing_step(tx, step_id))
    return answer(None)
