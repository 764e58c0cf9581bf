"""Processes that are killed again and again while clients talk and try again: nothing is lost or happens twice."""

import asyncio
import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import httpx

from agentos import Runtime, Settings
from agentos.testing import FakeOpenAI, FakeReply
from agentos.testing.fake_openai import call
from forks import Forked, Forks
from postgres import Server
from serving import TOKEN, free_port, model_at

AGENTS, NOTES, KILLS = 6, 8, 3


def note_policy(body: dict[str, Any]) -> FakeReply:
    """Writes each note to core memory and then answers; slow enough to be killed in the middle."""
    last = body["messages"][-1]
    if last["role"] == "user":
        note = last["content"].rpartition(" ")[2]
        arguments = {"label": "human", "content": note, "request_heartbeat": True}
        return FakeReply(text="", calls=[call("core_memory_append", arguments)], hang_seconds=0.05)
    said = next(m for m in reversed(body["messages"]) if m["role"] == "user")
    return FakeReply(text=f"noted {said['content'].rpartition(' ')[2]}", hang_seconds=0.05)


class Mortal:
    """`agentos` with these arguments as a process that can be killed and started again."""

    def __init__(self, forks: Forks, *arguments: str, **environment: str) -> None:
        self._forks, self._arguments, self._environment = forks, [*arguments], {**os.environ, **environment}
        self._process: Forked | None = None

    def start(self) -> None:
        self._process = self._forks.start(self._arguments, self._environment, Path.cwd(), [os.devnull] * 3)

    def kill(self, sign: int = signal.SIGKILL) -> int:
        assert self._process is not None
        self._process.send_signal(sign)
        return self._process.wait()


async def insist(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> Any:
    """The answer to a request, which is sent again until there is one."""
    while True:
        try:
            response = await client.post(path, json=body)
            if response.status_code == 200:
                return response.json()
            assert response.status_code in (429, 503), response.text
        except (httpx.TransportError, json.JSONDecodeError):
            pass
        await asyncio.sleep(0.05)


async def until_ready(client: httpx.AsyncClient) -> None:
    """Wait until the server takes requests."""
    while True:
        try:
            if (await client.get("/readyz")).status_code == 200:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.05)


async def make_agents(client: httpx.AsyncClient) -> list[str]:
    bodies = [{"name": f"a{n}", "memory_blocks": [{"label": "human", "value": ""}]} for n in range(AGENTS)]
    return [(await insist(client, "/v1/agents/", body))["id"] for body in bodies]


async def talk(client: httpx.AsyncClient, agent_id: str) -> list[str]:
    """All notes of one agent: what it said to each."""

    async def send(number: int) -> str:
        message = {"role": "user", "content": f"note n{number}", "otid": f"o{number}"}
        answer = await insist(client, f"/v1/agents/{agent_id}/messages", {"messages": [message]})
        return str(next(m["content"] for m in answer["messages"] if m["message_type"] == "assistant_message"))

    return [await send(number) for number in range(NOTES)]


async def check_saved(settings: Settings, agents: list[str]) -> None:
    """Every note was taken in once, in order, and written once."""
    expected = [f"n{number}" for number in range(NOTES)]
    async with Runtime(settings) as runtime:
        for agent_id in agents:
            blocks = await runtime.store.read(lambda tx, a=agent_id: tx.blocks(a))
            assert blocks[0].value.split("\n") == expected
            messages = await runtime.store.read(lambda tx, a=agent_id: tx.recent_messages(a, 1000))
            inputs = [m.content.rpartition(" ")[2] for m in reversed(messages) if m.role == "user" and m.inbox_id]
            assert inputs == expected
            assert await runtime.store.read(lambda tx, a=agent_id: tx.open_runs(a)) == []


async def kill_and_talk(victims: list[Mortal], url: str, steady: list[Mortal]) -> list[str]:
    """Talk with every agent while one of the victims after the other is killed and started again; the agents' ids."""
    chance = random.Random(7)
    for process in (*victims, *steady):
        process.start()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    try:
        async with asyncio.timeout(180), httpx.AsyncClient(base_url=url, headers=headers, timeout=20) as client:
            agents = await make_agents(client)
            talks = [asyncio.create_task(talk(client, agent_id)) for agent_id in agents]
            for number in range(KILLS):
                await asyncio.sleep(chance.uniform(0.2, 0.9))
                victim = victims[number % len(victims)]
                await asyncio.to_thread(victim.kill)
                victim.start()
                await until_ready(client)
            said = await asyncio.gather(*talks)
    finally:
        ends = [await asyncio.to_thread(process.kill, signal.SIGTERM) for process in (*victims, *steady)]
    assert ends == [0] * len(ends)
    assert said == [[f"noted n{number}" for number in range(NOTES)]] * AGENTS
    return agents


async def test_a_server_killed_at_random_moments(tmp_path: Path, forks: Forks) -> None:
    port = free_port()
    with FakeOpenAI(note_policy) as model:
        server = Mortal(
            forks, "serve", "--port", str(port), AGENTOS_HOME=str(tmp_path), AGENTOS_TOKEN=TOKEN,
            **model_at(model.url),
        )  # fmt: skip
        agents = await kill_and_talk([server], f"http://127.0.0.1:{port}", [])
    await check_saved(Settings(home=tmp_path, model="offline"), agents)


async def test_workers_killed_at_random_moments(tmp_path: Path, postgres: Server, forks: Forks) -> None:
    port, url = free_port(), postgres.database("workers")
    with FakeOpenAI(note_policy) as model:
        environment = {
            "AGENTOS_TOKEN": TOKEN, "AGENTOS_DATABASE_URL": url, "AGENTOS_LEASE_SECONDS": "1.5", **model_at(model.url),
        }  # fmt: skip
        front = Mortal(
            forks, "serve", "--turns", "0", "--port", str(port), AGENTOS_HOME=str(tmp_path / "0"), **environment
        )
        workers = [Mortal(forks, "worker", AGENTOS_HOME=str(tmp_path / str(n)), **environment) for n in (1, 2)]
        agents = await kill_and_talk(workers, f"http://127.0.0.1:{port}", [front])
    await check_saved(Settings(home=tmp_path / "3", model="offline", database_url=url), agents)
