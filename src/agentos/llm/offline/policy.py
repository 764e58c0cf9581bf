"""What the offline model answers: rules, in the order they are tried."""

import re
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from agentos.llm.offline import intents, language
from agentos.llm.offline.changes import read, statements
from agentos.llm.offline.core_edits import CoreEdits
from agentos.llm.offline.facts import Fact, answering_lines, extract_facts, is_quoted_talk, parse_line, same_value, told
from agentos.llm.offline.memories import Memory, best_memories, corrected, excerpt, parse_memories, states
from agentos.llm.offline.prompt import SEARCHES, Prompt, Result, Said
from agentos.llm.offline.reminders import to_remind
from agentos.llm.offline.turn import Answer, NamedCall, Turn, facts_of, lines_of

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


def respond(prompt: Prompt, tools: frozenset[str]) -> Answer:
    """The next step for this prompt, with calls to these tools only."""
    if prompt.summary_request is not None:
        return Answer(_summary(prompt, prompt.summary_request))
    reminders = "\n".join(f"Reminder: {note}" for note in prompt.timers)
    if not prompt.pending:
        return Answer(_complaints(prompt.results) or reminders or "Nothing new to save.")
    turn = Turn(prompt, tools & {*SEARCHES} if prompt.pending[-1].by_client else tools)
    answer = _superseding(turn) or Answer(_outcome(turn)) if prompt.results else _first_step(turn)
    return replace(answer, text=f"{reminders}\n\n{answer.text}") if reminders and answer.text else answer


def _first_step(turn: Turn) -> Answer:
    """The first rule that knows what to do with the message."""
    for rule in _RULES:
        answer = rule(turn)
        if answer:
            return answer
    return Answer(_acknowledgement(turn))


def _acknowledgement(turn: Turn) -> str:
    return _ACKNOWLEDGEMENTS[zlib.crc32(turn.text.encode()) % len(_ACKNOWLEDGEMENTS)]


def _outcome(turn: Turn) -> str:
    """What came of this turn's calls, and the answer where they searched."""
    results = turn.prompt.results
    parts = [_confirmation(results), _complaints(results)]
    searches = sorted(
        (r for r in results if r.tool in SEARCHES), key=lambda r: r.tool
    )  # of equals, what was kept apart
    if searches:
        parts.append(_quote(turn, [m for r in searches for m in parse_memories(r.text)]))
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


def _quote(turn: Turn, memories: Sequence[Memory]) -> str:
    """The best memory, quoted with its date and id; of those that disagree with it the newest, then the one before."""
    question = language.question_in(turn.text) or turn.text
    now = Memory("", _day(turn.said), turn.text)
    tellers = {
        line: max((m for m in [now, *memories] if _tells(m, line)), key=_age, default=None) for line in turn.remarks
    }
    held = [Memory("", told_by.date if told_by else "", line) for line, told_by in tellers.items()]
    best = best_memories(question, [*held, *memories])
    if not best:
        return UNKNOWN
    first = next((m for m in best if m in held and _outdates(m, best[0], held)), best[0])
    rivals = [m for m in best if m != first and not m.id.startswith("p") and _disagree(m, first)]
    first, *earlier = sorted([first, *rivals], key=lambda m: _age(tellers.get(m.text) or m), reverse=True)
    if not first.date:
        return told([first.text])
    also = [m.id for m in best[1:3] if m.id and m not in earlier and not (first in held and _tells(m, first.text))]
    more = f" See also {' and '.join(also)}." if also else ""
    if earlier and first not in held and not first.id.startswith("p"):  # what those replaced holds no more
        dated = _quoted(earlier[0], question) if earlier[0].date else told([earlier[0].text])
        more = f" Earlier, {dated[:1].lower()}{dated[1:]}" if earlier[0].date else f" {dated}"
    return f"{_quoted(first, question)}{more}"


def _age(memory: Memory) -> tuple[str, int]:
    """What sorts messages from the oldest to the newest, those of one minute too."""
    number = int(memory.id[1:]) if re.fullmatch(r"m\d+", memory.id) else 0
    return memory.date, number if memory.id else sys.maxsize  # without an id: the message that is being answered


def _quoted(memory: Memory, question: str) -> str:
    where = f" ({memory.id})" if memory.id else ""
    speaker = f", {memory.name} said" if memory.name else ""
    return f'On {memory.date}{where}{speaker}: "{excerpt(memory.text, question)}"'


def _tells(memory: Memory, line: str) -> bool:
    """Whether a memory says what stands in core memory."""
    said = language.plain(line).casefold() in language.plain(memory.text).casefold()
    return said or any(same_value(s.text, line) for s in statements(_told(memory)))


def _told(memory: Memory) -> str:
    return intents.to_remember(memory.text) or memory.text


def _disagree(one: Memory, other: Memory) -> bool:
    """Whether two memories state what cannot hold together."""
    return any(s.disagrees(t) for s in statements(_told(one)) for t in statements(_told(other)))


def _outdates(line: Memory, memory: Memory, held: Sequence[Memory]) -> bool:
    """Whether a line of core memory took the place of what was to be remembered before."""
    if memory.date > line.date or any(_tells(memory, other.text) for other in held):
        return False
    before = _told(memory)
    alike = language.alike(line.text, before) and language.same_subject(line.text, before)
    return alike or language.contradicts(line.text, before) or _disagree(line, memory)


def _summary(prompt: Prompt, request: str) -> str:
    """The first sentences of the user's first statements, or of the questions where there are no statements."""
    limit = re.search(r"at most (\d+) words", request)
    texts = [s.text for s in prompt.said if not s.by_client and not intents.small_talk(s.text)]
    statements = [t for t in texts if not language.question_in(t)]
    verb = "said" if statements else "asked"
    firsts = [next(iter(language.sentences(t)), "")[:200] for t in (statements or texts)[:2]]
    text = f"The user {verb}: " + " ".join(f"“{first}”" for first in firsts) if firsts else "The user said little."
    return " ".join(text.split()[: int(limit[1]) if limit else 60])


# --- the rules, in the order they are tried ---------------------------------------------------------


def _idle_talk(turn: Turn) -> Answer | None:
    """Greetings, thanks, and what others said in a transcript."""
    if is_quoted_talk(turn.text):
        return Answer(_ACKNOWLEDGEMENTS[0])
    if intents.asks_identity(turn.text):
        return Answer(INTRODUCTION)
    if intents.is_greeting(turn.text):
        name = next((f.value for f in facts_of(turn.prompt.blocks) if f.key.casefold() in ("goes by", "name")), "")
        return Answer(f"Hello{' ' + name if name else ''}. {INTRODUCTION}")
    if intents.asks_for_work(turn.text):
        return Answer(WORK)
    reply = intents.small_talk(turn.text)
    return Answer(reply) if reply else None


def _reminder(turn: Turn) -> Answer | None:
    reminder = to_remind(turn.text, turn.said.at)
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


def _standing_rule(turn: Turn) -> Answer | None:
    rule = intents.standing_rule(turn.text)
    if rule is None:
        return None
    block = next((b for b in turn.prompt.blocks if b.label == "rules" and not b.read_only), None)
    if block is None or "core_memory_append" not in turn.tools:
        return _keep(turn, rule)
    if rule in block.value.split("\n"):
        return Answer(f"That rule stands already: {rule}")
    call = ("core_memory_append", {"label": block.label, "content": rule})
    return Answer(f"Noted as a standing rule, for a real model to follow: {rule}", (call,))


def _pinned(turn: Turn) -> Answer | None:
    """The rules block, when asked for it."""
    if not re.match(
        r"(?i)(?:what|which|list|show|tell me)\b[\w' ]*\b(?:my|the|your) (?:standing )?rules\W*$", turn.text
    ):
        return None
    rules = next((b.value.strip() for b in turn.prompt.blocks if b.label == "rules"), "")
    return Answer(f"The standing rules read:\n{rules}" if rules else "There are no standing rules.")


def _remember(turn: Turn) -> Answer | None:
    what = intents.to_remember(turn.text)
    if what is None:
        return None
    facts = extract_facts(what)
    covered = language.stems(" ".join(f"{f.line} {f.sentence}" for f in facts))
    text = what[:1].upper() + what[1:]
    if not facts:
        return _pin(turn, text)
    if len(language.stems(what) - covered) > 2:
        kept = _keep(turn, text)
        edits = CoreEdits(turn).take(facts)
        return Answer(" ".join(filter(None, (kept.text, edits.text()))), (*kept.calls, *edits.calls))
    return CoreEdits(turn).take(facts).answer()


def _pin(turn: Turn, text: str) -> Answer:
    """A text for core memory; for archival memory where it is no plain line or there is no room."""
    edits = CoreEdits(turn)
    if any(same_value(text, line) for line in turn.remarks):
        return Answer(f"I know: {text}")
    said = "" if "\n" in text or parse_line(text) else edits.pin(text)
    return edits.answer(said) if said else _keep(turn, text)


def _keep(turn: Turn, text: str) -> Answer:
    """A text for archival memory."""
    if "archival_memory_insert" not in turn.tools:
        return Answer("I have no archive here; it stays in our conversation.")
    return Answer(f"I will remember: {text}", (("archival_memory_insert", {"content": text}),))


def _forget(turn: Turn) -> Answer | None:
    what = intents.to_forget(turn.text)
    if what is None:
        return None
    known = extract_facts(what)
    lines = [
        line for b, line in lines_of(turn.prompt.blocks) if (f := parse_line(line)) and any(k.repeats(f) for k in known)
    ]
    lines = lines or answering_lines(f"what is {what}", turn.lines)
    wanted = language.stems(what)
    lines = lines or [line for line in turn.remarks if wanted and wanted <= language.stems(line)]
    edits = CoreEdits(turn)
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


def _correction(turn: Turn) -> Answer | None:
    """A bare “no, it's Lisbon”, right after a fact was noted, or “the key is under the mat now” at any time."""
    if CoreEdits(turn).change(turn.text).any:
        return _facts_and_question(turn)
    if extract_facts(turn.text):
        return None
    write, value = turn.prompt.last_write, intents.corrected_value(turn.text)
    if write is None or value is None:
        stated, edits = intents.corrected_statement(turn.text), CoreEdits(turn)
        said = edits.correct(stated[:1].upper() + stated[1:]) if stated else ""
        return edits.answer(said) if said else None
    fact = parse_line(str(write.arguments.get("content") or write.arguments.get("new_content") or ""))
    if fact is None or fact.several:
        return None
    return CoreEdits(turn).take([Fact(fact.key, value)]).answer()


def _facts_and_question(turn: Turn) -> Answer | None:
    """Notes what was stated and answers what was asked; a search takes the text to the next step."""
    edits = CoreEdits(turn)
    for said in turn.prompt.pending[:-1]:
        edits.take(extract_facts(said.text), known=False).change("" if said.by_client else said.text)
    edits.take(extract_facts(turn.text)).change(turn.text)
    question = language.question_in(turn.text)
    if question is None:
        return edits.answer() if edits.any else None
    lines = answering_lines(question, [line for _, line in lines_of(list(edits.blocks.values()))])
    if lines and not edits.refused:
        return Answer("\n".join(filter(None, (edits.text(), told(lines)))), tuple(edits.calls))
    searches = _searches(question, turn.tools)
    if searches:
        return Answer("", (*edits.calls, *searches))
    seen = [Memory("", _day(said), said.text) for said in turn.prompt.said[:-1]]
    return Answer("\n".join(filter(None, (edits.text(), _quote(turn, seen)))), tuple(edits.calls))


def _archived_correction(turn: Turn) -> Answer | None:
    """“No, the spare key is at Eva's”, of what may stand in archival memory: a search for it; then `_superseding`."""
    stated = _stated(turn)
    return Answer("", (("archival_memory_search", {"query": language.search_query(stated)}),)) if stated else None


def _stated(turn: Turn) -> str:
    """What a message corrects and nothing else; empty where archival memory could not be put right."""
    able = {"archival_memory_search", "archival_memory_insert"} <= turn.tools
    asks = language.question_in(turn.text) or extract_facts(turn.text)
    if not able or asks:
        return ""
    changed = [s.text for s in statements(turn.text) if s.changed and not s.denied]
    stated = changed[0] if len(changed) == 1 else intents.corrected_statement(turn.text)
    return stated.rstrip(" .!") if stated and len(language.stems(stated)) > 1 else ""


def _superseding(turn: Turn) -> Answer | None:
    """After the search: the one passage that the user's correction outdates, superseded by its text as it is now.

    Only what the user told before is outdated by them: no document, and nothing that somebody else put there.
    """
    stated, results = _stated(turn), turn.prompt.results
    if not stated or not all(r.ok and r.tool in SEARCHES for r in results):
        return None
    found = [memory for result in results for memory in parse_memories(result.text)]
    outdated = [(m, *change) for m in found if not m.role and not m.more and (change := corrected(m.text, stated))]
    if len(outdated) > 1:
        meant = " or ".join(f"“{old}” ({memory.id})" for memory, old, _ in outdated)
        return Answer(f"That could be about {meant}, so I replaced neither; `agentos memory` does.")
    for memory, old, instead in outdated:
        told_before = [m.text for m in found if m.role == "user"]
        told_before += [said.text for said in turn.prompt.said[:-1] if not said.by_client]
        if any(states(text, old) for text in told_before):
            call = ("archival_memory_insert", {"content": instead, "replaces": memory.id})
            return Answer(f"Corrected in archival memory: {stated} (it was: {old})", (call,))
        if "conversation_search" in turn.tools and all(r.tool != "conversation_search" for r in results):
            return Answer("", (_searches(old, turn.tools)[0],))
    return Answer(_acknowledgement(turn))


def _doubted(turn: Turn) -> Answer | None:
    """What stands in core memory against what was just said, which only a word of change replaces."""
    said = list(statements(turn.text))
    lines = [line for line in turn.remarks if (old := read(line)) and any(s.disagrees(old) for s in said)]
    if not lines:
        return None
    held = " and ".join(f"“{line.rstrip(' .')}”" for line in lines)
    return Answer(
        f"I have noted: {held}. If that has changed, say so with “now”; “forget that …” takes out what no longer holds."
    )


def _day(said: Said) -> str:
    return f"{said.at:%Y-%m-%d %H:%M}" if said.at else "an earlier day"


def _searches(question: str, tools: frozenset[str]) -> list[NamedCall]:
    query = language.search_query(question)
    calls: list[NamedCall] = [
        ("conversation_search", {"query": query, "roles": ["user"]}),
        ("archival_memory_search", {"query": query}),
    ]
    return [call for call in calls if call[0] in tools]


_RULES: tuple[Callable[[Turn], Answer | None], ...] = (
    _idle_talk, _correction, _reminder, _pinned, _standing_rule, _remember, _forget, _facts_and_question,
    _doubted, _archived_correction,
)  # fmt: skip
