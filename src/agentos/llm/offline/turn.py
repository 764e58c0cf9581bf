"""What a rule of the offline model sees, and what it gives back."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from agentos.llm.offline.facts import Fact, parse_line
from agentos.llm.offline.prompt import CoreBlock, Prompt, Said

NamedCall = tuple[str, dict[str, Any]]

OTHERS = ("persona", "rules")
"""Blocks that are not about the user."""


def lines_of(blocks: Sequence[CoreBlock]) -> Iterator[tuple[CoreBlock, str]]:
    """The lines that may tell about the user, with their blocks."""
    for block in blocks:
        if block.label not in OTHERS:
            yield from ((block, line.strip()) for line in block.value.split("\n") if line.strip())


def remarks_of(blocks: Sequence[CoreBlock]) -> list[str]:
    """Those of them that are sentences."""
    return [line for _, line in lines_of(blocks) if not parse_line(line)]


def facts_of(blocks: Sequence[CoreBlock]) -> list[Fact]:
    """Those of them that are facts."""
    return [fact for _, line in lines_of(blocks) if (fact := parse_line(line))]


@dataclass(frozen=True)
class Answer:
    """A step: what to say and what to call."""

    text: str = ""
    calls: tuple[NamedCall, ...] = ()


@dataclass(frozen=True)
class Turn:
    """What a rule sees."""

    prompt: Prompt
    tools: frozenset[str]

    @property
    def said(self) -> Said:
        """The message to answer: the last of those that wait."""
        return self.prompt.pending[-1]

    @property
    def text(self) -> str:
        """Its text."""
        return self.said.text

    @property
    def lines(self) -> list[str]:
        """The lines of core memory that may tell about the user."""
        return [line for _, line in lines_of(self.prompt.blocks)]

    @property
    def remarks(self) -> list[str]:
        """Those of them that are sentences."""
        return remarks_of(self.prompt.blocks)
