"""The one conversation that each agent has, under the name by which newer clients ask for it: `default`."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field

from agentos.errors import UsageError
from agentos.server.letta import messages, runs
from agentos.server.letta.messages import MessagePage, Retries, TurnRequest
from agentos.server.replies import answer
from agentos.server.service import Serving

router = APIRouter(prefix="/conversations/default", tags=["conversations"])


class ConversationTurn(TurnRequest):
    """Input for one turn of the agent named; streamed unless `streaming` is false."""

    agent_id: str
    streaming: bool = True


@router.post("/messages")
async def create_message(body: ConversationTurn, serving: Serving, x_retries: Retries = 0) -> Response:
    """One turn of an agent."""
    return await messages.create_message(body.agent_id, body, serving, x_retries)


class ConversationPage(MessagePage):
    """Which messages of which agent to list."""

    agent_id: str = Field(max_length=200)


@router.get("/messages")
async def list_messages(page: Annotated[ConversationPage, Query()], serving: Serving) -> Response:
    """An agent's history."""
    return answer(await messages.history_values(serving, page.agent_id, page))


class ConversationStream(runs.StreamRequest):
    """Which run to stream again, and from where."""

    run_id: str | None = None


@router.post("/stream")
async def stream(body: ConversationStream, serving: Serving) -> Response:
    """What a run says and does behind a `seq_id`."""
    if body.run_id is None:
        raise UsageError("run_id is missing; name the run to stream")
    return await runs.stream_again(serving, body.run_id, body)
