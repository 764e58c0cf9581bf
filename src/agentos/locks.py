"""A lock file: one process at a time has it, and whoever dies lets go of it."""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agentos.errors import AgentBusy

_POLL_SECONDS = 0.05


@asynccontextmanager
async def hold_file(path: Path, wait_seconds: float) -> AsyncIterator[None]:
    """Hold the lock file at `path`, made where there is none; `AgentBusy` when another had it for `wait_seconds`."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        await _lock(descriptor, wait_seconds)
        try:
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a fork of this process may have the descriptor still
    finally:
        os.close(descriptor)


async def _lock(descriptor: int, wait_seconds: float) -> None:
    for _ in range(max(1, int(wait_seconds / _POLL_SECONDS))):
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            await asyncio.sleep(_POLL_SECONDS)
    raise AgentBusy
