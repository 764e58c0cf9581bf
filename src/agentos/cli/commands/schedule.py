"""`agentos schedule`."""

from typing import Annotated

import typer

from agentos.cli.commands.options import AgentName, Json

app = typer.Typer(
    help="Messages that `agentos serve` sends to agents by the clock.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("list")
def schedule_list(
    agent: Annotated[str | None, typer.Argument(metavar="AGENT", help="Only this agent's.", show_default=False)] = None,
    json: Json = False,
) -> None:
    """What is to be sent, soonest first."""
    from agentos.cli import schedule

    schedule.list_schedules(agent, json)


@app.command("add")
def schedule_add(
    agent: AgentName,
    message: Annotated[str, typer.Argument(metavar="TEXT", help="What the agent is told.", show_default=False)],
    cron: Annotated[
        str | None,
        typer.Option(metavar="CRON", help="Five fields in local time, such as '0 9 * * 1-5'.", show_default=False),
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Once, at this ISO 8601 time.", show_default=False)
    ] = None,
) -> None:
    """Send a message again and again (--cron), or once (--at)."""
    from agentos.cli import schedule

    schedule.add(agent, message, cron, at)


@app.command("remove")
def schedule_remove(
    schedule_id: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.", show_default=False)],
) -> None:
    """Send it no more."""
    from agentos.cli import schedule

    schedule.remove(schedule_id)
