"""Chat: talking to an agent, with its memory beside the conversation."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from agentos import values
from agentos.server.inspector.live import NOTHING, written
from agentos.server.inspector.render import agent_path, page, see
from agentos.server.own import agent_record
from agentos.server.replies import answer
from agentos.server.service import Serving

pages = APIRouter(prefix="/agents/{name}/chat", include_in_schema=False)
router = APIRouter(prefix="/agentos/v1/agents/{agent}/conversation", tags=["agentos"])
_PAGE = 24
Before = Annotated[int | None, Query(ge=1, le=2**62)]


@router.get("")
async def conversation(
    agent: str, serving: Serving, before: Before = None, limit: Annotated[int, Query(ge=1, le=1000)] = 30
) -> Response:
    """What was said last, the newest turn with what it changed in memory, and core memory as it is now."""
    record = await agent_record(serving, agent)
    found = await serving.store.read(lambda tx: values.conversation_value(tx, record.id, before=before, limit=limit))
    return answer(found)


@pages.get("")
async def chat_page(request: Request, name: str, serving: Serving, before: Before = None) -> Response:
    """The conversation; what is being said is told by the agent's events."""
    record = await agent_record(serving, name)

    def work(tx: Any) -> tuple[values.Json, bool, set[str]]:
        found = values.conversation_value(tx, record.id, before=before, limit=_PAGE)
        decided = [said for run_id in found["runs"] for said in tx.run(run_id).decisions.items()]
        return found, bool(tx.open_runs(record.id)), {call_id for call_id, said in decided if not said.approve}

    found, busy, refused = await serving.store.read(work)
    turn, last = found["turn"], max((m["place"] or 0 for m in found["messages"]), default=0)
    writing = await written(serving, turn["id"], last) if turn and turn["open"] else NOTHING
    older = found.pop("before")
    results = {m["call_id"]: m for m in found["messages"] if m["role"] == "tool"}
    return page(
        request, "chat.html", agent=record.name, agent_id=record.id, view="chat", older=older, first=before is None,
        writing=writing, busy=busy, refused=refused, results=results, last=last, **found,
    )  # fmt: skip


@pages.post("/cancel")
async def cancel(name: str, serving: Serving) -> Response:
    """Stop what the agent is doing, and what waits behind it."""
    record = await agent_record(serving, name)
    await serving.dispatcher.cancel(record.id)
    return see(agent_path(record.name, "chat"))
