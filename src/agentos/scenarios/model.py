"""The words of a `*.scenario.yaml`: turns, what the scripted model does in them, and what must then hold.

The JSON Schema beside this file is made from these models; editors complete and check scenarios by it.
"""

import hashlib
import itertools
import json
import operator
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from agentos.messages import Approval, StopReason, read_time
from agentos.tools.memory import MEMORY_TOOLS

SCHEMA = Path(__file__).with_name("scenario.schema.json")
SUFFIX = ".scenario.yaml"
NO_LIVE_MODELS = ("offline", "script", "recorded")
"""What scenarios call models that ask nobody."""
BOUNDS = "measures.yaml"
"""Beside scenarios: what their measures must come to."""

_OPERATORS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
_BOUND = r"(<=|>=|<|>) ?(\d+(?:\.\d+)?)"
_PERIOD = r"\d{1,4} (?:minute|hour|day|week)s?"
_ACTIONS = ("user", "approve", "edit", "inject", "advance", "restart")


def compare(wanted: "Number", found: float) -> bool:
    """Whether `found` is, or is within, what a number of a scenario asks for."""
    bound = re.fullmatch(_BOUND, str(wanted))
    return bool(_OPERATORS[bound[1]](found, float(bound[2]))) if bound else found == wanted


def holds(text: str, words: str) -> bool:
    """Whether a text has these words; upper and lower case count as the same."""
    return words.casefold() in text.casefold()


def period(text: str) -> timedelta:
    """The time that `3 days` or `1 week 2 hours` takes."""
    parts = (part.split() for part in re.findall(_PERIOD, text))
    return sum((timedelta(**{f"{unit.rstrip('s')}s": int(count)}) for count, unit in parts), timedelta())


def _several(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{value!r} is no regular expression: {error}") from None
    return value


def _number(value: Any) -> Any:
    count = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
    if not count and not (isinstance(value, str) and re.fullmatch(_BOUND, value)):
        raise ValueError(f'{value!r} is no number; write one such as 3, or a bound such as "<= 3"')
    return value


def _period(value: Any) -> Any:
    if not isinstance(value, str) or not re.fullmatch(_WHOLE_PERIOD, value):
        raise ValueError(f"{value!r} is no time that passes; write one such as 3 days or 2 hours 30 minutes")
    return value


def _restart(value: Any) -> Any:
    return value if value is True else _period(value)


def _moment(value: Any) -> Any:
    text = value.isoformat() if isinstance(value, date) else value
    try:
        read_time(text, datetime.now(UTC))
    except (ValueError, TypeError):
        raise ValueError(f"{value!r} is no ISO date or time; write one such as 2026-05-08") from None
    return text


_WHOLE_PERIOD = rf"{_PERIOD}(?: {_PERIOD})*"
_PERIOD_SCHEMA = {"type": "string", "pattern": f"^{_WHOLE_PERIOD}$"}
_NUMBER_SCHEMA = {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": f"^{_BOUND}$"}]}
_WORDS_SCHEMA = {"type": "string", "minLength": 1}
_TEXTS_SCHEMA = {"anyOf": [_WORDS_SCHEMA, {"type": "array", "items": _WORDS_SCHEMA, "minItems": 1}]}

_Text = Annotated[str, Field(min_length=1)]
_Texts = Annotated[list[_Text], Field(min_length=1)]
_Patterns = Annotated[list[Annotated[_Text, AfterValidator(_pattern)]], Field(min_length=1)]
Texts = Annotated[_Texts, BeforeValidator(_several), WithJsonSchema(_TEXTS_SCHEMA)]
Patterns = Annotated[_Patterns, BeforeValidator(_several), WithJsonSchema(_TEXTS_SCHEMA)]
Number = Annotated[int | float | str, BeforeValidator(_number), WithJsonSchema(_NUMBER_SCHEMA)]
"""Exactly this number, or a bound such as `"<= 3"`."""
Period = Annotated[str, BeforeValidator(_period), WithJsonSchema(_PERIOD_SCHEMA)]
Restart = Annotated[
    Literal[True] | str, BeforeValidator(_restart), WithJsonSchema({"anyOf": [{"const": True}, _PERIOD_SCHEMA]})
]
Moment = Annotated[str, BeforeValidator(_moment)]
"""An ISO date, its whole day included, or a time."""
Call = Annotated[dict[str, dict[str, Any]], Field(min_length=1, max_length=1)]
"""A tool's name and its arguments, `request_heartbeat` among them."""


class _Words(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Line(_Words):
    """What the scripted model answers to one request."""

    say: str = ""
    """Text the user sees."""
    calls: list[Call] = Field(default_factory=list)
    """Tool calls: the tool's name and its arguments, `request_heartbeat` among them."""


class Text(_Words):
    """What a text must have and must not have; upper and lower case count as the same."""

    contains: Texts = Field(default_factory=list)
    """Each of these stands in it."""
    excludes: Texts = Field(default_factory=list)
    """None of these stands in it."""
    matches: Patterns = Field(default_factory=list)
    """Each of these regular expressions is found in it, case as written."""

    @model_validator(mode="after")
    def _asks_something(self) -> "Text":
        if not self.model_fields_set:
            raise ValueError(f"this is empty; give one of: {', '.join(type(self).model_fields)}")
        return self


class BlockText(Text):
    """What a block of core memory must have and must not have."""

    length: Number | None = None
    """Its size in characters."""


class Search(_Words):
    """What a search of memory finds, asked as the agent's own tools would ask."""

    query: str = Field(min_length=1)
    """What to look for."""
    place: Literal["archival", "recall"] = Field("archival", alias="in")
    """Which memory is searched."""
    finds: str = ""
    """Text of a hit that must be there."""
    rank: Number = ">= 1"
    """Where the first hit with that text stands; 1 is the best."""
    excludes: Texts = Field(default_factory=list)
    """None of these stands in any hit."""
    as_of: Moment | None = None
    """Of archival memory: what was valid at this ISO date or time instead of now."""
    include_superseded: bool = False
    """Of archival memory: also what was replaced."""

    @model_validator(mode="after")
    def _asks_something(self) -> "Search":
        if not self.finds and not self.excludes:
            raise ValueError("say what the search `finds` or `excludes`")
        if self.place == "recall" and (self.as_of or self.include_superseded):
            raise ValueError(
                "`as_of` and `include_superseded` are about archival memory; nothing takes a message's place"
            )
        return self


class Expect(_Words):
    """What must hold after a turn, or at the end of the scenario. A number is exact, or a bound such as `"<= 3"`."""

    reply: Text | None = None
    """What the user saw."""
    blocks: dict[str, BlockText] = Field(default_factory=dict, min_length=1)
    """Core memory, by the block's label."""
    archival: Text | None = None
    """All of archival memory that is valid, a passage a line."""
    superseded: dict[str, _Text] = Field(default_factory=dict, min_length=1)
    """By words of a passage that is valid no more: words of the one that took its place."""
    recall: Text | None = None
    """All past messages of user and agent, one a line."""
    search: list[Search] = Field(default_factory=list, min_length=1)
    """What searches find."""
    calls: list[Call] | None = None
    """Calls made, in this order, others may stand between; of text arguments a part is enough. `[]`: none were made."""
    waits: list[Call] | None = None
    """Calls that wait for approval, in this order, others may stand between; the turn may stop at them. `[]`: none."""
    private: dict[str, Texts] = Field(default_factory=dict, min_length=1)
    """By user: words that are theirs, and that no other user may see or have an agent that knows."""
    judge: Texts = Field(default_factory=list)
    """Sentences about the conversation that a judge model finds true; without one they are reported as not judged."""
    stop_reason: StopReason | None = None
    """How the turn ended, or the first turn that did not end by itself; it must have run."""
    heartbeats: Number | None = None
    """Steps without user input."""
    page_outs: Number | None = None
    """How often messages left the context."""
    llm_calls: Number | None = None
    """Requests to the model."""
    prompt_tokens: Number | None = None
    """Tokens of all prompts together."""
    cost_usd: Number | None = None
    """US dollars; unknown prices count as 0."""
    fill: Number | None = None
    """Share of the model's window that the next prompt would take, 0 to 1."""


class Inject(_Words):
    """Material that comes from elsewhere and may carry instructions."""

    document: str | None = None
    """Put into archival memory as an imported text."""
    tool: str | None = Field(default=None, pattern=r"^[a-zA-Z]\w{0,63}$")
    """A tool the agent has in this scenario; `result` is what it returns from here on."""
    result: str | None = None
    """What `tool` returns."""

    @model_validator(mode="after")
    def _one_source(self) -> "Inject":
        if (self.document is None) == (self.tool is None) or (self.tool is None) != (self.result is None):
            raise ValueError("give either `document`, or `tool` with its `result`")
        if any(tool.name == self.tool for tool in MEMORY_TOOLS):
            raise ValueError(f"{self.tool} is a tool that every agent has; choose another name")
        return self


class Kill(_Words):
    """Where in the turn its process is killed with SIGKILL; the turn then goes on in a new one."""

    before: str | None = None
    """A tool: its call is saved and has not run."""
    after: str | None = None
    """A tool: its result is saved, and nothing behind it."""
    during: Literal["model"] | None = None
    """`model`: its first answer begins to come in, and nothing of it is saved."""

    @model_validator(mode="after")
    def _one_point(self) -> "Kill":
        if [self.before, self.after, self.during].count(None) != 2:
            raise ValueError("give one of `before` and `after`, with a tool's name, and `during: model`")
        return self

    @property
    def point(self) -> str:
        """Where it happens, in words."""
        if self.during:
            return "while the model answers"
        return f"before {self.before}" if self.before else f"after {self.after}"


class Turn(_Words):
    """One thing that happens, and what must hold after it. A turn with `expect` alone only looks."""

    user: str | None = Field(default=None, min_length=1)
    """What the user says."""
    approve: bool | None = None
    """A person approves the calls that wait for it, or with `false` refuses them; their turn goes on."""
    reason: str = ""
    """Why they are approved or refused; the model is told why it was refused."""
    edit: dict[str, str] | None = Field(default=None, min_length=1)
    """A person rewrites blocks: label and new text."""
    inject: Inject | None = None
    """A document or a tool's result comes in."""
    advance: Period | None = None
    """Time passes while the agent is up, such as `3 days`; timers that fall due fire."""
    restart: Restart | None = None
    """The process ends and a new one starts, at once or after a time such as `3 days`; timers that fell due fire."""
    speaker: str = Field("user", alias="as", pattern=r"^\w[\w-]{0,39}$")
    """Which user this is about; each has an agent of their own unless `agents` says otherwise."""
    script: list[Line | str] = Field(default_factory=list)
    """What the scripted model answers, a line a request; a plain text is all it says."""
    kill: Kill | None = None
    """Kill the process in the middle of this turn of the user's."""
    repeat: int = Field(default=1, ge=1, le=1000)
    """Say it so many times; `{n}` in the text is the number."""
    needs: Texts = Field(default_factory=list)
    """Names of `facts` without which the model cannot answer it well."""
    expect: Expect | None = None
    """What must hold after it."""

    @model_validator(mode="after")
    def _one_action(self) -> "Turn":
        given = [name for name in _ACTIONS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"one thing a turn: {' and '.join(given)} need a turn each")
        if not given and self.expect is None:
            raise ValueError(f"say what happens: one of {', '.join(_ACTIONS)}; or give `expect`")
        if self.user is None and (self.kill or self.repeat > 1 or self.needs):
            raise ValueError("`kill`, `repeat` and `needs` belong to a turn with `user`")
        if self.reason and self.approve is None:
            raise ValueError("`reason` belongs to a turn with `approve`")
        if self.kill and self.repeat > 1:
            raise ValueError("`kill` and `repeat` need a turn each")
        return self

    @property
    def action(self) -> str:
        """What happens, in one line."""
        if self.user is not None:
            text = f"{self.speaker}: {' '.join(self.user.split())}"
            if self.kill:
                return f"{text} (killed {self.kill.point})"
            return f"{text} ({self.repeat} times)" if self.repeat > 1 else text
        if self.approve is not None:
            why = f": {' '.join(self.reason.split())}" if self.reason else ""
            return f"a person {'approves' if self.approve else 'refuses'} what waits{why}"
        if self.edit:
            return f"a person edits {', '.join(self.edit)}"
        if self.inject:
            return f"{self.inject.tool} will return a text" if self.inject.tool else "a document comes in"
        if self.restart:
            return "restart" if self.restart is True else f"restart after {self.restart}"
        return f"{self.advance} pass" if self.advance else "a look"

    @property
    def digest(self) -> str:
        """A hash of all that decides how it is played."""
        words = self.model_dump_json(exclude={"expect", "needs"}, exclude_defaults=True)
        return hashlib.sha256(words.encode()).hexdigest()[:16]

    @property
    def texts(self) -> list[str]:
        """What comes in by this turn."""
        inject = self.inject or Inject(document="")
        return [text for text in (self.user, inject.document, inject.result, *(self.edit or {}).values()) if text]

    @property
    def lines(self) -> list[Line]:
        """The script's lines in full."""
        return [Line(say=line) if isinstance(line, str) else line for line in self.script]


def _duration(turn: Turn) -> timedelta:
    passed = turn.advance or turn.restart
    return timedelta(minutes=turn.repeat) + (period(passed) if isinstance(passed, str) else timedelta())


@dataclass(frozen=True)
class Telling:
    """The turn in which a value of a fact is told."""

    value: str
    turn: int
    """Its place among the turns, from 0."""
    speaker: str


class Scenario(_Words):
    """One scenario file."""

    name: str = Field(min_length=1)
    """What the scenario is about, in a few words."""
    persona: str = "assistant"
    """Who the agents are; a file in `personas/NAME/scenarios/` is about NAME unless it says otherwise."""
    model: Literal["offline", "script", "recorded"] = "offline"
    """`offline`: the rule-based model of the package. `script`: what the turns' `script` says. `recorded`: what a live
    model said, from the cassette beside this file."""
    context_window: int | None = Field(default=None, ge=8000)
    """Tokens of the model's window to use; a small one fills soon."""
    start: AwareDatetime = datetime(2026, 5, 8, 9, 30, tzinfo=UTC)
    """When the scenario begins, with offset. Each turn takes a minute."""
    agents: dict[str, str] = Field(default_factory=dict)
    """By user: the agent they talk with, where it is not one of their own."""
    approvals: dict[str, Approval] = Field(default_factory=dict)
    """By tool: whether its calls run without asking (`always`), each once a person approved it (`ask`), or `never`;
    where the persona says otherwise, this holds."""
    facts: dict[str, Texts] = Field(default_factory=dict)
    """What the agent is told and should know, for the measures of memory: a name, and the words that carry the fact.
    Of several each takes the place of the one before."""
    remarks: Texts = Field(default_factory=list)
    """Words said in passing, or brought in by a document or a tool: they belong in no lasting memory."""
    turns: list[Turn] = Field(min_length=1)
    """What happens, in order."""
    expect: Expect | None = None
    """What must hold at the end; numbers, calls and replies are those of all turns, memory is the last agent's."""

    @model_validator(mode="after")
    def _script_is_used(self) -> "Scenario":
        if self.model != "script" and any(turn.script for turn in self.turns):
            raise ValueError("the turns have a `script`; say `model: script`")
        return self

    @model_validator(mode="after")
    def _approvals_are_of_tools(self) -> "Scenario":
        tools = [*(tool.name for tool in MEMORY_TOOLS), *self.injected]
        for name in self.approvals:
            if name not in tools:
                raise ValueError(f"approvals: there is no tool {name!r}; there are: {', '.join(tools)}")
        return self

    @model_validator(mode="after")
    def _ends_in_time(self) -> "Scenario":
        try:
            end = self.start.astimezone(UTC) + sum(map(_duration, self.turns), timedelta())
        except OverflowError:
            end = datetime.max
        if end.year == datetime.max.year:
            raise ValueError("the scenario leaves the years 1 to 9998; let it begin at another time, or less time pass")
        return self

    @model_validator(mode="after")
    def _users_are_known(self) -> "Scenario":
        speakers = {turn.speaker for turn in self.turns}
        expects = [e for e in (self.expect, *(turn.expect for turn in self.turns)) if e]
        for user in (*self.agents, *(user for e in expects for user in e.private)):
            if user not in speakers:
                raise ValueError(f"no turn is `as: {user}`; the users are: {', '.join(sorted(speakers))}")
        return self

    @model_validator(mode="after")
    def _end_is_about_somebody(self) -> "Scenario":
        addressed = {turn.speaker for turn in self.turns if turn.user or turn.edit or turn.inject or turn.expect}
        last = self.turns[-1].speaker
        if self.expect and last not in addressed:
            raise ValueError(f"the last turn is about {last!r}, of whom nothing was heard; give it `as`")
        return self

    @model_validator(mode="after")
    def _facts_are_told(self) -> "Scenario":
        for name, values in self.facts.items():
            for old, new in itertools.permutations(dict.fromkeys(map(str.casefold, values)), 2):
                if old in new:
                    raise ValueError(f"fact {name!r}: {old!r} is part of {new!r}; choose words that tell them apart")
            untold = values[len(self.tellings(name)) :]
            if untold:
                raise ValueError(
                    f"fact {name!r}: no turn with `user` or `edit` says {untold[0]!r}, or not in this order"
                )
        for word in self.remarks:
            if not any(holds(text, word) for turn in self.turns for text in turn.texts):
                raise ValueError(f"no turn says {word!r}, which is one of the `remarks`")
        for number, turn in enumerate(self.turns):
            for name in turn.needs:
                if name not in self.facts:
                    raise ValueError(f"there is no fact {name!r}; the facts are: {', '.join(self.facts) or 'none'}")
                if self.tellings(name)[0].turn >= number:
                    raise ValueError(f"a turn needs the fact {name!r}, which is told later")
        return self

    @property
    def injected(self) -> list[str]:
        """The tools that agents have in this scenario only, sorted."""
        return sorted({turn.inject.tool for turn in self.turns if turn.inject and turn.inject.tool})

    def tellings(self, fact: str) -> list[Telling]:
        """When each value of a fact is told, in order, as far as turns do."""
        found: list[Telling] = []
        turns = iter(enumerate(self.turns))
        for value in self.facts[fact]:
            for number, turn in turns:
                if any(holds(text, value) for text in (turn.user or "", *(turn.edit or {}).values())):
                    found.append(Telling(value, number, turn.speaker))
                    break
        return found

    def agent_of(self, speaker: str) -> str:
        """The name of the agent that a user talks with."""
        return self.agents.get(speaker, speaker)


class Bounds(_Words):
    """What the measures of a scenario set must come to; see `agentos.scenarios.measures`."""

    recall: Number | None = None
    """Share of needed facts that were in the model's view."""
    precision: Number | None = None
    """Share of the memories shown by searches that were needed."""
    forgetting: Number | None = None
    """Turns until a replaced value is used no more."""
    contamination: Number | None = None
    """Share of remarks, and of facts of other users, that came into memory."""
    save_rate: Number | None = None
    """Share of facts that were in lasting memory before they were paged out."""
    staleness: Number | None = None
    """Share of views of a value in which an old one stood above."""
    drift: Number | None = None
    """Share of memories that differ from those of the first model or embedder."""


MEASURES = tuple(Bounds.model_fields)
"""The measures, in the order of reports."""


def json_schema() -> str:
    """The schema of a scenario file, as it is shipped."""
    schema = Scenario.model_json_schema(by_alias=True)
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2) + "\n"


def write_schema() -> None:
    """Make the shipped schema anew, after a change to the models."""
    SCHEMA.write_text(json_schema(), encoding="utf-8")
