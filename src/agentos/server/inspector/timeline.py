"""What happened to an agent's memory, where a fact came from, and taking it back."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response
from pydantic import Field, model_validator

from agentos import curate, values
from agentos.server.inspector.render import agent_path, page, see
from agentos.server.inspector.sessions import local_path
from agentos.server.own import HistoryQuery, OfSource, agent_record, talk
from agentos.server.service import Serving

pages = APIRouter(prefix="/agents/{name}", include_in_schema=False)
_PAGE = 20


class TimelineQuery(HistoryQuery):
    """Which events; those that change what the agent knows unless others are asked for."""

    kind: str = "memory"
    done: int | None = None
    """How many events were just taken back."""

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, given: Any) -> Any:
        """A form sends every field."""
        return {name: value for name, value in given.items() if value != ""}


@pages.get("/timeline")
async def timeline(request: Request, name: str, serving: Serving, query: Annotated[TimelineQuery, Query()]) -> Response:
    """The journal, newest first."""
    record = await agent_record(serving, name)
    kind = query.kind if query.kind in values.KINDS else None
    said = query.filters | {"kind": kind}

    def work(tx: Any) -> values.Json:
        chain = curate.source_chain(tx, record.id, said["source"]) if said["source"] else []
        return {
            "chain": values.chain_value(chain),
            **values.history_page(tx, record.id, _PAGE, **said),
            "labels": [block.label for block in tx.blocks(record.id)],
        }

    shown = {"label": query.label, "actor": query.actor, "kind": query.kind}
    source = {
        "run_id": query.run_id, "message": query.message, "call_id": query.call_id, "client": query.client,
        "since": query.since and query.since.isoformat(), "imported": query.imported or None,
    }  # fmt: skip
    here = agent_path(record.name, "timeline", **shown, **source, before=query.before)
    return page(
        request, "timeline.html", agent=record.name, view="timeline", shown=shown, source=source,
        query=shown | source, here=here, done=query.done, first=query.before is None, actors=values.ACTORS,
        kinds=[*values.KINDS, "all"], **await serving.store.read(work),
    )  # fmt: skip


class UndoForm(OfSource):
    """Which event to take back, or all of which source."""

    event: int | None = Field(None, ge=1)
    back: str = ""
    """The page to go back to."""


@pages.post("/timeline/undo")
async def undo(name: str, serving: Serving, asked: Annotated[UndoForm, Form()]) -> Response:
    """Take back one event, or all that came from one source; then back to where the person was."""
    told, source = await talk(serving, name), asked.source
    done = len(await told.undo_all(source)) if source else bool(await told.undo(asked.event))
    path = local_path(asked.back) if asked.back else agent_path(name, "timeline")
    return see(f"{path}{'&' if '?' in path else '?'}done={int(done)}")


@pages.get("/why")
async def why(
    request: Request, name: str, serving: Serving, what: Annotated[str, Query(max_length=10_000)] = ""
) -> Response:
    """The chains from what the agent holds back to the words they came from."""
    record = await agent_record(serving, name)
    found = await curate.why(serving.store, record.id, what) if what.strip() else []
    chains = [values.chain_value(chain) for chain in found]
    return page(request, "why.html", agent=record.name, view="timeline", what=what, chains=chains)
