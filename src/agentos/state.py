"""The saved state of one agent, as plain values: what the loop's next action is computed from."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from agentos.messages import Approval, Block, Input, Message, StopReason, SummaryEntry, ToolCall, Usage

RunStatus = Literal["created", "running", "completed", "failed", "cancelled"]
"""`created`: accepted, its turn waits for its place."""
OPEN: tuple[RunStatus, ...] = ("created", "running")
"""A run of these has not ended."""


@dataclass(frozen=True)
class Limits:
    """What one turn may spend; None: nothing is said about it here."""

    max_steps: int | None = None
    max_tokens: int | None = None
    """Prompt and completion tokens together."""
    max_cost_usd: float | None = None

    def over(self, other: "Limits") -> "Limits":
        """These, and where they say nothing the other's."""
        return replace(other, **{name: value for name, value in vars(self).items() if value is not None})


@dataclass(frozen=True)
class Snapshot:
    """What the head of the prompt was made from: block versions and the parts' hashes, no text."""

    versions: tuple[int, ...]
    """Block versions in order."""
    parts: dict[str, str]
    """Short hashes of `system`, `tools`, `model` and `blocks` (the blocks' labels, limits, descriptions)."""
    reason: str
    """Why it was taken: `start`, `page_out`, `pause`, `reset`, or the part that changed."""


@dataclass(frozen=True)
class AgentRecord:
    """One agent's row."""

    id: str
    name: str
    persona: str
    created_at: datetime
    model: str | None = None
    """None: the model of the settings."""
    system: str | None = None
    """None: the system prompt that comes with the package."""
    tools: tuple[str, ...] | None = None
    """Names of the tools it may use; None: all of its toolset."""
    limits: Limits = field(default_factory=Limits)
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of its own: `context_window`, tokens; `approvals`, tool name -> `Approval`."""
    head_seq: int = 0
    """Messages up to this place were paged out of the queue."""
    last_seq: int = 0
    """Place of the newest message of the queue."""
    fill_seq: int = 0
    """`last_seq` when the queue was last paged out or emptied; memory pressure is told once per fill."""
    core_room: int = 0
    """Tokens its core memory may take, as of the last rebase; 0 before the first."""
    faulting: bool = False
    """Whether, at the last page-out, searches kept asking for what an earlier one had moved."""
    snapshot: Snapshot | None = None
    anchor_seq: int = 0
    """The message behind the previous request, mostly its reply; 0: no request since the last rebase."""
    anchor_tokens: int = 0
    """Tokens of that request and message, as the provider reported them or else as estimated."""
    token_ratio: float = 1.0
    """Tokens the provider reports for each token we estimate."""
    last_step_at: datetime | None = None
    version: int = 0
    """Grows with every change to the agent, its blocks or its queue."""
    description: str = ""
    tags: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
    """What clients keep with it."""

    @property
    def window_tokens(self) -> int | None:
        """Use at most this much of the model's window."""
        tokens: int | None = self.settings.get("context_window")
        return tokens

    @property
    def approvals(self) -> dict[str, Approval]:
        """For which tools it has an approval of its own, whatever theirs says."""
        return dict(self.settings.get("approvals", {}))


@dataclass(frozen=True)
class Decision:
    """What somebody said of a call that waited for approval."""

    approve: bool
    reason: str = ""
    """Of a refusal: what the model is told."""
    by: str = "user"
    at: datetime | None = None
    """Set when it is saved."""


@dataclass(frozen=True)
class RunRecord:
    """One turn's row."""

    id: str
    agent_id: str
    created_at: datetime
    trigger: Literal["user", "timer"] = "user"
    inbox_id: int | None = None
    status: RunStatus = "running"
    stop_reason: StopReason | None = None
    steps: int = 0
    llm_calls: int = 0
    spoke: bool = False
    """Whether the user has seen a word of this turn."""
    nudged: bool = False
    usage: Usage = field(default_factory=Usage)
    error: str | None = None
    ended_at: datetime | None = None
    max_steps: int | None = None
    """What its input asks for; the agent's own limit holds too."""
    background: bool = False
    """Whether its sender did not wait for it."""
    decisions: dict[str, Decision] = field(default_factory=dict)
    """Call id -> what was decided of it."""

    @property
    def awaits_approval(self) -> bool:
        """Whether it stopped at calls that somebody has yet to approve, and goes on after that."""
        return self.status == "running" and self.stop_reason == "requires_approval"

    @property
    def stopped(self) -> bool:
        """Whether it has ended, or does nothing more until somebody decides."""
        return self.status not in OPEN or self.awaits_approval

    def refusal(self, call: ToolCall) -> str | None:
        """Why a call was not approved; None where it was, and where nobody was asked."""
        decision = self.decisions.get(call.id)
        return None if decision is None or decision.approve else decision.reason or "no reason was given"


@dataclass(frozen=True)
class StepRecord:
    """One model call: usage and the cache ledger's row."""

    run_id: str
    agent_id: str
    created_at: datetime
    kind: Literal["conversation", "summary", "plain"]
    """`plain`: a call of the agent's model without the agent, for a client."""
    model: str
    usage: Usage
    estimated_tokens: int
    """Our own count of the prompt."""
    expected_cached_tokens: int
    """What the provider's cache should have held: the previous prompt, unless something threw it away."""
    cache_note: str
    """Why nothing was expected (`start`, `page_out`, `pause`, ...), or `` when the prefix was kept."""
    latency_ms: int
    finish_reason: str = ""
    message_id: int | None = None
    error: str | None = None
    id: int = 0


@dataclass(frozen=True)
class InboxItem:
    """Input that was accepted and waits for its turn."""

    id: int
    agent_id: str
    created_at: datetime
    otid: str | None = None
    body_hash: str = ""
    run_id: str = ""
    """The run that answers it, made with it."""
    max_steps: int | None = None
    background: bool = False
    """Both as in that run."""


@dataclass(frozen=True)
class Timer:
    """A wake-up the agent or a person set."""

    id: int
    agent_id: str
    due_at: datetime
    note: str


@dataclass(frozen=True)
class Schedule:
    """Input that comes at a set time, or again and again."""

    id: str
    agent_id: str
    created_at: datetime
    inputs: tuple[Input, ...]
    """The messages of the turn."""
    cron: str | None = None
    """Five fields; None: once."""
    zone: str = ""
    """The IANA name of the time zone that `cron` is read in; empty: the machine's."""
    next_at: datetime | None = None
    """When it is due; None: it is over."""


@dataclass(frozen=True)
class StoredTool:
    """A tool that a client described. Its source is kept and never executed."""

    id: str
    name: str
    created_at: datetime
    description: str = ""
    json_schema: dict[str, Any] = field(default_factory=dict)
    """The function of the chat completions format: name, description, parameters."""
    source_code: str = ""
    source_type: str = "python"
    tags: tuple[str, ...] = ()
    return_char_limit: int = 50_000
    meta: dict[str, Any] = field(default_factory=dict)
    approval: Approval = "always"


@dataclass
class AgentState:
    """Everything the loop needs to know about one agent; always equal to what is saved."""

    agent: AgentRecord
    blocks: list[Block]
    snapshot_blocks: list[Block]
    """The blocks as the snapshot shows them."""
    queue: list[Message]
    """The message queue: every message in context, oldest first."""
    entries: list[SummaryEntry]
    """The summary's entries, oldest first."""
    run: RunRecord | None = None
    """The unfinished run, if any."""
    waiting: InboxItem | None = None
    """The oldest accepted input whose turn has not begun."""
    spoken_to: bool = False
    """Where the run awaits approval: whether a user's message waits, and not only what comes by the clock."""
    due: list[Timer] = field(default_factory=list)
    notices: list[Message] = field(default_factory=list)
    """Notices of the runtime that enter the queue at the next step."""
    started: set[str] = field(default_factory=set)
    """Ids of pending calls that began to run outside our database before a crash."""
    previous_prompt_tokens: int = 0
    """What the provider reported for the prompt of the agent's previous request."""

    def turn_messages(self) -> list[Message]:
        """The messages of the unfinished run that are still in context: the queue's tail."""
        found: list[Message] = []
        for message in reversed(self.queue):
            if self.run is None or message.run_id != self.run.id:
                break
            found.append(message)
        return found[::-1]

    def pending_calls(self) -> list[ToolCall]:
        """Calls of the newest assistant message that have no result yet, in order."""
        answered: set[str | None] = set()
        for message in reversed(self.queue):
            if message.role == "tool":
                answered.add(message.call_id)
            elif message.role == "assistant":
                return [call for call in message.calls if call.id not in answered]
            else:
                break
        return []

    def undecided_calls(self) -> list[ToolCall]:
        """Those of them that somebody has yet to approve, in order."""
        decided = self.run.decisions if self.run else {}
        return [call for call in self.pending_calls() if call.asks and call.id not in decided]
