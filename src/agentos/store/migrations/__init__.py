"""Schema migrations: applied when the database differs from this package, after a backup."""

import logging
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from agentos.errors import StoreError
from agentos.store.database import make_engine, store_error
from agentos.store.dialect import Dialect, dialect_of

HEAD = "0006"
"""The newest migration in `versions/`."""
_OURS = {"agent_block", "block_version", "summary_entry", "model_window"}
"""Tables by any of which a database is known as ours, also when others were lost."""


def migrate(url: str, connection: sa.Connection | None = None, *, to: str = HEAD) -> Path | None:
    """Bring the database at `url` to this package's schema; returns the backup that was made, if one was.

    An empty one can be brought to the schema of an earlier version, `to`.

    Raises `StoreError` when the database is newer, another program's, damaged, locked or cannot be written.
    """
    if connection is not None:
        _upgrade(connection, dialect_of(url), to)
        return None
    engine, dialect = make_engine(url), dialect_of(url)
    try:
        with engine.connect() as opened:
            current = _revision(opened)  # refuses a foreign database, to which nothing was written so far
            dialect.prepare(opened)
            if current == HEAD:
                return None
            if current is not None and current > HEAD:
                raise StoreError(
                    f"the database is of version {current} and this agentos knows {HEAD}; install the newer agentos"
                )
            backup = dialect.back_up(url) if current is not None else None
            _upgrade(opened, dialect, to)
            return backup
    except DBAPIError as error:
        raise store_error(error, url) from error
    finally:
        engine.dispose()


def missing_tables(connection: sa.Connection, dialect: Dialect) -> list[str]:
    """Tables of this package's schema that the database does not have, the full-text ones among them."""
    from agentos.store.tables import AgentRow

    expected = {*AgentRow.metadata.tables, *dialect.full_text_tables}
    return sorted(expected - set(sa.inspect(connection).get_table_names()))


def _revision(connection: sa.Connection) -> str | None:
    """The database's version; None for an empty one."""
    tables = set(sa.inspect(connection).get_table_names())
    if not tables:
        return None
    if not tables & _OURS or "alembic_version" not in tables:
        raise StoreError(
            "the database is not an agentos database, it belongs to another program; nothing was changed: "
            "move it away, or set AGENTOS_HOME or AGENTOS_DATABASE_URL"
        )
    revision: str | None = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return revision


def _upgrade(connection: sa.Connection, dialect: Dialect, to: str) -> None:
    from alembic import command  # a tenth of a second that only a changed schema pays
    from alembic.config import Config
    from alembic.util import CommandError

    logging.getLogger("alembic").setLevel(logging.WARNING)  # a library that turns INFO on must not make us chatty
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    # two processes may start at once: the second waits here and finds the work done
    connection.exec_driver_sql(dialect.begin_migration)
    try:
        command.upgrade(config, to)
        connection.exec_driver_sql("COMMIT")
    except BaseException as error:
        connection.exec_driver_sql("ROLLBACK")
        if isinstance(error, CommandError):
            raise StoreError(f"the database cannot be migrated: {error}; install the agentos that made it") from error
        raise
