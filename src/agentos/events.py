"""What a turn yields while it runs. The CLI prints these, the server streams them, the tests collect them."""

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from agentos.messages import StopReason, Usage


@dataclass(frozen=True)
class TurnResult:
    """How a turn ended; `as_json` is the object of `--output-format json`."""

    agent: str
    reply: str
    run_id: str
    stop_reason: StopReason
    steps: int
    llm_calls: int
    usage: Usage
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    """{"name", "arguments", "ok"} in order."""
    error: str | None = None
    """One sentence with the remedy, when the turn did not end by itself."""
    approvals: list[dict[str, Any]] = field(default_factory=list)
    """{"call_id", "name", "arguments"} of the calls that wait for approval; the turn goes on once they are decided."""

    def as_json(self) -> dict[str, Any]:
        """The result as plain JSON values; `error` and `approvals` only where there are some."""
        values = asdict(self)
        for name in ("error", "approvals"):
            if not values[name]:
                del values[name]
        return values


@dataclass(frozen=True)
class BlockEdit:
    """A core memory block before and after a call."""

    label: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events. `seq` counts from 0 within a run."""

    type: ClassVar[str]
    run_id: str = ""
    seq: int = 0

    def as_json(self) -> dict[str, Any]:
        """The event as plain JSON values, `type` first."""
        return {"type": self.type, **asdict(self)}


@dataclass(frozen=True)
class TextDelta(Event):
    """Visible text as it arrives. `fallback` marks the runtime's own plain sentence."""

    type: ClassVar[str] = "text_delta"
    text: str
    fallback: bool = False
    place: int = 0
    """The place in the message queue (`Message.seq`) of the message it becomes."""
    at: int = 0
    """Characters of that message before it."""


@dataclass(frozen=True)
class ReasoningDelta(Event):
    """What the model thinks before it speaks, as it arrives; no answer to the user, and not shown in a terminal."""

    type: ClassVar[str] = "reasoning_delta"
    text: str
    place: int = 0
    at: int = 0
    """Both as in `TextDelta`."""


@dataclass(frozen=True)
class ToolCallEvent(Event):
    """A call the model asked for, saved and about to run."""

    type: ClassVar[str] = "tool_call"
    call_id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class ToolResultEvent(Event):
    """A call's saved result, with the blocks it changed."""

    type: ClassVar[str] = "tool_result"
    call_id: str
    name: str
    ok: bool
    text: str
    edits: tuple[BlockEdit, ...] = ()


@dataclass(frozen=True)
class Heartbeat(Event):
    """The loop goes on without user input. `reason`: requested, failed call, nudge, timer or alert."""

    type: ClassVar[str] = "heartbeat"
    reason: str


@dataclass(frozen=True)
class Alert(Event):
    """A notice entered the queue: `memory_pressure`, `outside_edit` or `timer`."""

    type: ClassVar[str] = "alert"
    kind: str
    text: str


@dataclass(frozen=True)
class PageOut(Event):
    """Messages left the context: the receipt of what moved."""

    type: ClassVar[str] = "page_out"
    message_ids: tuple[int, ...]
    tokens_before: int
    tokens_after: int
    saving_step: str


@dataclass(frozen=True)
class Retry(Event):
    """A model request failed and is tried again after `wait_seconds`."""

    type: ClassVar[str] = "retry"
    error: str
    attempt: int
    wait_seconds: float

    @property
    def line(self) -> str:
        """What is going on, in one line for a person."""
        when = f"in {self.wait_seconds:.0f} s" if self.wait_seconds >= 1 else "at once"
        return f"trying again {when}: {self.error}"


@dataclass(frozen=True)
class TurnEnded(Event):
    """The last event of a run, or of what it did until it stopped for approval.

    `inbox_id` is the input it answered, None for a timer's turn.
    """

    type: ClassVar[str] = "result"
    result: TurnResult
    inbox_id: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The result object itself, with the event's own fields in front."""
        return {"type": self.type, "run_id": self.run_id, "seq": self.seq, **self.result.as_json()}


@dataclass(frozen=True)
class Saved(Event):
    """Something of the run was saved; the database tells what."""

    type: ClassVar[str] = "saved"


_TYPES: dict[str, type[Event]] = {
    kind.type: kind
    for kind in (
        TextDelta, ReasoningDelta, ToolCallEvent, ToolResultEvent, Heartbeat, Alert, PageOut, Retry, Saved, TurnEnded,
    )
}  # fmt: skip


def event_from_json(values: dict[str, Any]) -> Event | None:
    """The event that `as_json` gave, as far as it says; None for a type that is not known here."""
    values = dict(values)
    kind = _TYPES.get(values.pop("type", ""))
    if kind is None:
        return None
    if kind is TurnEnded:
        result = {f: values[f] for f in TurnResult.__dataclass_fields__ if f in values}
        result["usage"] = Usage(**result["usage"])
        return TurnEnded(TurnResult(**result), values.get("inbox_id"), run_id=values["run_id"], seq=values["seq"])
    if "edits" in values:
        values["edits"] = tuple(BlockEdit(**edit) for edit in values["edits"])
    if "message_ids" in values:
        values["message_ids"] = tuple(values["message_ids"])
    return kind(**{name: value for name, value in values.items() if name in kind.__dataclass_fields__})
