"""PostgreSQL: the same tables for many processes on many machines, at READ COMMITTED.

What SQLite's single writer gives for nothing is asked for here: who decides a write by what it read locks
the agent's row first (`lock_agent`), a block is written only over the version that was read, and unique
indexes stand behind both.
"""

import re
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from agentos.errors import ConfigError, StoreError
from agentos.store.lexical_postgres import PostgresLexicalRows
from agentos.store.tx import SqlTx

_MIGRATION = 0x6167656E74  # any number that all our processes share
_SESSION = (
    "SET lock_timeout = '200ms'; "  # the writer has others to serve: it commits those and comes back
    "SET idle_in_transaction_session_timeout = '5s'; "  # a frozen process must not keep its locks
    "SET statement_timeout = '60s'; "
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
)
_CONNECT = {
    "connect_timeout": "10",
    "tcp_user_timeout": "15000",
    "keepalives_idle": "30",
    "application_name": "agentos",
}
_CHANGED_AGENTS = sa.text("""
SELECT agent_id, CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint) FROM outbox
WHERE age(xmin) <= age(CAST(CAST(:after % 4294967296 AS text) AS xid))
GROUP BY agent_id
""")
_SENTENCES = (
    ("password authentication|no pg_hba.conf|28P01|28000", "refused the login; correct AGENTOS_DATABASE_URL"),
    ("does not exist|3D000", "has no such database or user; create it (`createdb -E UTF8 NAME`) or correct the name"),
    ("42501", "does not let this user do that; let the user own its database"),
    ("53100", "has no room on its disk; free some space and try again, nothing of this step was kept"),
    ("too many|53300", "has no connection left; raise its max_connections or run fewer processes"),
    ("25006", "is read-only, perhaps a standby; correct AGENTOS_DATABASE_URL"),
    ("57014", "took longer than 60 s; look at what it is doing and try again, nothing of this step was kept"),
    ("55P03|40P01", "was kept busy by another process for 10 s; try again, nothing of this step was kept"),
)
"""An error's code, or where it has none (a connection that failed) signs in its text; what is said of the server."""


class PostgresTx(PostgresLexicalRows, SqlTx):
    """`SqlTx` in PostgreSQL's words."""

    def outbox_agents(self, after: int = 0) -> dict[str, int]:
        """Agents whose changes were not all there at the mark `after`, each with the mark of now.

        Ids are given out before a commit and seen after it, so the highest one seen is no mark. This is the
        oldest transaction still running: what is committed later is never below it.
        """
        return {row[0]: row[1] for row in self.connection.execute(_CHANGED_AGENTS, {"after": after})}


class Postgres:
    """See `Dialect`."""

    tx = PostgresTx
    shared = True
    begin_write = "BEGIN"
    begin_read = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
    begin_migration = (
        "BEGIN; SET LOCAL lock_timeout = '60s'; SET LOCAL statement_timeout = 0; "
        f"SELECT pg_advisory_xact_lock({_MIGRATION})"
    )
    check = "SELECT 'ok'"
    full_text_tables: frozenset[str] = frozenset()

    def engine(self, url: str, in_memory: bool) -> sa.Engine:
        """See `Dialect`."""
        target = sa.make_url(url).set(drivername="postgresql+psycopg")
        arguments = {name: value for name, value in _CONNECT.items() if name not in target.query}
        options: dict[str, Any] = {"isolation_level": "AUTOCOMMIT", "poolclass": sa.NullPool}
        try:
            engine = sa.create_engine(target, connect_args=arguments, **options)
        except ModuleNotFoundError:
            raise ConfigError("PostgreSQL needs psycopg: pip install 'agentos-kernel[scale]'") from None
        sa.event.listen(engine, "connect", _configure)
        return engine

    def prepare(self, connection: sa.Connection) -> None:
        """Other encodings cannot hold every text."""
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
        if encoding != "UTF8":
            raise StoreError(f"the database has the encoding {encoding}; create it with `createdb -E UTF8 NAME`")

    def back_up(self, url: str) -> Path | None:
        """None: PostgreSQL has its own tools."""
        return None

    def gave_up(self, error: DBAPIError, connection: sa.Connection) -> bool:
        """When the connection is lost."""
        return error.connection_invalidated

    def is_conflict(self, error: DBAPIError) -> bool:
        """A lock that did not come, or a deadlock."""
        return getattr(error.orig, "sqlstate", None) in ("55P03", "40P01")

    def sentence(self, error: DBAPIError, url: str) -> str:
        """See `Dialect`."""
        target = sa.make_url(url)
        place = f"the PostgreSQL server at {target.host or target.query.get('host') or 'the local socket'}"
        text = str(error.orig).strip() or type(error.orig).__name__
        code = getattr(error.orig, "sqlstate", None)
        for signs, sentence in _SENTENCES:
            if re.search(signs, code or text):
                return f"{place} {sentence}"
        first = text.splitlines()[0]
        if code is None or code.startswith(("08", "57P", "25P03")):
            return (
                f"{place} cannot be reached ({first}); start it or correct AGENTOS_DATABASE_URL and try again: "
                "what was not saved whole was not kept"
            )
        return f"the database refused: {first}; nothing of this step was kept"


def _configure(connection: Any, _record: object) -> None:
    from psycopg.types.string import StrDumperUnknown

    class Text(StrDumperUnknown):
        """Text without NUL, which PostgreSQL cannot hold: an error's text may have one."""

        def dump(self, obj: str) -> Any:
            """As `agentos.messages.clean_text` has it."""
            return super().dump(obj.replace("\0", "\ufffd"))

    connection.adapters.register_dumper(str, Text)
    connection.autocommit = True
    connection.execute(_SESSION)
