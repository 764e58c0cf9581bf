"""The interactive chat in a real pseudo-terminal, read as a person reads it: from the screen."""

import json
import os
import sqlite3
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pexpect
import pyte
import pytest

from agentos.testing.fake_openai import Body, FakeOpenAI, FakeReply
from forks import Forks

pytestmark = pytest.mark.filterwarnings("ignore:.*forkpty:DeprecationWarning")  # the child calls exec at once

ENTER, ALT_ENTER, CTRL_C, CTRL_D, TAB = "\r", "\x1b\r", "\x03", "\x04", "\t"
ROWS, COLUMNS = 40, 100
PROMPT = "›"


class _Screen(pyte.HistoryScreen):
    """A screen that answers what the program asks the terminal (where the cursor is)."""

    answer: Any = None

    def write_process_input(self, data: str) -> None:
        self.answer(data)


class Terminal:
    """`agentos` at work in a terminal of 100 by 40 characters."""

    def __init__(self, home: Path, *args: str, **env: str) -> None:
        environ = {**os.environ, "AGENTOS_HOME": str(home), "AGENTOS_MODEL": "offline", "TERM": "xterm-256color", **env}
        environ.pop("NO_COLOR", None)
        self.child = pexpect.spawn(
            sys.executable, ["-m", "agentos", "chat", *args], env=environ, cwd=str(home.parent),
            dimensions=(ROWS, COLUMNS), timeout=60,
        )  # fmt: skip
        self.screen = _Screen(COLUMNS, ROWS, history=2000, ratio=0.5)
        self.screen.answer = self.child.send
        self._stream = pyte.ByteStream(self.screen)

    def type(self, *keys: str) -> None:
        for key in keys:
            self.child.send(key)

    def rows(self) -> list[str]:
        """Everything that was printed and still stands, oldest first."""
        past = ["".join(row[x].data for x in range(COLUMNS)) for row in self.screen.history.top]
        return [row.rstrip() for row in [*past, *self.screen.display]]

    def text(self) -> str:
        return "\n".join(self.rows())

    def wait(self, wanted: str, times: int = 1) -> str:
        """Read until `wanted` stands on the screen, or in what scrolled off it, so many times."""
        return self._until(lambda: self.text().count(wanted) >= times, f"{times} times {wanted!r}")

    def wait_line(self, written: str, prompts: int) -> str:
        """Read until the prompt stands there for the `prompts`th time, with `written` behind it."""

        def there() -> bool:
            row = self.screen.display[self.screen.cursor.y]
            return self.text().count(PROMPT) == prompts and row.rstrip() == f"{PROMPT} {written}".rstrip()

        return self._until(there, f"prompt {prompts} with {written!r}")

    def _until(self, condition: Callable[[], bool], what: str) -> str:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, f"no {what} in:\n{self.text()}"
            self._read()
        return self.text()

    def _read(self) -> None:
        try:
            self._stream.feed(self.child.read_nonblocking(65536, timeout=0.2))
        except pexpect.TIMEOUT:
            pass
        except pexpect.EOF:
            raise AssertionError(f"the chat ended:\n{self.text()}") from None

    def colour_of(self, words: str) -> str:
        """The colour in which `words` stand on the screen."""
        for y, row in enumerate(self.screen.display):
            if words in row:
                return str(self.screen.buffer[y][row.index(words)].fg)
        raise AssertionError(f"{words!r} is not on the screen:\n{self.text()}")

    def exit_code(self) -> int:
        """Read to the end; the exit code."""
        while True:
            try:
                self._stream.feed(self.child.read_nonblocking(65536, timeout=60))
            except pexpect.EOF:
                break
        self.child.close()
        return int(self.child.exitstatus if self.child.exitstatus is not None else -self.child.signalstatus)


@contextmanager
def chatting(home: Path, *args: str, **env: str) -> Iterator[Terminal]:
    terminal = Terminal(home, *args, **env)
    try:
        yield terminal
    finally:
        terminal.child.close(force=True)


def test_a_first_chat_and_one_that_remembers_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with chatting(home) as chat:
        shown = chat.wait_line("", 1)
        assert "offline answers" in shown
        assert "--model NAME" in shown
        assert str(home)[:60] in shown

        chat.type("My name is Grace Hopper.", ENTER)
        shown = chat.wait_line("", 2)
        assert "· core_memory_append human ✓" in shown
        assert "Grace Hopper" in shown.split("✓")[1]
        assert chat.colour_of("+ ") == "green"

        chat.type("What is", ALT_ENTER, "my \\", ENTER, "name?", ENTER)
        shown = chat.wait_line("", 3)
        assert "› What is\n  my\n  name?\n\n" in shown
        assert "Hopper" in shown.split("name?")[1]
        chat.wait("default · offline · context ")

        chat.type("/mem", TAB)
        chat.wait("› /memory")
        chat.type(" hu", TAB)
        chat.wait("› /memory human")
        chat.type(ENTER)
        chat.wait("of 4,000 characters")
        for command, wanted in (
            ("/context", "reserved reply"),
            ("/search Hopper", "recall memory"),
            ("/undo", "took back event"),
            ("/usage", "default, ever"),
            ("/resume", "goes on with one of them"),
            ("/model", "offline answers; "),
            ("/compact", "paged out"),
            ("/new", "a new conversation"),
            ("/nonsense", "there is no command /nonsense"),
            ("/help", "/compact"),
        ):
            before = chat.text().count(wanted)
            chat.type(command, ENTER)
            chat.wait(wanted, times=before + 1)
        chat.type("My name is Ada.", ENTER)
        chat.wait("core_memory_append", times=2)
        chat.type("/exit", ENTER)
        assert chat.exit_code() == 0
        assert "Traceback" not in chat.text()
    assert stat.S_IMODE((home / "chat_history").stat().st_mode) == 0o600

    with chatting(home, "-c") as chat:
        shown = chat.wait_line("", 1)
        assert "default  offline, last used" in shown
        assert "--model NAME" not in shown, "the introduction comes once"
        chat.type("What is my name?", ENTER)
        assert "Ada" in chat.wait_line("", 2).split("What is my name?")[1]
        chat.type("half a line", CTRL_C, CTRL_C)
        chat.wait("leaves")
        chat.type("\x1b[A")  # the history of the session before
        chat.wait("What is my name?", times=2)
        chat.type(CTRL_C, CTRL_D)
        assert chat.exit_code() == 0


def test_a_timer_fires_while_the_user_writes(tmp_path: Path) -> None:
    with chatting(tmp_path / "home") as chat:
        chat.wait_line("", 1)
        chat.type("Remind me in 1 second to stretch.", ENTER)
        chat.wait("set_timer")
        chat.type("half a line")
        shown = chat.wait("Timer: ")
        assert shown.index("Timer: ") > shown.index("set_timer")
        shown = chat.wait_line("half a line", 2)
        assert shown.count("half a line") == 1, "what is being written stands below what is printed, once"
        chat.type(CTRL_C, CTRL_D)
        assert chat.exit_code() == 0


def test_what_goes_wrong_beside_the_line_is_told_once_and_the_chat_goes_on(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with chatting(home) as chat:
        chat.wait_line("", 1)
        with sqlite3.connect(home / "agentos.db") as database:
            database.execute("ALTER TABLE timer RENAME TO away")
        shown = chat.wait("looking for timers failed: ")
        assert "no such table: timer" in shown
        with sqlite3.connect(home / "agentos.db") as database:
            database.execute("ALTER TABLE away RENAME TO timer")
        database.close()
        chat.type("My name is Ada.", ENTER)
        chat.wait("core_memory_append human ✓")
        assert chat.text().count("looking for timers failed") == 1
        chat.type("/exit", ENTER, *[CTRL_C] * 5)
        assert chat.exit_code() in (0, 130, -2)
        assert "Traceback" not in chat.text()


LONG = "\n".join(f"- item {n}" for n in range(1, 3 * ROWS))
REPLY = f"# Title\n\nA *plain* List<String>.\nNext line.\n\n```py\na\n\nb\n```\n\n{LONG}\n\nThe end."


def replies(body: Body) -> FakeReply:
    said = str(body["messages"][-1]["content"])
    if "hang" in said:
        return FakeReply(text="half a reply that goes on", hang_seconds=60)
    if "refuse" in said:
        return FakeReply(status=400)
    return FakeReply(text=REPLY, chunk_chars=11)


def test_a_long_reply_a_cancelled_turn_and_a_failing_provider(tmp_path: Path, forks: Forks) -> None:
    home = tmp_path / "home"
    with FakeOpenAI(replies) as server, chatting(home, AGENTOS_MODEL="fake", AGENTOS_API_BASE=server.url) as chat:
        chat.wait_line("", 1)
        chat.type("tell me", ENTER)
        rows = [row.strip() for row in chat.wait("The end.").splitlines()]
        said = rows[rows.index("Title") : rows.index("The end.")]
        assert said[:8] == ["Title", "", "A plain List<String>.", "Next line.", "", "a", "", "b"]
        assert [row for row in said if "item" in row] == [f"• item {n}" for n in range(1, 3 * ROWS)], "each line once"

        chat.wait_line("", 2)
        chat.type("hang", ENTER)
        chat.wait("› hang")
        deadline = time.monotonic() + 60
        while len(server.requests) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        chat.type("not to be seen", CTRL_C)
        chat.wait("cancelled; what was saved stays")
        chat.wait_line("", 3)
        assert "not to be seen" not in chat.text()

        chat.type("refuse", ENTER)
        chat.wait("✗ fake refused the request")
        chat.wait_line("", 4)
        chat.type(CTRL_C)
        chat.wait("Ctrl-C again")
        chat.type(CTRL_C)
        assert chat.exit_code() == 0
        assert "Traceback" not in chat.text()

    env = {**os.environ, "AGENTOS_HOME": str(home), "AGENTOS_MODEL": "offline"}
    listed = forks.run(["agents", "list", "--json"], "", env, tmp_path)
    (agent,) = json.loads(listed.stdout)
    assert agent["unfinished_run"] is None
    assert agent["messages"] >= 4
