"""Where the runs of `agentos test` are kept, so that an interrupted session goes on where it stopped."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import agentos
from agentos.errors import StoreError, UsageError
from agentos.personas import Persona
from agentos.scenarios.cassette import cassette_of
from agentos.scenarios.model import SUFFIX, Scenario
from agentos.scenarios.trajectory import Trajectory, load_trajectory
from agentos.settings import load_settings


class Session:
    """One call of `agentos test` and, where it was interrupted, the next with the same arguments and settings.

    A file in the folder of trajectories has its id until it ends. Each trajectory bears a `key` made from this id and
    from what was played, so that no run of another session, scenario or persona is taken for one of this.
    """

    def __init__(self, *arguments: Any) -> None:
        settings = load_settings()
        self.folder = settings.home / "trajectories"
        self.taken = 0
        """Runs that were played before an interruption."""
        self._begun = self.folder / f"unfinished-{_hash(agentos.__version__, settings.model_dump_json(), *arguments)}"
        try:
            self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
            self._id = self._begun.read_text("utf-8", "replace") if self._begun.exists() else ""
            self._resumes = bool(self._id)
            if not self._resumes:
                self._id = uuid4().hex
                self._begun.write_text(self._id, "utf-8")
        except OSError as error:
            told = f"{self.folder} cannot be used: {error.strerror}"
            raise StoreError(f"{told}; set AGENTOS_HOME to a folder of yours") from None

    def key(self, path: Path, scenario: Scenario, persona: Persona, model: str, embedding: str, number: int) -> str:
        """A hash of a run of this session: of all that decides how it goes, the cassette of a recorded model too."""
        cassette = cassette_of(path)
        answers = cassette.read_bytes().hex() if model == "recorded" and cassette.is_file() else ""
        texts = scenario.model_dump_json(), persona.model_dump_json()
        return _hash(self._id, str(path.absolute()), *texts, model, answers, embedding, number)

    def file(self, path: Path, model: str, embedding: str, number: int) -> Path:
        """One for each scenario, model, embedder and repetition; a later run takes its place."""
        whole = str(path.absolute())
        parts = [*whole.removesuffix(SUFFIX).split("/")[-3:], hashlib.sha256(whole.encode()).hexdigest()[:8]]
        other = [embedding] if embedding != "static" else []
        return self.folder / (re.sub(r"[^\w.-]+", "-", "-".join([*parts, model, *other, str(number)])) + ".jsonl")

    def saved(self, file: Path, key: str, scenario: Scenario) -> Trajectory | None:
        """The run, where it came to its end before this session was interrupted."""
        if not self._resumes:
            return None
        try:
            trajectory = load_trajectory(file)
        except UsageError:
            return None  # there is none, or the interruption cut it off
        whole = trajectory.key == key and trajectory.is_of(scenario)
        self.taken += whole
        return trajectory if whole else None

    def end(self) -> None:
        """All was played: the next session plays everything anew."""
        self._begun.unlink(missing_ok=True)


def _hash(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]
