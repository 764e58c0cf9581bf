"""What a person at a chat asks of one agent, as plain JSON values and events: here of an open home.

`agentos.cli.remote` asks the same of a server.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Literal, Protocol, get_args

from agentos import curate, values
from agentos.actions.saved import require_agent
from agentos.agent import Agent
from agentos.errors import AgentOSError, UsageError
from agentos.events import Event
from agentos.protocols import SearchQuery
from agentos.runtime import Runtime
from agentos.state import Decision

Json = dict[str, Any]
Scope = Literal["archival", "recall"]
SCOPES: tuple[Scope, ...] = get_args(Scope)


class Talk(Protocol):
    """One person and one agent. Every method may raise an `AgentOSError` whose text is for the person."""

    @property
    def name(self) -> str:
        """The agent's name."""
        ...

    @property
    def model(self) -> str:
        """The model that answers."""
        ...

    @property
    def place(self) -> str:
        """Where the agent lives: a folder or a URL."""
        ...

    def send(self, text: str) -> AsyncGenerator[Event, None]:
        """A turn: its events, and those of what was due before it; `TurnEnded` of this turn is the last."""
        ...

    def approve(self, run_id: str, decisions: Mapping[str, Decision]) -> AsyncGenerator[Event, None]:
        """Decide on calls that wait for approval, by id, and go on with their turn; its `TurnEnded` is the last."""
        ...

    async def approvals(self) -> list[Json]:
        """`values.approvals_value`: the calls that wait for approval."""
        ...

    async def news(self, *, unfinished: bool = False) -> AsyncGenerator[Event, None] | None:
        """The events of turns that nobody asked for here, such as a timer's; None when there are none.

        `unfinished`: also those of a turn that broke off before.
        """
        ...

    def compact(self) -> AsyncGenerator[Event, None]:
        """Page out now."""
        ...

    def cancel(self) -> None:
        """Stop the turn that runs."""
        ...

    async def status(self) -> Json:
        """{"fill_percent" (None: unknown), "labels", "agents", "approvals"}: for the status line and completion."""
        ...

    async def last_used(self) -> str | None:
        """When the agent last answered, in local time."""
        ...

    async def memory(self, label: str | None = None) -> Json:
        """`values.memory_value`."""
        ...

    async def context(self) -> Json:
        """`values.context_value`."""
        ...

    async def search(self, text: str, scope: Scope, limit: int) -> list[Json]:
        """`values.hit_value` of each hit."""
        ...

    async def undo(self, event_id: int | None = None) -> Json:
        """{"event_id", "action", "changes"} of what was taken back."""
        ...

    async def usage(self) -> Json:
        """`values.usage_value` of all turns of the agent."""
        ...

    async def agents(self) -> Sequence[Json]:
        """Every agent, as in `values.agent_page`."""
        ...

    async def new_conversation(self) -> None:
        """Empty the message queue; memory stays."""
        ...

    async def use_model(self, name: str) -> None:
        """Let another model answer in this chat."""
        ...

    async def switch(self, name: str) -> None:
        """Talk with another agent that exists."""
        ...


class HomeTalk:
    """`Talk` with an agent of an open home; `model` holds for this chat only."""

    def __init__(self, runtime: Runtime, name: str, agent: Agent, model: str | None = None) -> None:
        self.runtime, self.agent = runtime, agent
        self._name, self._model = name, model

    @property
    def name(self) -> str:
        """The agent's name."""
        return self._name

    @property
    def place(self) -> str:
        """The home's folder."""
        return str(self.runtime.home)

    @property
    def model(self) -> str:
        """The model that answers."""
        return self.agent.parts.llm.name

    async def send(self, text: str) -> AsyncGenerator[Event, None]:
        """Save and run."""
        await self._renew()
        async with aclosing(self.agent.send(text)) as events:
            async for event in events:
                yield event

    async def approve(self, run_id: str, decisions: Mapping[str, Decision]) -> AsyncGenerator[Event, None]:
        """Save and go on."""
        await self._renew()
        async with aclosing(self.agent.approve(decisions, run_id=run_id)) as events:
            async for event in events:
                yield event

    async def _renew(self) -> None:
        """Have the agent as its row says now: another process may have changed its tools, approvals or model."""
        self.agent = await self.runtime.agent_of(self.agent.id, self._model)

    async def approvals(self) -> list[Json]:
        """What waits now."""
        return await self.runtime.store.read(lambda tx: values.approvals_value(tx, self.agent.id))

    async def news(self, *, unfinished: bool = False) -> AsyncGenerator[Event, None] | None:
        """What is due by the clock or was left behind."""
        agent_id, now = self.agent.id, self.runtime.clock.now()

        def due(tx: Any) -> bool:
            if tx.awaits_approval(agent_id):
                return bool(tx.user_waits(agent_id))
            left = unfinished and tx.unfinished_run(agent_id) is not None
            return left or bool(tx.timers(agent_id, due_by=now)) or tx.waiting(agent_id) is not None

        if not await self.runtime.store.read(due):
            return None
        await self._renew()
        return self.agent.run()

    def compact(self) -> AsyncGenerator[Event, None]:
        """Page out all but the newest exchange."""
        return self.agent.compact()

    def cancel(self) -> None:
        """Stop at the next saved point."""
        self.agent.cancel()

    async def status(self) -> Json:
        """Measured anew; a model that cannot be loaded leaves the measure out."""
        try:
            await asyncio.to_thread(lambda: self.agent.parts.llm.context_window)  # may load a library
        except AgentOSError:  # the next turn tells what is wrong with the model
            return await self._status(None)
        turn = await self.agent.turn()
        return await self._status(values.fill_percent(turn))

    async def _status(self, fill_percent: int | None) -> Json:
        agent_id = self.agent.id

        def work(tx: Any) -> Json:
            labels, names = [b.label for b in tx.blocks(agent_id)], [a.name for a in tx.agents()]
            waiting = values.approvals_value(tx, agent_id)
            return {"fill_percent": fill_percent, "labels": labels, "agents": names, "approvals": waiting}

        return await self.runtime.store.read(work)

    async def last_used(self) -> str | None:
        """By its last step."""
        record = await self.runtime.store.read(lambda tx: require_agent(tx, self.agent.id))
        return values.local(record.last_step_at)

    async def memory(self, label: str | None = None) -> Json:
        """Core memory, or one block of it."""
        agent_id = self.agent.id
        return await self.runtime.store.read(lambda tx: values.memory_value(tx, require_agent(tx, agent_id), label))

    async def context(self) -> Json:
        """What fills the window."""
        return await values.context_value(self.runtime, await self.agent.turn())

    async def search(self, text: str, scope: Scope, limit: int) -> list[Json]:
        """Hybrid search."""
        query = SearchQuery(text, scope, limit=limit, now=self.runtime.clock.now())
        return [values.hit_value(hit) for hit in await self.runtime.search(self.agent.id, query)]

    async def undo(self, event_id: int | None = None) -> Json:
        """Take back one memory event, the last where none is named."""
        turn = await self.agent.turn()
        return values.undone_value(await curate.undo(self.runtime.store, self.runtime.clock, turn, event_id))

    async def undo_all(self, source: curate.Source) -> list[Json]:
        """Take back all memory events that came from one source, or none of them."""
        turn = await self.agent.turn()
        undone = await curate.undo_all(self.runtime.store, self.runtime.clock, turn, source)
        return [values.undone_value(one) for one in undone]

    async def usage(self) -> Json:
        """Tokens and cost so far."""
        return await self.runtime.store.read(lambda tx: values.usage_value(tx.usage(self.agent.id)))

    async def agents(self) -> list[Json]:
        """Every agent of the home."""
        found: list[Json] = (await values.agent_page(self.runtime))["agents"]
        return found

    async def new_conversation(self) -> None:
        """Empty the queue."""
        await self.agent.new_conversation()

    async def use_model(self, name: str) -> None:
        """For this chat only."""
        agent = await self.runtime.agent(self._name, model=name)
        await asyncio.to_thread(lambda: agent.parts.llm.context_window)  # an unknown model is told now
        self.agent, self._model = agent, name

    async def switch(self, name: str) -> None:
        """Another agent of the home."""
        if await self.runtime.store.read(lambda tx: tx.agent_named(name)) is None:
            raise UsageError(f"there is no agent {name!r}; /resume lists them")
        self.agent, self._name = await self.runtime.agent(name, model=self._model), name
