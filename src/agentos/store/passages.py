"""Archival passages, their vectors, and the outbox of the vector index."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from agentos.messages import Cause, Passage
from agentos.store.agents import AgentRows
from agentos.store.rows import listed, table
from agentos.store.tables import OutboxRow, PassageRow

_passage, _outbox = table(PassageRow), table(OutboxRow)
_FIELDS = [f for f in Passage.__dataclass_fields__ if f not in ("id", "embedding")]
_by_id = _passage.c.agent_id + ""
"""The agent as a mere filter on rows that are looked up by id: SQLite would rather walk all rows of the agent."""
_COLUMNS = [_passage.c.id, *(_passage.c[f] for f in _FIELDS)]  # the embedding only where it is asked for


class PassageRows(AgentRows):
    """Statements on archival memory."""

    def add_passage(self, passage: Passage, cause: Cause) -> tuple[Passage, bool]:
        """Insert, or unite tags with the first valid passage of equal text; (passage, whether it is new)."""
        self.lock_agent(passage.agent_id)
        known = self.equal_passage(passage)
        if known is not None:
            return self._unite_tags(known, passage.tags, cause), False
        passage = replace(passage, about=passage.about or self.speaker(cause))
        values: dict[str, Any] = {name: getattr(passage, name) for name in _FIELDS}
        values |= {"tags": list(passage.tags), "text_hash": _digest(passage.text), "embedding": passage.embedding}
        saved = replace(passage, id=self.insert(PassageRow, **values))
        self.journal(cause, "passage.insert", saved.ref, after=saved.id, text=saved.text)
        self.insert(OutboxRow, agent_id=saved.agent_id, passage_id=saved.id, op="upsert")
        return saved, True

    def equal_passage(self, passage: Passage) -> Passage | None:
        """The agent's first valid passage with the same text."""
        query = sa.select(*_COLUMNS).where(
            _passage.c.agent_id == passage.agent_id,
            _passage.c.text_hash == _digest(passage.text),
            _passage.c.text == passage.text,
            _passage.c.valid_to.is_(None),
        )
        row = self.first(query.order_by(_passage.c.id).limit(1))
        return None if row is None else _to_passage(row)

    def _unite_tags(self, passage: Passage, tags: tuple[str, ...], cause: Cause) -> Passage:
        united = tuple(dict.fromkeys((*passage.tags, *tags)))
        if united != passage.tags:
            self.update(PassageRow, passage.id, tags=list(united))
            self.journal(cause, "passage.tag", passage.ref)
        return replace(passage, tags=united)

    def end_passage(
        self,
        passage_id: int,
        at: datetime | None,
        cause: Cause,
        action: str,
        *,
        undo_of: int | None = None,
        note: str = "",
    ) -> None:
        """Set (or with None take back) the end of a passage's validity; only valid ones are found."""
        self.update(PassageRow, passage_id, valid_to=at)
        self.journal(cause, action, f"p{passage_id}", note, before=passage_id, after=passage_id, undo_of=undo_of)
        op = "upsert" if at is None else "delete"
        self.insert(OutboxRow, agent_id=cause.agent_id, passage_id=passage_id, op=op)

    def passages(self, agent_id: str, ids: Iterable[int]) -> list[Passage]:
        """The passages with these ids that belong to the agent."""
        query = sa.select(*_COLUMNS).where(_by_id == agent_id, _passage.c.id.in_(list(ids)))
        return [_to_passage(row) for row in self.all(query)]

    def recent_passages(self, agent_id: str, limit: int = 50, before_id: int | None = None) -> list[Passage]:
        """The newest valid passages, newest first."""
        query = sa.select(*_COLUMNS).where(_passage.c.agent_id == agent_id, _passage.c.valid_to.is_(None))
        if before_id is not None:
            query = query.where(_passage.c.id < before_id)
        return [_to_passage(row) for row in self.all(query.order_by(_passage.c.id.desc()).limit(limit))]

    def passage_page(
        self,
        agent_id: str,
        ascending: bool,
        after: Passage | None,
        before: Passage | None,
        limit: int,
        text: str | None = None,
        *,
        tag: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> list[Passage]:
        """A page of the agent's valid passages by their time.

        Only those that hold `text`, have the `tag` and are of the time, both ends included.
        """
        query = sa.select(*_COLUMNS).where(_passage.c.agent_id == agent_id, _passage.c.valid_to.is_(None))
        if text:
            query = query.where(_passage.c.text.icontains(text, autoescape=True))
        if tag is not None:
            query = query.where(listed(_passage.c.tags, [tag]))
        if start is not None:
            query = query.where(_passage.c.created_at >= start)
        if end is not None:
            query = query.where(_passage.c.created_at <= end)
        ends = [None if passage is None else (passage.created_at, passage.id) for passage in (after, before)]
        order = [_passage.c.created_at, _passage.c.id]
        return [_to_passage(row) for row in self.page(query, order, ascending, ends, limit)]

    def count_passages(self, agent_id: str) -> int:
        """How many valid passages the agent has."""
        query = sa.select(sa.func.count()).select_from(_passage)
        return int(self.scalar(query.where(_passage.c.agent_id == agent_id, _passage.c.valid_to.is_(None))))

    def has_more_vectors_than(self, agent_id: str, fingerprint: str, count: int) -> bool:
        """Whether this embedder embedded more passages than that, ended ones too: answered from an index alone."""
        query = sa.select(_passage.c.id).where(_passage.c.agent_id == agent_id, _passage.c.fingerprint == fingerprint)
        return self.scalar(query.offset(count).limit(1)) is not None

    # vectors

    def vectors(
        self, agent_id: str, fingerprint: str, *, ids: Iterable[int] | None = None, waiting: bool = False,
        after_id: int = 0, limit: int = -1,
    ) -> list[tuple[int, bytes]]:  # fmt: skip
        """(passage id, embedding) of valid passages that this embedder embedded, by id.

        Only those in `ids`; with `waiting`, only those that the index has not taken in yet.
        """
        query = sa.select(_passage.c.id, _passage.c.embedding).where(
            (_passage.c.agent_id if ids is None and not waiting else _by_id) == agent_id,
            _passage.c.fingerprint == fingerprint,
            _passage.c.valid_to.is_(None),
            _passage.c.id > after_id,
        )
        if ids is not None:
            query = query.where(_passage.c.id.in_(list(ids)))
        if waiting:
            query = query.where(
                _passage.c.id.in_(sa.select(_outbox.c.passage_id).where(_outbox.c.agent_id == agent_id))
            )
        if limit >= 0:
            query = query.limit(limit)
        return [(row[0], row[1]) for row in self.connection.execute(query.order_by(_passage.c.id))]

    def embedded_ids(self, agent_id: str, fingerprint: str) -> list[int]:
        """Ids of the agent's valid passages that this embedder embedded."""
        query = sa.select(_passage.c.id).where(
            _passage.c.agent_id == agent_id, _passage.c.fingerprint == fingerprint, _passage.c.valid_to.is_(None)
        )
        return list(self.connection.execute(query.order_by(_passage.c.id)).scalars())

    def embedded_counts(self, fingerprint: str) -> list[tuple[str, int]]:
        """(agent id, how many valid passages this embedder embedded)."""
        query = (
            sa.select(_passage.c.agent_id, sa.func.count())
            .where(_passage.c.fingerprint == fingerprint, _passage.c.valid_to.is_(None))
            .group_by(_passage.c.agent_id)
        )
        return [(row[0], row[1]) for row in self.connection.execute(query)]

    def unembedded(
        self, fingerprint: str, limit: int = -1, after_id: int = 0, *, ids: Iterable[int] | None = None
    ) -> list[tuple[int, str]]:
        """(passage id, text) of valid passages (only those in `ids`) without a vector of this embedder, by id."""
        query = sa.select(_passage.c.id, _passage.c.text).where(
            sa.or_(_passage.c.fingerprint.is_(None), _passage.c.fingerprint != fingerprint),
            _passage.c.valid_to.is_(None),
            _passage.c.id > after_id,
        )
        if ids is not None:
            query = query.where(_passage.c.id.in_(list(ids)))
        if limit >= 0:
            query = query.limit(limit)
        return [(row[0], row[1]) for row in self.connection.execute(query.order_by(_passage.c.id))]

    def save_embeddings(self, fingerprint: str, rows: Sequence[tuple[int, bytes]]) -> None:
        """Keep vectors with their passages, in place of any other embedder's."""
        change = (
            sa.update(_passage)
            .where(_passage.c.id == sa.bindparam("key"))
            .values(embedding=sa.bindparam("vector"), fingerprint=fingerprint)
        )
        self.connection.execute(change, [{"key": key, "vector": vector} for key, vector in rows])

    # the outbox

    def outbox(self, agent_id: str, limit: int, after_id: int = 0) -> list[tuple[int, str, int, str]]:
        """The agent's waiting changes, oldest first: (id, agent id, passage id, `upsert` or `delete`); -1 for all."""
        query = sa.select(_outbox.c.id, _outbox.c.agent_id, _outbox.c.passage_id, _outbox.c.op)
        query = query.where(_outbox.c.agent_id == agent_id, _outbox.c.id > after_id).order_by(_outbox.c.id)
        if limit >= 0:
            query = query.limit(limit)
        return [(r[0], r[1], r[2], r[3]) for r in self.connection.execute(query)]

    def outbox_agents(self, after: int = 0) -> dict[str, int]:
        """Agents with changes behind the mark `after`, each with a mark behind which none of them is."""
        query = sa.select(_outbox.c.agent_id, sa.func.max(_outbox.c.id)).where(_outbox.c.id > after)
        return {row[0]: row[1] for row in self.connection.execute(query.group_by(_outbox.c.agent_id))}

    def outbox_sizes(self) -> dict[str, int]:
        """Agents with changes that wait for the index, each with their number."""
        query = sa.select(_outbox.c.agent_id, sa.func.count()).group_by(_outbox.c.agent_id)
        return {row[0]: row[1] for row in self.connection.execute(query)}

    def outbox_done(self, ids: Sequence[int]) -> None:
        """Forget changes that the index has taken in."""
        self.connection.execute(sa.delete(_outbox).where(_outbox.c.id.in_(list(ids))))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _to_passage(row: Any) -> Passage:
    return Passage(**{**row, "tags": tuple(row["tags"])})
