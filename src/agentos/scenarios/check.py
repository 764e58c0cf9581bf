"""Whether a run of a scenario was as expected: pure functions over its trajectory."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from agentos.scenarios.judge import sentences
from agentos.scenarios.model import BlockText, Call, Expect, Number, Scenario, Search, Text, compare, holds
from agentos.scenarios.trajectory import Memory, Trajectory, TurnRecord, worst

_NUMBERS = ("heartbeats", "page_outs", "llm_calls", "prompt_tokens", "cost_usd")
_ASKED = {"query", "place", "as_of", "include_superseded"}
"""What tells one search from another."""
_SHOWN = 300
"""Characters of a text that a report shows; the trajectory has all."""


@dataclass(frozen=True)
class Failure:
    """One expectation that does not hold."""

    turn: int
    """From 1; 0 is the end of the scenario."""
    action: str
    expected: str
    found: str
    diff: tuple[str, ...] = ()
    """What the turn changed in memory."""

    def __str__(self) -> str:
        place = f"turn {self.turn} ({self.action})" if self.turn else "at the end"
        changed = [f"      {_shown(line)}" for line in self.diff] or ["      nothing"]
        return "\n".join(
            [place, f"  expected: {self.expected}", f"  found:    {self.found}", "  memory changed:", *changed]
        )


@dataclass(frozen=True)
class _Seen:
    """What one expectation may look at: a turn, or the whole scenario."""

    record: TurnRecord
    """The turn, or the last one with the numbers, calls and replies of all."""
    so_far: Sequence[TurnRecord]


Finding = tuple[str, str]
"""(what was expected, what was there instead)."""


def check(scenario: Scenario, trajectory: Trajectory) -> list[Failure]:
    """The expectations of `scenario` that do not hold in `trajectory`, in order; the turns must be the same.

    A turn fails, too, that could not be played as written or did not end by itself.
    """
    failures, records = [], trajectory.turns
    if not trajectory.is_of(scenario):
        told = "the turns of the trajectory", "the scenario's turns have changed since; run the scenario again"
        return [Failure(0, "", *told)]
    for place, (turn, record) in enumerate(zip(scenario.turns, records, strict=True), 1):
        expect = turn.expect or Expect()
        seen = _Seen(record, records[:place])
        for finding in (
            *_ended(record, expect), *_unmet(expect, seen, scenario), *_judged(record.number, expect, trajectory),
        ):  # fmt: skip
            failures.append(Failure(record.number, record.action, *finding, tuple(record.diff)))
    if scenario.expect:
        whole = _Seen(_total(records), records)
        diff = tuple(line for record in records for line in record.diff)
        findings = (*_unmet(scenario.expect, whole, scenario), *_judged(0, scenario.expect, trajectory))
        failures += [Failure(0, "", *finding, diff) for finding in findings]
    return failures


def unjudged(scenario: Scenario, trajectory: Trajectory) -> list[str]:
    """What no judge has answered with yes or no, a line each; it is neither met nor unmet."""
    given = {(one.turn, one.sentence): one for one in trajectory.judged}
    lines = []
    for turn, sentence in sentences(scenario):
        verdict = given.get((turn, sentence))
        if verdict is None or verdict.met is None:
            why = f" ({_shown(verdict.answer)})" if verdict else ""
            lines.append(f"{f'turn {turn}' if turn else 'at the end'}: {sentence}{why}")
    return lines


def _judged(turn: int, expect: Expect, trajectory: Trajectory) -> Iterator[Finding]:
    for one in trajectory.judged:
        if one.turn == turn and one.sentence in expect.judge and one.met is False:
            yield f"judge {one.sentence!r}", _shown(one.answer)


def wilson(passed: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """The interval that holds the true pass rate with 95 % confidence, after Wilson (1927); (0, 1) without a try."""
    if not total:
        return 0.0, 1.0
    rate, spread = passed / total, z * z / total
    middle = (rate + spread / 2) / (1 + spread)
    half = z * math.sqrt(rate * (1 - rate) / total + spread / (4 * total)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def _total(records: Sequence[TurnRecord]) -> TurnRecord:
    """The last turn, with the numbers, calls and replies of all."""
    costs = [record.cost_usd for record in records if record.cost_usd is not None]
    sums = {name: sum(getattr(record, name) for record in records) for name in _NUMBERS if name != "cost_usd"}
    return records[-1].model_copy(
        update=sums
        | {
            "cost_usd": sum(costs) if costs else None,
            "stop_reason": worst([record.stop_reason for record in records]),
            "run_error": next((record.run_error for record in records if record.run_error), None),
            "calls": [one for record in records for one in record.calls],
            "reply": "\n\n".join(record.reply for record in records if record.reply),
        }
    )


def _ended(record: TurnRecord, expect: Expect) -> Iterator[Finding]:
    """Whether the turn went as written, and ended by itself where nothing is said about it."""
    if record.error:
        yield "a turn that can be played as written", record.error
    elif expect.stop_reason is None and record.stop_reason is not None:
        may_wait = expect.waits and record.stop_reason == "requires_approval"
        yield from _stopped("requires_approval" if may_wait else "end_turn", record)


def _stopped(wanted: str, record: TurnRecord) -> Iterator[Finding]:
    if record.stop_reason != wanted:
        why = f": {record.run_error}" if record.run_error else ""
        waits = f": {', '.join(call['name'] for call in record.waits)}" if record.waits else ""
        yield f"stop_reason {wanted}", f"{record.stop_reason or 'nothing ran'}{why or waits}"


def _unmet(expect: Expect, seen: _Seen, scenario: Scenario) -> Iterator[Finding]:
    record = seen.record
    if expect.stop_reason and not record.error:
        yield from _stopped(expect.stop_reason, record)
    if expect.reply:
        yield from _text("reply", expect.reply, record.reply)
    memory = record.memory.get(record.agent)
    for label, wanted in expect.blocks.items():
        if memory is None or label not in memory.blocks:
            yield f"block {label}", f"the blocks are: {', '.join(memory.blocks if memory else ()) or 'none'}"
        else:
            yield from _block(label, wanted, memory.blocks[label])
    if expect.archival:
        yield from _text("archival", expect.archival, "\n".join(memory.archival.values() if memory else ()))
    for old, new in expect.superseded.items():
        yield from _superseded(old, new, memory.superseded if memory else ())
    if expect.recall:
        yield from _text("recall", expect.recall, "\n".join(_messages(seen, record.agent)))
    for search in expect.search:
        yield from _search(search, record)
    for name, wanted_calls, made in (
        ("call", expect.calls, record.calls),
        ("waiting call", expect.waits, record.waits),
    ):
        if wanted_calls is not None:
            yield from _calls(name, wanted_calls, made)
    for name in (*_NUMBERS, "fill"):
        if (wanted_number := getattr(expect, name)) is not None:
            yield from _number(name, wanted_number, getattr(record, name) or 0)
    for owner, words in expect.private.items():
        yield from _private(owner, words, seen, scenario)


def _text(name: str, wanted: Text, found: str) -> Iterator[Finding]:
    shown = _shown(found)
    for part in wanted.contains:
        if not holds(found, part):
            yield f"{name} contains {part!r}", shown
    for part in wanted.excludes:
        if holds(found, part):
            yield f"{name} excludes {part!r}", shown
    for pattern in wanted.matches:
        if not re.search(pattern, found):
            yield f"{name} matches {pattern!r}", shown


def _block(label: str, wanted: BlockText, found: str) -> Iterator[Finding]:
    yield from _text(f"block {label}", wanted, found)
    if wanted.length is not None:
        yield from _number(f"length of block {label}", wanted.length, len(found))


def _number(name: str, wanted: Number, found: float) -> Iterator[Finding]:
    if not compare(wanted, found):
        yield f"{name} {wanted}", str(found)


def _search(wanted: Search, record: TurnRecord) -> Iterator[Finding]:
    name = f"a search of {wanted.place} memory for {wanted.query!r}"
    asked = wanted.model_dump(include=_ASKED)
    hits = next((hits for hits in record.searches if hits.model_dump(include=_ASKED) == asked), None)
    if hits is None:
        yield name, "it was not asked when the scenario was played; run the scenario again"
        return
    shown = _shown("\n".join(f"{rank}. {text}" for rank, text in enumerate(hits.texts, 1)))
    if wanted.finds:
        ranks = (rank for rank, text in enumerate(hits.texts, 1) if holds(text, wanted.finds))
        rank = next(ranks, None)
        if rank is None or not compare(wanted.rank, rank):
            yield f"{name} finds {wanted.finds!r} at rank {wanted.rank}", shown
    for part in wanted.excludes:
        if any(holds(text, part) for text in hits.texts):
            yield f"{name} excludes {part!r}", shown


def _superseded(old: str, new: str, replaced: Sequence[tuple[str, str]]) -> Iterator[Finding]:
    if not any(holds(before, old) and holds(after, new) for before, after in replaced):
        found = "; ".join(f"{before} -> {after}" for before, after in replaced)
        yield f"{old!r} superseded by {new!r}", _shown(found) if found else "nothing was superseded"


def _calls(kind: str, wanted: Sequence[Call], made: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    shown = "; ".join(f"{one['name']} {one['arguments']}" for one in made) or f"no {kind}s"
    if not wanted and made:
        yield f"no {kind}s", shown
    left = iter(made)
    for one in wanted:
        for name, arguments in one.items():
            if not any(_is_call(name, arguments, call) for call in left):
                yield f"{kind} {name} {arguments} (in this order)", shown
                return


def _is_call(name: str, arguments: dict[str, Any], call: dict[str, Any]) -> bool:
    given = call["arguments"]
    return bool(name == call["name"]) and all(
        key in given and _is_argument(value, given[key]) for key, value in arguments.items()
    )


def _is_argument(wanted: Any, found: Any) -> bool:
    if isinstance(wanted, str) and isinstance(found, str):
        return holds(found, wanted)
    return bool(wanted == found)


def _said(memory: Memory) -> list[str]:
    return [message.text for message in memory.new_messages]


def _messages(seen: _Seen, agent: str, part: Callable[[Any], list[str]] = _said) -> list[str]:
    return [text for record in seen.so_far if agent in record.memory for text in part(record.memory[agent])]


def _private(owner: str, words: Sequence[str], seen: _Seen, scenario: Scenario) -> Iterator[Finding]:
    """Words of one user's in what another sees, or in what another's agent holds."""
    others = {record.speaker for record in seen.so_far} - {owner}
    for other in sorted(others):
        places = {"the replies to": "\n".join(r.reply for r in seen.so_far if r.speaker == other)}
        agent = scenario.agent_of(other)
        memory = seen.record.memory.get(agent)
        if agent != scenario.agent_of(owner) and memory:
            places |= {
                "core memory of the agent of": "\n".join(memory.blocks.values()),
                "archival memory of the agent of": "\n".join(memory.archival.values()),
                "past messages of the agent of": "\n".join(_messages(seen, agent)),
                "tool results of the agent of": "\n".join(_messages(seen, agent, lambda m: m.new_results)),
            }
        for where, text in places.items():
            for word in words:
                if holds(text, word):
                    yield f"{word!r} of {owner} stays private", f"it is in {where} {other}: {_shown(text)}"


def _shown(text: str) -> str:
    """Text for one line of a report, cut where it is long; newlines as ` | `."""
    flat = " | ".join(line.strip() for line in text.splitlines() if line.strip())
    return (flat if len(flat) <= _SHOWN else f"{flat[:_SHOWN]} …") or "nothing"
