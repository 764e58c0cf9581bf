"""Markdown for a chat, as the rows of a terminal."""

from typing import ClassVar

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Heading, Markdown, MarkdownElement
from rich.text import Text

from agentos.cli.output import safe


class LeftHeading(Heading):
    """A heading where text begins, not in the middle of a box."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.text.justify = "left"
        yield self.text


class TerminalMarkdown(Markdown):
    """Markdown for a chat: nothing is taken for HTML and lost, line ends stay, links show their address."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {**Markdown.elements, "heading_open": LeftHeading}

    def __init__(self, text: str) -> None:
        super().__init__("", hyperlinks=False, code_theme="ansi_dark")
        self.markup = text
        self.parsed = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"]).parse(text)
        for token in self.parsed:
            for child in token.children or ():
                if child.type == "softbreak":
                    child.type = "hardbreak"


def rendered(text: str, console: Console) -> list[Text]:
    """Markdown as the rows a terminal of the console's width shows, without empty ones around them."""
    rows = [
        Text.assemble(*((segment.text, segment.style or "") for segment in row if not segment.control))
        for row in console.render_lines(TerminalMarkdown(safe(text)), pad=False)
    ]
    for row in rows:
        row.rstrip()
    said = [place for place, row in enumerate(rows) if row]
    return rows[said[0] : said[-1] + 1] if said else []
