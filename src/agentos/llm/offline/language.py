"""English for the offline model: sentences, questions, the words that matter, and statements about one thing.

Pure functions over text: no state, no model. What the user states about themself is in `facts`.
"""

import re
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

STOP_WORDS = frozenset(
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
WORD = r"[^\W_]+(?:['.@_/-][^\W_]+)*"


def words(text: str) -> list[str]:
    """The words of `text` that carry meaning, as written."""
    return [
        w
        for w in re.findall(WORD, plain(text))
        if w.lower() not in STOP_WORDS and w.lower().removesuffix("'s") not in STOP_WORDS
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


def root(word: str) -> str:
    """The form that a word has in common with its other forms, irregular ones too."""
    common = stem(word)
    return _IRREGULAR.get(common, common)


def stems(text: str) -> set[str]:
    """The common forms of the words of `text` that carry meaning."""
    return set(map(root, words(text)))


def search_query(question: str) -> str:
    """What to search for: the question's own words, and other forms of irregular ones."""
    found = words(question) or re.findall(WORD, question)
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
    a, b = (re.findall(WORD, without_opener(plain(text))) for text in (one, other))
    same = sum(1 for _ in takewhile(lambda pair: pair[0].lower() == pair[1].lower(), zip(a, b, strict=False)))
    return " ".join(a[:same]), (" ".join(a[same:]), " ".join(b[same:]))
