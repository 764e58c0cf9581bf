"""Statements of which a later one takes the place: pure functions over text.

A clause is read as subject, relation and value, in forms that hold one value at a time: where a thing is, when
something happens, what a code, a price or a captain is. Two of them disagree where subject, relation and the sort of
value are the same and the values differ. A clause in any other form is left alone.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from agentos.llm.offline.facts import plainly_stated, same_value
from agentos.llm.offline.language import contradicts, plain, root, without_opener
from agentos.llm.offline.rules import NATIONS, PASSING


@dataclass(frozen=True)
class Statement:
    """One clause that was read."""

    subject: str
    verb: str
    """What stands between subject and value."""
    value: str
    relation: str
    """The verb in its common form."""
    sort: str
    """What kind of value it is, such as `place`, `day` or `name`."""
    denied: bool = False
    """Whether it is said not to hold."""
    changed: bool = False
    """Whether the user says that it was otherwise before."""

    @property
    def text(self) -> str:
        """The statement as a line of core memory, without the words of change."""
        return f"{self.subject[:1].upper()}{self.subject[1:]} {self.verb} {self.value}"

    def disagrees(self, other: "Statement") -> bool:
        """Whether the two cannot hold together."""
        relations = {self.relation, other.relation}
        alike = len(relations) == 1 or ("move" in relations and relations <= {"move", *_MOVING})
        same = alike and self.sort == other.sort and _plain_subject(self.subject) == _plain_subject(other.subject)
        equal = same_value(_unplaced(self.value), _unplaced(other.value))
        return same and not (self.denied and other.denied) and equal == (self.denied or other.denied)

    def replaces(self, other: "Statement") -> bool:
        """Whether `other` held until this came."""
        return self.changed and not self.denied and self.disagrees(other)


_CHANGE = (
    r"(?i),?\s*\b(?:from now on|as of (?:now|today)|now|currently|nowadays|these days|actually|instead|meanwhile"
    r"|not any ?more|any ?(?:more|longer)|since (?:last|this|yesterday|today|(?:mon|tues|wednes|thurs|fri|satur|sun)day"
    r"|january|february|march|april|may|june|july|august|september|october|november|december|\d+)"
    r"(?: \w+)?)(?= |$|[,.!])"
)
_MENDED = r"(?i)(?:no|nope|sorry|wrong|oops|correction|update|wait|i mean)\b"
_UNSURE = (
    r"(?i)\b(?:thinks?|believes?|supposes?|reckons?|assumes?|jok(?:es?|ed)|mentioned|sometimes|often|usually|rarely"
    r"|now and (?:then|again)|every now|(?:right|just|for|by|even) now)\b"
)
_NOT = (
    r"(?i)\b(?:do|does)(?:n't| not)\b|(?:(?<=\bis)|(?<=\bare))n't\b|(?:(?<=\b[ia][sm])|(?<=\bare)) not\b|\bno longer\b"
)
_CLAUSES = r"(?i)(,?\s+but\s+|,\s+(?:and )?|\s+[–—-]\s+)"
_MOVING = ("is", *map(root, ("live", "start", "begin")))
"""Relations whose value changes when a thing moves."""
_VERB = (
    r"(?i) (?:(?P<change>(?:(?:has|have|was|were|is|are|been) )*changed (?:from .+? )?to)"
    r"|(?P<move>(?:(?:has|have|was|were|is|are|been) )*moved (?:from .+? )?to)"
    r"|(?P<is>(?:is|are|am|lies?|stands?|sits?|hangs?)"
    r"(?: (?:kept|parked|moored|stored|located|hidden|based|docked|berthed|anchored))?)"
    r"|(?P<other>lives?|works?|parks?|sleeps?|stays?|meets?|starts?|begins?|ends?|opens?|closes?|leaves?|departs?"
    r"|arrives?|goes|go|costs?|weighs?|drives?|rides?|wears?|uses?|pays?|has|have|keeps?|stores?)) "
)
_PREPOSITION = r"(?:in|on|at|by|under|behind|near|above|below|inside|outside|beside|opposite)"
_DAY = (
    r"(?i)\b(?:(?:mon|tues|wednes|thurs|fri|satur|sun)days?|january|february|march|april|may|june|july|august|september"
    r"|october|november|december|weekends?)\b"
)
_CLOCK = r"at \d{1,2}(?::\d\d)?(?: ?[ap]m| o'clock)?|\d{1,2}(?::\d\d| ?[ap]m| o'clock)|(?:at )?(?:noon|midnight)"
_NUMBER = r"\b(?:\d[\d.,:/-]*|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)\b"
_COLOUR = r"(?:(?:dark|light) )?(?:red|green|blue|yellow|white|black|brown|gr[ae]y|orange|purple|pink)"
_NAME = r"(?:an? |the )?[A-Z][\w'.-]*(?: [A-Z][\w'.-]*){0,2}"
_CODED = (
    r".*\b(?:password|passphrase|passcode|code|pin|keyword|number|username|login|address|e-?mail|name|colou?r|size"
    r"|price|rent|fee|birthday|deadline|title|topic|theme|motto)"
)
_NO_CODE = (
    r"(?:an?|the|too|very|so|here|there|wrong|right|long|short|safe|secret|easy|hard|weak|strong|gone|lost|new|old|fine"
    r"|known|good|bad|better|worse|different|due|high|low|\w+ed|\w+en|for|from|to)\b"
)
_THING = (
    rf"{_PREPOSITION} (?:(?:the|my|our|his|her|their) (?!(?:\w+ )?(?:mood|way|phone|moment|run|rain|end|middle)\b)\w"
    r"|[A-Z\d]|\w+ \d).*"
)
_OWN = ("The", "My", "Our", "I", "We")
"""What a name is said of: not of another name, which may be many things."""
_ONE = (f"{root('work')} for", *map(root, ("drive", "ride", "use")))
"""Other relations to one named thing."""
_FULL_FORMS = (
    (r"(?i)(?<=\w)'s (?=(?:no longer|not|in|on|at|under|behind) )", " is "),
    (r"\b([Ii])'m ", r"\1 am "),
    (r"(?i)\b(?:has|have) been (?=(?:in|on|at|under|behind) )", "is "),
)
_NO_VALUE = (
    r"(?i)[,;?!]|:(?!\d)|[\"“”\x1f()]|(?:^| )(?:i|you|he|she|it|we|they|is|are|was|were|and|or|but|when|while"
    r"|every|during|for|to|that|who|which|not|never|has|have|lies|lives)\b|.(?: my| your) "
)


def statements(text: str) -> Iterator[Statement]:
    """What `text` plainly states, in order; nothing that it asks, supposes, quotes or has from others."""
    text = re.sub(r"(?i),? (?:instead of|rather than) ", ", not ", plain(text))
    last: Statement | None = None
    for sentence in plainly_stated(text):
        if re.search(_UNSURE, sentence):
            continue
        changed = bool(re.match(_MENDED, text) or re.search(_CHANGE, sentence) or re.search(r", not \w", sentence))
        clauses, own = re.split(_CLAUSES, without_opener(sentence)), True
        for joint, clause in zip(["", *clauses[1::2]], clauses[::2], strict=True):
            # What follows an unknown clause may depend on it: “in his opinion, the boat is in Faro”.
            found = read(_continued(clause, last) if last else clause) if own or joint.strip(", ") else None
            own = found is not None
            if found:
                changed = changed or found.changed or bool(last and last.denied)
                last = replace(found, changed=changed)
                yield last


def read(clause: str) -> Statement | None:
    """The statement that one clause makes; None where it has no form that is known."""
    clause = re.sub(_CHANGE, "", without_opener(plain(clause))).strip(" .,;:!…")
    for short, full in _FULL_FORMS:
        clause = re.sub(short, full, clause)
    bare = " ".join(re.sub(_NOT, "", clause).split())
    if re.search(PASSING, bare):
        return None
    for verb in re.finditer(_VERB, bare):
        words = bare[verb.end() :].split(" ")
        for i in range(min(4, len(words)) if verb["other"] else 1):  # “keep my bike in the shed”
            subject, value = bare[: verb.start()], " ".join(words[i:])
            said = " ".join((verb.group().strip(), *words[:i]))
            relation = " ".join((root(verb["other"]), *words[:i])) if verb["other"] else "is"
            relation = "move" if verb["move"] else relation
            sort = _sort(subject, relation, value)
            if sort:
                said = ("are" if said.startswith("have") else "is") if verb["change"] else said
                denied, told = bool(re.search(_NOT, clause)), bool(verb["change"] or verb["move"])
                return Statement(subject, said, value, relation, sort, denied, told)
    return None


def contradiction(new: str, old: str) -> bool:
    """Whether `new` says what `old` says of the same thing, with another value."""
    a, b = read(new), read(old)
    return contradicts(new, old) or bool(a and b and not a.denied and a.disagrees(b))


def _continued(clause: str, last: Statement) -> str:
    """A clause on what `last` was about: “it is in Faro”, or after “no longer in Porto” just “in Faro”."""
    pronoun = re.match(r"(?i)(?:now )?(?:it|he|she|they)(?P<is>'s|'re)? ", clause)
    if pronoun:
        return f"{last.subject} {'is ' if pronoun['is'] else ''}{clause[pronoun.end() :]}"
    return f"{last.subject} {last.verb} {clause}" if last.denied and not read(clause) else clause


def _sort(subject: str, relation: str, value: str) -> str:
    """The kind of a value; empty for what may be no value, or one beside others."""
    if re.search(_NO_VALUE, value) or len(value.split()) > 7:
        return ""
    if re.search(_DAY, value):
        return "day and clock" if re.search(_CLOCK, value) else "day"
    if re.fullmatch(_CLOCK, f"at {value}" if relation == "move" else value):
        return "clock"
    placed = f"in {value}" if relation == "move" else value
    if re.match(_THING, placed):  # one is in Rome and in the office at once
        return "named place" if re.match(rf"{_PREPOSITION} [A-Z]", placed) else "place"
    if relation == "is" and re.fullmatch(_CODED, subject, re.IGNORECASE) and not re.match(_NO_CODE, value):
        return "code" if len(value.split()) <= 4 else ""
    if re.search(_NUMBER, value):
        return f"number {re.sub(_NUMBER, '', value).strip().casefold()}"
    if re.fullmatch(_COLOUR, value):
        return "colour"
    named = re.fullmatch(_NAME, value) and value.split()[-1].casefold() not in NATIONS
    one = subject[:1].islower() or subject.split()[0] in _OWN if relation == "is" else relation in _ONE
    return "name" if named and one else ""


def _plain_subject(subject: str) -> str:
    return re.sub(r"^(?:the|my|our|this|that) ", "the ", subject.casefold())


def _unplaced(value: str) -> str:
    return re.sub(r"(?i)^(?:in|on|at) ", "", value)
