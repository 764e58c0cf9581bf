"""What happened in a run of a scenario, as values: all that its expectations are checked on."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentos.errors import UsageError
from agentos.scenarios.model import Scenario


class _Values(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Hits(_Values):
    """What one search found, best first."""

    query: str
    place: Literal["archival", "recall"]
    as_of: str | None = None
    include_superseded: bool = False
    texts: list[str]

    @property
    def is_of_now(self) -> bool:
        """Whether it asked for nothing but what is valid."""
        return self.as_of is None and not self.include_superseded


class Said(_Values):
    """A message of user or agent."""

    ref: str
    role: str
    text: str


class Found(_Values):
    """One memory that a search showed."""

    ref: str
    rank: int | None = None
    """1 is the best; None for one that was paged in by its id."""
    text: str
    superseded: bool = False
    """Whether it was marked as a passage whose place another took."""

    @property
    def place(self) -> Literal["archival", "recall"]:
        """The memory it comes from."""
        return "archival" if self.ref.startswith("p") else "recall"


class Change(_Values):
    """A row of the journal: who changed what in memory, when and from which message."""

    at: datetime
    actor: str
    action: str
    target: str
    note: str = ""
    run_id: str | None = None
    message_id: int | None = None
    call_id: str | None = None
    before: str | None = None
    """What the target read before it, for a block or passage."""
    text: str | None = None
    """What it reads after it."""
    messages: list[str] = Field(default_factory=list)
    """The messages that a page-out moved."""


class Memory(_Values):
    """What an agent holds after a turn, and how it came there."""

    blocks: dict[str, str]
    archival: dict[str, str]
    """Valid passages by id, oldest first."""
    superseded: list[tuple[str, str]] = Field(default_factory=list)
    """Texts of passages that another took the place of, oldest first, each with the text that did; none deleted."""
    summary: str
    """What stands in the context for messages that were paged out."""
    new_messages: list[Said]
    """Messages of user and agent saved in this turn, oldest first."""
    new_results: list[str]
    """Tool results saved in this turn."""
    shown: list[list[Found]]
    """What each search of this turn showed, in the order shown."""
    journal: list[Change]
    """What happened to its memory in this turn, oldest first."""


class TurnRecord(_Values):
    """One turn of the scenario, as it went."""

    number: int
    """From 1."""
    action: str
    """What happened, in one line."""
    digest: str
    """Of the scenario's turn that was played; see `Turn.digest`."""
    speaker: str
    agent: str
    reply: str = ""
    calls: list[dict[str, Any]] = Field(default_factory=list)
    """{"name", "arguments", "ok"} in order."""
    waits: list[dict[str, Any]] = Field(default_factory=list)
    """{"name", "arguments"} of the calls that wait for approval after it, in order."""
    stop_reason: str | None = None
    """How the first run ended that did not end by itself, else `end_turn`; None where nothing ran."""
    error: str | None = None
    """Why the scenario could not be played as written, in one sentence."""
    run_error: str | None = None
    """Why a run did not end by itself, in one sentence."""
    heartbeats: int = 0
    page_outs: int = 0
    llm_calls: int = 0
    prompt_tokens: int = 0
    cost_usd: float | None = None
    fill: float = 0.0
    """Share of the window that the next prompt would take."""
    events: list[dict[str, Any]] = Field(default_factory=list)
    """What the runtime told while it ran."""
    memory: dict[str, Memory] = Field(default_factory=dict)
    """By agent: all agents of the home."""
    diff: list[str] = Field(default_factory=list)
    """What the turn changed in memory: lines with `+` and `-`."""
    searches: list[Hits] = Field(default_factory=list)


class Verdict(_Values):
    """What a judge model thinks of a sentence."""

    turn: int
    """From 1; 0 is the end of the scenario."""
    sentence: str
    met: bool | None
    """None: its answer was neither yes nor no, or there was none."""
    answer: str
    """What it said, or why it said nothing."""


class Trajectory(_Values):
    """One run of a scenario."""

    name: str
    path: str
    """The scenario's file; empty for one that was made in a program."""
    persona: str
    model: str
    embedding: str = "static"
    key: str = ""
    """Of the session and all that decided how it was played; see `Session.key`."""
    seconds: float = 0.0
    judged: list[Verdict] = Field(default_factory=list)
    turns: list[TurnRecord] = Field(default_factory=list)

    def is_of(self, scenario: Scenario) -> bool:
        """Whether it was played with the turns that the scenario has now."""
        return [turn.digest for turn in scenario.turns] == [record.digest for record in self.turns]

    def save(self, path: Path) -> None:
        """Write it as JSON lines: the run, then a line for each turn."""
        head = self.model_dump_json(exclude={"turns"})
        path.write_text("\n".join([head, *(turn.model_dump_json() for turn in self.turns)]) + "\n", encoding="utf-8")


def worst(reasons: Sequence[str | None]) -> str | None:
    """The first of several stop reasons that is not `end_turn`, else `end_turn`; None where nothing ran."""
    given = [reason for reason in reasons if reason]
    return max(given, key=lambda reason: reason != "end_turn", default=None)


def load_trajectory(path: Path) -> Trajectory:
    """A saved run; `UsageError` says why it cannot be read."""
    try:
        lines = path.read_text("utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}; name a file that `agentos test` saved") from None
    try:
        trajectory = Trajectory.model_validate_json(lines[0])
        trajectory.turns = [TurnRecord.model_validate_json(line) for line in lines[1:]]
    except ValidationError as error:
        told = error.errors()[0]["msg"]
        raise UsageError(f"{path} is no saved run of a scenario: {told}; run the scenario again") from None
    return trajectory
