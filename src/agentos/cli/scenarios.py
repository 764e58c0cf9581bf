"""`agentos test`: plays scenarios and says which went as expected."""

import asyncio
import re
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from agentos.cli.output import complain, make_console, safe, show, show_json
from agentos.errors import StoreError, UsageError
from agentos.scenarios.check import Failure, check, wilson
from agentos.scenarios.load import find_scenarios, load_scenario, persona_folder
from agentos.scenarios.model import SUFFIX, Scenario
from agentos.scenarios.run import play
from agentos.scenarios.trajectory import Trajectory, load_trajectory
from agentos.settings import load_settings


@dataclass
class Outcome:
    """All runs of one scenario with one model."""

    path: Path
    scenario: Scenario
    model: str
    seconds: float = 0.0
    passed: int = 0
    total: int = 0
    failures: list[Failure] = field(default_factory=list)
    """Of the first run that failed."""
    trajectories: list[Path] = field(default_factory=list)

    def add(self, trajectory: Trajectory, file: Path) -> None:
        """Count one more run."""
        failures = check(self.scenario, trajectory)
        self.total += 1
        self.passed += not failures
        self.failures = self.failures or failures
        self.seconds += trajectory.seconds
        self.trajectories.append(file)

    def as_json(self) -> dict[str, Any]:
        """The outcome as plain JSON values."""
        low, high = wilson(self.passed, self.total)
        return {
            "name": self.scenario.name, "path": str(self.path), "model": self.model, "passed": self.passed,
            "runs": self.total, "pass_rate": self.passed / self.total, "interval": [round(low, 3), round(high, 3)],
            "seconds": round(self.seconds, 3), "trajectories": [str(file) for file in self.trajectories],
            "failures": [
                {"turn": f.turn, "action": f.action, "expected": f.expected, "found": f.found, "diff": list(f.diff)}
                for f in self.failures
            ],
        }  # fmt: skip


def play_all(paths: Sequence[Path], models: Sequence[str], repeat: int, as_json: bool) -> int:
    """Play the scenarios of files and folders, each `repeat` times with each model; returns the exit code.

    Each run's trajectory is saved as it ends, so Ctrl-C loses none; what was played until then is shown.
    """
    scenarios = [(path, load_scenario(path)) for path in find_scenarios(paths)]  # a mistake shows before anything runs
    folder = _folder()
    outcomes: list[Outcome] = []
    code = 0
    with _progress(len(scenarios) * max(1, len(models)) * repeat, hidden=as_json) as advance:
        try:
            for path, scenario in scenarios:
                for model in models or (None,):
                    outcome = Outcome(path, scenario, model or scenario.model)
                    for number in range(1, repeat + 1):
                        trajectory = asyncio.run(_played(path, scenario, model))
                        file = folder / _file_name(path, trajectory.model, number)
                        trajectory.save(file)
                        outcome.add(trajectory, file)
                        outcomes += [outcome] if number == 1 else []
                        advance()
        except KeyboardInterrupt:
            complain("interrupted; what was played until then is shown")
            code = 130
    _show(outcomes, as_json)
    return code or int(any(outcome.failures for outcome in outcomes))


def _played(path: Path, scenario: Scenario, model: str | None) -> Coroutine[Any, Any, Trajectory]:
    return play(scenario, path=str(path.absolute()), personas=persona_folder(path), model=model)


def regrade(files: Sequence[Path], paths: Sequence[Path], as_json: bool) -> int:
    """Check saved trajectories on the expectations as they are now; nothing is played. Returns the exit code.

    Each belongs to the scenario whose file it names, or to the one given.
    """
    given = find_scenarios(paths) if paths else []
    if len(given) > 1:
        raise UsageError(f"{len(given)} scenario files to check on; name one, or none to take each trajectory's own")
    outcomes = []
    for file in files:
        trajectory = load_trajectory(file)
        path = given[0] if given else Path(trajectory.path)
        if not path.is_file():
            raise UsageError(f"{file} was made from {path}, which is not there; name the {SUFFIX} file")
        outcome = Outcome(path, load_scenario(path), trajectory.model)
        outcome.add(trajectory, file)
        outcomes.append(outcome)
    _show(outcomes, as_json)
    return int(any(outcome.failures for outcome in outcomes))


def _folder() -> Path:
    """Where trajectories are kept."""
    folder = load_settings().home / "trajectories"
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder} cannot be used: {error.strerror}; set AGENTOS_HOME to a folder of yours") from None
    return folder


def _file_name(path: Path, model: str, number: int) -> str:
    """One file for each scenario, model and repetition; a later run takes its place."""
    whole = f"{path.absolute()}".removesuffix(SUFFIX).split("/")[-3:]
    return re.sub(r"[^\w.-]+", "-", "-".join([*whole, model, str(number)])) + ".jsonl"


@contextmanager
def _progress(total: int, *, hidden: bool) -> Iterator[Any]:
    console = make_console(stderr=True)
    columns = (TextColumn("playing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    off = hidden or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=off) as progress:
        task = progress.add_task("", total=total)
        yield lambda: progress.advance(task)


def _show(outcomes: Sequence[Outcome], as_json: bool) -> None:
    if as_json:
        show_json([outcome.as_json() for outcome in outcomes])
    else:
        show(Group(*(_report(outcome) for outcome in outcomes if outcome.failures), _table(outcomes), _line(outcomes)))


def _table(outcomes: Sequence[Outcome]) -> Table:
    table = Table("scenario", "persona", "model", "result", "seconds", box=None, pad_edge=False, header_style="quiet")
    for outcome in outcomes:
        style = "bad" if outcome.failures else "good"
        seconds = f"{outcome.seconds:.1f}"
        table.add_row(
            safe(outcome.scenario.name), safe(outcome.scenario.persona), safe(outcome.model),
            Text(_result(outcome), style), seconds,
        )  # fmt: skip
    return table


def _result(outcome: Outcome) -> str:
    """In a word; of several runs the pass rate with its 95 % interval."""
    if outcome.total == 1:
        return "passed" if outcome.passed else "failed"
    low, high = wilson(outcome.passed, outcome.total)
    return f"{outcome.passed}/{outcome.total} ({low:.0%} to {high:.0%})"


def _report(outcome: Outcome) -> RenderableType:
    """What did not hold, and where the whole run can be read."""
    head = Text(f"{outcome.scenario.name} ({outcome.path}, model {outcome.model})", "bad")
    told = [safe(str(failure)) for failure in outcome.failures]
    return Group(head, *told, Text(f"trajectory: {', '.join(map(str, outcome.trajectories))}\n", "quiet"))


def _line(outcomes: Sequence[Outcome]) -> Text:
    failed = sum(bool(outcome.failures) for outcome in outcomes)
    seconds = sum(outcome.seconds for outcome in outcomes)
    return Text(f"{len(outcomes) - failed} passed, {failed} failed in {seconds:.1f} s", "bad" if failed else "good")
