"""English for the offline model: sentences, questions, the words that matter, and the best memory.

Pure functions over text: no state, no model. What the user states about themself is in `facts`.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import takewhile


def listed(text: str) -> list[str]:
    """The words of a list that is written as running text."""
    return text.split()


_OPENER = (
    r"(?i)(?:(?:hi|hello|hey|hiya|good (?:morning|afternoon|evening|day)|well|so|and|but|also|oh|ok|okay|yes|yeah|yep"
    r"|no|nope|nah|actually|sorry|btw|by the way|fyi|note(?: that)?|correction|update|just so you know"
    r"|for the record|in fact|as you know|anyway|thanks|thank you|please|now|nowadays|these days|currently|wait"
    r"|right|sure|again|hmm|um|agentos|nice to meet you|today|recently|last (?:week|month|year)|to be clear"
    r"|because|remember|oops|cool|great|since you ask)\b[\s,.:!–—-]*)++(?=\S)"
)
_SENTENCE_END = (
    r"(?<=[.!?…])(?<!\bSt\.)(?<!\bDr\.)(?<!\bMr\.)(?<!\bMs\.)(?<!\bMrs\.)(?<!\be\.g\.)(?<!\b[A-Z]\.)[\"'”)]*\s+"
    r"|\n+|;\s+"
)


def plain(text: str) -> str:
    """`text` with straight apostrophes and single blanks within lines."""
    return re.sub(r"[ \t\u00a0]+", " ", text.replace("’", "'").replace("‘", "'")).strip()


def sentences(text: str) -> list[str]:
    """The sentences of `text`, in order."""
    return [part.strip() for part in re.split(_SENTENCE_END, text) if part and part.strip()]


def without_opener(sentence: str) -> str:
    """`sentence` without the greetings and fillers it begins with."""
    opened = re.match(_OPENER, sentence)
    return sentence[opened.end() :] if opened else sentence


_AUX = r"(?:do|does|did|is|are|was|were|am|can|could|would|will|should|have|has|had|may|shall)"
_QUESTION = (
    rf"(?i)(?:(?:what|where|when|why|how|which|whose|whom)(?:'s|'re|'d| {_AUX}\b)|who\b|whose\b|how (?:many|much|old"
    rf"|long|far|often|tall|big)\b|(?:what|which) \w+ (?:\w+ ){{0,2}}{_AUX}\b|{_AUX}(?:n't)? (?:i|you|we|he|she|it"
    rf"|they|my|your|our|his|her|the|there|this|that|these|those)\b"
    r"|(?:is|are|was|were|do|does|did) (?:a|an|any)\b|tell me|can you tell|do you (?:know|remember|recall)"
    r"|remind me (?:what|who|where|when|how|which|why|of)"
    r"|what about|how about|any idea)"
)


def is_question(text: str) -> bool:
    """Whether one sentence asks something."""
    return text.rstrip("\"'”) ").endswith("?") or bool(re.match(_QUESTION, without_opener(plain(text))))


def question_in(text: str) -> str | None:
    """The last question that `text` asks, or None."""
    asked = [s for s in sentences(plain(text)) if is_question(s)]
    return asked[-1] if asked else None


# --- words ------------------------------------------------------------------------------------------

_STOP = frozenset(
    listed(
        "a an the and or but if so as at by for from in into of on to with about over under after before than then "
        "i i'm i've i'd i'll me my mine myself you your yours we us our ours he him his she her hers it its they "
        "them their theirs this that these those there here who whom whose what which when where why how whats "
        "what's who's where's when's how's is are was were am be been being do does did done doing don't didn't "
        "doesn't isn't aren't wasn't weren't have has had having can could would should will shall may might must "
        "not no nor any some all again ever just also too very really tell say said know remember recall remind "
        "mention mentioned please think thing things something anything up out off hi hello hey well oh yes yeah "
        "now still more most much many long often get got let"
    )
)
_FORMS = (
    "go went gone goes going, buy bought, eat ate eaten, see saw seen, take took taken, run ran, meet met, make made, "
    "write wrote written, drive drove driven, fly flew flown, read read, swim swam swum, win won, lose lost, give "
    "gave given, come came, feel felt, find found, leave left, teach taught, begin began begun, bring brought, "
    "catch caught, choose chose chosen, draw drew drawn, fall fell fallen, grow grew grown, hold held, keep kept, "
    "pay paid, sing sang sung, sell sold, send sent, sleep slept, spend spent, speak spoke spoken, steal stole "
    "stolen, wear wore worn, break broke broken, build built, hear heard, lend lent, ride rode ridden, child "
    "children kid kids, person people, mother mom mum, father dad, photo picture pictures photos, job work works "
    "worked working employer, name called named, favourite favorite, colour color colors, live home"
)
_IRREGULAR = {form: base for base, *forms in map(str.split, _FORMS.split(", ")) for form in forms}
"""Forms that no ending explains, and the few synonyms that questions about people turn on."""
_PAST = {base: form for form, base in reversed(_IRREGULAR.items())}
_WORD = r"[^\W_]+(?:['.@_/-][^\W_]+)*"


def words(text: str) -> list[str]:
    """The words of `text` that carry meaning, as written."""
    return [
        w
        for w in re.findall(_WORD, plain(text))
        if w.lower() not in _STOP and w.lower().removesuffix("'s") not in _STOP
    ]


@lru_cache(maxsize=4096)
def stem(word: str) -> str:
    """A word's common form: lower case, without the usual English endings."""
    word = word.lower().removesuffix("'s").removesuffix("'")
    word = _IRREGULAR.get(word, word)
    for ending, instead in (("ies", "y"), ("sses", "ss"), ("ing", ""), ("ed", ""), ("ly", ""), ("s", "")):
        if (
            word.endswith(ending)
            and len(word) - len(ending) >= 3
            and not (ending == "s" and word.endswith(("ss", "us", "is")))
        ):
            word = word.removesuffix(ending) + instead
            if not instead and len(word) > 3 and word[-1] == word[-2] and word[-1] not in "ls":
                word = word[:-1]
            break
    return word[:-1] if len(word) > 3 and word.endswith("e") else word


def stems(text: str) -> set[str]:
    """The common forms of the words of `text` that carry meaning."""
    return {_IRREGULAR.get(s, s) for s in map(stem, words(text))}


def search_query(question: str) -> str:
    """What to search for: the question's own words, and other forms of irregular ones."""
    found = words(question) or re.findall(_WORD, question)
    others = [_IRREGULAR.get(w.lower()) or _PAST.get(w.lower()) for w in found]
    return " ".join(dict.fromkeys([*found, *(o for o in others if o)]))[:300] or question.strip()[:300]


# --- statements about the same thing ----------------------------------------------------------------

_MANY = r"(?i)\b(?:likes?|loves?|enjoys?|speaks?|plays?|owns?|allergic|fluent|interested|good|afraid|known)\b"
"""What may hold of one thing several times, each time with another value."""
_BEFORE = r"(?:in|on|at|by|under|behind|near|above|below|as)\b"
_PLACED = rf"(?i)(?:.+ )?(?:is|are|lives|works) (?!an? |the )(?:.+ )?{_BEFORE}.*"
_NAMED = r"(?P<subject>.*\b[a-z][\w'-]*) (?:is|are)"
_VALUE = rf"(?!(?:an?|the|for|from|to|with|{_BEFORE})\b)\S+(?: \S+){{0,2}}"


def overlap(one: str, other: str) -> float:
    """The share of the shorter statement's words that are in both, 0 to 1; two words in common may be chance."""
    a, b = stems(one), stems(other)
    return len(a & b) / min(len(a), len(b)) if len(a & b) > 2 else 0.0


def alike(one: str, other: str) -> bool:
    """Whether two statements have so much in common that one may be outdated by the other."""
    return overlap(one, other) >= 0.5


def contradicts(new: str, old: str) -> bool:
    """Whether `new` says what `old` says of the same thing, with another value at the end.

    They begin alike, and what they begin with asks for one value: `the key is under the ...`, `the code is ...`,
    or nearly all of the statement.
    """
    opening, values = _opening(new, old)
    if not all(values) or not stems(opening) or re.search(_MANY, opening):
        return False
    named = re.fullmatch(_NAMED, opening)
    code = named and len(stems(named["subject"])) > 1 and all(re.fullmatch(_VALUE, value) for value in values)
    return bool(code or re.fullmatch(_PLACED, opening)) or overlap(new, old) >= 0.7


def same_subject(one: str, other: str) -> bool:
    """Whether two statements begin with the same thing."""
    return bool(stems(_opening(one, other)[0]))


def _opening(one: str, other: str) -> tuple[str, tuple[str, str]]:
    """What two statements begin with, and how each goes on."""
    a, b = (re.findall(_WORD, without_opener(plain(text))) for text in (one, other))
    same = sum(1 for _ in takewhile(lambda pair: pair[0].lower() == pair[1].lower(), zip(a, b, strict=False)))
    return " ".join(a[:same]), (" ".join(a[same:]), " ".join(b[same:]))


# --- the best memory --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Memory:
    """One hit of a search, as its result shows it."""

    id: str
    date: str
    text: str
    name: str = ""
    role: str = ""


def parse_memories(result: str) -> list[Memory]:
    """The hits of one search result; what is no hit is skipped."""
    found = []
    for line in result.split("\n"):
        try:
            values = json.loads(line) if line.startswith("{") else None
        except ValueError:  # clipped in the middle, or too deep to be a hit
            continue
        except RecursionError:
            continue
        if isinstance(values, dict) and values.get("id") and values.get("text"):
            found.append(Memory(*(str(values.get(k) or "") for k in ("id", "date", "text", "name", "role"))))
    return found


def best_memories(question: str, memories: Sequence[Memory]) -> list[Memory]:
    """The memories that answer `question`, best first; those without a word of it are left out.

    A word weighs more when few of the memories have it, and names and numbers more still. Of nearly
    equal ones the newest wins: what was said last about a thing holds.
    """
    usable = [m for m in _distinct(memories) if _states_something(m, question)]
    texts = [stems(f"{m.name} {m.text}") for m in usable]
    wanted = _weights(question)
    rarity = {w: math.log(1 + len(usable) / max(1, sum(w in t for t in texts))) for w in wanted}
    fit = _expected(question)
    scored = []
    for memory, found in zip(usable, texts, strict=True):
        score = sum(weight * rarity[w] for w, weight in wanted.items() if w in found)
        if score:
            length = 1 + 0.02 * math.log(1 + len(memory.text))  # of two that say it, the shorter says it more plainly
            scored.append((score * (1.25 if fit and fit.search(memory.text) else 1.0) / length, memory))
    if not scored:
        return []
    top = max(score for score, _ in scored)
    scored.sort(key=lambda pair: min(pair[0], 0.95 * top), reverse=True)  # stable: nearly equal ones stay newest first
    return [memory for score, memory in scored if score >= 0.5 * top]


def _distinct(memories: Sequence[Memory]) -> list[Memory]:
    """The memories, the newest first, each text once."""
    found: dict[str, Memory] = {}
    for memory in sorted(memories, key=lambda m: m.date, reverse=True):
        found.setdefault(" ".join(memory.text.split()), memory)
    return list(found.values())


def _weights(question: str) -> dict[str, float]:
    """How much each word of the question counts."""
    first = re.search(_WORD, question)
    weights: dict[str, float] = {}
    for word in words(question):
        strong = any(c.isdigit() for c in word) or (word[0].isupper() and not (first and word == first.group()))
        common = stem(word)
        weights[_IRREGULAR.get(common, common)] = 2.0 if strong else 1.0
    return weights


def _states_something(memory: Memory, question: str) -> bool:
    """Whether a memory is a statement, and not a greeting or the question itself."""
    text = plain(memory.text)
    return (
        memory.role not in ("assistant", "tool")
        and text.casefold() != plain(question).casefold()
        and not small_talk(text)
        and not to_forget(text)
        and not all(is_question(s) for s in sentences(text) or [text])
    )


_WHEN = (
    r"\b(?:yesterday|today|tomorrow|tonight|last|next|ago|since|monday|tuesday|wednesday|thursday|friday|saturday"
    r"|sunday|january|february|march|april|june|july|august|september|october|november|december|weekend|week|month"
    r"|year|morning|\d{4}|\d+(?:st|nd|rd|th)|o'clock)\b"
)


def _expected(question: str) -> re.Pattern[str] | None:
    """What an answer to this kind of question tends to hold."""
    asked = question.lower()
    if "when" in asked or "what date" in asked or "which day" in asked:
        return re.compile(_WHEN, re.IGNORECASE)
    if "how many" in asked or "how much" in asked or "how old" in asked or "number" in asked:
        return re.compile(r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|dozen|couple)\b", re.IGNORECASE)
    if "where" in asked:
        return re.compile(r"\b(?:in|at|to|from|near) (?:the )?[A-Z]")
    return None


def excerpt(text: str, question: str, most: int = 420) -> str:
    """The part of `text` that fits the question best, in at most `most` characters, on one line."""
    text = " ".join(text.split())
    if len(text) <= most:
        return text
    wanted, parts = stems(question), sentences(text)
    best = max(range(len(parts)), key=lambda i: (len(wanted & stems(parts[i])), -i))
    shown = " ".join(parts[best : best + 3])
    return shown if len(shown) <= most else shown[:most].rsplit(" ", 1)[0] + " …"


# --- what else a message may want -------------------------------------------------------------------

_GREETING = (
    r"(?i)(?:hi|hello|hey|hiya|howdy|yo|greetings|good (?:morning|afternoon|evening|day))(?: there| again| agentos"
    r"| friend| everyone)*(?:[,!. ]+(?:how are you(?: doing)?(?: today)?|how's it going|what's up"
    r"|nice to meet you))?[\s!.,?:)]*"
)
_IDENTITY = (
    r"(?i)(?:(?:and |so |but )?(?:who|what)(?: exactly)? are you\b|what(?:'s| is) your name|(?:are|aren't) you (?:an? "
    r"|the )?(?:real|ai|bot|robot|human|person|language model|llm|model|machine|chatgpt|gpt|claude|offline|alive"
    r"|intelligent|agentos|there)|what can you do|how do you work|help[\s!?.]*$|/?help$|(?:what|which) (?:ai "
    r"|language )?model|what is (?:this|agentos)\b|tell me about yourself|introduce yourself|do you (?:use"
    r"|have) an? (?:llm|language model|model))"
)
_SMALL_TALK = (
    (r"(?:ok |okay |great |many |no,? )?(?:thanks|thank you|thx|cheers)(?: a lot| so much| very much"
        r"| again)?", "You are welcome."),
    (r"(?:good)?bye|see you(?: later| soon| tomorrow)?|good night|ciao|cya|talk to you later", "Goodbye. What"
        " you told me stays here."),
    (r"(?:so )?how are you(?: doing)?(?: today)?|how's it going|what's up|are you (?:ok|okay|well)",
     "I am running, and that is all a few rules can feel. How are you?"),
    (r"(?:ok|okay|k|alright|all right|sure|fine|good|great|nice|cool|perfect|yes|no|yeah|yep|nope|i see|got it"
        r"|lol|ha(?:ha)+|wow|right|exactly|indeed"
     r"|never ?mind|forget it|forget about it|that's (?:all|fine|ok|great|right)|well done|good (?:bot"
     r"|job))", "All right."),
)  # fmt: skip


_TASK = (
    r"(?i)(?:(?:please|can you|could you|would you|now)[, ]+)*"
    r"(?:write|compose|translate|draw|paint|code|program|calculate|compute|explain|sing|generate|summari[sz]e|rewrite"
    r"|rephrase|proofread|invent|tell (?:me )?(?:a|an|another|some) (?:\w+ )?(?:joke|story|poem|riddle|tale)s?)\b"
    r"(?! down\b)"
)


def asks_for_work(text: str) -> bool:
    """Whether a text asks for something that only a language model can make."""
    return bool(re.match(_TASK, without_opener(plain(text))))


def is_greeting(text: str) -> bool:
    """Whether a text only greets."""
    return bool(re.fullmatch(_GREETING, plain(text)))


def asks_identity(text: str) -> bool:
    """Whether a text asks who or what is answering."""
    return any(re.match(_IDENTITY, without_opener(part)) for part in sentences(plain(text)[:300]))


def small_talk(text: str) -> str | None:
    """The reply to a text that is small talk and nothing else."""
    text = plain(text)
    if len(text) > 80:
        return None
    bare = text.rstrip(" .!?:;)(")
    for candidate in (bare, without_opener(bare)):
        for pattern, reply in _SMALL_TALK:
            if re.fullmatch(rf"(?:{pattern})(?:,? agentos)?", candidate, re.IGNORECASE):
                return reply
    return "Hello." if is_greeting(text) else None


_REMEMBER = (
    r"(?is)(?:(?:please|also|and|ok|okay|now|hey|hi|can you|could you|i want you to|you should|so)[, ]+)*(?:remember"
    r"|note|take note|make a note|keep in mind|don't forget|do not forget|never forget|write down"
    r"|(?:save|store)(?=:| (?:this|that|the|my)\b))\b"
    r"(?! (?:when|the time|that time|how|me\b|us\b|what|who|where|why|if|whether))(?: this| that"
    r"| down)?(?: for (?:me|later))?[\s:,]*(?:that )?(?P<what>.+)"
)
_RULE = (
    r"(?is)(?:please[, ]+)?(?:(?:from now on|in (?:the )?future|going forward|as a rule)\b.+|always (?!a |an |the "
    r"|happy|glad|been|had|nice|good|fun|great|so |wanted|loved|thought|in |on |at )(?!\w+(?:ing|ed)\b)\w+.*"
    r"|never (?!mind|heard|been|seen|had|knew|thought|tried|said|again|a |the |in |too|did|was|got|went|met|ever"
    r"|know|forget|felt)(?!\w+(?:ing|ed)\b)\w+ .+|(?:answer|reply|write|speak|call|use|keep|talk|be|address"
    r"|respond)\b.+\b(?:from now on|in future|always|every time))"
)
_FORGET = (
    r"(?is)(?:(?:please|can you|could you|ok|now)[, ]+)*(?:forget|delete|erase|remove)\b(?: (?:about|that|the fact that"
    r"|everything about))*(?P<what> .+?)(?: from (?:your |core )?memory)?[.!?\s]*"
)


def to_remember(text: str) -> str | None:
    """What a message asks to be remembered, or None."""
    text = plain(text)
    found = None if text.endswith("?") else re.fullmatch(_REMEMBER, text)
    return found["what"].strip() if found else None


def standing_rule(text: str) -> str | None:
    """An instruction for every later turn, or None."""
    text = plain(text)
    return text if len(text) <= 300 and not text.endswith("?") and re.fullmatch(_RULE, text) else None


def to_forget(text: str) -> str | None:
    """What a message asks to be forgotten, or None."""
    found = re.fullmatch(_FORGET, plain(text)[:300])
    return found["what"].strip() if found else None


_MENDING = r"(?i)(?:(?:no|nope|sorry|wrong|oops|actually|correction|not quite|wait|i mean)[,.:! –—-]+)+"
_CORRECTION = (
    rf"{_MENDING}(?:i mean[t]? |it's "
    r"|it is |that's |that is |make that |it should be |should be )?(?P<v>[^\W_][\w' .-]{0,40}?)(?:,? (?:not"
    r"|instead of) .+)?[.!\s]*"
)


def corrected_value(text: str) -> str | None:
    """The value in a bare correction such as "no, it's Lisbon", or None."""
    found = re.fullmatch(_CORRECTION, plain(text))
    value = found["v"].strip() if found else ""
    plausible = 0 < len(value.split()) <= 3 and not (set(value.lower().split()) & _STOP)
    return value if plausible and not small_talk(value) and not is_question(text) else None


def corrected_statement(text: str) -> str | None:
    """The sentence that a correction such as "Actually, the key is under the mat." states, or None."""
    found = re.match(_MENDING, plain(text))
    said = sentences(plain(text)[found.end() :]) if found else []
    return said[0] if len(said) == 1 and not is_question(said[0]) else None


# --- reminders --------------------------------------------------------------------------------------

_NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
            "nine": 9, "ten": 10, "twelve": 12, "fifteen": 15, "twenty": 20, "thirty": 30, "sixty": 60}  # fmt: skip
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SPAN = (
    r"(?:half an hour|(?:\d{1,5} ?|(?:an?|one|two|three|four|five|six|seven|eight|nine|ten|twelve|fifteen"
    r"|twenty|thirty|sixty) )"
    r"(?:seconds?|secs?|minutes?|mins?|hours?|hrs?|days?|weeks?|[smhd])\b)"
)
_IN = rf"(?:in|for) (?P<span>{_SPAN}(?:,? (?:and )?{_SPAN})?)"
_AT = (
    r"(?P<tomorrow>tomorrow ?)?(?:(?:on |at )?(?P<day>\d{4}-\d\d-\d\d)[T ]?)?(?:(?:at"
    r" )?(?P<hour>\d{1,2})(?::(?P<minute>\d\d)(?::\d\d)?)? ?(?P<half>am|pm)?(?P<offset>Z|[+-]\d\d:\d\d)?)?"
)
_REMIND = (
    r"(?is)(?:(?:please|can you|could you|ok|and|also|hey)[, ]+)*(?:remind me|wake me(?: up)?|set a (?:timer"
    r"|reminder))\b(?P<rest>.*)"
)


@dataclass(frozen=True)
class Reminder:
    """A timer that the user asked for."""

    when: str
    """A duration such as 1h30m, or an ISO time with offset; empty where no usable time was named."""
    note: str


def to_remind(text: str, said_at: datetime | None) -> Reminder | None:
    """The reminder that a message asks for, its local times counted from `said_at`; None for any other message."""
    found = re.fullmatch(_REMIND, plain(text)[:500])
    if not found or re.match(r" (?:what|who|where|when|how|which|why|of)\b", found["rest"], re.IGNORECASE):
        return None
    rest = found["rest"].strip(" .!?")
    for pattern in (_IN, _AT):
        for place in re.finditer(pattern, rest, re.IGNORECASE):
            when = _when(place, said_at)
            if when:
                note = f"{rest[: place.start()].strip(' ,')} {rest[place.end() :].strip(' ,')}".strip()
                return Reminder(
                    when,
                    re.sub(r"^(?:(?:to|about|that|for)\b\s*)+|\s*(?:\bat|\bon)$", "", note, flags=re.I).strip()
                    or "the time has come",
                )
    return Reminder("", rest)


def _when(found: re.Match[str], said_at: datetime | None) -> str:
    """A matched time as `set_timer` takes it; empty when it is none, or is past."""
    values = found.groupdict()
    if values.get("span"):
        return _duration(sum(_seconds(part) for part in re.findall(_SPAN, values["span"], re.IGNORECASE)))
    timed = values["hour"] and (
        values["minute"] or values["half"] or values["day"] or values["tomorrow"] or "at " in found.group()
    )
    if not (timed or values["tomorrow"] or values["day"]):
        return ""
    try:
        return _until(values, said_at)
    except (ValueError, OverflowError):  # no such day or hour
        return ""


def _until(values: dict[str, str | None], said_at: datetime | None) -> str:
    hour = int(values["hour"] or 9)
    if values["half"]:
        hour = hour % 12 + (12 if values["half"].lower() == "pm" else 0)
    clock = f"{hour:02d}:{values['minute'] or '00'}:00"
    if values["day"] and values["offset"]:
        return datetime.fromisoformat(f"{values['day']}T{clock}{values['offset']}").isoformat()
    if said_at is None:
        return ""
    due = datetime.fromisoformat(f"{values['day'] or said_at.date().isoformat()}T{clock}")
    if values["tomorrow"] or (not values["day"] and due <= said_at):
        due += timedelta(days=1)
    return _duration(int((due - said_at).total_seconds()))


def _seconds(span: str) -> int:
    if span.lower().startswith("half"):
        return 1800
    number, unit = re.fullmatch(
        r"(\d+|[a-z]+) ?([a-z]+)",
        span.lower(),
    ).groups()  # type: ignore[union-attr]  # a _SPAN
    return (int(number) if number.isdigit() else _NUMBERS[number]) * _SECONDS[unit[0]]


def _duration(seconds: int) -> str:
    parts, left = [], seconds
    for unit in "dhms":
        count, left = divmod(left, _SECONDS[unit])
        parts.append(f"{count}{unit}" if count else "")
    return "".join(parts) if seconds > 0 else ""
