"""Commands that show what an agent did and what its model sees."""

from enum import StrEnum
from typing import Annotated

import typer

from agentos.cli.commands.options import AgentName, Json

app = typer.Typer(rich_markup_mode=None)


class Status(StrEnum):
    """How far a turn is."""

    CREATED = "created"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@app.command()
def runs(
    agent: AgentName,
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="One turn, step by step.", show_default=False)
    ] = None,
    status: Annotated[Status | None, typer.Option(help="Only turns that are so far.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, metavar="N", help="Newest turns.")] = 25,
    before: Annotated[
        str | None, typer.Option(metavar="RUN", help="Only turns older than it.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """The turns of an agent, newest first; with RUN, what was said and done in it and what it cost."""
    from agentos.cli import runs as commands

    if run is not None:
        commands.show_run(agent, run, json)
    else:
        commands.list_runs(agent, json, status=status and status.value, limit=limit, before=before)


@app.command()
def context(
    agent: AgentName,
    request: Annotated[bool, typer.Option("--request", help="The request sent last, part by part.")] = False,
    filling: Annotated[bool, typer.Option("--filling", help="The prompt's size at each of the last steps.")] = False,
    page_outs: Annotated[bool, typer.Option("--page-outs", help="What was paged out, newest first.")] = False,
    json: Json = False,
) -> None:
    """What fills the model's window, and when it is paged out."""
    from agentos.cli import runs as commands

    if request + filling + page_outs > 1:
        raise typer.BadParameter("they show different things; give one", param_hint="--request --filling --page-outs")
    commands.context(
        agent, "request" if request else "filling" if filling else "page_outs" if page_outs else "window", json
    )
