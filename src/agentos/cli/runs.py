"""`agentos runs` and `agentos context`: what an agent did, and what its model sees."""

from collections.abc import Callable
from typing import Any, Literal

from rich.console import RenderableType

from agentos import values
from agentos.cli import context_views, run_views
from agentos.cli.opening import blocking, existing, open_runtime
from agentos.cli.output import show, show_json
from agentos.runtime import Runtime
from agentos.state import AgentRecord

Part = Literal["window", "request", "filling", "page_outs"]
_ALL = 2**31


@blocking
async def list_runs(name: str, as_json: bool, **filters: Any) -> None:
    """The turns, newest first; `filters` are those of `values.run_page`."""
    async with open_runtime() as runtime:
        record = await existing(runtime, name)
        value = await runtime.store.read(lambda tx: values.run_page(tx, record.id, **filters))
    show_json(value) if as_json else show(run_views.runs(value))


@blocking
async def show_run(name: str, run_id: str, as_json: bool) -> None:
    """One turn, step by step."""
    async with open_runtime() as runtime:
        record = await existing(runtime, name)

        def work(tx: Any) -> values.Json:
            return values.trace_value(tx, values.own_run(tx, record.id, run_id), limit=_ALL)

        value = await runtime.store.read(work)
    show_json(value) if as_json else show(run_views.trace(value))


@blocking
async def context(name: str, part: Part, as_json: bool) -> None:
    """The window as it is, the request sent last, how the window filled, or what was paged out."""
    async with open_runtime() as runtime:
        value = await _of_window(runtime, await existing(runtime, name), part)
    show_json(value) if as_json else show(_VIEWS[part](value))


async def _of_window(runtime: Runtime, record: AgentRecord, part: Part) -> Any:
    if part == "filling":
        return await runtime.store.read(lambda tx: values.filling_value(tx, record.id))
    if part == "page_outs":
        return await runtime.store.read(lambda tx: values.page_out_page(tx, record.id, limit=_ALL))
    turn = await (await runtime.agent_of(record.id)).turn()
    if part == "request":
        return await values.request_value(runtime, turn, limit=_ALL)
    return await values.context_value(runtime, turn)


_VIEWS: dict[Part, Callable[[Any], RenderableType]] = {
    "window": context_views.context,
    "request": context_views.request,
    "filling": context_views.filling,
    "page_outs": context_views.page_outs,
}
