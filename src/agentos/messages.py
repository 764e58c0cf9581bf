"""Plain values: what is said, called, remembered and counted. Nothing here does I/O."""

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta, timezone
from functools import cached_property
from math import isfinite
from typing import Any, Literal

Role = Literal["user", "assistant", "tool"]
Origin = Literal["user", "agent", "tool", "runtime", "import", "client"]
"""Who a text comes from: `client` is a program that uses the memory. Only `user` establishes facts about a user."""

Kind = Literal["message", "alert", "timer", "fallback"]
"""`alert` and `timer` are the runtime's own notices; `fallback` is its plain sentence at a turn's end."""

StopReason = Literal["end_turn", "max_steps", "budget", "loop", "cancelled", "llm_error", "requires_approval"]

Approval = Literal["always", "ask", "never"]
"""Whether a tool's calls run without asking, each once somebody approved it, or not at all."""

REASONING_FIELDS = ("reasoning_content", "reasoning")
"""Under which names servers send reasoning; it goes back under the name it came with."""

# NUL and lone surrogates cannot be stored or sent by every party.
_UNSENDABLE = re.compile("[\x00\ud800-\udfff]")


# What only the runtime may say to a model: in a user's text, often pasted, it is shown in round brackets.
_MARKERS = re.compile(
    r"\[(system notice|summary request|summary of earlier conversation|client\b[^\]\n]*)\]", re.IGNORECASE
)


def clean_text(text: str) -> str:
    """`text` with NUL and lone surrogates replaced by U+FFFD; everything else is kept as it came."""
    return _UNSENDABLE.sub("\ufffd", text)


def clean_json(value: Any, deepest: int = 50) -> Any:
    """JSON values with `clean_text` done to every text; `ValueError` for what cannot be stored or sent anywhere."""
    if not deepest:
        raise ValueError("it is nested too deep; make it flatter")
    match value:
        case str():
            return clean_text(value)
        case float() if not isfinite(value):
            raise ValueError(f"{value} is no number of JSON")
        case dict():
            return {clean_text(str(name)): clean_json(item, deepest - 1) for name, item in value.items()}
        case list():
            return [clean_json(item, deepest - 1) for item in value]
    return value


def at_local_time(wall: datetime, now: datetime) -> datetime:
    """A local time without offset as a point in time, by the offset in force then and not the one of `now`.

    Where `now` has the machine's own offset, the machine's rules of summer time hold; else those of its `tzinfo`.
    """
    return wall.astimezone() if now.tzinfo == now.astimezone().tzinfo else wall.replace(tzinfo=now.tzinfo)


def read_time(text: str, now: datetime, *, end: bool = False) -> datetime:
    """An ISO 8601 date or time as a point in time, local where it has no offset; `ValueError` for anything else.

    With `end` a bare date includes its whole day.
    """
    value = datetime.fromisoformat(text)
    if end and len(text) <= 10:
        value = datetime.combine(value, time.max)
    try:
        value = value if value.tzinfo else at_local_time(value, now)
        value.astimezone(UTC)
    except (ValueError, OverflowError):  # the first or last day of the calendar: all there is
        return value.replace(tzinfo=UTC)
    return value


@dataclass(frozen=True)
class ToolCall:
    """One call the model asked for."""

    id: str
    """Unique in the agent's history, at most 64 characters."""
    name: str
    arguments: str
    """JSON text of an object; `{}` where the model's own text was unusable."""
    error: str | None = None
    """Why the call cannot be run (cut off, not JSON, one too many); goes back to the model."""
    shown: str | None = None
    """JSON text that the context shows in place of arguments too long for it; None shows them."""
    asks: bool = False
    """Whether it runs only once somebody has approved it."""

    @property
    def values(self) -> dict[str, Any]:
        """The arguments as a dict."""
        return dict(json.loads(self.arguments))

    @property
    def in_context(self) -> str:
        """The arguments as the model sees them."""
        return self.arguments if self.shown is None else self.shown


@dataclass(frozen=True)
class Usage:
    """What one or more model calls used, in tokens and US dollars."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float | None = None
    """None when the price is unknown."""

    def __add__(self, other: "Usage") -> "Usage":
        costs = [c for c in (self.cost_usd, other.cost_usd) if c is not None]
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            sum(costs) if costs else None,
        )


@dataclass(frozen=True)
class Input:
    """One message from outside, before it is saved."""

    text: str
    origin: Origin = "user"
    kind: Kind = "message"
    name: str | None = None
    """Who speaks, where several do."""


@dataclass(frozen=True)
class Message:
    """One message of an agent's history; rendered for a provider by `wire`."""

    id: int
    """Assigned when saved; 0 before. Shown to the model as `m<id>`."""
    agent_id: str
    role: Role
    content: str
    origin: Origin
    created_at: datetime
    utc_offset: int = 0
    """Minutes east of UTC where the message was saved; fixes the local time it shows."""
    seq: int | None = None
    """Place in the agent's message queue; None while it waits in the inbox and for imported messages."""
    kind: Kind = "message"
    run_id: str | None = None
    inbox_id: int | None = None
    calls: tuple[ToolCall, ...] = ()
    call_id: str | None = None
    """For a tool result: the call it answers."""
    name: str | None = None
    """For a tool result the tool's name; for an imported message the speaker's."""
    ok: bool | None = None
    heartbeat: bool = False
    """For a tool result: whether the call asked for another step."""
    shown: int | None = None
    """Characters of `content` the context shows; None shows all. Fixed when the message is saved."""
    provider: dict[str, Any] | None = None
    """Fields only their provider understands: {"name": provider, "fields": {...}}."""
    sources: tuple[str, ...] = ()
    """Ids (`m1`, `p2`) of the rows a tool result quotes."""
    session: str | None = None
    external_id: str | None = None

    @property
    def ref(self) -> str:
        """The id the model uses for this message."""
        return f"m{self.id}"

    @property
    def opens_exchange(self) -> bool:
        """Whether it is what somebody outside said, and not the agent, a tool or the runtime."""
        return self.origin in ("user", "client")

    @property
    def mark(self) -> str:
        """What the model is told before a text that is a program's and not the user's."""
        return f"[client {self.name or 'unknown'}] " if self.origin == "client" else ""

    @property
    def reasoning(self) -> str:
        """What the model thought before it spoke, where its provider tells."""
        fields = (self.provider or {}).get("fields", {})
        return str(next((fields[name] for name in REASONING_FIELDS if fields.get(name)), ""))

    @property
    def local_time(self) -> datetime:
        """When it was saved, in the local time of that moment."""
        return self.created_at.astimezone(timezone(timedelta(minutes=self.utc_offset)))

    @property
    def keywords(self) -> str:
        """Words it is found by besides its own: who spoke, and the local date."""
        if self.role == "tool":
            return ""
        day = self.local_time
        return f"{self.name or ''} {day:%A} {day.day} {day:%B} {day.year}".strip()

    @cached_property
    def wire(self) -> dict[str, Any]:
        """The message in the chat completions format, without provider fields."""
        text = self.content
        if self.shown is not None and self.shown < len(text):
            text = (
                f"{text[: self.shown]}\n[clipped: {self.shown} of {len(text)} characters shown; "
                f'page_in(["{self.ref}@{self.shown}"]) shows what follows]'
            )
        if self.role == "user":
            notice = "[system notice] " if self.kind in ("alert", "timer") else ""
            text = text if notice else self.mark + _MARKERS.sub(r"(\1)", text)
            return {"role": "user", "content": f"[{self.local_time:%Y-%m-%d %H:%M:%S %a}] {notice}{text}"}
        if self.role == "tool":
            return {"role": "tool", "tool_call_id": self.call_id, "content": text if text.strip() else "(empty)"}
        wire: dict[str, Any] = {"role": "assistant", "content": text or None}
        if self.calls:
            wire["tool_calls"] = [
                {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.in_context}}
                for c in self.calls
            ]
        return wire


@dataclass(frozen=True)
class Reply:
    """One finished model reply."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    usage: Usage | None = None
    """None when the provider reported none."""
    finish_reason: str = "stop"
    provider: dict[str, Any] | None = None
    model: str = ""


@dataclass(frozen=True)
class Block:
    """One block of core memory: bounded text that is always in context."""

    label: str
    value: str = ""
    limit: int = 5000
    """Characters."""
    description: str = ""
    read_only: bool = False
    """True: only a person may change it."""
    id: int = 0
    version_id: int = 0
    """The version that holds `value`; a write names the version it read."""
    seen_version_id: int = 0
    """The version the agent last saw in its context."""
    tags: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
    """What clients keep with it; no model sees it."""


@dataclass(frozen=True)
class Passage:
    """One entry of archival memory. Shown to the model as `p<id>`."""

    id: int
    agent_id: str
    text: str
    origin: Origin
    created_at: datetime
    tags: tuple[str, ...] = ()
    about: str | None = None
    """Whose words led to it: the speaker's name, else `user`. None: nobody's of a conversation."""
    run_id: str | None = None
    message_id: int | None = None
    call_id: str | None = None
    valid_to: datetime | None = None
    """When it ceased to be valid: superseded, or else deleted."""
    replaces: int | None = None
    """The passage that it superseded: the first, where its text was to take the place of several."""
    superseded_by: int | None = None
    """The passage that took its place; None of a valid or deleted one."""
    embedding: bytes | None = field(default=None, repr=False)
    """float32, little endian, L2-normalised; None until the embedder has answered."""
    fingerprint: str | None = None
    """The embedder that made `embedding`."""

    @property
    def ref(self) -> str:
        """The id the model uses for this passage."""
        return f"p{self.id}"


@dataclass(frozen=True)
class SummaryEntry:
    """The record of one page-out, and the dated entry that stands for it in the summary."""

    id: int
    agent_id: str
    created_at: datetime
    first_seq: int
    last_seq: int
    message_ids: tuple[int, ...]
    """The messages it covers, oldest first."""
    text: str
    """The mechanical part: ids, times, anchors and the user's own words."""
    prose: str | None
    """A little prose by the model; None until a model call gave it."""
    saving_step: str
    """`done`, `refused by budget`, `model down`, or `not asked` where a person compacted."""
    tokens_before: int
    tokens_after: int
    retired: bool = False
    """True once it left the summary; its messages are still in recall memory."""

    @property
    def rendered(self) -> str:
        """The entry as the context shows it."""
        return self.text + (f"\n  notes: {self.prose}" if self.prose else "")


@dataclass(frozen=True)
class Cause:
    """Who changes memory, and why: written to the journal with every change."""

    agent_id: str
    """Empty: a person changes a block that no agent has."""
    actor: Origin
    run_id: str | None = None
    message_id: int | None = None
    call_id: str | None = None
    client: str = ""
    """The name of the program, where the actor is `client`."""
