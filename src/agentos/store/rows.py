"""What every group of rows shares: an open transaction and the few statements made of it."""

from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlmodel import SQLModel

from agentos.store.tables import AgentRow


def fields(value: Any) -> dict[str, Any]:
    """A dataclass as a dict of its own fields, without copying what they hold."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def table(row: type[SQLModel]) -> sa.Table:
    """The table behind a row class."""
    found: sa.Table = row.__table__  # type: ignore[attr-defined]
    return found


class Overtaken(Exception):
    """What this transaction read was changed before it could write; the writer does it again from the start."""


class Rows:
    """A part of `SqlTx`; all parts share one connection inside one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        self.bumps: dict[Any, int] = {}
        """How often this transaction raised each agent's version."""

    def insert(self, row: type[SQLModel], **values: Any) -> int:
        """Insert one row; returns its integer primary key (0 where it has none)."""
        result = self.connection.execute(_insert(row), values)
        key = result.inserted_primary_key
        return key[0] if key and isinstance(key[0], int) else 0

    def update(self, row: type[SQLModel], key: Any, **values: Any) -> None:
        """Update the row whose primary key is `key`."""
        statement = _update(row, tuple(values))
        if "version" in statement.table.c:
            self.bumps[key] = self.bumps.get(key, 0) + 1
        self.connection.execute(statement, {**values, "key": key})

    def forget_words(self) -> None:
        """Take deleted words out of the full-text index too, where it would keep them."""

    def lock_agent(self, agent_id: str) -> bool:
        """Whether there is such an agent; its row is this transaction's until the commit.

        For who decides by what it reads of an agent what it writes: others who do so wait.
        """
        return self.connection.execute(_LOCK, {"agent_id": agent_id}).first() is not None

    def first(self, query: sa.Select[Any], **values: Any) -> sa.RowMapping | None:
        """The first row as a mapping; `values` fill the query's bound parameters."""
        return self.connection.execute(query, values).mappings().first()

    def all(self, query: sa.Select[Any], **values: Any) -> list[sa.RowMapping]:
        """All rows as mappings."""
        return list(self.connection.execute(query, values).mappings())

    def scalar(self, query: sa.Select[Any], **values: Any) -> Any:
        """The first column of the first row."""
        return self.connection.execute(query, values).scalar()


_AGENT = table(AgentRow)
_LOCK = sa.select(_AGENT.c.id).where(_AGENT.c.id == sa.bindparam("agent_id")).with_for_update()


# Building a statement costs more than running it, so those of the hot path are built once.


@cache
def _insert(row: type[SQLModel]) -> sa.Insert:
    return sa.insert(table(row))


@cache
def _update(row: type[SQLModel], names: tuple[str, ...]) -> sa.Update:
    """An update of these columns by primary key; one called `version` grows by one."""
    target = table(row)
    (column,) = target.primary_key.columns
    values: dict[str, Any] = {name: sa.bindparam(name) for name in names}
    if "version" in target.c:
        values["version"] = target.c.version + 1
    return sa.update(target).where(column == sa.bindparam("key")).values(values)
