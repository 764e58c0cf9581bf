"""The interactive chat."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing, nullcontext, suppress
from pathlib import Path
from typing import Any

from prompt_toolkit.patch_stdout import patch_stdout
from rich.text import Text

from agentos.cli import slash, views
from agentos.cli.approvals import asked
from agentos.cli.chosen import Chosen
from agentos.cli.keys import turn_keys
from agentos.cli.opening import blocking, open_talk
from agentos.cli.output import line, make_console, safe
from agentos.cli.prompt import make_session
from agentos.cli.turn_view import TurnView
from agentos.errors import AgentOSError
from agentos.events import Event, TurnEnded
from agentos.messages import Usage
from agentos.settings import PROVIDER_KEYS
from agentos.talk import Talk

_POLL_SECONDS = 1.0
_AFTER_ERROR_SECONDS = 60.0
_COMMAND = re.compile(r"/[a-z]*(\s|$)")


@blocking
async def chat(chosen: Chosen) -> None:
    """A chat until the user leaves."""
    async with open_talk(chosen) as opened:
        session = Chat(opened.talk, opened.history)
        if opened.first_reason:
            session.introduce(opened.first_reason)
        await session.converse()


class Chat:
    """One person at one terminal, talking with one agent at a time."""

    def __init__(self, talk: Talk, history: Path) -> None:
        self.talk = talk
        self.console = make_console()
        self.used = Usage()
        """What the turns of this chat used."""
        self._status = ""
        self._choices: dict[str, list[str]] = {}
        commands = {name: command.about for name, command in slash.COMMANDS.items()}
        self._session = make_session(history, commands, self._choices, lambda: self._status)
        self._busy = asyncio.Lock()
        """Held while a turn prints."""
        self._interrupted = False
        """Whether Ctrl-C was the last thing the user did: a second one leaves."""

    def introduce(self, why: str) -> None:
        """Three lines for the first start: which model answers and why, how to change it, where the data is."""
        model = self.talk.model
        what = ": no weights, it keeps what you tell it and quotes it" if model == "offline" else ""
        self.console.print(Text.assemble((safe(model), "name"), f" answers ({safe(why)}){what}."))
        self.console.print(
            "Another one: agentos chat --model NAME, or a provider's key such as OPENAI_API_KEY, or Ollama."
        )
        self.console.print(Text(f"All data stays in {safe(self.talk.place)}.\n"))

    async def converse(self) -> None:
        """Read lines and answer until the user leaves."""
        await self.greet()
        helpers = [asyncio.create_task(self.refresh()), asyncio.create_task(self._keep_watching())]
        try:
            if (left := await self.talk.news(unfinished=True)) is not None:
                await self._try_turn(left)
            await self.decide()
            with suppress(slash.Leave):
                await self._read_lines()
        finally:
            await _stopped(*helpers)

    async def greet(self) -> None:
        """Who answers, and since when."""
        used = await self.talk.last_used()
        last = f", last used {views.when(used)}" if used else ""
        about = f"  {safe(self.talk.model)}{last}  /help lists the commands"
        self.console.print(Text.assemble((safe(self.talk.name), "name"), (about, "quiet")))
        if self.talk.model == "offline":  # any other model takes seconds to load
            await self.refresh()

    async def refresh(self) -> None:
        """Measure anew what the status line and the completion show."""
        status = await self.talk.status()
        self._choices |= {
            "/memory": status["labels"],
            "/resume": status["agents"],
            "/model": ["offline", *PROVIDER_KEYS.values()],
        }
        if status["fill_percent"] is None:
            self._status = f"{self.talk.name} · {self.talk.model}"
            return
        tokens = self.used.prompt_tokens + self.used.completion_tokens
        parts = [self.talk.name, self.talk.model, f"context {status['fill_percent']} %"]
        parts += ["waits for approval"] if status["approvals"] else []
        parts += [f"{views.number(tokens)} tokens"] + ([views.cost(self.used.cost_usd)] if self.used.cost_usd else [])
        self._status = " · ".join(parts)
        self._session.app.invalidate()

    # the line and what comes of it

    async def _read_lines(self) -> None:
        while True:
            try:
                with patch_stdout(raw=True):
                    text = await self._session.prompt_async()
            except EOFError:
                return
            except KeyboardInterrupt:
                if self._interrupted:
                    return
                self._interrupted = True
                self.console.print(Text("Ctrl-C again, or Ctrl-D, leaves", style="quiet"))
                continue
            self._interrupted = False
            await self._answer(text)

    async def _answer(self, text: str) -> None:
        if not _COMMAND.match(text):
            await self._try_turn(self.talk.send(text))
            await self.decide()
            return
        try:
            await slash.dispatch(self, text.rstrip())
            await self.refresh()
        except AgentOSError as error:
            self._complain(error)
        self.console.print()

    async def decide(self) -> bool:
        """Ask about the calls that wait for approval, and go on with their turn; whether there were some."""
        waiting = any_waited = await self._waiting()
        while waiting:
            said = await asked(waiting)
            if said is None:
                self.console.print(Text("it waits; /approve asks again, another message refuses it", style="quiet"))
                break
            if not await self._try_turn(self.talk.approve(waiting[0]["run_id"], said)):
                break
            waiting = await self._waiting()
        return bool(any_waited)

    async def _waiting(self) -> list[dict[str, Any]]:
        try:
            return await self.talk.approvals()
        except AgentOSError as error:
            self._complain(error)
            return []

    async def _try_turn(self, events: AsyncGenerator[Event, None], *, alone: bool = True) -> bool:
        """Show a turn, or the sentence that says why there is none; whether there was one."""
        try:
            await self._turn(events, alone=alone)
        except AgentOSError as error:
            self._complain(error)
            return False
        return True

    async def _turn(self, events: AsyncGenerator[Event, None], *, alone: bool = True) -> None:
        """Show a turn. `alone`: no line is being written meanwhile, so keys and screen are the turn's."""
        async with self._busy:
            if alone:
                self.console.print()
            guard = turn_keys(self.talk) if alone else nullcontext()
            with guard, TurnView(self.console, live=alone) as view:
                async with aclosing(events) as stream:
                    async for event in stream:
                        view.event(event)
                        if isinstance(event, TurnEnded):
                            self.used += event.result.usage
                            self._interrupted = event.result.stop_reason == "cancelled"
            self.console.print()
        await self.refresh()

    def _complain(self, error: AgentOSError) -> None:
        self.console.print(Text(f"✗ {safe(error)}", style="bad"))

    # what goes on beside it

    async def _keep_watching(self) -> None:
        """Watch for as long as the chat lasts: whatever goes wrong is said, and tried again a while later."""
        while True:
            try:
                await self._watch()
            except Exception as error:  # else the task would be gone, and with it every timer, without a word
                what = error if isinstance(error, AgentOSError) else f"{type(error).__name__}: {error}"
                self.console.print(Text(f"✗ looking for timers failed: {line(what, 300)}", style="bad"))
                await asyncio.sleep(_AFTER_ERROR_SECONDS)

    async def _watch(self) -> None:
        """While the user thinks: run timers that are due, printed above the line."""
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            if self._busy.locked():
                continue
            news = await self.talk.news()
            if news is not None and not await self._try_turn(news, alone=False):
                await asyncio.sleep(_AFTER_ERROR_SECONDS)


async def _stopped(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
