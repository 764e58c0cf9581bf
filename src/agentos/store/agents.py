"""Agents, their core memory blocks and the journal."""

import hashlib
import hmac
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from agentos.errors import UsageError
from agentos.messages import Block, Cause
from agentos.state import AgentRecord, Limits, Snapshot
from agentos.store.rows import Overtaken, Rows, table
from agentos.store.tables import (
    AgentBlockRow,
    AgentRow,
    BlockRow,
    BlockVersionRow,
    HomeRow,
    JournalRow,
    MessageRow,
    WindowRow,
)

_agent, _block, _version, _attached = (table(r) for r in (AgentRow, BlockRow, BlockVersionRow, AgentBlockRow))
_journal, _window, _message = table(JournalRow), table(WindowRow), table(MessageRow)
_RECORD = [_agent.c[name] for name in AgentRecord.__dataclass_fields__]
_BY_ID = sa.select(*_RECORD).where(_agent.c.id == sa.bindparam("agent_id"))
_VERSION_OF = sa.select(_agent.c.version).where(_agent.c.id == sa.bindparam("agent_id"))
_META = (_block.c.id, _block.c.label, _block.c.limit, _block.c.description, _block.c.read_only)

_BLOCKS_OF = (
    sa.select(*_META, _block.c.version_id, _version.c.value, _attached.c.seen_version_id)
    .join(_attached, _attached.c.block_id == _block.c.id)
    .join(_version, _version.c.id == _block.c.version_id)
    .where(_attached.c.agent_id == sa.bindparam("agent_id"))
    .order_by(_attached.c.position, _block.c.id)
)

_LOCK_BLOCK = sa.select(_block.c.id).where(_block.c.id == sa.bindparam("block_id")).with_for_update()
_REWRITE = (
    sa.update(_block)
    .where(_block.c.id == sa.bindparam("key"), _block.c.version_id == sa.bindparam("read"))
    .values(version_id=sa.bindparam("version_id"))
)
_LEARN = sa.text("""
INSERT INTO model_window (model, believed, tokens) VALUES (:model, :believed, :tokens)
ON CONFLICT (model) DO UPDATE SET believed = excluded.believed, tokens = excluded.tokens
""")


class AgentRows(Rows):
    """Statements on agents, blocks and the journal."""

    # agents

    def add_agent(self, record: AgentRecord) -> None:
        """Insert an agent; `UsageError` when the name is taken."""
        values = asdict(record)
        values["tools"] = list(record.tools) if record.tools is not None else None
        try:
            self.insert(AgentRow, **values)
        except sa.exc.IntegrityError:
            raise UsageError(f"an agent named {record.name!r} exists already; choose another name") from None

    def agent(self, agent_id: str) -> AgentRecord | None:
        """The agent with this id."""
        row = self.first(_BY_ID, agent_id=agent_id)
        return None if row is None else _agent_record(row)

    def agent_named(self, name: str) -> AgentRecord | None:
        """The agent with this name."""
        row = self.first(sa.select(*_RECORD).where(_agent.c.name == name))
        return None if row is None else _agent_record(row)

    def agents(self) -> list[AgentRecord]:
        """All agents, by name."""
        return [_agent_record(row) for row in self.all(sa.select(*_RECORD).order_by(_agent.c.name))]

    def agent_version(self, agent_id: str) -> int | None:
        """A number that grows with every change to the agent, its blocks or its queue; None: no such agent."""
        version: int | None = self.scalar(_VERSION_OF, agent_id=agent_id)
        return version

    def update_agent(self, agent_id: str, **values: Any) -> None:
        """Change columns of an agent; its version grows."""
        if isinstance(values.get("snapshot"), Snapshot):
            values["snapshot"] = asdict(values["snapshot"])
        self.update(AgentRow, agent_id, **values)

    def delete_agent(self, agent_id: str) -> None:
        """Remove an agent with everything that is its alone; blocks shared with others stay."""
        self.lock_agent(agent_id)
        mine = [b.id for b in self.blocks(agent_id)]
        self.connection.execute(sa.delete(_attached).where(_attached.c.agent_id == agent_id))
        shared = sa.select(_attached.c.block_id)
        self.connection.execute(
            sa.delete(_version).where(_version.c.block_id.in_(mine), _version.c.block_id.not_in(shared))
        )
        self.connection.execute(sa.delete(_block).where(_block.c.id.in_(mine), _block.c.id.not_in(shared)))
        for owned in AgentRow.metadata.sorted_tables:
            if "agent_id" in owned.c and owned is not _version:
                self.connection.execute(sa.delete(owned).where(owned.c.agent_id == agent_id))
        self.connection.execute(sa.delete(_agent).where(_agent.c.id == agent_id))
        self.forget_words()

    # blocks

    def blocks(self, agent_id: str) -> list[Block]:
        """The agent's blocks in order, with their current values."""
        return [Block(**row) for row in self.all(_BLOCKS_OF, agent_id=agent_id)]

    def blocks_at(self, versions: tuple[int, ...]) -> list[Block]:
        """The blocks as they read at these versions, in the order given."""
        query = (
            sa.select(*_META, _version.c.id.label("version_id"), _version.c.value)
            .join(_version, _version.c.block_id == _block.c.id)
            .where(_version.c.id.in_(versions))
        )
        found = {row["version_id"]: Block(**row) for row in self.all(query)}
        return [found[version] for version in versions if version in found]

    def add_block(self, block: Block, cause: Cause) -> Block:
        """Insert a block with its first version and attach it to the cause's agent."""
        block_id = self.insert(
            BlockRow, label=block.label, limit=block.limit, description=block.description, read_only=block.read_only,
            version_id=0,
        )  # fmt: skip
        version = self._add_version(block_id, block.value, cause)
        self.update(BlockRow, block_id, version_id=version)
        self.attach_block(cause.agent_id, block_id)
        self.journal(cause, "block.create", f"b{block_id}", after=version, text=block.value)
        return self._block(cause.agent_id, block_id)

    def attach_block(self, agent_id: str, block_id: int) -> None:
        """Give an agent a block that exists; `UsageError` when it has one with this label or it is unknown."""
        self.lock_agent(agent_id)
        self.lock_block(block_id)
        label = self.scalar(sa.select(_block.c.label).where(_block.c.id == block_id))
        if label is None:
            raise UsageError(f"there is no block b{block_id}; `agentos agents show NAME` lists an agent's blocks")
        have = self.blocks(agent_id)
        if any(b.label == label for b in have):
            raise UsageError(f"that agent has a block {label!r} already; share one whose label is new to it")
        self.insert(AgentBlockRow, agent_id=agent_id, block_id=block_id, position=len(have), seen_version_id=0)
        self.connection.execute(
            sa.update(_attached)
            .where(_attached.c.agent_id == agent_id, _attached.c.block_id == block_id)
            .values(seen_version_id=sa.select(_block.c.version_id).where(_block.c.id == block_id).scalar_subquery())
        )
        self.update_agent(agent_id)

    def detach_block(self, agent_id: str, block_id: int) -> None:
        """Take a block out of an agent's context; the block itself stays."""
        self.lock_agent(agent_id)
        self.connection.execute(
            sa.delete(_attached).where(_attached.c.agent_id == agent_id, _attached.c.block_id == block_id)
        )
        self.update_agent(agent_id)

    def lock_block(self, block_id: int) -> None:
        """Make the block, and who has it, this transaction's until the commit."""
        self.connection.execute(_LOCK_BLOCK, {"block_id": block_id})

    def holders(self, block_id: int) -> dict[str, str]:
        """The agents that have a block in their context: id -> name, by name."""
        query = sa.select(_agent.c.id, _agent.c.name).join(_attached, _attached.c.agent_id == _agent.c.id)
        rows = self.connection.execute(query.where(_attached.c.block_id == block_id).order_by(_agent.c.name))
        return {row[0]: row[1] for row in rows}

    def write_block(
        self,
        block: Block,
        value: str,
        cause: Cause,
        action: str,
        undo_of: int | None = None,
        restores: int | None = None,
    ) -> Block:
        """A new version of `block` as this transaction read it; every agent that has it will be told,
        the author knows already.

        An undo names the event it takes back and the version whose text it `restores`.
        """
        version = self._add_version(block.id, value, cause, restores)
        read = {"key": block.id, "read": block.version_id, "version_id": version}
        if self.connection.execute(_REWRITE, read).rowcount == 0:
            raise Overtaken
        self.journal(cause, action, f"b{block.id}", before=block.version_id, after=version, text=value, undo_of=undo_of)
        if cause.actor == "agent" and block.seen_version_id == block.version_id:  # else it has more to be told
            self.mark_seen(cause.agent_id, {block.id: version})
        for holder in self.holders(block.id):
            self.update_agent(holder)
        return self._block(cause.agent_id, block.id)

    def mark_seen(self, agent_id: str, versions: dict[int, int]) -> None:
        """Record which version of each block (id -> version) the agent has in its context."""
        for block_id, version in versions.items():
            self.connection.execute(
                sa.update(_attached)
                .where(_attached.c.agent_id == agent_id, _attached.c.block_id == block_id)
                .values(seen_version_id=version)
            )

    def block_versions(self, block_id: int) -> list[dict[str, Any]]:
        """Every version of a block, oldest first."""
        return [
            dict(r)
            for r in self.all(sa.select(_version).where(_version.c.block_id == block_id).order_by(_version.c.id))
        ]

    def version(self, version_id: int) -> dict[str, Any] | None:
        """One version of a block."""
        row = self.first(sa.select(_version).where(_version.c.id == version_id))
        return None if row is None else dict(row)

    def _add_version(self, block_id: int, value: str, cause: Cause, restores: int | None = None) -> int:
        return self.insert(
            BlockVersionRow, block_id=block_id, value=value, created_at=datetime.now(UTC), origin=cause.actor,
            agent_id=cause.agent_id, run_id=cause.run_id, message_id=cause.message_id, call_id=cause.call_id,
            about=self.speaker(cause), restores=restores,
        )  # fmt: skip

    def speaker(self, cause: Cause) -> str | None:
        """Who spoke last in the turn that a change belongs to (`user` without a name); None: nobody did."""
        if cause.run_id is None:
            return None
        spoken = sa.select(sa.func.coalesce(_message.c.name, "user"))
        spoken = spoken.where(_message.c.run_id == cause.run_id, _message.c.role == "user", _message.c.origin == "user")
        name: str | None = self.scalar(spoken.order_by(_message.c.id.desc()).limit(1))
        return name

    def _block(self, agent_id: str, block_id: int) -> Block:
        return next(b for b in self.blocks(agent_id) if b.id == block_id)

    # journal

    def journal(
        self,
        cause: Cause,
        action: str,
        target: str,
        note: str = "",
        *,
        before: int | None = None,
        after: int | None = None,
        text: str | None = None,
        undo_of: int | None = None,
    ) -> int:
        """Append an event; of `text` only a salted hash is kept."""
        return self.insert(
            JournalRow, agent_id=cause.agent_id, created_at=datetime.now(UTC), actor=cause.actor, action=action,
            target=target, note=note, run_id=cause.run_id, message_id=cause.message_id, call_id=cause.call_id,
            before_id=before, after_id=after, hash=None if text is None else self._hash(text), undo_of=undo_of,
        )  # fmt: skip

    def events(
        self, agent_id: str, target: str | None = None, actions: tuple[str, ...] = (), limit: int = 100
    ) -> list[dict[str, Any]]:
        """Journal rows of an agent, newest first."""
        query = sa.select(_journal).where(_journal.c.agent_id == agent_id).order_by(_journal.c.id.desc()).limit(limit)
        if target:
            query = query.where(_journal.c.target == target)
        if actions:
            query = query.where(sa.or_(*(_journal.c.action.startswith(a) for a in actions)))
        return [dict(row) for row in self.all(query)]

    def event(self, event_id: int) -> dict[str, Any] | None:
        """One journal row."""
        row = self.first(sa.select(_journal).where(_journal.c.id == event_id))
        return None if row is None else dict(row)

    def _hash(self, text: str) -> str:
        return hmac.new(self.home("salt").encode(), text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[
            :32
        ]

    # the home

    def home(self, key: str) -> str:
        """A fact about the home, such as its `id` or `salt` (made when the database was made)."""
        value = self.scalar(sa.select(table(HomeRow).c.value).where(table(HomeRow).c.key == key))
        return "" if value is None else str(value)

    def learned_window(self, model: str, believed: int) -> int | None:
        """The context window, in tokens, that this model's provider named when it was believed to be `believed`.

        Another belief, mostly a new setting, asks the provider anew.
        """
        known = sa.select(_window.c.tokens).where(_window.c.model == model, _window.c.believed == believed)
        tokens: int | None = self.scalar(known)
        return tokens

    def learn_window(self, model: str, believed: int, tokens: int) -> None:
        """Keep a model's true window."""
        self.connection.execute(_LEARN, {"model": model, "believed": believed, "tokens": tokens})


def _agent_record(row: Any) -> AgentRecord:
    values = dict(row)
    values["tools"] = tuple(values["tools"]) if values["tools"] is not None else None
    values["limits"] = Limits(**values["limits"])
    snapshot = values["snapshot"]
    if snapshot is not None:
        values["snapshot"] = Snapshot(tuple(snapshot["versions"]), snapshot["parts"], snapshot["reason"])
    return AgentRecord(**values)
