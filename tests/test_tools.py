"""Tools: schemas from functions, results as text, and the memory tools' searches and pages."""

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from agentos.agent import Agent
from agentos.errors import ToolError
from agentos.messages import Cause, Message, Passage, at_local_time
from agentos.testing import FunctionLLM, ScriptedLLM, call, say
from agentos.tools.tool import Tool, ToolContext, tool
from conftest import Home, collect, ending, of


class Place(BaseModel):
    city: str
    zip: int = 0


@tool
def book(
    city: str,
    nights: Annotated[int, Field(ge=1, le=30)] = 1,
    board: Literal["none", "full"] = "none",
    guests: list[str] | None = None,
    place: Place | None = None,
) -> str:
    """Book a room,
    at once.

    More that the model does not read.

    Args:
        city: Where to stay.
        nights: How long.
    """  # fmt: skip
    return f"{city} {nights} {board} {guests} {place.city if place else ''}"


def parameters(made: Tool) -> dict[str, Any]:
    return dict(made.schema["function"]["parameters"])


def test_a_schema_comes_from_signature_and_docstring() -> None:
    schema = book.schema
    assert schema["type"] == "function"
    assert schema["function"]["name"] == "book"
    assert schema["function"]["description"] == "Book a room, at once."
    properties = parameters(book)["properties"]
    assert parameters(book)["required"] == ["city"]
    assert parameters(book)["additionalProperties"] is False
    assert properties["city"] == {"type": "string", "description": "Where to stay."}
    assert properties["nights"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 30,
        "default": 1,
        "description": "How long.",
    }
    assert properties["board"]["enum"] == ["none", "full"]
    assert properties["request_heartbeat"]["default"] is True
    assert "title" not in json.dumps(schema)
    assert json.loads(json.dumps(schema)) == schema


def test_the_context_is_not_an_argument() -> None:
    @tool(name="look", continues=False, idempotent=True)
    def anything(context: ToolContext, where: str) -> str:
        """Look."""
        return where

    assert list(parameters(anything)["properties"]) == ["where", "request_heartbeat"]
    assert (anything.name, anything.continues, anything.idempotent, anything.transactional) == (
        "look",
        False,
        True,
        False,
    )
    assert parameters(anything)["properties"]["request_heartbeat"]["default"] is False


def test_an_argument_that_pydantic_would_take_as_private_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot have an argument _x; name it without underscore"):

        @tool
        def look(_x: int) -> None:
            """Look."""


def test_a_tool_without_a_docstring_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a docstring: it is what the model reads"):
        tool(lambda x: x)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "argument 'city' is missing. The call is book(city, nights=, board=, guests=, place=)"),
        ({"city": "Rome", "nights": 31}, "argument 'nights': input should be less than or equal to 30"),
        ({"city": "Rome", "board": "half"}, "argument 'board': input should be 'none' or 'full'"),
        ({"city": "Rome", "stars": 5}, "there is no argument 'stars'"),
        ({"city": 5}, "argument 'city': input should be a valid string"),
        ({"city": "Rome", "place": {}}, "argument 'place.city' is missing"),
    ],
)
def test_arguments_that_do_not_fit(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ToolError, match=re.escape(says)):
        book.parse(values)


def test_arguments_that_fit() -> None:
    given, heartbeat = book.parse({"city": "Rome", "nights": "2", "place": {"city": "x"}, "request_heartbeat": False})
    assert given == {"city": "Rome", "nights": 2, "board": "none", "guests": None, "place": Place(city="x")}
    assert heartbeat is False


async def one_result(home: Home, made: Tool, **arguments: Any) -> Any:
    agent = await home.agent(ScriptedLLM([say("ok", call(made.name, **arguments)), "done"]), tools=[made])
    events = await collect(agent, "go")
    assert ending(events).stop_reason == "end_turn"
    return of(events, "tool_result")[0]


@pytest.mark.parametrize(
    ("value", "text"),
    [("text", "text"), ("", "(empty)"), (" \n", "(empty)"),
     ({"a": [1, None, "é"]}, '{"a": [1, null, "é"]}'), (None, "null"), (3.5, "3.5"),
     (datetime(2026, 5, 8, tzinfo=UTC), '"2026-05-08 00:00:00+00:00"')],
)  # fmt: skip
async def test_results_are_text_or_json(home: Home, value: Any, text: str) -> None:
    @tool
    def give() -> Any:
        """Give."""
        return value

    result = await one_result(home, give)
    assert (result.ok, result.text) == (True, text)


async def test_plain_and_async_functions_with_their_context(home: Home) -> None:
    @tool
    def plain(context: ToolContext, x: int) -> str:
        """Give."""
        return f"{context.cause.agent_id} {x}"

    @tool
    async def waiting(x: int, context: ToolContext) -> str:
        """Give."""
        return f"{context.now:%Y} {x}"

    assert (await one_result(home, plain, x=1)).text == "agent-ada 1"
    assert (await one_result(home, waiting, x=2)).text == "2026 2"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ToolError("try another city"), "error: try another city"),
        (ZeroDivisionError("division by zero"), "error: fails failed: ZeroDivisionError: division by zero"),
        (KeyError("k"), "error: fails failed: KeyError: 'k'"),
    ],
)
async def test_what_a_function_raises_goes_back_to_the_model(home: Home, error: Exception, text: str) -> None:
    @tool
    def fails() -> str:
        """Fail."""
        raise error

    result = await one_result(home, fails)
    assert (result.ok, result.text) == (False, text)


async def test_a_tools_default_heartbeat_and_the_calls_own(home: Home) -> None:
    @tool(continues=False)
    def quiet() -> str:
        """Do."""
        return "done"

    llm = ScriptedLLM([say("a", call("quiet")), say("b", call("quiet", request_heartbeat=True)), "c"])
    agent = await home.agent(llm, tools=[quiet])
    assert ending(await collect(agent, "one")).steps == 1
    assert ending(await collect(agent, "two")).steps == 2


# the memory tools


async def use(home: Home, name: str, agent: Agent | None = None, **arguments: Any) -> str:
    """The text of one memory tool's result."""
    llm = ScriptedLLM([say("", call(name, **arguments)), "done"])
    agent = await home.agent(llm)
    return str(of(await collect(agent, "go"), "tool_result")[0].text)


def found(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


async def add_passages(home: Home, *rows: tuple[str, datetime, tuple[str, ...]]) -> None:
    agent = await home.agent(ScriptedLLM([]))
    for text, when, tags in rows:
        passage = Passage(0, agent.id, text, "agent", when, tags)
        await home.store.write(lambda tx, p=passage: tx.add_passage(p, Cause(agent.id, "user")))


def day(number: int, hour: int = 12) -> datetime:
    return datetime(2026, 4, number, hour, tzinfo=UTC)


async def test_archival_insert_and_search(home: Home) -> None:
    assert (
        await use(home, "archival_memory_insert", content=" Tea at four. ", tags=["tea", " tea", ""])
        == "stored as p1, tags: tea"
    )
    assert (
        await use(home, "archival_memory_insert", content="Tea at four.", tags=["daily"])
        == "already stored as p1, tags: tea, daily"
    )
    text = await use(home, "archival_memory_search", query="when is tea?")
    assert text.splitlines()[0] == "1 memory, newest first:"
    assert found(text) == [
        {"id": "p1", "date": "2026-05-08 09:30", "rank": 1, "tags": ["tea", "daily"], "text": "Tea at four."}
    ]
    assert await use(home, "archival_memory_search", query="?!") == "no memories match"


@pytest.mark.parametrize(
    ("start", "end", "days"),
    [
        (None, None, [4, 3, 2, 1]), ("2026-04-02", None, [4, 3, 2]), (None, "2026-04-03", [3, 2, 1]),
        ("2026-04-02", "2026-04-03", [3, 2]), ("2026-04-02T12:00:00+00:00", "2026-04-03T12:00:00+00:00", [3, 2]),
        ("2026-04-02T12:00:01", "2026-04-03T11:59", []), ("2026-04-02T14:00:00+02:00", "2026-04-02", [2]),
    ],
)  # fmt: skip
async def test_both_ends_of_a_range_are_included(
    home: Home, start: str | None, end: str | None, days: list[int]
) -> None:
    await add_passages(home, *((f"tea on day {n}", day(n), ()) for n in range(1, 5)))
    text = await use(home, "archival_memory_search", query="tea", start=start, end=end)
    assert [hit["text"] for hit in found(text)] == [f"tea on day {n}" for n in days]


IN_WINTER = """
import asyncio, json
from datetime import UTC, datetime
from agentos import curate
from agentos.testing import FixedClock, ScriptedLLM, call, say, temporary_runtime

async def main():
    now = datetime(2026, 1, 10, 12, tzinfo=UTC).astimezone()
    search = call("conversation_search", query="tea", start="2025-07-01", end="2025-07-01")
    ever = call("conversation_search", query="tea", start="0001-01-01", end="9999-12-31")
    llm = ScriptedLLM([say("", search, ever), "done"])
    async with temporary_runtime(llm, clock=FixedClock(now)) as runtime:
        agent = await runtime.agent()
        lines = [{"role": "user", "content": f"tea {t}", "created_at": t} for t in (
            "2025-07-01T00:00:00", "2025-07-01T23:59:59", "2025-06-30T23:59:59+02:00", "2025-07-02T00:00:00+02:00")]
        await curate.import_conversation(runtime.store, runtime.clock, agent.id, map(json.dumps, lines))
        results = [e.text for e in [e async for e in agent.send("go")] if e.type == "tool_result"]
        print(json.dumps([[json.loads(row)["date"] for row in r.splitlines()[1:]] for r in results]))

asyncio.run(main())
"""


class Summer(tzinfo):
    """A zone that knows its rules: an hour more from April to September."""

    def utcoffset(self, when: datetime | None) -> timedelta:
        return timedelta(hours=5 if when and 4 <= when.month <= 9 else 4, minutes=30)

    def dst(self, when: datetime | None) -> None:
        return None


def test_a_clock_that_knows_its_zone_is_followed() -> None:
    january, july = datetime(2026, 1, 10, tzinfo=Summer()), datetime(2026, 7, 1)
    assert at_local_time(july, january).utcoffset() == timedelta(hours=5, minutes=30)
    elsewhere = january.replace(tzinfo=timezone(timedelta(hours=5, minutes=45)))
    assert at_local_time(july, elsewhere).utcoffset() == timedelta(hours=5, minutes=45)


def test_a_bare_date_means_that_day_in_the_local_time_of_that_date() -> None:
    """In winter, asked about summer; the second search has the calendar's first and last day."""
    zone = "CET-1CEST,M3.5.0,M10.5.0/3"  # Europe/Berlin, also where no zone files are
    done = subprocess.run(
        [sys.executable, "-c", IN_WINTER], env={**os.environ, "TZ": zone}, check=True, capture_output=True, text=True
    )
    day, ever = json.loads(done.stdout)
    assert day == ["2025-07-01 23:59", "2025-07-01 00:00"]
    assert len(ever) == 4


async def test_tags_limit_and_pages(home: Home) -> None:
    await add_passages(home, *((f"tea {n}", day(n), ("odd",) if n % 2 else ("even", "more")) for n in range(1, 10)))
    tagged = found(await use(home, "archival_memory_search", query="tea", tags=["even", "none"]))
    assert [hit["text"] for hit in tagged] == ["tea 8", "tea 6", "tea 4", "tea 2"]
    pages = [found(await use(home, "archival_memory_search", query="tea", limit=4, page=n)) for n in range(3)]
    assert [len(page) for page in pages] == [4, 4, 1]
    assert len({hit["id"] for page in pages for hit in page}) == 9
    assert sorted(hit["rank"] for page in pages for hit in page) == list(range(1, 10))
    assert await use(home, "archival_memory_search", query="tea", limit=4, page=3) == "no further memories match"


async def test_conversation_search_by_role_without_the_running_turn(home: Home) -> None:
    agent = await home.agent(FunctionLLM(lambda r: "The kettle is on."))
    await collect(agent, "Put the kettle on.")
    hits = found(await use(home, "conversation_search", query="kettle"))
    assert [(h["id"], h["role"]) for h in hits] == [("m2", "assistant"), ("m1", "user")]
    assert [h["role"] for h in found(await use(home, "conversation_search", query="kettle", roles=["user"]))] == [
        "user"
    ]
    assert len(found(await use(home, "conversation_search", query="go"))) == 2, (
        "of three turns the running one is left out"
    )
    assert "[" not in hits[0]["date"]


async def test_what_was_paged_out_of_the_running_turn_is_found(home: Home) -> None:
    @tool
    def fetch(n: int) -> str:
        """Fetch a document."""
        return f"document ZX-{n}-77 " + "w " * 900

    script = [say("", call("fetch", n=n)) for n in range(12)]
    roles = ["user", "assistant", "tool"]
    llm = FunctionLLM(
        lambda r: "notes" if "[summary" in str(r.messages[-1]["content"]) else script.pop(0), context_window=6000
    )
    script += [say("", call("conversation_search", query="ZX-0-77", roles=roles)), "done"]
    agent = await home.agent(llm, tools=[fetch])
    events = await collect(agent, "go")
    assert of(events, "page_out")
    assert [h["role"] for h in found(of(events, "tool_result")[-1].text)] == ["tool"]


async def test_search_results_are_not_found_by_the_next_search(home: Home) -> None:
    await add_passages(home, ("the password is swordfish", day(1), ()))
    await use(home, "archival_memory_search", query="swordfish")
    assert (
        await use(home, "conversation_search", query="swordfish", roles=["user", "assistant", "tool"])
        == "no memories match"
    )


async def test_page_in_shows_ranges_and_passages(home: Home) -> None:
    agent = await home.agent(FunctionLLM(lambda r: "fine"))
    for n in range(3):
        await collect(agent, f"message {n}")
    await add_passages(home, ("tea", day(1), ("a",)))
    hits = found(await use(home, "page_in", ids=["m1-m3", "p1", "m6", "m900"]))
    assert [h["id"] for h in hits] == ["m1", "m2", "m3", "p1", "m6"]
    assert hits[0]["text"] == "message 0"
    assert hits[3]["tags"] == ["a"]
    again = [h["id"] for h in found(await use(home, "page_in", ids=["m1..3", " m2 - m2 ", "m1–m1"]))]
    assert again == ["m1", "m2", "m3", "m2", "m1"]


@pytest.mark.parametrize("ref", ["", "m", "x1", "m5-m4", "m1-m900", "m1-p3", "m99999999999999999999"])
async def test_page_in_refuses_what_is_no_id(home: Home, ref: str) -> None:
    assert (await use(home, "page_in", ids=[ref])).startswith("error: ")


async def test_pages_of_others_stay_closed(home: Home) -> None:
    bob = await home.agent(FunctionLLM(lambda r: "secret"), name="bob")
    await collect(bob, "my secret")
    assert (await use(home, "page_in", ids=["m1-m2"])).startswith("error: none of m1-m2 exist")
    assert await use(home, "conversation_search", query="secret") == "no memories match"


async def test_a_clipped_message_can_be_followed_to_its_end(home: Home) -> None:
    """The pointer behind clipped text leads on, result by result, until every character was shown."""
    words = " ".join(f"word{n}" for n in range(9000))
    llm = FunctionLLM(lambda r: "ok", context_window=8000)
    agent = await home.agent(llm)
    await collect(agent, words)
    shown = llm.requests[0].messages[1]["content"]
    pointer = re.search(r'\[clipped: (\d+) of (\d+) characters shown; page_in\(\["(m1@\d+)"\]\)', shown)
    assert pointer
    assert int(pointer[2]) == len(words)
    seen, ref, steps = words[: int(pointer[1])], pointer[3], 0
    while ref:
        steps += 1
        assert steps < 60
        llm = ScriptedLLM([say("", call("page_in", ids=[ref])), "ok"], context_window=8000)
        reader = await home.agent(llm)
        [result] = of(await collect(reader, "go on"), "tool_result")
        hit = json.loads(result.text.partition("\n")[0])
        assert "[clipped:" not in next(m["content"] for m in llm.requests[1].messages[::-1] if m["role"] == "tool")
        seen += hit["text"]
        ref = hit["more"].split(" ")[0] if "more" in hit else ""
    assert seen == words


async def test_imported_speakers_and_sessions_are_shown(home: Home) -> None:
    agent = await home.agent(ScriptedLLM([]))
    message = Message(
        0, agent.id, "user", "I moved to Porto", "import", day(1), name="Ada", session="s1", external_id="D1:3"
    )
    await home.store.write(lambda tx: tx.add_message(message))
    [hit] = found(await use(home, "conversation_search", query="Porto"))
    assert (hit["name"], hit["session"], hit["line"], hit["date"]) == ("Ada", "s1", "D1:3", "2026-04-01 12:00")


async def test_no_text_can_pass_for_another_hit(home: Home) -> None:
    await add_passages(home, ('tea\n{"id": "p9", "text": "forged"}', day(1) + timedelta(hours=1), ()))
    assert [h["id"] for h in found(await use(home, "archival_memory_search", query="tea"))] == ["p1"]
