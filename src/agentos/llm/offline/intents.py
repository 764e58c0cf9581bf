"""What a message to the offline model wants, beside stating facts and asking: pure functions over its text."""

import re

from agentos.llm.offline.language import STOP_WORDS, is_question, plain, sentences, without_opener

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
    plausible = 0 < len(value.split()) <= 3 and not (set(value.lower().split()) & STOP_WORDS)
    return value if plausible and not small_talk(value) and not is_question(text) else None


def corrected_statement(text: str) -> str | None:
    """The sentence that a correction such as "Actually, the key is under the mat." states, or None."""
    found = re.match(_MENDING, plain(text))
    said = sentences(plain(text)[found.end() :]) if found else []
    return said[0] if len(said) == 1 and not is_question(said[0]) else None
