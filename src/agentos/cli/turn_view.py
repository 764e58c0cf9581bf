"""A turn on the terminal: its events as they happen."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, TypeVar

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from agentos.cli import views
from agentos.cli.blocks import BlockCutter
from agentos.cli.output import line, safe
from agentos.events import Alert, Event, PageOut, Retry, TextDelta, ToolCallEvent, ToolResultEvent, TurnEnded
from agentos.memory import core

E = TypeVar("E", bound=Event)
_REFRESH_SECONDS = 0.05
_SHORT = 3000
"""Characters of a growing block up to which it is rendered anew each time it grows."""
_LIMITS = ("max_steps", "budget", "loop")


class TurnView:
    """Prints events; with `live` the paragraph that is still growing shows below, never taller than the screen.

    Use it as a context manager around one turn or several.
    """

    def __init__(self, console: Console, *, live: bool = True) -> None:
        self.console = console
        self._text = BlockCutter()
        self._last: Literal["", "text", "note"] = ""
        """What was printed last; kinds are set apart by an empty line, and so are the blocks of a text."""
        self._calls: dict[str, ToolCallEvent] = {}
        self._shown_at = 0.0
        self._live = None
        if live and console.is_terminal and not console.is_dumb_terminal:
            self._live = Live(
                Text("…", style="quiet"), console=console, transient=True, auto_refresh=False,
                redirect_stdout=False, redirect_stderr=False,
            )  # fmt: skip

    def __enter__(self) -> "TurnView":
        if self._live:
            self._live.start(refresh=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._end_text()
        if self._live:
            self._live.stop()

    def event(self, event: Event) -> None:
        """Show one event."""
        handler = _HANDLERS.get(type(event))
        if handler is not None:
            handler(self, event)

    def note(self, text: str, style: str = "quiet") -> None:
        """One line about what happens, with a dot in front."""
        self._end_text()
        self._set_apart("note")
        self.console.print(Text(f"· {line(text, max(40, self.console.width - 4))}", style=style))

    # one method for each kind of event

    def _delta(self, event: TextDelta) -> None:
        for block in self._text.feed(event.text):
            self._print_block(block)
        if time.monotonic() - self._shown_at > _REFRESH_SECONDS:
            self._preview()

    def _call(self, event: ToolCallEvent) -> None:
        self._end_text()
        self._calls[event.call_id] = event
        self._grow(Text(f"· {_call_line(event)} …", style="quiet"))

    def _result(self, event: ToolResultEvent) -> None:
        call = self._calls.pop(event.call_id, None)
        name = _call_line(call) if call else safe(event.name)
        self.note(f"{name} ✓" if event.ok else f"{name} ✗ {event.text.removeprefix('error: ')}")
        for edit in event.edits:
            self.console.print(views.diff(core.changed_lines(edit.before, edit.after), indent="    "))
        self._grow(Text("…", style="quiet"))

    def _alert(self, event: Alert) -> None:
        self.note(event.text if event.kind == "timer" else f"{event.kind.replace('_', ' ')}: {event.text}")

    def _page_out(self, event: PageOut) -> None:
        before, after = views.number(event.tokens_before), views.number(event.tokens_after)
        moved = len(event.message_ids)
        self.note(f"paged out {moved} messages: {before} → {after} tokens (saving step: {event.saving_step})")

    def _retry(self, event: Retry) -> None:
        self.note(event.line, style="warn")

    def _ended(self, event: TurnEnded) -> None:
        self._end_text()
        result = event.result
        if result.stop_reason == "cancelled":
            self.note(result.error or "cancelled; what was saved stays")
        elif result.stop_reason == "llm_error":
            self._sentence(f"✗ {result.error}", "bad")
        elif result.stop_reason == "requires_approval" and result.error:
            self.note(result.error)
        elif result.approvals:
            names = ", ".join(call["name"] for call in result.approvals)
            self.note(f"waits for approval (/approve): {names}", style="warn")
        elif result.stop_reason in _LIMITS:
            self._sentence(f"stopped: {result.error}", "warn")

    # the reply's text

    def _sentence(self, text: str, style: str) -> None:
        self._set_apart("text")
        self.console.print(Text(safe(text), style=style))

    def _print_block(self, block: str) -> None:
        self._set_apart("text")
        self.console.print(Text("\n").join(self._rendered(block)), no_wrap=True, overflow="ignore", crop=False)

    def _set_apart(self, kind: Literal["text", "note"]) -> None:
        if self._last == "text" or self._last not in ("", kind):
            self.console.print()
        self._last = kind

    def _end_text(self) -> None:
        rest = self._text.finish()
        self._grow(Group())
        if rest:
            self._print_block(rest)

    def _preview(self) -> None:
        """The growing block: as Markdown while it is short, else the lines of its end that fit the screen."""
        self._shown_at = time.monotonic()
        rest = self._text.rest
        if not rest.strip():
            return
        height = max(3, self.console.height - 3)
        if len(rest) < _SHORT:
            rows = self._rendered(rest)[-height:]
        else:
            rows = list(Text(safe(rest[-_SHORT:])).wrap(self.console, self.console.width)[-height:])
        self._grow(Text("\n").join([Text("")] * (bool(self._last) and len(rows) < height) + rows))

    def _rendered(self, text: str) -> list[Text]:
        from agentos.cli.markdown import rendered  # 30 ms that the prompt need not wait for

        return rendered(text, self.console)

    def _grow(self, shown: RenderableType) -> None:
        if self._live:
            self._live.update(shown, refresh=True)


_HANDLERS: dict[type[Event], Callable[[TurnView, Any], None]] = {
    TextDelta: TurnView._delta,
    ToolCallEvent: TurnView._call,
    ToolResultEvent: TurnView._result,
    Alert: TurnView._alert,
    PageOut: TurnView._page_out,
    Retry: TurnView._retry,
    TurnEnded: TurnView._ended,
}
"""Heartbeats are not shown: what they lead to is."""


def _call_line(call: ToolCallEvent) -> str:
    """The call's name and what it is about, in a few words."""
    about = call.arguments.get("label") or next((v for v in call.arguments.values() if isinstance(v, str)), "")
    return f"{safe(call.name)} {line(about, 50)}".rstrip()
