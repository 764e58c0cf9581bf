"""`agentos agents`: list, show, create, delete."""

import shlex
import sys

from agentos import values
from agentos.cli import views
from agentos.cli.opening import blocking, existing, open_runtime
from agentos.cli.output import line, show, show_json
from agentos.errors import UsageError
from agentos.messages import Approval


@blocking
async def list_agents(as_json: bool) -> None:
    """All agents."""
    async with open_runtime() as runtime:
        found = (await values.agent_page(runtime))["agents"]
    show_json(found) if as_json else show(views.agents(found))


@blocking
async def show_agent(name: str, as_json: bool) -> None:
    """One agent in full."""
    async with open_runtime() as runtime:
        record = await existing(runtime, name)
        value = await values.agent_details(runtime, record)
    show_json(value) if as_json else show(views.agent(value))


@blocking
async def create_agent(name: str, persona: str, model: str | None, as_json: bool) -> None:
    """A new agent; `model` becomes its own."""
    async with open_runtime() as runtime:
        record = await runtime.create_agent(name, persona=persona, model=model)
        value = await values.agent_details(runtime, record)
    command = f"agentos chat --agent {shlex.quote(name)}"
    show_json(value) if as_json else show(f"created {line(name)}; `{line(command)}` talks with it")


@blocking
async def approval(name: str, tool: str | None, when: Approval | None, as_json: bool) -> None:
    """Whether an agent's tools run without asking, after `tool` was set to run `when`."""
    async with open_runtime() as runtime:
        record = await existing(runtime, name)
        if tool is not None:
            record = await runtime.set_approval(record.id, tool, when)
        found = await runtime.store.read(lambda tx: values.tools_value(tx, runtime, record))
    show_json(found) if as_json else show(views.tools(found))


@blocking
async def delete_agent(name: str, yes: bool) -> None:
    """Remove an agent with all it knows, after a question."""
    async with open_runtime() as runtime:
        record = await existing(runtime, name)
        value = await runtime.store.read(lambda tx: values.agent_value(tx, record))
        what = f"{line(name)} with {value['messages']} messages and {value['passages']} passages"
        if not yes and not _confirmed(what):
            show("nothing was deleted")
            return
        await runtime.delete_agent(record.id)
    show(f"deleted {what}")


def _confirmed(what: str) -> bool:
    if not sys.stdin.isatty():
        raise UsageError(f"deleting {what} cannot be undone; say --yes")
    return input(f"Delete {what}? This cannot be undone. [y/N] ").strip().lower() in ("y", "yes")
