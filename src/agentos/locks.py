"""A lock file: one process at a time has it, and whoever dies lets go of it."""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agentos.errors import AgentBusy, StoreError

_POLL_SECONDS = 0.05


@asynccontextmanager
async def hold_file(path: Path, wait_seconds: float) -> AsyncIterator[None]:
    """Hold the lock file at `path`, made with its folder where there is none.

    `AgentBusy` when another had it for `wait_seconds`, `StoreError` where it cannot be opened.
    """
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be opened: {error.strerror}; what was accepted is saved and goes on once it can be"
        ) from None
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
