"""Agents as Letta's API shows them."""

from datetime import datetime
from typing import Any, Literal, NamedTuple

from fastapi import Response
from pydantic import Field

from agentos.actions.saved import undecided_calls
from agentos.messages import Block
from agentos.prompts import prompt
from agentos.server.letta import render
from agentos.server.letta.fields import Json
from agentos.server.letta.models import model_facts
from agentos.server.letta.paging import Page
from agentos.server.letta.toolbox import tool_values
from agentos.server.replies import answer, stamp
from agentos.server.service import Service, existing_agent
from agentos.state import AgentRecord

_Order = Literal["created_at", "name", "updated_at", "last_run_completion"]


class AgentQuery(Page):
    """Which agents."""

    name: str | None = None
    tags: list[str] = Field([], max_length=100)
    match_all_tags: bool = False
    query_text: str | None = None
    last_stop_reason: str | None = None
    order_by: _Order | None = None
    sort_by: _Order | None = None


class _Loaded(NamedTuple):
    """What the database has of an agent."""

    record: AgentRecord
    blocks: list[Block]
    tools: list[Json]
    newest_run: tuple[str | None, datetime | None]
    pending: Json | None
    """The calls that wait for approval, as Letta's message."""


async def agent_values(service: Service, query: AgentQuery, block_id: int | None = None) -> list[Json]:
    """A page of agents, the newest first unless something else is asked for."""
    order = query.order_by or query.sort_by or "created_at"
    order = "last_run_completion" if order == "updated_at" else order
    reason = query.last_stop_reason

    def work(tx: Any) -> list[_Loaded]:
        records = tx.agent_page(
            name=query.name, text=query.query_text, tags=query.tags, every_tag=query.match_all_tags,
            stop_reasons=None if reason is None else render.stop_reasons(reason), block_id=block_id, order_by=order,
            **query.part(50, ascending=False),
        )  # fmt: skip
        return [_load(tx, service, record) for record in records]

    found = await service.store.read(work)
    models = {name: await model_facts(service.runtime, name) for name in {one.record.model for one in found}}
    return [_value(service, one, models[one.record.model]) for one in found]


async def agent_answer(service: Service, agent_id: str) -> Response:
    """One agent."""
    one = await service.store.read(lambda tx: _load(tx, service, existing_agent(tx, agent_id)))
    return answer(_value(service, one, await model_facts(service.runtime, one.record.model)))


def _load(tx: Any, service: Service, record: AgentRecord) -> _Loaded:
    newest = tx.newest_run(record.id)
    pending = _pending(tx, record) if newest[0] == "requires_approval" else None
    return _Loaded(record, tx.blocks(record.id), tool_values(tx, service.runtime, record), newest, pending)


def _pending(tx: Any, record: AgentRecord) -> Json | None:
    run = tx.unfinished_run(record.id)
    waiting = undecided_calls(tx, run) if run else []
    if not waiting:
        return None
    value = next(v for v in render.message_values(waiting[0][0]) if v["message_type"] == "approval_request_message")
    calls = [render.call_value(call) for _, call in waiting]
    return value | {"tool_call": calls[0], "tool_calls": calls}


def _value(service: Service, one: _Loaded, model: Json) -> Json:
    record, (reason, ended) = one.record, one.newest_run
    windows = (model["window"], record.window_tokens, service.runtime.settings.context_window)
    window = min((w for w in windows if w), default=0)
    blocks = [render.block_value(block) for block in one.blocks]
    asking = [name for name, approval in record.approvals.items() if approval == "ask"]
    rules = [{"type": "requires_approval", "tool_name": name, "prompt_template": None} for name in asking]
    return {
        "id": record.id, "name": record.name, "agent_type": "memgpt_v2_agent",
        "system": record.system or prompt("system"), "model": model["name"], "description": record.description,
        "tags": list(record.tags), "metadata": record.meta, "blocks": blocks, "memory": {"blocks": blocks},
        "tools": one.tools, "tool_rules": rules, "sources": [], "identity_ids": [], "identities": [],
        "llm_config": {
            "model": model["name"], "handle": model["name"], "model_endpoint_type": model["provider"],
            "context_window": window,
        },
        "context_window_limit": window, "embedding": service.runtime.embedder.name,
        "message_ids": [
            render.message_id(record.id, str(place)) for place in range(record.head_seq + 1, record.last_seq + 1)
        ],
        "created_at": stamp(record.created_at), "updated_at": stamp(record.last_step_at or record.created_at),
        "last_run_completion": stamp(ended), "last_stop_reason": None if reason is None else render.stop_reason(reason),
        "pending_approval": one.pending, "timezone": None, "message_buffer_autoclear": False, "enable_sleeptime": False,
        "hidden": False,
    }  # fmt: skip
