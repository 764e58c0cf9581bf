"""The memory tools: how an agent edits its core memory, and stores and finds the rest."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import Field

from agentos.errors import ToolError
from agentos.memory import core
from agentos.memory.search import to_hit
from agentos.messages import Block, Message, Passage, clean_text, read_time
from agentos.protocols import Effect, Hit, SearchQuery, ToolResult, Tx
from agentos.tools.tool import Tool, ToolContext

PARKED = "parked"
"""Tag of passages that hold text a full block refused."""
EXCERPT = 700
"""Characters of a hit that a search shows; `page_in` shows the rest."""
MOST_PAGED_IN = 500
"""Messages and passages that one `page_in` may ask for; the room shows fewer."""
SEARCH_TOOLS = ("archival_memory_search", "conversation_search", "page_in")

Limit = Annotated[int, Field(ge=1, le=50)]
Page = Annotated[int, Field(ge=0, le=100)]


def core_memory_append(context: ToolContext, label: str, content: str) -> Effect:
    """Add a line to a core memory block, which stays in view.

    Args:
        label: The block's label.
        content: The text to add as a new line.
    """
    text = clean_text(content)
    return _core_edit(context, label, lambda block: core.append(block, text), "block.append", parked=text)


def core_memory_replace(context: ToolContext, label: str, old_content: str, new_content: str) -> Effect:
    """Replace text in a core memory block; use it to correct or delete what is outdated.

    Args:
        label: The block's label.
        old_content: The exact text to replace; it must occur exactly once.
        new_content: The new text; empty deletes the old.
    """
    text = clean_text(new_content)
    return _core_edit(context, label, lambda b: core.replace(b, old_content, text), "block.replace", parked=text)


async def archival_memory_insert(
    context: ToolContext, content: str, tags: list[str] | None = None, replaces: str | None = None
) -> Effect:
    """Store a text in archival memory: unbounded, out of view, found by search.

    Args:
        content: A text that can be understood on its own, with names and dates.
        tags: Words to filter by later.
        replaces: Id of the passage that is outdated by it, such as p12.
    """
    text = clean_text(content).strip()
    if not text:
        raise ToolError("content is empty; give the text to store")
    passage = replace(_passage(context, text, tuple(tags or ())), replaces=_passage_id(replaces))
    embedded = await context.memory.embed(text)
    if embedded:
        passage = replace(passage, embedding=embedded[0], fingerprint=embedded[1])

    def effect(tx: Tx) -> ToolResult:
        saved, new = tx.add_passage(passage, context.cause)
        tagged = f", tags: {', '.join(saved.tags)}" if saved.tags else ""
        instead = "" if passage.replaces in (None, saved.id) else f" in place of p{passage.replaces}"
        return ToolResult(f"{'stored as' if new else 'already stored as'} {saved.ref}{instead}{tagged}")

    return effect


async def archival_memory_search(
    context: ToolContext,
    query: str,
    tags: list[str] | None = None,
    start: str | None = None,
    end: str | None = None,
    limit: Limit = 10,
    page: Page = 0,
    as_of: str | None = None,
    include_superseded: bool = False,
) -> Effect:
    """Search archival memory by meaning and by words; the best hits are shown newest first.

    Args:
        query: What to look for.
        tags: Only passages with one of these tags.
        start: Only from this ISO date or time on (included).
        end: Only up to this ISO date or time (included).
        limit: Hits on a page.
        page: 0 for the best hits, 1 for the next ones.
        as_of: What was valid at this ISO date or time instead of now.
        include_superseded: Also what was replaced.
    """
    return await _search(
        context,
        SearchQuery(
            query, "archival", tags=tuple(tags or ()), start=_date(context, "start", start),
            end=_date(context, "end", end), limit=limit, page=page, as_of=_date(context, "as_of", as_of),
            include_superseded=include_superseded,
        ),
    )  # fmt: skip


async def conversation_search(
    context: ToolContext,
    query: str,
    roles: list[str] | None = None,
    start: str | None = None,
    end: str | None = None,
    limit: Limit = 10,
    page: Page = 0,
) -> Effect:
    """Search past messages by words and meaning; the best hits are shown newest first.

    Args:
        query: What to look for.
        roles: Only messages of these roles: user, assistant, tool. Without it, what the user and you said.
        start: Only from this ISO date or time on (included).
        end: Only up to this ISO date or time (included).
        limit: Hits on a page.
        page: 0 for the best hits, 1 for the next ones.
    """
    unknown = set(roles or ()) - {"user", "assistant", "tool"}
    if unknown:
        raise ToolError(f"there is no role {unknown.pop()!r}; the roles are user, assistant, tool")
    return await _search(
        context,
        SearchQuery(
            query, "recall", roles=tuple(roles or ()), start=_date(context, "start", start),
            end=_date(context, "end", end), limit=limit, page=page, now=context.now,
        ),
    )  # fmt: skip


async def page_in(context: ToolContext, ids: list[str]) -> Effect:
    """Show messages or passages again by id, in full.

    Args:
        ids: Ids such as m12 or p3, ranges such as m12-m20, or m12@4000 to go on at character 4000.
    """
    wanted = [_parse_ref(ref) for ref in ids[:100]]
    if (count := sum(last - first + 1 for _, first, last, _ in wanted)) > MOST_PAGED_IN:
        raise ToolError(f"these are {count} ids and at most {MOST_PAGED_IN} can be shown; ask for less")
    numbers = {
        kind: sorted({n for k, first, last, _ in wanted if k == kind for n in range(first, last + 1)}) for kind in "mp"
    }
    messages = {m.id: m for m in await context.memory.messages(numbers["m"])}
    passages = {p.id: p for p in await context.memory.passages(numbers["p"])}
    lines, sources, faults = [], [], []
    room = context.room_chars
    for kind, first, last, offset in wanted:
        for number in range(first, last + 1):
            row: Message | Passage | None = messages.get(number) if kind == "m" else passages.get(number)
            if row is None:
                continue
            hit = to_hit(row, 0.0, "id")
            line = _line(hit, offset, max(200, room))
            room -= len(line)
            lines.append(line)
            sources.append(hit.ref)
            if _is_fault(context, hit):
                faults.append(hit.ref)
            if room <= 0:
                lines.append(f"the room is used up; page_in the ids after {hit.ref} in another call")
                return _shown(context, lines, sources, faults)
    if not lines:
        raise ToolError(
            f"none of {', '.join(ids[:10]) or 'no ids'} exist; ids look like m12 or p3, as searches and the summary "
            "show them"
        )
    return _shown(context, lines, sources, faults)


def set_timer(context: ToolContext, when: str, note: str) -> Effect:
    """Wake yourself later: you get a system notice with the note when the time has come.

    Args:
        when: An ISO 8601 time with offset, or a duration from now such as 90s, 30m, 2h, 1d, 1h30m.
        note: What to do then.
    """
    due = _due(context.now, when)
    if not note.strip():
        raise ToolError("note is empty; say what to do when the timer fires")

    def effect(tx: Tx) -> ToolResult:
        number = tx.add_timer(context.cause.agent_id, due, clean_text(note), context.cause)
        tx.journal(context.cause, "timer.set", f"t{number}")
        return ToolResult(f"timer t{number} is set for {due.astimezone(context.now.tzinfo):%Y-%m-%d %H:%M:%S %z}")

    return effect


def _builtin(function: Callable[..., object], *, continues: bool = False) -> Tool:
    description = (function.__doc__ or "").split("\n\n")[0].strip()
    return Tool(function.__name__, description, function, continues=continues, transactional=True)


MEMORY_TOOLS = (
    _builtin(core_memory_append),
    _builtin(core_memory_replace),
    _builtin(archival_memory_insert),
    _builtin(archival_memory_search, continues=True),
    _builtin(conversation_search, continues=True),
    _builtin(page_in, continues=True),
    _builtin(set_timer),
)
"""Every tool an agent has by default, in the order the model sees them."""


def _core_edit(context: ToolContext, label: str, edit: Callable[[Block], str], action: str, parked: str) -> Effect:
    """An effect that edits the block as the transaction finds it, so that no update is lost."""

    def effect(tx: Tx) -> ToolResult:
        block = core.find_block(tx.blocks(context.cause.agent_id), label)
        try:
            value = edit(block)
            if crowded := context.crowds(tx, block, value):
                advice = "cut what is outdated, or use archival_memory_insert for detail"
                raise core.LimitExceeded(f"{crowded}; {advice}")
        except core.LimitExceeded as error:
            return _park(tx, context, block, parked, str(error))
        if value == block.value:
            return ToolResult(f"block {label!r} reads so already; nothing changed")
        tx.write_block(block, value, context.cause, action)
        changed = core.changed_lines(block.value, value)
        return ToolResult(f"block {label!r} now has {len(value)} of {block.limit} characters:\n{changed}")

    return effect


def _park(tx: Tx, context: ToolContext, block: Block, text: str, reason: str) -> ToolResult:
    """Keep what a full block refused as a passage, in the same commit, and say so."""
    saved, _ = tx.add_passage(_passage(context, text, (PARKED,)), context.cause)
    tx.journal(context.cause, "block.refused", f"b{block.id}", saved.ref)
    advice = "It is safe there: go on without this edit." if context.refused_writes >= 2 else "Nothing is lost."
    return ToolResult(
        f"error: {reason}. The block is unchanged; the text was {PARKED} in archival memory as {saved.ref}. {advice}",
        ok=False,
        sources=(saved.ref,),
    )


def _passage(context: ToolContext, text: str, tags: tuple[str, ...]) -> Passage:
    cause = context.cause
    return Passage(
        id=0, agent_id=cause.agent_id, text=text, origin="agent", created_at=context.now,
        tags=tuple(dict.fromkeys(clean_text(t).strip() for t in tags if t.strip())), run_id=cause.run_id,
        message_id=cause.message_id, call_id=cause.call_id,
    )  # fmt: skip


async def _search(context: ToolContext, query: SearchQuery) -> Effect:
    hits = await context.memory.search(query)
    best = {
        hit.ref: rank for rank, hit in enumerate(sorted(hits, key=lambda h: -h.score), 1 + query.page * query.limit)
    }
    lines = [_line(hit, 0, EXCERPT, rank=best[hit.ref]) for hit in hits]
    faults = [hit.ref for hit in hits if _is_fault(context, hit)]
    if not lines:
        more = "no further memories match" if query.page else "no memories match"
        return _shown(context, [more], [], [])
    count = f"{len(lines)} memories" if len(lines) > 1 else "1 memory"
    return _shown(context, [f"{count}, newest first:", *lines], [hit.ref for hit in hits], faults)


def _shown(context: ToolContext, lines: list[str], sources: list[str], faults: list[str]) -> Effect:
    def effect(tx: Tx) -> ToolResult:
        for ref in faults:
            tx.journal(context.cause, "page_fault", ref)
        return ToolResult("\n".join(lines), sources=tuple(sources))

    return effect


def _line(hit: Hit, offset: int, room: int, rank: int | None = None) -> str:
    """A hit as one JSON object on one line, so that no text can pass for another hit."""
    shown = hit.text[offset : offset + room]
    local = (hit.local_time or hit.created_at.astimezone()).strftime("%Y-%m-%d %H:%M")
    values: dict[str, object] = {"id": hit.ref, "date": local}
    if rank is not None:
        values["rank"] = rank
    values |= {
        k: v
        for k, v in (("role", hit.role), ("name", hit.name), ("session", hit.session), ("line", hit.external_id))
        if v
    }
    if hit.tags:
        values["tags"] = list(hit.tags)
    if hit.superseded_by and hit.valid_to:
        values["superseded"] = f"on {hit.valid_to.astimezone():%Y-%m-%d} by {hit.superseded_by}"
    values["text"] = shown
    if offset + len(shown) < len(hit.text):
        values["more"] = f"{hit.ref}@{offset + len(shown)} of {len(hit.text)} characters"
    return json.dumps(values, ensure_ascii=False)


def _is_fault(context: ToolContext, hit: Hit) -> bool:
    first, last = context.evicted
    return hit.seq is not None and first <= hit.seq <= last


_REF = re.compile(r"([mp])(\d{1,15})(?:\s*(?:-|–|\.\.)\s*\1?(\d{1,15}))?(?:@(\d{1,9}))?")


def _parse_ref(ref: str) -> tuple[str, int, int, int]:
    """(kind, first, last, offset) of an id or range."""
    found = _REF.fullmatch(ref.strip())
    if not found:
        raise ToolError(f"{ref!r} is not an id; ids look like m12, p3, m12-m20 or m12@4000")
    first, last = int(found[2]), int(found[3] or found[2])
    if last < first:
        raise ToolError(f"the range {ref!r} is empty; write the lower number first")
    return found[1], first, last, int(found[4] or 0)


def _passage_id(ref: str | None) -> int | None:
    """The number of the one passage that is named."""
    if not ref:
        return None
    kind, first, last, _ = _parse_ref(ref)
    if kind != "p" or first != last:
        raise ToolError(f"{ref!r} is no passage; give the id of one, such as p12")
    return first


def _date(context: ToolContext, name: str, text: str | None) -> datetime | None:
    """An ISO date or time as a point in time; a bare date is the end of its day unless it is a start."""
    if not text:
        return None
    try:
        return read_time(text, context.now, end=name != "start")
    except ValueError:
        raise ToolError(
            f"{name} is {text!r}, which is no ISO date; write it like 2026-05-08 or 2026-05-08T13:30"
        ) from None


_SOONEST = timedelta(seconds=1)
"""A timer that fires at once, and sets another, would never let its agent rest."""
_DURATION = re.compile(r"(?:(\d+)\s*d)?\s*(?:(\d+)\s*h)?\s*(?:(\d+)\s*m(?:in)?)?\s*(?:(\d+)\s*s)?")


def _due(now: datetime, when: str) -> datetime:
    text = when.strip()
    duration = _DURATION.fullmatch(text) if text else None
    try:
        if duration and any(duration.groups()):
            days, hours, minutes, seconds = (int(part or 0) for part in duration.groups())
            due = now + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        else:
            due = datetime.fromisoformat(text)
        due.astimezone(UTC)  # a time at the edge of the calendar may have none
    except (ValueError, OverflowError):
        raise ToolError(
            f"when is {when!r}; give an ISO 8601 time with offset or a duration such as 30m or 2h"
        ) from None
    if due.tzinfo is None:
        raise ToolError(f"when is {when!r}, which has no offset; write it like {now.isoformat(timespec='seconds')}")
    if due < now + _SOONEST:
        fault = "in the past" if due < now else "too soon (a timer waits at least a second)"
        raise ToolError(f"{when} is {fault}; it is {now.isoformat(timespec='seconds')} now")
    return due
