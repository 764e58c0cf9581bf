"""What every group of rows shares: an open transaction and the few statements made of it."""

import json
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlmodel import SQLModel

from agentos.errors import NotFound
from agentos.protocols import Clock
from agentos.store.tables import AgentRow, UtcTime


def fields(value: Any) -> dict[str, Any]:
    """A dataclass as a dict of its own fields, without copying what they hold."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def table(row: type[SQLModel]) -> sa.Table:
    """The table behind a row class."""
    found: sa.Table = row.__table__  # type: ignore[attr-defined]
    return found


def listed(column: sa.ColumnElement[Any], words: Sequence[str], every: bool = False) -> sa.ColumnElement[bool]:
    """Whether a JSON list of words holds one of `words`, or every one of them."""
    text = sa.cast(column, sa.String)
    # unlike LIKE, `replace` tells upper from lower case in every database
    found = [sa.func.replace(text, json.dumps(word), "") != text for word in words]
    return sa.and_(*found) if every else sa.or_(*found)


def shown(alias: str, as_of: datetime | None, include_superseded: bool) -> tuple[str, dict[str, Any]]:
    """What keeps a query to the passages of the table `alias` that may be shown, and its values.

    What is valid, or was at the time `as_of`; with `include_superseded` what had been superseded by then too. What
    was deleted is never shown.
    """
    values: dict[str, Any] = {}
    ended = f"{alias}.superseded_by IS NOT NULL"
    condition = f"{alias}.valid_to IS NULL"
    if as_of is not None:
        values["as_of"] = UtcTime().process_bind_param(as_of, None)
        ended += "" if include_superseded else f" AND {alias}.valid_to > :as_of"
    if as_of is not None or include_superseded:
        condition = f"({condition} OR {ended})"
    return condition + (f" AND {alias}.created_at <= :as_of" if as_of else ""), values


class Overtaken(Exception):
    """What this transaction read was changed before it could write; the writer does it again from the start."""


class Rows:
    """A part of `SqlTx`; all parts share one connection inside one transaction."""

    def __init__(self, connection: sa.Connection, clock: Clock) -> None:
        self.connection, self.clock = connection, clock
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

    def page(
        self,
        query: sa.Select[Any],
        order: Sequence[Any],
        ascending: bool,
        ends: Sequence[Sequence[Any] | None],
        limit: int,
    ) -> list[sa.RowMapping]:
        """A page of a list by the key `order`, strictly between the `ends`: after one key, before another.

        Both are meant in the chosen order. Without the first it is the page that ends at the second.
        """
        after, before = ends
        backwards = before is not None and after is None
        up = ascending != backwards
        low, high = (after, before) if ascending else (before, after)
        key, types = sa.tuple_(*order), [column.type for column in order]
        for end, beyond in ((low, key.__gt__), (high, key.__lt__)):
            if end is not None:
                query = query.where(beyond(sa.tuple_(*(sa.literal(v, t) for v, t in zip(end, types, strict=True)))))
        rows = self.all(query.order_by(*(c if up else c.desc() for c in order)).limit(limit))
        return rows[::-1] if backwards else rows

    def page_by_id(
        self,
        query: sa.Select[Any],
        order: Sequence[sa.ColumnElement[Any]],
        *,
        after: Any = None,
        before: Any = None,
        limit: int = 100,
        ascending: bool = True,
    ) -> list[sa.RowMapping]:
        """The same by the rows' primary key, which `order` has last; `NotFound` where no row has such a key."""
        return self.page(query, order, ascending, [self._key(order, end) for end in (after, before)], limit)

    def _key(self, order: Sequence[sa.ColumnElement[Any]], primary_key: Any) -> sa.Row[Any] | None:
        if primary_key is None:
            return None
        key = self.connection.execute(sa.select(*order).where(order[-1] == primary_key)).first()
        if key is None:
            raise NotFound(f"there is no {primary_key!r} that the list could go on from")
        return key

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
