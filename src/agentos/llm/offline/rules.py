"""The tables behind `facts`: the forms in which people state facts about themselves.

A rule is a pattern for a whole clause and a kind for its value; the kinds' checks come after the table.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from agentos.llm.offline.language import listed

_RELATIVE = (
    r"(?:(?:older|younger|elder|little|big|twin|eldest|oldest|youngest|best|new|first|second)[ -])?(?:(?:step|half"
    r"|grand|ex)-?)?(?:sister|brother|mother|mom|mum|father|dad|son|daughter|wife|husband|partner|spouse"
    r"|fianc[ée]e?|girlfriend|boyfriend|friend|boss|manager|roommate|flatmate|neighbou?r|cousin|aunt|uncle|nephew"
    r"|niece|grandma|grandpa|dog|cat|puppy|kitten|horse|hamster|rabbit|parrot|pet|baby|child|doctor|dentist"
    r"|therapist|landlord|landlady)"
)
_RELATIVES = r"(?:kids|children|sons|daughters|dogs|cats|sisters|brothers|parents|twins|pets|grandchildren)"
_OWNED = (
    r"(?:(?:older|younger|little|big|twin|teenage|grown|rescue|black|white|electric|new|old)[ -])*(?:sisters?"
    r"|brothers?|siblings?|sons?|daughters?|kids?|child|children|twins|grandson|granddaughter|grandchildren|wife"
    r"|husband|girlfriend|boyfriend|dogs?|cats?|puppy|puppies|kittens?|horses?|hamsters?|rabbits?|parrots?"
    r"|goldfish|tortoise|pony|chickens|car|motorbike|motorcycle|bike|boat|garden|allotment|piano|greenhouse"
    r"|campervan)"
)
_ILLNESS = (
    r"(?:(?:type (?:1|2|one|two) )?diabetes|asthma|coeliac disease|celiac disease|epilepsy|adhd|dyslexia|migraines"
    r"|hay fever|high blood pressure|hypertension|arthritis|tinnitus|a pacemaker|lactose intolerance"
    r"|a heart condition)"
)
NATIONS = listed(
    "american british english scottish welsh irish canadian australian french german austrian swiss dutch "
    "belgian italian spanish portuguese greek turkish polish czech slovak hungarian romanian bulgarian serbian "
    "croatian bosnian slovenian ukrainian russian norwegian swedish danish finnish icelandic estonian latvian "
    "lithuanian japanese chinese korean vietnamese thai indian pakistani bangladeshi nepali indonesian "
    "malaysian filipino mexican brazilian argentinian chilean colombian peruvian cuban venezuelan egyptian "
    "moroccan algerian tunisian nigerian kenyan ghanaian ethiopian israeli iranian iraqi syrian lebanese "
    "afghan taiwanese singaporean jamaican"
)
_TONGUES = frozenset(NATIONS) | frozenset(
    listed(
        "mandarin cantonese hindi urdu arabic hebrew persian farsi bengali tamil swahili catalan basque latin "
        "esperanto tagalog malay punjabi gaelic afrikaans albanian georgian armenian"
    )
)
_PLAYED = (
    r"(?:(?:acoustic |electric |bass )?guitar|bass|piano|violin|viola|cello|drums|flute|clarinet|saxophone|trumpet"
    r"|trombone|harp|organ|accordion|ukulele|banjo|tennis|football|soccer|basketball|volleyball|handball|hockey"
    r"|rugby|cricket|golf|badminton|squash|chess|go|bridge|poker|table tennis|baseball|softball)"
)
_PROFESSION = (
    r"(?:^|[ -])(?:\w{2,}(?:eer|ologist|ician|ographer|entist|acist)|teacher|doctor|nurse|midwife|surgeon|vet"
    r"|lawyer|attorney|judge|paralegal|accountant|auditor|banker|actuary|economist|analyst|consultant|manager"
    r"|director|developer|programmer|coder|designer|architect|builder|carpenter|plumber|roofer|painter|artist"
    r"|sculptor|musician|singer|drummer|pianist|composer|actor|actress|dancer|writer|author|editor|journalist"
    r"|reporter|translator|interpreter|librarian|archivist|student|professor|lecturer|tutor|researcher|chemist"
    r"|physicist|pilot|driver|trucker|sailor|soldier|officer|firefighter|policeman|policewoman|detective|paramedic"
    r"|therapist|counsell?or|pharmacist|chef|cook|baker|butcher|waiter|waitress|barista|bartender|farmer|gardener"
    r"|florist|beekeeper|fisherman|hairdresser|barber|tailor|cleaner|caretaker|carer|nanny|postman|electrician"
    r"|welder|cashier|clerk|secretary|assistant|receptionist|salesman|saleswoman|freelancer|entrepreneur|founder"
    r"|trainer|coach|priest|pastor|rabbi|imam|monk|nun|zookeeper|biologist|statistician|data scientist|scientist"
    r"|social worker)$"
)
_SELF_NOUN = (
    r"(?:an? (?:\w+ )?(?:morning|evening|night|dog|cat|early|tea|coffee|people|outdoors) (?:person|owl|bird)"
    r"|an? (?:night owl|early bird|introvert|extrovert|widow|widower|grandmother|grandfather|grandparent|veteran"
    r"|atheist|agnostic|christian|catholic|protestant|muslim|buddhist|hindu|twin|only child|single (?:mother|mom"
    r"|mum|father|dad|parent)|(?:mother|father|mom|mum|dad|parent) of (?:one|two|three|four|five|six|twins"
    r"|triplets|\d))|left[- ]handed|right[- ]handed|colou?r[- ]?blind|deaf|blind|retired|self[- ]employed"
    r"|short[- ]sighted|near[- ]sighted|ambidextrous|jewish)"
)
NOW = (
    r"(?:(?:now|currently|just|recently|actually|really|also|still|do|absolutely|totally|simply|very much|mostly"
    r"|mainly|both) )*"
)
_AM = rf"(?:i am|i'm|im) {NOW}"
_I = rf"i(?:'ve| have)? {NOW}"
_IS = r"(?: is|'s| are| was)(?: actually| really| now| also| still)*(?: called| named| spelled)?"
LIKING = r"(?:like|love|enjoy|adore)"


@dataclass(frozen=True)
class Rule:
    """One form in which people state something about themselves."""

    key: str
    """`{k}` stands for what the pattern names as k."""
    pattern: str
    kind: str
    event: bool = False
    """Whether the sentence may tell when it happened."""


_RULES = (
    Rule("Name", r"my (?:full |first |real |own )?name(?: is|'s)(?: actually| really)* (?P<v>.+)", "name"),
    Rule("Name", rf"{_AM}called (?P<v>.+)", "name"),
    Rule("Goes by", r"(?:please |just |you can |you may |everyone calls me "
        r"|everybody calls me )*call me (?P<v>.+)", "name"),
    Rule("Goes by", r"(?:i go by|my nickname is|(?:everyone|everybody) calls me) (?P<v>.+)", "name"),
    Rule("Home", rf"i {NOW}live in (?P<v>.+)", "place", True),
    Rule("Home", rf"{_AM}(?:living|based) in (?P<v>.+)", "place", True),
    Rule("Home", rf"{_I}(?:moved|relocated) (?:back )?(?:(?:here )?from .+? )?to (?P<v>.+)", "place", True),
    Rule("From", rf"(?:{_AM}(?:originally )?from|i come from) (?P<v>.+)", "place"),
    Rule("Grew up in", r"i grew up in (?P<v>.+)", "place"),
    Rule("Birthday", r"my birthday is(?: on| always)*(?: the)? (?P<v>.+)", "date"),
    Rule("Birthday", r"i was born on(?: the)? (?P<v>.+)", "date"),
    Rule("Born", r"i was born (?P<v>in .+)", "born"),
    Rule("Age", rf"(?:{_AM}|my age is )(?P<v>\d{{1,3}})(?: years? old| years of age)?", "age"),
    Rule("Age", rf"{_I}turned (?P<v>\d{{1,3}})", "age", True),
    Rule("Employer", rf"i {NOW}work (?:at|for) (?P<v>.+)", "work", True),
    Rule("Employer", rf"{_AM}(?:working|employed) (?:at|for|by) (?P<v>.+)", "work", True),
    Rule(
        "Employer",
        rf"{_I}(?:started|got|found|took)(?: working| work| an?(?: new)? (?:job|position|role)| my new job)?"
        r" (?:at|with|for) (?P<v>.+)",
        "firm", True,
    ),
    Rule("Field", rf"(?:i {NOW}work|{_AM}working) in (?P<v>.+)", "field"),
    Rule("Job", rf"(?:i {NOW}work|{_AM}(?:working|employed)) as (?:an? )?(?P<v>.+)", "noun", True),
    Rule("Job", rf"{_I}(?:started|got)(?: working| an?(?: new)? job) as (?:an? )?(?P<v>.+)", "noun", True),
    Rule("Job", r"my (?:job|profession|occupation) is (?:being |to be )?an? (?P<v>.+)", "profession"),
    Rule("Job", rf"{_AM}(?:an? )?(?P<v>.+)", "profession"),
    Rule("Nationality", rf"{_AM}(?:an? )?(?P<v>{'|'.join(NATIONS)})(?: citizen)?", "title"),
    Rule("Marital status", rf"{_AM}(?P<v>(?:happily |newly )?(?:married|engaged)(?: to .+)?|single|divorced"
        rf"|widowed)", "free"),
    Rule("Diet", rf"{_AM}(?:an? )?(?P<v>(?:strict )?(?:vegetarian|vegan|pescatarian)|(?:lactose"
        rf"|gluten)[ -]intolerant)", "free"),
    Rule("Is", rf"{_AM}(?P<v>{_SELF_NOUN})", "free"),
    Rule("Name", r"(?:i am|i'm) (?P<v>.+)", "proper"),
    Rule("Dislikes", rf"i {NOW}(?:hate|dislike|detest|despise|can't stand|cannot stand|(?:don't"
        rf"|do not) {NOW}{LIKING}|no longer {LIKING}) (?P<v>.+?)(?: any ?more| at all)?", "taste"),
    Rule("Dislikes", r"(?:i am|i'm) not (?:a (?:big |great )?fan of|fond of|keen on) (?P<v>.+)", "taste"),
    Rule("Likes", rf"i {NOW}{LIKING} (?P<v>.+)", "taste"),
    Rule("Likes", rf"{_AM}(?:a )?(?:big |huge |great |massive )?(?:fan of|into|fond of|keen on"
        rf"|crazy about) (?P<v>.+)", "taste"),
    Rule("Prefers", rf"i {NOW}prefer (?P<v>.+)", "taste"),
    Rule("Allergy", rf"{_AM}(?:badly |severely |deathly |highly |very )?allergic to (?P<v>.+)", "free"),
    Rule("Allergy", rf"i {NOW}have an?(?: bad| severe| serious)? (?P<v>[\w ]+?) allergy", "free"),
    Rule("Allergy", rf"i {NOW}have an?(?: bad| severe| serious)? allergy to (?P<v>.+)", "free"),
    Rule("Does not {k}", r"i (?:don't|do not|never) (?P<k>eat|drink) (?P<v>.+?)(?: any ?more| at all)?", "free"),
    Rule("Favourite {k}", rf"my (?:all[- ]time "
        rf"|absolute )?favou?rite (?P<k>[a-z][a-z -]{{1,28}}?){_IS} (?P<v>.+)", "free"),
    Rule("Favourite {k}", r"(?P<v>.+?) (?:is|are) my (?:all[- ]time "
        r"|absolute )?favou?rite (?P<k>[a-z][a-z -]{1,28})", "short"),
    Rule("{k}'s birthday", rf"my (?P<k>{_RELATIVE})'s birthday is(?: on)?(?: the)? (?P<v>.+)", "date"),
    Rule("{k}'s name", rf"my (?P<k>{_RELATIVE})(?:'s name)(?: is|'s)(?: actually| really)* (?P<v>.+)", "name"),
    Rule("{k}'s name", rf"my (?P<k>{_RELATIVE})(?: is|'s)(?: actually| really)* (?:called|named) (?P<v>.+)", "name"),
    Rule("{k}'s name", rf"(?:i|we) {NOW}have an?(?: \w+)? (?P<k>{_RELATIVE}),? (?:called|named"
        rf"|whose name is) (?P<v>.+)", "name"),
    Rule("{k}'s name", rf"the name of my (?P<k>{_RELATIVE}) is (?P<v>.+)", "name"),
    Rule("{k}'s home", rf"my (?P<k>{_RELATIVE}) {NOW}lives in (?P<v>.+)", "place", True),
    Rule("{k}'s work", rf"my (?P<k>{_RELATIVE}) {NOW}works (?P<v>(?:at|for|as) .+)", "job"),
    Rule("{k}'s work", rf"my (?P<k>{_RELATIVE})(?: is|'s) an? (?P<v>.+)", "profession"),
    Rule("{k}'s name", rf"my (?P<k>{_RELATIVE})(?: is|'s)(?: actually| really)* (?P<v>.+)", "proper"),
    Rule("{k}' names", rf"my (?P<k>{_RELATIVES}|two {_RELATIVES})(?:' names)? are(?: called"
        rf"| named)? (?P<v>.+)", "names"),
    Rule("Has", rf"(?:i|we) {NOW}have (?P<v>(?:an?|one|two|three|four|five|six|\d) {_OWNED})", "free"),
    Rule("Health", rf"i {NOW}have (?P<v>{_ILLNESS})", "free"),
    Rule("Speaks", rf"i {NOW}speak (?:fluent )?(?P<v>.+)", "tongues"),
    Rule("Plays", rf"i {NOW}play (?:the )?(?P<v>{_PLAYED})(?: .{{1,30}})?", "free"),
    Rule("Studies", rf"(?:i {NOW}study|{_AM}studying) (?P<v>.+)", "study"),
    Rule("Car", rf"i {NOW}drive an? (?P<v>.+)", "proper"),
    Rule("{k}", r"my (?P<k>(?:[a-z-]+ ){0,2}(?:number|code|id|size|height|weight|plate|phone|address"
        r"|time ?zone|blood type))(?: is|'s) (?P<v>.+)", "digits"),
    Rule("{k}", r"my (?P<k>(?:[a-z-]+ )?(?:anniversary|due date|name day))(?: is"
        r"|'s)(?: on)?(?: the)? (?P<v>.+)", "date"),
    Rule("{k}", r"my (?P<k>e-?mail(?: address)?|username|(?:[a-z]+ )?handle)(?: is|'s) (?P<v>.+)", "token"),
    Rule("{k}", r"my (?P<k>school|university|college|company|employer|hometown|home town|surname|last name"
        r"|middle name|maiden name|car|home|bank|gym|favou?rite team)(?: is|'s)(?: an?| in)? (?P<v>.+)", "proper"),
    Rule("{k}", r"my (?P<k>pronouns|hobby|hobbies|star sign|zodiac sign|blood group|blood type|native language"
        r"|mother tongue|religion|eye colou?r|hair colou?r|major|timezone|time zone)(?: is|'s"
        r"| are) (?P<v>.+)", "short"),
)  # fmt: skip


@cache
def rules() -> tuple[tuple[Rule, re.Pattern[str]], ...]:
    """The table, compiled at first use: importing this module stays cheap."""
    return tuple((rule, re.compile(rule.pattern, re.IGNORECASE)) for rule in _RULES)


# --- what a value must look like --------------------------------------------------------------------

PRONOUN = (
    r"(?i)\b(?:i|i'm|me|my|mine|you|your|yours|it|its|it's|this|that|that's|these|those|we|us|our|they|them|their|he"
    r"|him|his|she|her|what|when|where|who|how|why|here|there|someone|something|everything|nothing|anything)\b"
)
PASSING = (
    r"(?i)\b(?:today|tonight|yesterday|tomorrow|right now|so far|lately|at the moment|for now|this (?:\w+ )?(?:morning"
    r"|afternoon|evening|week|weekend|month|year|time)|last (?:night|week|weekend|month|year)|next (?:week|weekend"
    r"|month|year|time)|soon|yet|just now|sometimes|a bit|a little)\b"
)
_TRAILING = (
    r"(?i)(?:,? (?:now|nowadays|these days|currently|at the moment|right now|instead|originally|too|as well|also"
    r"|very much|a lot|so much|btw|by the way|actually|anyway|obviously|of course|though|again|please|thanks|haha"
    r"|lol|since .+|because .+|but .+|ever since|with (?:my|our) .+|for (?:\d+|many|several|some|a few|two|three"
    r"|four|five|six|ten|twenty|over|about|almost|nearly|more than) ?.*(?:years?|months?|decades?|ages)(?: now)?"
    r"|(?:last|this) (?:week|weekend|month|year|spring|summer|autumn|fall|winter|morning)|yesterday|today|recently"
    r"|(?:in|on|around|back in) (?:(?:january|february|march|april|may|june|july|august|september|october|november"
    r"|december)(?: \d{4})?|(?:19|20)\d\d)|(?:an?|one|two|three|four|five|six|\d+|some|a few|a couple of) (?:days?"
    r"|weeks?|months?|years?) ago)|, (?:not|which|who|where|so|and|it|we|he|she|they|i) .+|[ ,]+not .+| [-–—(] ?.+"
    r"|:\)|;\)|[\s.,!;:)\"']+)$"
)
_NOT_NAME = frozenset(NATIONS) | frozenset(
    listed(
        "ok okay sorry fine good great well back home here there happy sad tired sick ill late sure ready busy "
        "bored lost done glad in on at not no yes hungry thirsty excited afraid scared confused curious new old "
        "young alone free crazy a an the so too very just later tomorrow today tonight now when if maybe anytime "
        "again monday tuesday wednesday thursday friday saturday sunday dead broken gone missing mad angry nice "
        "amazing awesome wonderful annoying annoyed asleep awake away visiting coming going getting doing driving "
        "secret unknown important private hard long short difficult common your my"
    )
)
_NOT_PLACE = frozenset(
    listed(
        "fear hope peace constant denial pain poverty luxury bed town sin silence hell heaven paradise chaos "
        "isolation comfort exile person reality ruins squalor style danger interesting harmony darkness doubt "
        "solitude misery limbo general another one"
    )
)
_NOT_WORK = (
    r"(?i)(?:night|nights|home|weekends?|free|fun|money|pay|peanuts|all|least|most|best|worst|once|lunch|noon|midnight"
    r"|the moment|a living|an? (?:hours?|week|while|day|long)|hours?|days?|years?|months?|\d.*|(?:the )?(?:morning"
    r"|weekend|night|same time|first|best|exam|event|job|project|time|beginning|party|end)|(?:my|him|her|them"
    r"|you)self|various|different|several|many|it)\b"
)
_NOT_TASTE = (
    r"(?:to (?:be|think|believe|say|know|hear|see|point|thank|imagine|ask|admit|get|have|find|go|buy|try|make|do"
    r"|take|keep|help)\b|being|having|hearing|seeing|knowing|getting|finding|the (?!(?:sea|beach|mountains?"
    r"|outdoors|ocean|theatre|theater|cinema|countryside|rain|snow|smell of .+)$)(?![A-Z][\w']*(?: [A-Z][\w']*)*$)"
    r"|(?:so|and|or|but|such|one|some|any|all|both|another|more|to$|about|when|if|as|of|for|in|at|on|with|like|too"
    r"|very|not|just|even|much|no)\b)"
)
_MONTH = r"(?i)\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\b|\d{1,2}[./-]\d{1,2}|\d{4}"


def _name(text: str) -> str | None:
    """One to three words that can be a name, with capitals."""
    words = text.split()
    if not 1 <= len(words) <= 3 or any(w.casefold().strip(".") in _NOT_NAME for w in words):
        return None
    if not all(re.fullmatch(r"[^\W\d_][^\W\d_'’.-]*(?:['’.-][^\W\d_]+)*\.?", w) for w in words):
        return None
    return _titled(text) if text == text.lower() else text


def _proper(text: str) -> str | None:
    """A name that its writer gave capitals, and that is not shouted."""
    words = text.split()
    capital = all(w[0].isupper() for w in words) and not (text.isupper() and len(text) > 4)
    return _name(text) if capital else None


def _names(text: str) -> str | None:
    parts = re.split(r",? and |, ", text)
    return text if len(parts) > 1 and all(_proper(part) for part in parts) else None


def _place(text: str) -> str | None:
    first = text.split()[0].casefold()
    if first in _NOT_PLACE or len(text.split()) > 6 or not re.match(r"[^\W\d_]", text):
        return None
    if first in ("a", "an", "the", "my", "our") and not re.search(r" [A-Z]", text):
        return None
    if text != text.lower():
        return text if re.search(r"(?:^| )[A-Z]", text) else None
    return (
        _titled(text)
        if len(text.split()) <= 3 and not re.search(r"\b(?:with|to|by|on|off|for|and|or)\b", text)
        else None
    )


def _titled(text: str) -> str:
    return " ".join(w if w in ("of", "the", "de", "da", "do", "la") else w[:1].upper() + w[1:] for w in text.split())


def _born(text: str) -> str | None:
    rest = text[3:]
    return text if re.fullmatch(r"(?:\w+ )?(?:19|20)\d\d", rest) or (rest[:1].isupper() and _place(rest)) else None


def _date(text: str) -> str | None:
    return text if re.search(_MONTH, text) and len(text.split()) <= 5 else None


def _age(text: str) -> str | None:
    return text if 3 <= int(text) <= 120 else None


def _work(text: str) -> str | None:
    return None if re.match(_NOT_WORK, text) or len(text.split()) > 7 else text


def _firm(text: str) -> str | None:
    return _work(text) if re.search(r"(?:^| )[A-Z]", text) else None


def _job(text: str) -> str | None:
    preposition, _, rest = text.partition(" ")
    return text if (_noun(rest.removeprefix("a ")) if preposition == "as" else _work(rest)) else None


def _noun(text: str) -> str | None:
    return (
        None
        if re.match(_NOT_WORK, text)
        or len(text.split()) > 7
        or text.casefold().startswith(("much", "hard", "well", "fast", "a team"))
        else text
    )


def _profession(text: str) -> str | None:
    head = re.split(r" (?:at|for|in|with|from|by|of)(?: |$)", text)[0]
    return text if len(head.split()) <= 4 and re.search(_PROFESSION, head.casefold()) else None


def _field(text: str) -> str | None:
    if text in ("IT", "HR", "AI", "PR", "R&D") or (
        text == text.lower() and len(text.split()) <= 2 and not re.match(_NOT_WORK, text)
    ):
        return (
            None
            if text.split()[0] in ("a", "an", "the", "progress", *_NOT_PLACE, "shifts", "teams", "groups", "pairs")
            else text
        )
    return None


def _taste(text: str) -> str | None:
    return None if re.match(_NOT_TASTE, text) or len(text.split()) > 6 or ("," in text and len(text) > 50) else text


def _tongues(text: str) -> str | None:
    parts = re.split(r",? and |, ", text)
    return text if all(p.split()[-1].casefold() in _TONGUES for p in parts if p.strip()) else None


def _study(text: str) -> str | None:
    return (
        text
        if len(text.split()) <= 5
        and not re.match(r"(?:for|at|in|hard|a|an|the|on|with|all|every|abroad)\b", text, re.I)
        else None
    )


def _short(text: str) -> str | None:
    return text if len(text.split()) <= 4 and text.split()[0].casefold() not in _NOT_NAME else None


def tidy(value: str) -> str:
    """`value` without the asides it ends with."""
    while True:
        shorter = re.sub(_TRAILING, "", value).strip()
        if shorter == value:
            return value
        value = shorter


KINDS: dict[str, Callable[[str], str | None]] = {
    "name": _name, "proper": _proper, "names": _names, "place": _place, "born": _born, "date": _date, "age": _age,
    "work": _work, "firm": _firm, "job": _job, "noun": _noun, "profession": _profession, "field": _field,
    "taste": _taste,
    "tongues": _tongues, "study": _study, "short": _short, "free": lambda text: text, "title": str.title,
    "digits": lambda text: text if re.search(r"\d", text) else None,
    "token": lambda text: text if " " not in text and re.search(r"[@\d_.]|^\w{3,}$", text) else None,
}  # fmt: skip
"""What a rule's value must look like: the value as it is kept, or None."""
