"""A server that is killed again and again while clients talk and try again: nothing is lost, nothing happens twice."""

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentos import Runtime, Settings
from agentos.testing import FakeOpenAI, FakeReply
from agentos.testing.fake_openai import call

AGENTS, NOTES, KILLS = 6, 8, 4
TOKEN = "a-token-for-tests"


def note_policy(body: dict[str, Any]) -> FakeReply:
    """Writes each note to core memory and then answers; slow enough to be killed in the middle."""
    last = body["messages"][-1]
    if last["role"] == "user":
        note = last["content"].rpartition(" ")[2]
        arguments = {"label": "human", "content": note, "request_heartbeat": True}
        return FakeReply(text="", calls=[call("core_memory_append", arguments)], hang_seconds=0.05)
    said = next(m for m in reversed(body["messages"]) if m["role"] == "user")
    return FakeReply(text=f"noted {said['content'].rpartition(' ')[2]}", hang_seconds=0.05)


class Server:
    """`agentos serve` as a process that can be killed and started again at the same address."""

    def __init__(self, home: Path, model_url: str) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = sock.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = {
            **os.environ, "AGENTOS_HOME": str(home), "AGENTOS_TOKEN": TOKEN, "AGENTOS_MODEL": "openai/fake-model",
            "AGENTOS_API_BASE": model_url, "AGENTOS_API_KEY": "none-is-needed",
        }  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agentos", "serve", "--port", str(self.port)], env=self._environment,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def kill(self, sign: int = signal.SIGKILL) -> int:
        assert self.process is not None
        self.process.send_signal(sign)
        return self.process.wait(30)


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


@pytest.mark.parametrize("seed", [7])
async def test_killed_at_random_moments(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    with FakeOpenAI(note_policy) as model:
        server = Server(tmp_path, model.url)
        server.start()
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with asyncio.timeout(120), httpx.AsyncClient(base_url=server.url, headers=headers, timeout=20) as client:
            agents = [
                (
                    await insist(
                        client, "/v1/agents/", {"name": f"a{n}", "memory_blocks": [{"label": "human", "value": ""}]}
                    )
                )["id"]
                for n in range(AGENTS)
            ]

            async def talk(agent_id: str) -> list[str]:
                """All notes of one agent: each is accepted before the next is sent, and answered whenever it is."""

                async def send(number: int) -> str:
                    message = {"role": "user", "content": f"note n{number}", "otid": f"o{number}"}
                    answer = await insist(client, f"/v1/agents/{agent_id}/messages", {"messages": [message]})
                    return str(
                        next(m["content"] for m in answer["messages"] if m["message_type"] == "assistant_message")
                    )

                return [await send(number) for number in range(NOTES)]

            talks = [asyncio.create_task(talk(agent_id)) for agent_id in agents]
            for _ in range(KILLS):
                await asyncio.sleep(chance.uniform(0.2, 0.9))
                await asyncio.to_thread(server.kill)
                server.start()
                alive = False
                while not alive:
                    try:
                        alive = (await client.get("/readyz")).status_code == 200
                    except httpx.TransportError:
                        await asyncio.sleep(0.05)
            said = await asyncio.gather(*talks)
        assert await asyncio.to_thread(server.kill, signal.SIGTERM) == 0
    expected = [f"n{number}" for number in range(NOTES)]
    assert said == [[f"noted {note}" for note in expected]] * AGENTS
    async with Runtime(Settings(home=tmp_path, model="offline")) as runtime:
        for agent_id in agents:
            blocks = await runtime.store.read(lambda tx, a=agent_id: tx.blocks(a))
            assert blocks[0].value.split("\n") == expected
            messages = await runtime.store.read(lambda tx, a=agent_id: tx.recent_messages(a, 1000))
            inputs = [m.content.rpartition(" ")[2] for m in reversed(messages) if m.role == "user" and m.inbox_id]
            assert inputs == expected
            assert await runtime.store.read(lambda tx, a=agent_id: tx.open_runs(a)) == []
