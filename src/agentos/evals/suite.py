"""What every suite is made of: cases that run through a runtime, and the measures they share."""

import re
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from agentos.agent import Agent
from agentos.errors import ProviderError
from agentos.evals.data import DataFile
from agentos.events import ToolCallEvent, ToolResultEvent, TurnEnded, TurnResult
from agentos.protocols import LLM, Hit, SearchQuery
from agentos.runtime import Runtime

RECALL_AT = (5, 10, 20)
"""Ranks at which the recall of turns is measured."""
MOST_HITS = 50
"""What `conversation_search` shows at most; sessions are ranked by their best hit among these."""


@dataclass
class Outcome:
    """What one case gave."""

    scores: dict[str, float] = field(default_factory=dict)
    """Measure -> 0 to 1; a measure that the case cannot show is left out."""
    query_ms: list[float] = field(default_factory=list)
    """Milliseconds that each of its searches took."""


@dataclass(frozen=True)
class Case:
    """One question of a suite."""

    id: str
    """The same each time the file is read."""
    groups: tuple[str, ...]
    """The rows of the table that count it."""
    run: Callable[[Runtime], Awaitable[Outcome]]


@dataclass(frozen=True)
class Suite:
    """A data set with its way of asking."""

    name: str
    read: Callable[[DataFile, str | None], list[Case]]
    """(file, model or None) -> cases; `UsageError` names the place of what is no such file."""
    groups: tuple[str, ...] = ()
    """The order of the table's rows; groups not named here follow as the file has them."""
    model: str | None = None
    """The model that is taken where none is named; None: none is needed."""
    takes_model: bool = True
    policy: Callable[[], LLM] | None = None
    """The scripted model that plays instead."""


class SettableClock:
    """The machine's clock, which can be set to another date and goes on from there."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def now(self) -> datetime:
        """The time as it is or was set, in local time."""
        return (datetime.now().astimezone() + self._ahead).astimezone()

    def set(self, when: datetime) -> None:
        """Make it `when` now; a time without zone is local."""
        self._ahead = when.astimezone() - datetime.now().astimezone()


async def ask_recall(runtime: Runtime, agent_id: str, question: str, outcome: Outcome, limit: int) -> list[Hit]:
    """What `conversation_search` finds for a question, as it is shown: newest first."""
    started = time.perf_counter()
    hits = await runtime.search(agent_id, SearchQuery(question, "recall", limit=limit, now=runtime.clock.now()))
    outcome.query_ms.append(1000 * (time.perf_counter() - started))
    return hits


async def ask_agent(agent: Agent, text: str) -> TurnResult:
    """One turn of an agent; `ProviderError` when its model failed, so that no outage counts as an answer."""
    result = await agent.ask(text)
    if result.stop_reason == "llm_error":
        raise ProviderError(result.error or "the model failed; the same command goes on where it stopped")
    return result


def best_first(hits: Iterable[Hit]) -> list[Hit]:
    """Hits by score instead of date."""
    return sorted(hits, key=lambda hit: -hit.score)


def sessions_of(ranked: Iterable[Hit]) -> list[str]:
    """Sessions by their best hit."""
    return list(dict.fromkeys(hit.session or "" for hit in ranked))


def turn_recall(ranked: Sequence[Hit], evidence: set[str]) -> dict[str, float]:
    """The share of the evidence turns (external ids) among the first hits, at each of `RECALL_AT`."""
    found = [hit.external_id for hit in ranked]
    return {f"recall@{k}": len(evidence.intersection(found[:k])) / len(evidence) for k in RECALL_AT}


def plain_words(text: str) -> str:
    """Text without case and punctuation, words between single spaces, for comparing answers."""
    words = re.findall(r"\w+", text.casefold())
    return f" {' '.join(words)} "


async def timed_searches(agent: Agent, text: str) -> tuple[str, list[float]]:
    """The reply of one turn, and the milliseconds that each of its searches took from call to saved result."""
    reply, started, taken = "", {}, []
    async for event in agent.send(text):
        if isinstance(event, ToolCallEvent):
            started[event.call_id] = time.perf_counter()
        elif isinstance(event, ToolResultEvent):
            taken.append(1000 * (time.perf_counter() - started[event.call_id]))
        elif isinstance(event, TurnEnded):
            reply = event.result.reply
    return reply, taken
