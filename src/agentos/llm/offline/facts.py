"""What the user states about themself: the offline model's rules for core memory.

A sentence becomes a fact only where it states one plainly, in the first person, at the start of a
clause, in a form of the tables below. Questions, conditions, wishes, reports of what others said,
quotations, play and passing moods are left alone: a fact missed can still be found in the
conversation, a wrong one in core memory misleads for good.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agentos.llm.offline.language import is_question, plain, sentences, stems, without_opener
from agentos.llm.offline.rules import KINDS, LIKING, NOW, PASSING, PRONOUN, Rule, rules, tidy

MOST_FACTS = 6
"""Facts taken from one message."""
LONGEST_MINED = 600
"""Characters; a longer text is material that was pasted, not something said about oneself."""

_SENTENCES = {
    "name": "your name is {}", "goes by": "you go by {}", "home": "you live in {}", "from": "you are from {}",
    "born": "you were born {}", "age": "you are {}", "employer": "you work for {}", "field": "you work in {}",
    "likes": "you like {}", "dislikes": "you do not like {}", "prefers": "you prefer {}",
    "allergy": "you are allergic to {}", "does not eat": "you do not eat {}", "does not drink": "you do not drink {}",
    "has": "you have {}", "health": "you have {}", "marital status": "you are {}", "diet": "you are {}",
    "is": "you are {}", "nationality": "you are {}", "speaks": "you speak {}", "plays": "you play {}",
    "studies": "you study {}", "grew up in": "you grew up in {}",
}  # fmt: skip
_SEVERAL = frozenset(
    (
        "likes",
        "dislikes",
        "prefers",
        "allergy",
        "has",
        "health",
        "is",
        "speaks",
        "plays",
        "does not eat",
        "does not drink",
    )
)
"""Keys of which several lines may stand side by side."""
_OPPOSITE = {"likes": "dislikes", "dislikes": "likes"}


@dataclass(frozen=True)
class Fact:
    """Something the user said about themself, as a line of core memory."""

    key: str
    value: str

    @property
    def line(self) -> str:
        """The line that stands in the block."""
        return f"{self.key}: {self.value}"

    @property
    def sentence(self) -> str:
        """The fact said to the user, without capital and full stop."""
        form = _SENTENCES.get(self.key.casefold(), f"your {self.key[:1].lower()}{self.key[1:]} is {{}}")
        return form.format(self.value)

    @property
    def several(self) -> bool:
        """Whether other values may stand beside this one."""
        return self.key.casefold() in _SEVERAL

    def replaces(self, other: "Fact") -> bool:
        """Whether `other` cannot hold together with this one."""
        if self.several:
            opposite = _OPPOSITE.get(self.key.casefold())
            return same_key(other.key, opposite or "") and same_value(other.value, self.value)
        return same_key(self.key, other.key) and not same_value(self.value, other.value)

    def repeats(self, other: "Fact") -> bool:
        """Whether `other` says the same."""
        return same_key(self.key, other.key) and same_value(self.value, other.value)


def parse_line(line: str) -> Fact | None:
    """The fact that a line of core memory holds; None for free text."""
    key, colon, value = line.strip().lstrip("-* ").partition(": ")
    return Fact(key.strip(), value.strip()) if colon and value.strip() and len(key) <= 40 else None


def same_key(a: str, b: str) -> bool:
    """Whether two keys name the same thing, in either spelling."""
    return _plain_key(a) == _plain_key(b)


def same_value(a: str, b: str) -> bool:
    """Whether two values differ in nothing but case, articles and punctuation."""
    return _plain_value(a) == _plain_value(b)


def _plain_key(key: str) -> str:
    key = key.casefold().replace("color", "colour").replace("favorite", "favourite")
    return re.sub(r"\b(?:mum|mom)\b", "mother", re.sub(r"\bdad\b", "father", key))


def _plain_value(value: str) -> str:
    return " ".join(w for w in re.findall(r"\w+", value.casefold()) if w not in ("a", "an", "the"))


_PLAY = (
    r"(?i)\b(?:imagine|pretend|suppose|assuming|hypothetical\w*|role-?play\w*|let's say|say i'm|act as|kidding|joking"
    r"|jk|translate|rewrite|rephrase|proofread|paraphrase|summari[sz]e|lyrics|fictional|for example|e\.g"
    r"|for instance|(?:in|for) (?:my|the|a|this|our) (?:story|novel|dream|game|book|movie|film|poem|song|play"
    r"|essay)|(?:write|draft|compose) (?:me |up )?(?:a|an|the|my|some)|my character|once upon a time|not true"
    r"|reads?:|says:|wrote:|said:)(?!\w)"
)
_HEDGE = (
    r"(?i)\b(?:if|unless|would|could|should|might|maybe|perhaps|wish|hope|whether|as though|used to|when i was"
    r"|i thought|dream\w*|almost|nearly|probably|supposedly|apparently|not sure|guess|until|till|says?|said|told"
    r"|claims?|claimed|wrote|asked|heard|according to|someday|one day|except|pretending|sarcas\w+|as if|never said"
    r"|i'd|i'll|going to|gonna|want to|wanna|will|used|instead of)\b"
)
_SPEAKER = r"(?m)^[ \t>*_]*[^\W\d_][\w'’.-]*(?: [\w'’.()-]+){0,3}:(?:\s|$)"
_NOT_SPEAKER = (
    r"(?i)^[ \t]*(?:fyi|note|ps|p\.s\.|update|correction|btw|by the way|hi|hey|hello|also|facts?|reminder"
    r"|remember(?: this)?|important|question|about me|i(?: just|'ve| have)* moved)\s*:"
)
_QUOTED = r"\"([^\"\n]*)\"|“([^”\n]*)”|«([^»\n]*)»|(?<![\w])'([^'\n]+)'(?![\w])|`([^`\n]*)`"
_CLAUSE = (
    r"(?i),?\s+(?:and|but|so|while|plus)\s+(?=(?:i|i'm|i've|my|call me)\b)"
    r"|,\s*(?=(?:i|i'm|i've|my|call me)\b)|\s+[–—-]\s+|(?<=\bmoved):\s+(?=i\b)"
)
_SHARED_SUBJECT = r"(?i),?\s+and\s+(?=(?:now |also |currently )?(?:live|work|have|speak|play|moved|love|like|hate)\b)"

_BOTH = r"(?i)i (?:\w+ )?work ((?:at|for) .+) (as an? .+)"


def is_quoted_talk(text: str) -> bool:
    """Whether a line begins like a transcript (`Name: ...`): somebody else's words."""
    return any(not re.match(_NOT_SPEAKER, line.group()) for line in re.finditer(_SPEAKER, text))


def extract_facts(text: str) -> list[Fact]:
    """What `text` plainly says about its writer, at most `MOST_FACTS`; the last word on a single-valued key wins."""
    facts: dict[str, Fact] = {}
    for sentence in plainly_stated(text):
        for clause in _split(sentence):
            fact = _fact(clause)
            if fact:
                facts[_plain_key(fact.line if fact.several else fact.key)] = fact
    return list(facts.values())[:MOST_FACTS]


def plainly_stated(text: str) -> list[str]:
    """The sentences that the writer states as their own; a quotation of several words in them is `\\x1f`."""
    if len(text) > LONGEST_MINED or is_quoted_talk(text) or "```" in text:
        return []
    text = re.sub(_QUOTED, _short_quote, plain(text))
    lines = [] if re.search(_PLAY, text) else text.splitlines()
    said = (part for line in lines if not line.lstrip().startswith((">", "|", "#")) for part in sentences(line))
    return [sentence for sentence in said if not is_question(sentence) and not re.search(_HEDGE, sentence)]


def _short_quote(found: re.Match[str]) -> str:
    """A quoted name stays; any other quotation is not the writer's own statement."""
    inner = next(group for group in found.groups() if group is not None)
    return inner if len(inner.split()) <= 3 and not re.search(PRONOUN, inner) else "\x1f"


def _split(sentence: str) -> Iterator[str]:
    for part in re.split(_CLAUSE, without_opener(sentence)):
        clause = without_opener(part)
        shared = re.match(rf"i\b(?! {NOW}{LIKING})", clause, re.IGNORECASE)
        own, *others = re.split(_SHARED_SUBJECT, clause) if shared else [clause]
        both = re.fullmatch(_BOTH, own)
        yield from (f"I work {both[1]}", f"I work {both[2]}") if both else (own,)
        yield from (f"I {other}" for other in others)


def _fact(clause: str) -> Fact | None:
    clause = clause.strip().rstrip(".!… ")
    if len(clause) > 160:
        return None
    for rule, pattern in rules():
        found = pattern.fullmatch(clause) or pattern.fullmatch(tidy(clause))
        if found:
            value = _value(rule, clause, found["v"])
            if value:
                key = rule.key.format(k=" ".join(found["k"].lower().split())) if "{k}" in rule.key else rule.key
                return Fact(key[:1].upper() + key[1:], value)
    return None


def _value(rule: Rule, clause: str, raw: str) -> str | None:
    if not rule.event and re.search(PASSING, clause):
        return None
    value = tidy(raw)
    if not value or len(value) > 80 or len(value.split()) > 10 or re.search(PRONOUN, value):
        return None
    if re.match(r"(?:not|never|no longer)\b", value, re.IGNORECASE) or re.search(
        r"[\x00-\x1f?<>{}\[\]|]|https?:", value
    ):
        return None
    return KINDS[rule.kind](value)


# --- questions that core memory answers -------------------------------------------------------------

_TOPICS = (
    (r"\bwhat(?:'s| is| was) my (?:full |first |own )?name\b|who am i\b|what am i called|what do you call me"
        r"|my name is what|what is my name", r"name|goes by"),
    (r"where (?:do|am|did|have)? ?i(?:'m)? (?:now |currently |still )?(?:live|living|based|home|moved?)|(?:what"
        r"|which) (?:city|town|country|place) (?:do|am) i (?:live|in)|(?:what|where)(?:'s| is) my (?:home"
        r"|city)\b|do i (?:still )?live", r"home"),
    (r"where (?:am i|i am|do i come) (?:originally )?from|where did i grow up|where was i born",
     r"from|born|grew up in|hometown"),
    (r"(?:where|who|what company|which company) (?:do|am) i (?:now |currently )?(?:work|employed)|who (?:is"
        r"|do i have as) my employer|my employer", r"employer|field|job|company"),
    (r"what do i do(?: for (?:a living|work))?\W*$|what(?:'s| is) my (?:job|profession|occupation|work)\b"
        r"|what do i work|what am i working as", r"job|employer|field"),
    (r"how old am i|what(?:'s| is) my age", r"age|born|birthday"),
    (r"(?:when|what)(?:'s| is| was) my (?:birthday|birth date|date of birth)|what is my birthday"
        r"|when was i born", r"birthday|born"),
    (r"what (?:else |things |all )?do i (?:really )?(?:like|love|enjoy)(?: most| best| to do)?\W*$"
        r"|what am i into\W*$", r"likes|prefers|favourite .*"),
    (r"what (?:else |things |all )?(?:do i (?:not like|hate|dislike|detest)|don't i like)\W*$"
        r"|what can't i stand", r"dislikes"),
    (r"(?:am i|what am i|my) allerg", r"allergy"),
    (r"(?:what|which) languages?(?: do| can)? i speak", r"speaks|native language"),
    (r"am i (?:married|single|engaged)|who am i married to|my marital", r"marital status|(?:wife|husband)'s name"),
    (r"am i (?:a )?(?:vegan|vegetarian)|what(?:'s| is) my diet|what (?:can't|don't|do) i (?:not )?eat",
     r"diet|does not eat|allergy"),
    (r"(?:what|which) pets? do i have|do i have (?:any |a )?pets?|who are my pets", r"has|(?:.* )?(?:dog|cat"
        r"|pet|rabbit|hamster|horse|parrot|puppy|kitten)s?'s? names?"),
    (r"do i have (?:any )?(?:kids|children|siblings|family)", r"has|(?:.* )?(?:son|daughter|kids|children"
        r"|sister|brother|sisters|brothers)'s? names?"),
    (r"what (?:instruments?|sports?|games?)? ?do i play", r"plays"),
    (r"what (?:am i|do i) study", r"studies|major"),
)  # fmt: skip
"""Questions about the user, and the keys whose lines answer them."""
_ABOUT_ME = (
    r"(?i)what (?:all )?(?:do|did|have) you (?:know|remember|noted?|stored?|learned"
    r"|got)(?: about)?(?: me)?(?: so far)?\W*$|what have i told you(?: about (?:me|myself))?\W*$|(?:tell me "
    r"|say )?(?:what|everything|all)(?: that)? you (?:know|remember)(?: about me)?\W*$|tell me about (?:me"
    r"|myself)\W*$"
)
_PLACES = r"(?i)home|from|born|employer|work|address|school|university|college|place"


def answering_lines(question: str, lines: Sequence[str]) -> list[str]:
    """The facts of core memory that answer `question`, oldest first; none when it is not about what they say.

    A line that is a sentence answers no question but what is known at all: later talk may have outdated it.
    """
    question = without_opener(plain(question))
    if re.match(_ABOUT_ME, question):
        return list(lines)
    for pattern, keys in _TOPICS:
        if re.search(pattern, question, re.IGNORECASE):
            found = [line for line in lines if (f := parse_line(line)) and re.fullmatch(keys, _key(f), re.IGNORECASE)]
            if found:
                return found
    if not re.search(r"\b(?:i|my|me|i'm)\b|^who (?:is|was)\b|^who's\b", question, re.IGNORECASE):
        return []
    wanted, asked = stems(question), question.lower()
    facts = [(line, f"{line} {fact.sentence}") for line in lines if (fact := parse_line(line))]
    return [line for line, said in facts if wanted and wanted <= stems(said) and _fits(asked, line)]


def _key(fact: Fact) -> str:
    return fact.key.replace("favorite", "favourite")


def _fits(question: str, line: str) -> bool:
    """Whether a line can answer this kind of question at all."""
    if "when" in question or "how many" in question or "how old" in question:
        return bool(re.search(r"\d", line))
    return "where" not in question or bool(re.search(_PLACES, line.partition(":")[0]))


def told(lines: Sequence[str]) -> str:
    """Lines of core memory as sentences to the user."""
    said = []
    for line in lines[:40]:
        fact = parse_line(line)
        said.append(f"{fact.sentence[:1].upper()}{fact.sentence[1:]}." if fact else f"I have noted: “{line[:300]}”")
    return " ".join(said)
