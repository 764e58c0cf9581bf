"""The ledger: what model calls used."""

from datetime import UTC, datetime, time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from agentos.errors import UsageError
from agentos.messages import Usage
from agentos.server.replies import answer
from agentos.server.service import Serving

router = APIRouter(prefix="/usage", tags=["usage"])
When = Annotated[str | None, Query(max_length=40)]


@router.get("")
async def usage(
    serving: Serving,
    agent_id: Annotated[str | None, Query(max_length=200)] = None,
    start: When = None,
    end: When = None,
) -> Response:
    """What agents' model calls used by agent, model and day (UTC), failed ones too, and in all.

    `start` and `end` are ISO dates or times, included both; without offset they are UTC.
    """
    first, last = _moment("start", start), _moment("end", end)
    if agent_id is not None:
        await serving.agent_record(agent_id)
    rows: list[dict[str, Any]] = await serving.store.read(lambda tx: tx.usage_by_day(agent_id, first, last))
    names = Usage.__dataclass_fields__
    used = sum((Usage(**{name: row[name] for name in names}) for row in rows), Usage())
    counts = {name: sum(row[name] for row in rows) for name in ("calls", "failed")}
    return answer({"total": counts | vars(used), "usage": rows})


def _moment(name: str, text: str | None) -> datetime | None:
    """A date or time; a date as an end includes its day."""
    if not text:
        return None
    try:
        value = datetime.fromisoformat(text.strip())
        if name == "end" and len(text.strip()) <= 10:
            value = datetime.combine(value, time.max)
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(f"{name} is {text!r}, which is no ISO date; write it like 2026-05-08") from None
