"""Ranking past messages by the talk around them, who spoke, and when."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agentos.memory import recall
from agentos.memory.period import named_period
from agentos.memory.recall import Place
from agentos.messages import Message
from agentos.protocols import SearchQuery
from agentos.state import AgentRecord
from conftest import Home

NOW = datetime(2026, 5, 8, 9, 30, tzinfo=UTC)  # a Friday


@pytest.fixture
def home(either_home: Home) -> Home:
    return either_home


def place(number: int, session: str | None = "s1", minutes: int = 0, **more: Any) -> Place:
    values = {"role": "user", "name": None} | more
    return Place(number, values["role"], values["name"], session, NOW + timedelta(minutes=minutes))


def test_a_word_counts_for_the_messages_around_the_one_that_holds_it() -> None:
    places = [place(n) for n in range(1, 7)]
    scores = recall.spread([{3: 2.0}], places)
    near = [1.0, recall.NEAR[0], recall.NEAR[1], 0.0]
    expected = [near[2], near[1], near[0], near[1], near[2], near[3]]
    pooled = recall.SESSION * (1 + 2 * recall.NEAR[0])
    peak = 1 + pooled
    assert scores.tolist() == pytest.approx([(own + pooled) / peak for own in expected])


def test_words_do_not_reach_into_another_session_or_over_a_pause() -> None:
    sessions = [place(1, "s1"), place(2, "s2")]
    assert recall.spread([{1: 1.0}], sessions).tolist() == [1.0, 0.0]
    silence = [place(1, None), place(2, None, minutes=30), place(3, None, minutes=120)]
    assert recall.talk_numbers(silence).tolist() == [0, 0, 1]
    assert recall.spread([{1: 1.0}], silence)[2] == 0.0


def test_each_word_counts_once_where_several_neighbours_hold_it() -> None:
    places = [place(1), place(2), place(3)]
    both = recall.spread([{1: 1.0, 3: 1.0}], places)
    assert both[0] == both[2] == 1.0
    assert both[1] < 1.0, "two neighbours with one word are not as good as the word itself"
    two_words = recall.spread([{1: 1.0}, {3: 1.0}], places)
    assert two_words[1] > both[1], "but between two words of the question stands what it may ask for"


def test_what_the_agent_said_counts_less_than_what_the_user_said() -> None:
    places = [place(1, "s1"), place(2, "s2", role="assistant")]
    scores = recall.spread([{1: 1.0, 2: 1.0}], places)
    assert scores[1] == pytest.approx(recall.SAID_BY_AGENT * scores[0])


def test_factors_for_speaker_time_and_questions() -> None:
    ada, agent = place(1, name="Ada"), place(2, role="assistant")
    period = (NOW - timedelta(days=1), NOW + timedelta(days=1))
    assert recall.factor(ada, "I moved.", "Where does ADA live?", None) == recall.NAMED
    assert recall.factor(ada, "I moved.", "Where is Adam?", None) == 1.0
    assert recall.factor(ada, "I moved.", "Where?", period) == recall.IN_PERIOD
    assert recall.factor(ada, "Where do you live?", "Where?", None) == recall.ONLY_ASKS
    assert recall.factor(agent, "You moved.", "Where?", None) == recall.BY_AGENT


def test_further_messages_of_one_talk_make_room_for_another() -> None:
    places = [place(1, "s1"), place(2, "s1"), place(3, "s2")]
    lowered = recall.less_of_one_talk([1.0, 0.99, 0.97], places)
    assert lowered == [1.0, 0.99 * recall.AGAIN, 0.97]
    assert recall.less_of_one_talk([], []) == []


@pytest.mark.parametrize(
    ("question", "first", "last"),
    [
        ("What did I do two weeks ago?", "2026-04-22", "2026-04-26"),
        ("What did I read 5 days ago?", "2026-05-02", "2026-05-04"),
        ("Which event was a month ago?", "2026-03-31", "2026-04-15"),
        ("Who came last Saturday?", "2026-05-02", "2026-05-02"),
        ("Who came last Friday?", "2026-05-01", "2026-05-01"),
        ("How much did I run last week?", "2026-04-24", "2026-05-08"),
        ("What was it yesterday?", "2026-05-07", "2026-05-07"),
    ],
)
def test_the_time_that_a_question_names(question: str, first: str, last: str) -> None:
    period = named_period(question, NOW)
    assert period is not None
    assert (str(period[0].date()), str(period[1].date())) == (first, last)
    assert (period[0].hour, period[1].hour) == (0, 23)


@pytest.mark.parametrize("question", ["What did I do?", "Ages ago?", "At last!", "in the last resort"])
def test_a_question_that_names_no_time(question: str) -> None:
    assert named_period(question, NOW) is None


async def talk(home: Home, *lines: tuple[str, str, int]) -> str:
    """An agent with messages (speaker, text, days ago); its id."""
    now = home.clock.now()
    agent = AgentRecord("agent-ada", "ada", "assistant", now)

    def work(tx: Any) -> None:
        tx.add_agent(agent)
        for number, (name, text, days) in enumerate(lines):
            when = now - timedelta(days=days) + timedelta(seconds=number)
            tx.add_message(Message(0, agent.id, "user", text, "import", when, name=name, session=f"s{days}"))

    await home.store.write(work)
    return agent.id


async def best(home: Home, agent_id: str, question: str) -> Any:
    hits = await home.search(agent_id, SearchQuery(question, "recall", now=home.clock.now()))
    return max(hits, key=lambda hit: hit.score)


async def test_an_answer_is_found_beside_its_question(home: Home) -> None:
    agent_id = await talk(
        home, ("Ben", "Did you ever try pottery classes?", 9), ("Mia", "Yes, since last spring, on Tuesdays.", 9),
        ("Mia", "I bought tea.", 3), ("Ben", "Nice weather today.", 3),
    )  # fmt: skip
    hits = await home.search(agent_id, SearchQuery("When are the pottery classes?", "recall"))
    assert [(h.text, h.why) for h in hits] == [
        ("Yes, since last spring, on Tuesdays.", "nearby"), ("Did you ever try pottery classes?", "lexical")
    ]  # fmt: skip


async def test_speaker_and_date_are_part_of_what_is_found(home: Home) -> None:
    agent_id = await talk(home, ("Mia", "I adopted a cat.", 40), ("Ben", "I adopted a dog.", 30))
    assert (await best(home, agent_id, "Who adopted what, Ben?")).text == "I adopted a dog."
    assert [h.text for h in await home.search(agent_id, SearchQuery("March", "recall"))] == ["I adopted a cat."]


async def test_the_time_a_question_names_decides_between_equals(home: Home) -> None:
    agent_id = await talk(home, ("Mia", "I went to a concert.", 30), ("Mia", "I went to a concert.", 14))
    for question, days in (("Which concert was two weeks ago?", 14), ("Which concert was a month ago?", 30)):
        assert (await best(home, agent_id, question)).session == f"s{days}"


async def test_who_looks_for_one_word_gets_the_messages_that_hold_it(home: Home) -> None:
    agent_id = await talk(home, ("Mia", "The kettle is on.", 2), ("Ben", "Thanks!", 2))
    hits = await home.search(agent_id, SearchQuery("kettle", "recall"))
    assert [(h.text, h.why) for h in hits] == [("The kettle is on.", "lexical")]


async def test_pages_show_every_message_once(home: Home) -> None:
    lines = [("Mia", f"apple number {n}, from the tree of year {n % 7}", 400 - n) for n in range(130)]
    agent_id = await talk(home, *lines)
    question = "Which apple of the tree?"
    pages = [await home.search(agent_id, SearchQuery(question, "recall", limit=10, page=n)) for n in range(14)]
    refs = [hit.ref for page in pages for hit in page]
    assert len(refs) == len(set(refs)) == 130
    whole = await home.search(agent_id, SearchQuery(question, "recall", limit=30))
    assert {h.ref for h in whole} == {h.ref for page in pages[:3] for h in page}


async def test_what_is_filtered_out_takes_no_place(home: Home) -> None:
    agent_id = await talk(home, ("Mia", "The kettle of my mother is blue.", 2))
    now = home.clock.now()

    def work(tx: Any) -> None:
        for n in range(320):
            tx.add_message(Message(0, agent_id, "tool", f"kettle {n}", "tool", now, call_id=f"c{n}", name="shop"))
            tx.add_message(Message(0, agent_id, "user", f"apple {n}", "user", now))
        tx.add_message(
            Message(0, agent_id, "assistant", "an apple for the teacher, and a very long sentence", "agent", now)
        )

    await home.store.write(work)
    assert [h.text for h in await home.search(agent_id, SearchQuery("kettle", "recall"))] == [
        "The kettle of my mother is blue."
    ]
    found = await home.search(agent_id, SearchQuery("apple", "recall", roles=("assistant",)))
    assert [h.role for h in found] == ["assistant"]


async def test_what_other_agents_remember_changes_nothing(home: Home) -> None:
    agent_id = await talk(
        home, ("Mia", "The invoice is in the blue folder.", 9), ("Mia", "We flew to Lisbon in May.", 3)
    )
    before = await home.search(agent_id, SearchQuery("invoice Lisbon", "recall"))
    other = AgentRecord("agent-bob", "bob", "assistant", home.clock.now())

    def work(tx: Any) -> None:
        tx.add_agent(other)
        for n in range(5002):
            tx.add_message(Message(0, other.id, "user", f"invoice {n}", "user", home.clock.now()))

    await home.store.write(work)
    after = await home.search(agent_id, SearchQuery("invoice Lisbon", "recall"))
    assert [h.text for h in after] == [h.text for h in before]
    assert len(after) == 2
