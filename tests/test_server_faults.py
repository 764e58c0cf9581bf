"""A home that is served while its parts fail: the model, the disk, the database, the clients, under load too."""

import asyncio
import resource
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentos.errors import ProviderError
from agentos.events import Event, Saved, TextDelta
from agentos.messages import Reply
from agentos.protocols import LLMRequest
from agentos.scale.relay import Relay
from agentos.testing import FakeOpenAI, FakeReply, FixedClock, FunctionLLM, call, say
from agentos.testing.fake_openai import call as provider_call
from forks import Forks
from postgres import Server
from serving import TOKEN, Process, Served, ask, model_at, served, until


def user(text: str) -> Any:
    return {"messages": [{"role": "user", "content": text, "otid": text}]}


def said(answer: Any) -> list[str]:
    """What the agent says in an answer."""
    return [m["content"] for m in answer["messages"] if m["message_type"] == "assistant_message"]


def last_words(request: LLMRequest) -> str:
    return str(request.messages[-1]["content"]).partition("] ")[2]


# the model


def test_a_model_that_fails_for_an_hour() -> None:
    clock, down = FixedClock(), True

    def reply(request: LLMRequest) -> Any:
        return ProviderError("the provider failed (500); try again later") if down else f"re: {last_words(request)}"

    with served(FunctionLLM(reply), clock=clock) as home:
        path = f"/v1/agents/{home.create('ada')}/messages"
        runs = set()
        for _ in range(6):
            status, answer, _ = home.ask("POST", path, user("one"))
            assert (status, answer["stop_reason"]["stop_reason"], said(answer)) == (200, "llm_api_error", [])
            runs.add(answer["usage"]["run_ids"][0])
            clock.advance(timedelta(minutes=10))
        status, streamed, _ = home.ask("POST", f"{path}/stream", user("two"))
        assert status == 200
        assert "the provider failed (500)" in streamed
        assert '"stop_reason":"llm_api_error"' in streamed
        [run] = runs
        assert home.ask("GET", f"/v1/runs/{run}")[1]["status"] == "failed"
        down = False
        for text in ("one", "two", "three"):
            status, answer, _ = home.ask("POST", path, user(text))
            assert (status, answer["stop_reason"]["stop_reason"]) == (200, "end_turn")
            assert text in said(answer)[0]
        assert home.ask("GET", f"/v1/runs/{run}")[1]["status"] == "completed"


def test_a_model_that_hangs() -> None:
    asked = threading.Event()

    async def reply(request: LLMRequest) -> Reply:
        if last_words(request) == "hang":
            asked.set()
            await asyncio.Event().wait()
        return say(f"re: {last_words(request)}")

    with served(FunctionLLM(reply)) as home, ThreadPoolExecutor() as pool:
        ada, bob = (f"/v1/agents/{home.create(name)}/messages" for name in ("ada", "bob"))
        hanging = pool.submit(home.ask, "POST", ada, user("hang"))
        assert asked.wait(10)
        assert said(home.ask("POST", bob, user("one"))[1]) == ["re: one"]
        status, cancelled, _ = home.ask("POST", f"{ada}/cancel")
        assert (status, list(cancelled.values())) == (200, ["cancelled"])
        assert hanging.result(10)[1]["stop_reason"]["stop_reason"] == "cancelled"
        assert said(home.ask("POST", ada, user("two"))[1]) == ["re: two"]


class Provider:
    """Answers only once it has kept a note of what it was told; at "hold" not before it is let."""

    def __init__(self) -> None:
        self.go, self.held = threading.Event(), 0

    def __call__(self, body: Any) -> FakeReply:
        last = body["messages"][-1]
        if last["role"] != "user":
            return FakeReply(text="noted")
        if "hold" in last["content"]:
            self.held += 1
            assert self.go.wait(30)
        note = {"content": last["content"].rpartition("] ")[2], "request_heartbeat": True}
        return FakeReply(calls=[provider_call("archival_memory_insert", note)])


@pytest.fixture
def provider() -> Iterator[tuple[Provider, str]]:
    """The fake provider and its URL."""
    handler = Provider()
    with FakeOpenAI(handler) as server:
        yield handler, server.url
        handler.go.set()


def went_on(server: Process, agent: str, run: str, notes: list[str]) -> None:
    """The turn that was broken off ends by itself, and the agent knows each thing once."""
    until(lambda: server.ask("GET", f"/v1/runs/{run}")[1].get("status") == "completed", "the turn goes on")
    for text in notes[1:]:
        assert said(server.ask("POST", f"/v1/agents/{agent}/messages", user(text))[1]) == ["noted"]
    kept = server.ask("GET", f"/v1/agents/{agent}/archival-memory")[1]
    assert [passage["text"] for passage in kept] == notes
    assert "Traceback" not in server.errors
    assert all(line["level"] in ("info", "warning", "error") for line in server.lines())


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="a process's limits cannot be changed from outside here")
def test_a_disk_that_is_full_for_a_while(tmp_path: Path, provider: tuple[Provider, str], forks: Forks) -> None:
    model, url = provider
    with Process(tmp_path / "home", forks=forks, **model_at(url)) as server, ThreadPoolExecutor() as pool:
        agent = server.ask("POST", "/v1/agents/", {"name": "ada"})[1]["id"]
        path = f"/v1/agents/{agent}/messages"
        run = server.ask("POST", f"{path}/async", user("hold"))[1]["id"]
        waiting = pool.submit(server.ask, "POST", path, user("hold"))
        until(lambda: model.held, "the model is asked")
        limits = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (1024, limits[1]))
        model.go.set()
        for where, body in (
            (path, user("one")), (f"{path}/stream", user("one")), (f"{path}/async", user("one")),
            ("/v1/agents/", {"name": "bob"}), ("/v1/blocks/", {"label": "b", "value": "x"}),
            (f"/v1/agents/{agent}/archival-memory", {"text": "x"}),
        ):  # fmt: skip
            status, value, headers = ask(server.url, "POST", where, body)
            assert (status, "nothing of this step was kept" in value["detail"]) == (503, True), where
            assert headers["retry-after"] == "5"
        assert [a["name"] for a in server.ask("GET", "/v1/agents/")[1]] == ["ada"]
        assert server.ask("GET", f"/v1/runs/{run}")[1]["status"] == "running"
        assert [server.ask("GET", place)[0] for place in ("/readyz", "/metrics", f"{path}")] == [200] * 3
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, limits)
        went_on(server, agent, run, ["hold", "one"])
        assert said(waiting.result(30)[1]) == ["noted"]


# the database


def test_postgres_restarts_in_mid_turn(
    postgres: Server, tmp_path: Path, provider: tuple[Provider, str], forks: Forks
) -> None:
    model, url = provider
    env = {"AGENTOS_DATABASE_URL": postgres.database("served"), "AGENTOS_LEASE_SECONDS": "1", **model_at(url)}
    with Process(tmp_path / "home", forks=forks, **env) as server, ThreadPoolExecutor() as pool:
        agent = server.ask("POST", "/v1/agents/", {"name": "ada"})[1]["id"]
        path = f"/v1/agents/{agent}/messages"
        run = server.ask("POST", f"{path}/async", user("hold"))[1]["id"]
        waiting = pool.submit(server.ask, "POST", path, user("hold"))
        until(lambda: model.held, "the model is asked")
        postgres.stop()
        try:
            model.go.set()
            for method, where, body in (
                ("POST", path, user("one")), ("POST", f"{path}/stream", user("one")), ("GET", path, None),
                ("POST", "/v1/agents/", {"name": "bob"}), ("GET", "/metrics", None),
            ):  # fmt: skip
                status, value, headers = ask(server.url, method, where, body)
                assert (status, "cannot be reached" in value["detail"]) == (503, True), where
                assert headers["retry-after"] == "5"
            assert server.ask("GET", "/healthz")[0] == 200
        finally:
            postgres.start()
        went_on(server, agent, run, ["hold", "one"])
        status, answer = waiting.result(30)
        assert status == 503 or said(answer) == ["noted"]


async def hold(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110  what is waited for has no event of its own
        await asyncio.sleep(0.01)


async def test_the_relay_finds_the_database_again(postgres: Server) -> None:
    url = postgres.database("relayed")
    heard: list[tuple[str, Event | str]] = []
    one, other = Relay(url, "one"), Relay(url, "other")
    one.start(lambda *_: None)
    other.start(lambda *told: heard.append(told))
    async with asyncio.timeout(30):
        await hold(lambda: other.connected)
        await asyncio.to_thread(postgres.stop)
        one.tell("agent-1", "run-1")
        await hold(lambda: not other.connected)
        await asyncio.to_thread(postgres.start)
        await hold(lambda: heard == [("agent-1", "run-1")])
        one.tell("agent-2", TextDelta("x" * 10_000, run_id="run-1"))  # too long for a notice
        await hold(lambda: heard[1:] == [("agent-2", Saved(run_id="run-1"))])
        await hold(lambda: one.connected and other.connected)
    await asyncio.gather(one.stop(), other.stop())


# the clients


def test_a_client_that_reads_byte_by_byte_holds_nobody_up() -> None:
    chars = 1_000_000
    go = threading.Event()

    async def reply(request: LLMRequest) -> Reply:
        if last_words(request) == "hi":
            return say("done")
        await asyncio.to_thread(go.wait, 10)
        return say("x" * chars, call("archival_memory_search", query=f"{len(llm.requests)}", request_heartbeat=True))

    llm = FunctionLLM(reply)
    with served(llm) as home:
        ada, bob = home.create("ada"), home.create("bob")
        run = home.ask("POST", f"/v1/agents/{ada}/messages/async", user("go"))[1]["id"]
        with socket.create_connection(("127.0.0.1", home.port)) as slow:
            slow.settimeout(30)
            line = f"POST /v1/runs/{run}/stream HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
            slow.sendall(f"{line}Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}".encode())
            assert slow.recv(1)
            go.set()

            def ended() -> bool:
                assert slow.recv(1)
                assert said(home.ask("POST", f"/v1/agents/{bob}/messages", {"input": "hi"})[1]) == ["done"]
                return bool(home.ask("GET", f"/v1/runs/{run}")[1]["status"] == "completed")

            until(ended, "the turn ends while its client has read a few bytes")
            said_in_all = sum(len(text) for text in said({"messages": home.ask("GET", f"/v1/runs/{run}/messages")[1]}))
            held = [c.transport.get_write_buffer_size() for c in list(home.web.server_state.connections)]
            assert 0 < max(held) < 2 * chars < said_in_all


async def test_500_agents_talk_at_once() -> None:
    count, twice = 500, 100

    async def reply(request: LLMRequest) -> str:
        await asyncio.sleep(0.02)
        return f"re: {last_words(request)}"

    def create(home: Served) -> list[str]:
        async def work() -> list[str]:
            return [(await home.service.runtime.create_agent(f"a{n}")).id for n in range(count)]

        return list(home.run(work()))

    with served(FunctionLLM(reply, keep_requests=False)) as home:
        agents = await asyncio.to_thread(create, home)
        options: dict[str, Any] = {"base_url": home.url, "headers": dict(home.http.headers), "timeout": 60}
        no_tls = ssl.create_default_context()  # making one takes longer than all else a client is made of

        async def talk(agent: str, first: bool) -> list[str]:
            path = f"/v1/agents/{agent}/messages"
            # a client each: one alone looks through all its connections for every request
            async with httpx.AsyncClient(**options, verify=no_tls, trust_env=False) as client:
                if first:  # it still runs when the second comes
                    assert (await client.post(f"{path}/async", json=user("one"))).status_code == 200
                answered = await client.post(path, json=user("two"))
            assert answered.status_code == 200
            return said(answered.json())

        talks = [talk(agent, place < twice) for place, agent in enumerate(agents)]
        assert await asyncio.gather(*talks) == [["re: two"]] * count

        def histories(tx: Any) -> list[list[str]]:
            return [[m.content for m in tx.queue(agent, 0)] for agent in agents]

        order = ["one", "re: one", "two", "re: two"]
        expected = [order] * twice + [order[2:]] * (count - twice)
        assert await asyncio.to_thread(home.read, histories) == expected
