"""Agents, their core memory blocks and the journal."""

import hashlib
import hmac
import json
import uuid
from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from agentos.errors import Conflict, NotFound, UsageError
from agentos.messages import Block, Cause
from agentos.state import AgentRecord, Limits, Snapshot, StoredTool
from agentos.store.rows import Overtaken, Rows, fields, listed, table
from agentos.store.tables import (
    AgentBlockRow,
    AgentRow,
    BlockRow,
    BlockVersionRow,
    HomeRow,
    JournalRow,
    McpServerRow,
    MessageRow,
    RunRow,
    ToolRow,
    WindowRow,
)
from agentos.tools.servers import McpServer, StoredServer

_agent, _block, _version, _attached = (table(r) for r in (AgentRow, BlockRow, BlockVersionRow, AgentBlockRow))
_journal, _window, _message, _run, _tool = (table(r) for r in (JournalRow, WindowRow, MessageRow, RunRow, ToolRow))
_home, _server = table(HomeRow), table(McpServerRow)
_RECORD = [_agent.c[name] for name in AgentRecord.__dataclass_fields__]
_BY_ID = sa.select(*_RECORD).where(_agent.c.id == sa.bindparam("agent_id"))
_VERSION_OF = sa.select(_agent.c.version).where(_agent.c.id == sa.bindparam("agent_id"))
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
# each turn begins with a message of the queue, so the newest message names the newest run
_OF_NEWEST_RUN = sa.and_(
    _message.c.agent_id == _agent.c.id, _message.c.seq == _agent.c.last_seq, _run.c.id == _message.c.run_id
)
_ENDED = sa.select(_run.c.ended_at).where(_OF_NEWEST_RUN).correlate(_agent).scalar_subquery()
_NEWEST_RUN = sa.select(_run.c.stop_reason, _run.c.ended_at).where(_OF_NEWEST_RUN)
AGENT_ORDERS: dict[str, sa.ColumnElement[Any]] = {
    "created_at": _agent.c.created_at,
    "name": _agent.c.name,
    "last_run_completion": sa.func.coalesce(_ENDED, _agent.c.created_at),
}
"""What a list of agents can be ordered by."""

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
    """Statements on agents, blocks, tools that clients described, MCP servers, and the journal."""

    # agents

    def add_agent(self, record: AgentRecord) -> None:
        """Insert an agent; `Conflict` when the name is taken."""
        values = asdict(record)
        values["tools"] = list(record.tools) if record.tools is not None else None
        values["tags"] = list(record.tags)
        try:
            self.insert(AgentRow, **values)
        except sa.exc.IntegrityError:
            raise Conflict(f"an agent named {record.name!r} exists already; choose another name") from None

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

    def agent_page(
        self,
        *,
        name: str | None = None,
        text: str | None = None,
        tags: Sequence[str] = (),
        every_tag: bool = False,
        stop_reasons: Sequence[str] | None = None,
        block_id: int | None = None,
        order_by: str = "created_at",
        **part: Any,
    ) -> list[AgentRecord]:
        """A page (`Rows.page`) of the agents of this name, with `text` in theirs, with one of the tags or every one,
        whose newest run ended for one of these reasons, that have this block in context. `order_by`: `AGENT_ORDERS`.
        """
        query = sa.select(*_RECORD)
        if name is not None:
            query = query.where(_agent.c.name == name)
        if text:
            query = query.where(_agent.c.name.icontains(text, autoescape=True))
        if tags:
            query = query.where(listed(_agent.c.tags, tags, every_tag))
        if stop_reasons is not None:
            newest = sa.select(_run.c.id).where(_OF_NEWEST_RUN, _run.c.stop_reason.in_(stop_reasons))
            query = query.where(newest.correlate(_agent).exists())
        if block_id is not None:
            query = query.where(
                _agent.c.id.in_(sa.select(_attached.c.agent_id).where(_attached.c.block_id == block_id))
            )
        return [_agent_record(row) for row in self.page_by_id(query, [AGENT_ORDERS[order_by], _agent.c.id], **part)]

    def agent_models(self, limit: int) -> list[str]:
        """The models that most agents have as their own."""
        query = sa.select(_agent.c.model).where(_agent.c.model.is_not(None)).group_by(_agent.c.model)
        return list(
            self.connection.execute(query.order_by(sa.func.count().desc(), _agent.c.model).limit(limit)).scalars()
        )

    def agent_tags(self) -> list[str]:
        """Every tag that an agent has, sorted."""
        lists = self.connection.execute(sa.select(sa.cast(_agent.c.tags, sa.String)).distinct()).scalars()
        return sorted({tag for tags in lists for tag in json.loads(tags)})

    def newest_run(self, agent_id: str) -> tuple[str | None, datetime | None]:
        """(why the agent's newest run ended, when); None while it has not, and before the first."""
        row = self.connection.execute(_NEWEST_RUN.where(_agent.c.id == agent_id)).first()
        return (None, None) if row is None else (row[0], row[1])

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

    def speaker(self, cause: Cause) -> str | None:
        """Who spoke last in the turn that a change belongs to (`user` without a name); None: nobody did."""
        if cause.run_id is None:
            return None
        spoken = sa.select(sa.func.coalesce(_message.c.name, "user"))
        spoken = spoken.where(_message.c.run_id == cause.run_id, _message.c.role == "user", _message.c.origin == "user")
        name: str | None = self.scalar(spoken.order_by(_message.c.id.desc()).limit(1))
        return name

    def _block(self, agent_id: str, block_id: int) -> Block:
        """The block as the agent has it, or as it is where the agent has it not."""
        mine = next((b for b in self.blocks(agent_id) if b.id == block_id), None) if agent_id else None
        block = mine or self.block(block_id)
        assert block is not None, "a block that was just written exists"
        return block

    # tools that clients described

    def add_tool(self, tool: StoredTool) -> None:
        """Insert a tool; `Conflict` when the name is taken."""
        if self.tools_named([tool.name]):
            raise Conflict(f"a tool named {tool.name!r} exists already; choose another name, or change that one")
        self.insert(ToolRow, **fields(tool) | {"tags": list(tool.tags)})

    def tool(self, tool_id: str) -> StoredTool | None:
        """The tool with this id."""
        row = self.first(sa.select(_tool).where(_tool.c.id == tool_id))
        return None if row is None else _to_tool(row)

    def tools_named(self, names: Sequence[str]) -> list[StoredTool]:
        """The tools with these names, oldest first."""
        if not names:
            return []
        query = sa.select(_tool).where(_tool.c.name.in_(list(names)))
        return [_to_tool(row) for row in self.all(query.order_by(_tool.c.created_at, _tool.c.id))]

    def tools(self) -> list[StoredTool]:
        """Every tool, oldest first."""
        return [_to_tool(row) for row in self.all(sa.select(_tool).order_by(_tool.c.created_at, _tool.c.id))]

    def update_tool(self, tool: StoredTool) -> None:
        """Write a tool's current values."""
        values = fields(tool) | {"tags": list(tool.tags)}
        self.update(ToolRow, values.pop("id"), **values)

    def tool_users(self, name: str) -> list[AgentRecord]:
        """The agents that name this tool among theirs."""
        query = sa.select(*_RECORD).where(_agent.c.tools.is_not(None), listed(_agent.c.tools, [name]))
        return [_agent_record(row) for row in self.all(query)]

    def delete_tool(self, tool: StoredTool) -> None:
        """Remove a tool, from every agent that has it."""
        for record in self.tool_users(tool.name):
            self.update_agent(record.id, tools=[n for n in record.tools or () if n != tool.name])
        self.connection.execute(sa.delete(_tool).where(_tool.c.id == tool.id))

    # MCP servers

    def mcp_servers(self, agent_id: str | None = None) -> list[StoredServer]:
        """The MCP servers of an agent, or of all, by agent and name."""
        query = sa.select(_server).order_by(_server.c.agent_id, _server.c.name)
        rows = self.all(query if agent_id is None else query.where(_server.c.agent_id == agent_id))
        return [_to_server(row) for row in rows]

    def save_mcp_server(self, stored: StoredServer) -> None:
        """Insert a server, in place of the agent's one of that name; `NotFound` when the agent was deleted."""
        if not self.lock_agent(stored.agent_id):
            raise NotFound("this agent was deleted; `agentos agents list` shows which there are")
        self.delete_mcp_server(stored.agent_id, stored.name)
        values = {"config": stored.server.model_dump(mode="json"), "name": stored.name}
        tools = None if stored.tools is None else list(stored.tools)
        self.insert(
            McpServerRow, agent_id=stored.agent_id, created_at=stored.created_at, tools=tools, problem=stored.problem,
            revision=uuid.uuid4().hex, **values,
        )  # fmt: skip

    def delete_mcp_server(self, agent_id: str, name: str) -> bool:
        """Remove a server; whether there was one."""
        query = sa.delete(_server).where(_server.c.agent_id == agent_id, _server.c.name == name)
        return self.connection.execute(query).rowcount > 0

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
            JournalRow, agent_id=cause.agent_id, created_at=self.clock.now(), actor=cause.actor, action=action,
            target=target, note=note, run_id=cause.run_id, message_id=cause.message_id, call_id=cause.call_id,
            before_id=before, after_id=after, hash=None if text is None else self._hash(text), undo_of=undo_of,
            client=cause.client or None,
        )  # fmt: skip

    def events(
        self,
        agent_id: str,
        target: str | None = None,
        actions: tuple[str, ...] = (),
        limit: int = 100,
        *,
        before: int | None = None,
        since: datetime | None = None,
        **equal: str | int | None,
    ) -> list[dict[str, Any]]:
        """Journal rows of an agent, newest first: those older than `before`, whose action begins with one of `actions`.

        `since`: only from this time on. `equal`: `actor`, `client`, `run_id`, `message_id`, `call_id`; None is no
        condition.
        """
        query = sa.select(_journal).where(_journal.c.agent_id == agent_id).order_by(_journal.c.id.desc()).limit(limit)
        query = query.where(*(_journal.c[name] == value for name, value in equal.items() if value is not None))
        if before is not None:
            query = query.where(_journal.c.id < before)
        if since is not None:
            query = query.where(_journal.c.created_at >= since)
        if target:
            query = query.where(_journal.c.target == target)
        if actions:
            query = query.where(sa.or_(*(_journal.c.action.startswith(a) for a in actions)))
        return [dict(row) for row in self.all(query)]

    def clients(self, agent_id: str) -> list[str]:
        """The names of the MCP clients that wrote to an agent's memory."""
        query = sa.select(_journal.c.client).where(_journal.c.agent_id == agent_id, _journal.c.client.is_not(None))
        return list(self.connection.execute(query.distinct().order_by(_journal.c.client)).scalars())

    def undos(self, agent_id: str, since: int) -> list[dict[str, Any]]:
        """(`id`, `undo_of`) of every undo of an agent behind the event `since`, newest first."""
        undo = sa.select(_journal.c.id, _journal.c.undo_of).where(_journal.c.agent_id == agent_id)
        behind = undo.where(_journal.c.id > since, _journal.c.undo_of.is_not(None))
        return [dict(row) for row in self.all(behind.order_by(_journal.c.id.desc()))]

    def events_since(
        self, agent_id: str, after: int, since: datetime | None, limit: int, actions: tuple[str, ...] = ()
    ) -> list[dict[str, Any]]:
        """Journal rows of an agent behind the event `after` and from the time `since` on, oldest first."""
        query = sa.select(_journal).where(_journal.c.agent_id == agent_id, _journal.c.id > after)
        if since is not None:
            query = query.where(_journal.c.created_at >= since)
        if actions:
            query = query.where(sa.or_(*(_journal.c.action.startswith(a) for a in actions)))
        return [dict(row) for row in self.all(query.order_by(_journal.c.id).limit(limit))]

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
        value = self.scalar(sa.select(_home.c.value).where(_home.c.key == key))
        return "" if value is None else str(value)

    def homes(self, prefix: str) -> dict[str, str]:
        """The facts about the home whose keys begin so, by key."""
        query = sa.select(_home.c.key, _home.c.value).where(_home.c.key.startswith(prefix, autoescape=True))
        return {row[0]: row[1] for row in self.connection.execute(query.order_by(_home.c.key))}

    def set_home(self, key: str, value: str | None) -> None:
        """Keep a fact about the home, or with None forget it."""
        self.connection.execute(sa.delete(_home).where(_home.c.key == key))
        if value is not None:
            self.insert(HomeRow, key=key, value=value)

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


def _to_block(row: Any) -> Block:
    return Block(**{**row, "tags": tuple(row["tags"])})


def _to_tool(row: Any) -> StoredTool:
    return StoredTool(**{**row, "tags": tuple(row["tags"])})


def _to_server(row: Any) -> StoredServer:
    values = {**row, "tools": None if row["tools"] is None else tuple(row["tools"])}
    del values["name"]
    return StoredServer(server=McpServer.model_validate(values.pop("config")), **values)


def _agent_record(row: Any) -> AgentRecord:
    values = dict(row)
    values["tools"] = tuple(values["tools"]) if values["tools"] is not None else None
    values["limits"], values["tags"] = Limits(**values["limits"]), tuple(values["tags"])
    snapshot = values["snapshot"]
    if snapshot is not None:
        values["snapshot"] = Snapshot(tuple(snapshot["versions"]), snapshot["parts"], snapshot["reason"])
    return AgentRecord(**values)
