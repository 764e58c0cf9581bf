"""Lexical search in PostgreSQL: `tsvector` columns with GIN indexes, and BM25 over them.

A row's `words` hold its stems (the same Porter stems as FTS5's, without stop words) and its agent's id, which
keeps a match inside the agent's rows. PostgreSQL's own ranks know nothing of how rare a word is, so the score
is computed here: over one phrase, `ts_rank_cd` with equal weights is how often it occurs.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

import sqlalchemy as sa

from agentos.memory.recall import MessageFilter
from agentos.messages import clean_text
from agentos.store.lexical import COMMON, ENOUGH, LexicalRows, of_messages

_BM25 = """
SELECT id, sum(
    ln(greatest((:rows - holders + 0.5) / (holders + 0.5), 1.000001)) * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * size))
) AS score FROM (
    SELECT id, tf, size / avg(size) OVER () AS size, CAST(count(*) OVER (PARTITION BY number) AS float8) AS holders
    FROM (
        SELECT {row}.id, phrase.number, CAST(length({row}.words) AS float8) AS size,
            ts_rank_cd(CAST(ARRAY[1, 1, 1, 1] AS float4[]), {row}.words, phrase.query) AS tf
        FROM {table} {row} CROSS JOIN unnest(CAST(:phrases AS tsquery[])) WITH ORDINALITY AS phrase(query, number)
        WHERE {row}.words @@ CAST(:match AS tsquery) AND {row}.words @@ phrase.query
        AND {row}.agent_id = :agent_id {{filters}}
    ) AS found
) AS held
GROUP BY id ORDER BY score DESC, id LIMIT :limit
"""
"""For the rows that match: the sum of BM25 over the phrases that they hold, with FTS5's constants."""
_MESSAGES = _BM25.format(table="message", row="m")
_PASSAGES = _BM25.format(table="passage", row="p")
_PHRASES = sa.text("""
SELECT CAST(phraseto_tsquery('agentos', agentos_words(term)) AS text)
FROM unnest(CAST(:terms AS text[])) WITH ORDINALITY AS given(term, number) ORDER BY number
""")
_OPERATORS = re.compile(r"[&|()]")
"""What joins phrases; in a phrase there is none, for its words are letters and digits."""


class PostgresLexicalRows(LexicalRows):
    """`LexicalRows` in PostgreSQL's words."""

    _and, _or = " & ", " | "
    _among = "= ANY(CAST(translate(:ids, '[]', '{}') AS bigint[]))"
    _tagged = "(SELECT count(DISTINCT tag) FROM json_array_elements_text(p.tags) AS tag WHERE tag IN :tags) >= :held"

    def forget_words(self) -> None:
        """Autovacuum does."""

    def message_scores(
        self, agent_id: str, terms: Sequence[str], wanted: MessageFilter, limit: int
    ) -> list[dict[int, float]]:
        """See `LexicalRows`; no message that `wanted` excludes is among them."""
        query, values = of_messages(_MESSAGES, wanted)
        telling = self._telling("message", agent_id, self._phrases(terms))
        return [dict(self._best(query, values, "message", agent_id, one, limit)) for one in telling]

    def lexical_passages(
        self,
        agent_id: str,
        terms: Sequence[str],
        *,
        tags: tuple[str, ...],
        start: datetime | None,
        end: datetime | None,
        all_tags: bool = False,
        as_of: datetime | None = None,
        include_superseded: bool = False,
        limit: int,
    ) -> list[int]:
        """See `LexicalRows`."""
        query, values = self._of_passages(_PASSAGES, tags, start, end, all_tags, as_of, include_superseded)
        found: dict[int, None] = {}
        phrases = self._phrases(terms)
        for expression in self._expressions("passage", agent_id, phrases) if phrases else ():
            rows = self._best(query, values, "passage", agent_id, expression, limit)
            found |= dict.fromkeys(key for key, _ in rows)
            if len(found) >= ENOUGH:
                break
        return list(found)[:limit]

    def _best(
        self, query: sa.TextClause, values: dict[str, Any], name: str, agent_id: str, expression: str, limit: int
    ) -> list[tuple[int, float]]:
        """(id, score) of the rows that match, best first."""
        phrases = [phrase.strip() for phrase in _OPERATORS.split(expression) if phrase.strip()]
        rows = self.connection.execute(
            query,
            values
            | {"match": f"{_own(agent_id)} & ({expression})", "phrases": phrases, "agent_id": agent_id}
            | {"rows": self._count(name, agent_id), "limit": limit},
        )
        return [(row[0], row[1]) for row in rows]

    def _phrases(self, terms: Sequence[str]) -> list[str]:
        """The terms as text search has them; those without a word are left out."""
        found = self.connection.execute(_PHRASES, {"terms": [clean_text(term) for term in terms]}).scalars()
        return list(dict.fromkeys(filter(None, found)))

    def _count(self, name: str, agent_id: str) -> float:
        """How many rows the agent has, counted once in a transaction."""
        if (name, agent_id) not in self._counts:
            query = sa.text(f"SELECT count(*) FROM {name} WHERE agent_id = :agent_id")
            self._counts[name, agent_id] = self.connection.execute(query, {"agent_id": agent_id}).scalar_one()
        return float(self._counts[name, agent_id])

    @cached_property
    def _counts(self) -> dict[tuple[str, str], int]:
        return {}

    def _is_common(self, name: str, agent_id: str, phrase: str) -> bool:
        """See `LexicalRows`."""
        if self._count(name, agent_id) <= COMMON:
            return False
        query = sa.text(f"SELECT 1 FROM {name} WHERE words @@ CAST(:match AS tsquery) LIMIT 1 OFFSET {COMMON}")
        return self.connection.execute(query, {"match": f"{_own(agent_id)} & {phrase}"}).scalar() is not None


def _own(agent_id: str) -> str:
    """The agent's id as a word of a query."""
    return "'" + agent_id.replace("\\", "\\\\").replace("'", "''") + "'"
