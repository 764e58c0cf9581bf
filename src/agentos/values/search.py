"""Archival and recall memory, listed, searched and one by one, as plain JSON."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from agentos.curate import passage_id
from agentos.errors import NotFound, UsageError
from agentos.messages import Message, Passage
from agentos.protocols import Hit, SearchQuery, Store
from agentos.runtime import Runtime
from agentos.values.memory import passage_values
from agentos.values.plain import Json, local
from agentos.values.runs import message_value

_AROUND = 4
"""Messages before and behind one that is shown."""


def hit_value(hit: Hit) -> Json:
    """One search hit."""
    return {
        "id": hit.ref, "created_at": local(hit.created_at), "text": hit.text, "role": hit.role, "name": hit.name,
        "tags": list(hit.tags), "session": hit.session, "external_id": hit.external_id, "why": hit.why,
        "score": round(hit.score, 4), "valid_to": local(hit.valid_to), "superseded_by": hit.superseded_by,
    }  # fmt: skip


async def passage_page(
    runtime: Runtime,
    agent_id: str,
    query: str | None = None,
    *,
    tag: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    as_of: datetime | None = None,
    include_superseded: bool = False,
    limit: int = 100,
    page: int = 0,
    after: str | None = None,
) -> Json:
    """Passages, newest first, or with a `query` what a search finds, best first, each with `why` and `score`.

    {"passages", "after", "more"}: `after` goes on behind a list (None at its end), `more` tells of a search's next
    `page`. Only those with the `tag` and of the time, both ends included. `UsageError` for `as_of` without a query.
    """
    if not (query and query.strip()):
        if as_of is not None:
            raise UsageError("what was valid at a time can be searched, not listed; say what to look for")
        last = await _passage(runtime.store, agent_id, after) if after else None

        def listed(tx: Any) -> Json:
            part = {"tag": tag, "start": start, "end": end, "include_superseded": include_superseded}
            found: list[Passage] = tx.passage_page(agent_id, False, last, None, limit + 1, **part)
            following = found[limit - 1].ref if len(found) > limit else None
            return {"passages": passage_values(tx, agent_id, found[:limit]), "after": following, "more": False}

        return await runtime.store.read(listed)
    hits = await _best(runtime, agent_id, SearchQuery(
        query, tags=(tag,) if tag else (), start=start, end=end, as_of=as_of, include_superseded=include_superseded,
        limit=limit, page=page, now=runtime.clock.now(),
    ))  # fmt: skip

    def whole(tx: Any) -> list[Json]:
        return passage_values(tx, agent_id, tx.passages(agent_id, _numbers(hits)))

    found = _ranked(hits, await runtime.store.read(whole))
    return {"passages": found, "after": None, "more": len(hits) == limit}


async def message_page(
    runtime: Runtime,
    agent_id: str,
    query: str | None = None,
    *,
    role: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    limit: int = 100,
    page: int = 0,
    after: str | None = None,
) -> Json:
    """Past messages as `passage_page` has passages, of one `role` or all: {"messages", "after", "more"}."""
    if not (query and query.strip()):
        last = await _message(runtime.store, agent_id, after) if after else None

        def listed(tx: Any) -> list[Message]:
            found: list[Message] = tx.message_page(agent_id, last, limit + 1, role=role, start=start, end=end)
            return found

        found = await runtime.store.read(listed)
        following = found[limit - 1].ref if len(found) > limit else None
        return {"messages": [message_value(m) for m in found[:limit]], "after": following, "more": False}
    hits = await _best(runtime, agent_id, SearchQuery(
        query, "recall", roles=(role,) if role else (), start=start, end=end, limit=limit, page=page,
        now=runtime.clock.now(),
    ))  # fmt: skip
    whole: list[Message] = await runtime.store.read(lambda tx: tx.messages(agent_id, _numbers(hits)))
    shown = _ranked(hits, [message_value(m) for m in whole])
    return {"messages": shown, "after": None, "more": len(hits) == limit}


async def shown_passage(store: Store, agent_id: str, ref: str) -> Json:
    """The passage `p12`, valid or not; `NotFound` when the agent has none."""
    passage = await _passage(store, agent_id, ref)
    found: list[Json] = await store.read(lambda tx: passage_values(tx, agent_id, [passage]))
    return found[0]


async def shown_message(store: Store, agent_id: str, ref: str) -> Json:
    """The message `m12` and its neighbours, {"message", "around"}; `NotFound` when the agent has none."""
    message = await _message(store, agent_id, ref)
    around: list[Message] = await store.read(lambda tx: tx.neighbours(message, _AROUND))
    return {"message": message_value(message), "around": [message_value(m) for m in around]}


async def _passage(store: Store, agent_id: str, ref: str) -> Passage:
    number = passage_id(ref)
    found: list[Passage] = await store.read(lambda tx: tx.passages(agent_id, [number]))
    if not found:
        raise NotFound(f"this agent has no passage {ref}")
    return found[0]


async def _message(store: Store, agent_id: str, ref: str) -> Message:
    if not re.fullmatch(r"m\d{1,15}", ref, re.ASCII):
        raise NotFound(f"{ref!r} is no message; ids look like m12")
    found: list[Message] = await store.read(lambda tx: tx.messages(agent_id, [int(ref[1:])]))
    if not found:
        raise NotFound(f"this agent has no message {ref}")
    return found[0]


async def _best(runtime: Runtime, agent_id: str, query: SearchQuery) -> list[Hit]:
    hits: list[Hit] = await runtime.search(agent_id, query)
    return sorted(hits, key=lambda hit: -hit.score)


def _numbers(hits: Sequence[Hit]) -> list[int]:
    return [int(hit.ref[1:]) for hit in hits]


def _ranked(hits: Sequence[Hit], values: Sequence[Json]) -> list[Json]:
    """The values in the order of the hits, each with why it was found; what is gone since is left out."""
    by_ref = {value["id"]: value for value in values}
    return [by_ref[hit.ref] | {"why": hit.why, "score": round(hit.score, 4)} for hit in hits if hit.ref in by_ref]
