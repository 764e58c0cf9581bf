"""The first schema."""

import secrets
import uuid

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table, the full-text tables with their triggers, and the home's own facts."""
    op.create_table(
        "agent",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("name", sa.String(), nullable=False, unique=True),
        sa.Column("persona", sa.String(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=True),
        sa.Column("system", sa.String(), nullable=True),
        sa.Column("tools", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("limits", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("settings", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("head_seq", sa.Integer(), nullable=False),
        sa.Column("last_seq", sa.Integer(), nullable=False),
        sa.Column("fill_seq", sa.Integer(), nullable=False),
        sa.Column("core_room", sa.Integer(), nullable=False),
        sa.Column("faulting", sa.Boolean(), nullable=False),
        sa.Column("snapshot", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("anchor_seq", sa.Integer(), nullable=False),
        sa.Column("anchor_tokens", sa.Integer(), nullable=False),
        sa.Column("token_ratio", sa.Float(), nullable=False),
        sa.Column("last_step_at", sa.String(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("tags", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("meta", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("lease_owner", sa.String(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_epoch", sa.Integer(), nullable=False, server_default="0"),
    )
    op.create_index("ix_agent_time", "agent", ["created_at", "id"])
    op.create_table(
        "agent_block",
        sa.Column("agent_id", sa.String(), primary_key=True),
        sa.Column("block_id", sa.Integer(), primary_key=True),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("seen_version_id", sa.Integer(), nullable=False),
    )
    op.create_index("ix_agent_block_block_id", "agent_block", ["block_id"])
    op.create_table(
        "block",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("label", sa.String(), nullable=False),
        sa.Column("limit", sa.Integer(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("read_only", sa.Boolean(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("tags", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("meta", sa.JSON(none_as_null=True), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "block_version",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("block_id", sa.Integer(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.Column("origin", sa.String(), nullable=False),
        sa.Column("agent_id", sa.String(), nullable=True),
        sa.Column("run_id", sa.String(), nullable=True),
        sa.Column("message_id", sa.Integer(), nullable=True),
        sa.Column("call_id", sa.String(), nullable=True),
        sa.Column("about", sa.String(), nullable=True),
        sa.Column("restores", sa.Integer(), nullable=True),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_block_version_block_id", "block_version", ["block_id"])
    op.create_table(
        "home",
        sa.Column("key", sa.String(), primary_key=True),
        sa.Column("value", sa.String(), nullable=False),
    )
    op.create_table(
        "inbox",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("agent_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.Column("otid", sa.String(), nullable=True),
        sa.Column("body_hash", sa.String(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=False),
    )
    op.create_index("ix_inbox_agent_id", "inbox", ["agent_id"])
    op.create_index("ix_inbox_otid", "inbox", ["agent_id", "otid"], unique=True)
    op.create_table(
        "journal",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("agent_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=True),
        sa.Column("message_id", sa.Integer(), nullable=True),
        sa.Column("call_id", sa.String(), nullable=True),
        sa.Column("before_id", sa.Integer(), nullable=True),
        sa.Column("after_id", sa.Integer(), nullable=True),
        sa.Column("hash", sa.String(), nullable=True),
        sa.Column("undo_of", sa.Integer(), nullable=True),
    )
    op.create_index("ix_journal_target", "journal", ["agent_id", "target"])
    op.create_table(
        "message",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("agent_id", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("content", sa.String(), nullable=False),
        sa.Column("origin", sa.String(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.Column("utc_offset", sa.Integer(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=True),
        sa.Column("inbox_id", sa.Integer(), nullable=True),
        sa.Column("calls", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("call_id", sa.String(), nullable=True),
        sa.Column("name", sa.String(), nullable=True),
        sa.Column("ok", sa.Boolean(), nullable=True),
        sa.Column("heartbeat", sa.Boolean(), nullable=False),
        sa.Column("shown", sa.Integer(), nullable=True),
        sa.Column("provider", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("sources", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("session", sa.String(), nullable=True),
        sa.Column("keywords", sa.String(), nullable=False),
        sa.Column("external_id", sa.String(), nullable=True),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_message_external", "message", ["agent_id", "external_id"], unique=True)
    op.create_index("ix_message_inbox_id", "message", ["inbox_id"])
    op.create_index("ix_message_queue", "message", ["agent_id", "seq"], unique=True)
    op.create_index("ix_message_run_id", "message", ["run_id"])
    op.create_index("ix_message_time", "message", ["agent_id", "created_at"])
    op.create_table(
        "model_window",
        sa.Column("model", sa.String(), primary_key=True),
        sa.Column("believed", sa.Integer(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("agent_id", sa.String(), nullable=False),
        sa.Column("passage_id", sa.Integer(), nullable=False),
        sa.Column("op", sa.String(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_outbox_agent_id", "outbox", ["agent_id"])
    op.create_table(
        "passage",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("agent_id", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("text_hash", sa.String(), nullable=False),
        sa.Column("origin", sa.String(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.Column("tags", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("about", sa.String(), nullable=True),
        sa.Column("run_id", sa.String(), nullable=True),
        sa.Column("message_id", sa.Integer(), nullable=True),
        sa.Column("call_id", sa.String(), nullable=True),
        sa.Column("valid_to", sa.String(), nullable=True),
        sa.Column("embedding", sa.LargeBinary(), nullable=True),
        sa.Column("fingerprint", sa.String(), nullable=True),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_passage_fingerprint", "passage", ["agent_id", "fingerprint"])
    op.create_index("ix_passage_hash", "passage", ["agent_id", "text_hash"])
    op.create_index("ix_passage_time", "passage", ["agent_id", "created_at"])
    op.create_table(
        "run",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("agent_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.Column("trigger", sa.String(), nullable=False),
        sa.Column("inbox_id", sa.Integer(), nullable=True),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("stop_reason", sa.String(), nullable=True),
        sa.Column("steps", sa.Integer(), nullable=False),
        sa.Column("llm_calls", sa.Integer(), nullable=False),
        sa.Column("spoke", sa.Boolean(), nullable=False),
        sa.Column("nudged", sa.Boolean(), nullable=False),
        sa.Column("prompt_tokens", sa.Integer(), nullable=False),
        sa.Column("completion_tokens", sa.Integer(), nullable=False),
        sa.Column("cached_tokens", sa.Integer(), nullable=False),
        sa.Column("cost_usd", sa.Float(), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("ended_at", sa.String(), nullable=True),
    )
    op.create_index("ix_run_agent", "run", ["agent_id", "status"])
    unfinished = sa.text("status IN ('created', 'running')")
    op.create_index("ix_run_open", "run", ["status", "agent_id"], sqlite_where=unfinished, postgresql_where=unfinished)
    op.create_index("ix_run_inbox_id", "run", ["inbox_id"])
    op.create_table(
        "schedule",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("agent_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.Column("inputs", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("cron", sa.String(), nullable=True),
        sa.Column("zone", sa.String(), nullable=False),
        sa.Column("next_at", sa.String(), nullable=True),
    )
    op.create_index("ix_schedule_agent_id", "schedule", ["agent_id"])
    op.create_index("ix_schedule_next_at", "schedule", ["next_at"])
    op.create_table(
        "tool",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("name", sa.String(), nullable=False, unique=True),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("json_schema", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("source_code", sa.String(), nullable=False),
        sa.Column("source_type", sa.String(), nullable=False),
        sa.Column("tags", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("return_char_limit", sa.Integer(), nullable=False),
        sa.Column("meta", sa.JSON(none_as_null=True), nullable=False),
    )
    op.create_table(
        "step",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("agent_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("prompt_tokens", sa.Integer(), nullable=False),
        sa.Column("completion_tokens", sa.Integer(), nullable=False),
        sa.Column("cached_tokens", sa.Integer(), nullable=False),
        sa.Column("cost_usd", sa.Float(), nullable=True),
        sa.Column("estimated_tokens", sa.Integer(), nullable=False),
        sa.Column("expected_cached_tokens", sa.Integer(), nullable=False),
        sa.Column("cache_note", sa.String(), nullable=False),
        sa.Column("latency_ms", sa.Integer(), nullable=False),
        sa.Column("finish_reason", sa.String(), nullable=False),
        sa.Column("message_id", sa.Integer(), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
    )
    op.create_index("ix_step_agent_id", "step", ["agent_id"])
    op.create_index("ix_step_run_id", "step", ["run_id"])
    op.create_table(
        "summary_entry",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("agent_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.Column("first_seq", sa.Integer(), nullable=False),
        sa.Column("last_seq", sa.Integer(), nullable=False),
        sa.Column("message_ids", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("prose", sa.String(), nullable=True),
        sa.Column("saving_step", sa.String(), nullable=False),
        sa.Column("tokens_before", sa.Integer(), nullable=False),
        sa.Column("tokens_after", sa.Integer(), nullable=False),
        sa.Column("retired", sa.Boolean(), nullable=False),
    )
    op.create_index("ix_summary_agent", "summary_entry", ["agent_id", "retired"])
    op.create_table(
        "timer",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("agent_id", sa.String(), nullable=False),
        sa.Column("due_at", sa.String(), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("call_id", sa.String(), nullable=True),
        sa.Column("fired_at", sa.String(), nullable=True),
    )
    op.create_index("ix_timer_due", "timer", ["agent_id", "fired_at", "due_at"])
    waiting = sa.text("fired_at IS NULL")
    op.create_index("ix_timer_open", "timer", ["due_at"], sqlite_where=waiting, postgresql_where=waiting)
    home = sa.table("home", sa.column("key", sa.String()), sa.column("value", sa.String()))
    op.bulk_insert(home, [{"key": "id", "value": uuid.uuid4().hex}, {"key": "salt", "value": secrets.token_hex(16)}])
    if op.get_bind().dialect.name == "sqlite":
        make_full_text = _sqlite_full_text
    else:
        make_full_text = _postgres_full_text
        _postgres_words()
        _widen()
    make_full_text("message", ("content", "keywords"), _SEARCHED)
    make_full_text("passage", ("text",), "true")


_SEARCHED = "{row}role != 'tool' AND {row}kind = 'message' OR {row}role = 'tool' AND {row}sources IS NULL"


def _widen() -> None:
    """Make PostgreSQL's integers, 32 bits wide, what SQLite's are."""
    ask = op.get_bind().exec_driver_sql
    columns = "information_schema.columns WHERE table_schema = current_schema() AND data_type = 'integer'"
    for table, column in ask(f"SELECT table_name, column_name FROM {columns}").all():
        op.alter_column(table, column, type_=sa.BigInteger())
    for sequence in ask("SELECT sequencename FROM pg_sequences WHERE schemaname = current_schema()").scalars().all():
        op.execute(f"ALTER SEQUENCE {sequence} AS bigint")


def _sqlite_full_text(name: str, columns: tuple[str, ...], indexed: str) -> None:
    """An FTS5 table over columns of `name` that holds no text of its own, kept in step by triggers.

    Rows for which `indexed` is false are left out: notices, and results that only quote other rows.
    """
    listed = ", ".join(columns)
    op.execute(
        f"CREATE VIRTUAL TABLE {name}_fts USING fts5(agent_id, {listed}, content='{name}', content_rowid='id', "
        "tokenize='porter unicode61 remove_diacritics 2')"
    )
    new, old = (", ".join(f"{row}.{column}" for column in ("id", "agent_id", *columns)) for row in ("new", "old"))
    new = f"INSERT INTO {name}_fts(rowid, agent_id, {listed}) VALUES ({new});"
    old = f"INSERT INTO {name}_fts({name}_fts, rowid, agent_id, {listed}) VALUES ('delete', {old});"
    when_new, when_old = indexed.format(row="new."), indexed.format(row="old.")
    op.execute(f"CREATE TRIGGER {name}_fts_insert AFTER INSERT ON {name} WHEN {when_new} BEGIN {new} END")
    op.execute(f"CREATE TRIGGER {name}_fts_delete AFTER DELETE ON {name} WHEN {when_old} BEGIN {old} END")
    op.execute(
        f"CREATE TRIGGER {name}_fts_update AFTER UPDATE OF {listed} ON {name} WHEN {when_old} BEGIN {old} {new} END"
    )


_WORDS = (
    r"\u0001-\u002f\u003a-\u0040\u005b-\u0060\u007b-\u00a9\u00ab-\u00b1\u00b4\u00b6-\u00b8\u00bb\u00bf"
    r"\u2000-\u206f\u3000-\u303f\ufe00-\ufe0f\uff00-\uff0f\ufff0-\uffff"
)
"""Characters that part words whatever the database's locale: punctuation, and the dots and signs of addresses."""


def _postgres_words() -> None:
    """Words as FTS5 tells them apart: without accents and punctuation, by their Porter stems, no stop words.

    A `tsvector` holds a megabyte, so only a text's first 200,000 characters can be found.
    """
    op.execute("CREATE TEXT SEARCH DICTIONARY agentos_stem (TEMPLATE = snowball, LANGUAGE = porter)")
    op.execute("CREATE TEXT SEARCH CONFIGURATION agentos (PARSER = default)")
    op.execute(
        "ALTER TEXT SEARCH CONFIGURATION agentos "
        "ADD MAPPING FOR asciiword, word, numword, uint, sfloat WITH agentos_stem"
    )
    op.execute(
        "CREATE FUNCTION agentos_words(text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT "
        r"regexp_replace(regexp_replace(left(normalize($1, NFD), 200000), '[\u0300-\u036f]+', '', 'g'), "
        f"'[{_WORDS}]+', ' ', 'g') $$"
    )


def _postgres_full_text(name: str, columns: tuple[str, ...], indexed: str) -> None:
    """A column `words` of `name` with the stems of the text and the agent's id, kept in step by the database.

    Rows for which `indexed` is false have none.
    """
    words = " || ".join(f"to_tsvector('agentos', agentos_words({column}))" for column in columns)
    op.execute(
        f"ALTER TABLE {name} ADD COLUMN words tsvector GENERATED ALWAYS AS (CASE WHEN {indexed.format(row='')} "
        f"THEN array_to_tsvector(ARRAY[agent_id::text]) || {words} END) STORED"
    )
    op.execute(f"CREATE INDEX ix_{name}_words ON {name} USING gin (words)")
