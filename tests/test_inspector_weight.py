"""What the Inspector's pages weigh at worst: full pages of the longest texts, each character of which is escaped."""

import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from agentos.messages import Cause, Message, Passage, ToolCall, Usage
from agentos.server.inspector.render import _diff, text_part
from agentos.state import RunRecord, StepRecord
from inspecting import HEAVIEST_BYTES
from serving import TOKEN, Served, served

NAME = "n" * 100
LONG = '"<\u202e\U0001f600' * 2500
"""10,000 characters of up to six bytes each."""
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def live() -> Iterator[Served]:
    with served() as live:
        live.create(NAME, persona="assistant")

        async def filled() -> None:
            await live.service.store.write(fill)

        live.run(filled())
        yield live


def fill(tx: Any) -> None:
    """An agent all of whose texts are long."""
    agent = tx.agent_named(NAME).id
    tx.add_run(RunRecord("run-x", agent, NOW, status="failed", error=LONG, stop_reason="llm_error", ended_at=NOW))
    for n in range(60):
        role: Any = ("user", "assistant", "tool")[n % 3]
        calls = tuple(ToolCall(f"call-{n}-{k}", f"tool_{k}", f'{{"query": "{"x" * 9000}"}}') for k in range(3))
        message = Message(
            id=0, agent_id=agent, role=role, content=LONG, origin="agent", created_at=NOW, seq=n + 1, run_id="run-x",
            calls=calls if role == "assistant" else (), call_id=f"call-{n - 1}-0" if role == "tool" else None,
            ok=False if role == "tool" else None, name="tool_0" if role == "tool" else None,
            provider={"fields": {"reasoning": LONG}} if role == "assistant" else None,
            sources=tuple(f"p{k}" for k in range(50)),
        )  # fmt: skip
        message_id = tx.add_message(message).id
        usage = Usage(3000, 50, 2900, 0.001)
        tx.add_step(StepRecord("run-x", agent, NOW, "conversation", "offline", usage, 3000, 2900, "", 120, error=LONG))
    tx.update_agent(agent, last_seq=60)
    block = next(b for b in tx.blocks(agent) if b.label == "human")
    cause = Cause(agent, "agent", run_id="run-x", message_id=message_id)
    for n in range(40):
        block = tx.write_block(block, f"{n}\n{LONG * 3}\n" + "line <\n" * 900, cause, "block.edit")
        text = f"{n} boat {LONG * 4}"
        tags = tuple(f"tag {k} {'<' * 90}" for k in range(30))
        tx.add_passage(Passage(id=0, agent_id=agent, text=text, origin="user", created_at=NOW, tags=tags), cause)


def test_the_heaviest_pages_are_light(live: Served) -> None:
    agent = live.read(lambda tx: tx.agent_named(NAME).id)
    block = live.read(lambda tx: next(b for b in tx.blocks(agent) if b.label == "human"))
    message = live.read(lambda tx: tx.recent_messages(agent, 5)[0].ref)
    static: dict[str, int] = {}
    headers = {"authorization": f"Bearer {TOKEN}", "accept": "text/html"}
    paths = (
        "/", "core", "context", f"core/b{block.id}", f"core/b{block.id}?version={block.version_id}", "timeline",
        "timeline?run_id=run-x", "why?what=human", "archival", "archival?query=boat", "archival/p1", "recall",
        f"recall/{message}", "runs", "runs/run-x", "chat", "nowhere",
    )  # fmt: skip
    heavy = {}
    with closing(httpx.Client(base_url=live.url, headers=headers, trust_env=False, timeout=60)) as client:
        for path in paths:
            answer = client.get(path if path == "/" else f"/agents/{NAME}/{path}")
            assert answer.status_code == (404 if path == "nowhere" else 200), (path, answer.text[-300:])
            weight = len(answer.content)
            for file in re.findall(r'(?:href|src)="(/static/[^"]+)"', answer.text):
                static.setdefault(file, len(client.get(file).content))
                weight += static[file]
            if weight > HEAVIEST_BYTES:
                heavy[path] = weight
    assert heavy == {}


def test_a_diff_is_cut_where_its_room_ends() -> None:
    lines = _diff(f"- {'a' * 990}\n+ {'b' * 50_000}", 1000)
    assert [(kind, len(text)) for kind, text in lines] == [("removed", 990), ("added", 2), ("cut", 0)]


def test_the_parts_of_a_long_text_are_all_of_it() -> None:
    for text in (LONG * 5, "plain " * 9000, "", "short"):
        parts, at = "", 0
        while at is not None:
            part = text_part(text, at)
            parts, at = parts + part["text"], part["after"]
        assert parts == text
    assert text_part("plain", 99)["text"] == ""
