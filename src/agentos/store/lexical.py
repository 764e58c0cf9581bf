"""Lexical search in SQL: FTS5 (porter stems) over messages and passages.

`agentos.store.lexical_postgres` has PostgreSQL's statements for the same questions.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from typing import Any

import sqlalchemy as sa

from agentos.memory.recall import MessageFilter, Place
from agentos.store.rows import Rows, shown
from agentos.store.tables import UtcTime

_MESSAGES = """
SELECT rowid, bm25(message_fts, 0.0, 1.0, 1.0) AS rank FROM message_fts
WHERE message_fts MATCH :match ORDER BY rank LIMIT :limit
"""
_FILTERED_MESSAGES = """
SELECT m.id, bm25(message_fts, 0.0, 1.0, 1.0) AS rank FROM message_fts JOIN message m ON m.id = message_fts.rowid
WHERE message_fts MATCH :match AND m.agent_id = :agent_id {filters}
ORDER BY rank LIMIT :limit
"""
_PLACES = """
SELECT m.id, m.role, m.name, m.session, m.created_at FROM message m
WHERE m.id {among} AND m.agent_id || '' = :agent_id
AND m.kind = 'message' AND m.content != '' {filters}
ORDER BY m.id
"""
_PASSAGES = """
SELECT p.id, found.rank FROM (
    SELECT rowid, bm25(passage_fts, 0.0, 1.0) AS rank FROM passage_fts
    WHERE passage_fts MATCH :match ORDER BY rank LIMIT :most
) found CROSS JOIN passage p ON p.id = found.rowid
WHERE +p.agent_id = :agent_id {filters}
ORDER BY found.rank LIMIT :limit
"""
_ALL_MESSAGES = sa.text(_MESSAGES)
_SECOND_AGENT = sa.text("SELECT 1 FROM agent LIMIT 1 OFFSET 1")
_TIME = UtcTime()
_SHOWN_PASSAGES = """
SELECT p.id FROM passage p
WHERE p.id {among} AND p.agent_id || '' = :agent_id {filters}
"""


COMMON = 5000
"""Rows from which a word is common: to rank by it costs more than it tells."""
LARGE = 10_000
"""Rows from which an agent is large: its token in a match would cost more than the rows of others that it spares."""
ENOUGH = 10
"""Rows with all the words of a question after which rows with only some of them are not looked for."""


BEST = 4
"""A large agent's best matches are looked up first, so many times the rows asked for; all only where too few pass."""


class LexicalRows(Rows):
    """Ranked full-text queries; `terms` are words, or phrases whose parts must stand together."""

    _and, _or = " AND ", " OR "
    _among = "IN (SELECT value FROM json_each(:ids))"
    """In the list `ids`, as JSON: a statement of its own for each length would have to be prepared each time."""
    _tagged = "(SELECT count(DISTINCT json_each.value) FROM json_each(p.tags) WHERE json_each.value IN :tags) >= :held"

    def forget_words(self) -> None:
        """FTS5 keeps deleted words until its parts are merged."""
        for index in ("message_fts", "passage_fts"):
            self.connection.exec_driver_sql(f"INSERT INTO {index}({index}) VALUES('optimize')")

    def message_scores(
        self, agent_id: str, terms: Sequence[str], wanted: MessageFilter, limit: int
    ) -> list[dict[int, float]]:
        """For each term the best of the agent's messages that hold it: id -> BM25 score, above 0.

        Where some terms are common, one for all of them together comes first and the common ones are left
        out. Where a term is rare, messages that `wanted` excludes are among them: `places` leaves them out.
        """
        if not terms:
            return []
        own = "" if self._is_large("message", agent_id) else self._own(agent_id)
        filtered, values = of_messages(_FILTERED_MESSAGES, wanted)
        scores = []
        for expression in self._telling("message", agent_id, [_phrase(term) for term in terms]):
            bound = {"agent_id": agent_id, "match": f"{own}- agent_id : ({expression})", "limit": limit}
            rows = self.connection.execute(_ALL_MESSAGES, bound).all() if own or self._alone else None
            if rows is None or len(rows) == limit:  # what is excluded could take the place of what is wanted
                rows = self.connection.execute(filtered, values | bound).all()
            scores.append({row[0]: -row[1] for row in rows})
        return scores

    def places(self, agent_id: str, ids: Sequence[int], wanted: MessageFilter) -> list[Place]:
        """Where the agent's messages among `ids` stand, in order."""
        query, values = of_messages(_PLACES, wanted, among=self._among)
        rows = self.connection.execute(query, values | {"agent_id": agent_id, "ids": json.dumps(list(ids))})
        return [Place(row[0], row[1], row[2], row[3], _time(row[4])) for row in rows]

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
        """Ids of the agent's passages that may be shown (`rows.shown`) and hold any term, best first."""
        query, values = self._of_passages(_PASSAGES, tags, start, end, all_tags, as_of, include_superseded)
        return self._ids(query, "passage", agent_id, terms, limit, values)

    def shown_passages(
        self,
        agent_id: str,
        ids: Sequence[int],
        *,
        tags: tuple[str, ...],
        start: datetime | None,
        end: datetime | None,
        all_tags: bool = False,
        as_of: datetime | None = None,
        include_superseded: bool = False,
    ) -> list[int]:
        """Those of `ids`, in their order, that are passages of the agent, may be shown and pass the filters."""
        query, values = self._of_passages(_SHOWN_PASSAGES, tags, start, end, all_tags, as_of, include_superseded)
        values |= {"ids": json.dumps(list(ids)), "agent_id": agent_id}
        kept = set(self.connection.execute(query, values).scalars())
        return [key for key in ids if key in kept]

    def _ids(
        self, query: sa.TextClause, name: str, agent_id: str, terms: Sequence[str], limit: int, values: dict[str, Any]
    ) -> list[int]:
        if not terms:
            return []
        large = self._is_large(name, agent_id)
        own = "" if large else self._own(agent_id)
        found: dict[int, None] = {}
        for expression in self._expressions(name, agent_id, [_phrase(term) for term in terms]):
            values |= {"agent_id": agent_id, "match": f"{own}- agent_id : ({expression})", "limit": limit}
            for most in (BEST * limit, -1) if large else (-1,):
                rows = self.connection.execute(query, values | {"most": most}).scalars().all()
                if len(rows) >= limit:
                    break
            found |= dict.fromkeys(rows)
            if len(found) >= ENOUGH:
                break
        return list(found)[:limit]

    def _of_passages(
        self, template: str, tags: tuple[str, ...], start: datetime | None, end: datetime | None, all_tags: bool,
        as_of: datetime | None, include_superseded: bool,
    ) -> tuple[sa.TextClause, dict[str, Any]]:  # fmt: skip
        """A statement on passages with these filters, and their values."""
        filters, values = _time_filter("p", start, end)
        condition, more = shown("p", as_of, include_superseded)
        filters, values = f"AND {condition}{filters}", values | more
        filters += f" AND {self._tagged}" if tags else ""
        query = sa.text(template.format(filters=filters, among=self._among))
        if tags:
            query = query.bindparams(sa.bindparam("tags", expanding=True))
            values |= {"tags": list(tags), "held": len(set(tags)) if all_tags else 1}
        return query, values

    def _own(self, agent_id: str) -> str:
        """What keeps a match inside the agent's rows, however many agents there are: its token; `""` if it is alone."""
        return "" if self._alone else f'agent_id : "{agent_id.rsplit("-", 1)[-1]}" AND '

    @cached_property
    def _alone(self) -> bool:
        """Whether the home has but one agent: all rows are its own."""
        return self.connection.execute(_SECOND_AGENT).scalar() is None

    def _telling(self, name: str, agent_id: str, phrases: list[str]) -> list[str]:
        """What to look for by itself: each phrase; where some are common, all together and then each of the rest.

        Where all are common, the rest are two which follow each other in the question.
        """
        rare = [phrase for phrase in phrases if not self._is_common(name, agent_id, phrase)]
        if len(rare) == len(phrases) or len(phrases) == 1:
            return phrases
        return [self._and.join(phrases), *(rare or [f"({a}{self._and}{b})" for a, b in pairwise(phrases)])]

    def _expressions(self, name: str, agent_id: str, phrases: list[str]) -> list[str]:
        """What to search for, the most telling first: rows with any of what is telling, those with all words before."""
        telling = self._telling(name, agent_id, phrases)
        return [self._or.join(telling)] if telling == phrases else [telling[0], self._or.join(telling[1:])]

    def _is_common(self, name: str, agent_id: str, phrase: str) -> bool:
        """Among the agent's own rows: what others remember must not change what it finds."""
        query = sa.text(f"SELECT 1 FROM {name}_fts WHERE {name}_fts MATCH :match LIMIT 1 OFFSET {COMMON}")
        match = f"{self._own(agent_id)}- agent_id : {phrase}"
        return self.connection.execute(query, {"match": match}).scalar() is not None

    def _is_large(self, name: str, agent_id: str) -> bool:
        query = sa.text(f"SELECT 1 FROM {name} WHERE agent_id = :agent_id LIMIT 1 OFFSET {LARGE}")
        return self.connection.execute(query, {"agent_id": agent_id}).scalar() is not None


def _phrase(text: str) -> str:
    return '"' + text.replace('"', " ") + '"'


def of_messages(template: str, wanted: MessageFilter, **parts: str) -> tuple[sa.TextClause, dict[str, Any]]:
    """A statement on messages that pass the filter, and its values."""
    filters, values = _time_filter("m", wanted.start, wanted.end)
    filters += " AND m.role IN :roles"
    values["roles"] = list(wanted.roles)
    if wanted.not_run is not None:
        # what was paged out of that run is out of view like any other message
        filters += " AND (m.run_id IS NULL OR m.run_id != :not_run OR m.seq <= "
        filters += "(SELECT head_seq FROM agent WHERE id = :agent_id))"
        values["not_run"] = wanted.not_run
    query = sa.text(template.format(filters=filters, **parts))
    return query.bindparams(sa.bindparam("roles", expanding=True)), values


def _time_filter(alias: str, start: datetime | None, end: datetime | None) -> tuple[str, dict[str, Any]]:
    filters, values = "", {}
    for name, operator, value in (("start", ">=", start), ("end", "<=", end)):
        if value is not None:
            filters += f" AND {alias}.created_at {operator} :{name}"
            values[name] = _TIME.process_bind_param(value, None)
    return filters, values


def _time(text: str) -> datetime:
    value = _TIME.process_result_value(text, None)
    assert value is not None, "every message has a time"
    return value
