"""The model of a machine without a model: no weights, deterministic, labelled as what it is.

It drives the same tools a real model uses and sees only what a real model sees, the request's messages
and tools: it notes what the user states about themself, keeps what it is asked to keep, and answers
by quoting the best memory with its date. Its rules are English; `facts` has what counts as a
fact, `language` how a memory is chosen, `prompt` how a request is read.
"""

import hashlib
import json
import re
import zlib
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agentos.errors import ContextOverflow
from agentos.events import Retry
from agentos.llm.offline import language
from agentos.llm.offline.facts import Fact, answering_lines, extract_facts, is_quoted_talk, parse_line, same_value, told
from agentos.llm.offline.prompt import SEARCHES, CoreBlock, Prompt, Result, Said, read_prompt
from agentos.messages import Reply, ToolCall, Usage
from agentos.protocols import Delta, LLMRequest

INTRODUCTION = (
    "I am agentos' offline stand-in: no language model, only simple rules. I remember what you tell me about yourself "
    "and answer questions by quoting it back, with its date. Set AGENTOS_MODEL or a provider's key for a real model."
)
UNKNOWN = "I know nothing about that: I find it neither in core memory nor in what you have told me."
WORK = "That takes a language model, and I am only simple rules that remember. Set AGENTOS_MODEL for a real one."
_ACKNOWLEDGEMENTS = (
    "I keep what you say in the conversation log; ask me about it later.",
    "I hear you. It stays in the conversation log, and I can quote it when you ask.",
    "Understood as far as simple rules go. Ask me later and I will find it again.",
    "That is in the conversation log now. Say “remember that …” for what I should keep apart.",
)
_PER_MESSAGE = 6
"""Tokens of role and separators around one message; twice that around a call."""

_NamedCall = tuple[str, dict[str, Any]]


class OfflineLLM:
    """The `LLM` that is always there: instant, free, and unable to reach anything outside its request."""

    name = "offline"
    provider = "offline"

    def __init__(self, context_window: int = 32768, max_output_tokens: int = 1024) -> None:
        self.context_window = context_window
        self.max_output_tokens = max_output_tokens

    def count_tokens(self, text: str) -> int:
        """One token for each three bytes of UTF-8, rounded up: more than English takes, about what dense text does."""
        return -(-(len(text) if text.isascii() else len(text.encode("utf-8", "replace"))) // 3)

    async def stream(self, request: LLMRequest) -> AsyncGenerator[Delta | Retry | Reply, None]:
        """The reply word by word, then whole. Raises `ContextOverflow` when the prompt alone exceeds the window."""
        tools = self.count_tokens(json.dumps(request.tools)) if request.tools else 0
        sizes = [self._size(message) for message in request.messages]
        if tools + sum(sizes) > self.context_window:
            raise ContextOverflow(
                f"the prompt takes about {tools + sum(sizes)} tokens and the offline model's window has "
                f"{self.context_window}; page out more or raise AGENTOS_CONTEXT_WINDOW",
                self.context_window,
            )
        answer = respond(read_prompt(request.messages), frozenset(t["function"]["name"] for t in request.tools))
        text, whole = self._fitted(answer.text.strip(), request.max_tokens)
        for piece in re.findall(r"\s*\S+", text):
            yield Delta(piece)
        calls = _tool_calls(request.messages, answer.calls)
        said = self.count_tokens(text) + sum(self.count_tokens(c.name + c.arguments) + 2 * _PER_MESSAGE for c in calls)
        repeated = tools + sum(sizes[: request.previous_length]) if request.previous_length else 0
        usage = Usage(tools + sum(sizes), said, repeated, 0.0)
        finish = "tool_calls" if calls else "stop" if whole else "length"
        yield Reply(text, calls, usage, finish, model=self.name)

    def _size(self, message: dict[str, Any]) -> int:
        """Tokens of one message; cheap enough to be counted anew for each request."""
        content = message.get("content") or ""
        tokens = _PER_MESSAGE + self.count_tokens(content if isinstance(content, str) else json.dumps(content))
        for call in message.get("tool_calls") or ():
            function = call["function"]
            tokens += 2 * _PER_MESSAGE + self.count_tokens(function["name"]) + self.count_tokens(function["arguments"])
        return tokens

    def _fitted(self, text: str, max_tokens: int) -> tuple[str, bool]:
        """The text within `max_tokens`, and whether it is all of it."""
        if self.count_tokens(text) <= max_tokens:
            return text, True
        room = text.encode("utf-8", "replace")[: max(0, 3 * max_tokens)].decode("utf-8", "ignore")
        return room.rsplit(None, 1)[0] if room.strip() else "", False


def _tool_calls(messages: Sequence[dict[str, Any]], calls: Sequence[_NamedCall]) -> tuple[ToolCall, ...]:
    """Calls with ids that depend on the talk so far: equal for an equal request, new for every other."""
    recent = json.dumps([len(messages), messages[-4:]], default=str).encode()
    digest = hashlib.sha256(recent).hexdigest()[:20]
    return tuple(
        ToolCall(f"off_{digest}_{i}", name, json.dumps(arguments, ensure_ascii=False))
        for i, (name, arguments) in enumerate(calls)
    )


# --- what to answer ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """A step: what to say and what to call."""

    text: str = ""
    calls: tuple[_NamedCall, ...] = ()


@dataclass(frozen=True)
class _Turn:
    """What a rule sees."""

    prompt: Prompt
    tools: frozenset[str]

    @property
    def said(self) -> Said:
        """The message to answer: the last of those that wait."""
        return self.prompt.pending[-1]

    @property
    def text(self) -> str:
        return self.said.text

    @property
    def lines(self) -> list[str]:
        """The lines of core memory that may tell about the user."""
        return [line for _, line in _lines(self.prompt.blocks)]

    @property
    def remarks(self) -> list[str]:
        """Those of them that are sentences."""
        return _remarks(self.prompt.blocks)


def respond(prompt: Prompt, tools: frozenset[str]) -> Answer:
    """The next step for this prompt, with calls to these tools only."""
    if prompt.summary_request is not None:
        return Answer(_summary(prompt, prompt.summary_request))
    reminders = "\n".join(f"Reminder: {note}" for note in prompt.timers)
    if not prompt.pending:
        return Answer(_complaints(prompt.results) or reminders or "Nothing new to save.")
    turn = _Turn(prompt, tools)
    answer = Answer(_outcome(turn)) if prompt.results else _first_step(turn)
    return replace(answer, text=f"{reminders}\n\n{answer.text}") if reminders and answer.text else answer


def _first_step(turn: _Turn) -> Answer:
    """The first rule that knows what to do with the message."""
    for rule in _RULES:
        answer = rule(turn)
        if answer:
            return answer
    return Answer(_ACKNOWLEDGEMENTS[zlib.crc32(turn.text.encode()) % len(_ACKNOWLEDGEMENTS)])


def _outcome(turn: _Turn) -> str:
    """What came of this turn's calls, and the answer where they searched."""
    results = turn.prompt.results
    parts = [_confirmation(results), _complaints(results)]
    searches = sorted(
        (r for r in results if r.tool in SEARCHES), key=lambda r: r.tool
    )  # of equals, what was kept apart
    if searches:
        parts.append(_quote(turn, [m for r in searches for m in language.parse_memories(r.text)]))
    return "\n".join(filter(None, parts)) or "Done."


def _complaints(results: Sequence[Result]) -> str:
    """What could not be done, in plain words."""
    lines = []
    for result in (r for r in results if not r.ok):
        what = next(
            (str(result.arguments[k]) for k in ("new_content", "content", "note", "query") if result.arguments.get(k)),
            "",
        )
        parked = re.search(r"parked in archival memory as (p\d+)", result.text)
        label = result.arguments.get("label", "")
        if parked:
            lines.append(
                f'I could not write “{what}” to core memory: block "{label}" has no room for it. '
                f"It is kept in archival memory as {parked[1]}."
            )
        else:
            reason = result.text.removeprefix("error:").strip().split("\n")[0][:200]
            this = f"this with “{what[:80]}”" if what else "this"
            lines.append(f"I could not do {this}: {reason or 'it failed'}. Nothing was saved by it.")
    return "\n".join(lines)


def _confirmation(results: Sequence[Result]) -> str:
    """What was saved, from the calls that say so."""
    written = [(r.tool, str(r.arguments.get("content") or r.arguments.get("new_content") or "")) for r in results
               if r.ok and r.tool.startswith(("core_memory_", "archival_memory_insert"))]  # fmt: skip
    facts = {text: fact for tool, text in written if tool.startswith("core_") and (fact := parse_line(text))}
    lines = [f"Noted: {'; '.join(fact.sentence for fact in facts.values())}."] if facts else []
    lines += [f"I will remember: {text}" for _, text in written if text and text not in facts]
    return "\n".join(lines)


def _quote(turn: _Turn, memories: Sequence[language.Memory]) -> str:
    """The best memory, quoted with its date and id."""
    question = language.question_in(turn.text) or turn.text
    held = [
        language.Memory("", max((m.date for m in memories if _tells(m, line)), default=""), line)
        for line in turn.remarks
    ]
    best = language.best_memories(question, [*held, *memories])
    if not best:
        return UNKNOWN
    first = next((m for m in best if m in held and _outdates(m, best[0], held)), best[0])
    if not first.date:
        return told([first.text])
    where = f" ({first.id})" if first.id else ""
    speaker = f", {first.name} said" if first.name else ""
    also = [m.id for m in best[1:3] if m.id and not (first in held and _tells(m, first.text))]
    more = f" See also {' and '.join(also)}." if also else ""
    return f'On {first.date}{where}{speaker}: "{language.excerpt(first.text, question)}"{more}'


def _tells(memory: language.Memory, line: str) -> bool:
    """Whether a memory says what stands in core memory."""
    return language.plain(line).casefold() in language.plain(memory.text).casefold()


def _outdates(line: language.Memory, memory: language.Memory, held: Sequence[language.Memory]) -> bool:
    """Whether a line of core memory took the place of what was to be remembered before."""
    if memory.date > line.date or any(_tells(memory, other.text) for other in held):
        return False
    before = language.to_remember(memory.text) or memory.text
    alike = language.alike(line.text, before) and language.same_subject(line.text, before)
    return alike or language.contradicts(line.text, before)


def _summary(prompt: Prompt, request: str) -> str:
    """The first sentences of the user's first statements, or of the questions where there are no statements."""
    limit = re.search(r"at most (\d+) words", request)
    texts = [s.text for s in prompt.said if not language.small_talk(s.text)]
    statements = [t for t in texts if not language.question_in(t)]
    verb = "said" if statements else "asked"
    firsts = [next(iter(language.sentences(t)), "")[:200] for t in (statements or texts)[:2]]
    text = f"The user {verb}: " + " ".join(f"“{first}”" for first in firsts) if firsts else "The user said little."
    return " ".join(text.split()[: int(limit[1]) if limit else 60])


# --- the rules, in the order they are tried ---------------------------------------------------------


def _idle_talk(turn: _Turn) -> Answer | None:
    """Greetings, thanks, and what others said in a transcript."""
    if is_quoted_talk(turn.text):
        return Answer(_ACKNOWLEDGEMENTS[0])
    if language.asks_identity(turn.text):
        return Answer(INTRODUCTION)
    if language.is_greeting(turn.text):
        name = next((f.value for f in _facts(turn.prompt.blocks) if f.key.casefold() in ("goes by", "name")), "")
        return Answer(f"Hello{' ' + name if name else ''}. {INTRODUCTION}")
    if language.asks_for_work(turn.text):
        return Answer(WORK)
    reply = language.small_talk(turn.text)
    return Answer(reply) if reply else None


def _reminder(turn: _Turn) -> Answer | None:
    reminder = language.to_remind(turn.text, turn.said.at)
    if reminder is None:
        return None
    if "set_timer" not in turn.tools:
        return Answer("I have no timer here, so I cannot remind you.")
    if not reminder.when:
        return Answer("Tell me when: “remind me in 2 hours to …” or “remind me at 15:30 to …”, at a time to come.")
    moment = (
        f"in {reminder.when}" if reminder.when[-1] in "smhd" and "T" not in reminder.when else f"at {reminder.when}"
    )
    call = ("set_timer", {"when": reminder.when, "note": reminder.note})
    return Answer(f"I will remind you {moment}: {reminder.note}", (call,))


def _standing_rule(turn: _Turn) -> Answer | None:
    rule = language.standing_rule(turn.text)
    if rule is None:
        return None
    block = next((b for b in turn.prompt.blocks if b.label == "rules" and not b.read_only), None)
    if block is None or "core_memory_append" not in turn.tools:
        return _keep(turn, rule)
    if rule in block.value.split("\n"):
        return Answer(f"That rule stands already: {rule}")
    call = ("core_memory_append", {"label": block.label, "content": rule})
    return Answer(f"Noted as a standing rule, for a real model to follow: {rule}", (call,))


def _pinned(turn: _Turn) -> Answer | None:
    """The rules block, when asked for it."""
    if not re.match(
        r"(?i)(?:what|which|list|show|tell me)\b[\w' ]*\b(?:my|the|your) (?:standing )?rules\W*$", turn.text
    ):
        return None
    rules = next((b.value.strip() for b in turn.prompt.blocks if b.label == "rules"), "")
    return Answer(f"The standing rules read:\n{rules}" if rules else "There are no standing rules.")


def _remember(turn: _Turn) -> Answer | None:
    what = language.to_remember(turn.text)
    if what is None:
        return None
    facts = extract_facts(what)
    covered = language.stems(" ".join(f"{f.line} {f.sentence}" for f in facts))
    text = what[:1].upper() + what[1:]
    if not facts:
        return _pin(turn, text)
    if len(language.stems(what) - covered) > 2:
        kept = _keep(turn, text)
        edits = _CoreEdits(turn).take(facts)
        return Answer(" ".join(filter(None, (kept.text, edits.text()))), (*kept.calls, *edits.calls))
    return _CoreEdits(turn).take(facts).answer()


def _pin(turn: _Turn, text: str) -> Answer:
    """A text for core memory; for archival memory where it is no plain line or there is no room."""
    edits = _CoreEdits(turn)
    if any(same_value(text, line) for line in turn.remarks):
        return Answer(f"I know: {text}")
    said = "" if "\n" in text or parse_line(text) else edits.pin(text)
    return edits.answer(said) if said else _keep(turn, text)


def _keep(turn: _Turn, text: str) -> Answer:
    """A text for archival memory."""
    if "archival_memory_insert" not in turn.tools:
        return Answer("I have no archive here; it stays in our conversation.")
    return Answer(f"I will remember: {text}", (("archival_memory_insert", {"content": text}),))


def _forget(turn: _Turn) -> Answer | None:
    what = language.to_forget(turn.text)
    if what is None:
        return None
    known = extract_facts(what)
    lines = [
        line for b, line in _lines(turn.prompt.blocks) if (f := parse_line(line)) and any(k.repeats(f) for k in known)
    ]
    lines = lines or answering_lines(f"what is {what}", turn.lines)
    wanted = language.stems(what)
    lines = lines or [line for line in turn.remarks if wanted and wanted <= language.stems(line)]
    edits = _CoreEdits(turn)
    if len(lines) == 1 and edits.delete(lines[0]):
        return Answer(
            f"Forgotten: “{lines[0]}” is out of core memory. What you said stays in the conversation log; "
            "`agentos memory` shows and corrects what I keep.",
            tuple(edits.calls),
        )
    found = (
        f"That could be {', '.join(f'“{line}”' for line in lines[:5])}; name one. "
        if lines
        else "I have no such line in core memory. "
    )
    return Answer(f"{found}`agentos memory` shows, edits and undoes what I keep.")


def _correction(turn: _Turn) -> Answer | None:
    """A bare “no, it's Lisbon”, right after a fact was noted, or “no, the key is under the mat” at any time."""
    if extract_facts(turn.text):
        return None
    write, value = turn.prompt.last_write, language.corrected_value(turn.text)
    if write is None or value is None:
        stated, edits = language.corrected_statement(turn.text), _CoreEdits(turn)
        said = edits.correct(stated[:1].upper() + stated[1:]) if stated else ""
        return edits.answer(said) if said else None
    fact = parse_line(str(write.arguments.get("content") or write.arguments.get("new_content") or ""))
    if fact is None or fact.several:
        return None
    return _CoreEdits(turn).take([Fact(fact.key, value)]).answer()


def _facts_and_question(turn: _Turn) -> Answer | None:
    """Notes what was stated and answers what was asked; a search takes the text to the next step."""
    edits = _CoreEdits(turn)
    for said in turn.prompt.pending[:-1]:
        edits.take(extract_facts(said.text), known=False)
    edits.take(extract_facts(turn.text))
    question = language.question_in(turn.text)
    if question is None:
        return edits.answer() if edits.any else None
    lines = answering_lines(question, [line for _, line in _lines(list(edits.blocks.values()))])
    if lines and not edits.refused:
        return Answer("\n".join(filter(None, (edits.text(), told(lines)))), tuple(edits.calls))
    searches = _searches(question, turn.tools)
    if searches:
        return Answer("", (*edits.calls, *searches))
    seen = [language.Memory("", _day(said), said.text) for said in turn.prompt.said[:-1]]
    return Answer("\n".join(filter(None, (edits.text(), _quote(turn, seen)))), tuple(edits.calls))


def _day(said: Said) -> str:
    return f"{said.at:%Y-%m-%d %H:%M}" if said.at else "an earlier day"


def _searches(question: str, tools: frozenset[str]) -> list[_NamedCall]:
    query = language.search_query(question)
    calls: list[_NamedCall] = [
        ("conversation_search", {"query": query, "roles": ["user"]}),
        ("archival_memory_search", {"query": query}),
    ]
    return [call for call in calls if call[0] in tools]


_RULES: tuple[Callable[[_Turn], Answer | None], ...] = (
    _idle_talk, _correction, _reminder, _pinned, _standing_rule, _remember, _forget, _facts_and_question,
)  # fmt: skip


# --- core memory ------------------------------------------------------------------------------------


_OTHERS = ("persona", "rules")
"""Blocks that are not about the user."""


def _lines(blocks: Sequence[CoreBlock]) -> Iterator[tuple[CoreBlock, str]]:
    """The lines that may tell about the user, with their blocks."""
    for block in blocks:
        if block.label not in _OTHERS:
            yield from ((block, line.strip()) for line in block.value.split("\n") if line.strip())


def _remarks(blocks: Sequence[CoreBlock]) -> list[str]:
    return [line for _, line in _lines(blocks) if not parse_line(line)]


def _facts(blocks: Sequence[CoreBlock]) -> list[Fact]:
    return [fact for _, line in _lines(blocks) if (fact := parse_line(line))]


@dataclass
class _CoreEdits:
    """The calls that bring core memory up to date, each planned on what the ones before leave."""

    turn: _Turn
    calls: list[_NamedCall] = field(default_factory=list)
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

    def take(self, facts: Sequence[Fact], known: bool = True) -> "_CoreEdits":
        """Plan for `facts`; `known` says whether those that stand already are worth a word."""
        for fact in facts:
            lines = [(b, line, parse_line(line)) for b, line in _lines(list(self.blocks.values()))]
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
        block = next((b for b, other in _lines(list(self.blocks.values())) if other == line), None)
        return block is not None and self._replace(block, line, "")

    def correct(self, text: str) -> str:
        """Plan for `text` in the place of the line that it contradicts; what to say, empty where there is none."""
        home = self._home()
        for line in _remarks([home] if home else []):
            if home and language.contradicts(text, line) and self._replace(home, line, text):
                return f"Corrected: {text} (it was: {line})"
        return ""

    def pin(self, text: str) -> str:
        """Plan for `text` as a line of the block about the user; what to say, empty where it has no place.

        Of two lines that are much alike one may be outdated: the older moves to archival memory, so that nothing is
        lost. New lines take up to half of the block; the rest is for facts.
        """
        corrected = self.correct(text)
        home = self._home()
        if corrected or home is None or home.label in _OTHERS:
            return corrected
        line = max(_remarks([home]), key=lambda other: language.overlap(text, other), default="")
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
