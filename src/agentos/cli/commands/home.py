"""Commands that look after the home."""

from typing import Annotated

import typer

from agentos.cli.commands.options import Json

app = typer.Typer(rich_markup_mode=None)


@app.command()
def doctor(json: Json = False) -> None:
    """What is configured, what is reachable, is the index sound; each finding with its remedy."""
    from agentos.cli import doctor as commands

    raise typer.Exit(commands.doctor(json))


@app.command()
def reindex(
    fresh: Annotated[bool, typer.Option("--fresh", help="Build everything anew, also what is in order.")] = False,
) -> None:
    """Rebuild the vector index from the database; interrupted and called again, it goes on."""
    from agentos.cli import doctor as commands

    raise typer.Exit(commands.reindex(fresh))
