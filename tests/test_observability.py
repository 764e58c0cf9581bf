"""What can be seen of a server from outside: figures, the ledger of usage, spans, logs. Never what was said."""

import io
import json
import logging
import re
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import openai
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from agentos.errors import ConfigError, ProviderError
from agentos.llm.litellm import LiteLLM
from agentos.messages import Usage
from agentos.protocols import LLMRequest
from agentos.runtime import Runtime
from agentos.server.logs import log_to
from agentos.server.spans import send_spans
from agentos.settings import Settings
from agentos.testing import FixedClock, FunctionLLM, ScriptedLLM, call, say
from agentos.testing.fake_openai import Body, FakeOpenAI, FakeReply, PromptCache
from conftest import Home, collect
from serving import TOKEN, Served, served

SECRET = "xyzzy"
"""Stands in every message; nothing that can be seen from outside may have it."""


def model(request: LLMRequest) -> Any:
    words = next(str(m["content"]) for m in reversed(request.messages) if m["role"] == "user")
    if request.messages[-1]["role"] == "tool":
        return say(f"Done, {SECRET}", usage=Usage(200, 3, 100, 0.25))
    if "call" in words:
        calls = [call("archival_memory_insert", content=SECRET), call(f"made_up_{SECRET}")]
        return say("", *calls, usage=Usage(100, 9, 50, 0.5))
    if "down" in words:
        return ProviderError(f"the provider is down: {SECRET}")
    if "key" in words:
        return ConfigError("the key was refused")
    return say("Hello", usage=Usage(10, 1))


def figures(live: Served) -> dict[str, float]:
    """The metrics without buckets and times: name and labels -> value."""
    status, text, headers = live.ask("GET", "/metrics")
    assert (status, headers["content-type"].partition(";")[0]) == (200, "text/plain")
    assert SECRET not in text
    rows = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in rows if not re.search("_bucket|_created|_sum", name)}


def send(live: Served, agent: str, text: str) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": text}]}
    status, value, _ = live.ask("POST", f"/v1/agents/{agent}/messages", body)
    assert status == 200
    return dict(value)


def test_figures_count_turns_calls_and_requests() -> None:
    with served(FunctionLLM(model)) as live, served(FunctionLLM(model)) as other:
        agent = live.create("ada")
        for text in ("hi", "call", "down", "key"):
            send(live, agent, f"{text} {SECRET}")
        live.ask("GET", f"/v1/agents/{SECRET}")
        live.ask("GET", f"/{SECRET}")
        found = figures(live)
        assert found['agentos_turns_total{stop_reason="end_turn"}'] == 2
        assert found['agentos_turns_total{stop_reason="llm_error"}'] == 2
        assert found["agentos_turn_seconds_count"] == 4
        of = 'model="test/function"'
        assert found[f'agentos_model_calls_total{{{of},ok="true"}}'] == 3
        assert found[f'agentos_model_calls_total{{{of},ok="false"}}'] == 2
        assert found[f'agentos_model_tokens_total{{kind="prompt",{of}}}'] == 310
        assert found[f'agentos_model_tokens_total{{kind="completion",{of}}}'] == 13
        assert found[f'agentos_model_tokens_total{{kind="cached",{of}}}'] == 150
        assert found[f"agentos_model_cost_usd_total{{{of}}}"] == 0.75
        assert found['agentos_tool_calls_total{name="archival_memory_insert",ok="true"}'] == 1
        assert found['agentos_tool_calls_total{name="unknown",ok="false"}'] == 1
        route = 'method="POST",route="/v1/agents/{agent_id}/messages"'
        assert found[f'agentos_requests_total{{{route},status="200"}}'] == 4
        assert found[f"agentos_request_seconds_count{{{route}}}"] == 4
        assert found['agentos_requests_total{method="GET",route="/v1/agents/{agent_id}",status="404"}'] == 1
        assert found['agentos_requests_total{method="GET",route="unknown",status="404"}'] == 1
        assert found["agentos_running_agents"] == found["agentos_waiting_inputs"] == 0
        assert {"agentos_page_outs_total", "agentos_index_outbox"} <= found.keys()
        again = figures(live)
        assert again[f'agentos_model_calls_total{{{of},ok="true"}}'] == 3
        send(live, agent, "hi")
        assert figures(live)[f'agentos_model_calls_total{{{of},ok="true"}}'] == 4
        assert "agentos_turns_total" not in str(figures(other).keys())
        live.llm.name = "made-up"
        send(live, agent, "down")
        assert figures(live)['agentos_model_calls_total{model="other",ok="false"}'] == 1
        send(live, agent, "hi")
        assert figures(live)['agentos_model_calls_total{model="made-up",ok="true"}'] == 1


def test_what_clients_call_a_model_does_not_pile_up(tmp_path: Path) -> None:
    runtime = Runtime(Settings(home=tmp_path))
    one, first = runtime.llm("openai/one"), weakref.ref(runtime.llm("openai/made-up"))
    for number in range(200):
        runtime.llm(f"openai/made-up-{number}")
        assert runtime.llm("openai/one") is one, "and what is used stays"
    assert first() is None


class Provider:
    """A provider that fails now and then, and counts what it reported."""

    def __init__(self) -> None:
        self.reported: Counter[str] = Counter()
        self.answered = 0
        self._cache = PromptCache()
        self._failed: set[str] = set()

    def __call__(self, body: Body) -> FakeReply:
        last = str(body["messages"][-1]["content"])
        if "unlucky" in last and last not in self._failed:
            self._failed.add(last)
            return FakeReply(status=500, headers={"retry-after": "0"})
        if "refused" in last:
            return FakeReply(status=400)
        reply = FakeReply(text="Noted. " + "word " * 60)
        usage = self._cache.usage(body, reply)
        self.answered += 1
        self.reported["prompt_tokens"] += usage["prompt_tokens"]
        self.reported["completion_tokens"] += usage["completion_tokens"]
        self.reported["cached_tokens"] += usage["prompt_tokens_details"]["cached_tokens"]
        return FakeReply(text=reply.text, usage=usage)


def test_the_ledgers_sum_is_what_the_provider_reported() -> None:
    provider = Provider()
    clock = FixedClock(datetime(2026, 5, 8, 22, 0, tzinfo=UTC))
    with FakeOpenAI(provider) as server:
        llm = LiteLLM("openai/fake-model", api_base=server.url, api_key="key", context_window=8000)
        with served(llm, clock=clock) as live:
            ada, bob = live.create("ada"), live.create("bob")
            for number in range(12):
                send(live, ada, f"{'unlucky' if number % 4 == 1 else 'message'} {number} " + "w " * 500)
            send(live, ada, "refused")
            with openai.OpenAI(base_url=f"{live.url}/v1", api_key=TOKEN) as client:
                client.chat.completions.create(model="bob", messages=[{"role": "user", "content": "hello"}])
            status, value, _ = live.ask("GET", "/agentos/v1/usage")
            assert status == 200
            total = value["total"]
            assert {name: total[name] for name in provider.reported} == dict(provider.reported)
            assert (total["calls"] - total["failed"], total["failed"]) == (provider.answered, 1)
            kinds = live.read(lambda tx: Counter(s.kind for s in tx.steps(ada, limit=100)))
            assert kinds["summary"] > 0
            assert {(r["agent_id"], r["day"]) for r in value["usage"]} == {(ada, "2026-05-08"), (bob, "2026-05-08")}
            only = live.ask("GET", f"/agentos/v1/usage?agent_id={bob}")[1]
            assert (only["total"]["calls"], len(only["usage"])) == (1, 1)
            found = figures(live)
            spent = sum(v for k, v in found.items() if k.startswith('agentos_model_tokens_total{kind="prompt"'))
            assert spent == provider.reported["prompt_tokens"]
            for query, calls in (
                ("start=2026-05-08", total["calls"]), ("end=2026-05-08", total["calls"]), ("start=2026-05-09", 0),
                ("end=2026-05-07", 0), ("start=2026-05-09T00:00:00%2B02:00", total["calls"]),
                ("end=2026-05-08T22:00:00Z", total["calls"]), ("end=2026-05-08T21:59:59Z", 0),
            ):  # fmt: skip
                assert live.ask("GET", f"/agentos/v1/usage?{query}")[1]["total"]["calls"] == calls, query
            for query, code in (
                ("start=soon", 400),
                ("agent_id=nobody", 404),
                ("end=0001-01-01T00:00:00%2B14:00", 400),
            ):
                assert live.ask("GET", f"/agentos/v1/usage?{query}")[0] == code, query


# spans


@cache
def recording() -> InMemorySpanExporter:
    """OpenTelemetry takes one provider a process; a fixture of the module is made again when its tests run apart."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    exporter = recording()
    exporter.clear()
    return exporter


async def test_a_turn_its_model_calls_and_its_tools_are_spans(home: Home, exporter: InMemorySpanExporter) -> None:
    agent = await home.agent(FunctionLLM(model))
    await collect(agent, f"call {SECRET}")
    spans = {s.name: s for s in exporter.get_finished_spans()}
    turn = spans["invoke_agent ada"]
    values = dict(turn.attributes or {})
    run_id = values.pop("agentos.run.id")
    assert str(run_id).startswith("run-")
    assert values == {
        "gen_ai.operation.name": "invoke_agent", "gen_ai.agent.id": agent.id, "gen_ai.agent.name": "ada",
        "gen_ai.conversation.id": agent.id, "agentos.stop_reason": "end_turn", "gen_ai.usage.input_tokens": 300,
        "gen_ai.usage.output_tokens": 12, "gen_ai.usage.cache_read.input_tokens": 150,
    }  # fmt: skip
    chats = [s for s in exporter.get_finished_spans() if s.name == "chat test/function"]
    assert len(chats) == 2
    chat = dict(chats[0].attributes or {})
    assert chat["gen_ai.provider.name"] == "test"
    assert (chat["gen_ai.request.model"], chat["gen_ai.request.max_tokens"]) == ("test/function", 1024)
    assert (chat["gen_ai.usage.input_tokens"], chat["gen_ai.response.finish_reasons"]) == (100, ("stop",))
    assert chats[0].kind.name == "CLIENT"
    tool = spans["execute_tool archival_memory_insert"]
    assert dict(tool.attributes or {})["gen_ai.tool.call.id"]
    assert tool.status.status_code is StatusCode.UNSET
    wrong = spans["execute_tool unknown"]
    assert (wrong.status.status_code, (wrong.attributes or {})["error.type"]) == (StatusCode.ERROR, "tool_error")
    for span in (*chats, tool, wrong):
        assert span.parent is not None
        assert span.parent.span_id == turn.context.span_id
    assert SECRET not in "".join(s.to_json() for s in exporter.get_finished_spans())


async def test_what_fails_or_breaks_off_is_told_by_its_type(home: Home, exporter: InMemorySpanExporter) -> None:
    agent = await home.agent(FunctionLLM(model))
    await collect(agent, f"down {SECRET}")
    events = agent.send("call")
    await anext(events)
    await events.aclose()
    agent = await home.agent(ScriptedLLM([ProviderError("x")]))
    with trace.get_tracer("mine").start_as_current_span("mine") as mine:
        await collect(agent)  # goes on where the other broke off
    spans = exporter.get_finished_spans()
    chat, turn = spans[:2]
    assert (chat.attributes or {})["error.type"] == "ProviderError"
    assert (turn.attributes or {})["error.type"] == "llm_error"
    assert {s.status.status_code for s in (chat, turn)} == {StatusCode.ERROR}
    assert all(s.status.description is None and not s.events for s in spans)
    turns = [s for s in spans if s.name == "invoke_agent ada"]
    assert [(s.attributes or {})["agentos.stop_reason"] for s in turns] == ["llm_error", "interrupted", "llm_error"]
    assert len({(s.attributes or {})["agentos.run.id"] for s in turns}) == 2
    assert turns[-1].parent is not None
    assert turns[-1].parent.span_id == mine.get_span_context().span_id
    assert SECRET not in "".join(s.to_json() for s in spans)


def test_spans_leave_the_process_only_where_an_endpoint_is_named() -> None:
    for environ in ({}, {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
                    {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}):  # fmt: skip
        with send_spans(environ) as sent:
            assert not sent


# logs


@contextmanager
def logged(stream: io.StringIO) -> Iterator[None]:
    """The root logger as the server has it."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    log_to(stream)
    try:
        yield
    finally:
        root.handlers[:] = before
        root.setLevel(level)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_log_is_json_lines_without_what_was_said() -> None:
    stream = io.StringIO()

    def reply(request: LLMRequest) -> Any:
        if "bug" in str(request.messages[-1]["content"]):
            raise KeyError(SECRET)
        return model(request)

    with served(FunctionLLM(reply)) as live, logged(stream):
        agent = live.create("ada")
        send(live, agent, f"down {SECRET}")
        live.ask("POST", f"/v1/agents/{agent}/messages/async", {"input": f"bug {SECRET}"})
        live.ask("GET", f"/v1/agents/{agent}/messages?limit={SECRET}")
        live.ask("GET", f"/{SECRET}?q={SECRET}")
        lines = []
        while not any(line["event"] == "turn broke off" for line in lines):
            lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert SECRET not in stream.getvalue()
    assert TOKEN not in stream.getvalue()
    accepted = next(line for line in lines if line["event"] == "accepted")
    turn = next(line for line in lines if line["event"] == "turn")
    assert (turn["run_id"], turn["status"]) == (accepted["run_id"], "llm_error")
    assert "request_id" not in turn
    request = next(line for line in lines if line.get("request_id") == accepted["request_id"] and "route" in line)
    assert request.keys() == {
        "event", "request_id", "agent_id", "method", "route", "status", "ms", "level", "logger", "timestamp"
    }  # fmt: skip
    broken = next(line for line in lines if line["event"] == "turn broke off")
    assert (broken["exception"], broken["agent_id"]) == ("KeyError", agent)
    assert any("stream" in place for place in broken["at"])


def test_on_a_terminal_the_log_is_for_people() -> None:
    stream = Terminal()
    with logged(stream):
        logging.getLogger("agentos.dispatch").info("turn", extra={"agent_id": "agent-1"})
    assert "agent_id" in stream.getvalue()
    with pytest.raises(json.JSONDecodeError):
        json.loads(stream.getvalue())


def test_what_a_client_writes_does_not_steer_a_terminal() -> None:
    stream = Terminal()
    with logged(stream):
        logging.getLogger("agentos.access").info("request", extra={"agent_id": "\x1b]0;mine\x07\u202e"})
    assert "\x1b]" not in stream.getvalue()
    assert r"\x1b]0;mine\x07\u202e" in stream.getvalue()
