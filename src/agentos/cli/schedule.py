"""`agentos schedule`: messages that a server sends to an agent by the clock."""

from typing import Any

from agentos import values
from agentos.cli import views
from agentos.cli.opening import blocking, existing, open_runtime
from agentos.cli.output import line, show, show_json
from agentos.errors import UsageError
from agentos.messages import Input, read_time
from agentos.schedules import add_schedule
from agentos.state import Schedule


@blocking
async def list_schedules(name: str | None, as_json: bool) -> None:
    """The schedules of an agent, or of all."""
    async with open_runtime() as runtime:
        agent_id = None if name is None else (await existing(runtime, name)).id

        def work(tx: Any) -> list[values.Json]:
            names = {agent.id: agent.name for agent in tx.agents()}
            return [values.schedule_value(s, names[s.agent_id]) for s in tx.schedules(agent_id)]

        found = await runtime.store.read(work)
    show_json(found) if as_json else show(views.schedules(found))


@blocking
async def add(name: str, message: str, cron: str | None, at: str | None) -> None:
    """Send a message by a cron expression in local time, or once."""
    async with open_runtime() as runtime:
        record, now = await existing(runtime, name), runtime.clock.now()
        try:
            when = None if at is None else read_time(at, now)
        except ValueError:
            raise UsageError(f"{at!r} is no ISO 8601 time; write it like 2026-05-08T13:30") from None
        schedule = await add_schedule(runtime.store, runtime.clock, record.id, [Input(message)], cron=cron, at=when)
    due = views.when(values.local(schedule.next_at))
    show(f"{schedule.id}: {line(name)} is told at {due}{' and so on' if cron else ''}, while `agentos serve` runs")


@blocking
async def remove(schedule_id: str) -> None:
    """Send it no more."""
    async with open_runtime() as runtime:

        def work(tx: Any) -> Schedule | None:
            found = next((s for s in tx.schedules() if s.id == schedule_id), None)
            if found is not None:
                tx.delete_schedule(found.agent_id, found.id)
            return found

        if await runtime.store.write(work) is None:
            raise UsageError(f"there is no schedule {schedule_id!r}; `agentos schedule list` shows all")
    show(f"removed {line(schedule_id)}")
