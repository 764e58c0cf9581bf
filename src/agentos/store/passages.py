"""Archival passages, their vectors, and the outbox of the vector index."""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from agentos.errors import Conflict, NotFound
from agentos.messages import Cause, Passage
from agentos.store.journal import JournalRows
from agentos.store.rows import listed, shown, table
from agentos.store.tables import OutboxRow, PassageRow, PassageTagsRow

_passage, _outbox, _tags = table(PassageRow), table(OutboxRow), table(PassageTagsRow)
_FIELDS = [f for f in Passage.__dataclass_fields__ if f not in ("id", "embedding")]
_by_id = _passage.c.agent_id + ""
"""The agent as a mere filter on rows that are looked up by id: SQLite would rather walk all rows of the agent."""
_COLUMNS = [_passage.c.id, *(_passage.c[f] for f in _FIELDS)]  # the embedding only where it is asked for


class PassageRows(JournalRows):
    """Statements on archival memory."""

    def add_passage(self, passage: Passage, cause: Cause) -> tuple[Passage, bool]:
        """Insert, or unite tags with the first valid passage of equal text; (passage, whether it is new).

        What it `replaces` is superseded by it (by the united one) and both are linked. `NotFound` where there is no
        such passage, `Conflict` where that is valid no more. One that comes with an end is inserted as it is.
        """
        self.lock_agent(passage.agent_id)
        old = None if passage.replaces is None else self._replaceable(passage.agent_id, passage.replaces)
        known = self.equal_passage(passage) if passage.valid_to is None else None
        saved = self._unite_tags(known, passage.tags, cause) if known else self._insert_passage(passage, old, cause)
        if old is not None and old.id != saved.id:
            ended = max(old.created_at, passage.created_at)
            self.end_passage(old.id, ended, cause, "passage.supersede", superseded_by=saved.id, note=f"by {saved.ref}")
            saved = replace(saved, replaces=saved.replaces or old.id)
        return saved, known is None

    def _insert_passage(self, passage: Passage, old: Passage | None, cause: Cause) -> Passage:
        passage = replace(passage, about=passage.about or self.speaker(cause))
        values: dict[str, Any] = {name: getattr(passage, name) for name in _FIELDS}
        values |= {"tags": list(passage.tags), "text_hash": _digest(passage.text), "embedding": passage.embedding}
        saved = replace(passage, id=self.insert(PassageRow, **values))
        self.journal(
            cause, "passage.insert", saved.ref, f"replaces {old.ref}" if old else "",
            before=None if old is None else old.id, after=saved.id, text=saved.text,
        )  # fmt: skip
        if saved.valid_to is None:
            self.insert(OutboxRow, agent_id=saved.agent_id, passage_id=saved.id, op="upsert")
        if saved.superseded_by is not None:
            self._link(saved.id, saved.superseded_by)
        return saved

    def _replaceable(self, agent_id: str, passage_id: int) -> Passage:
        """A passage that another may take the place of."""
        old = last = self._passage(agent_id, passage_id)
        if old is None:
            raise NotFound(f"there is no passage p{passage_id} to replace; a search shows the ids")
        if old.valid_to is None:
            return old
        if old.superseded_by is None:
            raise Conflict(f"{old.ref} was deleted; store the text without replacing it")
        while last is not None and last.superseded_by is not None:
            last = self._passage(agent_id, last.superseded_by)
        if last is None or last.valid_to is not None:
            raise Conflict(f"{old.ref} was superseded and what took its place was deleted; store the text on its own")
        raise Conflict(f"{old.ref} was superseded by {last.ref}; replace that one")

    def _passage(self, agent_id: str, passage_id: int) -> Passage | None:
        return next(iter(self.passages(agent_id, [passage_id])), None)

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
            self.tag_passage(passage, united, cause, "passage.tag")
        return replace(passage, tags=united)

    def tag_passage(
        self, passage: Passage, tags: Sequence[str], cause: Cause, action: str, undo_of: int | None = None
    ) -> None:
        """Give a passage these tags in place of those it has; the journal names both."""
        self.update(PassageRow, passage.id, tags=list(tags))
        change = self.insert(PassageTagsRow, agent_id=passage.agent_id, before=list(passage.tags), after=list(tags))
        self.journal(cause, action, passage.ref, after=change, undo_of=undo_of)

    def tag_changes(self, change_ids: Collection[int]) -> dict[int, tuple[list[str], list[str]]]:
        """Tags (before, after) each of these changes of them, by its id."""
        rows = self.all(sa.select(_tags).where(_tags.c.id.in_(change_ids))) if change_ids else []
        return {row["id"]: (row["before"], row["after"]) for row in rows}

    def _link(self, passage_id: int, taker: int) -> None:
        first = sa.update(_passage).where(_passage.c.id == taker, _passage.c.replaces.is_(None))
        self.connection.execute(first.values(replaces=passage_id))

    def end_passage(
        self,
        passage_id: int,
        at: datetime | None,
        cause: Cause,
        action: str,
        *,
        superseded_by: int | None = None,
        undo_of: int | None = None,
        note: str = "",
    ) -> None:
        """Set (or with None take back) the end of a passage's validity, and link it with what took its place."""
        if superseded_by is not None:
            self._link(passage_id, superseded_by)
        elif at is None:
            taker = sa.select(_passage.c.superseded_by).where(_passage.c.id == passage_id).scalar_subquery()
            link = sa.update(_passage).where(_passage.c.id == taker, _passage.c.replaces == passage_id)
            self.connection.execute(link.values(replaces=None))
        self.update(PassageRow, passage_id, valid_to=at, superseded_by=superseded_by)
        after = superseded_by or passage_id
        self.journal(cause, action, f"p{passage_id}", note, before=passage_id, after=after, undo_of=undo_of)
        op = "upsert" if at is None else "delete"
        self.insert(OutboxRow, agent_id=cause.agent_id, passage_id=passage_id, op=op)

    def passages(self, agent_id: str, ids: Iterable[int]) -> list[Passage]:
        """The passages with these ids that belong to the agent."""
        query = sa.select(*_COLUMNS).where(_by_id == agent_id, _passage.c.id.in_(list(ids)))
        return [_to_passage(row) for row in self.all(query)]

    def superseded(self, agent_id: str, passage_id: int) -> list[Passage]:
        """The agent's passages whose place this one took, the last one first."""
        query = sa.select(*_COLUMNS).where(_by_id == agent_id, _passage.c.superseded_by == passage_id)
        return [_to_passage(row) for row in self.all(query.order_by(_passage.c.valid_to.desc(), _passage.c.id.desc()))]

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
        include_superseded: bool = False,
    ) -> list[Passage]:
        """A page of the agent's valid passages by their time, or of those and the superseded ones.

        Only those that hold `text`, have the `tag` and are of the time, both ends included.
        """
        query = sa.select(*_COLUMNS).where(_passage.c.agent_id == agent_id, _shown(None, include_superseded))
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
        after_id: int = 0, limit: int = -1, as_of: datetime | None = None, include_superseded: bool = False,
    ) -> list[tuple[int, bytes]]:  # fmt: skip
        """(passage id, embedding) of the passages that may be shown and that this embedder embedded, by id.

        Only those in `ids`; with `waiting`, only those that the index has not taken in yet.
        """
        query = sa.select(_passage.c.id, _passage.c.embedding).where(
            (_passage.c.agent_id if ids is None and not waiting else _by_id) == agent_id,
            _passage.c.fingerprint == fingerprint,
            _shown(as_of, include_superseded),
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


def _shown(as_of: datetime | None, include_superseded: bool) -> sa.TextClause:
    condition, values = shown("passage", as_of, include_superseded)
    return sa.text(condition).bindparams(**values)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _to_passage(row: Any) -> Passage:
    return Passage(**{**row, "tags": tuple(row["tags"])})
