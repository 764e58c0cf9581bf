"""The offline model: what it takes for a fact, what it leaves alone, and how it answers."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.errors import ContextOverflow
from agentos.llm.offline import INTRODUCTION, UNKNOWN, OfflineLLM
from agentos.llm.offline.facts import (
    MOST_FACTS,
    Fact,
    answering_lines,
    extract_facts,
    is_quoted_talk,
    parse_line,
)
from agentos.llm.offline.intents import small_talk, standing_rule, to_forget, to_remember
from agentos.llm.offline.language import contradicts, is_question, question_in, search_query, sentences, stem
from agentos.llm.offline.memories import Memory, best_memories, excerpt, parse_memories
from agentos.llm.offline.prompt import read_prompt
from agentos.llm.offline.reminders import to_remind
from agentos.memory import core
from agentos.messages import Block, Reply
from agentos.prompts import prompt
from agentos.protocols import Delta, LLMRequest
from agentos.testing.conformance import llm_conformance
from agentos.tools.memory import MEMORY_TOOLS
from agentos.tools.toolset import Toolset
from conftest import Home, collect, ending

SCHEMAS = Toolset(MEMORY_TOOLS).schemas
STAMP = "[2026-11-21 10:00:05 Sat]"


# --- facts ------------------------------------------------------------------------------------------

STATED = [
    ("My name is Ana.", ["Name: Ana"]),
    ("Hi, I'm Ana!", ["Name: Ana"]),
    ("my name is ana", ["Name: Ana"]),
    ("Call me Mia", ["Goes by: Mia"]),
    ("I live in Porto", ["Home: Porto"]),
    ("i live in new york", ["Home: New York"]),
    ("I'm based in the Netherlands.", ["Home: the Netherlands"]),
    ("I live in St. Gallen with my two dogs.", ["Home: St. Gallen"]),
    ("I moved from Porto to Lisbon last week.", ["Home: Lisbon"]),
    ("No, actually I live in Berlin now.", ["Home: Berlin"]),
    ("I'm from Brazil originally", ["From: Brazil"]),
    ("I was born in Lisbon in 1990.", ["Born: in Lisbon"]),
    ("I was born on 3 May 1990", ["Birthday: 3 May 1990"]),
    ("My birthday is May 3.", ["Birthday: May 3"]),
    ("I'm 34 years old.", ["Age: 34"]),
    ("I just turned 40!", ["Age: 40"]),
    ("I work at Siemens as an engineer.", ["Employer: Siemens", "Job: engineer"]),
    ("I work as a software engineer.", ["Job: software engineer"]),
    ("I'm a nurse at St. Mary's.", ["Job: nurse at St. Mary's"]),
    ("I started a new job at Acme last month.", ["Employer: Acme"]),
    ("I work in finance", ["Field: finance"]),
    ("I love hiking.", ["Likes: hiking"]),
    ("I'm a big fan of jazz", ["Likes: jazz"]),
    ("I don't like olives", ["Dislikes: olives"]),
    ("I can't stand loud music.", ["Dislikes: loud music"]),
    ("I no longer like coffee", ["Dislikes: coffee"]),
    ("I prefer tea over coffee", ["Prefers: tea over coffee"]),
    ("I don't eat meat", ["Does not eat: meat"]),
    ("My favourite colour is green.", ["Favourite colour: green"]),
    ("my favorite food is sushi, not pizza", ["Favourite food: sushi"]),
    ("Alien is my favorite movie", ["Favourite movie: Alien"]),
    ("I'm allergic to peanuts and shellfish.", ["Allergy: peanuts and shellfish"]),
    ("I have a peanut allergy", ["Allergy: peanut"]),
    ("I have asthma", ["Health: asthma"]),
    ("I'm a vegetarian", ["Diet: vegetarian"]),
    ("I am married to Tom", ["Marital status: married to Tom"]),
    ("I'm left-handed", ["Is: left-handed"]),
    ("I'm Portuguese", ["Nationality: Portuguese"]),
    ("I speak Portuguese and English", ["Speaks: Portuguese and English"]),
    ("I play the guitar", ["Plays: guitar"]),
    ("I have two kids", ["Has: two kids"]),
    ("I have a dog named Rex.", ["Dog's name: Rex"]),
    ('My dog is called "Rex".', ["Dog's name: Rex"]),
    ("My sister’s name is Eva", ["Sister's name: Eva"]),
    ("my cat's name is Mr Whiskers", ["Cat's name: Mr Whiskers"]),
    ("My boss is Anna.", ["Boss's name: Anna"]),
    ("My kids are called Tom and Lea", ["Kids' names: Tom and Lea"]),
    ("My wife works at Google", ["Wife's work: at Google"]),
    ("My brother lives in Rome", ["Brother's home: Rome"]),
    ("My wedding anniversary is June 4th", ["Wedding anniversary: June 4th"]),
    ("My locker number is 4711", ["Locker number: 4711"]),
    ("My email is ana@example.org", ["Email: ana@example.org"]),
    ("I'm Ana, I live in Porto and my dog is called Rex", ["Name: Ana", "Home: Porto", "Dog's name: Rex"]),
    ("I live in Porto and work as a baker", ["Home: Porto", "Job: baker"]),
    ("I live in Rome. Sorry, I live in Oslo.", ["Home: Oslo"]),
    ("Actually, I moved: I live in Porto now.", ["Home: Porto"]),
    ("I moved: I live in Porto now.", ["Home: Porto"]),
    ("FYI: my name is Bo", ["Name: Bo"]),
]

NOT_STATED = [
    "I'm so tired today",
    "I'm a bit lost",
    "I'm a mess",
    "I am back",
    "I'm Bored",
    "I'm sure he's right",
    "I'm in Porto today",
    "I am 5 minutes late",
    "I'm working on a project",
    "I'm going to Rome next week",
    "I'm thinking about moving to Rome",
    "I'm not a doctor",
    "I like it",
    "I love you",
    "I love this song",
    "I like your idea",
    "I like the way you think",
    "I'd like a coffee",
    "I love how quiet it is",
    "I have a headache",
    "I have a question",
    "I have a meeting at noon",
    "I work at night",
    "I live in constant fear of wasps",
    "I don't live in Porto",
    "I moved to the sofa",
    "My name is not Bob",
    "I thought my name is Bob",
    "My car is broken",
    "My phone is dead",
    "My sister is sick",
    "My dog is hungry",
    "My boss is annoying",
    "My favourite thing about it is how you said that",
    "Do I live in Porto?",
    "where do I live",
    "Is my name Ana?",
    "If I live in Paris one day, I'll be happy",
    "I wish I lived in Rome",
    "Maybe I'm a poet",
    "I would say my name is Bob",
    "Imagine I'm a pirate. My name is Blackbeard.",
    "Let's say I live in Rome. Where should I eat?",
    "Just kidding, my name is Bob",
    'Translate: "I live in Rome"',
    '"I live in Rome and I love it here" is a line of a song',
    "She said I am a genius",
    "Tom told me my name is funny",
    "My friend says: I live in Rome",
    "Caroline: I live in Sweden and I love painting.",
    "Ana: My name is Ana.\nBob: My name is Bob.",
    "> I live in Rome",
    "The hero lives in Rome",
    "People live in Porto",
    "call me later",
    "Call me a taxi",
    "hello",
    "Thanks a lot!",
    "",
    "?",
    "I live in Porto. " * 50,
]


@pytest.mark.parametrize(("text", "lines"), STATED)
def test_a_plain_statement_about_oneself_is_a_fact(text: str, lines: list[str]) -> None:
    assert [fact.line for fact in extract_facts(text)] == lines


@pytest.mark.parametrize("text", NOT_STATED)
def test_anything_else_is_left_alone(text: str) -> None:
    assert extract_facts(text) == []


def test_facts_know_what_they_replace() -> None:
    assert Fact("Home", "Lisbon").replaces(Fact("Home", "Porto"))
    assert not Fact("Home", "porto.").replaces(Fact("Home", "Porto"))
    assert not Fact("Likes", "tea").replaces(Fact("Likes", "jazz"))
    assert Fact("Dislikes", "jazz").replaces(Fact("Likes", "Jazz"))
    assert Fact("Favourite color", "red").replaces(Fact("Favourite colour", "green"))
    assert Fact("Home", "Porto").repeats(Fact("home", "porto"))
    assert parse_line("- Home: Porto") == Fact("Home", "Porto")
    assert parse_line("Ana likes tea") is None


@given(
    st.text()
    | st.lists(
        st.sampled_from(
            [
                "I",
                "live in",
                "my",
                "name is",
                "Porto",
                "and",
                ",",
                ".",
                "?",
                '"',
                ":",
                "and by the way",
                "\n",
                "remind me",
                "in",
                "2 hours",
                "remember",
                "forget",
            ]
        ),
        max_size=80,
    ).map(" ".join)
)
async def test_no_text_raises_or_floods(text: str) -> None:
    assert len(extract_facts(text)) <= MOST_FACTS
    reply = await ask(Talk().user(text))
    assert len(reply.calls) <= MOST_FACTS + 2
    assert reply.text or reply.calls
    names = {tool["function"]["name"]: tool["function"]["parameters"] for tool in SCHEMAS}
    for call in reply.calls:
        schema = names[call.name]
        assert set(schema["required"]) <= set(call.values) <= set(schema["properties"])
        assert all(value for key, value in call.values.items() if key != "new_content")


# --- language ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["Where do I live?", "what's my name", "who is Eva", "tell me what you know", "when did I go there", 
     "how many dogs do I have", "do you remember Rex", "which colour do I like", "can you swim", "so, where was I",
     "You did what?"],
)  # fmt: skip
def test_questions(text: str) -> None:
    assert is_question(text)


@pytest.mark.parametrize(
    "text",
    ["When I was a kid we had a dog.", "What a day!", "Have a nice day", "I know who did it.", "Where I live it"
        " rains.", "Can do.", "May is warm."],
)  # fmt: skip
def test_statements_that_begin_like_questions(text: str) -> None:
    assert not is_question(text)


def test_sentences_keep_abbreviations_whole() -> None:
    assert sentences("Dr. Lee is in St. Gallen. Is he? Yes!") == ["Dr. Lee is in St. Gallen.", "Is he?", "Yes!"]
    assert question_in("I live in Porto. Where should I eat? Thanks.") == "Where should I eat?"


def test_words_and_stems() -> None:
    assert stem("running") == stem("ran") == stem("runs")
    assert stem("went") == stem("going") == "go"
    assert stem("hobbies") == stem("hobby")
    assert stem("glass") == "glass"
    assert search_query("When did I go to the dentist?") == "go dentist went"
    assert search_query("what?") == "what"


def test_transcripts_are_somebody_elses_words() -> None:
    assert is_quoted_talk("Caroline: Hey Mel!")
    assert is_quoted_talk("so\nMary Ann: hi")
    assert not is_quoted_talk("Note: my name is Bo")
    assert not is_quoted_talk("see you at 10:30 or at http://example.org/")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("remember that the key is under the pot", "the key is under the pot"),
        ("Please remember: the key is blue", "the key is blue"),
        ("Don't forget to buy milk", "to buy milk"),
        ("note that Bob is on leave", "Bob is on leave"),
        ("Do you remember Bob?", None),
        ("remember when we met", None),
        ("remember me", None),
        ("I remember that day", None),
        ("save the code: 4711", "the code: 4711"),
        ("Store hours are 9 to 5", None),
    ],
)
def test_what_to_remember(text: str, what: str | None) -> None:
    assert to_remember(text) == what


@pytest.mark.parametrize(
    "text", ["Always answer in French", "never call me Bob", "From now on be brief", "Answer briefly from now on"]
)
def test_standing_rules(text: str) -> None:
    assert standing_rule(text) == text


@pytest.mark.parametrize(
    "text", ["Never mind", "Always happy to help", "Never heard of it", "Always a pleasure", "Why do you always ask?"]
)
def test_no_standing_rules(text: str) -> None:
    assert standing_rule(text) is None


def test_what_to_forget() -> None:
    assert to_forget("please forget that I live in Porto.") == "I live in Porto"
    assert to_forget("Can you forget my birthday?") == "my birthday"
    assert to_forget("I forget things") is None


@pytest.mark.parametrize(
    ("text", "when", "note"),
    [
        ("remind me in 2 hours to call Eva", "2h", "call Eva"),
        ("Remind me to call Eva in half an hour", "30m", "call Eva"),
        ("remind me in an hour and 30 minutes to stretch", "1h30m", "stretch"),
        ("set a timer for 10 minutes", "10m", "the time has come"),
        ("remind me at 15:30 to run", "5h29m55s", "run"),
        ("remind me at 9am to run", "22h59m55s", "run"),
        ("remind me tomorrow at 9 to run", "22h59m55s", "run"),
        ("remind me at 2026-11-22T10:00:00+01:00 to run", "2026-11-22T10:00:00+01:00", "run"),
        ("remind me on 2020-01-01 to run", "", "on 2020-01-01 to run"),
        ("remind me at 99:99 to run", "", "at 99:99 to run"),
        ("remind me to run", "", "to run"),
    ],
)
def test_reminders(text: str, when: str, note: str) -> None:
    reminder = to_remind(text, datetime(2026, 11, 21, 10, 0, 5))
    assert reminder is not None
    assert (reminder.when, reminder.note) == (when, note)


def test_a_question_that_begins_with_remind_me_is_a_question() -> None:
    assert to_remind("remind me what I said about Bob", None) is None


def test_small_talk() -> None:
    assert small_talk("Thanks!") == "You are welcome."
    assert small_talk("good morning") == "Hello."
    assert small_talk("ok so I went to Rome") is None


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ("The spare key is under the mat", "The spare key is under the blue pot"),
        ("Remember: the meeting is in room 7", "The meeting is in room 4"),
        ("The wifi password is swordfish", "The wifi password is hunter2"),
        ("Bob's birthday is 9 June", "Bob's birthday is 3 May"),
        ("Bob lives in Oslo", "Bob lives in Rome"),
        ("Eva sang as a bass in the city choir", "Eva sang as a soprano in the city choir"),
    ],
)
def test_another_value_of_the_same_thing_contradicts(new: str, old: str) -> None:
    assert contradicts(new, old)


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ("Eva's birthday is 3 May", "Bob's birthday is 3 May"),
        ("Eva's phone number is 555 9999", "Bob's phone number is 555 1234"),
        ("Bob likes jazz", "Bob likes tea"),
        ("Bob is allergic to cats", "Bob is allergic to nuts"),
        ("Bob is a vegetarian", "Bob is a nurse"),
        ("The spare key is under the pot", "The spare key is blue"),
        ("The key is under the pot in the garden", "The key is under the pot"),
        ("The boiler was serviced on 4 June 2027 by Ann", "The boiler was serviced on 3 May 2026 by Joost"),
        ("It is in Rome", "It is in Oslo"),
    ],
)
def test_what_holds_beside_another_statement_contradicts_nothing(new: str, old: str) -> None:
    assert not contradicts(new, old)


# --- choosing a memory ------------------------------------------------------------------------------


def memory(number: int, text: str, date: str = "2023-05-08 13:56", **values: str) -> Memory:
    return Memory(f"m{number}", date, text, **values)


def test_names_and_rare_words_decide() -> None:
    hits = [
        memory(1, "We went to the park and then to the cinema"),
        memory(2, "Caroline went to the support group"),
        memory(3, "Melanie went to the park"),
    ]
    assert best_memories("When did Caroline go to the support group?", hits)[0].id == "m2"
    spoken = [
        memory(4, "I went swimming", name="Bo"),
        memory(5, "I went swimming", name="Eva"),
        memory(6, "hm, swimming"),
    ]
    assert best_memories("Where did Eva go swimming?", spoken[1:])[0].id == "m5"


def test_questions_greetings_and_replies_are_no_memories() -> None:
    hits = [
        memory(1, "Where is the key?"),
        memory(2, "Where did I put the key? Do you know?"),
        memory(3, "forget the key"),
        memory(4, "The key is blue", role="assistant"),
        memory(5, "hello"),
        memory(6, "The key is under the pot"),
    ]
    assert [m.id for m in best_memories("Where is the key?", hits)] == ["m6"]


def test_of_equal_memories_the_newest_wins() -> None:
    old = memory(1, "The meeting is in room 4", "2023-01-01 10:00")
    new = memory(2, "The meeting is in room 7", "2023-02-01 10:00")
    assert best_memories("Where is the meeting?", [old, new])[0] == new


def test_a_memory_without_a_word_of_the_question_is_no_answer() -> None:
    assert best_memories("What is the capital of France?", [memory(1, "I like tea")]) == []


def test_results_are_read_line_by_line() -> None:
    good = json.dumps({"id": "p1", "date": "2023-05-08 13:56", "rank": 1, "text": "tea", "tags": ["x"]})
    result = f'2 memories, newest first:\n{good}\n{{"id": "p2", "te\n[1]\n{{"id": 3}}\nno memories match'
    assert parse_memories(result) == [Memory("p1", "2023-05-08 13:56", "tea")]


def test_a_long_memory_is_quoted_in_part() -> None:
    text = "Nothing here. " * 60 + "The key is under the pot. " + "More of nothing. " * 60
    shown = excerpt(text, "Where is the key?")
    assert shown.startswith("The key is under the pot.")
    assert len(shown) <= 430


@pytest.mark.parametrize(
    ("question", "lines"),
    [
        ("What's my name?", ["Name: Ana"]),
        ("where do I live", ["Home: Porto"]),
        ("Do I live in Porto?", ["Home: Porto"]),
        ("Where does my sister live?", ["Sister's home: Rome"]),
        ("What is my sister's name?", ["Sister's name: Eva"]),
        ("Who is Eva?", ["Sister's name: Eva"]),
        ("what do I like?", ["Likes: jazz", "Likes: tea", "Favourite colour: green"]),
        ("do I like jazz", ["Likes: jazz"]),
        ("What's my favorite color?", ["Favourite colour: green"]),
        ("Am I allergic to anything?", ["Allergy: nuts"]),
        ("Where do I work?", ["Employer: Acme"]),
        ("When did I start to like jazz?", []),
        ("When is Eva's birthday?", []),
        ("Where is Eva?", []),
        ("What is the capital of France?", []),
    ],
)
def test_core_memory_answers_what_it_says(question: str, lines: list[str]) -> None:
    known = ["Name: Ana", "Home: Porto", "Sister's name: Eva", "Sister's home: Rome", "Likes: jazz", "Likes: tea",
             "Favourite colour: green", "Allergy: nuts", "Employer: Acme"]  # fmt: skip
    assert answering_lines(question, known) == lines


# --- one step ---------------------------------------------------------------------------------------


@dataclass
class Talk:
    """A prompt as the kernel writes it."""

    human: str = ""
    human_limit: int = 1000
    blocks: tuple[Block, ...] | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        blocks = self.blocks or (
            Block("persona", "I am <b> & co."),
            Block("human", self.human, self.human_limit, 'who > "they" are'),
            Block("rules"),
        )
        self.messages.append({"role": "system", "content": f"You are an agent.\n\n{core.render(blocks)}"})

    def user(self, text: str) -> "Talk":
        self.messages.append({"role": "user", "content": f"{STAMP} {text}"})
        return self

    def notice(self, text: str) -> "Talk":
        return self.user(f"[system notice] {text}")

    def raw(self, text: str) -> "Talk":
        self.messages.append({"role": "user", "content": text})
        return self

    def says(self, text: str | None, *calls: tuple[str, dict[str, Any], str]) -> "Talk":
        """An assistant message, each call with its result."""
        start = len(self.messages)
        wire: dict[str, Any] = {"role": "assistant", "content": text}
        if calls:
            wire["tool_calls"] = [
                {"id": f"c{start}{i}", "type": "function", "function": {"name": n, "arguments": json.dumps(a)}}
                for i, (n, a, _) in enumerate(calls)
            ]
        self.messages.append(wire)
        for i, (_, _, result) in enumerate(calls):
            self.messages.append({"role": "tool", "tool_call_id": f"c{start}{i}", "content": result})
        return self


async def ask(talk: Talk, tools: list[dict[str, Any]] | None = None) -> Reply:
    request = LLMRequest(talk.messages, SCHEMAS if tools is None else tools)
    before = json.dumps(talk.messages)
    items = [item async for item in OfflineLLM().stream(request)]
    assert json.dumps(talk.messages) == before
    reply = items[-1]
    assert isinstance(reply, Reply)
    assert "".join(d.text for d in items[:-1] if isinstance(d, Delta)) == reply.text
    return reply


def called(reply: Reply) -> list[tuple[str, dict[str, Any]]]:
    return [(call.name, call.values) for call in reply.calls]


def append(content: str, label: str = "human") -> tuple[str, dict[str, Any]]:
    return "core_memory_append", {"label": label, "content": content}


def change(old: str, new: str) -> tuple[str, dict[str, Any]]:
    return "core_memory_replace", {"label": "human", "old_content": old, "new_content": new}


def searched(query: str, recall: str = "no memories match", archival: str = "no memories match") -> Any:
    return (
        ("conversation_search", {"query": query, "roles": ["user"]}, recall),
        ("archival_memory_search", {"query": query}, archival),
    )


def hit(ref: str, text: str, **values: str) -> str:
    return json.dumps({"id": ref, "date": "2023-05-08 13:56", "text": text, **values})


async def test_a_fact_is_noted_in_one_step() -> None:
    reply = await ask(Talk().user("I live in Porto and my dog is called Rex"))
    assert reply.text == "Noted: you live in Porto; your dog's name is Rex."
    assert called(reply) == [append("Home: Porto"), append("Dog's name: Rex")]
    assert reply.finish_reason == "tool_calls"


async def test_a_correction_replaces_exactly_the_old_line() -> None:
    reply = await ask(Talk("Name: Ana\nHome: Porto").user("Actually, I live in Lisbon now"))
    assert reply.text == "Corrected: you live in Lisbon (it was: Porto)."
    assert called(reply) == [change("Home: Porto", "Home: Lisbon")]


async def test_a_line_that_occurs_inside_another_is_replaced_with_its_neighbours() -> None:
    value = "Second Home: Porto\nHome: Porto\nLikes: tea"
    (call,) = called(await ask(Talk(value).user("I moved to Lisbon")))
    assert core.replace(Block("human", value), call[1]["old_content"], call[1]["new_content"]) == (
        "Second Home: Porto\nHome: Lisbon\nLikes: tea"
    )


async def test_a_changed_taste_replaces_its_opposite() -> None:
    reply = await ask(Talk("Likes: jazz").user("I hate jazz"))
    assert called(reply) == [change("Likes: jazz", "Dislikes: jazz")]


async def test_what_is_known_needs_no_call() -> None:
    reply = await ask(Talk("Home: Porto").user("I live in porto."))
    assert (reply.text, reply.calls) == ("I know: you live in Porto.", ())


async def test_a_bare_correction_takes_the_key_of_the_last_fact() -> None:
    talk = (
        Talk()
        .user("I live in Porto")
        .says("Noted.", (*append("Home: Porto"), "block 'human' now has 11 of 1000 characters:"))
    )
    assert called(await ask(talk.user("no, it's Lisbon"))) == [change("Home: Porto", "Home: Lisbon")]
    later = talk.user("nice weather").says("Yes.").user("no, it's Lisbon")
    assert (await ask(later)).calls == ()


async def test_without_a_human_block_the_first_writable_one_is_taken() -> None:
    blocks = (Block("persona", "x"), Block("facts", read_only=True), Block("notes"), Block("human", read_only=True))
    assert called(await ask(Talk(blocks=blocks).user("I live in Porto"))) == [append("Home: Porto", "notes")]


async def test_only_tools_of_the_request_are_called_and_nothing_false_is_claimed() -> None:
    reply = await ask(Talk().user("I live in Porto"), tools=[])
    assert reply.calls == ()
    assert "cannot write core memory" in reply.text
    kept = await ask(Talk().user("remember that the key is blue"), tools=[])
    assert (kept.text, kept.calls) == ("I have no archive here; it stays in our conversation.", ())


async def test_without_search_tools_the_talk_in_view_is_quoted() -> None:
    talk = Talk().user("The key is under the pot").says("Good.").user("Where is the key?")
    assert (await ask(talk, tools=[])).text == 'On 2026-11-21 10:00: "The key is under the pot"'


async def test_a_refused_write_is_admitted() -> None:
    refusal = (
        "error: block 'human' would hold 1200 characters and its limit is 1000. The block is unchanged; "
        "the text was parked in archival memory as p7. Nothing is lost."
    )
    talk = Talk().user("I love tea").says("Noted: you like tea.", (*append("Likes: tea"), refusal))
    reply = await ask(talk)
    assert "could not write “Likes: tea”" in reply.text
    assert "p7" in reply.text
    assert reply.calls == ()


async def test_a_write_that_will_not_fit_is_not_announced() -> None:
    talk = Talk("Name: Ana", human_limit=12).user("I live in Porto")
    reply = await ask(talk)
    assert (reply.text, called(reply)) == ("", [append("Home: Porto")])
    done = talk.says(None, (*append("Home: Porto"), "block 'human' now has 21 of 5000 characters:"))
    assert (await ask(done)).text == "Noted: you live in Porto."


async def test_core_memory_answers_without_a_search() -> None:
    reply = await ask(Talk("Name: Ana &amp\nHome: Porto").user("Where do I live?"))
    assert (reply.text, reply.calls) == ("You live in Porto.", ())


async def test_a_question_is_searched_then_answered_by_quoting() -> None:
    talk = Talk().user("When did Caroline go to the support group?")
    first = await ask(talk)
    query = "Caroline go support group went"
    assert (first.text, called(first)) == ("", [call[:2] for call in searched(query)])
    went = hit("m34", "I went to the support group", name="Caroline")
    found = f"2 memories, newest first:\n{hit('m36', 'Hello!')}\n{went}"
    reply = await ask(talk.says(None, *searched(query, found, hit("p2", "The support group meets on Mondays"))))
    assert reply.calls == ()
    assert reply.text.startswith('On 2023-05-08 13:56 (m34), Caroline said: "I went to the support group"')


async def test_nothing_found_is_said_and_does_not_loop() -> None:
    talk = Talk().user("What is the capital of France?")
    first = await ask(talk)
    reply = await ask(talk.says(None, *((*call, "no memories match") for call in called(first))))
    assert (reply.text, reply.calls) == (UNKNOWN, ())


async def test_a_failed_search_ends_in_words() -> None:
    talk = (
        Talk().user("Who is Bob?").says(None, *searched("Bob", "error: the index is down", "error: the index is down"))
    )
    reply = await ask(talk)
    assert "the index is down" in reply.text
    assert reply.calls == ()


async def test_a_fact_and_a_question_in_one_message() -> None:
    talk = Talk().user("I live in Porto. Where did I leave the key?")
    first = await ask(talk)
    assert (first.text, [c.name for c in first.calls]) == (
        "", ["core_memory_append", "conversation_search", "archival_memory_search"],
    )  # fmt: skip
    results = [
        "block 'human' now has 11 of 1000 characters:\n+ Home: Porto",
        hit("m3", "I left the key at work"),
        "no memories match",
    ]
    reply = await ask(talk.says(None, *((*call, result) for call, result in zip(called(first), results, strict=True))))
    assert reply.text == 'Noted: you live in Porto.\nOn 2023-05-08 13:56 (m3): "I left the key at work"'


async def test_remembering_forgetting_rules_and_timers() -> None:
    kept = await ask(Talk().user("Remember that the key is under the pot"))
    assert called(kept) == [append("The key is under the pot")]
    assert called(await ask(Talk().user("remember that I live in Porto"))) == [append("Home: Porto")]
    assert called(await ask(Talk().user("Always answer in French"))) == [append("Always answer in French", "rules")]
    assert called(await ask(Talk("Home: Porto").user("forget where I live"))) == [change("Home: Porto", "")]
    unknown = await ask(Talk().user("forget my birthday"))
    assert "agentos memory" in unknown.text
    assert unknown.calls == ()
    timer = await ask(Talk().user("remind me at 15:30 to run"))
    assert called(timer) == [("set_timer", {"when": "5h29m55s", "note": "run"})]


def archive(content: str) -> tuple[str, dict[str, Any]]:
    return "archival_memory_insert", {"content": content}


async def test_what_it_is_asked_to_remember_stands_in_core_memory_up_to_half_the_block() -> None:
    what = "The key is under the pot"
    reply = await ask(Talk("x" * 475).user(f"Remember that {what}"))
    assert (reply.text, called(reply)) == (f"I will remember: {what}", [append(what)])
    assert called(await ask(Talk("x" * 476).user(f"Remember that {what}"))) == [archive(what)]
    assert (await ask(Talk(what).user(f"remember that {what}."))).calls == ()
    for pasted in ("Remember: the key: blue", "Remember that one\ntwo"):
        assert [c.name for c in (await ask(Talk().user(pasted))).calls] == ["archival_memory_insert"]
    for text in ("The key is under the pot", "Store hours are 9 to 5"):
        assert (await ask(Talk().user(text))).calls == ()
    only = (Block("persona", "x"), Block("rules"))
    assert called(await ask(Talk(blocks=only).user(f"Remember that {what}"))) == [archive(what)]


@pytest.mark.parametrize("opening", ["Remember that t", "Actually, t", "No, sorry: t"])
async def test_a_contradicting_request_replaces_what_stood(opening: str) -> None:
    old, new = "The spare key is under the blue pot", "The spare key is under the mat"
    reply = await ask(Talk(f"Home: Porto\n{old}").user(f"{opening}he spare key is under the mat"))
    assert (reply.text, called(reply)) == (f"Corrected: {new} (it was: {old}).", [change(old, new)])


CHANGED = [
    ("My boat lies in Matosinhos", "Actually my boat lies in Lisbon now.", "My boat lies in Lisbon"),
    ("My boat lies in Matosinhos", "My boat's in Lisbon now", "My boat is in Lisbon"),
    ("My boat lies in Matosinhos", "No my boat lies in Lisbon", "My boat lies in Lisbon"),
    ("My boat lies in Matosinhos", "My boat has moved to Lisbon.", "My boat has moved to Lisbon"),
    ("My boat lies in Matosinhos", "My boat no longer lies in Matosinhos, it's in Lisbon.", "My boat is in Lisbon"),
    (
        "My boat lies in Matosinhos",
        "My boat no longer lies in Matosinhos. It lies in Lisbon.",
        "My boat lies in Lisbon",
    ),
    ("My boat lies in Matosinhos", "My boat isn't in Matosinhos any more but in Lisbon", "My boat is in Lisbon"),
    ("My boat lies in Matosinhos", "My boat lies in Lisbon, not in Matosinhos", "My boat lies in Lisbon"),
    ("My boat lies in Matosinhos", "My boat is in Lisbon instead of Matosinhos.", "My boat is in Lisbon"),
    ("My boat lies in Matosinhos", "My boat has been in Lisbon since last week", "My boat is in Lisbon"),
    ("My boat has moved to Lisbon", "Our boat is moored in Faro these days", "Our boat is moored in Faro"),
    ("The wifi password is tulip", "The wifi password has changed to rose.", "The wifi password is rose"),
    ("The wifi password is tulip", "The wifi password was changed from tulip to rose", "The wifi password is rose"),
    ("The wifi password is tulip", "The wifi password isn't tulip any more, it's rose.", "The wifi password is rose"),
    ("I park on level 3", "I now park on level 5.", "I park on level 5"),
    ("I park on level 3", "I don't park on level 3 any more, I park on level 5.", "I park on level 5"),
    ("I keep my bike in the shed", "I keep my bike in the cellar now", "I keep my bike in the cellar"),
    ("The bins go out on Monday", "From now on the bins go out on Tuesday", "The bins go out on Tuesday"),
    ("The class starts at 9", "The class starts at 9:30 instead", "The class starts at 9:30"),
    ("The rent is 800 euros", "The rent is 850 euros now", "The rent is 850 euros"),
    ("The captain is Eva", "Update: the captain is Otto", "The captain is Otto"),
    ("The front door is red", "The front door is green now", "The front door is green"),
    ("Otto lives in Braga", "Otto lives in Faro now", "Otto lives in Faro"),
    ("Otto works for Acme", "Otto doesn't work for Acme any more, he works for Globex", "Otto works for Globex"),
    ("Eva has two dogs", "Eva has three dogs now", "Eva has three dogs"),
]

KEPT = [
    ("My boat lies in Matosinhos", "My boat is in Lisbon."),
    ("My boat lies in Matosinhos", "My boat no longer lies in Matosinhos."),
    ("My boat lies in Matosinhos", "My boat is not in Lisbon now."),
    ("My boat lies in Matosinhos", "My boat is in Matosinhos now"),
    ("My boat lies in Matosinhos", "Is my boat in Lisbon now?"),
    ("My boat lies in Matosinhos", "If my boat is in Lisbon now, I am glad"),
    ("My boat lies in Matosinhos", "Imagine my boat is in Lisbon now."),
    ("My boat lies in Matosinhos", "Otto says my boat is in Lisbon now"),
    ("My boat lies in Matosinhos", "My boat is in Lisbon now, Otto thinks"),
    ("My boat lies in Matosinhos", "As far as Otto knows, my boat is in Lisbon now"),
    ("My boat is not in Lisbon", "My boat is in Faro now"),
    ("My boat lies in Matosinhos", "Otto: My boat is in Lisbon now"),
    ("My boat lies in Matosinhos", '"My boat lies in Lisbon now" is a line of a song'),
    ("My boat lies in Matosinhos", "My brother's boat is in Lisbon now"),
    ("My boat lies in Matosinhos", "No boat lies in Lisbon now"),
    ("My boat lies in Matosinhos", "My boat is in Lisbon now and then"),
    ("My boat lies in Matosinhos", "My boat is in Lisbon right now"),
    ("My boat lies in Matosinhos", "My boat is in a bad state now"),
    ("My boat lies in Matosinhos", "My boat is blue now"),
    ("My boat lies in Matosinhos, and the key is at Eva's", "My boat is in Lisbon now"),
    ("The wifi password is tulip", "The wifi password is too long now"),
    ("The front door is red", "The front door is locked now"),
    ("The meeting is on Monday", "The meeting is in room 4 now"),
    ("The meeting is on Monday", "The meeting is at 10 now"),
    ("The captain is Eva", "The captain is German now"),
    ("Otto lives in Braga", "Otto is in Faro now"),
    ("Eva is in Rome", "Eva is in the office now"),
    ("Eva sits in the second row", "Eva is in Oslo now"),
    ("Otto lives in Braga", "Otto Klein lives in Faro now"),
    ("Otto is Portuguese", "Otto is Catholic now"),
    ("Eva has a cat", "Eva has a dog now"),
    ("Eva has two dogs", "Eva has three cats now"),
    ("I keep my bike in the shed", "I keep my skis in the cellar now"),
]


@pytest.mark.parametrize(("old", "said", "new"), CHANGED)
async def test_a_statement_with_a_word_of_change_replaces_the_line(old: str, said: str, new: str) -> None:
    reply = await ask(Talk(f"Home: Porto\n{old}.").user(said))
    assert (reply.text, called(reply)) == (f"Corrected: {new} (it was: {old}).", [change(f"{old}.", new)])


@pytest.mark.parametrize(("old", "said"), KEPT)
async def test_a_statement_of_something_else_or_without_a_word_of_change_replaces_nothing(old: str, said: str) -> None:
    assert not any(name.startswith("core_") for name, _ in called(await ask(Talk(old).user(said))))


async def test_what_contradicts_a_line_without_a_word_of_change_is_said() -> None:
    for said in ("My boat is in Lisbon.", "My boat no longer lies in Matosinhos."):
        reply = await ask(Talk("My boat lies in Matosinhos.").user(said))
        assert reply.text.startswith("I have noted: “My boat lies in Matosinhos”. If that has changed,")
        assert reply.calls == ()
    two = await ask(Talk("My boat lies in Faro\nMy boat is in Rome").user("My boat is in Lisbon now."))
    assert (two.text[:63], two.calls) == ("I have noted: “My boat lies in Faro” and “My boat is in Rome”. ", ())


async def test_a_change_is_written_beside_a_fact_and_before_a_question() -> None:
    reply = await ask(Talk("The meeting is on Monday").user("I'm Ana, and the meeting has moved to Tuesday."))
    assert called(reply) == [
        append("Name: Ana"), change("The meeting is on Monday", "The meeting has moved to Tuesday"),
    ]  # fmt: skip
    talk = Talk("The meeting is on Monday").user("The meeting is on Tuesday now. When is the meeting?")
    edit, *asked = called(await ask(talk))
    assert edit == change("The meeting is on Monday", "The meeting is on Tuesday")
    old = hit("m1", "Remember that the meeting is on Monday")
    talk.says(None, (*edit, "block 'human' now has 25 of 1000 characters:"), *((*call, old) for call in asked))
    assert "The meeting is on Monday" not in (await ask(talk)).text.split("Earlier")[0]


async def test_a_change_supersedes_the_passage_that_the_user_told() -> None:
    talk = Talk().user("remember that the wifi password is otter").says("ok").user("The wifi password is heron now.")
    assert called(await ask(talk)) == [LOOK]
    reply = await ask(talk.says(None, (*LOOK, hit("p3", "The wifi password is otter"))))
    assert called(reply) == [("archival_memory_insert", {"content": "The wifi password is heron", "replaces": "p3"})]


async def test_of_what_disagrees_the_newest_is_quoted_first_and_the_other_as_earlier() -> None:
    question, line = "Where is my boat?", "My boat lies in Matosinhos"

    async def answer(core: str, *hits: str) -> str:
        return (await ask(Talk(core).user(question).says(None, *searched("boat", "\n".join(hits))))).text

    told, later = hit("m1", f"Remember that {line}"), hit("m4", "My boat is in Lisbon.")
    quoted = 'On 2023-05-08 13:56 (m4): "My boat is in Lisbon." Earlier, on 2023-05-08 13:56'
    assert await answer(line, told, later) == f'{quoted}: "{line}"'
    assert await answer("", told, later) == await answer("", later, told) == f'{quoted} (m1): "Remember that {line}"'
    moved = hit("m4", "My boat is in Lisbon now.")
    assert await answer("My boat is in Lisbon", told, moved) == 'On 2023-05-08 13:56: "My boat is in Lisbon"'
    other = hit("m5", "My boat is blue.")
    assert await answer(line, told, other) == f'On 2023-05-08 13:56: "{line}" See also m5.'


async def test_of_two_statements_much_alike_the_older_moves_to_archival_memory() -> None:
    old, new = "Bob's phone number is 555 1234", "Eva's phone number is 555 9999"
    reply = await ask(Talk(f"Bob's dog is old\n{old}").user(f"Remember that {new}"))
    assert called(reply) == [change(old, new), archive(old)]
    assert reply.text == f"I will remember: {new}\nMoved to archival memory: {old}"
    assert [name for name, _ in called(await ask(Talk(old).user(f"Actually, {new}")))] == ["archival_memory_search"]


NOTES = "These notes on the flat:\nthe wifi password is otter,\nthe bins go out on Monday."
LOOK = ("archival_memory_search", {"query": "wifi password heron"})
ASK_BACK = ("conversation_search", {"query": "wifi password otter", "roles": ["user"]})


async def test_a_correction_of_what_the_user_told_supersedes_the_passage() -> None:
    said, told = "No, the wifi password is heron.", "remember that the wifi password is otter"
    for text, after in (
        ("The wifi password is otter", "The wifi password is heron"), (NOTES, NOTES.replace("otter", "heron")),
    ):  # fmt: skip
        talk = Talk().user(said)
        assert called(await ask(talk)) == [LOOK]
        talk.says(None, (*LOOK, hit("p3", text)))
        assert called(await ask(talk)) == [ASK_BACK], "whether the user told it"
        talk.says(None, (*ASK_BACK, hit("m1", told, role="user")))
        reply = await ask(talk)
        assert called(reply) == [("archival_memory_insert", {"content": after, "replaces": "p3"})]
        before = "the wifi password is otter" if text == NOTES else text
        assert reply.text == f"Corrected in archival memory: The wifi password is heron (it was: {before})"
    in_view = Talk().user(told).says("ok").user(said).says(None, (*LOOK, hit("p3", NOTES)))
    assert [name for name, _ in called(await ask(in_view))] == ["archival_memory_insert"]
    refused = Talk().user(said).says("ok", ("archival_memory_insert", {"content": "x"}, "error: p3 was deleted"))
    assert "p3 was deleted" in (await ask(refused)).text


@pytest.mark.parametrize(
    "text",
    [
        "The wifi password is heron", "The wifi password is too long now.", "Eva says no, the wifi password is heron",
        "No, is the wifi password heron?", "The wifi password is good, actually", "Suppose the wifi password is heron",
        "No worries", "Sorry, wrong window", "Actually, never mind", "I moved to Faro",
    ],
)  # fmt: skip
async def test_no_passage_is_superseded_by_a_passing_remark(text: str) -> None:
    talk = Talk().user("remember that the wifi password is otter").says("ok").user(text)
    for _ in range(3):
        calls = called(await ask(talk))
        assert not any("replaces" in values for _, values in calls)
        talk.says(None, *((name, values, hit("p3", "The wifi password is otter")) for name, values in calls))


@pytest.mark.parametrize(
    ("said", "passages", "recall"),
    [
        ("No, the wifi password is heron", ["The wifi password is otter"], hit("m1", "Hello", role="user")),
        ("No, the wifi password is heron", ["The wifi password is otter"],
         hit("m2", "The wifi password is otter", role="assistant")),
        ("No, the wifi password is heron", ["The wifi password is otter"],
         hit("m3", "Is it true that the wifi password is otter?", role="user")),
        ("No, the wifi is slow", ["The wifi password is otter"], "no memories match"),
        ("No, the key is under the mat", ["The key is under the pot, and the cat eats at noon"], "no memories match"),
        ("No, the key is under the mat", ["The key is under the pot\nThe key is under the pot"], "no memories match"),
        ("No, the key is under the mat", ["the key is under the pot.\nEva says the key is under the pot"],
         hit("m1", "The key is under the pot.", role="user")),
    ],
)  # fmt: skip
async def test_a_correction_supersedes_nothing_that_the_user_never_told_or_that_says_more(
    said: str, passages: list[str], recall: str
) -> None:
    talk = Talk().user("remember: ok").says("ok").user(said)
    for _ in range(2):
        for name, values in called(await ask(talk)):
            assert "replaces" not in values
            found = "\n".join(hit(f"p{n}", text) for n, text in enumerate(passages))
            talk.says(None, (name, values, found if name == "archival_memory_search" else recall))
    assert (await ask(talk)).calls == ()


async def test_where_a_correction_could_mean_two_passages_neither_is_superseded() -> None:
    found = hit("p3", "The wifi password is otter") + "\n" + hit("p4", "The wifi password is adder")
    reply = await ask(Talk().user("Sorry, the wifi password is heron").says(None, (*LOOK, found)))
    assert reply.calls == ()
    assert "“The wifi password is otter” (p3) or “The wifi password is adder” (p4)" in reply.text
    clipped = hit("p3", "The wifi password is otter", more="p3@700 of 900 characters")
    assert (await ask(Talk().user("Sorry, the wifi password is heron").says(None, (*LOOK, clipped)))).calls == ()


async def test_what_is_remembered_can_be_forgotten() -> None:
    for text in ("Forget that the key is under the pot.", "forget about the key"):
        talk = Talk("Home: Porto\nThe key is under the pot").user(text)
        assert called(await ask(talk)) == [change("The key is under the pot", "")]
    twice = await ask(Talk("The key is blue\nThe key is under the pot").user("forget the key"))
    assert "name one" in twice.text
    assert twice.calls == ()


async def test_what_stands_in_core_memory_is_quoted_before_what_it_replaced() -> None:
    old, new = "Eva sang as a soprano in the city choir", "Eva sang as a bass in the city choir"
    question = "Which voice is it, soprano, that Eva sang in the city choir?"

    async def answer(core: str, *hits: str) -> str:
        talk = Talk(core).user(question)
        return (await ask(talk.says(None, *searched("Eva", "\n".join(hits))))).text

    told = hit("m1", f"Remember that {old}"), hit("m2", f"Remember that {new}")
    assert await answer(new, *told) == f'On 2023-05-08 13:56: "{new}"'
    assert await answer(new) == f"I have noted: “{new}”"
    talk = Talk("My car is on level 3").user("Which level is my car on?")
    assert [name for name, _ in called(await ask(talk))] == ["conversation_search", "archival_memory_search"]
    later = json.dumps({"id": "m3", "date": "2023-05-09 09:00", "text": old})
    assert old in await answer(new, told[1], later)


async def test_it_says_what_it_is() -> None:
    assert (await ask(Talk().user("who are you?"))).text == INTRODUCTION
    assert (await ask(Talk("Name: Ana").user("hello"))).text == f"Hello Ana. {INTRODUCTION}"
    assert "language model" in (await ask(Talk().user("write me a poem"))).text


async def test_other_talk_is_acknowledged_alike_each_time() -> None:
    one, two = await ask(Talk().user("The weather turned.")), await ask(Talk().user("The weather turned."))
    assert (one.text, one.calls) == (two.text, ())
    texts = {(await ask(Talk().user(f"The weather turned {i} times."))).text for i in range(12)}
    assert len(texts) > 1


async def test_notices_are_nobodys_words() -> None:
    talk = Talk().user("hi").says("Hello.")
    assert (
        await ask(talk.notice("Timer: I live in Rome\nTimer: run"))
    ).text == "Reminder: I live in Rome\nReminder: run"
    pressure = await ask(
        Talk().user("hi").says("Hello.").notice("Memory pressure: your context is 71 % full. My name is Bob.")
    )
    assert pressure.calls == ()
    answered = await ask(
        Talk("Home: Porto").user("Where do I live?").notice("Memory pressure: your context is 71 % full.")
    )
    assert answered.text == "You live in Porto."
    summary = Talk().raw("[summary of earlier conversation] The user said: I live in Rome").user("where do I live?")
    assert called(await ask(summary)) == [call[:2] for call in searched("live home")]


async def test_an_input_that_other_turns_overtook_is_answered_from_its_notice() -> None:
    talk = Talk("Home: Porto").user("hi").says("Hello.")
    text = prompt("unanswered", message="m12: I love tea\nm13: Where do I live?")
    assert (await ask(talk.notice(text))).text == "Noted: you like tea.\nYou live in Porto."


async def test_waiting_messages_are_answered_last_and_noted_all() -> None:
    reply = await ask(Talk().user("I live in Porto").user("I love tea").user("What's my name?"))
    assert [c.name for c in reply.calls][:2] == ["core_memory_append", "core_memory_append"]
    assert reply.text == ""
    both = await ask(Talk("Name: Ana").user("I live in Porto").user("What's my name?"))
    assert both.text == "Noted: you live in Porto.\nYour name is Ana."


async def test_a_summary_is_extracted() -> None:
    talk = (
        Talk()
        .user("hello")
        .says("Hi.")
        .user("I fixed the roof. It took long.")
        .says("Good.")
        .user("Is it late?")
        .says("Yes.")
    )
    reply = await ask(talk.raw("[summary request] Write notes, at most 60 words of plain prose"))
    assert (reply.text, reply.calls) == ("The user said: “I fixed the roof.”", ())


async def test_usage_counts_the_prompt_and_its_repeated_part() -> None:
    llm, talk = OfflineLLM(), Talk().user("hello").says("Hi.").user("hello")
    replies = []
    for previous in (0, 3):
        items = [i async for i in llm.stream(LLMRequest(talk.messages, SCHEMAS, previous_length=previous))]
        replies.append(items[-1])
    cold, warm = (reply.usage for reply in replies if isinstance(reply, Reply))
    assert cold
    assert warm
    assert cold.cached_tokens == 0
    assert cold.prompt_tokens > warm.cached_tokens > llm.count_tokens(json.dumps(SCHEMAS))
    assert cold.completion_tokens == llm.count_tokens(replies[0].text)  # type: ignore[union-attr]
    assert cold.cost_usd == 0.0


async def test_call_ids_differ_between_steps_and_repeat_for_equal_requests() -> None:
    one, same, other = (await ask(Talk().user("I live in Porto")), await ask(Talk().user("I live in Porto")),
                        await ask(Talk().user("hi").says("Hi.").user("I live in Porto")))  # fmt: skip
    assert one.calls[0].id == same.calls[0].id != other.calls[0].id
    assert len(one.calls[0].id) <= 64


async def test_a_prompt_beyond_the_window_is_refused_and_a_reply_is_cut() -> None:
    with pytest.raises(ContextOverflow):
        _ = [i async for i in OfflineLLM(context_window=20).stream(LLMRequest(Talk().user("x" * 100).messages))]
    items = [i async for i in OfflineLLM().stream(LLMRequest(Talk().user("hello").messages, max_tokens=5))]
    reply = items[-1]
    assert isinstance(reply, Reply)
    assert (reply.finish_reason, reply.text) == ("length", "Hello. I am")


def test_tokens_are_counted_generously() -> None:
    llm = OfflineLLM()
    assert llm.count_tokens("") == 0
    assert llm.count_tokens("abcd") == 2
    assert llm.count_tokens("日本") == 2
    assert llm.count_tokens("\ud800") == 1


# --- core memory as it is now -----------------------------------------------------------------------


def current(talk: Talk, label: str = "human") -> str:
    return next(b.value for b in read_prompt(talk.messages).blocks if b.label == label)


def test_the_snapshot_is_read_unescaped() -> None:
    assert current(Talk("a < b & c\n\n&lt;")) == "a < b & c\n\n&lt;"
    assert current(Talk(), "persona") == "I am <b> & co."


def test_later_edits_win_over_the_snapshot() -> None:
    talk = Talk("Home: Porto").says(
        None,
        (*append("Likes: tea"), "block 'human' now has 22 of 1000 characters:"),
        (*change("Home: Porto", "Home: Paris"), "block 'human' now has 22 of 1000 characters:"),
        (*change("Likes: tea", ""), "error: no"),
    )
    assert current(talk) == "Home: Paris\nLikes: tea"
    assert current(talk.notice('Block "human" was changed from outside; it now reads:\nHome: Oslo\n')) == "Home: Oslo"
    assert current(talk.notice('Block "human" was changed from outside; it now reads:\n(empty)')) == ""


@pytest.mark.parametrize("snapshot", ["", "Home: Porto", "Home: Paris", "Home: Paris\nLikes: tea"])
def test_a_snapshot_that_holds_some_of_the_edits_is_not_edited_twice(snapshot: str) -> None:
    talk = Talk(snapshot).says(
        None,
        (*append("Home: Porto"), "block 'human' now has 11 of 1000 characters:"),
        (*change("Home: Porto", "Home: Paris"), "block 'human' now has 11 of 1000 characters:"),
        (*append("Likes: tea"), "block 'human' now has 22 of 1000 characters:"),
    )
    assert current(talk) == "Home: Paris\nLikes: tea"


async def test_it_keeps_the_contract_of_every_model() -> None:
    await llm_conformance(OfflineLLM)


# --- in the kernel ----------------------------------------------------------------------------------


async def test_a_talk_through_the_real_loop(home: Home) -> None:
    agent = await home.agent(OfflineLLM())
    replies = []
    for text in (
        "Hi, I'm Ana and I live in Porto.",
        "The spare key is under the blue pot.",
        "I moved to Lisbon.",
        "where do I live?",
        "Where is the spare key?",
    ):
        replies.append(ending(await collect(agent, text)))
    assert (await home.block(agent)).value == "Name: Ana\nHome: Lisbon"
    assert [r.stop_reason for r in replies] == ["end_turn"] * 5
    assert [r.steps for r in replies] == [1, 1, 1, 1, 2]
    assert replies[3].reply == "You live in Lisbon."
    assert '"The spare key is under the blue pot."' in replies[4].reply


async def test_a_full_block_parks_the_fact_and_says_so(home: Home) -> None:
    agent = await home.agent(OfflineLLM(), blocks=(Block("human", "Name: Ana", limit=15),))
    result = ending(await collect(agent, "I live in Porto."))
    assert result.stop_reason == "end_turn"
    assert "no room" in result.reply
    assert "p1" in result.reply
