"""The memory of the agents that a client may reach: tools by name, blocks and memories by URI."""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote, unquote

from pydantic import ValidationError

from agentos.errors import NotFound, ToolError, UsageError
from agentos.mcp_server.tools import TOOLS, Caller, Tool
from agentos.memory import core
from agentos.messages import Passage
from agentos.runtime import Runtime
from agentos.state import AgentRecord
from agentos.tokens import Grant

Json = dict[str, Any]
_AGENTS_A_PAGE = 50


class SharedMemory:
    """Everything is refused as if it did not exist where the grant does not reach it.

    `ask` has a turn run: (agent's id, text, client's name) -> its result, None where a turn before it waits for
    approval.
    """

    def __init__(self, runtime: Runtime, ask: Callable[[str, str, str], Awaitable[Any]]) -> None:
        self._runtime, self._ask = runtime, ask

    def tools(self, grant: Grant) -> list[Json]:
        """What a client may call, as the protocol lists it."""
        return [tool.described() for tool in _allowed(grant).values()]

    async def call(self, grant: Grant, client: str, name: str, arguments: Json) -> Json:
        """What a call gives back; an `AgentOSError` tells what to do."""
        tool = _allowed(grant).get(name)
        if tool is None:
            known = ", ".join(_allowed(grant))
            only = " (this client may only read)" if name in TOOLS else ""
            raise ToolError(f"there is no tool {name[:80]!r}{only}; there are: {known}")
        try:
            call = tool.model_validate(arguments)
        except ValidationError as error:
            faults = "; ".join(_fault(e) for e in error.errors(include_url=False)[:5])
            raise ToolError(f"{faults}; correct the arguments and call {name} again") from None
        record = await self._agent(grant, call.agent)
        return await call.run(Caller(self._runtime, record, client, self._ask))

    async def resources(self, grant: Grant, cursor: str | None) -> tuple[list[Json], str | None]:
        """(one page of the blocks, the cursor of the next), by agent."""
        start = 0 if cursor is None else int(cursor) if cursor.isascii() and cursor.isdigit() else -1
        if not 0 <= start < 2**31:
            raise UsageError(f"{cursor!r} is no cursor of this list; begin without one")

        def work(tx: Any) -> tuple[list[Json], bool]:
            agents = _reached(tx, grant)
            page = agents[start : start + _AGENTS_A_PAGE]
            return [_resource(a, b) for a in page for b in tx.blocks(a.id)], start + _AGENTS_A_PAGE < len(agents)

        found, more = await self._runtime.store.read(work)
        return found, str(start + _AGENTS_A_PAGE) if more else None

    def templates(self) -> list[Json]:
        """How the URIs of blocks and memories are made."""
        return [
            {
                "uri_template": "agentos://{agent}/core/{label}", "name": "block", "mime_type": "text/plain",
                "description": "One block of an agent's core memory.",
            },
            {
                "uri_template": "agentos://{agent}/memory/{id}", "name": "memory", "mime_type": "text/plain",
                "description": "A passage (p12) or a past message (m12) in full, by the id that recall shows.",
            },
        ]  # fmt: skip

    async def read(self, grant: Grant, uri: str) -> str:
        """The text behind a URI; `NotFound` for what is not there."""
        place, _, rest = uri.removeprefix("agentos://").partition("/")
        kind, _, name = rest.partition("/")
        if not uri.startswith("agentos://") or kind not in ("core", "memory"):
            raise NotFound(f"there is no resource {uri[:200]!r}; resources/list shows what there is")
        record, name = await self._agent(grant, unquote(place)), unquote(name)

        def work(tx: Any) -> str:
            if kind == "core":
                return core.find_block(tx.blocks(record.id), name).value
            number = int(name[1:]) if name[1:].isascii() and name[1:].isdigit() and len(name) < 17 else 0
            found: list[str] = []
            if name[:1] == "m":
                found = [message.content for message in tx.messages(record.id, [number])]
            elif name[:1] == "p":
                shown = (p for p in tx.passages(record.id, [number]) if p.valid_to is None or p.superseded_by)
                found = [_told(passage) for passage in shown]  # what was forgotten is not there
            if not found:
                raise NotFound(f"there is no memory {name[:80]!r}; ids look like p12 or m12, as recall shows them")
            return found[0]

        return await self._runtime.store.read(work)

    async def _agent(self, grant: Grant, name: str | None) -> AgentRecord:
        """The agent that a client means, by name or id; where only one is in reach it need not be named."""

        def work(tx: Any) -> tuple[AgentRecord | None, list[str]]:
            if name is not None:
                found = tx.agent_named(name) or tx.agent(name)
                if found is not None and (grant.agents is None or found.id in grant.agents):
                    return found, []
            reached = _reached(tx, grant)
            return (reached[0] if name is None and len(reached) == 1 else None), [a.name for a in reached[:20]]

        found, names = await self._runtime.store.read(work)
        if found is None:
            there = f"there are: {', '.join(names)}" if names else "there are none"
            wrong = "say in `agent` whose memory" if name is None else f"there is no agent {name[:100]!r}"
            raise NotFound(f"{wrong}; {there}")
        return found


def _allowed(grant: Grant) -> dict[str, type[Tool]]:
    return {name: tool for name, tool in TOOLS.items() if not (grant.read_only and tool.writes)}


def _reached(tx: Any, grant: Grant) -> list[AgentRecord]:
    """The agents in reach, by name."""
    if grant.agents is None:
        return list(tx.agents())
    found = [tx.agent(agent_id) for agent_id in grant.agents]
    return sorted((a for a in found if a is not None), key=lambda a: a.name)


def _told(passage: Passage) -> str:
    """A passage's text; where it holds no more, a line above says so."""
    if passage.valid_to is None:
        return passage.text
    begin, end = (when.astimezone().date().isoformat() for when in (passage.created_at, passage.valid_to))
    return f"[superseded by p{passage.superseded_by}; it was valid from {begin} to {end}]\n{passage.text}"


def _resource(agent: AgentRecord, block: Any) -> Json:
    return {
        "uri": f"agentos://{quote(agent.name, safe='')}/core/{quote(block.label, safe='')}",
        "name": f"{agent.name}: {block.label}", "description": block.description or None, "mime_type": "text/plain",
        "size": len(block.value.encode()),
    }  # fmt: skip


def _fault(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return f"argument {place!r} is missing"
    if error["type"] == "extra_forbidden":
        return f"there is no argument {place[:80]!r}"
    return f"argument {place!r}: {error['msg'][0].lower()}{error['msg'][1:]}"
