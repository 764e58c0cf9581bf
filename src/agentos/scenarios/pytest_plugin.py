"""Pytest collects `*.scenario.yaml`: each scenario is a test. What a test needs is imported when one runs."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from agentos.scenarios.outcome import Outcome

_SUFFIX, _BOUNDS = ".scenario.yaml", "measures.yaml"
_PLAYED = pytest.StashKey[dict[Path, "Outcome"]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options `--agentos-model` and `--agentos-judge`."""
    group = parser.getgroup("agentos")
    group.addoption("--agentos-model", metavar="NAME", help="play scenarios with this model in place of their own")
    group.addoption("--agentos-judge", metavar="NAME", help="the model that answers `judge` expectations")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> "ScenarioFile | MeasuresFile | None":
    """A scenario file as a file of one test, and what its folder's measures must come to as another."""
    if file_path.name.endswith(_SUFFIX):
        return ScenarioFile.from_parent(parent, path=file_path)
    is_ours = file_path.name == _BOUNDS and any(file_path.parent.glob(f"*{_SUFFIX}"))
    return MeasuresFile.from_parent(parent, path=file_path) if is_ours else None


def _play(config: pytest.Config, path: Path) -> "Outcome":
    """One run of the scenario in a file, saved before it is judged; each is played once in a session."""
    from agentos.scenarios.judge import judge
    from agentos.scenarios.load import load_scenario, persona_folder
    from agentos.scenarios.outcome import AS_WRITTEN, Outcome
    from agentos.scenarios.run import play
    from agentos.settings import load_settings

    played: dict[Path, Outcome] = config.stash.setdefault(_PLAYED, {})
    if path in played:
        return played[path]
    scenario, model, judging = load_scenario(path), config.getoption("--agentos-model"), _judge(config)
    settings = load_settings()
    personas = persona_folder(path) or settings.personas or settings.home / "personas"
    trajectory = asyncio.run(play(scenario, path=str(path), personas=personas, model=model))
    saved = _file(config, path)
    if saved:
        trajectory.save(saved)
    if judging:
        asyncio.run(judge(scenario, trajectory, judging))
        if saved:
            trajectory.save(saved)
    outcome = played[path] = Outcome(path, scenario, model or AS_WRITTEN, trajectory.embedding)
    outcome.add(trajectory, path)
    return outcome


def _judge(config: pytest.Config) -> Any:
    from agentos.runtime import Runtime
    from agentos.settings import load_settings

    model = config.getoption("--agentos-judge")
    return Runtime(load_settings(model=model)).llm(model) if model else None


def _file(config: pytest.Config, path: Path) -> Path | None:
    """Where the trajectory of a scenario goes; None where pytest keeps no cache."""
    cache: Any = getattr(config, "cache", None)
    if cache is None:
        return None
    folder: Path = cache.mkdir("agentos-trajectories")
    name = os.path.relpath(path, config.rootpath).removesuffix(_SUFFIX)
    return folder / f"{name.replace(os.sep, '-')}.jsonl"


class ScenarioFile(pytest.File):
    """One scenario file."""

    def collect(self) -> Iterator["ScenarioItem"]:
        """Its scenario."""
        yield ScenarioItem.from_parent(self, name=self.path.name.removesuffix(_SUFFIX))


class _Item(pytest.Item):
    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        """What was expected and found; a mistake in the file as its one sentence."""
        from agentos.errors import AgentOSError

        known = isinstance(excinfo.value, Unmet | AgentOSError)
        return str(excinfo.value) if known else super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where the test is."""
        return self.path, 0, self.name


class ScenarioItem(_Item):
    """One scenario, played and checked; its trajectory is kept in pytest's cache folder."""

    def runtest(self) -> None:
        """Play the scenario; `Unmet` when it did not go as expected, skipped where only a judge could say."""
        outcome = _play(self.config, self.path)
        if outcome.failures:
            saved = _file(self.config, self.path)
            kept = f"\nThe trajectory is in {saved}" if saved else ""
            raise Unmet("\n".join(map(str, outcome.failures)) + kept)
        if outcome.unjudged:
            pytest.skip(f"not judged: {'; '.join(outcome.unjudged)}; name a model with --agentos-judge")


class MeasuresFile(pytest.File):
    """What the measures of a folder's scenarios must come to."""

    def collect(self) -> Iterator["MeasuresItem"]:
        """All of it as one test."""
        yield MeasuresItem.from_parent(self, name="measures")


class MeasuresItem(_Item):
    """The measures of a folder's scenarios, which are played as far as this session has not."""

    def runtest(self) -> None:
        """`Unmet` when a measure is out of its bounds."""
        from agentos.scenarios.load import scenarios_in
        from agentos.scenarios.outcome import sets

        outcomes = [_play(self.config, path) for path in scenarios_in(self.path.parent)]
        unmet = [f"{bound}, found {found}" for group in sets(outcomes) for bound, found in group.unmet]
        if unmet:
            raise Unmet("\n".join(unmet))


class Unmet(Exception):
    """A scenario that did not go as expected; the text says where."""
