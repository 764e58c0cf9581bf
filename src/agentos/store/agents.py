"""The rows of agents."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from agentos.errors import Conflict
from agentos.state import AgentRecord, Limits, Snapshot
from agentos.store.journal import JournalRows
from agentos.store.rows import listed, table
from agentos.store.tables import AgentBlockRow, AgentRow, BlockRow, BlockVersionRow, MessageRow, RunRow

_agent, _block, _version, _attached = (table(r) for r in (AgentRow, BlockRow, BlockVersionRow, AgentBlockRow))
_message, _run = table(MessageRow), table(RunRow)
_RECORD = [_agent.c[name] for name in AgentRecord.__dataclass_fields__]
_BY_ID = sa.select(*_RECORD).where(_agent.c.id == sa.bindparam("agent_id"))
_VERSION_OF = sa.select(_agent.c.version).where(_agent.c.id == sa.bindparam("agent_id"))
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


class AgentRows(JournalRows):
    """Statements on agents."""

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
        have = sa.select(_attached.c.block_id).where(_attached.c.agent_id == agent_id)
        mine = list(self.connection.execute(have).scalars())
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

    def tool_users(self, name: str) -> list[AgentRecord]:
        """The agents that name this tool among theirs."""
        query = sa.select(*_RECORD).where(_agent.c.tools.is_not(None), listed(_agent.c.tools, [name]))
        return [_agent_record(row) for row in self.all(query)]


def _agent_record(row: Any) -> AgentRecord:
    values = dict(row)
    values["tools"] = tuple(values["tools"]) if values["tools"] is not None else None
    values["limits"], values["tags"] = Limits(**values["limits"]), tuple(values["tags"])
    snapshot = values["snapshot"]
    if snapshot is not None:
        values["snapshot"] = Snapshot(tuple(snapshot["versions"]), snapshot["parts"], snapshot["reason"])
    return AgentRecord(**values)
