"""What came of scenarios: runs that were checked and measured, and all runs of one scenario with one model."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from agentos.scenarios.check import Failure, check, unjudged, wilson
from agentos.scenarios.load import load_bounds, scenarios_in
from agentos.scenarios.measures import MEMORIES, Observation, drift, mean, observe
from agentos.scenarios.model import MEASURES, Bounds, Scenario, compare
from agentos.scenarios.trajectory import Trajectory

AS_WRITTEN = "as written"
"""The model of scenarios that are played with their own."""


@dataclass(frozen=True)
class Run:
    """One run of a scenario."""

    trajectory: Trajectory
    file: Path
    """Where the trajectory is kept."""
    failures: list[Failure]
    observations: list[Observation]


@dataclass
class Outcome:
    """All runs of one scenario with one model and embedder."""

    path: Path
    scenario: Scenario
    model: str
    """`AS_WRITTEN`, or the one asked for."""
    embedding: str
    runs: list[Run] = field(default_factory=list)
    fault: str = ""
    """Why it could not be played or judged, in one sentence."""

    def add(self, trajectory: Trajectory, file: Path) -> None:
        """Check and measure one more run."""
        self.runs.append(Run(trajectory, file, check(self.scenario, trajectory), observe(self.scenario, trajectory)))

    @property
    def passed(self) -> int:
        """How many runs went as expected."""
        return sum(not run.failures for run in self.runs)

    @property
    def failures(self) -> list[Failure]:
        """Those of the first run that failed."""
        return next((run.failures for run in self.runs if run.failures), [])

    @property
    def unjudged(self) -> list[str]:
        """What no judge has answered, of the first run where there is such."""
        return next(filter(None, (unjudged(self.scenario, run.trajectory) for run in self.runs)), [])

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the pass rate."""
        return wilson(self.passed, len(self.runs))

    @property
    def played_by(self) -> str:
        """The model by its name."""
        return self.runs[0].trajectory.model if self.runs else self.model

    @property
    def seconds(self) -> float:
        """How long the runs took together."""
        return sum(run.trajectory.seconds for run in self.runs)

    def as_json(self) -> dict[str, Any]:
        """The outcome as plain JSON values."""
        return {
            "name": self.scenario.name, "path": str(self.path), "model": self.played_by, "embedding": self.embedding,
            "passed": self.passed, "runs": len(self.runs),
            "pass_rate": self.passed / len(self.runs) if self.runs else None,
            "interval": [round(end, 3) for end in self.interval], "seconds": round(self.seconds, 3),
            "trajectories": [str(run.file) for run in self.runs], "not_judged": self.unjudged,
            "error": self.fault or None,
            "failures": [asdict(failure) for failure in self.failures],
        }  # fmt: skip


@dataclass(frozen=True)
class ScenarioSet:
    """The scenarios of one folder, played with one model and embedder, and their measures."""

    folder: Path
    model: str
    embedding: str
    outcomes: Sequence[Outcome]
    drifts: Sequence[Observation]

    @cached_property
    def observations(self) -> list[Observation]:
        """All that was observed, in the order of the scenarios."""
        runs = (run for outcome in self.outcomes for run in outcome.runs)
        return [*(observation for run in runs for observation in run.observations), *self.drifts]

    @cached_property
    def bounds(self) -> Bounds | None:
        """What the folder's measures must come to; None, too, where only a part of its scenarios was played."""
        played = {outcome.path.resolve() for outcome in self.outcomes}
        return load_bounds(self.folder) if played >= {path.resolve() for path in scenarios_in(self.folder)} else None

    @property
    def unmet(self) -> Iterator[tuple[str, str]]:
        """(bound, what was found) of each that does not hold.

        One on what no scenario lets measure does not hold; drift needs runs with several models or embedders.
        """
        for measure in MEASURES:
            wanted, found = getattr(self.bounds, measure, None), mean(self.observations, measure)
            if wanted is None or (measure == "drift" and found is None):
                continue
            if found is None:
                yield f"{measure} {wanted}", "there was nothing to measure it on"
            elif not compare(wanted, round(found, 6)):
                kept = [o for o in self.observations if (o.measure, o.memory) == (measure, "all")]
                misses = "; ".join(f"{o.about}: {o.value:g}" for o in kept if not compare(wanted, o.value))
                yield f"{measure} {wanted}", f"{found:.3f} over {len(kept)} ({misses})"

    def as_json(self) -> dict[str, Any]:
        """The measures as plain JSON values, by type of memory, and everything that was observed."""
        return {
            "folder": str(self.folder), "model": self.model, "embedding": self.embedding,
            "measures": {
                memory: {measure: mean(self.observations, measure, memory) for measure in MEASURES}
                for memory in MEMORIES
            },
            "unmet": [{"expected": expected, "found": found} for expected, found in self.unmet],
            "observations": [asdict(observation) for observation in self.observations],
        }  # fmt: skip


def sets(outcomes: Sequence[Outcome]) -> list[ScenarioSet]:
    """The scenario sets that the outcomes belong to; drift is against the first model and embedder of a scenario."""
    first: dict[Path, Outcome] = {}
    groups: dict[tuple[Path, str, str], list[Outcome]] = {}
    for outcome in (outcome for outcome in outcomes if outcome.runs):
        first.setdefault(outcome.path, outcome)
        key = (outcome.path.parent, outcome.model, outcome.embedding)
        groups.setdefault(key, []).append(outcome)
    return [
        ScenarioSet(*key, group, [o for outcome in group for o in _drifts(outcome, first[outcome.path])])
        for key, group in groups.items()
    ]


def _drifts(outcome: Outcome, first: Outcome) -> Iterator[Observation]:
    if outcome is not first:
        for one, other in zip(outcome.runs, first.runs, strict=False):
            yield from drift(one.trajectory, other.trajectory)
