"""Measures of memory: pure functions over what a scenario says and what its trajectory holds.

docs/evaluation.md has the definitions. A measure is a mean over observations, each of which is a value with what it is
about, so that every number can be traced to the turns it comes from.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from agentos.scenarios.model import Scenario, Telling, holds
from agentos.scenarios.trajectory import Change, Found, Memory, Trajectory, TurnRecord

MEMORIES = ("all", "core", "archival", "recall")
"""What a measure looks at: one type of memory, or all of them together."""
_SEARCHED: tuple[Literal["archival", "recall"], ...] = ("archival", "recall")
_LASTING = {"core": "block.", "archival": "passage."}
"""How the journal's actions on a type of lasting memory begin."""


@dataclass(frozen=True)
class Observation:
    """One thing that a measure counted."""

    measure: str
    memory: str
    agent: str
    value: float
    about: str
    """What was looked at, and where, in one line."""


def mean(observations: Iterable[Observation], measure: str, memory: str = "all") -> float | None:
    """A measure's value; None where there was nothing to measure."""
    values = [o.value for o in observations if (o.measure, o.memory) == (measure, memory)]
    return sum(values) / len(values) if values else None


def observe(scenario: Scenario, trajectory: Trajectory) -> list[Observation]:
    """All that can be measured in one run; nothing where the scenario names no `facts` and no `remarks`."""
    if not trajectory.is_of(scenario):
        return []  # the scenario's turns have changed since
    records = trajectory.turns
    found = [*_needed(scenario, records), *_passing(scenario, records)]
    for tellings in map(scenario.tellings, scenario.facts):
        found += [*_replaced(scenario, tellings, records), *_above(scenario, tellings, records)]
        for telling in tellings:
            found += [*_leaked(scenario, telling, records), *_saved(scenario, telling, records)]
    return found


def _each(measure: str, agent: str, about: str, whole: float | None = None, **values: float) -> Iterator[Observation]:
    """An observation for each type of memory, and one for `all`: `whole`, or the largest."""
    values["all"] = max(values.values()) if whole is None else whole
    for memory, value in values.items():
        yield Observation(measure, memory, agent, float(value), about)


def _any(texts: Iterable[str], words: str) -> bool:
    return any(holds(text, words) for text in texts)


def _in(scenario: Scenario, record: TurnRecord, what: str) -> str:
    return f"{what} in turn {record.number} of {scenario.name!r}"


# recall and precision


def _needed(scenario: Scenario, records: Sequence[TurnRecord]) -> Iterator[Observation]:
    """Whether what a turn needs was in the model's view, and whether what searches showed was needed."""
    for number, (turn, record) in enumerate(zip(scenario.turns, records, strict=True)):
        if not turn.needs or record.agent not in record.memory:
            continue
        values = [[one.value for one in scenario.tellings(name) if one.turn < number][-1] for name in turn.needs]
        hits = [hit for hits in record.memory[record.agent].shown for hit in hits]
        core, context = _view(record.agent, records[:number], record)
        for value in values:
            found = {"core": _any(core, value)}
            found |= {place: _any((hit.text for hit in hits if hit.place == place), value) for place in _SEARCHED}
            whole = any(found.values()) or _any(context, value)
            yield from _each("recall", record.agent, _in(scenario, record, value), whole, **found)
        for hit in hits:
            of_use = any(holds(hit.text, value) for value in values)
            yield from _each("precision", record.agent, _in(scenario, record, hit.ref), **{hit.place: of_use})


def _view(agent: str, before: Sequence[TurnRecord], record: TurnRecord) -> tuple[list[str], list[str]]:
    """(blocks, summary and messages) that were in the agent's context when a turn came in and still are at its end."""
    held = [earlier.memory[agent] for earlier in before if agent in earlier.memory]
    gone = {ref for memory in (*held, record.memory[agent]) for change in memory.journal for ref in change.messages}
    messages = [said.text for memory in held for said in memory.new_messages if said.ref not in gone]
    return [*held[-1].blocks.values()] if held else [], [record.memory[agent].summary, *messages]


# forgetting and staleness


def _replaced(scenario: Scenario, tellings: Sequence[Telling], records: Sequence[TurnRecord]) -> Iterator[Observation]:
    """For how many turns of the user an old value was still used: in core memory, or in a reply to a later turn."""
    for old, new in pairwise(tellings):
        again = next((one.turn for one in tellings if one.turn > new.turn and one.value == old.value), None)
        turns = _turns_with(scenario.agent_of(new.speaker), records[new.turn : again])
        core = [_any(record.memory[record.agent].blocks.values(), old.value) for record in turns]
        used = [held or (at > 0 and holds(turns[at].reply, old.value)) for at, held in enumerate(core)]
        about = _in(scenario, records[new.turn], f"{old.value}, replaced by {new.value}")
        yield from _each("forgetting", scenario.agent_of(new.speaker), about, _until(used), core=_until(core))


def _turns_with(agent: str, records: Iterable[TurnRecord]) -> list[TurnRecord]:
    """The turns in which the agent answered, and its turns with an edit."""
    own = (record for record in records if record.agent == agent and agent in record.memory)
    return [record for record in own if record.llm_calls or record.diff]


def _until(used: Sequence[bool]) -> int:
    """How many turns it takes until it is used no more."""
    return max((at for at, one in enumerate(used, 1) if one), default=0)


def _above(scenario: Scenario, tellings: Sequence[Telling], records: Sequence[TurnRecord]) -> Iterator[Observation]:
    """Wherever an old value or the present one was shown: whether an old one stood above."""
    for at, new in enumerate(tellings):
        olds = {one.value for one in tellings[:at]} - {new.value}
        until = tellings[at + 1].turn if at + 1 < len(tellings) else None
        agent = scenario.agent_of(new.speaker)
        for record in _turns_with(agent, records[new.turn : until]) if olds else ():
            views = [("core", [line for text in record.memory[agent].blocks.values() for line in text.splitlines()])]
            if record is not records[new.turn]:  # there, a model looks for what it is about to replace
                views += [view for hits in record.memory[agent].shown for view in _orders(hits)]
                views += [(hits.place, hits.texts) for hits in record.searches if hits.is_of_now]
            for place, texts in views:
                first = {value: _first(texts, value) for value in (*olds, new.value)}
                if min(first.values()) < len(texts):
                    stale = any(first[old] < first[new.value] for old in olds)
                    about = _in(scenario, record, f"{new.value} in {place}")
                    yield from _each("staleness", agent, about, **{place: stale})


def _orders(hits: Sequence[Found]) -> Iterator[tuple[str, list[str]]]:
    """(place, texts) of what one search found: as shown, and by rank where that is another order.

    What is shown as superseded cannot be taken for what holds.
    """
    ranked = sorted(hits, key=lambda hit: hit.rank or 0)
    for order in (hits, ranked) if ranked != list(hits) else (hits,):
        for place in _SEARCHED:
            yield place, [hit.text for hit in order if hit.place == place and not hit.superseded]


def _first(texts: Sequence[str], words: str) -> int:
    """The place of the first text with the words; behind the last where there is none."""
    return next((at for at, text in enumerate(texts) if holds(text, words)), len(texts))


# contamination


def _passing(scenario: Scenario, records: Sequence[TurnRecord]) -> Iterator[Observation]:
    """Whether a remark came into lasting memory. What a person put there is no doing of the agent's."""
    for words in scenario.remarks:
        at, turn = next((i, turn) for i, turn in enumerate(scenario.turns) if _any(turn.texts, words))
        agent = scenario.agent_of(turn.speaker)
        changes = [
            change for record in records[at:] for memory in [record.memory.get(agent)] if memory
            for change in memory.journal if change.actor == "agent"
            and holds(change.text or "", words) and not _any(_before(change, memory), words)
        ]  # fmt: skip
        places = {place: any(change.action.startswith(kind) for change in changes) for place, kind in _LASTING.items()}
        yield from _each("contamination", agent, _in(scenario, records[at], words), **places)


def _before(change: Change, memory: Memory) -> list[str]:
    """What stood where a change was made: the target's own text, or that of the passage whose place it took."""
    took = [c for c in memory.journal if c.action == "passage.supersede" and c.note == f"by {change.target}"]
    return [one.before or "" for one in (change, *took)]


def _leaked(scenario: Scenario, telling: Telling, records: Sequence[TurnRecord]) -> Iterator[Observation]:
    """Whether another user's agent came to know what none of its own users said."""
    owner = scenario.agent_of(telling.speaker)
    for agent in sorted({record.agent for record in records} - {owner}):
        own = [text for turn in scenario.turns if scenario.agent_of(turn.speaker) == agent for text in turn.texts]
        if _any(own, telling.value):
            continue
        held = [record.memory[agent] for record in records if agent in record.memory]
        places = {
            "core": _any((text for memory in held for text in memory.blocks.values()), telling.value),
            "archival": _any((text for memory in held for text in memory.archival.values()), telling.value),
            "recall": _any((text for memory in held for text in _heard(memory)), telling.value),
        }
        about = _in(scenario, records[telling.turn], f"{telling.value}, told to {owner}")
        yield from _each("contamination", agent, about, **places)


def _heard(memory: Memory) -> list[str]:
    return [*(said.text for said in memory.new_messages), *memory.new_results]


# save rate


def _saved(scenario: Scenario, telling: Telling, records: Sequence[TurnRecord]) -> Iterator[Observation]:
    """Of a fact whose message was paged out: whether it was in lasting memory by then."""
    agent = scenario.agent_of(telling.speaker)
    held = [record.memory[agent] for record in records[telling.turn :] if agent in record.memory]
    said = (
        one
        for memory in held[:1]
        for one in memory.new_messages
        if one.role == "user" and holds(one.text, telling.value)
    )
    message = next(said, None)
    changes = [change for memory in held for change in memory.journal]
    paged_out = next((at for at, one in enumerate(changes) if message and message.ref in one.messages), None)
    if paged_out is None:
        return
    holding = [change for change in changes[:paged_out] if holds(change.text or "", telling.value)]
    places = {place: any(change.action.startswith(kind) for change in holding) for place, kind in _LASTING.items()}
    yield from _each("save_rate", agent, _in(scenario, records[telling.turn], telling.value), **places)


# drift


def drift(mine: Trajectory, theirs: Trajectory) -> Iterator[Observation]:
    """How much of what two runs of a scenario remembered differs; nothing where neither remembered anything."""
    first, second = _remembered(mine), _remembered(theirs)
    pairs = {place: (first[place], second[place]) for place in first if first[place] or second[place]}
    if pairs:
        about = f"{mine.name!r} against {theirs.model} with {theirs.embedding}"
        every = [{(place, one) for place in side for one in side[place]} for side in (first, second)]
        parts = {place: _differing(*pair) for place, pair in pairs.items()}
        yield from _each("drift", mine.persona, about, _differing(*every), **parts)


def _differing(one: set[Any], other: set[Any]) -> float:
    """The share of what only one of two sets has (Jaccard's distance)."""
    return 1 - len(one & other) / len(one | other)


def _remembered(trajectory: Trajectory) -> dict[str, set[tuple[str, str, str]]]:
    """By type of memory: lines of core memory and passages at the end, and what each turn's searches showed."""
    found: dict[str, set[tuple[str, str, str]]] = {"core": set(), "archival": set(), "recall": set()}
    given: set[str] = set()
    for record in trajectory.turns:
        for agent, memory in record.memory.items():
            created = (change.text or "" for change in memory.journal if change.action == "block.create")
            given.update(line for text in created for line in text.splitlines())
            for hit in (hit for hits in memory.shown for hit in hits):
                found[hit.place].add((agent, f"turn {record.number}", hit.text))
    for agent, memory in trajectory.turns[-1].memory.items() if trajectory.turns else ():
        lines = ((label, line) for label, text in memory.blocks.items() for line in text.splitlines())
        found["core"] |= {(agent, label, line) for label, line in lines if line not in given}
        found["archival"] |= {(agent, "", text) for text in memory.archival.values()}
    return found
