"""DBOS as the dispatcher: it decides which process wakes which agent, and holds no state of ours.

A workflow is a wake-up ("run what is due for this agent"), never a message: one that is lost is made again
by whoever finds something due, and one too many finds nothing to do. Wake-ups of one agent run one after
another (a queue partition each); the agent's lease sees to it even where the engine is wrong.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from agentos.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from dbos import DBOS, DBOSClient

_APPLICATION, _VERSION = "agentos", "1"
"""Of what a wake-up means, not of this package: one made before an upgrade is still to be taken behind it."""
_QUEUE, _WORKFLOW = "agents", "wake"
_POLL_SECONDS = 0.1
_KEEP_SECONDS = 600
"""How long a wake-up that is over is kept."""
_TIDY_SECONDS, _TIDIED = 60.0, 1000


class DbosEngine:
    """Hands out wake-ups over the database at `url`; `owner` names this process."""

    def __init__(self, url: str, owner: str) -> None:
        self._url, self._owner = _driver_url(url), owner
        self._client: DBOSClient | None = None
        self._dbos: DBOS | None = None
        self._tidying: asyncio.Task[None] | None = None

    async def start(self, work: Callable[[str], Coroutine[Any, Any, None]] | None, most: int) -> None:
        """Take wake-ups and do `work(agent id)` for each, `most` at once; with None only make them."""
        loop = asyncio.get_running_loop()
        try:
            # in a thread, so that the engine takes neither our event loop nor its executor for its own
            await asyncio.to_thread(self._connect)
            if work is not None:
                await asyncio.to_thread(self._listen, work, most, loop)
        except ImportError:
            raise ConfigError(
                "a shared database needs the engine: install agentos-kernel[scale], or unset AGENTOS_DATABASE_URL"
            ) from None
        except Exception as error:
            raise StoreError(f"the engine cannot reach its database: {error}") from error
        self._tidying = asyncio.create_task(self._tidy_for_ever())

    def _connect(self) -> None:
        import dbos

        serializer = dbos.DBOSPortableJSONSerializer()
        self._client = dbos.DBOSClient(
            system_database_url=self._url, serializer=serializer, application_name=_APPLICATION, lazy=True
        )

    def _listen(
        self, work: Callable[[str], Coroutine[Any, Any, None]], most: int, loop: asyncio.AbstractEventLoop
    ) -> None:
        import dbos

        self._dbos = dbos.DBOS(
            config={
                "name": _APPLICATION, "system_database_url": self._url, "executor_id": self._owner,
                "application_version": _VERSION,
                "log_level": "ERROR",  # its warnings are of faults that it repeats; of the database we tell ourselves
                "serializer": dbos.DBOSPortableJSONSerializer(),
            }
        )  # fmt: skip

        @dbos.DBOS.workflow(name=_WORKFLOW)
        async def wake(agent_id: str) -> None:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(agent_id), loop))

        dbos.DBOS.launch()
        dbos.DBOS.register_queue(
            _QUEUE, partition_concurrency=1, worker_concurrency=most, polling_interval_sec=_POLL_SECONDS
        )

    async def wake(self, agent_id: str, reason: str) -> None:
        """Have some process run what is due for the agent; the same `reason` again is the same wake-up."""
        assert self._client is not None, "the engine has been started"
        options: Any = {
            "queue_name": _QUEUE, "workflow_name": _WORKFLOW, "workflow_id": f"wake-{reason}",
            "queue_partition_key": agent_id, "app_version": _VERSION,
        }  # fmt: skip
        with _told():
            await self._client.enqueue_async(options, agent_id)

    async def forgotten(self, agent_ids: set[str], after_seconds: float) -> set[str]:
        """Those agents, which nobody runs, that have no wake-up left; one that a dead process began is dropped."""
        assert self._client is not None, "the engine has been started"
        with _told():
            listed = await self._client.list_workflows_async(
                queue_name=_QUEUE, status=["ENQUEUED", "PENDING"], load_input=False, load_output=False
            )
        began_before = 1000 * (time.time() - after_seconds)
        dead = {
            w.workflow_id: w.queue_partition_key
            for w in listed
            if w.queue_partition_key in agent_ids and w.status == "PENDING" and (w.dequeued_at or 0) < began_before
        }
        if dead:
            await self._client.cancel_workflows_async(list(dead))
        return agent_ids - {w.queue_partition_key for w in listed if w.workflow_id not in dead}

    async def tidy(self, keep_seconds: float = _KEEP_SECONDS) -> int:
        """Remove wake-ups that have been over for so long, some of them; how many."""
        assert self._client is not None, "the engine has been started"
        before = datetime.now(UTC) - timedelta(seconds=keep_seconds)
        over = await self._client.list_workflows_async(
            queue_name=_QUEUE, status=["SUCCESS", "CANCELLED", "ERROR"], completed_before=before.isoformat(),
            limit=_TIDIED, load_input=False, load_output=False,
        )  # fmt: skip
        if over:
            await self._client.delete_workflows_async([w.workflow_id for w in over])
        return len(over)

    async def _tidy_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_TIDY_SECONDS)
            with suppress(Exception):  # the next time may do better, and what stays costs only room
                while await self.tidy() == _TIDIED:
                    pass

    async def stop(self) -> None:
        """Take no more wake-ups, and let go."""
        if self._tidying is not None:
            self._tidying.cancel()
            await asyncio.wait([self._tidying])
        if self._dbos is not None:
            await asyncio.to_thread(self._dbos.destroy)
        if self._client is not None:
            await asyncio.to_thread(self._client.destroy)


@contextmanager
def _told() -> Iterator[None]:
    """Whatever the engine fails with, at first because no worker has made its tables yet, as a `StoreError`."""
    try:
        yield
    except Exception as error:
        raise StoreError(f"the engine cannot be asked: {str(error).splitlines()[0]}; it is tried again") from error


def _driver_url(url: str) -> str:
    """The URL with psycopg as its driver, as the engine's own SQLAlchemy wants it."""
    _, rest = url.split("://", 1)
    return f"postgresql+psycopg://{rest}"
