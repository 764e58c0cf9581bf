"""Lexical search in SQL: FTS5 (porter stems) over messages and passages."""

import json
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

import sqlalchemy as sa

from agentos.store.rows import Rows
from agentos.store.tables import UtcTime

_MESSAGES = """
SELECT m.id, bm25(message_fts, 0.0, 1.0) AS rank FROM message_fts
JOIN message m ON m.id = message_fts.rowid JOIN agent a ON a.id = m.agent_id
WHERE message_fts MATCH :match AND m.agent_id = :agent_id {filters}
ORDER BY rank LIMIT :limit
"""
_PASSAGES = """
SELECT p.id, found.rank FROM (
    SELECT rowid, bm25(passage_fts, 0.0, 1.0) AS rank FROM passage_fts
    WHERE passage_fts MATCH :match ORDER BY rank LIMIT :most
) found CROSS JOIN passage p ON p.id = found.rowid
WHERE +p.agent_id = :agent_id AND p.valid_to IS NULL {filters}
ORDER BY found.rank LIMIT :limit
"""
_VALID_PASSAGES = """
SELECT p.id FROM passage p
WHERE p.id IN (SELECT value FROM json_each(:ids)) AND +p.agent_id = :agent_id AND p.valid_to IS NULL {filters}
"""


COMMON = 5000
"""Rows from which a word is common (to rank by it costs more than it tells), and an agent large."""
ENOUGH = 10
"""Rows with all the words of a question after which rows with only some of them are not looked for."""


BEST = 4
"""A large agent's best matches are looked up first, so many times the rows asked for; all only where too few pass."""


class LexicalRows(Rows):
    """Ranked full-text queries; `terms` are words, or phrases whose parts must stand together."""

    def lexical_messages(
        self,
        agent_id: str,
        terms: Sequence[str],
        *,
        roles: tuple[str, ...],
        start: datetime | None,
        end: datetime | None,
        not_run: str | None = None,
        limit: int,
    ) -> list[int]:
        """Ids of the agent's messages that hold any term, best first; not what `not_run` still has in context."""
        filters, values = _time_filter("m", start, end)
        filters += " AND m.role IN :roles"
        values["roles"] = list(roles)
        if not_run is not None:
            # what was paged out of that run is out of view like any other message
            filters += " AND (m.run_id IS NULL OR m.run_id != :not_run OR m.seq <= a.head_seq)"
            values["not_run"] = not_run
        query = sa.text(_MESSAGES.format(filters=filters)).bindparams(sa.bindparam("roles", expanding=True))
        return self._ids(query, "message", agent_id, terms, limit, values)

    def lexical_passages(
        self,
        agent_id: str,
        terms: Sequence[str],
        *,
        tags: tuple[str, ...],
        start: datetime | None,
        end: datetime | None,
        limit: int,
    ) -> list[int]:
        """Ids of the agent's valid passages that hold any term, best first."""
        query, values = _filtered(_PASSAGES, tags, start, end)
        return self._ids(query, "passage", agent_id, terms, limit, values)

    def valid_passages(
        self,
        agent_id: str,
        ids: Sequence[int],
        *,
        tags: tuple[str, ...],
        start: datetime | None,
        end: datetime | None,
    ) -> list[int]:
        """Those of `ids`, in their order, that are valid passages of the agent and pass the filters."""
        query, values = _filtered(_VALID_PASSAGES, tags, start, end)
        values |= {"ids": json.dumps(list(ids)), "agent_id": agent_id}
        valid = set(self.connection.execute(query, values).scalars())
        return [key for key in ids if key in valid]

    def _ids(
        self, query: sa.TextClause, name: str, agent_id: str, terms: Sequence[str], limit: int, values: dict[str, Any]
    ) -> list[int]:
        if not terms:
            return []
        # A small agent's own token keeps the match inside its rows however many agents there are;
        # a large one's would cost more than the rows of others that it spares.
        large = self._is_large(name, agent_id)
        own = "" if large else f'agent_id : "{agent_id.rsplit("-", 1)[-1]}" AND '
        found: dict[int, None] = {}
        for expression in self._expressions(name, [_phrase(term) for term in terms]):
            values |= {"agent_id": agent_id, "match": f"{own}- agent_id : ({expression})", "limit": limit}
            for most in (BEST * limit, -1) if large and name == "passage" else (-1,):
                rows = self.connection.execute(query, values | {"most": most}).scalars().all()
                if len(rows) >= limit:
                    break
            found |= dict.fromkeys(rows)
            if len(found) >= ENOUGH:
                break
        return list(found)[:limit]

    def _expressions(self, name: str, phrases: list[str]) -> list[str]:
        """What to search for, the most telling first: rows with any of the words, unless some are common.

        With common words: rows that hold all of them, then rows with any of the rest, or where all are
        common, rows that hold two which follow each other in the question.
        """
        rare = [phrase for phrase in phrases if not self._is_common(name, phrase)]
        if len(rare) == len(phrases) or len(phrases) == 1:
            return [" OR ".join(phrases)]
        pairs = [f"({a} AND {b})" for a, b in pairwise(phrases)]
        return [" AND ".join(phrases), " OR ".join(rare or pairs)]

    def _is_common(self, name: str, phrase: str) -> bool:
        query = sa.text(f"SELECT 1 FROM {name}_fts WHERE {name}_fts MATCH :match LIMIT 1 OFFSET {COMMON}")
        return self.connection.execute(query, {"match": f"- agent_id : {phrase}"}).scalar() is not None

    def _is_large(self, name: str, agent_id: str) -> bool:
        query = sa.text(f"SELECT 1 FROM {name} WHERE agent_id = :agent_id LIMIT 1 OFFSET {COMMON}")
        return self.connection.execute(query, {"agent_id": agent_id}).scalar() is not None


def _phrase(text: str) -> str:
    return '"' + text.replace('"', " ") + '"'


_TAGGED = " AND EXISTS (SELECT 1 FROM json_each(p.tags) WHERE json_each.value IN :tags)"


def _filtered(
    template: str, tags: tuple[str, ...], start: datetime | None, end: datetime | None
) -> tuple[sa.TextClause, dict[str, Any]]:
    """A statement on passages with these filters, and their values."""
    filters, values = _time_filter("p", start, end)
    query = sa.text(template.format(filters=filters + (_TAGGED if tags else "")))
    if tags:
        query = query.bindparams(sa.bindparam("tags", expanding=True))
        values["tags"] = list(tags)
    return query, values


def _time_filter(alias: str, start: datetime | None, end: datetime | None) -> tuple[str, dict[str, Any]]:
    convert, filters, values = UtcTime(), "", {}
    for name, operator, value in (("start", ">=", start), ("end", "<=", end)):
        if value is not None:
            filters += f" AND {alias}.created_at {operator} :{name}"
            values[name] = convert.process_bind_param(value, None)
    return filters, values
