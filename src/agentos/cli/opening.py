"""How commands open the home and find agents."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from platformdirs import user_data_path

from agentos.agent import Agent
from agentos.cli.chosen import DEFAULT_AGENT, Chosen
from agentos.errors import UsageError
from agentos.runtime import Runtime
from agentos.settings import load_settings
from agentos.state import AgentRecord, Limits
from agentos.talk import HomeTalk, Talk

P = ParamSpec("P")
T = TypeVar("T")


def blocking(command: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """A command's coroutine function as a plain one, with an event loop of its own."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        return asyncio.run(command(*args, **kwargs))

    return run


@asynccontextmanager
async def open_runtime(max_steps: int | None = None, **flags: Any) -> AsyncIterator[Runtime]:
    """The home of the settings in force, of which `flags` are those given as options."""
    async with Runtime(load_settings(**flags), limits=Limits(max_steps)) as runtime:
        yield runtime


@dataclass(frozen=True)
class Opened:
    """A talk that can begin."""

    talk: Talk
    history: Path
    """The file of what was typed before."""
    first_reason: str = ""
    """At the first start of a home: how the model was chosen, in words."""


@asynccontextmanager
async def open_talk(chosen: Chosen) -> AsyncIterator[Opened]:
    """The agent that the options name: of a server where they name one, else of the home."""
    if chosen.server:
        from agentos.cli.remote import open_remote

        async with open_remote(chosen) as remote:
            yield Opened(remote, user_data_path("agentos", ensure_exists=True) / "remote_history")
        return
    async with open_runtime(chosen.max_steps) as runtime:
        first = not await runtime.store.read(lambda tx: tx.agents())
        name, agent = await chosen_agent(runtime, chosen)
        talk = HomeTalk(runtime, name, agent, chosen.model)
        why = "as you asked" if chosen.model else runtime.model_source or "as its persona says"
        yield Opened(talk, runtime.home / "chat_history", why if first else "")


async def existing(runtime: Runtime, name: str) -> AgentRecord:
    """The agent called `name`; `UsageError` when there is none."""
    record = await runtime.store.read(lambda tx: tx.agent_named(name))
    if record is None:
        raise UsageError(f"there is no agent {name!r}; `agentos agents list` shows all")
    return record


async def chosen_agent(runtime: Runtime, chosen: Chosen) -> tuple[str, Agent]:
    """(name, agent) that a chat talks with, made on first use."""
    for option, value in (("--agent", chosen.agent), ("--persona", chosen.persona), ("--model", chosen.model)):
        if value is not None and not value.strip():
            raise UsageError(f"{option} is empty; give a name, or leave the option out")
    name = chosen.agent or DEFAULT_AGENT
    if chosen.resume:
        if chosen.agent:
            raise UsageError("--continue takes the agent used last; leave out --agent, or --continue")
        name = await _used_last(runtime) or DEFAULT_AGENT
    if chosen.known:
        await existing(runtime, name)
    return name, await runtime.agent(name, persona=chosen.persona, model=chosen.model)


async def _used_last(runtime: Runtime) -> str | None:
    agents = await runtime.store.read(lambda tx: tx.agents())
    return max(agents, key=lambda a: a.last_step_at or a.created_at).name if agents else None
