"""Commands that measure memory and play scenarios."""

from pathlib import Path
from typing import Annotated

import typer

from agentos.cli.commands.options import Json, Model

app = typer.Typer(rich_markup_mode=None)


@app.command("eval")
def evaluate(
    suite: Annotated[
        str, typer.Argument(metavar="SUITE", help="locomo, longmemeval, core-memory or nested-kv.", show_default=False)
    ],
    data: Annotated[
        str, typer.Option(metavar="FILE", help="The suite's published file, gzipped or not.", show_default=False)
    ],
    model: Model = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first questions.")] = None,
    json: Json = False,
    report: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write an HTML page too.", show_default=False)
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="FILE", help="Compare with a result saved with --json.", show_default=False)
    ] = None,
) -> None:
    """Measure memory on a data file of yours; interrupted and called again, it goes on."""
    from agentos.cli import evals

    evals.evaluate(suite, data, model, limit, json, report, against)


@app.command("test")
def play(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="PATH...", help="Scenario files and folders.", show_default=False)
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Play with this model; again for several.", show_default=False),
    ] = None,
    embedding: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Play with this embedder; again for several.", show_default=False),
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, metavar="N", help="Play each so often and give the pass rate.")] = 1,
    record: Annotated[
        bool, typer.Option("--record", help="Keep what the live --model answers, for `model: recorded`.")
    ] = False,
    regrade: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Check a saved trajectory again; plays nothing.", show_default=False),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="The model that answers `judge` expectations.", show_default=False),
    ] = None,
    measures: Annotated[bool, typer.Option("--measures", help="Show the measures of memory.")] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all of it as one HTML page.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Play persona scenarios (*.scenario.yaml) and check what the agents then know."""
    from agentos.cli import scenarios

    told = scenarios.Told(json, measures, report, judge)
    if regrade and (model or embedding or repeat > 1 or record):
        raise typer.BadParameter(
            "nothing is played, so --model, --embedding, --repeat and --record say nothing", param_hint="--regrade"
        )
    if regrade:
        raise typer.Exit(scenarios.regrade(regrade, paths or [], told))
    if not paths:
        raise typer.BadParameter("name scenario files or folders, such as personas", param_hint="PATH...")
    raise typer.Exit(scenarios.play_all(paths, model or [], embedding or [], repeat, record, told))
