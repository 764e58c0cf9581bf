"""Pytest collects `*.scenario.yaml`: each scenario is a test. What a test needs is imported when one runs."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_SUFFIX = ".scenario.yaml"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option `--agentos-model`."""
    parser.getgroup("agentos").addoption(
        "--agentos-model", metavar="NAME", help="play scenarios with this model in place of their own"
    )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> "ScenarioFile | None":
    """A scenario file as a file of one test."""
    return ScenarioFile.from_parent(parent, path=file_path) if file_path.name.endswith(_SUFFIX) else None


class ScenarioFile(pytest.File):
    """One scenario file."""

    def collect(self) -> Iterator["ScenarioItem"]:
        """Its scenario."""
        yield ScenarioItem.from_parent(self, name=self.path.name.removesuffix(_SUFFIX))


class ScenarioItem(pytest.Item):
    """One scenario, played and checked; its trajectory is kept in pytest's cache folder."""

    def runtest(self) -> None:
        """Play the scenario; `Unmet` when it did not go as expected."""
        from agentos.scenarios.check import check
        from agentos.scenarios.load import load_scenario, persona_folder
        from agentos.scenarios.run import play

        scenario = load_scenario(self.path)
        model = self.config.getoption("--agentos-model")
        trajectory = asyncio.run(play(scenario, path=str(self.path), personas=persona_folder(self.path), model=model))
        saved = self._file()
        if saved is not None:
            trajectory.save(saved)
        failures = check(scenario, trajectory)
        if failures:
            kept = f"\nThe trajectory is in {saved}" if saved else ""
            raise Unmet("\n".join(map(str, failures)) + kept)

    def _file(self) -> Path | None:
        """Where the trajectory goes; None where pytest keeps no cache."""
        cache: Any = getattr(self.config, "cache", None)
        if cache is None:
            return None
        folder: Path = cache.mkdir("agentos-trajectories")
        return folder / f"{self.nodeid.replace('/', '-').replace('::', '-')}.jsonl"

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        """What was expected and found; a mistake in the file as its one sentence."""
        from agentos.errors import AgentOSError

        known = isinstance(excinfo.value, Unmet | AgentOSError)
        return str(excinfo.value) if known else super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where the test is."""
        return self.path, 0, self.name


class Unmet(Exception):
    """A scenario that did not go as expected; the text says where."""
