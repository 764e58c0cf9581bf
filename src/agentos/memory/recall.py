"""Ranking past messages: what was said is found by the talk around it as well as by its own words.

Pure functions over what full text found, term by term. An answer seldom repeats the words of its question, so a word
counts for the messages around it too; a session that holds many of them counts; who is named, and when, counts. What
was tried, and what each part gives, stands in `docs/evaluation.md`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentos.protocols import Vectors

NEAR = (0.6, 0.3)
"""What a word counts for the messages one and two places from the one that holds it."""
SAID_BY_AGENT = 0.5
"""Weight of a word in the agent's own talk, which is long and general, beside one in the user's."""
SESSION = 0.2
"""Weight of a session's three best messages for each of its messages."""
VECTOR = 0.6
"""Weight of the vectors' ranking beside that of the words."""
NAMED = 1.5
"""Factor for a message of the speaker whom the question names."""
IN_PERIOD = 2.0
"""Factor for a message of the time that the question names."""
ONLY_ASKS = 0.8
"""Factor for a message that only asks: it states nothing, but shares its words with the next one who asks."""
BY_AGENT = 0.8
"""Factor for a message of the agent's: what the user said about it is shown first."""
AGAIN = 0.95
"""Factor for each further message of one talk, so that another talk which says otherwise is seen too."""
_PAUSE = timedelta(hours=1)
"""Silence that ends a talk, where messages name no session."""


@dataclass(frozen=True)
class MessageFilter:
    """Which messages may be found; both ends of the time are included."""

    roles: tuple[str, ...]
    start: datetime | None = None
    end: datetime | None = None
    not_run: str | None = None
    """Leaves out what this run has in context."""


@dataclass(frozen=True)
class Place:
    """Where one message stands in the agent's history."""

    id: int
    role: str
    name: str | None
    session: str | None
    created_at: datetime


def spread(terms: Sequence[Mapping[int, float]], places: Sequence[Place]) -> "Vectors":
    """How well each place answers to the terms, 0 to 1 (the best): their own, their neighbours' and their session's.

    `terms` has for each term the scores (message id -> score above 0) of the messages that hold it;
    `places` are in the order of the history.
    """
    import numpy as np

    index = {place.id: n for n, place in enumerate(places)}
    own = np.zeros((len(terms), len(places)), np.float32)
    for row, scores in enumerate(terms):
        for key, score in scores.items():
            if (at := index.get(key)) is not None:
                own[row, at] = score * (SAID_BY_AGENT if places[at].role == "assistant" else 1)
    talks = talk_numbers(places)
    total = _peak_one(_near(own, talks).sum(axis=0))
    best = np.zeros(int(talks[-1]) + 1, np.float32)
    taken: dict[int, int] = {}
    for at in np.argsort(-total, kind="stable"):
        talk = int(talks[at])
        taken[talk] = taken.get(talk, 0) + 1
        if taken[talk] <= 3:
            best[talk] += total[at]
    found: Vectors = _peak_one(total + SESSION * best[talks])
    return found


def add_meaning(scores: "Vectors", cosines: "Vectors", places: Sequence[Place]) -> "Vectors":
    """Scores of `spread` with the vectors' ranking added; `cosines` is 0 where none was computed."""
    near = _near(cosines.clip(min=0)[None, :], talk_numbers(places))[0]
    found: Vectors = scores + VECTOR * _peak_one(near * (cosines != 0))
    return found


def factor(place: Place, text: str, question: str, period: tuple[datetime, datetime] | None) -> float:
    """What counts for or against one message, whatever its words: speaker, time, and whether it only asks."""
    value = BY_AGENT if place.role == "assistant" else 1.0
    if place.name and re.search(rf"\b{re.escape(place.name)}\b", question, re.IGNORECASE):
        value *= NAMED
    if period and period[0] <= place.created_at <= period[1]:
        value *= IN_PERIOD
    return value * ONLY_ASKS if only_asks(text) else value


def less_of_one_talk(scores: Sequence[float], places: Sequence[Place]) -> list[float]:
    """The scores, each lowered by how many better ones its talk has."""
    talks, seen = talk_numbers(places).tolist(), dict[int, int]()
    lowered = list(scores)
    for at in sorted(range(len(scores)), key=lambda n: -scores[n]):
        lowered[at] *= AGAIN ** seen.get(talks[at], 0)
        seen[talks[at]] = seen.get(talks[at], 0) + 1
    return lowered


def talk_numbers(places: Sequence[Place]) -> "Vectors":
    """For each place the number of its talk: a session, or what was said without a long pause."""
    import numpy as np

    number, numbers = 0, []
    for n, place in enumerate(places):
        before = places[n - 1] if n else place
        paused = place.session is None and abs(place.created_at - before.created_at) > _PAUSE
        number += place.session != before.session or paused
        numbers.append(number)
    return np.array(numbers, np.int64)


def only_asks(text: str) -> bool:
    """Whether a text is a single question."""
    stripped = text.strip()
    return stripped.endswith("?") and not re.search(r"[.!?]\s", stripped)


def _near(rows: "Vectors", talks: "Vectors") -> "Vectors":
    """For each place of each row (r, n), the largest of its own value and its neighbours' shares."""
    import numpy as np

    spread = rows.copy()
    for distance, share in enumerate(NEAR, 1):
        together = talks[distance:] == talks[:-distance]
        np.maximum(spread[:, distance:], share * rows[:, :-distance] * together, out=spread[:, distance:])
        np.maximum(spread[:, :-distance], share * rows[:, distance:] * together, out=spread[:, :-distance])
    return spread


def _peak_one(scores: "Vectors") -> "Vectors":
    peak = scores.max(initial=0)
    return scores / peak if peak > 0 else scores
