"""A person, or a program on their behalf, adds passages to archival memory and takes them out."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from agentos.actions.saved import require_agent
from agentos.actions.turn import utc_offset
from agentos.errors import Conflict, NotFound, UsageError
from agentos.messages import Cause, Message, Passage, clean_text
from agentos.protocols import Clock, Store
from agentos.tools.tool import MemoryPort


async def insert_passage(
    store: Store,
    clock: Clock,
    memory: MemoryPort,
    agent_id: str,
    text: str,
    tags: Sequence[str] = (),
    created_at: datetime | None = None,
    replaces: int | None = None,
    client: str = "",
) -> Passage:
    """Store a text in an agent's archival memory as a person; `memory` embeds it. `UsageError` when it is empty.

    Text equal to a valid passage returns that one, its tags united with `tags`. The passage whose id is `replaces` is
    superseded by it, and the agent is told: `NotFound` where there is none, `Conflict` where it is valid no more.
    `client` names the program that does it, whose words are not the user's.
    """
    text = clean_text(text).strip()
    if not text:
        raise UsageError("the text is empty; give the text to store")
    labels = tuple(dict.fromkeys(clean_text(t).strip() for t in tags if t.strip()))
    vector, fingerprint = await memory.embed(text) or (None, None)
    cause = by(agent_id, client)
    passage = Passage(
        id=0, agent_id=agent_id, text=text, origin=cause.actor, created_at=created_at or clock.now(), tags=labels,
        embedding=vector, fingerprint=fingerprint, replaces=replaces,
    )  # fmt: skip

    def work(tx: Any) -> Passage:
        require_agent(tx, agent_id)
        saved: Passage = tx.add_passage(passage, cause)[0]
        if replaces not in (None, saved.id):
            text = f"Passage p{replaces} was replaced by {_who(client)}: {saved.ref} holds now."
            tx.add_notice(notice(agent_id, clock.now(), "outside_edit", text))
        return saved

    return await store.write(work)


async def delete_passage(store: Store, clock: Clock, agent_id: str, passage_id: int, client: str = "") -> Passage:
    """End a passage's validity: no search finds it, `undo` brings it back.

    `NotFound` where there is no such passage, `Conflict` where another took its place.
    """
    now = clock.now()

    def work(tx: Any) -> Passage:
        tx.lock_agent(agent_id)
        passage: Passage | None = next(iter(tx.passages(agent_id, [passage_id])), None)
        if passage is not None and passage.superseded_by is not None:
            raise Conflict(f"{passage.ref} is valid no more: it was superseded by p{passage.superseded_by}")
        if passage is None or passage.valid_to is not None:
            raise NotFound(f"this agent has no passage p{passage_id}")
        tx.end_passage(passage_id, now, by(agent_id, client), "passage.delete")
        tx.add_notice(notice(agent_id, now, "outside_edit", f"Passage {passage.ref} was deleted by {_who(client)}."))
        return passage

    return await store.write(work)


def passage_id(ref: str) -> int:
    """The id behind `p12`, as people and models see it; `NotFound` for what is none."""
    if not re.fullmatch(r"p\d{1,15}", ref, re.ASCII):
        raise NotFound(f"{ref!r} is no passage; ids look like p12")
    return int(ref[1:])


def by(agent_id: str, client: str) -> Cause:
    """A person as the cause of a change, or the program of that name."""
    return Cause(agent_id, "client", client=client) if client else Cause(agent_id, "user")


def _who(client: str) -> str:
    return f"the client {client}" if client else "the user"


def notice(agent_id: str, now: datetime, name: str, text: str) -> Message:
    """A message that tells the agent what a person did to its memory."""
    return Message(
        id=0, agent_id=agent_id, role="user", content=text, origin="runtime", created_at=now,
        utc_offset=utc_offset(now), kind="alert", name=name,
    )  # fmt: skip
