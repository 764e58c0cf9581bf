"""The context window: what fills it, how it filled, what was paged out, and the request that was sent last."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from agentos import values
from agentos.server.inspector.render import page
from agentos.server.own import Json, agent_record
from agentos.server.replies import answer
from agentos.server.service import Serving

pages = APIRouter(prefix="/agents/{name}/context", include_in_schema=False)
router = APIRouter(prefix="/agentos/v1/agents/{agent}/context", tags=["agentos"])
_OUTS, _MESSAGES, _STEPS = 5, 15, 120
_WIDTH, _HEIGHT = 1000, 200
"""Of the chart, in its own units."""
Before = Annotated[int | None, Query(ge=1, le=2**62)]
After = Annotated[int, Query(ge=0, le=2**62)]


# as JSON


@router.get("/request")
async def last_request(
    agent: str, serving: Serving, after: After = 0, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> Response:
    """The request that was sent last, part by part, with what of it was cached."""
    turn = await (await serving.runtime.agent_of((await agent_record(serving, agent)).id)).turn()
    return answer(await values.request_value(serving.runtime, turn, after=after, limit=limit))


@router.get("/filling")
async def filling(agent: str, serving: Serving, limit: Annotated[int, Query(ge=1, le=1000)] = _STEPS) -> Response:
    """The size of the prompt at each of the last steps."""
    record = await agent_record(serving, agent)
    return answer(await serving.store.read(lambda tx: values.filling_value(tx, record.id, limit)))


@router.get("/page-outs")
async def page_outs(
    agent: str, serving: Serving, before: Before = None, limit: Annotated[int, Query(ge=1, le=1000)] = 50
) -> Response:
    """Receipts of what was paged out, newest first."""
    record = await agent_record(serving, agent)
    return answer(await serving.store.read(lambda tx: values.page_out_page(tx, record.id, before=before, limit=limit)))


# as pages


@pages.get("")
async def context_page(
    request: Request, name: str, serving: Serving, before: Before = None, after: After = 0
) -> Response:
    """The window. `before` pages the receipts, `after` the messages of the request."""
    record = await agent_record(serving, name)
    turn = await (await serving.runtime.agent_of(record.id)).turn()
    window = await values.context_value(serving.runtime, turn)

    def work(tx: Any) -> Json:
        steps = values.filling_value(tx, record.id, _STEPS)
        return {"steps": steps, "outs": values.page_out_page(tx, record.id, before=before, limit=_OUTS)}

    sent = await values.request_value(serving.runtime, turn, after=after, limit=_MESSAGES)
    found = await serving.store.read(work)
    marks = {"alert": window["alert_at_tokens"], "target": window["page_out_to_tokens"]}
    return page(
        request, "context.html", agent=record.name, view="context", window=window, sent=sent, marks=marks,
        bars=_bars(window), chart=_chart(found["steps"], window["window_tokens"], marks), before=before, after=after,
        **found,
    )  # fmt: skip


def _bars(window: Json) -> list[Json]:
    """The sections as pieces of a bar of 1,000 units: name, tokens, where it begins and how wide it is."""
    total = max(1, window["window_tokens"])
    pieces = {**window["sections"]}
    reserved = pieces.pop("reserved reply")
    pieces |= {"free": max(0, total - sum(pieces.values()) - reserved), "reserved reply": reserved}
    bars, x = [], 0.0
    for name, tokens in pieces.items():
        width = min(1000 - x, 1000 * tokens / total)
        bars.append({
            "name": name, "tokens": tokens, "x": round(x, 1), "width": round(width, 1), "key": name.replace(" ", "-"),
            "percent": round(100 * tokens / total, 1),
        })  # fmt: skip
        x += width
    return bars


def _chart(steps: list[Json], window_tokens: int, marks: dict[str, int]) -> Json:
    """The steps as points of a line, the page-outs and the marks, in the chart's units."""
    top = max(1, window_tokens)

    def y(tokens: int) -> float:
        return round(_HEIGHT - _HEIGHT * min(1.0, tokens / top), 1)

    place = [round(_WIDTH * n / max(1, len(steps) - 1), 1) for n in range(len(steps))]
    line = " ".join(f"{x},{y(step['prompt_tokens'])}" for x, step in zip(place, steps, strict=True))
    cached = " ".join(f"{x},{y(step['cached_tokens'])}" for x, step in zip(place, steps, strict=True))
    outs = [{"x": x, **step} for x, step in zip(place, steps, strict=True) if step["page_out"]]
    return {
        "width": _WIDTH, "height": _HEIGHT, "line": line, "outs": outs, "marks": {n: y(t) for n, t in marks.items()},
        "cached": f"0,{_HEIGHT} {cached} {place[-1]},{_HEIGHT}" if steps else "",
    }  # fmt: skip
