"""Records a real chat on the offline model as docs/chat.svg: a pseudo-terminal, its screen, rich's SVG.

python docs/record_chat.py
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import pexpect
import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

COLUMNS, ROWS = 96, 50
SAID = [
    "Hi! My name is Ada and I live in Porto.",
    "Remember that the boiler was serviced on 3 May 2026 by Joost.",
    "Actually, I moved to Lisbon.",
    "When was the boiler serviced?",
    "/memory human",
]


def record(home: str) -> pyte.Screen:
    """The screen after the talk."""
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY") and k != "NO_COLOR"}
    environment |= {
        "AGENTOS_HOME": home,
        "AGENTOS_MODEL": "offline",
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
    }
    screen = pyte.HistoryScreen(COLUMNS, ROWS)
    stream = pyte.Stream(screen)
    command = [sys.executable, "-m", "agentos", "chat"]
    chat = pexpect.spawn(command[0], command[1:], env=environment, encoding="utf-8", dimensions=(ROWS, COLUMNS))

    def read(seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                output = chat.read_nonblocking(4096, timeout=0.2)
            except pexpect.TIMEOUT:
                continue
            stream.feed(output)
            if "\x1b[6n" in output:  # the program asks where the cursor is, as it would ask a terminal
                chat.send(f"\x1b[{screen.cursor.y + 1};{screen.cursor.x + 1}R")

    read(3)
    for line in SAID:
        for character in line:
            chat.send(character)
        chat.send("\r")
        read(2)
    chat.terminate(force=True)
    return screen


def as_text(screen: pyte.Screen) -> Text:
    """The screen's cells with their colours."""
    text = Text()
    lines = [line.rstrip() for line in screen.display]
    last = max(i for i, line in enumerate(lines) if line)
    for row in range(last + 1):
        for column in range(COLUMNS):
            cell = screen.buffer[row][column]
            text.append(cell.data, _style(cell))
        text.append("\n")
    text.rstrip()
    return text


def _style(cell: pyte.screens.Char) -> Style:
    colours = {"color": _colour(cell.fg), "bgcolor": _colour(cell.bg)}
    return Style(**colours, bold=cell.bold, italic=cell.italics, reverse=cell.reverse)


def _colour(name: str) -> str | None:
    """A colour of the emulator in rich's words."""
    if name == "default":
        return None
    if len(name) == 6 and all(c in "0123456789abcdef" for c in name):
        return f"#{name}"
    return name.replace("bright", "bright_").replace("brown", "yellow")


def main() -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory(prefix="agentos-") as home, Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print(as_text(record(home)))
        console.save_svg(str(Path(__file__).with_name("chat.svg")), title="agentos chat")


if __name__ == "__main__":
    main()
