"""Markdown as it arrives, cut into blocks that can be shown for good."""

import re

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")


class BlockCutter:
    """Takes text piece by piece and gives out each block once nothing that follows can belong to it.

    A block ends at an empty line outside a fence, unless the next line is indented: then it belongs
    to the list above.
    """

    def __init__(self) -> None:
        self.rest = ""
        """The block that is still growing."""

    def feed(self, text: str) -> list[str]:
        """Blocks that `text` completed."""
        could_end = "\n" in text or self.rest.endswith("\n")
        self.rest += text
        found: list[str] = []
        while could_end and (end := _block_end(self.rest)) is not None:
            found.append(self.rest[:end].strip("\n"))
            self.rest = self.rest[end:].lstrip("\n")
        return [block for block in found if block.strip()]

    def finish(self) -> str:
        """What is left, which is a block now."""
        rest, self.rest = self.rest.strip("\n"), ""
        return rest if rest.strip() else ""


def _block_end(text: str) -> int | None:
    """Where the first block of `text` ends; None while it may go on. A last line without newline is unread."""
    fence, place, empty = "", 0, False
    for row in text.splitlines(keepends=True):
        if empty and row.strip() and not row[0].isspace():
            return place
        mark = _FENCE.match(row)
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1].startswith(fence) and row.strip() == mark[1]:
            fence = ""
        empty = not fence and (empty or bool(place)) and not row.strip()
        place += len(row)
    return None
