"""The slash commands of a chat: each is one function of the chat and the text behind its name."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from agentos import curate
from agentos.cli import values, views
from agentos.cli.keys import turn_keys
from agentos.cli.output import safe
from agentos.cli.turn_view import TurnView
from agentos.errors import UsageError
from agentos.memory import core
from agentos.messages import Usage
from agentos.protocols import SearchQuery

if TYPE_CHECKING:
    from agentos.cli.chat import Chat


class Leave(Exception):
    """The user wants to leave the chat."""


@dataclass(frozen=True)
class Command:
    """One slash command."""

    run: "Callable[[Chat, str], Awaitable[None]]"
    argument: str
    about: str


async def dispatch(chat: "Chat", text: str) -> None:
    """Run `/name argument`; `UsageError` for a name there is not."""
    name, _, argument = text.partition(" ")
    command = COMMANDS.get(name)
    if command is None:
        raise UsageError(f"there is no command {name}; /help lists them (a space in front sends it as text)")
    await command.run(chat, argument.strip())


async def _help(chat: "Chat", _: str) -> None:
    rows = [
        Text.assemble((f"  {f'{name} {command.argument}':<20}", "name"), command.about)
        for name, command in COMMANDS.items()
    ]
    keys = "  Alt-Enter, or \\ at a line's end, begins a new line; Ctrl-C cancels a turn; Ctrl-D leaves"
    chat.console.print(Group(*rows, Text(keys, style="quiet")))


async def _memory(chat: "Chat", label: str) -> None:
    record = await chat.record()
    value = await chat.runtime.store.read(lambda tx: values.memory_value(tx, record, label or None))
    chat.console.print(views.memory(value))


async def _context(chat: "Chat", _: str) -> None:
    chat.console.print(views.context(await values.context_value(chat.runtime, await chat.agent.turn())))


async def _search(chat: "Chat", text: str) -> None:
    if not text:
        raise UsageError("say what to look for: /search QUERY")
    for scope, title in (("archival", "archival memory"), ("recall", "recall memory (past messages)")):
        hits = await chat.runtime.search(chat.agent.id, SearchQuery(text, scope, limit=5))  # type: ignore[arg-type]
        chat.console.print(views.hits([values.hit_value(h) for h in hits], title))


async def _undo(chat: "Chat", _: str) -> None:
    undone = await curate.undo(chat.runtime.store, chat.runtime.clock, await chat.agent.turn())
    chat.console.print(Text(f"took back event {undone.event_id} ({undone.action})"))
    chat.console.print(views.diff(core.changed_lines(undone.before, undone.after)))


async def _model(chat: "Chat", name: str) -> None:
    if name:
        agent = await chat.runtime.agent(chat.name, model=name)
        await asyncio.to_thread(lambda: agent.parts.llm.context_window)  # an unknown model is told now
        chat.agent, chat.model = agent, name
    chat.console.print(Text(f"{safe(chat.agent.parts.llm.name)} answers; /model NAME changes it for this chat"))


async def _new(chat: "Chat", _: str) -> None:
    await chat.agent.new_conversation()
    chat.console.print(Text("a new conversation; memory stays, and every message can still be found", style="quiet"))


async def _resume(chat: "Chat", name: str) -> None:
    if name:
        if await chat.runtime.store.read(lambda tx: tx.agent_named(name)) is None:
            raise UsageError(f"there is no agent {name!r}; /resume lists them")
        await chat.switch(name)
        await chat.greet()
        return

    listed = await chat.runtime.store.read(lambda tx: [values.agent_value(tx, a) for a in tx.agents()])
    chat.console.print(views.agents(listed))
    chat.console.print(Text("/resume NAME goes on with one of them", style="quiet"))


async def _compact(chat: "Chat", _: str) -> None:
    moved = False
    with turn_keys(chat.agent), TurnView(chat.console) as view:
        async with aclosing(chat.agent.compact()) as events:
            async for event in events:
                view.event(event)
                moved = True
        if not moved:
            view.note("nothing to page out")


async def _usage(chat: "Chat", _: str) -> None:
    total: Usage = await chat.runtime.store.read(lambda tx: tx.usage(chat.agent.id))
    for name, usage in (("this chat", chat.used), (f"{chat.name}, ever", total)):
        shown = views.usage_line(values.usage_value(usage))
        chat.console.print(Text.assemble((f"  {safe(name)}: ", "quiet"), shown))


async def _exit(chat: "Chat", _: str) -> None:
    raise Leave


COMMANDS = {
    "/help": Command(_help, "", "this list"),
    "/memory": Command(_memory, "[BLOCK]", "what the agent knows by heart"),
    "/context": Command(_context, "", "what fills the model's window"),
    "/search": Command(_search, "QUERY", "look into archival memory and past messages"),
    "/undo": Command(_undo, "", "take back the last change to memory"),
    "/model": Command(_model, "[NAME]", "which model answers; with NAME, change it"),
    "/new": Command(_new, "", "empty the conversation, keep memory"),
    "/resume": Command(_resume, "[AGENT]", "the agents; with AGENT, talk to that one"),
    "/compact": Command(_compact, "", "page out older messages now"),
    "/usage": Command(_usage, "", "tokens and cost"),
    "/exit": Command(_exit, "", "leave"),
}
