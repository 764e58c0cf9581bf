"""A server's life: real processes that start, are told to stop, are killed, and start again."""

import asyncio
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentos.errors import ConfigError
from agentos.messages import Reply
from agentos.protocols import LLMRequest
from agentos.testing import FunctionLLM, say
from agentos.testing.fake_openai import Body, FakeOpenAI, FakeReply
from forks import Forks
from serving import Process, model_at, served, until


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def user(text: str) -> Any:
    return {"messages": [{"role": "user", "content": text, "otid": text}]}


def test_one_server_serves_a_home_and_commands_work_beside_it(home: Path, forks: Forks) -> None:
    env = {**os.environ, "AGENTOS_HOME": str(home), "AGENTOS_MODEL": "offline"}

    def cli(*args: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        return forks.run([*args], stdin, env | more, home.parent)

    with Process(home, AGENTOS_TOKEN="") as server:
        url = server.url
        told = server.stdout.readline()
        token = (home / "server.token").read_text().strip()
        assert told.endswith(f"kept in {home / 'server.token'}: {token}\n")
        own = {"authorization": f"Bearer {token}"}
        assert server.ask("GET", "/readyz", authorization="") == (200, {"status": "ready"})
        status, made = server.ask("POST", "/v1/agents/", {"name": "ada"}, **own)
        assert status == 200
        agent = made["id"]
        second = cli("serve", "--port", "0")
        assert (second.returncode, second.stdout) == (2, "")
        assert second.stderr == f"agentos: a server for {home} runs at {url}; use that one, or stop it first\n"
        taken = cli("serve", "--port", url.rsplit(":", 1)[1], AGENTOS_HOME=str(home.parent / "other"))
        assert taken.returncode == 2
        assert "Address already in use; choose another --host or --port" in taken.stderr
        assert taken.stderr.count("\n") == 1
        for bad, code in ((["--token", "short"], 3), (["--host", "no.such.host.invalid"], 2)):
            refused = cli("serve", "--port", "0", *bad, AGENTOS_HOME=str(home.parent / "other"))
            assert (refused.returncode, refused.stderr.count("\n")) == (code, 1), refused
        unusable = cli("serve", "--port", "0", AGENTOS_HOME="/dev/null/home")
        assert (unusable.returncode, unusable.stderr.count("\n")) == (1, 1)
        found = next(f for f in json.loads(cli("doctor", "--json").stdout) if f["what"] == "server")
        assert found["found"] == f"one serves this home at {url}"
        assert cli("chat", "--agent", "ada", "-p", "I am Ada and I live in Paris").returncode == 0
        assert "Paris" in str(server.ask("GET", f"/v1/agents/{agent}/messages", **own))
        assert server.ask("POST", f"/v1/agents/{agent}/messages", user("I like oolong tea"), **own)[0] == 200
        assert "oolong" in cli("memory", "search", "ada", "oolong", "--in", "recall").stdout
        assert cli("memory", "edit", "ada", "human", "--value", "Name: Ada").returncode == 0
        assert "Name: Ada" in str(server.ask("GET", f"/v1/agents/{agent}", **own))
        assert server.ask("GET", "/v1/agents/x", authorization="Bearer wrong-token")[0] == 401
        assert server.signalled(signal.SIGINT) == 0
    lines = server.lines()
    turn = next(line for line in lines if line["event"] == "turn")
    accepted = next(line for line in lines if line["event"] == "accepted")
    assert (turn["agent_id"], turn["status"], turn["run_id"]) == (agent, "end_turn", accepted["run_id"])
    assert isinstance(turn["ms"], int)
    asked = next(line for line in lines if line.get("request_id") == accepted["request_id"] and "route" in line)
    assert (asked["route"], asked["agent_id"]) == ("/v1/agents/{agent_id}/messages", agent)
    assert (asked["status"], asked["level"]) == (200, "info")
    assert {line["status"] for line in lines if line.get("route") == "unknown"} == {401}
    for secret in (token, "oolong", "Paris", "wrong-token"):
        assert secret not in server.errors
    assert not (home / "server.json").exists()
    found = next(f for f in json.loads(cli("doctor", "--json").stdout) if f["what"] == "server")
    assert found["found"] == "none serves this home"


@pytest.fixture
def slow_model() -> Iterator[FakeOpenAI]:
    """Takes its time where it is told to."""

    def reply(body: Body) -> FakeReply:
        text = str(body["messages"][-1]["content"])
        return FakeReply(text="At last.", hang_seconds=60 if "hang" in text and reply.hangs else 1.0 * ("wait" in text))

    reply.hangs = True  # type: ignore[attr-defined]
    with FakeOpenAI(reply) as server:
        server.handler = reply  # type: ignore[attr-defined]
        yield server


def test_killed_or_stopped_it_loses_nothing(home: Path, slow_model: FakeOpenAI, forks: Forks) -> None:
    env = model_at(slow_model.url)
    with Process(home, forks=forks, **env) as server:
        agent = server.ask("POST", "/v1/agents/", {"name": "ada"})[1]["id"]
        run = server.ask("POST", f"/v1/agents/{agent}/messages/async", user("hang"))[1]["id"]
        until(lambda: slow_model.requests, "the model is asked")
        assert server.signalled(signal.SIGKILL) == -signal.SIGKILL
    assert (home / "server.json").exists()
    slow_model.handler.hangs = False  # type: ignore[attr-defined]
    answers: dict[str, Any] = {}

    def send(kind: str, path: str) -> threading.Thread:
        def work() -> None:
            answers[kind] = server.ask("POST", f"/v1/agents/{agent}/{path}", user(f"wait {kind}"))

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    with Process(home, forks=forks, **env) as server:  # what the dead one left is no obstacle
        until(lambda: server.ask("GET", f"/v1/runs/{run}")[1]["status"] == "completed", "the turn goes on")
        asked = len(slow_model.requests)
        threads = [send("streamed", "messages/stream")]
        until(lambda: len(slow_model.requests) > asked, "the model is asked")
        threads.append(send("waiting", "messages"))
        until(lambda: "agentos_waiting_inputs 1.0" in server.ask("GET", "/metrics")[1], "it waits")
        server.process.send_signal(signal.SIGTERM)
        until(lambda: server.ask("GET", "/readyz")[0] == 503, "it says that it stops")
        assert server.ask("GET", "/healthz")[0] == 200
        assert server.ask("POST", f"/v1/agents/{agent}/messages", user("late"))[0] == 503
        for thread in threads:
            thread.join(30)
        assert server.process.wait() == 0
    status, text = answers["streamed"]
    assert status == 200
    assert "At last." in text
    assert text.endswith("data: [DONE]\n\n")
    assert answers["waiting"][0] == 503  # it is saved, and answered at the next start
    assert "is answered once it has started again" in answers["waiting"][1]["detail"]
    assert [line for line in server.lines() if line["level"] != "info"] == []
    assert "Traceback" not in server.errors


def test_what_takes_longer_than_the_grace_goes_on_later() -> None:
    release = asyncio.Event()

    async def reply(request: LLMRequest) -> Reply:
        await release.wait()
        return say("never")

    with served(FunctionLLM(reply)) as live:
        agent = live.create("ada")
        answers: dict[str, Any] = {}

        def send(kind: str, path: str, body: Any) -> threading.Thread:
            thread = threading.Thread(target=lambda: answers.update({kind: live.ask("POST", path, body)}))
            thread.start()
            return thread

        chat = {"model": "ada", "messages": [{"role": "user", "content": "two"}]}
        threads = [
            send("letta", f"/v1/agents/{agent}/messages", user("one")),
            send("letta stream", f"/v1/agents/{agent}/messages/stream", user("three")),
            send("openai", "/v1/chat/completions", chat),
            send("openai stream", "/v1/chat/completions", chat | {"stream": True}),
        ]
        until(lambda: live.read(lambda tx: len(tx.open_runs(agent))) == 4, "all are accepted")
        live.service.ready = False
        live.run(live.service.dispatcher.stop(0.05))
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)
        for kind in ("letta", "openai"):
            status, value, headers = answers[kind]
            assert (status, headers["retry-after"]) == (503, "5")
            assert "the server stops; the message is saved" in value["detail"]
            assert answers[f"{kind} stream"][0] == 200
        assert "the server stops; the message is saved" in str(answers["letta stream"][1])
        runs = live.read(lambda tx: [r.status for r in tx.open_runs(agent)])
        assert sorted(runs) == ["created"] * 3 + ["running"]


class Moody(FunctionLLM):
    """A model that can be used, until it cannot."""

    usable = True

    @property
    def name(self) -> str:  # type: ignore[override]
        if not self.usable:
            raise ConfigError("there is no such model; choose another")
        return "test/moody"

    @name.setter
    def name(self, value: str) -> None:
        pass


def test_an_agent_whose_model_cannot_be_had_rests_with_its_input() -> None:
    llm = Moody(lambda request: "Hello")
    with served(llm) as live:
        agent = live.create("ada")
        dispatcher = live.service.dispatcher

        async def accept() -> None:
            found = await live.service.runtime.agent_of(agent)
            await found.accept(["hi"])
            llm.usable = False
            dispatcher.wake(agent)

        live.run(accept())
        until(lambda: dispatcher.running == 0, "it is left alone")
        assert [r.status for r in live.read(lambda tx: tx.open_runs(agent))] == ["created"]
        llm.usable = True
        until(lambda: live.read(lambda tx: tx.open_runs(agent)) == [], "it is answered")
