"""A lease held for as long as a turn runs, and renewed meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from agentos.errors import AgentBusy, StoreError
from agentos.store.database import Database

_POLL_SECONDS = 0.05


@asynccontextmanager
async def hold_lease(
    store: Database, agent_id: str, owner: str, *, seconds: float, wait_seconds: float
) -> AsyncIterator[int]:
    """Hold the agent's lease, renewed at a third of its life, and yield its epoch.

    `AgentBusy` when another process kept it for all of `wait_seconds`.
    """
    epoch = await _take(store, agent_id, owner, seconds, wait_seconds)
    renewal = asyncio.create_task(_renew(store, agent_id, epoch, seconds))
    try:
        yield epoch
    finally:
        renewal.cancel()
        with suppress(StoreError):  # it expires
            await store.write(lambda tx: tx.release_lease(agent_id, epoch))


async def _take(store: Database, agent_id: str, owner: str, seconds: float, wait_seconds: float) -> int:
    for _ in range(max(1, int(wait_seconds / _POLL_SECONDS))):
        epoch = await store.write(lambda tx: tx.take_lease(agent_id, owner, seconds))
        if epoch is not None:
            return epoch
        await asyncio.sleep(_POLL_SECONDS)
    raise AgentBusy


async def _renew(store: Database, agent_id: str, epoch: int, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds / 3)
        with suppress(StoreError):  # the next time may come before it expires
            await store.write_beside(lambda tx: tx.renew_lease(agent_id, epoch, seconds))
