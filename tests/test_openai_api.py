"""OpenAI's API, as the real `openai` client speaks it."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from agentos.errors import ConfigError, ProviderError
from agentos.messages import Reply, Usage
from agentos.protocols import LLMRequest
from agentos.testing import FunctionLLM, call, say
from serving import TOKEN, Served, served

PATHS = ("/v1", "/openai/v1")


def last_words(request: LLMRequest) -> str:
    return str(request.messages[-1]["content"])


def model(request: LLMRequest) -> Any:
    """Does what the last user message asks for."""
    words = next(str(m["content"]) for m in reversed(request.messages) if m["role"] == "user")
    done = request.messages[-1]["role"] == "tool"
    if "remember" in words and not done:
        return say("One moment.", call("archival_memory_insert", content="tea", request_heartbeat=True))
    if "fail" in words:
        return ProviderError("the provider is down; try again later")
    if "key" in words:
        return ConfigError("the key was refused; set another")
    if "forever" in words:
        return say("", call("archival_memory_search", query=f"tea {len(request.messages)}", request_heartbeat=True))
    if "slow" in words:
        return slow()
    return say(f"Answer {len(request.messages)}", usage=Usage(100, 7, 40))


async def slow() -> Reply:
    await asyncio.sleep(0.2)
    return say("At last")


@pytest.fixture(scope="module")
def live() -> Iterator[Served]:
    with served(FunctionLLM(model)) as live:
        yield live


@pytest.fixture
def client(live: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key=TOKEN, max_retries=0) as client:
        yield client


def user(text: Any, **values: Any) -> list[Any]:
    return [{"role": "user", "content": text, **values}]


def history(live: Served, name: str) -> list[Any]:
    """What an agent has heard and said, oldest first."""

    def work(tx: Any) -> list[Any]:
        return list(reversed(tx.recent_messages(tx.agent_named(name).id, 100)))

    return list(live.read(work))


@pytest.mark.parametrize("prefix", PATHS)
def test_each_agent_is_a_model(live: Served, prefix: str) -> None:
    name = f"models{len(prefix)}"
    live.create(name)
    with openai.OpenAI(base_url=live.url + prefix, api_key=TOKEN) as client:
        assert {name, f"plain/{name}"} <= {m.id for m in client.models.list()}
        assert client.models.retrieve(f"plain/{name}").owned_by == "agentos"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("nobody")
        assert client.chat.completions.create(model=name, messages=user("hi")).choices[0].message.content
    status, value, _ = live.ask("GET", f"{prefix}/models")
    assert (status, value["object"]) == (200, "list")


def test_only_the_last_user_message_is_the_turns_input(live: Served, client: openai.OpenAI) -> None:
    live.create("one")
    messages: list[Any] = [
        {"role": "system", "content": "You are a pirate."}, *user("Earlier"), {"role": "assistant", "content": "Arr"},
        *user([{"type": "text", "text": "This"}, {"type": "text", "text": "counts"}], name="Bo\x00"),
        {"role": "assistant", "content": "prefill"},
    ]  # fmt: skip
    done = client.chat.completions.create(model="one", messages=messages, temperature=0.1, tools=[], user="someone")
    said = history(live, "one")
    assert [(m.role, m.content, m.name) for m in said[:1]] == [("user", "This\ncounts", "Bo\ufffd")]
    assert (done.object, done.model, done.choices[0].finish_reason) == ("chat.completion", "one", "stop")
    assert done.choices[0].message.content == said[-1].content
    assert done.usage is not None
    assert (done.usage.prompt_tokens, done.usage.completion_tokens, done.usage.total_tokens) == (100, 7, 107)
    assert done.usage.prompt_tokens_details is not None
    assert done.usage.prompt_tokens_details.cached_tokens == 40


def test_an_agents_own_calls_are_never_shown(live: Served, client: openai.OpenAI) -> None:
    live.create("caller")
    done = client.chat.completions.create(model="caller", messages=user("remember tea"))
    assert done.choices[0].message.tool_calls is None
    assert done.choices[0].finish_reason == "stop"
    text = done.choices[0].message.content or ""
    assert text.startswith("One moment.\n\nAnswer")
    chunks = list(
        client.chat.completions.create(
            model="caller", messages=user("remember more"), stream=True, stream_options={"include_usage": True}
        )
    )
    assert all(not c.choices or c.choices[0].delta.tool_calls is None for c in chunks)
    streamed = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    said = [m.content for m in history(live, "caller") if m.role == "assistant"]
    assert streamed == "\n\n".join(said[-2:])
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert not chunks[-1].choices
    assert len({c.id for c in chunks}) == 1
    unasked = list(client.chat.completions.create(model="caller", messages=user("hi"), stream=True))
    assert all(c.usage is None and c.choices for c in unasked)


def test_a_turn_that_fails_is_an_answer_that_says_so(live: Served, client: openai.OpenAI) -> None:
    live.create("unlucky")
    for words, told in (("fail", "the provider is down; try again later"), ("key", "the key was refused; set another")):
        done = client.chat.completions.create(model="unlucky", messages=user(words))
        assert done.choices[0].message.content == f"[error: {told}]"
        assert done.choices[0].finish_reason == "stop"
        assert done.model_extra is not None
        assert done.model_extra["agentos"]["stop_reason"] == "llm_error"
        chunks = list(client.chat.completions.create(model="unlucky", messages=user(words), stream=True))
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == f"[error: {told}]"
        assert chunks[-1].choices[0].finish_reason == "stop"
        assert (chunks[-1].model_extra or {})["agentos"]["error"] == told
    live.create("tireless")
    done = client.chat.completions.create(model="tireless", messages=user("forever"))
    assert done.choices[0].finish_reason == "length"
    assert (done.model_extra or {})["agentos"]["stop_reason"] == "max_steps"


def test_an_idempotency_key_is_one_turn(live: Served, client: openai.OpenAI) -> None:
    live.create("once")

    def send(text: str, **headers: str) -> Any:
        return client.chat.completions.create(model="once", messages=user(text), extra_headers=headers)

    first, again = (send("hello", **{"Idempotency-Key": "k1"}) for _ in range(2))
    assert first.agentos["run_id"] == again.agentos["run_id"]
    assert first.choices == again.choices
    with pytest.raises(openai.ConflictError) as conflict:
        send("something else", **{"Idempotency-Key": "k1"})
    assert conflict.value.response.headers["x-should-retry"] == "false"
    fresh = send("same words")
    assert send("same words", **{"x-stainless-retry-count": "1"}).agentos == fresh.agentos
    assert send("same words").agentos != fresh.agentos
    assert sum(m.role == "user" for m in history(live, "once")) == 3
    empty, other = (send("no key", **{"Idempotency-Key": ""}) for _ in range(2))
    assert empty.agentos != other.agentos
    # a turn that failed at the provider is taken up again
    failed = send("fail", **{"Idempotency-Key": "k2"})
    live.llm.reply, kept = (lambda request: "Better now"), live.llm.reply
    try:
        later = send("fail", **{"Idempotency-Key": "k2"})
    finally:
        live.llm.reply = kept
    assert (later.choices[0].message.content, later.agentos["run_id"]) == ("Better now", failed.agentos["run_id"])


def test_plain_is_the_model_without_its_agent(live: Served, client: openai.OpenAI) -> None:
    live.create("titled")
    asked: list[Any] = [
        {"role": "developer", "content": "Write a title."}, *user("I like tea"),
        {"role": "assistant", "content": "Noted"}, {"role": "tool", "content": "x", "tool_call_id": "1"},
        {"role": "assistant", "content": ""}, {"role": "system", "content": "Be brief."}, *user("Title?\x00"),
    ]  # fmt: skip
    done = client.chat.completions.create(model="plain/titled", messages=asked, max_tokens=9)
    request = live.llm.requests[-1]
    assert request.messages == [
        {"role": "system", "content": "Write a title.\n\nBe brief."}, {"role": "user", "content": "I like tea"},
        {"role": "assistant", "content": "Noted"}, {"role": "user", "content": "Title?\ufffd"},
    ]  # fmt: skip
    assert (request.tools, request.max_tokens) == ([], 9)
    assert (done.model, done.choices[0].message.content) == ("plain/titled", "Answer 4")
    chunks = list(
        client.chat.completions.create(
            model="plain/titled", messages=asked, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Answer 4"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 107
    failed = client.chat.completions.create(model="plain/titled", messages=user("fail"))
    assert failed.choices[0].message.content == "[error: the provider is down; try again later]"
    chunks = list(client.chat.completions.create(model="plain/titled", messages=user("fail"), stream=True))
    assert "provider is down" in "".join(c.choices[0].delta.content or "" for c in chunks)
    assert history(live, "titled") == []
    (spent,) = live.read(lambda tx: tx.usage_by_day(tx.agent_named("titled").id))
    assert (spent["calls"], spent["prompt_tokens"] + spent["completion_tokens"]) == (2, 214), "what was paid is told"


def test_what_is_wrong_is_said_in_both_shapes(live: Served) -> None:
    live.create("strict")
    image = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    rows: list[tuple[Any, int, str | None, str]] = [
        ({"model": "nobody", "messages": user("x")}, 404, "model_not_found", "there is no agent 'nobody'"),
        ({"model": "plain/nobody", "messages": user("x")}, 404, "model_not_found", "there is no agent 'nobody'"),
        ({"model": "strict", "messages": []}, 422, None, "messages"),
        ({"model": "strict"}, 422, None, "messages"),
        ({"model": "strict", "messages": user("x"), "n": 2}, 422, None, "n: "),
        ({"model": "strict", "messages": [{"role": "boss", "content": "x"}]}, 422, None, "messages.0.role"),
        ({"model": "strict", "messages": [{"role": "system", "content": "x"}]}, 400, None, "role 'user'"),
        ({"model": "plain/strict", "messages": [{"role": "system", "content": "x"}]}, 400, None, "role 'user'"),
        ({"model": "strict", "messages": user("  ")}, 400, None, "empty"),
        ({"model": "strict", "messages": user(None)}, 400, None, "empty"),
        ({"model": "strict", "messages": user(image)}, 400, None, "image_url"),
        ({"model": "plain/strict", "messages": user(image)}, 400, None, "image_url"),
        (b"{", 422, None, "JSON"),
        (b"[" * 100_000, 400, None, ""),
        (b"[1]", 422, None, ""),
        (b"", 422, None, "Field required"),
    ]
    for prefix in PATHS:
        for body, status, code, words in rows:
            got, value, _ = live.ask("POST", f"{prefix}/chat/completions", body)
            assert got == status, (body, value)
            assert value["error"]["code"] == code
            assert words in value["error"]["message"]
            assert value["error"]["type"] == "invalid_request_error"
            assert "detail" in value
        got, value, _ = live.ask("GET", f"{prefix}/models", authorization="Bearer wrong-token")
        assert (got, value["error"]["type"]) == (401, "authentication_error")
    assert live.ask("GET", "/v1/runs/x")[1].keys() == {"detail"}
    assert history(live, "strict") == []


def test_one_who_leaves_stops_no_turn(live: Served, client: openai.OpenAI) -> None:
    live.create("patient")
    stream = client.chat.completions.create(model="patient", messages=user("slow"), stream=True)
    next(iter(stream))
    stream.close()
    done = client.chat.completions.create(model="patient", messages=user("hello"))
    assert done.choices[0].message.content
    assert next(m.content for m in history(live, "patient") if m.role == "assistant") == "At last"


def test_a_stream_is_server_sent_events(live: Served) -> None:
    live.create("lines")
    body = {"model": "lines", "messages": user("hi"), "stream": True}
    status, text, headers = live.ask("POST", "/v1/chat/completions", body)
    assert (status, headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
    frames = text.strip().split("\n\n")
    assert frames[-1] == "data: [DONE]"
    assert all(json.loads(f.removeprefix("data: "))["object"] == "chat.completion.chunk" for f in frames[:-1])
