"""How the offline model chooses among memories: pure functions over what a search found."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from agentos.llm.offline.changes import contradiction
from agentos.llm.offline.intents import small_talk, to_forget
from agentos.llm.offline.language import WORD, is_question, plain, root, sentences, stems, words


@dataclass(frozen=True)
class Memory:
    """One hit of a search, as its result shows it."""

    id: str
    date: str
    text: str
    name: str = ""
    role: str = ""
    more: str = ""
    """Where it goes on, of one that was not shown in full."""


def parse_memories(result: str) -> list[Memory]:
    """The hits of one search result; what is no hit is skipped."""
    found = []
    for line in result.split("\n"):
        try:
            values = json.loads(line) if line.startswith("{") else None
        except ValueError:  # clipped in the middle, or too deep to be a hit
            continue
        except RecursionError:
            continue
        if isinstance(values, dict) and values.get("id") and values.get("text"):
            found.append(Memory(*(str(values.get(k) or "") for k in ("id", "date", "text", "name", "role", "more"))))
    return found


def best_memories(question: str, memories: Sequence[Memory]) -> list[Memory]:
    """The memories that answer `question`, best first; those without a word of it are left out.

    A word weighs more when few of the memories have it, and names and numbers more still. Of nearly
    equal ones the newest wins: what was said last about a thing holds.
    """
    usable = [m for m in _distinct(memories) if _states_something(m, question)]
    texts = [stems(f"{m.name} {m.text}") for m in usable]
    wanted = _weights(question)
    rarity = {w: math.log(1 + len(usable) / max(1, sum(w in t for t in texts))) for w in wanted}
    fit = _expected(question)
    scored = []
    for memory, found in zip(usable, texts, strict=True):
        score = sum(weight * rarity[w] for w, weight in wanted.items() if w in found)
        if score:
            length = 1 + 0.02 * math.log(1 + len(memory.text))  # of two that say it, the shorter says it more plainly
            scored.append((score * (1.25 if fit and fit.search(memory.text) else 1.0) / length, memory))
    if not scored:
        return []
    top = max(score for score, _ in scored)
    scored.sort(key=lambda pair: min(pair[0], 0.95 * top), reverse=True)  # stable: nearly equal ones stay newest first
    return [memory for score, memory in scored if score >= 0.5 * top]


def _distinct(memories: Sequence[Memory]) -> list[Memory]:
    """The memories, the newest first, each text once."""
    found: dict[str, Memory] = {}
    for memory in sorted(memories, key=lambda m: m.date, reverse=True):
        found.setdefault(" ".join(memory.text.split()), memory)
    return list(found.values())


def _weights(question: str) -> dict[str, float]:
    """How much each word of the question counts."""
    first = re.search(WORD, question)
    weights: dict[str, float] = {}
    for word in words(question):
        strong = any(c.isdigit() for c in word) or (word[0].isupper() and not (first and word == first.group()))
        weights[root(word)] = 2.0 if strong else 1.0
    return weights


def _states_something(memory: Memory, question: str) -> bool:
    """Whether a memory is a statement, and not a greeting or the question itself."""
    text = plain(memory.text)
    return (
        memory.role not in ("assistant", "tool")
        and text.casefold() != plain(question).casefold()
        and not small_talk(text)
        and not to_forget(text)
        and not all(is_question(s) for s in sentences(text) or [text])
    )


_WHEN = (
    r"\b(?:yesterday|today|tomorrow|tonight|last|next|ago|since|monday|tuesday|wednesday|thursday|friday|saturday"
    r"|sunday|january|february|march|april|june|july|august|september|october|november|december|weekend|week|month"
    r"|year|morning|\d{4}|\d+(?:st|nd|rd|th)|o'clock)\b"
)


def _expected(question: str) -> re.Pattern[str] | None:
    """What an answer to this kind of question tends to hold."""
    asked = question.lower()
    if "when" in asked or "what date" in asked or "which day" in asked:
        return re.compile(_WHEN, re.IGNORECASE)
    if "how many" in asked or "how much" in asked or "how old" in asked or "number" in asked:
        return re.compile(r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|dozen|couple)\b", re.IGNORECASE)
    if "where" in asked:
        return re.compile(r"\b(?:in|at|to|from|near) (?:the )?[A-Z]")
    return None


def excerpt(text: str, question: str, most: int = 420) -> str:
    """The part of `text` that fits the question best, in at most `most` characters, on one line."""
    text = " ".join(text.split())
    if len(text) <= most:
        return text
    wanted, parts = stems(question), sentences(text)
    best = max(range(len(parts)), key=lambda i: (len(wanted & stems(parts[i])), -i))
    shown = " ".join(parts[best : best + 3])
    return shown if len(shown) <= most else shown[:most].rsplit(" ", 1)[0] + " …"


_SEVERAL_CLAUSES = r"[,;:]|\b(?:and|but|or|while|because|so|if|unless|until)\b"


def corrected(text: str, stated: str) -> tuple[str, str] | None:
    """(the sentence of `text` that `stated` contradicts, `text` with `stated` in its place), where there is just one.

    None otherwise, and for a sentence that says more than one thing: nothing else that a memory says may be lost.
    """
    found = [old for part in sentences(text) if contradiction(stated, old := _bare(part))]
    if len(found) != 1 or text.count(found[0]) != 1 or re.search(_SEVERAL_CLAUSES, found[0], re.IGNORECASE):
        return None
    old, new = found[0], _bare(stated)
    first = new[:1].lower() if old[:1].islower() else new[:1].upper()
    return old, text.replace(old, first + new[1:])


def states(text: str, statement: str) -> bool:
    """Whether `text` says so, and does not only ask."""
    said = (plain(part).casefold() for part in sentences(text) if not is_question(part))
    return any(plain(statement).casefold() in part for part in said)


def _bare(sentence: str) -> str:
    """A sentence without the marks at its end."""
    return sentence.rstrip(" .,;:!…")
