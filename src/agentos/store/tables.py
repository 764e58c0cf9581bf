"""The tables of the session database. Every text has one home row; other rows refer to it by id."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, DateTime, Index, Integer, LargeBinary, String, false, text
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, SQLModel


class UtcTime(TypeDecorator[datetime]):
    """Aware datetimes as ISO 8601 UTC text of fixed width: sorts as text, readable with any tool."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> str | None:
        """To text."""
        return None if value is None else value.astimezone(UTC).isoformat(timespec="microseconds")

    def process_result_value(self, value: str | None, dialect: Any) -> datetime | None:
        """From text."""
        return None if value is None else datetime.fromisoformat(value)


def _time(nullable: bool = False) -> Any:
    return Field(default=None, sa_column=Column(UtcTime, nullable=nullable))


def _json(nullable: bool = False) -> Any:
    return Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=nullable))


def _where(condition: str) -> dict[str, Any]:
    """An index over the rows that fulfil the condition only."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


# An id is never given out twice, so that what the journal and old results name stays what it was.
_NEVER_REUSED = {"sqlite_autoincrement": True}


class AgentRow(SQLModel, table=True):
    """An agent (`agentos.state.AgentRecord`)."""

    __tablename__ = "agent"
    __table_args__ = (Index("ix_agent_time", "created_at", "id"),)
    id: str = Field(primary_key=True)
    name: str = Field(unique=True)
    persona: str
    created_at: datetime = _time()
    model: str | None = None
    system: str | None = None
    tools: list[str] | None = _json(nullable=True)
    limits: dict[str, Any] = _json()
    settings: dict[str, Any] = _json()
    head_seq: int = 0
    last_seq: int = 0
    fill_seq: int = 0
    core_room: int = 0
    faulting: bool = False
    snapshot: dict[str, Any] | None = _json(nullable=True)
    anchor_seq: int = 0
    anchor_tokens: int = 0
    token_ratio: float = 1.0
    last_step_at: datetime | None = _time(nullable=True)
    version: int = 0
    description: str = ""
    tags: list[str] = _json()
    meta: dict[str, Any] = _json()
    lease_owner: str | None = None
    """The process that holds the agent's turn, where several machines share the database."""
    lease_until: datetime | None = Field(default=None, sa_column=Column(DateTime(timezone=True), nullable=True))
    lease_epoch: int = Field(default=0, sa_column_kwargs={"server_default": "0"})


class BlockRow(SQLModel, table=True):
    """A core memory block; its text lives in its versions."""

    __tablename__ = "block"
    __table_args__ = (_NEVER_REUSED,)
    id: int | None = Field(default=None, primary_key=True)
    label: str
    limit: int
    description: str = ""
    read_only: bool = False
    version_id: int = 0
    tags: list[str] = _json()
    meta: dict[str, Any] = _json()


class BlockVersionRow(SQLModel, table=True):
    """One state of a block's text."""

    __tablename__ = "block_version"
    __table_args__ = (_NEVER_REUSED,)
    id: int | None = Field(default=None, primary_key=True)
    block_id: int = Field(index=True)
    value: str
    created_at: datetime = _time()
    origin: str
    agent_id: str | None = None
    run_id: str | None = None
    message_id: int | None = None
    call_id: str | None = None
    about: str | None = None
    restores: int | None = None


class AgentBlockRow(SQLModel, table=True):
    """Which agents have which blocks in context, and which version each last saw."""

    __tablename__ = "agent_block"
    agent_id: str = Field(primary_key=True)
    block_id: int = Field(primary_key=True, index=True)
    position: int = 0
    seen_version_id: int = 0


class InboxRow(SQLModel, table=True):
    """Accepted input: one row is one turn to come. `otid` is its idempotency key."""

    __tablename__ = "inbox"
    __table_args__ = (Index("ix_inbox_otid", "agent_id", "otid", unique=True),)
    id: int | None = Field(default=None, primary_key=True)
    agent_id: str = Field(index=True)
    created_at: datetime = _time()
    otid: str | None = None
    body_hash: str = ""
    run_id: str = ""


class MessageRow(SQLModel, table=True):
    """One message (`agentos.messages.Message`)."""

    __tablename__ = "message"
    __table_args__ = (
        Index("ix_message_queue", "agent_id", "seq", unique=True),
        Index("ix_message_time", "agent_id", "created_at"),
        Index("ix_message_external", "agent_id", "external_id", unique=True),
        _NEVER_REUSED,
    )
    id: int | None = Field(default=None, primary_key=True)
    agent_id: str
    role: str
    content: str
    origin: str
    created_at: datetime = _time()
    utc_offset: int = 0
    seq: int | None = None
    kind: str = "message"
    run_id: str | None = Field(default=None, index=True)
    inbox_id: int | None = Field(default=None, index=True)
    calls: list[dict[str, Any]] | None = _json(nullable=True)
    call_id: str | None = None
    name: str | None = None
    ok: bool | None = None
    heartbeat: bool = False
    shown: int | None = None
    provider: dict[str, Any] | None = _json(nullable=True)
    sources: list[str] | None = _json(nullable=True)
    session: str | None = None
    keywords: str = ""
    """What full text finds it by besides its content."""
    external_id: str | None = None


class PassageRow(SQLModel, table=True):
    """One passage of archival memory (`agentos.messages.Passage`)."""

    __tablename__ = "passage"
    __table_args__ = (
        Index("ix_passage_time", "agent_id", "created_at"),
        Index("ix_passage_hash", "agent_id", "text_hash"),
        Index("ix_passage_fingerprint", "agent_id", "fingerprint"),
        Index("ix_passage_superseded", "superseded_by", **_where("superseded_by IS NOT NULL")),
        _NEVER_REUSED,
    )
    id: int | None = Field(default=None, primary_key=True)
    agent_id: str
    text: str
    text_hash: str
    origin: str
    created_at: datetime = _time()
    tags: list[str] = _json()
    about: str | None = None
    run_id: str | None = None
    message_id: int | None = None
    call_id: str | None = None
    valid_to: datetime | None = _time(nullable=True)
    replaces: int | None = None
    superseded_by: int | None = None
    embedding: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    fingerprint: str | None = None


class RunRow(SQLModel, table=True):
    """One turn (`agentos.state.RunRecord`)."""

    __tablename__ = "run"
    __table_args__ = (
        Index("ix_run_agent", "agent_id", "status"),
        Index("ix_run_open", "status", "agent_id", **_where("status IN ('created', 'running')")),
    )
    id: str = Field(primary_key=True)
    agent_id: str
    created_at: datetime = _time()
    trigger: str
    inbox_id: int | None = Field(default=None, index=True)
    status: str = "running"
    stop_reason: str | None = None
    steps: int = 0
    llm_calls: int = 0
    spoke: bool = False
    nudged: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float | None = None
    error: str | None = None
    ended_at: datetime | None = _time(nullable=True)
    decisions: dict[str, Any] | None = _json(nullable=True)
    """What was decided of its calls that waited for approval, by call id."""
    max_steps: int | None = None
    background: bool = Field(default=False, sa_column_kwargs={"server_default": false()})


class StepRow(SQLModel, table=True):
    """One model call (`agentos.state.StepRecord`)."""

    __tablename__ = "step"
    id: int | None = Field(default=None, primary_key=True)
    run_id: str = Field(index=True)
    agent_id: str = Field(index=True)
    created_at: datetime = _time()
    kind: str
    model: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float | None = None
    estimated_tokens: int = 0
    expected_cached_tokens: int = 0
    cache_note: str = ""
    latency_ms: int = 0
    finish_reason: str = ""
    message_id: int | None = None
    error: str | None = None


class SummaryRow(SQLModel, table=True):
    """One page-out and its entry in the summary (`agentos.messages.SummaryEntry`)."""

    __tablename__ = "summary_entry"
    __table_args__ = (Index("ix_summary_agent", "agent_id", "retired"),)
    id: int | None = Field(default=None, primary_key=True)
    agent_id: str
    created_at: datetime = _time()
    first_seq: int
    last_seq: int
    message_ids: list[int] = _json()
    text: str
    prose: str | None = None
    saving_step: str
    tokens_before: int
    tokens_after: int
    retired: bool = False


class TimerRow(SQLModel, table=True):
    """A wake-up; `fired_at` is set in the commit that enters its notice."""

    __tablename__ = "timer"
    __table_args__ = (
        Index("ix_timer_due", "agent_id", "fired_at", "due_at"),
        Index("ix_timer_open", "due_at", **_where("fired_at IS NULL")),
    )
    id: int | None = Field(default=None, primary_key=True)
    agent_id: str
    due_at: datetime = _time()
    note: str
    call_id: str | None = None
    fired_at: datetime | None = _time(nullable=True)


class ScheduleRow(SQLModel, table=True):
    """Input that comes at a set time, or again and again (`agentos.state.Schedule`)."""

    __tablename__ = "schedule"
    id: str = Field(primary_key=True)
    agent_id: str = Field(index=True)
    created_at: datetime = _time()
    inputs: list[dict[str, Any]] = _json()
    cron: str | None = None
    zone: str = ""
    next_at: datetime | None = Field(default=None, sa_column=Column(UtcTime, nullable=True, index=True))


class ToolRow(SQLModel, table=True):
    """A tool that a client described. Its source is kept and never executed (`agentos.state.StoredTool`)."""

    __tablename__ = "tool"
    id: str = Field(primary_key=True)
    name: str = Field(unique=True)
    created_at: datetime = _time()
    description: str = ""
    json_schema: dict[str, Any] = _json()
    source_code: str = ""
    source_type: str = "python"
    tags: list[str] = _json()
    return_char_limit: int = 50_000
    meta: dict[str, Any] = _json()
    approval: str = Field(default="always", sa_column_kwargs={"server_default": "always"})


class McpServerRow(SQLModel, table=True):
    """An MCP server of an agent (`agentos.tools.servers.StoredServer`)."""

    __tablename__ = "mcp_server"
    agent_id: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    created_at: datetime = _time()
    config: dict[str, Any] = _json()
    tools: list[dict[str, Any]] | None = _json(nullable=True)
    problem: str = ""
    revision: str = ""


class OutboxRow(SQLModel, table=True):
    """A change the vector index has yet to take in."""

    __tablename__ = "outbox"
    __table_args__ = (_NEVER_REUSED,)  # whoever drains remembers how far
    id: int | None = Field(default=None, primary_key=True)
    agent_id: str = Field(index=True)
    passage_id: int
    op: str


class JournalRow(SQLModel, table=True):
    """Who changed what in memory, when, in which turn, from which message. Ids and hashes only, never text."""

    __tablename__ = "journal"
    __table_args__ = (
        Index("ix_journal_agent", "agent_id", "id"),
        Index("ix_journal_target", "agent_id", "target"),
        Index("ix_journal_run", "agent_id", "run_id", "id"),
        Index("ix_journal_client", "agent_id", "client", "id", **_where("client IS NOT NULL")),
        Index("ix_journal_undo", "agent_id", "id", **_where("undo_of IS NOT NULL")),
    )
    id: int | None = Field(default=None, primary_key=True)
    agent_id: str
    created_at: datetime = _time()
    actor: str
    action: str
    target: str
    note: str = ""
    run_id: str | None = None
    message_id: int | None = None
    call_id: str | None = None
    before_id: int | None = None
    after_id: int | None = None
    hash: str | None = None
    undo_of: int | None = None
    client: str | None = None
    """The name of the program, where the actor is `client`."""


class PassageTagsRow(SQLModel, table=True):
    """A passage's tags before and after a change of them, which the journal names by this id."""

    __tablename__ = "passage_tags"
    __table_args__ = (_NEVER_REUSED,)
    id: int | None = Field(default=None, primary_key=True)
    agent_id: str = Field(index=True)
    before: list[str] = _json()
    after: list[str] = _json()


class WindowRow(SQLModel, table=True):
    """A context window learned from a provider's refusal."""

    __tablename__ = "model_window"
    model: str = Field(primary_key=True)
    believed: int
    tokens: int


class HomeRow(SQLModel, table=True):
    """Facts about the home itself: its id and the salt of the journal's hashes."""

    __tablename__ = "home"
    key: str = Field(primary_key=True)
    value: str


# SQLite's integers have 64 bits; PostgreSQL is to refuse no number that SQLite would look up.
for _row in [value for value in vars().values() if hasattr(value, "__table__")]:
    for _column in _row.__table__.columns:
        if isinstance(_column.type, Integer):
            _column.type = BigInteger().with_variant(Integer(), "sqlite")
