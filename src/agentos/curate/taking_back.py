"""Undo: the inverse of one memory event is appended, where its target is still what the event made of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agentos.actions.turn import Turn
from agentos.curate.blocks import refuse_crowding
from agentos.curate.passages import notice
from agentos.errors import UsageError
from agentos.messages import Cause, Passage
from agentos.protocols import Clock, Store

_UNDOABLE = ("block.append", "block.replace", "block.edit", "passage.insert", "passage.delete", "undo.")
_LARGEST_ID = 2**63 - 1
"""What the database can hold as a row's id."""


@dataclass(frozen=True)
class Undone:
    """One event that was taken back."""

    event_id: int
    action: str
    target: str
    before: str
    after: str
    """The text before and after the undo."""


async def undo(store: Store, clock: Clock, turn: Turn, event_id: int | None = None) -> Undone:
    """Append the inverse of one memory event (the last one when none is named); the agent is told.

    An undo is an event like others and can be undone by its number. `UsageError` when there is nothing
    to undo, when the earlier text no longer fits, or when the target changed since: only what such
    undos led back to counts as unchanged.
    """
    agent_id, now = turn.state.agent.id, clock.now()

    def work(tx: Any) -> Undone:
        tx.lock_agent(agent_id)
        event = _event_to_undo(tx, agent_id, event_id)
        cause = Cause(agent_id, "user")
        if event["target"].startswith("b"):
            return _undo_block(tx, turn, event, cause)
        return _undo_passage(tx, event, cause, now)

    return await store.write(work)


def undone_events(events: Iterable[dict[str, Any]]) -> set[int]:
    """Ids of the events that are taken back, among journal rows, newest first. An undo that was undone is none."""
    undone: set[int] = set()
    for event in events:
        if event["undo_of"] and event["id"] not in undone:
            undone.add(event["undo_of"])
    return undone


def _event_to_undo(tx: Any, agent_id: str, event_id: int | None) -> dict[str, Any]:
    if event_id is not None:
        event_id = min(event_id, _LARGEST_ID)
        event: dict[str, Any] | None = tx.event(event_id)
        if event is None or event["agent_id"] != agent_id:
            raise UsageError(f"this agent has no event {event_id}; `agentos memory history` lists them")
        if not event["action"].startswith(_UNDOABLE):
            raise UsageError(f"event {event_id} ({event['action']}) changed no memory that could be taken back")
        return event
    events = tx.events(agent_id, actions=_UNDOABLE, limit=1000)
    undone = undone_events(events)
    for event in events:
        if event["id"] not in undone and not event["undo_of"]:
            return dict(event)
    raise UsageError("there is no memory event to undo")


def _undo_block(tx: Any, turn: Turn, event: dict[str, Any], cause: Cause) -> Undone:
    block = next((b for b in tx.blocks(cause.agent_id) if f"b{b.id}" == event["target"]), None)
    if block is None:
        raise UsageError(f"the agent no longer has block {event['target']}; nothing was undone")
    old, made, now = (tx.version(n) for n in (event["before_id"], event["after_id"], block.version_id))
    if original(now) != original(made):
        raise UsageError(
            f"block {block.label!r} changed since event {event['id']}; undo the newer events first.\n"
            f"Event {event['id']} made it (version {made['id']}):\n{made['value']}\n"
            f"It now reads (version {now['id']}):\n{now['value']}"
        )
    text = old["value"]
    if len(text) > block.limit:
        raise UsageError(
            f"the earlier text has {len(text)} characters and the limit is now {block.limit}; raise it first"
        )
    refuse_crowding(turn, tx, block, text)
    tx.write_block(block, text, cause, "undo.block", event["id"], restores=original(old))
    return Undone(event["id"], event["action"], event["target"], block.value, text)


def _undo_passage(tx: Any, event: dict[str, Any], cause: Cause, now: datetime) -> Undone:
    passage: Passage | None = next(iter(tx.passages(cause.agent_id, [int(event["target"][1:])])), None)
    if passage is None:
        raise UsageError(f"passage {event['target']} was erased; nothing was undone")
    added = event["action"] == "passage.insert" or event["note"] == "restored"
    if not _stands(event, tx.events(cause.agent_id, event["target"], _UNDOABLE, limit=1000)):
        state = "in" if passage.valid_to is None else "no longer in"
        raise UsageError(
            f"passage {passage.ref} changed since event {event['id']}: it is {state} archival memory. "
            f"It reads:\n{passage.text}"
        )
    twin = None if added else tx.equal_passage(passage)
    if twin is not None:
        raise UsageError(f"passage {passage.ref} cannot come back: {twin.ref}, stored since, holds the same text")
    note = "ended" if added else "restored"
    tx.end_passage(passage.id, now if added else None, cause, "undo.passage", undo_of=event["id"], note=note)
    text = f"Passage {passage.ref} was {'taken out of' if added else 'put back into'} archival memory by the user."
    tx.add_notice(notice(cause.agent_id, now, "undo", text))
    return Undone(
        event["id"], event["action"], passage.ref, passage.text if added else "", "" if added else passage.text
    )


def original(version: dict[str, Any]) -> int:
    """The version whose text an undo brought back; any other is its own."""
    return int(version["restores"] or version["id"])


def _stands(event: dict[str, Any], events: list[dict[str, Any]]) -> bool:
    """Whether what `event` led to is what its target is now, by the target's events, newest first."""
    state, before, after = 0, {}, {}
    for one in reversed(events):
        before[one["id"]] = state
        state = after[one["id"]] = before.get(one["undo_of"], one["id"])
    return after.get(event["id"]) == state
