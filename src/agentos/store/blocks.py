"""The blocks of core memory with their versions, and which agents have them."""

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from agentos.errors import NotFound, UsageError
from agentos.messages import Block, Cause
from agentos.store.agents import AgentRows
from agentos.store.rows import Overtaken, listed, table
from agentos.store.tables import AgentBlockRow, AgentRow, BlockRow, BlockVersionRow

_agent, _block, _version, _attached = (table(r) for r in (AgentRow, BlockRow, BlockVersionRow, AgentBlockRow))
_META = (
    _block.c.id, _block.c.label, _block.c.limit, _block.c.description, _block.c.read_only, _block.c.tags, _block.c.meta,
)  # fmt: skip
_BLOCKS_OF = (
    sa.select(*_META, _block.c.version_id, _version.c.value, _attached.c.seen_version_id)
    .join(_attached, _attached.c.block_id == _block.c.id)
    .join(_version, _version.c.id == _block.c.version_id)
    .where(_attached.c.agent_id == sa.bindparam("agent_id"))
    .order_by(_attached.c.position, _block.c.id)
)
_ANY_BLOCK = sa.select(*_META, _block.c.version_id, _version.c.value).join(
    _version, _version.c.id == _block.c.version_id
)
_LOCK_BLOCK = sa.select(_block.c.id).where(_block.c.id == sa.bindparam("block_id")).with_for_update()
_REWRITE = (
    sa.update(_block)
    .where(_block.c.id == sa.bindparam("key"), _block.c.version_id == sa.bindparam("read"))
    .values(version_id=sa.bindparam("version_id"))
)


class BlockRows(AgentRows):
    """Statements on blocks."""

    def blocks(self, agent_id: str) -> list[Block]:
        """The agent's blocks in order, with their current values."""
        return [_to_block(row) for row in self.all(_BLOCKS_OF, agent_id=agent_id)]

    def block(self, block_id: int) -> Block | None:
        """The block with this id, whoever has it; `seen_version_id` is 0."""
        row = self.first(_ANY_BLOCK.where(_block.c.id == block_id))
        return None if row is None else _to_block(row)

    def block_page(
        self,
        *,
        label: str | None = None,
        tags: Sequence[str] = (),
        every_tag: bool = False,
        label_text: str | None = None,
        value_text: str | None = None,
        description_text: str | None = None,
        holders_over: int | None = None,
        holders_under: int | None = None,
        holders: Sequence[int] = (),
        **part: Any,
    ) -> list[Block]:
        """A page (`Rows.page`) of the blocks with this label, one of the tags or every one, these texts in their
        parts, and so many agents that have them in context.
        """
        query = _ANY_BLOCK
        if label is not None:
            query = query.where(_block.c.label == label)
        if tags:
            query = query.where(listed(_block.c.tags, tags, every_tag))
        for column, text in (
            (_block.c.label, label_text), (_version.c.value, value_text), (_block.c.description, description_text),
        ):  # fmt: skip
            if text:
                query = query.where(column.icontains(text, autoescape=True))
        held = sa.select(sa.func.count()).select_from(_attached).where(_attached.c.block_id == _block.c.id)
        count = held.scalar_subquery()
        if holders_over is not None:
            query = query.where(count > holders_over)
        if holders_under is not None:
            query = query.where(count < holders_under)
        if holders:
            query = query.where(count.in_(holders))
        return [_to_block(row) for row in self.page_by_id(query, [_block.c.id], **part)]

    def blocks_at(self, versions: tuple[int, ...]) -> list[Block]:
        """The blocks as they read at these versions, in the order given."""
        query = (
            sa.select(*_META, _version.c.id.label("version_id"), _version.c.value)
            .join(_version, _version.c.block_id == _block.c.id)
            .where(_version.c.id.in_(versions))
        )
        found = {row["version_id"]: _to_block(row) for row in self.all(query)}
        return [found[version] for version in versions if version in found]

    def add_block(self, block: Block, cause: Cause) -> Block:
        """Insert a block with its first version and attach it to the cause's agent, where it names one."""
        block_id = self.insert(
            BlockRow, label=block.label, limit=block.limit, description=block.description, read_only=block.read_only,
            version_id=0, tags=list(block.tags), meta=block.meta,
        )  # fmt: skip
        version = self._add_version(block_id, block.value, cause)
        self.update(BlockRow, block_id, version_id=version)
        if cause.agent_id:
            self.attach_block(cause.agent_id, block_id)
        self.journal(cause, "block.create", f"b{block_id}", after=version, text=block.value)
        return self._block(cause.agent_id, block_id)

    def attach_block(self, agent_id: str, block_id: int) -> None:
        """Give an agent a block; `NotFound` when there is none, `UsageError` when it has one with this label."""
        self.lock_agent(agent_id)
        self.lock_block(block_id)
        label = self.scalar(sa.select(_block.c.label).where(_block.c.id == block_id))
        if label is None:
            raise NotFound(f"there is no block b{block_id}; `agentos agents show NAME` lists an agent's blocks")
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

    def change_block(self, block: Block, cause: Cause, **values: Any) -> Block:
        """Change what a block has besides its value; the prompts of all who have it are made anew."""
        self.update(BlockRow, block.id, **values)
        self.journal(cause, "block.change", f"b{block.id}", " ".join(sorted(values)))
        for holder in self.holders(block.id):
            self.update_agent(holder)
        return self._block(cause.agent_id, block.id)

    def delete_block(self, block_id: int) -> None:
        """Remove a block with every version of its text, from every agent that has it."""
        for holder in self.holders(block_id) or {"": ""}:
            self.journal(Cause(holder, "user"), "block.delete", f"b{block_id}")
            if holder:
                self.detach_block(holder, block_id)
        self.connection.execute(sa.delete(_version).where(_version.c.block_id == block_id))
        self.connection.execute(sa.delete(_block).where(_block.c.id == block_id))

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

    def version_page(self, block_id: int, before: int | None = None, limit: int = 20) -> list[dict[str, Any]]:
        """Versions of a block older than `before`, newest first."""
        query = sa.select(_version).where(_version.c.block_id == block_id)
        if before is not None:
            query = query.where(_version.c.id < before)
        return [dict(row) for row in self.all(query.order_by(_version.c.id.desc()).limit(limit))]

    def version(self, version_id: int) -> dict[str, Any] | None:
        """One version of a block."""
        row = self.first(sa.select(_version).where(_version.c.id == version_id))
        return None if row is None else dict(row)

    def versions(self, version_ids: Collection[int]) -> dict[int, dict[str, Any]]:
        """Versions of blocks by id."""
        rows = self.all(sa.select(_version).where(_version.c.id.in_(version_ids))) if version_ids else []
        return {row["id"]: dict(row) for row in rows}

    def _add_version(self, block_id: int, value: str, cause: Cause, restores: int | None = None) -> int:
        return self.insert(
            BlockVersionRow, block_id=block_id, value=value, created_at=self.clock.now(), origin=cause.actor,
            agent_id=cause.agent_id, run_id=cause.run_id, message_id=cause.message_id, call_id=cause.call_id,
            about=self.speaker(cause), restores=restores,
        )  # fmt: skip

    def _block(self, agent_id: str, block_id: int) -> Block:
        """The block as the agent has it, or as it is where the agent has it not."""
        mine = next((b for b in self.blocks(agent_id) if b.id == block_id), None) if agent_id else None
        block = mine or self.block(block_id)
        assert block is not None, "a block that was just written exists"
        return block


def _to_block(row: Any) -> Block:
    return Block(**{**row, "tags": tuple(row["tags"])})
