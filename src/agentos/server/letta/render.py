"""What the kernel holds, in Letta's shapes. An agent's message becomes one or several of Letta's, under one id."""

import re
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from agentos.errors import NotFound
from agentos.messages import Block, Message, Passage, SummaryEntry, ToolCall, Usage
from agentos.server.replies import stamp
from agentos.state import Decision, RunRecord, StepRecord
from agentos.store.history import Part

Json = dict[str, Any]
_STOP_REASONS = {"llm_error": "llm_api_error", "budget": "error", "loop": "error"}
_PLACE = 1 << 22
"""`seq_id`: a message's place in the queue times this, plus a position in the message."""
TEXT = 1 << 21
"""The position at which a message's text begins, a character each; below lies its reasoning, behind its calls."""
LAST = _PLACE - 1
"""The position behind a whole message."""
_BLOCK_ID = re.compile(r"block-(\d{1,15})", re.ASCII)
PARTS: dict[str, Part] = {
    "user_message": "input", "system_message": "notice", "reasoning_message": "reasoning", "assistant_message": "text",
    "tool_call_message": "call", "tool_return_message": "result", "summary_message": "summary",
    "approval_request_message": "request", "approval_response_message": "decision",
}  # fmt: skip
"""What Letta calls the parts of a message."""
_MESSAGE_ID = re.compile(r"message-([0-9a-f-]{36})-([is]?)(\d{1,15})", re.ASCII)

_THINKING = {"source": "reasoner_model", "signature": None}


def message_id(agent_id: str, mark: str) -> str:
    """A message's id on the wire: `mark` is its place in the queue, or `i` and the row of an imported one.

    It is known before the message is saved, so that a stream can name what is being written.
    """
    return f"message-{agent_id.removeprefix('agent-')}-{mark}"


def read_message_id(given: str) -> tuple[str, str, int]:
    """(agent id, "" or "i" or "s", number) of a message's id; `NotFound` for anything else."""
    match = _MESSAGE_ID.fullmatch(given)
    if match is None:
        raise NotFound(f"there is no message {given!r}")
    return f"agent-{match[1]}", match[2], int(match[3])


def id_of(message: Message) -> str:
    """A saved message's id on the wire."""
    return message_id(message.agent_id, f"i{message.id}" if message.seq is None else str(message.seq))


def seq_id(place: int, position: int = 0) -> int:
    """What a later stream may resume after: a position in the message at that place of the queue."""
    return place * _PLACE + min(position, LAST)


def read_seq_id(given: int) -> tuple[int, int]:
    """(place in the queue, position in that message)."""
    return divmod(max(0, given), _PLACE)


def stop_reason(reason: str | None) -> str:
    """Letta's word for why a turn ended."""
    return _STOP_REASONS.get(reason or "end_turn", reason or "end_turn")


def stop_reasons(reason: str) -> list[str]:
    """Ours of Letta's word for why a turn ended."""
    ours = [known for known, theirs in _STOP_REASONS.items() if theirs == reason]
    return ours or [reason]


def run_value(run: RunRecord) -> Json:
    """A run."""
    reason = None if run.stop_reason is None else stop_reason(run.stop_reason)
    took = None if run.ended_at is None else int((run.ended_at - run.created_at).total_seconds() * 1e9)
    metadata = {
        "trigger": run.trigger, "stop_reason": run.stop_reason, "error": run.error, "steps": run.steps,
        "cost_usd": run.usage.cost_usd,
    }  # fmt: skip
    return {
        "id": run.id, "agent_id": run.agent_id, "status": run.status, "created_at": stamp(run.created_at),
        "completed_at": stamp(run.ended_at), "stop_reason": reason, "background": run.background, "metadata": metadata,
        "total_duration_ns": took,
    }  # fmt: skip


def usage_value(usage: Usage, steps: int, run_id: str | None = None) -> Json:
    """Usage statistics of a run."""
    return {
        "message_type": "usage_statistics", "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens, "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "step_count": steps, "cached_input_tokens": usage.cached_tokens, "run_ids": [run_id] if run_id else [],
    }  # fmt: skip


def stop_value(reason: str | None) -> Json:
    """Why a turn ended."""
    return {"message_type": "stop_reason", "stop_reason": stop_reason(reason)}


def message_values(
    message: Message, after: int = -1, decisions: Mapping[str, Decision] | None = None
) -> Iterator[Json]:
    """A saved message in Letta's: reasoning, text, then calls; only what lies behind position `after` in it.

    In front of a call's result stands what was decided of it, by the `decisions` of its run.
    """
    place, end = message.seq or 0, TEXT + len(message.content)

    def made(kind: str, position: int, part: int, **values: Any) -> Json:
        otid = uuid.uuid5(uuid.NAMESPACE_OID, f"{id_of(message)}/{part}")
        return {
            "id": id_of(message), "date": stamp(message.created_at), "message_type": kind, "otid": str(otid),
            "run_id": message.run_id, "step_id": None, "seq_id": seq_id(place, position), "name": message.name,
            "sender_id": None, "is_err": None, **values,
        }  # fmt: skip

    if message.role == "tool":
        status = "success" if message.ok else "error"
        back = {"type": "tool", "tool_call_id": message.call_id, "status": status, "tool_return": message.content}
        decision = (decisions or {}).get(message.call_id or "")
        if decision:
            said = {"approve": decision.approve, "reason": decision.reason or None}
            given = [{"type": "approval", "tool_call_id": message.call_id, **said}]
            yield made("approval_response_message", 0, 1, approvals=given, approval_request_id=None, **said)
        if after < 0:
            yield made(
                "tool_return_message", 0, 0, tool_return=message.content, status=status, tool_call_id=message.call_id,
                stdout=[], stderr=[], tool_returns=[back],
            )  # fmt: skip
    elif message.role == "user":
        kind = "user_message" if message.kind == "message" else "system_message"
        if after < 0:
            yield made(kind, 0, 0, content=message.content)
    else:
        reasoning = message.reasoning
        if reasoning and after < min(len(reasoning), TEXT - 1):
            rest = reasoning[max(0, after) :]
            yield made("reasoning_message", min(len(reasoning), TEXT - 1), 0, reasoning=rest, **_THINKING)
        if message.content and after < end:
            yield made("assistant_message", end, 1, content=message.content[max(0, after - TEXT) :])
        for number, call in enumerate(message.calls, 1):
            if after < end + number and not call.asks:
                told = call_value(call)
                yield made("tool_call_message", end + number, 1 + number, tool_call=told, tool_calls=[told])
        asking, number = [call_value(call) for call in message.calls if call.asks], len(message.calls) + 1
        if asking and after < end + number:
            yield made(
                "approval_request_message", end + number, 1 + number, tool_call=asking[0], tool_calls=asking
            )  # fmt: skip


def call_value(call: ToolCall) -> Json:
    """A call."""
    return {"name": call.name, "arguments": call.arguments, "tool_call_id": call.id}


def piece_value(run: RunRecord, place: int, position: int, text: str, date: str | None) -> Json:
    """A piece of what is being written at `place`, its reasoning or its text; it ends at `position`."""
    ident, thought = message_id(run.agent_id, str(place)), position < TEXT
    otid = uuid.uuid5(uuid.NAMESPACE_OID, f"{ident}/{0 if thought else 1}")
    value = {
        "id": ident, "date": date, "message_type": "reasoning_message" if thought else "assistant_message",
        "otid": str(otid), "run_id": run.id, "step_id": None, "seq_id": seq_id(place, position),
    }  # fmt: skip
    return value | ({"reasoning": text, **_THINKING} if thought else {"content": text})


def summary_value(entry: SummaryEntry) -> Json:
    """A page-out's entry in the summary, where it stands in the history."""
    return {
        "id": message_id(entry.agent_id, f"s{entry.last_seq}"), "date": stamp(entry.created_at),
        "message_type": "summary_message", "summary": entry.text + (f"\n{entry.prose}" if entry.prose else ""),
        "seq_id": seq_id(entry.last_seq, LAST),
    }  # fmt: skip


def passage_value(passage: Passage) -> Json:
    """A passage of archival memory."""
    return {
        "id": f"passage-{passage.id}", "text": passage.text, "tags": list(passage.tags), "embedding": None,
        "created_at": stamp(passage.created_at), "archive_id": None, "metadata": {},
    }  # fmt: skip


def step_value(step: StepRecord) -> Json:
    """A step: one model call."""
    usage = step.usage
    reason = "llm_api_error" if step.error else "cancelled" if step.finish_reason == "cancelled" else None
    status = {"llm_api_error": "failed", "cancelled": "cancelled", None: "success"}[reason]
    return {
        "id": f"step-{step.id}", "run_id": step.run_id or None, "agent_id": step.agent_id, "model": step.model,
        "origin": step.kind, "status": status, "stop_reason": reason, "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens, "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "cached_input_tokens": usage.cached_tokens, "error_data": {"message": step.error} if step.error else None,
        "created_at": stamp(step.created_at), "tags": [], "feedback": None,
    }  # fmt: skip


def block_value(block: Block) -> Json:
    """A block of core memory."""
    return {
        "id": f"block-{block.id}", "label": block.label, "value": block.value, "limit": block.limit,
        "description": block.description, "read_only": block.read_only, "tags": list(block.tags),
        "metadata": block.meta, "hidden": False,
    }  # fmt: skip


def read_block_id(given: str) -> int:
    """The number of a block; `NotFound` for anything that is no block's id."""
    match = _BLOCK_ID.fullmatch(given)
    if match is None:
        raise NotFound(f"there is no block {given!r}; GET /v1/blocks/ lists them")
    return int(match[1])
