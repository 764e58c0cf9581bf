"""The one place that chooses adapters: database, index, embedder, model, tools."""

import asyncio
import json
import os
import socket
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from agentos.actions.turn import Parts, Turn, fit_window
from agentos.agent import Agent
from agentos.archive.background import BackgroundDrain
from agentos.archive.chroma import ChromaIndex
from agentos.archive.embedders import make_embedder
from agentos.archive.source import SqlIndexSource
from agentos.archive.sync import CheckedIndex, IndexSync, RebuildableIndex
from agentos.clock import SystemClock
from agentos.errors import (
    AgentBusy,
    AgentOSError,
    ConfigError,
    Conflict,
    IndexUnavailable,
    NotFound,
    StoreError,
    UsageError,
)
from agentos.llm.choice import Models
from agentos.locks import hold_file
from agentos.mcp_client.servers import McpServers
from agentos.memory.agent_memory import AgentMemory
from agentos.memory.search import EXACT_BELOW, HybridSearch
from agentos.messages import Approval, Block, Cause
from agentos.personas import Persona, load_persona, persona_folders
from agentos.prompts import prompt
from agentos.protocols import LLM, Clock, Embedder
from agentos.settings import Settings, load_settings
from agentos.state import AgentRecord, AgentState, Limits, StoredTool
from agentos.store.database import IN_MEMORY, Database, sqlite_url
from agentos.store.holding import hold_lease
from agentos.store.migrations import migrate
from agentos.tools.described import DescribedTool, never_run
from agentos.tools.memory import MEMORY_TOOLS
from agentos.tools.servers import StoredServer
from agentos.tools.tool import Tool
from agentos.tools.toolset import Toolset

_BUSY_WAIT_SECONDS = 30.0
_AGENTS_IN_MEMORY = 1000


class Runtime:
    """One home with its agents: `async with Runtime() as runtime: agent = await runtime.agent("ada")`.

    Whatever is not handed in is chosen from the settings. Opening migrates the database when its
    schema differs. Several processes may open one home at a time. While it is open, new passages are
    embedded and the vector index catches up in the background.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        llm: LLM | None = None,
        tools: Iterable[Tool] = (),
        clock: Clock | None = None,
        embedder: Embedder | None = None,
        index: RebuildableIndex | None = None,
        limits: Limits | None = None,
        store: Database | None = None,
    ) -> None:
        self.settings = settings or load_settings()
        self._given_store = store
        self.clock = clock or SystemClock()
        self.tools = Toolset([*MEMORY_TOOLS, *tools])
        self.embedder = embedder or make_embedder(self.settings.embedding)
        self.home = self.settings.home
        self.index = index or self._chroma()
        self.limits = limits or Limits()
        """What one turn may spend here, whatever its agent's own limits say."""
        self.default_limits = Limits(
            self.settings.max_steps, self.settings.max_turn_tokens, self.settings.max_turn_cost_usd
        )
        self._models = Models(self.settings, llm)
        self._locks: dict[str, asyncio.Lock] = {}
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        """Names this process to others."""
        self._agents: OrderedDict[tuple[object, ...], Agent] = OrderedDict()

    async def __aenter__(self) -> "Runtime":
        self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def open(self) -> None:
        """Open the home, inside a running event loop; `StoreError` says why it cannot be."""
        self.backup: Path | None = None
        self.store = self._given_store or self._database()
        self.store.clock = self.clock
        source = SqlIndexSource(self.store)
        self.sync = IndexSync(source, self.index, self.embedder, self.settings.index_min_passages)
        exact_below = max(EXACT_BELOW, self.settings.index_min_passages)  # below, there is nothing in the index
        self.search = HybridSearch(self.store, self.embedder, CheckedIndex(self.sync), exact_below)
        self.mcp = McpServers(self.store, self.clock, self._measured_with)
        """The MCP servers of its agents."""
        self._drain = BackgroundDrain(self.sync)
        self._drain.start()

    def _database(self) -> Database:
        url = self.settings.database_url or sqlite_url(self.home / "agentos.db")
        if url not in IN_MEMORY:
            self._folder()
            self.backup = migrate(url)
            return Database(url)
        store = Database(url)
        with store.engine.connect() as connection:  # its one connection is the database
            migrate(url, connection)
        return store

    async def close(self) -> None:
        """Let go of everything; unfinished turns go on at the next start.

        Where the embedder is remote, what was written here is embedded first, as far as five seconds reach.
        """
        await self.mcp.close()
        await self._drain.stop()
        if self._agents and not self.embedder.in_process:
            await self._drain.embed_rest()
        await self.index.close()
        await self.store.close()

    def memory(self, agent_id: str, run_id: str | None = None) -> AgentMemory:
        """What the tools of an agent's turn may look up."""
        return AgentMemory(self.store, self.search, self.embedder, agent_id, run_id)

    # models

    def llm(self, model: str | None = None) -> LLM:
        """The model called `model`, or the one the settings and the machine's providers give."""
        return self._models.named(model)

    @property
    def model_source(self) -> str:
        """How the model was chosen, in words."""
        return self._models.source

    async def known_windows(self, records: Iterable[AgentRecord]) -> list[int | None]:
        """The tokens of each agent's window, where they are known without loading its model's library."""
        believed = [self._believed_window(record) for record in records]

        def work(tx: Any) -> dict[tuple[str, int], int | None]:
            return {pair: tx.learned_window(*pair) for pair in {pair for pair in believed if pair}}

        learned = await self.store.read(work)
        return [None if pair is None else min(pair[1], learned[pair] or pair[1]) for pair in believed]

    def _believed_window(self, record: AgentRecord) -> tuple[str, int] | None:
        """(the model's name, the tokens of its window before a provider has said otherwise)."""
        try:
            llm = self.llm(record.model)
        except AgentOSError:  # the agent's next turn says what is wrong with its model
            return None
        if not getattr(llm, "loaded", True):
            return None
        given = (llm.context_window, self.settings.context_window, record.window_tokens)
        return llm.name, min(tokens for tokens in given if tokens)

    # agents

    async def agent(self, name: str = "default", *, persona: str | None = None, model: str | None = None) -> Agent:
        """The agent called `name`, made from `persona` on first use. `model` holds for this object only."""
        record = await self.store.read(lambda tx: tx.agent_named(name))
        if record is None:
            record = await self._created_once(name, "assistant" if persona is None else persona)
        elif persona is not None and persona != record.persona:
            load_persona(persona, self.persona_folders)  # says so when there is no such persona at all
            raise UsageError(
                f"agent {name!r} exists with persona {record.persona!r}; choose another --agent for {persona!r}"
            )
        found = record
        await self.mcp.ask_new(found.id)
        agent = self.attach(found, model, await self.store.read(lambda tx: _extras(tx, found)))
        if model is not None and (misfit := (await agent.turn()).misfit()):
            raise UsageError(misfit)
        return agent

    async def agent_of(self, agent_id: str, model: str | None = None) -> Agent:
        """The agent with this id, as its row says now; `NotFound` when there is none. `model`: for this object only."""

        def work(tx: Any) -> tuple[AgentRecord, list[_Extra]]:
            record = tx.agent(agent_id)
            if record is None:
                raise NotFound(f"there is no agent {agent_id!r}")
            return record, _extras(tx, record)

        record, extras = await self.store.read(work)
        return self.attach(record, model, extras)

    def attach(self, record: AgentRecord, model: str | None = None, extras: "Sequence[_Extra]" = ()) -> Agent:
        """The object for an agent's row; the same one each time, while model, tools and system text stay the same.

        `extras`: the tools of its that clients described, and its MCP servers.
        """
        llm = self.llm(model or record.model)
        said = [e.revision if isinstance(e, StoredServer) else (e.json_schema, e.approval) for e in extras]
        approvals = tuple(record.approvals.items())
        key = (record.id, llm.name, record.tools, record.system, record.window_tokens, json.dumps(said), approvals)
        if key not in self._agents:
            self._forget_idle()
            self._agents[key] = Agent(record.id, self._parts(record, llm, extras), self.lock, record)
        self._agents.move_to_end(key)
        agent = self._agents[key]
        agent.made_of = record
        return agent

    def tools_of(self, tx: Any, record: AgentRecord) -> Toolset:
        """All tools of an agent, also those of which no call is ever approved."""
        return self._toolset(record, _extras(tx, record))

    def _toolset(self, record: AgentRecord, extras: "Sequence[_Extra]") -> Toolset:
        named = dict(self.tools.only(record.tools).tools)
        for extra in extras:
            for tool in self.mcp.tools(extra) if isinstance(extra, StoredServer) else [_tool(extra)]:
                named.setdefault(tool.name, tool)  # no server takes the place of a tool of ours
        return Toolset(named.values())

    def _parts(self, record: AgentRecord, llm: LLM, extras: "Sequence[_Extra]") -> Parts:
        windows = [w for w in (self.settings.context_window, record.window_tokens) if w is not None]
        tools = self._toolset(record, extras)
        return Parts(
            store=self.store, llm=llm, tools=tools.usable(record.approvals),
            memory=self.memory, clock=self.clock,
            system=record.system or prompt("system"), cache_ttl_seconds=self.settings.cache_ttl_seconds,
            window_tokens=min(windows, default=None), limits=self.limits, default_limits=self.default_limits,
        )  # fmt: skip

    def running(self, agent_id: str) -> Agent | None:
        """The object whose turn runs here, also where its model, tools or system text were changed since."""
        return next((agent for key, agent in self._agents.items() if key[0] == agent_id and agent.busy), None)

    def _forget_idle(self) -> None:
        """Let go of the agents used longest ago: what they hold is saved, and read again when they are asked for."""
        surplus = len(self._agents) - _AGENTS_IN_MEMORY
        for key in [key for key, agent in self._agents.items() if not agent.busy][: max(0, surplus)]:
            del self._agents[key]

    async def create_agent(
        self,
        name: str,
        *,
        persona: str = "assistant",
        model: str | None = None,
        blocks: Sequence[Block] | None = None,
        shared: Sequence[int] = (),
        measured: bool = False,
        **values: Any,
    ) -> AgentRecord:
        """A new agent; `UsageError` when the name is unusable, `Conflict` when it is taken.

        `model` becomes its own; None takes the persona's, and at each start the one of the settings. It has `blocks`,
        without which those of its persona, and the blocks with the ids `shared`. `values`: further fields of its row.
        Where it is `measured`, it is a `UsageError` that tools, system text and core memory would take more than
        half of the window.
        """
        _refuse_odd(name)
        who = load_persona(persona, self.persona_folders)
        given = {"tools": self._known_tools(who), "limits": Limits(who.max_steps)} | values
        if who.approvals:
            settings = given.get("settings", {})
            given["settings"] = {**settings, "approvals": {**who.approvals, **settings.get("approvals", {})}}
        record = AgentRecord(
            id=f"agent-{uuid.uuid4()}", name=name, persona=persona, created_at=self.clock.now(),
            model=model or who.model, **given,
        )  # fmt: skip
        own = who.core_memory() if blocks is None else blocks
        if measured:
            record = await self._measured(record, own, shared)

        def work(tx: Any) -> None:
            tx.add_agent(record)
            for block in own:
                tx.add_block(block, Cause(record.id, "runtime" if blocks is None else "user"))
            for block_id in shared:
                tx.attach_block(record.id, block_id)
            for server in who.mcp_servers:
                tx.save_mcp_server(StoredServer(record.id, server, record.created_at))

        await self.store.write(work)
        await self.mcp.ask_new(record.id)
        return record

    async def update_agent(self, agent_id: str, *, blocks: Sequence[int] | None = None, **values: Any) -> AgentRecord:
        """Change fields of an agent's row, and with `blocks` (ids, in order) which it has; from its next turn on.

        `NotFound`, `Conflict` for a name that is taken, `UsageError` for one that is unusable and where tools, system
        text and core memory would take more than half of the window. Then nothing changes.
        """
        record: AgentRecord | None = await self.store.read(lambda tx: tx.agent(agent_id))
        if record is None:
            raise NotFound(f"there is no agent {agent_id!r}")
        if "name" in values:
            _refuse_odd(values["name"])
        changed = replace(record, **values)
        fixed = ("model", "tools", "system", "window_tokens", "approvals")
        if blocks is not None or any(getattr(changed, name) != getattr(record, name) for name in fixed):
            now = [b.id for b in await self.store.read(lambda tx: tx.blocks(agent_id))]
            changed = await self._measured(changed, (), now if blocks is None else blocks)
            values["core_room"] = changed.core_room

        def work(tx: Any) -> None:
            if tx.agent(agent_id) is None:
                raise NotFound(f"there is no agent {agent_id!r}")
            named = tx.agent_named(changed.name)
            if named is not None and named.id != agent_id:
                raise Conflict(f"an agent named {changed.name!r} exists already; choose another name")
            have = [] if blocks is None else tx.blocks(agent_id)
            for block in have:
                if block.id not in (blocks or ()):
                    tx.detach_block(agent_id, block.id)
                    tx.journal(Cause(agent_id, "user"), "block.detach", f"b{block.id}", before=block.version_id)
            for block_id in blocks or ():
                if all(block.id != block_id for block in have):
                    tx.attach_block(agent_id, block_id)
                    tx.journal(Cause(agent_id, "user"), "block.attach", f"b{block_id}")
            tx.update_agent(agent_id, **values)

        await self.store.write(work)
        return changed

    async def set_approval(self, agent_id: str, tool: str, approval: Approval | None) -> AgentRecord:
        """Whether this agent's calls of a tool run without asking; None: as the tool says. From its next turn on.

        `NotFound` where there is no such agent or tool, `UsageError` for another word.
        """
        if approval not in (None, *get_args(Approval)):
            raise UsageError(f"{approval!r} is no approval; use {', '.join(get_args(Approval))}")

        def work(tx: Any) -> tuple[AgentRecord | None, bool]:
            record = tx.agent(agent_id)
            known = tool in self.tools.tools or bool(tx.tools_named([tool]))
            return record, known or (record is not None and tool in self.tools_of(tx, record).tools)

        record, known = await self.store.read(work)
        if record is None or not known:
            what = f"tool {tool!r}" if record else f"agent {agent_id!r}"
            raise NotFound(f"there is no {what}")
        chosen = {name: own for name, own in record.approvals.items() if name != tool}
        chosen |= {} if approval is None else {tool: approval}
        return await self.update_agent(agent_id, settings={**record.settings, "approvals": chosen})

    async def replace_tool(self, tool: StoredTool) -> None:
        """Save a tool that a client describes anew, unless an agent that has it would have no room for it."""

        def users(tx: Any) -> list[tuple[AgentRecord, list[int]]]:
            return [(record, [b.id for b in tx.blocks(record.id)]) for record in tx.tool_users(tool.name)]

        for record, blocks in await self.store.read(users):
            await self._measured(record, (), blocks, tool)
        await self.store.write(lambda tx: tx.update_tool(tool))

    async def _measured_with(self, agent_id: str, servers: Sequence[StoredServer]) -> None:
        """`UsageError` where an agent has no room for the tools of these MCP servers."""

        def work(tx: Any) -> tuple[AgentRecord | None, list[int]]:
            return tx.agent(agent_id), [b.id for b in tx.blocks(agent_id)]

        record, blocks = await self.store.read(work)
        if record is None:
            raise NotFound(f"there is no agent {agent_id!r}")
        await self._measured(record, (), blocks, servers=servers)

    async def _measured(
        self,
        record: AgentRecord,
        blocks: Sequence[Block],
        shared: Sequence[int],
        tool: StoredTool | None = None,
        servers: Sequence[StoredServer] | None = None,
    ) -> AgentRecord:
        """The row with the room its core memory has; `UsageError` where that would be too little for its blocks.

        `tool` stands in for the one of its name, `servers` for its MCP servers.
        """
        llm = await asyncio.to_thread(self.llm, record.model)

        def work(tx: Any) -> tuple[list[_Extra], list[Block]]:
            found = [tx.block(block_id) for block_id in shared]
            if None in found:
                raise NotFound(f"there is no block {shared[found.index(None)]}")
            return _extras(tx, record), found

        extras, others = await self.store.read(work)
        extras = [tool if tool is not None and isinstance(e, StoredTool) and tool.name == e.name else e for e in extras]
        if servers is not None:
            extras = [*(e for e in extras if isinstance(e, StoredTool)), *servers]
        parts = self._parts(record, llm, extras)
        believed = (await asyncio.to_thread(fit_window, parts, None)).tokens  # a model's window may take seconds
        learned = await self.store.read(lambda tx: tx.learned_window(llm.name, believed))
        turn = Turn(parts, AgentState(record, [*blocks, *others], [], [], []), learned)
        if crowded := await asyncio.to_thread(turn.crowding, turn.state.blocks):
            raise UsageError(f"{crowded}; shorten them, or choose a model with a larger window")
        return replace(record, core_room=turn.core_room())

    async def _created_once(self, name: str, persona: str) -> AgentRecord:
        """A new agent, or the one of that name which another process made in the same moment."""
        try:
            return await self.create_agent(name, persona=persona)
        except UsageError:
            record = await self.store.read(lambda tx: tx.agent_named(name))
            if record is None:
                raise
            return record

    async def delete_agent(self, agent_id: str) -> None:
        """Remove an agent with all it knows; blocks it shares with others stay with them."""
        async with self.lock(agent_id) as lease:

            def work(tx: Any) -> None:
                tx.check_lease(agent_id, lease)
                tx.delete_agent(agent_id)

            await self.store.write(work)
        for key in [key for key in self._agents if key[0] == agent_id]:
            del self._agents[key]
        self._locks.pop(agent_id, None)
        (self.home / "locks" / f"{agent_id}.lock").unlink(missing_ok=True)
        if self.settings.chroma_url or (self.home / "chroma").exists():
            with suppress(IndexUnavailable):  # what is left there the next reindex prunes
                await self.index.drop(agent_id)

    def _known_tools(self, persona: Persona) -> tuple[str, ...] | None:
        unknown = [name for name in (*(persona.tools or ()), *persona.approvals) if name not in self.tools.tools]
        if unknown:
            known = ", ".join(self.tools.tools)
            raise ConfigError(f"persona {persona.name!r} names the tool {unknown[0]!r}; there are: {known}")
        return None if persona.tools is None else tuple(persona.tools)

    @property
    def persona_folders(self) -> list[Path]:
        """Where personas are looked for."""
        return persona_folders(self.settings.personas or self.home / "personas")

    # locks and files

    @asynccontextmanager
    async def lock(self, agent_id: str, wait_seconds: float = _BUSY_WAIT_SECONDS) -> AsyncIterator[int | None]:
        """Hold the agent's turn, in this process and across processes; `AgentBusy` after half a minute.

        Where machines share the database it is a lease, and its epoch is yielded for the commits to check. With no
        time to wait (0) a turn of this process is not waited for either.
        """
        lock = self._locks.setdefault(agent_id, asyncio.Lock())
        if lock.locked() and not wait_seconds:
            raise AgentBusy
        async with lock:
            if self.store.in_memory:
                yield None
            elif self.store.dialect.shared:
                seconds = self.settings.lease_seconds
                async with hold_lease(
                    self.store, agent_id, self.owner, seconds=seconds, wait_seconds=wait_seconds
                ) as epoch:
                    yield epoch
            else:
                async with hold_file(self.home / "locks" / f"{agent_id}.lock", wait_seconds):
                    yield None

    def _chroma(self) -> RebuildableIndex:
        url = self.settings.chroma_url
        return ChromaIndex(None if url else self.home / "chroma", url, self.embedder.fingerprint)

    def _folder(self) -> None:
        """Have the home's folder, which nobody else may look into."""
        folder = self.home
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if folder.stat().st_mode & 0o077 and folder.stat().st_uid == os.getuid():
                folder.chmod(0o700)
        except OSError as error:
            raise StoreError(
                f"{folder} cannot be used: {error.strerror}; set AGENTOS_HOME to a folder of yours"
            ) from None


def _refuse_odd(name: str) -> None:
    """`UsageError` where an agent cannot be named so."""
    odd = name.startswith((".", "-")) or name != name.strip() or any(not c.isprintable() or c in "/\\" for c in name)
    if odd or not 0 < len(name) <= 100:
        raise UsageError(
            f"an agent cannot be named {name!r}; use 1 to 100 printable characters without slashes, "
            "the first no dot or hyphen, no space at an end"
        )


_Extra = StoredTool | StoredServer
"""What gives an agent tools beside those that are built in."""


def _extras(tx: Any, record: AgentRecord) -> list[_Extra]:
    return [*tx.tools_named(record.tools or ()), *tx.mcp_servers(record.id)]


def _tool(stored: StoredTool) -> Tool:
    """A tool that a client described: the model sees it, nobody runs it."""
    parameters = stored.json_schema.get("parameters", {})
    function = never_run(stored.name)
    return DescribedTool(
        stored.name, stored.description, function, parameters=parameters, idempotent=True, approval=stored.approval
    )
