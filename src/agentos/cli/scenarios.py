"""`agentos test`: plays scenarios and says which went as expected."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from agentos.cli.output import complain, make_console, safe, show, show_json
from agentos.errors import ConfigError, UsageError
from agentos.personas import load_persona, persona_folders
from agentos.protocols import LLM
from agentos.runtime import Runtime
from agentos.scenarios.judge import judge as judged
from agentos.scenarios.load import find_scenarios, load_bounds, load_scenario, persona_folder
from agentos.scenarios.measures import MEMORIES, mean
from agentos.scenarios.model import MEASURES, NO_LIVE_MODELS, SUFFIX
from agentos.scenarios.outcome import AS_WRITTEN, Outcome, ScenarioSet, sets
from agentos.scenarios.report import render
from agentos.scenarios.run import play
from agentos.scenarios.session import Session
from agentos.scenarios.trajectory import load_trajectory
from agentos.settings import load_settings


@dataclass(frozen=True)
class Told:
    """What is told of a run, and by whom its sentences are judged."""

    as_json: bool = False
    measures: bool = False
    report: Path | None = None
    """Where the HTML page goes."""
    judge: str | None = None
    """The model that judges."""

    def check(self) -> None:
        """Before anything is played: whether there is a folder for the page; `UsageError` where there is none."""
        if self.report and not self.report.parent.is_dir():
            remedy = f"there is no folder {str(self.report.parent)!r}; make it first"
            raise UsageError(f"{self.report} cannot be written: {remedy}")


def play_all(
    paths: Sequence[Path], models: Sequence[str], embeddings: Sequence[str], repeat: int, record: bool, told: Told
) -> int:
    """Play the scenarios of files and folders, each `repeat` times with each model; returns the exit code.

    Each run's trajectory is saved as it ends: after Ctrl-C what was played until then is shown, and however it was
    interrupted, the same call goes on there.
    """
    if record and (len(models) != 1 or models[0] in NO_LIVE_MODELS or repeat > 1):
        raise UsageError("a live model is recorded, once: name it with --model, and leave --repeat out")
    scenarios = [(path, load_scenario(path)) for path in find_scenarios(paths)]  # a mistake shows before anything runs
    for folder in {path.parent for path, _ in scenarios}:
        load_bounds(folder)
    told.check()
    judge = _judge(told.judge)
    session = Session([str(path.absolute()) for path, _ in scenarios], models, embeddings, repeat, record, told.judge)
    outcomes: list[Outcome] = []
    code = 0
    total = len(scenarios) * max(1, len(models)) * max(1, len(embeddings)) * repeat
    with _progress(total, hidden=told.as_json) as advance:
        try:
            for path, scenario in scenarios:
                for model, embedding in product(models or (None,), embeddings or ("static",)):
                    outcome = Outcome(path, scenario, model or AS_WRITTEN, embedding)
                    for number in range(1, repeat + 1):
                        try:
                            _play(outcome, model, number, session, record, judge)
                        except ConfigError as error:
                            outcome.fault, code = str(error), error.exit_code
                        outcomes += [outcome] if number == 1 else []
                        advance()
            session.end()
        except KeyboardInterrupt:
            complain("interrupted; what was played until then is shown, and the same command goes on there")
            code = 130
    if session.taken:
        complain(f"{session.taken} run{'s' * (session.taken > 1)} taken from the interrupted test")
    return max(code, _show(outcomes, told))


def _play(outcome: Outcome, model: str | None, number: int, session: Session, record: bool, judge: LLM | None) -> None:
    """One more run, which is saved before it is judged; one that an interrupted session saved is not played again."""
    path, scenario, settings = outcome.path, outcome.scenario, load_settings()
    personas = persona_folder(path) or settings.personas or settings.home / "personas"
    persona = load_persona(scenario.persona, persona_folders(personas))
    options: dict[str, Any] = {"model": model, "embedding": outcome.embedding, "record": record}
    which = (model or scenario.model, outcome.embedding, number)
    file, key = session.file(path, *which), session.key(path, scenario, persona, *which)
    trajectory = session.saved(file, key, scenario)
    if not trajectory:
        trajectory = asyncio.run(play(scenario, path=str(path.absolute()), personas=personas, **options))
        trajectory.key = key
        trajectory.save(file)
    try:
        if judge and not trajectory.judged:
            asyncio.run(judged(scenario, trajectory, judge))
            trajectory.save(file)
    finally:
        outcome.add(trajectory, file)


def regrade(files: Sequence[Path], paths: Sequence[Path], told: Told) -> int:
    """Check saved trajectories on the expectations as they are now; nothing is played. Returns the exit code.

    Each belongs to the scenario whose file it names, or to the one given.
    """
    told.check()
    given = find_scenarios(paths) if paths else []
    if len(given) > 1:
        raise UsageError(f"{len(given)} scenario files to check on; name one, or none to take each trajectory's own")
    outcomes, judge = [], _judge(told.judge)
    for file in files:
        trajectory = load_trajectory(file)
        path = given[0] if given else Path(trajectory.path)
        if not path.is_file():
            raise UsageError(f"{file} was made from {path}, which is not there; name the {SUFFIX} file")
        scenario = load_scenario(path)
        if judge:
            asyncio.run(judged(scenario, trajectory, judge))
        own = trajectory.model == scenario.model
        outcome = Outcome(path, scenario, AS_WRITTEN if own else trajectory.model, trajectory.embedding)
        outcome.add(trajectory, file)
        outcomes.append(outcome)
    return _show(outcomes, told)


def _judge(model: str | None) -> LLM | None:
    return Runtime(load_settings(model=model)).llm(model) if model else None


@contextmanager
def _progress(total: int, *, hidden: bool) -> Iterator[Any]:
    console = make_console(stderr=True)
    columns = (TextColumn("playing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    off = hidden or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=off) as progress:
        task = progress.add_task("", total=total)
        yield lambda: progress.advance(task)


def _show(outcomes: Sequence[Outcome], told: Told) -> int:
    """Print and write what was asked for; returns the exit code."""
    groups = sets(outcomes)
    if told.report:
        try:
            told.report.write_text(render(outcomes, groups), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{told.report} cannot be written: {error.strerror}; name another file") from None
    unmet = [f"{group.folder}: {bound}, found {found}" for group in groups for bound, found in group.unmet]
    if told.as_json:
        show_json({
            "scenarios": [outcome.as_json() for outcome in outcomes], "sets": [group.as_json() for group in groups]
        })  # fmt: skip
    else:
        show(Group(*(_report(outcome) for outcome in outcomes if outcome.failures), _table(outcomes)))
        if told.measures:
            show(Group("", _measures(groups)))
        open_ones = [f"{outcome.scenario.name}: {one}" for outcome in outcomes for one in outcome.unjudged]
        for head, style, lines in (("not judged", "warn", open_ones), ("out of bounds", "bad", unmet)):
            if lines:
                show(Group("", Text(f"{head}:", style), *(safe(f"  {text}") for text in lines)))
        show(_line(outcomes))
    for fault in dict.fromkeys(outcome.fault for outcome in outcomes if outcome.fault):
        complain(fault)
    return int(bool(unmet) or any(outcome.failures for outcome in outcomes))


def _table(outcomes: Sequence[Outcome]) -> Table:
    table = Table("scenario", "persona", "model", "result", "seconds", box=None, pad_edge=False, header_style="quiet")
    for outcome in outcomes:
        style = "bad" if outcome.failures or not outcome.runs else "warn" if outcome.unjudged else "good"
        seconds = f"{outcome.seconds:.1f}"
        table.add_row(
            safe(outcome.scenario.name), safe(outcome.scenario.persona), safe(_player(outcome)),
            Text(_result(outcome), style), seconds,
        )  # fmt: skip
    return table


def _player(outcome: Outcome) -> str:
    """The model, and the embedder where it is not the usual one."""
    return outcome.played_by if outcome.embedding == "static" else f"{outcome.played_by}, {outcome.embedding}"


def _result(outcome: Outcome) -> str:
    """In a word; of several runs the pass rate with its 95 % interval."""
    left = f", {len(outcome.unjudged)} not judged" if outcome.unjudged else ""
    if not outcome.runs:
        return "failed to play"
    if len(outcome.runs) == 1:
        return ("passed" if outcome.passed else "failed") + left
    low, high = outcome.interval
    return f"{outcome.passed}/{len(outcome.runs)} ({low:.0%} to {high:.0%}){left}"


def _measures(groups: Sequence[ScenarioSet]) -> Table:
    """A line for each scenario set and type of memory; `-` where there was nothing to measure."""
    columns = ("set", "model", "memory", *(measure.replace("_", " ") for measure in MEASURES))
    table = Table(*columns, box=None, pad_edge=False, header_style="quiet")
    for group in groups:
        for memory in MEMORIES:
            means = [mean(group.observations, measure, memory) for measure in MEASURES]
            named = (safe(group.folder), safe(_player(group.outcomes[0]) if group.model != AS_WRITTEN else AS_WRITTEN))
            shown = ("-" if value is None else f"{value:.2f}" for value in means)
            table.add_row(*(named if memory == "all" else ("", "")), memory, *shown)
    return table


def _report(outcome: Outcome) -> RenderableType:
    """What did not hold, and where the whole run can be read."""
    head = Text(f"{outcome.scenario.name} ({outcome.path}, model {_player(outcome)})", "bad")
    told = [safe(str(failure)) for failure in outcome.failures]
    return Group(head, *told, Text(f"trajectory: {', '.join(str(run.file) for run in outcome.runs)}\n", "quiet"))


def _line(outcomes: Sequence[Outcome]) -> Text:
    failed = sum(bool(outcome.failures or not outcome.runs) for outcome in outcomes)
    seconds = sum(outcome.seconds for outcome in outcomes)
    return Text(f"{len(outcomes) - failed} passed, {failed} failed in {seconds:.1f} s", "bad" if failed else "good")
