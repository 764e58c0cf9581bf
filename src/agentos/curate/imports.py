"""Past conversations from elsewhere become past messages."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from agentos.actions.turn import utc_offset
from agentos.errors import UsageError
from agentos.messages import Cause, Message, at_local_time, clean_text
from agentos.protocols import Clock, Store


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
