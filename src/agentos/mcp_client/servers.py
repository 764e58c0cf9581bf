"""The MCP servers of a home's agents: their saved tools as tools of the agents, calls, and asking them anew."""

import asyncio
import math
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from agentos.errors import AgentOSError, ConfigError, Conflict, NotFound, ToolError, UsageError
from agentos.protocols import Clock, Store
from agentos.settings import filled_in
from agentos.tools.described import DescribedTool
from agentos.tools.servers import McpServer, StoredServer, listed_tools
from agentos.tools.tool import Tool

if TYPE_CHECKING:
    from agentos.mcp_client.connection import Connection

T = TypeVar("T")
_IDLE_SECONDS = 300.0
_FIRST_SECONDS = 10.0
"""For a server that was never reached, before a chat begins without it, and for one that is only looked at."""
_MOST_OPEN = 64
_LONGEST_REST_SECONDS = 60.0
_SHORTEST_SECRET = 4
"""Characters; what is shorter would be found in ordinary words."""


@dataclass
class _Link:
    """What is known here of one server of one agent."""

    connection: "Connection | None" = None
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    failures: int = 0
    rests_until: float = 0.0
    """Monotonic; before, it is not tried again."""
    problem: str = ""


class McpServers:
    """The MCP servers of a home.

    A connection is opened at the first call of an agent that needs it, stays open between calls, and is gone after
    five idle minutes or with `close`. One that cannot be opened is left alone for a while, longer each time.
    `measured` raises `UsageError` where an agent with these servers has no room for their tools.
    """

    def __init__(
        self, store: Store, clock: Clock, measured: Callable[[str, Sequence[StoredServer]], Awaitable[object]]
    ) -> None:
        self._store, self._clock, self._measured = store, clock, measured
        self._links: dict[tuple[str, str], _Link] = {}

    def tools(self, stored: StoredServer) -> list[Tool]:
        """The saved tools of a server as tools of its agent. Nothing is connected for it.

        None counts as repeatable, whatever the server says of it: a call that a crash interrupted may have happened.
        """
        return [
            DescribedTool(
                tool["name"],
                tool["description"],
                partial(self._call, stored, tool["tool"]),
                parameters=tool["parameters"],
                approval=stored.server.approval_of(tool["tool"]),
            )
            for tool in stored.offered
        ]

    async def add(self, agent_id: str, server: McpServer) -> tuple[StoredServer, list[str]]:
        """Give an agent a server, with its tools where it can be reached now; (what is saved, `ask`'s sentences).

        `Conflict` when the agent has one of this name; `UsageError` where its tools cannot be taken. Then nothing is
        saved.
        """
        if any(known.name == server.name for known in await self._of(agent_id)):
            raise Conflict(f"the agent has an MCP server {server.name!r}; remove it first, or choose another name")
        return await self._asked_and_saved(StoredServer(agent_id, server, self._clock.now()))

    async def remove(self, agent_id: str, name: str) -> None:
        """Take a server from an agent; `NotFound` where it has none of this name."""

        def work(tx: Any) -> None:
            if not tx.delete_mcp_server(agent_id, name):
                raise NotFound(f"the agent has no MCP server {name!r}; `agentos mcp list` shows which there are")
            settings = tx.agent(agent_id).settings
            # another server of this name is not to run without asking because this one did
            kept = {t: a for t, a in settings.get("approvals", {}).items() if not t.startswith(f"{name}__")}
            tx.update_agent(agent_id, settings={**settings, "approvals": kept})

        await self._store.write(work)

    async def ask(self, agent_id: str, name: str) -> tuple[StoredServer, list[str]]:
        """Ask a server for its tools and save them; (what is saved, sentences on tools that cannot be used).

        Where it cannot be reached the saved `problem` says why, and the tools stay as they were.
        """
        known = next((s for s in await self._of(agent_id) if s.name == name), None)
        if known is None:
            raise NotFound(f"the agent has no MCP server {name!r}; `agentos mcp list` shows which there are")
        return await self._asked_and_saved(known)

    async def ask_new(self, agent_id: str) -> None:
        """Ask those servers of an agent that were never reached; what is wrong with one is saved with it."""
        new = [s for s in await self._of(agent_id) if s.tools is None and not self._rests(s)]
        for stored, result in zip(
            new,
            await asyncio.gather(*(self._asked_and_saved(s, _FIRST_SECONDS) for s in new), return_exceptions=True),
            strict=True,
        ):
            if isinstance(result, AgentOSError):
                with suppress(UsageError):  # removed or changed meanwhile
                    await self._save(replace(stored, problem=str(result)))
            elif isinstance(result, BaseException):
                raise result

    async def check(self, stored: StoredServer) -> str:
        """What is wrong with a server, empty where nothing is seen to be; no process is started, nothing is saved."""
        server = stored.server
        try:
            if server.command is None:
                await self._listed(stored.agent_id, _hasty(server, _FIRST_SECONDS))
                return ""
            _filled(server, [])
        except AgentOSError as error:
            return str(error)
        found = await asyncio.to_thread(_missing, server)
        return f"MCP server {server.name!r} cannot be used: {found} is not there" if found else ""

    async def close(self) -> None:
        """Let go of every server."""
        links, self._links = list(self._links.values()), {}
        await asyncio.gather(*(link.connection.close() for link in links if link.connection))

    # asking

    async def _of(self, agent_id: str) -> list[StoredServer]:
        return await self._store.read(lambda tx: tx.mcp_servers(agent_id))

    async def _asked_and_saved(
        self, stored: StoredServer, most_seconds: float = math.inf
    ) -> tuple[StoredServer, list[str]]:
        left_out: list[str] = []
        try:
            tools, left_out = await self._listed(stored.agent_id, _hasty(stored.server, most_seconds))
            changed = replace(stored, tools=tools, problem="")
        except UsageError:
            raise
        except AgentOSError as error:
            changed = replace(stored, problem=str(error))
        if changed.tools != stored.tools:
            others = [s for s in await self._of(stored.agent_id) if s.name != stored.name]
            await self._measured(stored.agent_id, [*others, changed])
        if not stored.revision or changed != stored:
            await self._save(changed)
        return changed, left_out

    async def _save(self, changed: StoredServer) -> None:
        """Save what was learned of a server, unless it was removed or changed meanwhile."""

        def work(tx: Any) -> None:
            now = [s for s in tx.mcp_servers(changed.agent_id) if s.name == changed.name]
            if bool(now) != bool(changed.revision) or any(s.server != changed.server for s in now):
                raise Conflict(f"MCP server {changed.name!r} was changed meanwhile; look again")
            tx.save_mcp_server(changed)

        await self._store.write(work)

    async def _listed(self, agent_id: str, server: McpServer) -> tuple[tuple[dict[str, Any], ...], list[str]]:
        link = self._link(agent_id, server)
        link.rests_until = 0.0  # somebody asks for it
        return listed_tools(server, await self._with(link, server, lambda connection: connection.tools()))

    # calling

    async def _call(self, stored: StoredServer, tool: str, given: dict[str, Any]) -> str:
        link = self._link(stored.agent_id, stored.server)
        return await self._with(link, stored.server, lambda connection: connection.call(tool, given))

    async def _with(self, link: _Link, server: McpServer, use: Callable[["Connection"], Awaitable[T]]) -> T:
        """What `use` gives on an open connection; every failure is an error with a sentence that holds no secret."""
        from agentos.mcp_client.connection import Unreachable  # `mcp` takes 0.4 s to load

        secrets: list[str] = []
        begun = False
        try:
            async with asyncio.timeout(server.timeout_seconds):
                connection = await self._opened(link, server, secrets)
                begun = True
                return cast(T, _without(secrets, await use(connection)))
        except TimeoutError:
            if not begun:
                self._failed(link, f"it was not ready within {server.timeout_seconds:g} seconds")
                raise Unreachable(f"MCP server {server.name!r} cannot be used: {link.problem}") from None
            raise ToolError(
                f"MCP server {server.name!r} did not answer within {server.timeout_seconds:g} seconds; "
                "what was asked may have happened"
            ) from None
        except Unreachable as error:
            problem = _without(secrets, str(error))
            self._failed(link, problem)
            happened = "; what was asked may have happened" if begun else ""
            raise Unreachable(f"MCP server {server.name!r} cannot be used: {problem}{happened}") from None
        except ToolError as error:
            raise ToolError(_without(secrets, str(error))) from None

    async def _opened(self, link: _Link, server: McpServer, secrets: list[str]) -> "Connection":
        from agentos.mcp_client.connection import Connection

        filled = _filled(server, secrets)
        async with link.opening:
            if link.connection is not None and link.connection.alive:
                return link.connection
            if (rest := link.rests_until - time.monotonic()) > 0:
                again = f"it is tried again in {math.ceil(rest)} seconds"
                raise ToolError(f"MCP server {server.name!r} cannot be used: {link.problem}; {again}")
            await self._make_room()
            connection = link.connection = Connection(server, filled, _IDLE_SECONDS)
            try:
                await connection.open()
            except BaseException:
                await asyncio.shield(connection.close())
                raise
            link.failures, link.problem = 0, ""
            return connection

    def _failed(self, link: _Link, problem: str) -> None:
        link.failures += 1
        link.problem = problem
        link.rests_until = time.monotonic() + min(_LONGEST_REST_SECONDS, 2.0 ** (link.failures - 1))

    def _rests(self, stored: StoredServer) -> bool:
        return self._link(stored.agent_id, stored.server).rests_until > time.monotonic()

    def _link(self, agent_id: str, server: McpServer) -> _Link:
        reached = server.model_dump_json(include={"command", "args", "env", "cwd", "url", "headers"})
        return self._links.setdefault((agent_id, reached), _Link())

    async def _make_room(self) -> None:
        """Close the connections used longest ago, where there are too many."""
        self._links = {key: k for key, k in self._links.items() if k.failures or k.opening.locked() or _alive(k)}
        free = [k.connection for k in self._links.values() if k.connection and _alive(k) and not k.connection.busy]
        surplus = sum(map(_alive, self._links.values())) + 1 - _MOST_OPEN
        free.sort(key=lambda connection: connection.used_at)
        await asyncio.gather(*(connection.close() for connection in free[: max(0, surplus)]))


def _hasty(server: McpServer, seconds: float) -> McpServer:
    """A server that is given at most so long."""
    return server.model_copy(update={"timeout_seconds": min(seconds, server.timeout_seconds)})


def _missing(server: McpServer) -> str | None:
    """The folder or program that a server's command needs and that is not there."""
    if not os.path.isdir(server.cwd or "."):
        return server.cwd
    command = server.command or ""
    place = os.path.join(server.cwd or "", command) if os.sep in command else command
    return None if shutil.which(place) else place


def _alive(link: _Link) -> bool:
    return link.connection is not None and link.connection.alive


def _filled(server: McpServer, secrets: list[str]) -> dict[str, str]:
    """The url and the values of env and headers as they are used; `secrets` takes up what the environment gave."""
    texts = {"url": server.url or ""}
    texts |= {f"env {name}": value for name, value in server.env.items()}
    texts |= {f"header {name}": value for name, value in server.headers.items()}
    filled: dict[str, str] = {}
    for place, text in texts.items():
        try:
            filled[place], given = filled_in(text)
        except ConfigError as error:
            raise ConfigError(f"MCP server {server.name!r}: {error}") from None
        secrets += [value for value in given if len(value) >= _SHORTEST_SECRET]
        if place.startswith("header ") and not (filled[place].isascii() and filled[place].isprintable()):
            raise ConfigError(f"MCP server {server.name!r}: {place} has characters that no header may have")
    return filled


def _without(secrets: list[str], value: Any) -> Any:
    """What a server said, however it is nested, without any secret in it."""
    if isinstance(value, str):
        for secret in sorted(secrets, key=len, reverse=True):
            value = value.replace(secret, "[secret]")
        return value
    if isinstance(value, dict):
        return {_without(secrets, name): _without(secrets, part) for name, part in value.items()}
    return type(value)(_without(secrets, part) for part in value) if isinstance(value, list | tuple) else value
