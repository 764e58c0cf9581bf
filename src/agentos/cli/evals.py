"""`agentos eval`: memory evaluation on a data file of the user's."""

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from agentos.cli.opening import blocking
from agentos.cli.output import complain, line, make_console, show, show_json
from agentos.errors import UsageError
from agentos.evals.compare import compare, read_result, require_same_data
from agentos.evals.evaluate import Evaluation, find_suite
from agentos.evals.report import measures, render
from agentos.settings import load_settings

Json = dict[str, Any]


@blocking
async def evaluate(
    name: str, data: str, model: str | None, limit: int | None, as_json: bool, report: str | None, against: str | None
) -> None:
    """Run a suite, or the rest of it, and show what was measured."""
    suite = find_suite(name)
    if model is not None and not model.strip():
        raise UsageError("--model is empty; give a name, or leave the option out")
    old = None if against is None else read_result(Path(against))
    if report is not None and not Path(report).parent.is_dir():
        raise UsageError(f"{report} cannot be written: there is no folder {str(Path(report).parent)!r}; make it first")
    if model is not None and not suite.takes_model:
        complain(f"{name} asks no model; --model has no part in it")
    evaluation = Evaluation(suite, Path(data), load_settings(), model=model, limit=limit)
    if old is not None:
        require_same_data(evaluation.subject, old)
    await _run(evaluation)
    result = evaluation.result()
    if old is not None:
        result["against"] = list(compare(result, old))
    if report is not None:
        _write(Path(report), render(result))
    show_json(result) if as_json else show(_view(result))


async def _run(evaluation: Evaluation) -> None:
    """Run what has no outcome yet, with a bar where a person looks on."""
    console = make_console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        total = len(evaluation.cases)
        task = progress.add_task(evaluation.suite.name, total=total, completed=len(evaluation.outcomes))
        try:
            async with aclosing(evaluation.run()) as cases:
                async for _ in cases:
                    progress.update(task, completed=len(evaluation.outcomes))
        except asyncio.CancelledError:
            progress.stop()
            complain(f"interrupted: {len(evaluation.outcomes)} of {total} are kept; the same command goes on there")
            raise


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8", "backslashreplace")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}; name another file") from None


def _view(result: Json) -> RenderableType:
    """The tables of a result."""
    limit = "" if result["limit"] is None else f", the first {result['limit']}"
    model = "" if result["model"] is None else f", model {result['model']}"
    shown: list[RenderableType] = [Text(line(f"{result['suite']} on {result['data']}{limit}{model}"), style="name")]
    names = measures(result)
    table = _table("questions", "n", *names)
    for row in result["rows"]:
        scores = (f"{row['scores'][name]:.3f}" if name in row["scores"] else "-" for name in names)
        table.add_row(line(row["group"]), str(row["n"]), *scores)
    shown.append(table)
    if result["query_ms"]:
        taken = "  ".join(f"{name} {value:.1f} ms" for name, value in result["query_ms"].items())
        shown.append(Text(f"query: {taken}", style="quiet"))
    if "against" in result:
        table = _table("against the earlier result", "measure", "n", "difference", "95 % interval")
        for row in result["against"]:
            settled = row["low"] > 0 or row["high"] < 0
            style = "" if not settled else "good" if row["difference"] > 0 else "bad"
            about = (line(row["group"]), line(row["measure"]), str(row["n"]))
            interval = f"{row['low']:+.3f} to {row['high']:+.3f}"
            table.add_row(*about, f"{row['difference']:+.3f}", interval, style=style)
        shown += [Text(""), table]
    return Group(*shown)


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="quiet")
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table
