"""Lexical search in SQL: FTS5 (porter stems) over messages and passages."""

from datetime import datetime
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
SELECT p.id, bm25(passage_fts, 0.0, 1.0) AS rank FROM passage_fts
JOIN passage p ON p.id = passage_fts.rowid
WHERE passage_fts MATCH :match AND p.agent_id = :agent_id AND p.valid_to IS NULL {filters}
ORDER BY rank LIMIT :limit
"""


class LexicalRows(Rows):
    """Ranked full-text queries; `match` is an FTS5 expression over the text."""

    def lexical_messages(
        self,
        agent_id: str,
        match: str,
        *,
        roles: tuple[str, ...],
        start: datetime | None,
        end: datetime | None,
        not_run: str | None = None,
        limit: int,
    ) -> list[int]:
        """Ids of the agent's messages that match, best first; messages of the run `not_run` still in context are left out."""
        filters, values = _time_filter("m", start, end)
        filters += " AND m.role IN :roles"
        values["roles"] = list(roles)
        if not_run is not None:
            # what was paged out of that run is out of view like any other message
            filters += " AND (m.run_id IS NULL OR m.run_id != :not_run OR m.seq <= a.head_seq)"
            values["not_run"] = not_run
        query = sa.text(_MESSAGES.format(filters=filters)).bindparams(sa.bindparam("roles", expanding=True))
        return self._ids(query, agent_id, match, limit, values)

    def lexical_passages(
        self,
        agent_id: str,
        match: str,
        *,
        tags: tuple[str, ...],
        start: datetime | None,
        end: datetime | None,
        limit: int,
    ) -> list[int]:
        """Ids of the agent's valid passages that match, best first."""
        filters, values = _time_filter("p", start, end)
        query = sa.text(_PASSAGES.format(filters=filters + (_TAGGED if tags else "")))
        if tags:
            query = query.bindparams(sa.bindparam("tags", expanding=True))
            values["tags"] = list(tags)
        return self._ids(query, agent_id, match, limit, values)

    def _ids(self, query: sa.TextClause, agent_id: str, match: str, limit: int, values: dict[str, Any]) -> list[int]:
        if not match:
            return []
        # the agent's own token keeps the match inside one agent's rows however many agents there are
        own = agent_id.rsplit("-", 1)[-1]
        values |= {"agent_id": agent_id, "match": f'agent_id : "{own}" AND - agent_id : ({match})', "limit": limit}
        return [row[0] for row in self.connection.execute(query, values)]


_TAGGED = " AND EXISTS (SELECT 1 FROM json_each(p.tags) WHERE json_each.value IN :tags)"


def _time_filter(alias: str, start: datetime | None, end: datetime | None) -> tuple[str, dict[str, Any]]:
    convert, filters, values = UtcTime(), "", {}
    for name, operator, value in (("start", ">=", start), ("end", "<=", end)):
        if value is not None:
            filters += f" AND {alias}.created_at {operator} :{name}"
            values[name] = convert.process_bind_param(value, None)
    return filters, values
