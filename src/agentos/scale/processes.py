"""What processes that run turns have in common: how they share them, and how they end."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agentos.dispatch import Dispatcher
from agentos.errors import UsageError
from agentos.runtime import Runtime
from agentos.scale.engine import DbosEngine
from agentos.scale.relay import Relay

MOST_TURNS = 256
"""Turns that run in a process at once."""
GRACE_SECONDS = 10.0
"""How long running turns may take to end once a process is told to stop."""


def make_dispatcher(runtime: Runtime, turns: int) -> Dispatcher:
    """The dispatcher of an open home: alone, or with an engine and a relay where processes share the database.

    `turns` run in this process at once; 0 leaves all to others, which `UsageError` refuses where there are none.
    """
    url = runtime.settings.database_url
    if url is None or not runtime.store.dialect.shared:
        if not turns:
            raise UsageError(
                "without turns of its own a process needs workers beside it: set AGENTOS_DATABASE_URL to a PostgreSQL "
                "database, or leave out --turns 0"
            )
        return Dispatcher(runtime, most_turns=turns)
    engine, relay = DbosEngine(url, runtime.owner), Relay(url, runtime.owner)
    return Dispatcher(runtime, most_turns=turns, engine=engine, relay=relay)


async def work(runtime: Runtime, turns: int, ready: Callable[[], object]) -> None:
    """Run turns of the database that processes share, until SIGTERM or SIGINT."""
    if not runtime.store.dialect.shared:
        raise UsageError("a worker needs a database to share: set AGENTOS_DATABASE_URL to a PostgreSQL database")
    dispatcher = make_dispatcher(runtime, turns)
    with told_to_stop() as stop:
        await dispatcher.start()
        ready()
        try:
            await stop.wait()
        finally:
            await dispatcher.stop(GRACE_SECONDS)


@contextmanager
def told_to_stop() -> Iterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    signs = (signal.SIGTERM, signal.SIGINT)
    for sign in signs:
        loop.add_signal_handler(sign, stop.set)
    try:
        yield stop
    finally:
        for sign in signs:
            loop.remove_signal_handler(sign)
