"""A server that is killed again and again while clients talk and try again: nothing is lost, nothing happens twice."""

import asyncio
import json
import random
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentos import Runtime, Settings
from agentos.testing import FakeOpenAI, FakeReply
from agentos.testing.fake_openai import call
from serving import TOKEN, Process, free_port, model_at

AGENTS, NOTES, KILLS = 6, 8, 4


def note_policy(body: dict[str, Any]) -> FakeReply:
    """Writes each note to core memory and then answers; slow enough to be killed in the middle."""
    last = body["messages"][-1]
    if last["role"] == "user":
        note = last["content"].rpartition(" ")[2]
        arguments = {"label": "human", "content": note, "request_heartbeat": True}
        return FakeReply(text="", calls=[call("core_memory_append", arguments)], hang_seconds=0.05)
    said = next(m for m in reversed(body["messages"]) if m["role"] == "user")
    return FakeReply(text=f"noted {said['content'].rpartition(' ')[2]}", hang_seconds=0.05)


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
        home, port = tmp_path / "home", free_port()
        server = Process(home, "--port", port, **model_at(model.url))
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
                await asyncio.to_thread(server.signalled, signal.SIGKILL)
                server = await asyncio.to_thread(Process, home, "--port", port, **model_at(model.url))
            said = await asyncio.gather(*talks)
        assert await asyncio.to_thread(server.signalled, signal.SIGTERM) == 0
    expected = [f"n{number}" for number in range(NOTES)]
    assert said == [[f"noted {note}" for note in expected]] * AGENTS
    async with Runtime(Settings(home=home, model="offline")) as runtime:
        for agent_id in agents:
            blocks = await runtime.store.read(lambda tx, a=agent_id: tx.blocks(a))
            assert blocks[0].value.split("\n") == expected
            messages = await runtime.store.read(lambda tx, a=agent_id: tx.recent_messages(a, 1000))
            inputs = [m.content.rpartition(" ")[2] for m in reversed(messages) if m.role == "user" and m.inbox_id]
            assert inputs == expected
            assert await runtime.store.read(lambda tx, a=agent_id: tx.open_runs(a)) == []
