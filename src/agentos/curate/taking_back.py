"""Undo: the inverse of one memory event is appended, where its target is still what the event made of it."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from agentos.actions.turn import Turn
from agentos.curate.blocks import refuse_crowding
from agentos.curate.passages import notice
from agentos.curate.sources import LARGEST_ID, Source
from agentos.errors import UsageError
from agentos.messages import Cause, Passage
from agentos.protocols import Clock, Store

_UNDOABLE = (
    "block.append", "block.replace", "block.edit", "passage.insert", "passage.supersede", "passage.delete",
    "passage.tag", "undo.",
)  # fmt: skip
_OF_TAGS = ("passage.tag", "undo.tags")
_OF_VALIDITY = ("passage.insert", "passage.supersede", "passage.delete", "undo.passage")
_ALL = 2**31
_MOST_AT_ONCE = 2000
"""Events that one transaction takes back, 2 ms each; meanwhile nobody else writes."""
_SAID_AT_ONCE = 20
"""Changes that the agent is told of one by one."""


@dataclass(frozen=True)
class Undone:
    """One event that was taken back."""

    event_id: int
    action: str
    target: str
    before: str
    after: str
    """The text before and after the undo; of tags, one a line."""
    also: int | None = None
    """The event that went with it: the other half of one passage taking another's place."""


async def undo(store: Store, clock: Clock, turn: Turn, event_id: int | None = None) -> Undone:
    """Append the inverse of one memory event (the last one when none is named); the agent is told.

    An undo is an event like others and can be undone by its number. `UsageError` when there is nothing
    to undo, when the earlier text no longer fits, or when the target changed since: only what such
    undos led back to counts as unchanged.
    """
    agent_id, now = turn.state.agent.id, clock.now()

    def work(tx: Any) -> Undone:
        tx.lock_agent(agent_id)
        said: list[str] = []
        undone = _take_back(tx, _event_to_undo(tx, agent_id, event_id), now, said)
        _refuse_unfit(tx, turn, [undone])
        _tell(tx, agent_id, now, said)
        return undone

    return await store.write(work)


async def undo_all(store: Store, clock: Clock, turn: Turn, source: Source) -> list[Undone]:
    """Take back everything that came from one source and still stands, the newest first: all of it or nothing.

    `UsageError` says what cannot be taken back and why, or that there is nothing.
    """
    agent_id, now = turn.state.agent.id, clock.now()

    def work(tx: Any) -> list[Undone]:
        tx.lock_agent(agent_id)
        done: list[Undone] = []
        said: list[str] = []
        gone: set[int | None] = set()
        refused: dict[str, str] = {}
        for event in _standing(tx, agent_id, source):
            if event["id"] in gone or _was_deleted(tx, event):
                continue
            if event["target"] in refused:  # the newer one stands in its way
                continue
            try:
                done.append(_take_back(tx, event, now, said))
                gone.add(done[-1].also)
            except UsageError as error:
                refused[event["target"]] = str(error)
        if refused:
            raise UsageError("nothing was taken back, as not all of it can be.\n" + "\n".join(refused.values()))
        if not done:
            raise UsageError(_nothing(tx, agent_id, source))
        _refuse_unfit(tx, turn, done)
        _tell(tx, agent_id, now, said)
        return done

    return await store.write(work)


def undoable(event: dict[str, Any]) -> bool:
    """Whether a journal row is of the kind that can be taken back, as long as its target stays as it is."""
    return str(event["action"]).startswith(_UNDOABLE) and event["after_id"] is not None


def _standing(tx: Any, agent_id: str, source: Source) -> list[dict[str, Any]]:
    """The events of a source that can be taken back and were not, newest first."""
    events = tx.events(agent_id, actions=_UNDOABLE, limit=_ALL, **source.events_of(tx, agent_id))
    undone = undone_events(tx.undos(agent_id, events[-1]["id"])) if events else set()
    found = [e for e in events if undoable(e) and not e["undo_of"] and e["id"] not in undone]
    if len(found) > _MOST_AT_ONCE:
        begin = (found[_MOST_AT_ONCE - 1]["created_at"] + timedelta(seconds=1)).astimezone().isoformat("T", "seconds")
        way = "take back single events"
        if source.client is not None:
            way = f"begin with the newest: those since {begin}"
        elif source.imported:
            way = "an agent file makes an agent of its own: delete that one"
        raise UsageError(f"{len(found)} events came from there, and {_MOST_AT_ONCE} are taken back at once; {way}")
    if not source.imported:
        return found
    ended = _came_ended(tx, agent_id, [e["after_id"] for e in found if e["action"] == "passage.insert"])
    return [e for e in found if e["target"] not in ended]


def _was_deleted(tx: Any, event: dict[str, Any]) -> bool:
    """Whether the event stored a passage, in nothing's place, that was deleted since: it is out of memory already."""
    if event["action"] != "passage.insert" or event["before_id"]:
        return False
    passage = next(iter(tx.passages(event["agent_id"], [event["after_id"]])), None)
    return passage is not None and passage.valid_to is not None and passage.superseded_by is None


def _nothing(tx: Any, agent_id: str, source: Source) -> str:
    """Why nothing of a source can be taken back."""
    if source.imported:
        return (
            "no import brought anything into archival memory that still stands; imported messages are past "
            "conversation, which is not taken back and is no part of the context"
        )
    told = "nothing in memory that came from there still stands"
    if source.client is None:
        return told
    known = ", ".join(map(repr, tx.clients(agent_id))) or "none"
    return f"{told}; clients that wrote to this agent's memory: {known}"


def _take_back(tx: Any, event: dict[str, Any], now: datetime, said: list[str]) -> Undone:
    """The undo of one event; what the agent is to be told of it is added to `said`."""
    cause = Cause(event["agent_id"], "user")
    if event["target"].startswith("b"):
        return _undo_block(tx, event, cause)
    if event["action"] in _OF_TAGS:
        return _undo_tags(tx, event, cause, said)
    return _undo_passage(tx, event, cause, now, said)


def _tell(tx: Any, agent_id: str, now: datetime, said: list[str]) -> None:
    """One notice of all that was done to archival memory."""
    if len(said) > _SAID_AT_ONCE:
        said = [*said[:_SAID_AT_ONCE], f"So were {len(said) - _SAID_AT_ONCE} more changes taken back."]
    if said:
        tx.add_notice(notice(agent_id, now, "undo", " ".join(said)))


def undone_events(events: Iterable[dict[str, Any]]) -> set[int]:
    """Ids of the events that are taken back, among journal rows, newest first. An undo that was undone is none."""
    undone: set[int] = set()
    for event in events:
        if event["undo_of"] and event["id"] not in undone:
            undone.add(event["undo_of"])
    return undone


def _event_to_undo(tx: Any, agent_id: str, event_id: int | None) -> dict[str, Any]:
    if event_id is not None:
        event_id = min(event_id, LARGEST_ID)
        event: dict[str, Any] | None = tx.event(event_id)
        if event is None or event["agent_id"] != agent_id:
            raise UsageError(f"this agent has no event {event_id}; `agentos memory history` lists them")
        if event["action"] == "import":
            raise UsageError(f"event {event_id} imported past messages, which are not taken back; memory is as it was")
        if not undoable(event):
            raise UsageError(f"event {event_id} ({event['action']}) changed no memory that could be taken back")
        return event
    events = tx.events(agent_id, actions=_UNDOABLE, limit=1000)
    undone = undone_events(events)
    for event in events:
        if event["id"] not in undone and not event["undo_of"] and undoable(event):
            return dict(event)
    raise UsageError("there is no memory event to undo")


def _refuse_unfit(tx: Any, turn: Turn, done: Sequence[Undone]) -> None:
    """`UsageError` where a block's earlier text no longer fits; of several changes their net size counts."""
    before = {one.target: one.before for one in reversed(done)}
    after = {one.target: one.after for one in done}
    for block in tx.blocks(turn.state.agent.id):
        if (text := after.get(f"b{block.id}")) is None:
            continue
        if len(text) > block.limit:
            raise UsageError(
                f"the earlier text has {len(text)} characters and the limit is now {block.limit}; raise it first"
            )
        refuse_crowding(turn, tx, replace(block, value=before[f"b{block.id}"]), text)


def _undo_block(tx: Any, event: dict[str, Any], cause: Cause) -> Undone:
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
    tx.write_block(block, text, cause, "undo.block", event["id"], restores=original(old))
    return Undone(event["id"], event["action"], event["target"], block.value, text)


def _undo_tags(tx: Any, event: dict[str, Any], cause: Cause, said: list[str]) -> Undone:
    passage = next(iter(tx.passages(cause.agent_id, [int(event["target"][1:])])), None)
    if passage is None:
        raise UsageError(f"passage {event['target']} was erased; nothing was undone")
    before, after = tx.tag_changes([event["after_id"]])[event["after_id"]]
    if not _stands(tx, event, _OF_TAGS):
        raise UsageError(
            f"the tags of passage {passage.ref} changed since event {event['id']}; undo the newer events first.\n"
            f"Event {event['id']} made them: {_listed(after)}\nThey now are: {_listed(passage.tags)}"
        )
    tx.tag_passage(passage, before, cause, "undo.tags", event["id"])
    said.append(f"The tags of passage {passage.ref} were put back by the user: {_listed(before)}.")
    return Undone(event["id"], event["action"], event["target"], "\n".join(passage.tags), "\n".join(before))


def _listed(tags: Collection[str]) -> str:
    return ", ".join(tags) or "none"


def _undo_passage(tx: Any, event: dict[str, Any], cause: Cause, now: datetime, said: list[str]) -> Undone:
    """Take out what the event put in, and the other way round; both where one passage took another's place."""
    events = [event, *_other_half(tx, event)]
    passages = {p.ref: p for p in tx.passages(cause.agent_id, [int(e["target"][1:]) for e in events])}
    for one in events:
        passage = passages.get(one["target"])
        if passage is None:
            raise UsageError(f"passage {one['target']} was erased; nothing was undone")
        stands = _stands(tx, one, _OF_VALIDITY)
        if not stands or _added(one) != (passage.valid_to is None):  # one may come with its end from elsewhere
            raise UsageError(_changed(tx, event, passage))
        twin = None if _added(one) else tx.equal_passage(passage)
        if twin is not None:
            raise UsageError(f"passage {passage.ref} cannot come back: {twin.ref}, stored since, holds the same text")
    out, back = "", ""
    for one in events:
        passage = passages[one["target"]]
        if _added(one):
            _end(tx, one, passage, cause, now, passages)
            out = passage.text
        else:
            tx.end_passage(passage.id, None, cause, "undo.passage", undo_of=one["id"], note="restored")
            back = passage.text
        where = "taken out of" if _added(one) else "put back into"
        said.append(f"Passage {passage.ref} was {where} archival memory by the user.")
    return Undone(event["id"], event["action"], event["target"], out, back, next((e["id"] for e in events[1:]), None))


def _end(
    tx: Any, event: dict[str, Any], passage: Passage, cause: Cause, now: datetime, changed: dict[str, Passage]
) -> None:
    """Take out a passage that the event put in: as superseded again where what is undone is the undo of that."""
    at, root = now, _root(tx, event)
    superseded_by = root["after_id"] if root["action"] == "passage.supersede" else None
    if superseded_by is not None:
        taker = next(iter(tx.passages(cause.agent_id, [superseded_by])), None)
        if taker is not None and taker.ref in changed:  # it comes back now, and takes the place since its own time
            at = max(passage.created_at, taker.created_at)
        elif taker is None or taker.valid_to is not None:
            raise UsageError(f"passage p{superseded_by}, which is to take the place of {passage.ref}, is valid no more")
    elif root["action"] == "passage.insert":
        found = {p.ref: p.id for p in tx.superseded(cause.agent_id, passage.id) if p.ref not in changed}
        others = sorted(found.keys() - _came_ended(tx, cause.agent_id, found.values())) if found else []
        if others:
            raise UsageError(f"passage {passage.ref} took the place of {', '.join(others)} too; undo that first")
    tx.end_passage(
        passage.id, at, cause, "undo.passage", superseded_by=superseded_by, undo_of=event["id"], note="ended"
    )


def _came_ended(tx: Any, agent_id: str, passage_ids: Iterable[int]) -> set[str]:
    """Those of the passages that were over when they were stored: an agent file brings such."""
    ended = [p for p in tx.passages(agent_id, passage_ids) if p.valid_to is not None]
    return {p.ref for p in ended if len(tx.events(agent_id, p.ref, _OF_VALIDITY, limit=2)) == 1}


def _added(event: dict[str, Any]) -> bool:
    """Whether the event put its passage into archival memory."""
    return bool(event["action"] == "passage.insert" or event["note"] == "restored")


def _other_half(tx: Any, event: dict[str, Any]) -> list[dict[str, Any]]:
    """Where a new passage took another's place: the last of what happened to the other one in the same go."""
    root = _root(tx, event)
    ends = root["before_id"], root["after_id"]
    for other in {f"p{number}" for number in ends if number} - {root["target"]}:
        for one in tx.events(event["agent_id"], other, _OF_VALIDITY, limit=1000):
            first = _root(tx, one)
            if (first["before_id"], first["after_id"]) == ends:
                return [one]
    return []


def _root(tx: Any, event: dict[str, Any]) -> dict[str, Any]:
    """What an undo, or an undo of an undo, goes back to; any other event is its own."""
    while event["undo_of"]:
        event = tx.event(event["undo_of"])
    return event


def _changed(tx: Any, event: dict[str, Any], passage: Passage) -> str:
    """Why the event cannot be undone: what became of its passage since."""
    taker = next(iter(tx.passages(event["agent_id"], [passage.superseded_by or 0])), None)
    if taker is not None:
        state = f"{taker.ref} superseded it"
    else:
        state = f"it is {'in' if passage.valid_to is None else 'no longer in'} archival memory"
    shown = f"passage {passage.ref} changed since event {event['id']}: {state}. It reads:\n{passage.text}"
    return shown if taker is None else f"{shown}\n{taker.ref} reads:\n{taker.text}"


def original(version: dict[str, Any]) -> int:
    """The version whose text an undo brought back; any other is its own."""
    return int(version["restores"] or version["id"])


def _stands(tx: Any, event: dict[str, Any], actions: tuple[str, ...]) -> bool:
    """Whether what `event` led to is what its target is now, by the target's events of these kinds."""
    return _made_by(tx, event, actions) == _made_by(tx, event, actions, before=event["id"] + 1)


def _made_by(tx: Any, event: dict[str, Any], actions: tuple[str, ...], before: int | None = None) -> int:
    """The event that made the target of `event` what it is, or was `before` another event; 0 where none did.

    What an undo led to is what the target was before the event that it took back.
    """
    found = tx.events(event["agent_id"], event["target"], actions, limit=1, before=before)
    while found and found[0]["undo_of"]:
        found = tx.events(event["agent_id"], event["target"], actions, limit=1, before=found[0]["undo_of"])
    return int(found[0]["id"]) if found else 0
