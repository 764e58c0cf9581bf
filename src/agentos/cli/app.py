"""All commands in one application."""

from typing import Annotated

import typer

import agentos
from agentos.cli.commands import agents, home, looking, mcp, measuring, memory, schedule, serving, talk, tokens

app = typer.Typer(
    name="agentos", help="Agents that remember: they edit their own bounded memory and never lose a turn.",
    no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False,
)  # fmt: skip
for commands in (talk, looking, serving, home, measuring):
    app.add_typer(commands.app)
app.add_typer(agents.app, name="agents")
app.add_typer(memory.app, name="memory")
app.add_typer(mcp.app, name="mcp")
app.add_typer(tokens.app, name="token")
app.add_typer(schedule.app, name="schedule")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"agentos {agentos.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options before the command."""
