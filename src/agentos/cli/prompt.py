"""The line at which the user writes: history, several lines, completion, status."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.styles import Style

from agentos.cli.output import safe

STYLE = Style.from_dict({"prompt": "bold", "bottom-toolbar": "noreverse fg:ansibrightblack"})


class SlashCompleter(Completer):
    """Completes command names, and their arguments from `choices` (command -> names)."""

    def __init__(self, commands: dict[str, str], choices: dict[str, list[str]]) -> None:
        self._commands = commands
        self._choices = choices

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Completions of the first line, when it begins with a slash."""
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        name, space, argument = text.partition(" ")
        found = self._choices.get(name, []) if space else self._commands
        typed = argument if space else name
        for choice in found:
            if choice.startswith(typed):
                about = "" if space else self._commands[choice]
                yield Completion(choice, -len(typed), display=safe(choice), display_meta=about)


def make_session(
    history: Path, commands: dict[str, str], choices: dict[str, list[str]], status: Callable[[], str]
) -> PromptSession[str]:
    """A session whose history file only its owner can read; `status` is shown below the line."""
    os.close(os.open(history, os.O_CREAT | os.O_APPEND, 0o600))
    return PromptSession(
        [("class:prompt", "› ")],
        history=FileHistory(str(history)),
        completer=SlashCompleter(commands, choices),
        complete_while_typing=True,
        multiline=True,
        key_bindings=_bindings(),
        prompt_continuation="  ",
        bottom_toolbar=lambda: [("class:bottom-toolbar", safe(status()))],
        style=STYLE,
        reserve_space_for_menu=4,
    )


def _bindings() -> KeyBindings:
    """Enter sends; Alt-Enter, or Enter behind a backslash, begins a new line; Ctrl-C clears, then interrupts."""
    bindings = KeyBindings()

    @bindings.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.char_before_cursor == "\\":
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        elif buffer.text.strip():
            buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @bindings.add("c-c")
    def _(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt)

    return bindings
