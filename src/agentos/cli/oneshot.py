"""Without a terminal to talk at: one prompt (`-p`), or a turn for each line of stdin."""

import asyncio
import shlex
import signal
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import Literal

from agentos.cli.chosen import Chosen
from agentos.cli.keys import cancelling
from agentos.cli.opening import blocking, open_talk
from agentos.cli.output import as_json, complain, safe
from agentos.errors import UsageError
from agentos.events import Event, ReasoningDelta, Retry, TextDelta, TurnEnded
from agentos.talk import Talk

Format = Literal["text", "json", "stream-json"]
_EXIT_CODES = {"llm_error": 4, "max_steps": 5, "budget": 5, "loop": 5, "requires_approval": 5, "cancelled": 130}


@blocking
async def answer(chosen: Chosen, prompt: str | None, form: Format) -> int:
    """Run the turn or turns; returns the exit code: that of the first turn that did not end well.

    Ctrl-C cancels the turn and takes no further line. Nor is one taken while a call waits for approval: it would
    refuse that call.
    """
    if prompt is not None:
        prompt = "\n".join(filter(None, [prompt, _piped()]))
        if not prompt.strip():
            raise UsageError("the prompt is empty; write something behind -p or pipe it in")
    async with open_talk(chosen) as opened:
        code = 0
        for text in _lines() if prompt is None else [prompt]:
            async with aclosing(opened.talk.send(text)) as events:
                ended = await show_turn(opened.talk, events, form)
            code = code or ended
            if ended == _EXIT_CODES["cancelled"] or (await opened.talk.approvals() if ended else False):
                return ended
        return code


def _piped() -> str:
    """All of stdin, when something is piped in."""
    if sys.stdin is None or sys.stdin.isatty():
        return ""
    with _interrupted_at_once():
        return sys.stdin.buffer.read().decode("utf-8", "replace")


def _lines() -> Iterator[str]:
    """The lines of stdin that say something, as they come."""
    while sys.stdin is not None:
        with _interrupted_at_once():
            raw = sys.stdin.buffer.readline()
        if not raw:
            return
        if text := raw.decode("utf-8", "replace").strip():
            yield text


@contextmanager
def _interrupted_at_once() -> Iterator[None]:
    """While a read blocks the event loop, Ctrl-C must not wait for it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    task = asyncio.current_task()
    try:
        if task is not None and task.cancelling():  # it came a moment ago, and asyncio would act on it after the read
            raise KeyboardInterrupt
        yield
    finally:
        signal.signal(signal.SIGINT, before)


async def show_turn(talk: Talk, turn: AsyncGenerator[Event, None], form: Format) -> int:
    """Print the events of one turn, and of whatever was due before it; returns the exit code."""
    printer = _Printer(form)
    asked: TurnEnded | None = None
    with cancelling(talk):
        async for event in turn:
            if asked is not None:
                printer.event(asked)  # of a turn that was due before
            asked = event if isinstance(event, TurnEnded) else None
            if asked is None:
                printer.event(event)
    assert asked is not None, "the last event is the end of the turn that was asked for"
    printer.end(asked)
    if asked.result.stop_reason == "cancelled":
        complain("cancelled; what was saved stays")
    elif asked.result.error:
        complain(asked.result.error)
    for call in asked.result.approvals:
        complain(f"waits for approval: {call['name']} {as_json(call['arguments'])}")
    if asked.result.approvals:
        there = f" --server {talk.place}" if "://" in talk.place else ""
        command = f"agentos approve {shlex.quote(talk.name)}{there}"
        complain(f"`{command}` with --yes or --deny REASON goes on; another message refuses it")
    return _EXIT_CODES.get(asked.result.stop_reason, 0)


class _Printer:
    """Writes a turn in one of the three formats."""

    def __init__(self, form: Format) -> None:
        self._form = form
        self._streams = form == "text" and sys.stdout.isatty()
        self._open = False
        """Whether the last line of streamed text has no end yet."""

    def event(self, event: Event) -> None:
        """What happens before the result."""
        if isinstance(event, ReasoningDelta):
            return
        if self._form == "stream-json":
            _write(as_json(event.as_json()))
        elif isinstance(event, Retry):
            complain(event.line)
        elif self._streams and isinstance(event, TextDelta):
            sys.stdout.write(safe(event.text))
            sys.stdout.flush()
            self._open = True
        elif self._open:
            _write("\n")
            self._open = False

    def end(self, ended: TurnEnded) -> None:
        """The result of the turn that was asked for."""
        if self._form == "stream-json":
            _write(as_json(ended.as_json()))
        elif self._form == "json":
            _write(as_json(ended.result.as_json()))
        elif self._open:
            _write("")
        elif not self._streams and ended.result.reply:
            _write(safe(ended.result.reply))


def _write(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
