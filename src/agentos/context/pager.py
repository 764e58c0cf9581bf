"""The pager: what leaves a full context, and the dated entry that stands for it."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from agentos.messages import Message, SummaryEntry
from agentos.state import AgentState

ALERT_AT = 0.70
"""Share of the window at which the agent is told to save what matters."""
PAGE_OUT_TO = 0.40
"""Share of the window that is left after a page-out."""
PAGE_OUT_TO_FAULTING = 0.50
"""The same where searches keep asking for what was just evicted."""
FAULT_RATE = 0.20
"""Page faults per search above which more of the tail is kept."""
SUMMARY_SHARE = 0.10
"""Share of the window that the summary may take."""
MEMORY_PRESSURE = "memory_pressure"
SavingStep = Literal["done", "refused by budget", "model down", "not asked"]
"""How the step for saving went; `not asked` where a person compacts by hand."""


@dataclass(frozen=True)
class Window:
    """The room of one model, in tokens."""

    tokens: int
    """Prompt and reply together."""
    reply: int
    """Reserved for the reply."""

    @property
    def prompt(self) -> int:
        """The longest prompt that leaves room for the reply."""
        return self.tokens - self.reply

    @property
    def entry(self) -> int:
        """The longest summary entry: several fit the summary, few are worth more than 800."""
        return min(800, int(self.tokens * SUMMARY_SHARE / 3))


def pressure_told(state: AgentState) -> Message | None:
    """The alert of this fill, if it was given."""
    return next((m for m in state.queue if m.name == MEMORY_PRESSURE and (m.seq or 0) > state.agent.fill_seq), None)


def saving_step(state: AgentState) -> SavingStep | None:
    """How the step for saving went in this fill; None while the alert waits for its step.

    Without an alert (one input jumped past the limit) there was no room for the step.
    """
    alert = pressure_told(state)
    if alert is None:
        return "refused by budget"
    after = [m for m in state.queue if (m.seq or 0) > (alert.seq or 0)]
    if any(m.role == "assistant" for m in after):
        return "done"
    return "model down" if state.run and state.run.id != alert.run_id else None


def units(queue: Sequence[Message]) -> list[list[Message]]:
    """What can leave only as a whole: a user-role message, or an assistant message with all its results."""
    grouped: list[list[Message]] = []
    for message in queue:
        if message.role == "tool" and grouped:
            grouped[-1].append(message)
        else:
            grouped.append([message])
    return grouped


def choose_evicted(
    queue: Sequence[Message], size: Callable[[Message], int], fixed_tokens: int, target_tokens: int, most_tokens: int
) -> list[Message]:
    """The oldest units to page out so that what stays takes at most `target_tokens` with the head.

    The newest user message and what follows it stay unless even they do not fit `most_tokens`.
    """
    grouped = units(queue)
    total = fixed_tokens + sum(size(m) for m in queue)
    newest = max((i for i, unit in enumerate(grouped) if unit[0].opens_exchange), default=len(grouped) - 1)
    evicted: list[Message] = []
    for place, unit in enumerate(grouped):
        if total <= (target_tokens if place < newest else most_tokens):
            break
        evicted += unit
        total -= sum(size(m) for m in unit)
    return evicted


def before_newest_exchange(queue: Sequence[Message]) -> list[Message]:
    """Everything before the newest message of the user's: what a page-out by hand moves."""
    newest = max((i for i, m in enumerate(queue) if m.opens_exchange), default=len(queue))
    return list(queue[:newest])


def entry_text(evicted: Sequence[Message], budget_tokens: int, count: Callable[[str], int]) -> str:
    """The mechanical part of an entry: times, ids, anchors, and the user's own words up to the budget."""
    first, last = evicted[0], evicted[-1]
    lines = [f"[{first.local_time:%Y-%m-%d %H:%M} to {last.local_time:%Y-%m-%d %H:%M}] {first.ref}-{last.ref}"]
    spoken = [m for m in evicted if m.role != "tool" and m.kind == "message"]
    found = anchors(m.content for m in spoken)
    room = budget_tokens - count(lines[0]) - 10
    for name, values in found.items():
        kept = _fitting(values, room // 4, count)
        if kept:
            lines.append(f"  {name}: {', '.join(kept)}")
            room -= count(lines[-1]) + 1
    words = [m for m in spoken if m.origin == "user"]
    share = max(80, 4 * room // max(1, len(words)))
    quotes = _fitting([f'"{_first_words(m.content, share)}" ({m.ref})' for m in words], room, count)
    if quotes:
        lines.append("  user said: " + " ".join(quotes))
    return "\n".join(lines)


# none of these may take time that grows with the square of a text's longest word
_ANCHORS = {
    "addresses": re.compile(r"https?://[^\s<>\"')\]]+|(?<![\w.+-])[\w.+-]+@[\w-]+\.[\w.-]+\w"),
    "dates": re.compile(
        r"\b\d{4}-\d\d-\d\d\b|\b\d{1,2}[./]\d{1,2}[./]\d{2,4}\b|"
        r"\b(?:\d{1,2}(?:st|nd|rd|th)? (?:of )?)?(?:January|February|March|April|May|June|July|August|September|"
        r"October|November|December)(?: \d{1,2}(?:st|nd|rd|th)?)?(?:,? \d{4})?\b"
    ),
    "ids and numbers": re.compile(r"\b(?=[\w-]{0,80}\d)\w[\w-]*(?:[.,:]\d+)*%?"),
    "names": re.compile(r"(?<![.!?]\s)(?<!^)\b[A-Z][\w'\u2019]+(?: [A-Z][\w'\u2019]+)*", re.MULTILINE),
}


def anchors(texts: Iterable[str]) -> dict[str, list[str]]:
    """Names, numbers, dates and addresses in `texts`, taken mechanically, in order of appearance."""
    found: dict[str, dict[str, None]] = {name: {} for name in _ANCHORS}
    for text in texts:
        rest = text[:20_000]
        for name, pattern in _ANCHORS.items():
            found[name].update(dict.fromkeys(m.group().strip() for m in pattern.finditer(rest)))
            if name != "names":
                rest = pattern.sub(" ", rest)
    return {name: list(values) for name, values in found.items() if values}


def retired(entries: Sequence[SummaryEntry], room_tokens: int, count: Callable[[str], int]) -> list[SummaryEntry]:
    """The oldest entries that leave the summary so that the rest fits; the newest one stays."""
    sizes = [count(e.rendered) + 1 for e in entries]  # and the empty line between two
    total = sum(sizes)
    leaving = []
    for entry, size in zip(entries[:-1], sizes, strict=False):
        if total <= room_tokens:
            break
        leaving.append(entry)
        total -= size
    return leaving


def _fitting(values: Sequence[str], room: int, count: Callable[[str], int]) -> list[str]:
    kept = []
    for value in values:
        room -= count(value) + 1
        if room < 0:
            break
        kept.append(value)
    return kept


def _first_words(text: str, length: int) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= length else flat[:length].rsplit(" ", 1)[0] + " …"
