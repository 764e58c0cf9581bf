"""The slash commands of a chat: each is one function of the chat and the text behind its name."""

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console, Group
from rich.text import Text

from agentos.cli import context_views, views
from agentos.cli.keys import turn_keys
from agentos.cli.output import safe
from agentos.cli.turn_view import TurnView
from agentos.errors import UsageError
from agentos.messages import Usage
from agentos.talk import SCOPES, Talk
from agentos.values import usage_value


class Chat(Protocol):
    """What the commands need of a chat."""

    talk: Talk
    console: Console
    used: Usage
    """What the turns of this chat used."""

    async def greet(self) -> None:
        """Who answers, and since when."""
        ...

    async def decide(self) -> bool:
        """Ask about the calls that wait for approval; whether there were any."""
        ...


class Leave(Exception):
    """The user wants to leave the chat."""


@dataclass(frozen=True)
class Command:
    """One slash command."""

    run: Callable[[Chat, str], Awaitable[None]]
    argument: str
    about: str


async def dispatch(chat: Chat, text: str) -> None:
    """Run `/name argument`; `UsageError` for a name there is not."""
    name, _, argument = text.partition(" ")
    command = COMMANDS.get(name)
    if command is None:
        raise UsageError(f"there is no command {name}; /help lists them (a space in front sends it as text)")
    await command.run(chat, argument.strip())


async def _help(chat: Chat, _: str) -> None:
    rows = [
        Text.assemble((f"  {f'{name} {command.argument}':<20}", "name"), command.about)
        for name, command in COMMANDS.items()
    ]
    keys = "  Alt-Enter, or \\ at a line's end, begins a new line; Ctrl-C cancels a turn; Ctrl-D leaves"
    chat.console.print(Group(*rows, Text(keys, style="quiet")))


async def _memory(chat: Chat, label: str) -> None:
    chat.console.print(views.memory(await chat.talk.memory(label or None)))


async def _context(chat: Chat, _: str) -> None:
    chat.console.print(context_views.context(await chat.talk.context()))


async def _search(chat: Chat, text: str) -> None:
    if not text:
        raise UsageError("say what to look for: /search QUERY")
    for scope, title in zip(SCOPES, ("archival memory", "recall memory (past messages)"), strict=True):
        chat.console.print(views.hits(await chat.talk.search(text, scope, 5), title))


async def _undo(chat: Chat, _: str) -> None:
    undone = await chat.talk.undo()
    chat.console.print(Text(f"took back event {undone['event_id']} ({safe(undone['action'])})"))
    chat.console.print(views.diff(undone["changes"]))


async def _model(chat: Chat, name: str) -> None:
    if name:
        await chat.talk.use_model(name)
    chat.console.print(Text(f"{safe(chat.talk.model)} answers; /model NAME changes it for this chat"))


async def _new(chat: Chat, _: str) -> None:
    await chat.talk.new_conversation()
    chat.console.print(Text("a new conversation; memory stays, and every message can still be found", style="quiet"))


async def _resume(chat: Chat, name: str) -> None:
    if name:
        await chat.talk.switch(name)
        await chat.greet()
        return
    chat.console.print(views.agents(list(await chat.talk.agents())))
    chat.console.print(Text("/resume NAME goes on with one of them", style="quiet"))


async def _compact(chat: Chat, _: str) -> None:
    moved = False
    with turn_keys(chat.talk), TurnView(chat.console) as view:
        async with aclosing(chat.talk.compact()) as events:
            async for event in events:
                view.event(event)
                moved = True
        if not moved:
            view.note("nothing to page out")


async def _approve(chat: Chat, _: str) -> None:
    if not await chat.decide():
        chat.console.print(Text("no call waits for approval", style="quiet"))


async def _usage(chat: Chat, _: str) -> None:
    total = await chat.talk.usage()
    for name, usage in (("this chat", usage_value(chat.used)), (f"{chat.talk.name}, ever", total)):
        shown = views.usage_line(usage)
        chat.console.print(Text.assemble((f"  {safe(name)}: ", "quiet"), shown))


async def _exit(chat: Chat, _: str) -> None:
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
    "/approve": Command(_approve, "", "decide on calls that wait for approval"),
    "/usage": Command(_usage, "", "tokens and cost"),
    "/exit": Command(_exit, "", "leave"),
}
