"""What a person does to an agent's memory: look, edit, undo, ask why, bring in past conversations."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from agentos.actions.saved import require_agent
from agentos.actions.turn import Turn, utc_offset
from agentos.errors import Conflict, NotFound, UsageError
from agentos.memory import core
from agentos.messages import Block, Cause, Message, Passage, at_local_time, clean_text
from agentos.protocols import Clock, Store
from agentos.tools.tool import MemoryPort

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


@dataclass(frozen=True)
class Origin:
    """One link of the chain from a memory back to the words it came from."""

    what: str
    when: datetime | None
    text: str
    ref: str = ""
    about: str | None = None
    """Of a memory: whose words led to it, where somebody spoke."""


async def edit_block(
    store: Store, turn: Turn, label: str, value: str, expected: int | None = None
) -> tuple[Block, Block]:
    """Rewrite a block as a person; the agent is told at its next step. Returns it (before, after).

    The limits that hold for the model hold here: beyond them is a `UsageError`. `expected` is the
    version the person saw: when the block changed since, it is left as it is (`UsageError`).
    """
    agent_id = turn.state.agent.id

    def work(tx: Any) -> tuple[Block, Block]:
        blocks = tx.blocks(agent_id)
        block = next((b for b in blocks if b.label == label), None)
        if block is None:
            raise UsageError(f"there is no block {label!r}; the blocks are: {', '.join(b.label for b in blocks)}")
        text = clean_text(value)
        if len(text) > block.limit:
            size = f"{len(text)} characters and its limit is {block.limit}"
            raise UsageError(f"block {label!r} would have {size}; shorten the text")
        if expected is not None and block.version_id != expected:
            raise UsageError(
                f"block {label!r} changed while you edited it and was left as it now is; look at it and edit it again"
            )
        _refuse_crowding(turn, tx, block, text)
        if text == block.value:
            return block, block
        return block, tx.write_block(block, text, Cause(agent_id, "user"), "block.edit")

    return await store.write(work)


def _refuse_crowding(turn: Turn, tx: Any, block: Block, text: str) -> None:
    _refuse(turn.crowds(tx, block, text))


def _refuse(crowded: str | None) -> None:
    if crowded:
        raise UsageError(f"{crowded}; shorten core memory first")


async def share_block(store: Store, owner_id: str, label: str, receiver: Turn) -> Block:
    """Attach an agent's block to another agent too: both read and edit the one text. Returns the block.

    The receiver has it from its next step on. `UsageError` when the receiver has a block of that label,
    or when core memory would take more than half of its window.
    """

    def work(tx: Any) -> Block:
        block = core.find_block(tx.blocks(owner_id), label)
        _attach(tx, receiver, block)
        return block

    return await store.write(work)


async def attach_block(store: Store, block_id: int, receiver: Turn) -> None:
    """The same of any block by its id, `NotFound` when there is none. Nothing happens where the agent has it."""

    def work(tx: Any) -> None:
        block = _existing_block(tx, block_id)
        if all(b.id != block_id for b in tx.blocks(receiver.state.agent.id)):
            _attach(tx, receiver, block)

    await store.write(work)


def _attach(tx: Any, receiver: Turn, block: Block) -> None:
    agent_id = receiver.state.agent.id
    tx.attach_block(agent_id, block.id)
    if crowded := receiver.crowding(tx.blocks(agent_id)):
        raise UsageError(crowded)
    tx.update_agent(agent_id, core_room=receiver.core_room())
    tx.journal(Cause(agent_id, "user"), "block.attach", f"b{block.id}", after=block.version_id)


def _existing_block(tx: Any, block_id: int) -> Block:
    block: Block | None = tx.block(block_id)
    if block is None:
        raise NotFound(f"there is no block {block_id}")
    return block


def fitting(block: Block) -> Block:
    """The block; `UsageError` where its text is longer than its limit."""
    if len(block.value) > block.limit:
        size = f"{len(block.value)} characters and its limit is {block.limit}"
        raise UsageError(f"block {block.label!r} would have {size}; shorten the text or raise the limit")
    return block


async def change_block(store: Store, block_id: int, turn: Turn | None, **values: Any) -> Block:
    """Change a block as a person: `value`, `label`, `limit`, `description`, `read_only`, `tags`, `meta`. Returns it.

    All of it or nothing: `NotFound` when there is no such block, `UsageError` where its text would be longer than
    its limit, another block of an agent has the label, or core memory would take more than half of a window.
    `turn` is of an agent that has the block, None where none has it; agents that have it are told.
    """

    def work(tx: Any) -> Block:
        before = _existing_block(tx, block_id)
        holders = tx.holders(block_id)
        if turn is None and holders:
            raise Conflict(f"block {before.label!r} was attached to an agent at this moment; change it again")
        after = replace(before, **values)
        fitting(after)
        if after.label != before.label:
            for holder, name in holders.items():
                if any(b.label == after.label for b in tx.blocks(holder)):
                    raise UsageError(f"agent {name!r} has a block {after.label!r} already; choose another label")
        if turn is not None and len(core.render([after])) > len(core.render([before])):
            _refuse(turn.crowds_as(tx, after))
        cause = Cause(next(iter(holders), ""), "user")
        rest = {name: v for name, v in values.items() if name != "value" and v != getattr(before, name)}
        if rest:
            before = tx.change_block(before, cause, **rest)
        if after.value != before.value:
            before = tx.write_block(before, after.value, cause, "block.edit")
        return before

    return await store.write(work)


async def delete_block(store: Store, block_id: int) -> None:
    """Remove a block with every version of its text, from every agent that has it; `NotFound` when there is none."""

    def work(tx: Any) -> None:
        tx.delete_block(_existing_block(tx, block_id).id)

    await store.write(work)


async def detach_block(store: Store, agent_id: str, label: str, *, keep: bool = False) -> Block:
    """Take a shared block out of an agent's context; the others keep it. Returns the block.

    `UsageError` when no other agent has it, as its text would be out of reach; with `keep` it stays as nobody's.
    """

    def work(tx: Any) -> Block:
        block = core.find_block(tx.blocks(agent_id), label)
        tx.lock_block(block.id)
        if not keep and len(tx.holders(block.id)) == 1:
            raise UsageError(f"no other agent has block {label!r}, so its text would be out of reach; share it first")
        tx.detach_block(agent_id, block.id)
        tx.journal(Cause(agent_id, "user"), "block.detach", f"b{block.id}", before=block.version_id)
        return block

    return await store.write(work)


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


def undone_events(events: Iterable[dict[str, Any]]) -> set[int]:
    """Ids of the events that are taken back, among journal rows, newest first. An undo that was undone is none."""
    undone: set[int] = set()
    for event in events:
        if event["undo_of"] and event["id"] not in undone:
            undone.add(event["undo_of"])
    return undone


def _undo_block(tx: Any, turn: Turn, event: dict[str, Any], cause: Cause) -> Undone:
    block = next((b for b in tx.blocks(cause.agent_id) if f"b{b.id}" == event["target"]), None)
    if block is None:
        raise UsageError(f"the agent no longer has block {event['target']}; nothing was undone")
    old, made, now = (tx.version(n) for n in (event["before_id"], event["after_id"], block.version_id))
    if _original(now) != _original(made):
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
    _refuse_crowding(turn, tx, block, text)
    tx.write_block(block, text, cause, "undo.block", event["id"], restores=_original(old))
    return Undone(event["id"], event["action"], event["target"], block.value, text)


def _original(version: dict[str, Any]) -> int:
    """The version whose text an undo brought back; any other is its own."""
    return int(version["restores"] or version["id"])


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
    tx.add_notice(_notice(cause.agent_id, now, "undo", text))
    return Undone(
        event["id"], event["action"], passage.ref, passage.text if added else "", "" if added else passage.text
    )


def _stands(event: dict[str, Any], events: list[dict[str, Any]]) -> bool:
    """Whether what `event` led to is what its target is now, by the target's events, newest first."""
    state, before, after = 0, {}, {}
    for one in reversed(events):
        before[one["id"]] = state
        state = after[one["id"]] = before.get(one["undo_of"], one["id"])
    return after.get(event["id"]) == state


async def insert_passage(
    store: Store,
    clock: Clock,
    memory: MemoryPort,
    agent_id: str,
    text: str,
    tags: Sequence[str] = (),
    created_at: datetime | None = None,
) -> Passage:
    """Store a text in an agent's archival memory as a person; `memory` embeds it. `UsageError` when it is empty.

    Text equal to a valid passage returns that one, its tags united with `tags`.
    """
    text = clean_text(text).strip()
    if not text:
        raise UsageError("the text is empty; give the text to store")
    labels = tuple(dict.fromkeys(clean_text(t).strip() for t in tags if t.strip()))
    vector, fingerprint = await memory.embed(text) or (None, None)
    passage = Passage(
        id=0, agent_id=agent_id, text=text, origin="user", created_at=created_at or clock.now(), tags=labels,
        embedding=vector, fingerprint=fingerprint,
    )  # fmt: skip

    def work(tx: Any) -> Passage:
        require_agent(tx, agent_id)
        saved: Passage = tx.add_passage(passage, Cause(agent_id, "user"))[0]
        return saved

    return await store.write(work)


async def delete_passage(store: Store, clock: Clock, agent_id: str, passage_id: int) -> Passage:
    """End a passage's validity: no search finds it, `undo` brings it back."""
    now = clock.now()

    def work(tx: Any) -> Passage:
        tx.lock_agent(agent_id)
        passage: Passage | None = next(iter(tx.passages(agent_id, [passage_id])), None)
        if passage is None or passage.valid_to is not None:
            raise NotFound(f"this agent has no passage p{passage_id}")
        tx.end_passage(passage_id, now, Cause(agent_id, "user"), "passage.delete")
        tx.add_notice(_notice(agent_id, now, "undo", f"Passage {passage.ref} was deleted by the user."))
        return passage

    return await store.write(work)


def _notice(agent_id: str, now: datetime, name: str, text: str) -> Message:
    return Message(
        id=0, agent_id=agent_id, role="user", content=text, origin="runtime", created_at=now,
        utc_offset=utc_offset(now), kind="alert", name=name,
    )  # fmt: skip


async def why(store: Store, agent_id: str, what: str) -> list[list[Origin]]:
    """For a passage (`p3`), a block's label, or any words in core memory or archival memory: where they came from.

    One chain for each memory that was found, from the memory back to the user's words; empty when nothing is known.
    """

    def work(tx: Any) -> list[list[Origin]]:
        chains = [_block_chain(tx, agent_id, b, what) for b in tx.blocks(agent_id) if _concerns(b, what)]
        chains += [_passage_chain(tx, agent_id, p) for p in _passages_about(tx, agent_id, what)]
        return [chain for chain in chains if chain]

    return await store.read(work)


def _concerns(block: Block, what: str) -> bool:
    return block.label == what or (len(what) > 2 and what.lower() in block.value.lower())


def _passages_about(tx: Any, agent_id: str, what: str) -> list[Passage]:
    if what[:1] == "p" and what[1:].isdigit() and len(what) < 17:
        found: list[Passage] = tx.passages(agent_id, [int(what[1:])])
        return found
    return [p for p in tx.recent_passages(agent_id, limit=2000) if len(what) > 2 and what.lower() in p.text.lower()][:5]


def _block_chain(tx: Any, agent_id: str, block: Block, what: str) -> list[Origin]:
    """The version that brought the words in, and what led to it."""
    versions = tx.block_versions(block.id)
    words = "" if block.label == what else what.lower()
    born = next((v for v in versions if words and _holds_since(versions, v, words)), versions[-1])
    if words not in born["value"].lower():
        return []
    born = next(v for v in versions if v["id"] == _original(born))  # what an undo brought back was written before
    head = Origin(f"block {block.label!r}", born["created_at"], block.value, f"b{block.id}", born["about"])
    return [head, *_causes(tx, agent_id, born)]


def _holds_since(versions: list[dict[str, Any]], since: dict[str, Any], words: str) -> bool:
    """Whether every version from `since` on holds the words."""
    return all(words in v["value"].lower() for v in versions if v["id"] >= since["id"])


def _passage_chain(tx: Any, agent_id: str, passage: Passage) -> list[Origin]:
    head = Origin("passage", passage.created_at, passage.text, passage.ref, passage.about)
    row = {
        "agent_id": agent_id,
        "origin": passage.origin,
        "message_id": passage.message_id,
        "run_id": passage.run_id,
        "call_id": passage.call_id,
    }
    return [head, *_causes(tx, agent_id, row)]


def _causes(tx: Any, agent_id: str, row: dict[str, Any]) -> list[Origin]:
    """The call that wrote a memory, and the message that began its turn; what others said to others stays theirs."""
    writer = tx.agent(row["agent_id"]) if row["agent_id"] not in (agent_id, None) else None
    if writer is not None:
        return [Origin(f"written by agent {writer.name!r}, which shares the block", row["created_at"], "")]
    if row["message_id"] is None:
        who = {"user": "a person wrote it", "runtime": "it came with the persona", "import": "it was imported"}
        return [Origin(who.get(row["origin"], row["origin"]), None, "")]
    chain = []
    for message in tx.messages(agent_id, [row["message_id"]]):
        call = next((c for c in message.calls if c.id == row["call_id"]), None)
        text = f"{call.name} {call.arguments}" if call else message.content
        chain.append(Origin("written by the agent", message.created_at, text, message.ref))
    spoken = [m for m in tx.run_messages(row["run_id"]) if m.role == "user" and m.id < row["message_id"]]
    chain += [Origin(f"because of the {m.origin}'s message", m.created_at, m.content, m.ref) for m in spoken]
    return chain


@dataclass(frozen=True)
class Imported:
    """What an import did."""

    added: int
    known: int


async def import_conversation(store: Store, clock: Clock, agent_id: str, lines: Iterable[str]) -> Imported:
    """Take in JSON lines as past messages, in order, searchable at once; lines known already are passed over.

    `UsageError` names the first line that cannot be used; nothing of the file is kept then.
    """
    messages = list(_parse_lines(lines, agent_id, clock.now()))

    def work(tx: Any) -> int:
        tx.lock_agent(agent_id)
        known = tx.known_externals(agent_id, [m.external_id or "" for m in messages])
        fresh = {m.external_id: m for m in reversed(messages) if m.external_id not in known}
        for message in reversed(fresh.values()):  # of lines with one id the first counts
            tx.add_message(message)
        if fresh:
            tx.journal(Cause(agent_id, "import"), "import", agent_id, f"{len(fresh)} messages")
        return len(fresh)

    added = await store.write(work)
    return Imported(added, len(messages) - added)


def _parse_lines(lines: Iterable[str], agent_id: str, now: datetime) -> Iterator[Message]:
    seen: dict[str, int] = {}
    last = now
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        values = _parse_line(number, line)
        when = _parse_time(number, values.get("created_at"), last, now)
        last = when + timedelta(microseconds=1)
        digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]
        seen[digest] = seen.get(digest, 0) + 1
        given = values.get("id")
        yield Message(
            id=0, agent_id=agent_id, role=values["role"], content=clean_text(values["content"]), origin="import",
            created_at=when, utc_offset=utc_offset(when), name=_optional(values, "name"),
            session=_optional(values, "session"),
            external_id=clean_text(str(given)) if given is not None else f"sha256:{digest}:{seen[digest]}",
        )  # fmt: skip


def _parse_line(number: int, line: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"line {number} is not JSON ({error}); nothing was imported") from None
    if not isinstance(values, dict) or values.get("role") not in ("user", "assistant"):
        raise UsageError(f'line {number} needs "role": "user" or "assistant"; nothing was imported')
    if not isinstance(values.get("content"), str) or not values["content"].strip():
        raise UsageError(f'line {number} needs "content" with some text; nothing was imported')
    return values


def _parse_time(number: int, value: object, last: datetime, now: datetime) -> datetime:
    if value is None:
        return last
    try:
        when = datetime.fromisoformat(str(value))
        when = when if when.tzinfo else at_local_time(when, now)
        # a moment on: the time of a next line that has none must exist as well
        _ = when.astimezone(UTC) + timedelta(days=1)
    except (ValueError, OverflowError):
        raise UsageError(f"line {number}: created_at {value!r} is no ISO 8601 time; nothing was imported") from None
    return when


def _optional(values: dict[str, Any], name: str) -> str | None:
    return None if values.get(name) is None else clean_text(str(values[name]))
