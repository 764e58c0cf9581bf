"""What happened in a run of a scenario, as values: all that its expectations are checked on."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentos.errors import UsageError


class _Values(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Hits(_Values):
    """What one search found, best first."""

    query: str
    place: Literal["archival", "recall"]
    texts: list[str]


class Memory(_Values):
    """What an agent holds after a turn."""

    blocks: dict[str, str]
    archival: list[str]
    """Valid passages, oldest first."""
    new_messages: list[str]
    """Messages of user and agent saved in this turn, oldest first."""
    new_results: list[str]
    """Tool results saved in this turn."""


class TurnRecord(_Values):
    """One turn of the scenario, as it went."""

    number: int
    """From 1."""
    action: str
    """What happened, in one line."""
    speaker: str
    agent: str
    reply: str = ""
    calls: list[dict[str, Any]] = Field(default_factory=list)
    """{"name", "arguments", "ok"} in order."""
    stop_reason: str | None = None
    """How its last run ended that did not end by itself, else `end_turn`; None where nothing ran."""
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


class Trajectory(_Values):
    """One run of a scenario."""

    name: str
    path: str
    """The scenario's file; empty for one that was made in a program."""
    persona: str
    model: str
    seconds: float = 0.0
    turns: list[TurnRecord] = Field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write it as JSON lines: the run, then a line for each turn."""
        head = self.model_dump_json(exclude={"turns"})
        path.write_text("\n".join([head, *(turn.model_dump_json() for turn in self.turns)]) + "\n", encoding="utf-8")


def load_trajectory(path: Path) -> Trajectory:
    """A saved run; `UsageError` says why it cannot be read."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}; name a file that `agentos test` saved") from None
    try:
        trajectory = Trajectory.model_validate_json(lines[0] if lines else "")
        trajectory.turns = [TurnRecord.model_validate_json(line) for line in lines[1:]]
    except ValidationError as error:
        told = error.errors()[0]["msg"]
        raise UsageError(f"{path} is no saved run of a scenario: {told}; run the scenario again") from None
    return trajectory
