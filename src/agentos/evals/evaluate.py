"""Running a suite: each outcome is saved as it is made, an interrupted run goes on where it stopped."""

import hashlib
import json
import tempfile
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import agentos
from agentos.errors import StoreError, UsageError
from agentos.evals.core_memory import CORE_MEMORY
from agentos.evals.data import DataFile
from agentos.evals.locomo import LOCOMO
from agentos.evals.longmemeval import LONGMEMEVAL
from agentos.evals.nested_kv import NESTED_KV
from agentos.evals.suite import Case, Outcome, SettableClock, Suite
from agentos.memory.search import EXACT_BELOW
from agentos.runtime import Runtime
from agentos.settings import Settings

SUITES = {suite.name: suite for suite in (LOCOMO, LONGMEMEVAL, CORE_MEMORY, NESTED_KV)}
Json = dict[str, Any]


def find_suite(name: str) -> Suite:
    """The suite called `name`; `UsageError` when there is none."""
    if name not in SUITES:
        raise UsageError(f"there is no suite {name!r}; there are: {', '.join(SUITES)}")
    return SUITES[name]


class Evaluation:
    """A suite over one file. `cases` are what it asks, `outcomes` what they gave so far, by case id.

    Outcomes are lines of `path`, in the folder `evals` of the home; another data file, model, limit,
    embedder or version has another path. A run that had come to its end is measured anew.
    """

    def __init__(
        self, suite: Suite, file: Path, settings: Settings, *, model: str | None = None, limit: int | None = None
    ) -> None:
        self.suite, self.settings = suite, settings
        self.model = (model or suite.model) if suite.takes_model else None
        data = DataFile(file)
        self.cases: Sequence[Case] = suite.read(data, self.model)[:limit]
        if not self.cases:
            raise UsageError(f"{file} holds no question that {suite.name} can ask; give the published file")
        self.subject: Json = {
            "suite": suite.name, "data": file.name, "sha256": data.digest, "model": self.model, "limit": limit,
            "embedding": settings.embedding, "version": agentos.__version__,
        }  # fmt: skip
        key = hashlib.sha256(json.dumps(self.subject).encode()).hexdigest()[:16]
        self.path = settings.home / "evals" / f"{suite.name}-{key}.jsonl"
        try:
            settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.parent.mkdir(mode=0o700, exist_ok=True)
            self.outcomes = self._saved()
            if len(self.outcomes) == len(self.cases):
                self.path.unlink()
                self.outcomes = {}
        except OSError as error:
            raise StoreError(
                f"{self.path} cannot be used: {error.strerror}; set AGENTOS_HOME to a folder of yours"
            ) from None

    def _saved(self) -> dict[str, Outcome]:
        wanted = {case.id for case in self.cases}
        outcomes = {}
        for line in self.path.read_text("utf-8", "replace").split("\n") if self.path.exists() else ():
            try:
                values = json.loads(line)
            except ValueError:
                continue  # the end of a line that a crash cut off
            if values["id"] in wanted:
                outcomes[values["id"]] = Outcome(values["scores"], values["query_ms"])
        return outcomes

    async def run(self) -> AsyncGenerator[Case, None]:
        """Each case that has no outcome yet, once its outcome is saved."""
        with self.path.open("a", encoding="utf-8") as saved, tempfile.TemporaryDirectory() as home:
            async with self._runtime(Path(home)) as runtime:
                for case in self.cases:
                    if case.id not in self.outcomes:
                        outcome = self.outcomes[case.id] = await case.run(runtime)
                        saved.write("\n" + json.dumps({"id": case.id, **asdict(outcome)}))
                        saved.flush()
                        yield case

    def _runtime(self, home: Path) -> Runtime:
        """A home of the evaluation's own; no agent has so many passages that the index would be asked."""
        settings = self.settings.model_copy(
            update={
                "home": home, "database_url": None, "chroma_url": None, "index_min_passages": EXACT_BELOW,
                "model": self.model,
            }
        )  # fmt: skip
        llm = self.suite.policy() if self.suite.policy else None
        return Runtime(settings, llm=llm, clock=SettableClock())

    def result(self) -> Json:
        """What was measured, as plain JSON values: rows by group, latency, and each case's scores."""
        done = [(case, self.outcomes[case.id]) for case in self.cases if case.id in self.outcomes]
        counted = [group for place in (0, 1) for case in self.cases for group in case.groups[place : place + 1]]
        rows = []
        for group in dict.fromkeys((*self.suite.groups, *counted)):
            scores = [outcome.scores for case, outcome in done if group in case.groups]
            if not scores:
                continue
            measures = list(dict.fromkeys(measure for one in scores for measure in one))
            means = {m: float(np.mean([one[m] for one in scores if m in one])) for m in measures}
            rows.append({"group": group, "n": len(scores), "scores": means})
        taken = [ms for _, outcome in done for ms in outcome.query_ms]
        latency = {f"p{q}": float(np.percentile(taken, q)) for q in (50, 95)} if taken else None
        cases = [{"id": case.id, "groups": list(case.groups), "scores": outcome.scores} for case, outcome in done]
        return {**self.subject, "rows": rows, "query_ms": latency, "cases": cases}
