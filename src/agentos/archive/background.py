"""The vector index catches up beside whatever else the process does."""

import asyncio
from contextlib import suppress

from agentos.archive.sync import IndexSync
from agentos.errors import AgentOSError

LOOK_SECONDS = 3.0
"""Between looks at the outbox. Looking, rather than being told, finds what other processes left there too."""
SETTLE_SECONDS = 15.0
"""A process that ends sooner embeds what waits, and leaves the index to one that stays."""
LONGEST_PAUSE_SECONDS = 60.0
"""Between tries while the embedder or the index fails."""
LAST_SECONDS = 5.0
"""What embedding may take when the process ends."""


class BackgroundDrain:
    """Drains the outbox of one runtime again and again, in one task, until it is stopped. Its errors go nowhere."""

    def __init__(
        self, sync: IndexSync, *, look_seconds: float = LOOK_SECONDS, settle_seconds: float = SETTLE_SECONDS,
        longest_pause_seconds: float = LONGEST_PAUSE_SECONDS,
    ) -> None:  # fmt: skip
        self._sync = sync
        self._look_seconds = self._pause_seconds = look_seconds
        self._settle_seconds = settle_seconds
        self._longest_pause_seconds = longest_pause_seconds
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, on the running event loop."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End the task; what it was doing stays in the outbox."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=LAST_SECONDS)

    async def embed_rest(self, timeout_seconds: float = LAST_SECONDS) -> None:
        """Embed what waits within that time, unless the last try failed. For a process about to end."""
        if self._pause_seconds == self._look_seconds:
            with suppress(AgentOSError, TimeoutError):
                await asyncio.wait_for(self._sync.embed_waiting(), timeout_seconds)

    async def _run(self) -> None:
        settled = asyncio.get_running_loop().time() + self._settle_seconds
        while True:
            await asyncio.sleep(self._pause_seconds)
            stays = asyncio.get_running_loop().time() >= settled
            try:
                report = await (self._sync.drain() if stays else self._sync.embed_waiting())
                failed = report.problem is not None
            except Exception:  # an embedder or index of somebody else's may raise anything; it is tried again
                failed = True
            longer = min(2 * self._pause_seconds, self._longest_pause_seconds)
            self._pause_seconds = longer if failed else self._look_seconds
