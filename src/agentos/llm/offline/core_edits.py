"""The calls by which the offline model brings core memory up to date."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from agentos.llm.offline import language
from agentos.llm.offline.changes import contradiction, read, statements
from agentos.llm.offline.facts import Fact, parse_line
from agentos.llm.offline.prompt import CoreBlock
from agentos.llm.offline.turn import OTHERS, Answer, NamedCall, Turn, lines_of, remarks_of


@dataclass
class CoreEdits:
    """The calls that bring core memory up to date, each planned on what the ones before leave."""

    turn: Turn
    calls: list[NamedCall] = field(default_factory=list)
    noted: list[str] = field(default_factory=list)
    corrected: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    unsaved: list[str] = field(default_factory=list)
    refused: bool = False
    """Whether a limit will refuse one of them; what to say is then left to the next step."""

    def __post_init__(self) -> None:
        self.blocks = {b.label: b for b in self.turn.prompt.blocks}

    @property
    def any(self) -> bool:
        """Whether there is anything to say."""
        return bool(self.noted or self.corrected or self.known or self.unsaved)

    def take(self, facts: Sequence[Fact], known: bool = True) -> "CoreEdits":
        """Plan for `facts`; `known` says whether those that stand already are worth a word."""
        for fact in facts:
            lines = [(b, line, parse_line(line)) for b, line in lines_of(list(self.blocks.values()))]
            if any(other and fact.repeats(other) for _, _, other in lines):
                self.known += [fact.sentence] if known else []
                continue
            outdated = next(((b, line, other) for b, line, other in lines if other and fact.replaces(other)), None)
            if outdated and self._replace(outdated[0], outdated[1], fact.line):
                self.corrected.append(_change(fact, outdated[2]))
            else:
                (self.noted if self._append(fact.line) else self.unsaved).append(fact.sentence)
        return self

    def delete(self, line: str) -> bool:
        """Plan to take a line out; False when no tool or block allows it."""
        block = next((b for b, other in lines_of(list(self.blocks.values())) if other == line), None)
        return block is not None and self._replace(block, line, "")

    def change(self, text: str) -> "CoreEdits":
        """Plan for each change that `text` tells of the one line that said otherwise."""
        for statement in statements(text):
            lines = [
                (block, line)
                for block, line in lines_of(list(self.blocks.values()))
                if (old := read(line)) and statement.replaces(old)
            ]
            if len(lines) == 1 and self._replace(*lines[0], statement.text):
                self.corrected.append(_instead(statement.text, lines[0][1]))
        return self

    def correct(self, text: str) -> str:
        """Plan for `text` in the place of the line that it contradicts; what to say, empty where there is none."""
        home = self._home()
        for line in remarks_of([home] if home else []):
            if home and contradiction(text, line) and self._replace(home, line, text):
                return f"Corrected: {_instead(text, line)}."
        return ""

    def pin(self, text: str) -> str:
        """Plan for `text` as a line of the block about the user; what to say, empty where it has no place.

        Of two lines that are much alike one may be outdated: the older moves to archival memory, so that nothing is
        lost. New lines take up to half of the block; the rest is for facts.
        """
        corrected = self.correct(text)
        home = self._home()
        if corrected or home is None or home.label in OTHERS:
            return corrected
        line = max(remarks_of([home]), key=lambda other: language.overlap(text, other), default="")
        movable = language.alike(text, line) and "archival_memory_insert" in self.turn.tools
        if movable and self._replace(home, line, text):
            self.calls.append(("archival_memory_insert", {"content": line}))
            return f"I will remember: {text}\nMoved to archival memory: {line}"
        fits = len(home.value) + 1 + len(text) <= home.limit // 2
        return f"I will remember: {text}" if fits and self._append(text) else ""

    def answer(self, said: str = "") -> Answer:
        """The step that makes the edits."""
        return Answer("" if self.refused else said or self.text(), tuple(self.calls))

    def text(self) -> str:
        """What the edits come to, for the user."""
        said = [
            ("Noted: ", self.noted),
            ("Corrected: ", self.corrected),
            ("I know: ", self.known),
            ("I cannot write core memory here, so this stays in the conversation only: ", self.unsaved),
        ]
        return " ".join(f"{intro}{'; '.join(facts)}." for intro, facts in said if facts)

    def _append(self, line: str) -> bool:
        block = self._home()
        if block is None or "core_memory_append" not in self.turn.tools:
            return False
        self._set(block, f"{block.value}\n{line}" if block.value else line)
        self.calls.append(("core_memory_append", {"label": block.label, "content": line}))
        return True

    def _home(self) -> CoreBlock | None:
        """Where facts about the user go: `human`, else the first block that may be written."""
        writable = [b for b in self.blocks.values() if not b.read_only]
        order = {"human": 0, "rules": 2, "persona": 3}
        return min(writable, key=lambda b: order.get(b.label, 1), default=None)

    def _replace(self, block: CoreBlock, line: str, new: str) -> bool:
        old = _only_once(block.value, line)
        if block.read_only or old is None or "core_memory_replace" not in self.turn.tools:
            return False
        new_content = old.replace(line, new, 1) if old == line else _swap(old, line, new)
        self._set(block, block.value.replace(old, new_content))
        self.calls.append(
            ("core_memory_replace", {"label": block.label, "old_content": old, "new_content": new_content})
        )
        return True

    def _set(self, block: CoreBlock, value: str) -> None:
        self.refused |= len(value) > block.limit
        if len(value) <= block.limit:
            self.blocks[block.label] = replace(block, value=value)


def _change(fact: Fact, before: Fact | None) -> str:
    other = before and before.value != fact.value
    return f"{fact.sentence} (it was: {before.value})" if before and other else fact.sentence


def _instead(text: str, line: str) -> str:
    return f"{text.rstrip(' .')} (it was: {line.rstrip(' .')})"


def _only_once(value: str, line: str) -> str | None:
    """The line, with its neighbours where it takes them to occur exactly once; None when nothing does."""
    if value.count(line) == 1:
        return line
    lines = value.split("\n")
    place = next((i for i, other in enumerate(lines) if other.strip() == line), 0)
    wider = "\n".join(lines[max(0, place - 1) : place + 2])
    return wider if value.count(wider) == 1 else None


def _swap(old: str, line: str, new: str) -> str:
    return "\n".join(new if other.strip() == line else other for other in old.split("\n"))
