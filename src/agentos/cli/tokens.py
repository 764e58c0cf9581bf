"""`agentos token`: tokens for programs that use the memory of some agents."""

import re
from datetime import datetime, timedelta
from typing import Any

from agentos import tokens, values
from agentos.cli import views
from agentos.cli.opening import blocking, open_runtime
from agentos.cli.output import line, show, show_json
from agentos.errors import UsageError
from agentos.messages import read_time
from agentos.runtime import Runtime

_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1)}


@blocking
async def create(agents: list[str], name: str, read_only: bool, expires: str | None, as_json: bool) -> None:
    """Make a token; it is shown this once."""
    async with open_runtime() as runtime:
        end = None if expires is None else _end(expires, runtime.clock.now())
        secret, token = await tokens.create_token(
            runtime.store, runtime.clock, agents, read_only=read_only, name=name, expires_at=end
        )
        [value] = await _values(runtime, [token])
    if as_json:
        show_json({**value, "token": secret})
        return
    show(f"token {token.id}, shown this once: {secret}")
    show(views.tokens([value]))


@blocking
async def list_tokens(as_json: bool) -> None:
    """All of them, oldest first."""
    async with open_runtime() as runtime:
        found = await _values(runtime, await runtime.store.read(tokens.tokens))
    show_json(found) if as_json else show(views.tokens(found))


@blocking
async def revoke(token_id: str) -> None:
    """From now on it opens nothing."""
    async with open_runtime() as runtime:
        token = await tokens.revoke_token(runtime.store, token_id)
    show(f"revoked token {token.id}{f' ({line(token.name)})' if token.name else ''}")


async def _values(runtime: Runtime, found: list[tokens.Token]) -> list[dict[str, Any]]:
    names = {agent.id: agent.name for agent in await runtime.store.read(lambda tx: tx.agents())}
    now = runtime.clock.now()
    return [
        {
            "id": token.id, "name": token.name, "kind": token.grant().kind, "read_only": token.read_only,
            "agents": sorted(names[agent_id] for agent_id in token.agents if agent_id in names),
            "created_at": values.local(datetime.fromisoformat(token.created_at)),
            "expires_at": token.expires_at and values.local(datetime.fromisoformat(token.expires_at)),
            "expired": token.expires_at is not None and datetime.fromisoformat(token.expires_at) <= now,
        }
        for token in found
    ]  # fmt: skip


def _end(text: str, now: datetime) -> datetime:
    """A duration such as 90d or 12h, or an ISO date or time."""
    duration = re.fullmatch(r"(\d{1,6})([hd])", text.strip())
    try:
        return now + int(duration[1]) * _UNITS[duration[2]] if duration else read_time(text, now, end=True)
    except (ValueError, OverflowError):
        raise UsageError(f"--expires is {text!r}; write it like 90d, 12h or 2027-01-31") from None
