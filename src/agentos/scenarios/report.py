"""Runs of scenarios as one HTML page that needs nothing else."""

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from agentos import __version__
from agentos.scenarios.measures import MEMORIES, mean
from agentos.scenarios.model import MEASURES
from agentos.scenarios.outcome import Outcome, ScenarioSet
from agentos.scenarios.trajectory import TurnRecord

WIDTH, HEIGHT = 640, 80
"""Of the curve of context fill, in pixels."""


def render(outcomes: Sequence[Outcome], sets: Sequence[ScenarioSet]) -> str:
    """The page: pass matrix, measures, and each run with its transcript, memory diffs and context fill.

    All text from files and models is escaped.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files(__package__) / "report.html").read_text("utf-8"))
    players = list(dict.fromkeys((outcome.model, outcome.embedding) for outcome in outcomes))
    return template.render(
        outcomes=outcomes, sets=sets, players=players, matrix=_matrix(outcomes, players), measures=MEASURES,
        memories=MEMORIES, mean=mean, curve=curve, dumps=json.dumps, width=WIDTH, height=HEIGHT, version=__version__,
    )  # fmt: skip


def curve(turns: Sequence[TurnRecord]) -> list[tuple[float, float]]:
    """(x, y) of the context fill after each turn, left to right, y from the top."""
    step = WIDTH / max(1, len(turns) - 1)
    return [(round(at * step, 1), round(HEIGHT * (1 - min(1.0, turn.fill)), 1)) for at, turn in enumerate(turns)]


def _matrix(outcomes: Sequence[Outcome], players: Sequence[tuple[str, str]]) -> list[tuple[str, str, list[Any]]]:
    """(scenario, persona, its outcome with each model and embedder or None), in order."""
    cells = {(outcome.path, (outcome.model, outcome.embedding)): outcome for outcome in outcomes}
    first = {outcome.path: outcome.scenario for outcome in reversed(outcomes)}
    return [
        (first[path].name, first[path].persona, [cells.get((path, player)) for player in players])
        for path in dict.fromkeys(outcome.path for outcome in outcomes)
    ]
