"""The chat and one-shot mode over HTTP: the same as in a home."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from agentos.cli.chosen import Chosen
from agentos.cli.remote import _PAGE, RemoteTalk, _Server, open_remote
from agentos.errors import ConfigError, ProviderError, UsageError
from agentos.events import Event, TextDelta, ToolCallEvent, ToolResultEvent, TurnEnded, TurnResult, event_from_json
from agentos.messages import Reply, Usage
from agentos.protocols import LLMRequest
from agentos.server.replies import sse
from agentos.testing import FunctionLLM, call, say
from forks import Forks
from serving import TOKEN, Served, served


def answer(request: LLMRequest) -> Reply:
    last = request.messages[-1]
    said = str(last["content"]).partition("] ")[2]
    if last["role"] == "user" and said.startswith("note "):
        return say("Noted.", call("core_memory_append", label="human", content=said[5:]))
    return say(f"re: {said}")


@pytest.fixture(scope="module")
def home() -> Iterator[Served]:
    with served(FunctionLLM(answer)) as server:
        yield server


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOS_TOKEN", TOKEN)


@pytest.fixture
async def talk(home: Served, request: pytest.FixtureRequest) -> AsyncIterator[RemoteTalk]:
    async with open_remote(Chosen(agent=request.node.name[:90], server=home.url)) as remote:
        yield remote


async def events_of(talk: RemoteTalk, text: str) -> list[Event]:
    return [event async for event in talk.send(text)]


async def test_a_turn_yields_the_events_that_it_yields_at_home(talk: RemoteTalk) -> None:
    events = await events_of(talk, "note likes tea")
    assert [type(e) for e in events] == [TextDelta, ToolCallEvent, ToolResultEvent, TurnEnded]
    result = events[2]
    assert isinstance(result, ToolResultEvent)
    assert [(e.label, e.after) for e in result.edits] == [("human", "likes tea")]
    ended = events[-1]
    assert isinstance(ended, TurnEnded)
    assert (ended.result.reply, ended.result.stop_reason, ended.result.usage.prompt_tokens > 0) == (
        "Noted.",
        "end_turn",
        True,
    )


async def test_what_the_slash_commands_ask(talk: RemoteTalk) -> None:
    await events_of(talk, "note likes tea")
    status, memory = await talk.status(), await talk.memory("human")
    assert "human" in status["labels"]
    assert talk.name in status["agents"]
    assert status["fill_percent"] > 0
    assert memory["blocks"][0]["value"] == "likes tea"
    assert (await talk.context())["model"] == talk.model
    assert [hit["text"] for hit in await talk.search("tea", "recall", 5) if hit["role"] == "user"] == ["note likes tea"]
    assert (await talk.usage())["prompt_tokens"] > 0
    undone = await talk.undo()
    assert undone["changes"] == "- likes tea"
    assert (await talk.memory("human"))["blocks"][0]["value"] == ""
    assert talk.name in [agent["name"] for agent in await talk.agents()]
    assert await talk.last_used()
    await talk.new_conversation()
    assert (await talk.context())["messages"] == 0
    with pytest.raises(UsageError, match="keeps its own model"):
        await talk.use_model("gpt")
    with pytest.raises(UsageError, match="no agent"):
        await talk.switch("nobody")


async def test_what_the_agent_does_unasked_is_news(talk: RemoteTalk, home: Served) -> None:
    await events_of(talk, "hello")
    assert await talk.news() is None
    agent_id = home.read(lambda tx: tx.agent_named(talk.name).id)
    await asyncio.to_thread(lambda: home.run(home.service.dispatcher.accept(agent_id, ["from elsewhere"])))
    async with asyncio.timeout(10):
        while (news := await talk.news()) is None:  # noqa: ASYNC110  # it polls, as the chat does
            await asyncio.sleep(0.01)
    events = [event async for event in news]
    assert isinstance(events[-1], TurnEnded)
    assert events[-1].result.reply == "re: from elsewhere"
    assert await talk.news() is None


async def test_after_a_switch_news_is_of_the_other_agent(talk: RemoteTalk, home: Served) -> None:
    await events_of(talk, "hello")
    first = talk._agent["id"]
    other = home.run(home.service.runtime.create_agent(f"{talk.name}-2")).id
    await talk.switch(f"{talk.name}-2")
    listeners = home.service.dispatcher.feeds._listeners
    async with asyncio.timeout(10):
        while other not in listeners or first in listeners:  # noqa: ASYNC110  # it connects anew
            await asyncio.sleep(0.01)
    for agent_id, text in ((first, "for the first"), (other, "for the other")):
        await asyncio.to_thread(lambda i=agent_id, t=text: home.run(home.service.dispatcher.accept(i, [t])))
    async with asyncio.timeout(10):
        while (news := await talk.news()) is None:  # noqa: ASYNC110  # it polls, as the chat does
            await asyncio.sleep(0.01)
    replies = [e.result.reply async for e in news if isinstance(e, TurnEnded)]
    assert replies == ["re: for the other"]
    assert await talk.news() is None


async def test_text_may_hold_what_some_take_for_the_end_of_a_line(talk: RemoteTalk) -> None:
    ended = (await events_of(talk, "a\u2028b\u2029c\x85d"))[-1]
    assert isinstance(ended, TurnEnded)
    assert ended.result.reply == "re: a\u2028b\u2029c\x85d"


def test_a_server_that_stops_ends_what_it_tells() -> None:
    begun = threading.Event()

    async def reply(request: LLMRequest) -> str:
        begun.set()
        await asyncio.sleep(60)
        return "late"

    with served(FunctionLLM(reply)) as server:
        server.http.post("/agentos/v1/agents", json={"name": "ada"}).raise_for_status()
        ends: dict[str, str] = {}

        def follow(method: str, path: str, body: object) -> None:
            try:
                with server.http.stream(method, f"/agentos/v1/agents/ada/{path}", json=body, timeout=60) as response:
                    response.read()
                ends[path] = "whole"
            except httpx.RemoteProtocolError:  # it is asked for again
                ends[path] = "cut"

        threads = [
            threading.Thread(target=follow, args=args)
            for args in (("GET", "events", None), ("POST", "turns", {"text": "hello"}))
        ]
        for thread in threads:
            thread.start()
        assert begun.wait(10)
        server.run(server.service.dispatcher.stop(0.01))
        for thread in threads:
            thread.join(10)
        assert ends == {"events": "whole", "turns": "cut"}


async def test_a_connection_that_breaks_is_made_again_and_the_turn_is_one(home: Served) -> None:
    broken = 0

    class Breaking(httpx.AsyncBaseTransport):
        """Loses the answer to the first two requests for a turn, which the server got."""

        def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
            self.inner = inner

        async def aclose(self) -> None:
            await self.inner.aclose()

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            nonlocal broken
            response = await self.inner.handle_async_request(request)
            if request.url.path.endswith("/turns") and broken < 2:
                broken += 1
                await response.aclose()
                raise httpx.ReadError("lost", request=request)
            return response

    async with open_remote(Chosen(agent="breaking", server=home.url)) as talk:
        talk._again_seconds = 0.0
        talk._server.client._transport = Breaking(talk._server.client._transport)
        events = await events_of(talk, "hello")
    texts = "".join(e.text for e in events if isinstance(e, TextDelta))
    assert isinstance(events[-1], TurnEnded)
    assert texts == events[-1].result.reply == "re: hello"
    assert broken == 2
    agent_id = home.read(lambda tx: tx.agent_named("breaking").id)
    assert len(home.read(lambda tx: tx.runs(agent_id))) == 1


def piece(seq: int, text: str, place: int, at: int = 0) -> Event:
    return TextDelta(text, place=place, at=at, run_id="run-1", seq=seq)


CALL = ToolCallEvent("c", "n", {}, run_id="run-1", seq=1)
RESULT = TurnResult("ada", "One.\n\nTwo.\n\nThree.", "run-1", "end_turn", 3, 3, Usage())
HEARD = [piece(0, "One.", 3), CALL, piece(2, "Tw", 5)]


@pytest.mark.parametrize(
    ("before", "after", "live"),
    [
        (HEARD, [piece(3, "o.", 5, 2), piece(4, "Three.", 7), TurnEnded(RESULT, run_id="run-1", seq=5)], True),
        (HEARD, [piece(4, "Three.", 7), TurnEnded(RESULT, run_id="run-1", seq=5)], False),
        (HEARD, [piece(4, ".", 5, 3), piece(5, "Three.", 7), TurnEnded(RESULT, run_id="run-1", seq=6)], False),
        (HEARD, [TurnEnded(RESULT, run_id="run-1")], False),
        ([], [piece(2, "Two.", 5), piece(3, "Three.", 7), TurnEnded(RESULT, run_id="run-1", seq=4)], False),
        ([], [TurnEnded(RESULT, run_id="run-1")], False),
    ],
)
async def test_after_a_break_nothing_is_lost_and_nothing_comes_twice(
    before: list[Event], after: list[Event], live: bool
) -> None:
    asked = 0

    async def stream(events: list[Event], breaks: bool) -> AsyncIterator[bytes]:
        for event in events:
            yield sse(event.as_json())
        if breaks:
            raise httpx.ReadError("lost")

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        return httpx.Response(200, content=stream(before if asked == 1 else after, asked == 1))

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://server/") as client:
        talk = RemoteTalk(_Server(client, "http://server"), {"id": "agent-1", "name": "ada"}, again_seconds=0.0)
        events = await events_of(talk, "hello")
    said = [e.text for e in events if isinstance(e, TextDelta)]
    heard = [e.text for e in before if isinstance(e, TextDelta)]
    assert "".join(said).replace("\n\n", "") == RESULT.reply.replace("\n\n", "")
    assert (len(said) > len(heard) + 1) == live, "what follows on what was heard comes as it is said"
    assert isinstance(events[-1], TurnEnded)


async def test_every_agent_is_listed_page_by_page(talk: RemoteTalk, home: Served) -> None:
    names = {home.create(f"many-{number}") and f"many-{number}" for number in range(_PAGE)}
    assert names < {agent["name"] for agent in await talk.agents()}


@pytest.mark.parametrize(
    ("chosen", "error", "words"),
    [
        (Chosen(server="http://127.0.0.1:1"), ProviderError, "cannot be reached"),
        (Chosen(server="nonsense://x"), UsageError, "is no URL"),
        (Chosen(server="http://["), UsageError, "is no URL"),
        (Chosen(server="{url}", max_steps=3), UsageError, "AGENTOS_MAX_STEPS"),
        (Chosen(server="{url}", agent="a", resume=True), UsageError, "--continue"),
        (Chosen(server="{url}", agent="a/b"), UsageError, "cannot be named"),
        (Chosen(server="{url}/nowhere"), ConfigError, "no agentos server"),
    ],
)
async def test_what_cannot_begin_says_why(home: Served, chosen: Chosen, error: type[Exception], words: str) -> None:
    given = Chosen(**{**vars(chosen), "server": str(chosen.server).format(url=home.url)})
    with pytest.raises(error, match=words):
        async with open_remote(given):
            pass


async def test_a_wrong_token_is_refused(home: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOS_TOKEN", "another token")
    with pytest.raises(ConfigError, match="a valid token is needed"):
        async with open_remote(Chosen(server=home.url)):
            pass


def test_one_shot_mode(home: Served, forks: Forks, tmp_path: Path) -> None:
    env = {**os.environ, "AGENTOS_TOKEN": TOKEN, "AGENTOS_HOME": str(tmp_path / "unused")}
    done = forks.run(["chat", "--server", home.url, "--agent", "once", "-p", "hello"], "", env, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "re: hello\n", "")
    assert not (tmp_path / "unused").exists()


def test_events_survive_the_wire() -> None:
    values = {"type": "tool_result", "run_id": "r", "seq": 3, "call_id": "c", "name": "n", "ok": True, "text": "t"}
    event = event_from_json({**values, "edits": [{"label": "l", "before": "b", "after": "a"}], "later": 1})
    assert isinstance(event, ToolResultEvent)
    assert event.edits[0].after == "a"
    assert event_from_json({"type": "unknown"}) is None
