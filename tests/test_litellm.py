"""The model adapter against a fake server: what arrives, what fails, and how it says so."""

import asyncio
import copy
import gc
import json
import re
import sys
import threading
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.errors import ConfigError, ContextOverflow, ProviderError
from agentos.events import Retry
from agentos.llm.arguments import parse_arguments
from agentos.llm.assembly import ReplyBuilder
from agentos.llm.faults import Transient, explain
from agentos.llm.litellm import MAX_REQUESTS, LiteLLM, load_litellm
from agentos.llm.text_calls import TextGate, ThinkSplitter, find_text_calls
from agentos.messages import Reply, Usage
from agentos.protocols import LLM, Delta, LLMRequest
from agentos.testing.fake_openai import FakeOpenAI, FakeReply, call, chain_policy, in_order

MESSAGES = [{"role": "system", "content": "You are kind."}, {"role": "user", "content": "hello"}]
SAVE = {"type": "function", "function": {"name": "save", "parameters": {"type": "object", "properties": {}}}}
EVENT_STREAM = {"content-type": "text/event-stream"}


def request(messages=MESSAGES, tools=(), **rest):
    return LLMRequest(messages=messages, tools=list(tools), **rest)


def model(server, name="openai/fake-model", **rest):
    return LiteLLM(name, api_base=server.url, **{"api_key": "key", "backoff_seconds": 0.0, **rest})


async def ask(llm, asked=None, parts=None):
    """Everything one request yields; `parts` keeps it where the request fails."""
    parts = [] if parts is None else parts
    async for part in llm.stream(asked or request()):
        parts.append(part)
    return parts


async def answer(*replies, asked=None, **rest):
    """(all that was yielded, the bodies of the requests)."""
    with FakeOpenAI(in_order(*replies)) as server:
        return await ask(model(server, **rest), asked), server.requests


async def failure(*replies, asked=None, **rest):
    """(the error, the bodies of the requests)."""
    with FakeOpenAI(in_order(*replies)) as server:
        with pytest.raises(Exception) as caught:  # noqa: PT011  # each test says which it expects
            await ask(model(server, **rest), asked)
        return caught.value, server.requests


def text_of(parts):
    return "".join(part.text for part in parts if isinstance(part, Delta))


# a reply as it should be


async def test_text_arrives_in_pieces_and_the_reply_last():
    parts, requests = await answer(FakeReply(text="hello, world", chunk_chars=5))
    assert parts[:-1] == [Delta("hello"), Delta(", wor"), Delta("ld")]
    assert isinstance(parts[-1], Reply)
    assert (parts[-1].text, parts[-1].calls, parts[-1].finish_reason) == ("hello, world", (), "stop")
    assert (parts[-1].model, parts[-1].provider) == ("fake-model", None)
    assert requests[0]["messages"] == MESSAGES
    assert requests[0]["max_tokens"] == 1024


async def test_it_keeps_the_contract_of_an_llm():
    llm: LLM = LiteLLM("openai/some-local-model", api_base="http://127.0.0.1:9/v1")
    assert llm.name == "openai/some-local-model"
    assert llm.provider == "openai@127.0.0.1:9"
    assert (llm.context_window, llm.max_output_tokens) == (32_768, 4096)


async def test_the_request_is_not_changed():
    asked = request([*MESSAGES, *tool_step()], [SAVE], cache_key="agent-1", previous_length=2)
    before = copy.deepcopy(asked)
    _, requests = await answer(FakeReply(text="ok"), asked=asked)
    assert asked == before
    assert requests[0]["messages"] == before.messages
    assert requests[0]["tools"] == before.tools
    assert requests[0]["prompt_cache_key"] == "agent-1"


def tool_step(**fields):
    entry = {"id": "c1", "type": "function", "function": {"name": "save", "arguments": "{}"}}
    assistant = {"role": "assistant", "content": None, "tool_calls": [entry], **fields}
    return [assistant, {"role": "tool", "tool_call_id": "c1", "content": "saved"}]


async def test_usage_with_cached_tokens():
    usage = {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}
    parts, _ = await answer(FakeReply(text="a", usage=usage | {"prompt_tokens_details": {"cached_tokens": 64}}))
    assert parts[-1].usage == Usage(100, 7, 64, None)


async def test_no_usage_is_reported_as_none():
    parts, _ = await answer(FakeReply(text="a", usage={}))
    assert parts[-1].usage is None


async def test_a_known_model_has_a_cost_and_cached_tokens_are_cheaper():
    usage = {"prompt_tokens": 1_000_000, "completion_tokens": 0, "total_tokens": 1_000_000}
    full, _ = await answer(FakeReply(text="a", usage=usage), name="openai/gpt-4.1-mini")
    cached = usage | {"prompt_tokens_details": {"cached_tokens": 1_000_000}}
    half, _ = await answer(FakeReply(text="a", usage=cached), name="openai/gpt-4.1-mini")
    assert full[-1].usage.cost_usd > half[-1].usage.cost_usd > 0


async def test_reasoning_is_kept_apart_and_replayed():
    parts, _ = await answer(FakeReply(text="42", reasoning="six times seven", chunk_chars=4))
    assert "".join(p.reasoning for p in parts[:-1]) == "six times seven"
    assert text_of(parts) == parts[-1].text == "42"
    provider = parts[-1].provider
    assert provider["fields"] == {"reasoning_content": "six times seven"}
    replayed = [*MESSAGES, {"role": "assistant", "content": "42", **provider["fields"]}, *MESSAGES[1:]]
    _, requests = await answer(FakeReply(text="ok"), asked=request(replayed))
    assert requests[0]["messages"] == replayed


async def test_think_tags_are_reasoning():
    parts, _ = await answer(FakeReply(text="<think>hm, <b></think>\n\nhello <think>", chunk_chars=3))
    assert text_of(parts) == parts[-1].text == "hello <think>"
    assert parts[-1].provider["fields"] == {"reasoning_content": "hm, <b>"}


async def test_an_empty_reply_is_a_reply():
    parts, requests = await answer(FakeReply())
    assert [(p.text, p.calls) for p in parts] == [("", ())]
    assert len(requests) == 1


async def test_a_reply_without_its_finishing_chunk():
    parts, _ = await answer(FakeReply(text="hello", finish_reason=""))
    assert (parts[-1].text, parts[-1].finish_reason) == ("hello", "stop")


async def test_a_huge_reply():
    text = "the same words again\n" * 25_000
    parts, _ = await answer(FakeReply(text=text, chunk_chars=1000), asked=request(tools=[SAVE]))
    assert parts[-1].text == text_of(parts) == text


async def test_a_huge_argument_in_small_pieces():
    arguments = json.dumps({"content": "long " * 100_000})
    pieces = [{"index": 0, "function": {"arguments": arguments[at : at + 500]}} for at in range(0, len(arguments), 500)]
    parts, _ = await answer(FakeReply(calls=[[call("save", ""), *pieces]]), asked=request(tools=[SAVE]))
    assert parts[-1].calls[0].arguments == arguments


async def test_unsendable_characters_are_replaced():
    parts, _ = await answer(FakeReply(text="a\x00b", calls=[call("save", {"content": "x\x00\ud800\\u0000"})]))
    assert parts[-1].text == "a\ufffdb"
    assert parts[-1].calls[0].values == {"content": "x\ufffd\ufffd\\u0000"}


async def test_closing_the_iterator_ends_the_request():
    with FakeOpenAI(in_order(FakeReply(text="one two", chunk_chars=3))) as server:
        llm = model(server)
        async with aclosing(llm.stream(request())) as parts:
            assert await anext(parts) == Delta("one")
        assert text_of(await ask(llm)) == "one two"


async def test_cancelling_while_the_server_is_silent():
    arrived = threading.Event()

    def silent(body):
        arrived.set()
        return FakeReply(hang_seconds=30.0)

    with FakeOpenAI(silent) as server:
        asking = asyncio.create_task(ask(model(server)))
        await asyncio.to_thread(arrived.wait)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert len(server.requests) == 1


# tool calls


async def calls_of(*entries, **rest):
    parts, _ = await answer(FakeReply(calls=entries, **rest), asked=request(tools=[SAVE]))
    return parts[-1].calls


async def test_a_call_in_pieces():
    pieces = [call("save", ""), *({"index": 0, "function": {"arguments": text}} for text in ('{"a"', ": 1}"))]
    [made] = await calls_of(pieces)
    assert (made.id, made.name, made.arguments, made.error) == ("call_1", "save", '{"a": 1}', None)


@pytest.mark.parametrize(
    "entries",
    [
        [call("save", {"n": 1}, "a", 0), call("save", {"n": 2}, "b", 1)],
        [call("save", {"n": 1}, "a", 0), call("save", {"n": 2}, "b", 0)],
        [call("save", {"n": 1}, "a", None), call("save", {"n": 2}, "b", None)],
        [call("save", {"n": 1}, None, 0), call("save", {"n": 2}, None, 1)],
        [call("save", {"n": 1}, None, None), call("save", {"n": 2}, None, None)],
        [call("save", {"n": 1}, "same", 0), call("save", {"n": 2}, "same", 1)],
        [call("save", {"n": 1}, "same", 0), call("save", {"n": 2}, "same", 0)],
        [call("save", {"n": 1}, "x" * 65, 0), call("save", {"n": 2}, "", 1)],
    ],
)
async def test_two_calls_however_a_server_marks_them(entries):
    made = await calls_of(*entries)
    assert [c.values for c in made] == [{"n": 1}, {"n": 2}]
    assert len({c.id for c in made}) == 2
    assert all(0 < len(c.id) <= 64 for c in made)


async def test_id_and_name_repeated_in_every_piece():
    [made] = await calls_of([call("save", '{"a": '), call("save", '{"b": 1}'), call("save", "}")])
    assert made.values == {"a": {"b": 1}}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ('{"a": 1', "at character 7"),
        ("{'a': 1}", "near \"{'a': 1}\""),
        ("[1]", "a list, not a JSON object"),
        ("null", "null, not a JSON object"),
        ('"{}"', "a string, not"),
        ('{"a": NaN}', "outside JSON's range"),
        ('{"a": 1e999}', "outside JSON's range"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": 1} {"b": 2}', "Extra data"),
    ],
)
async def test_arguments_that_are_no_object_come_back_as_an_error(arguments, said):
    [made] = await calls_of(call("save", arguments))
    assert made.arguments == "{}"
    assert said in made.error
    assert "send the call again" in made.error


@pytest.mark.parametrize("arguments", ["", "  ", "{}"])
async def test_missing_arguments_are_the_empty_object(arguments):
    [made] = await calls_of(call("save", arguments))
    assert (made.arguments, made.error) == ("{}", None)


@pytest.mark.parametrize(("arguments", "finish"), [('{"a": "b', "length"), ("", "length"), ('{"a": "b', "")])
async def test_a_call_that_was_cut_off_says_so(arguments, finish):
    first, last = await calls_of(call("save", '{"a":1}', "a"), call("save", arguments, "b", 1), finish_reason=finish)
    assert (first.arguments, first.error) == ('{"a": 1}', None)
    assert (last.arguments, last.error[:8]) == ("{}", "cut off:")


async def test_a_name_no_provider_would_take_back():
    made = await calls_of(call("mém.save", {}, "a"), call("", {}, "b", 1))
    assert [c.name for c in made] == ["m_m_save", "unknown"]
    assert made[1].error


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text() | st.lists(st.none() | st.text(), max_size=3)))
def test_arguments_are_kept(values):
    canonical, error = parse_arguments(json.dumps(values))
    assert error is None
    assert len(json.loads(canonical)) <= len(values)
    assert parse_arguments(canonical) == (canonical, None)
    canonical.encode()


# calls written as text

WRITTEN = '{"name": "save", "arguments": {"content": "tea"}}'


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        (WRITTEN, ""),
        (f"\n{WRITTEN}\n", ""),
        (f"Saving.\n\n```json\n{WRITTEN}\n```", "Saving."),
        (f"Saving.\n```\n{WRITTEN}\n```\n", "Saving."),
        (f"<tool_call>\n{WRITTEN}\n</tool_call>", ""),
        (f"<tool_call>{WRITTEN}</tool_call>", ""),
        (f"```python\nx = 1\n```\n\n```json\n{WRITTEN}\n```", "```python\nx = 1\n```"),
        (f"```tool_call\n{WRITTEN.replace('arguments', 'parameters')}\n```\nDone.", "\nDone."),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_a_call_written_as_text(text, rest, size):
    gate = TextGate({"save"})
    shown = "".join(gate.feed(text[at : at + size]) for at in range(0, len(text), size))
    left, kept, calls = gate.finish()
    assert shown + left == kept == rest
    assert [(c.name, c.values) for c in calls] == [("save", {"content": "tea"})]


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "other", "arguments": {}}',
        '{"name": "save"}',
        '```json\n{"name": "save", "arguments": [1]}\n```',
        '```json\n{"name": "save", "arguments": {\n```',
        "<tool_call>save the tea</tool_call>",
        f"Write `{WRITTEN}` to save.",
        "```\nplain\n```\n\n  trailing  \n",
        "",
    ],
)
@pytest.mark.parametrize("size", [1, 4, 1000])
def test_what_is_no_call_stays_text(text, size):
    gate = TextGate({"save"})
    shown = "".join(gate.feed(text[at : at + size]) for at in range(0, len(text), size))
    left, kept, calls = gate.finish()
    assert (shown + left, kept, calls) == (text, text, ())


async def test_a_written_call_is_made_and_not_shown():
    text = f"I will save it.\n```json\n{WRITTEN}\n```"
    parts, _ = await answer(FakeReply(text=text, chunk_chars=4), asked=request(tools=[SAVE]))
    assert text_of(parts) == parts[-1].text == "I will save it."
    assert [c.name for c in parts[-1].calls] == ["save"]


async def test_beside_a_native_call_nothing_else_is_one():
    reply = FakeReply(text=WRITTEN, calls=[call("save", {"content": "native"})])
    parts, _ = await answer(reply, asked=request(tools=[SAVE]))
    assert text_of(parts) == parts[-1].text == WRITTEN
    assert [c.values for c in parts[-1].calls] == [{"content": "native"}]


def test_code_is_shown_as_soon_as_it_is_no_call():
    gate = TextGate({"save"})
    assert gate.feed("See:\n```\nprint(1)\n") == "See:\n```\nprint(1)"
    assert gate.feed('```json\n{"a": 1}\n``') == ""
    assert gate.feed("`\nok") == '\n```json\n{"a": 1}\n```\nok'


@pytest.mark.parametrize("name", [["save"], {"save": 1}, None, 7])
def test_a_block_whose_name_is_no_name_is_text(name):
    text = json.dumps({"name": name, "arguments": {}})
    assert find_text_calls(f"```json\n{text}\n```", {"save"}) == (f"```json\n{text}\n```", ())


def test_a_block_too_long_for_a_call_is_shown():
    gate = TextGate({"save"})
    assert gate.feed('{"content": "' + "x" * 20_000) != ""


@given(st.text('`{}<>/\n tolcaj_json"', max_size=200), st.integers(1, 9))
def test_held_text_is_never_lost(text, size):
    gate, think = TextGate({"save"}), ThinkSplitter()
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    shown = "".join(gate.feed(piece) for piece in pieces)
    assert shown + gate.finish()[0] == text == find_text_calls(text, {"save"})[0]
    assert "".join(think.feed(piece)[1] for piece in pieces) + think.finish()[1] == text


# faults


async def test_a_bad_key_is_not_tried_again():
    error, requests = await failure(FakeReply(status=401))
    assert isinstance(error, ConfigError)
    assert "AGENTOS_API_KEY" in str(error)
    assert "fake error 401" in str(error)
    assert len(requests) == 1


@pytest.mark.parametrize("status", [403, 404])
async def test_what_only_the_caller_can_change(status):
    error, requests = await failure(FakeReply(status=status))
    assert isinstance(error, ConfigError)
    assert len(requests) == 1


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_refused_request_is_not_tried_again(status):
    error, requests = await failure(FakeReply(status=status))
    assert type(error) is ProviderError
    assert str(status) in str(error)
    assert len(requests) == 1
    assert "tried" not in str(error)


async def test_a_rate_limit_passes_and_its_wait_is_kept():
    limited = FakeReply(status=429, headers={"retry-after": "0.01"})
    parts, requests = await answer(limited, FakeReply(text="ok"), backoff_seconds=50.0)
    assert isinstance(parts[0], Retry)
    assert (parts[0].attempt, parts[0].wait_seconds) == (1, 0.01)
    assert "rate limit" in parts[0].error
    assert parts[-1].text == "ok"
    assert len(requests) == 2


async def first_wait(retry_after, **rest):
    with FakeOpenAI(in_order(FakeReply(status=503, headers={"retry-after": retry_after}))) as server:
        async with aclosing(model(server, **rest).stream(request())) as parts:
            return (await anext(parts)).wait_seconds


async def test_a_wait_given_as_a_date():
    assert 20 < await first_wait(format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)) <= 30


@pytest.mark.parametrize(
    ("asked", "waited"),
    [("60", 60.0), ("-5", 0.0), ("soon", 0.0), ("nan", 0.0), ("inf", 0.0), ("Fri, 31 Dec 9999 23:59:59 -1200", 0.0)],
)
async def test_odd_waits(asked, waited):
    assert await first_wait(asked) == waited


@pytest.mark.parametrize(("asked", "named"), [("61", "61 s"), ("150", "3 min"), ("3600", "1 h"), ("200000", "3 days")])
async def test_a_wait_that_is_too_long_fails_at_once_and_is_named(asked, named):
    error, requests = await failure(FakeReply(status=429, headers={"retry-after": asked}))
    assert type(error) is ProviderError
    assert f"rate limit (429): fake error 429; the provider asks to wait {named}: try again then" in str(error)
    assert "--model" in str(error)
    assert len(requests) == 1


async def test_all_waits_together_have_a_bound():
    retries = []
    with suppress(Transient):
        async for attempt in LiteLLM("openai/x")._attempts(retries):
            with attempt:
                raise Transient("down", retry_after_seconds=25.0)
    assert [retry.wait_seconds for retry in retries] == [25.0, 25.0]


async def test_waits_grow_up_to_a_cap():
    with FakeOpenAI(in_order(FakeReply(status=500))) as server:
        parts = []
        with pytest.raises(ProviderError):
            await ask(model(server, backoff_seconds=0.001), parts=parts)
    waits = [part.wait_seconds for part in parts]
    assert waits == sorted(waits)
    assert len(waits) == MAX_REQUESTS - 1
    assert 0.001 <= waits[0] <= 0.002


@pytest.mark.parametrize(
    "reply",
    [
        FakeReply(status=429),
        FakeReply(status=500),
        FakeReply(status=529),
        FakeReply(status=502, body="<html>bad gateway</html>", headers={"content-type": "text/html"}),
        FakeReply(body="<html>sign in</html>", headers={"content-type": "text/html"}),
        FakeReply(body="", headers=EVENT_STREAM),
        FakeReply(body="", headers={"content-length": "0"}),
        FakeReply(text="never seen", drop_after=0),
        FakeReply(text="never seen", drop_after=1),
        FakeReply(calls=[call("save", {})], drop_after=2),
        FakeReply(events=['data: {"error": {"message": "overloaded", "code": 500}}\n\n']),
        FakeReply(events=["data: not json\n\n"]),
    ],
)
async def test_a_passing_fault_is_tried_again_five_times_at_most(reply):
    error, requests = await failure(reply)
    assert type(error) is ProviderError
    assert "(tried 5 times); " in str(error)
    assert not re.search(r"TransferEncoding|payload|Expecting value", str(error)), "a library's words"
    assert len(requests) <= MAX_REQUESTS
    parts, requests = await answer(reply, FakeReply(text="ok"))
    assert [type(p) for p in parts] == [Retry, Delta, Reply]
    assert parts[-1].text == "ok"
    assert len(requests) == 2


async def test_silence_is_a_fault():
    silent = FakeReply(hang_seconds=30.0)
    parts, requests = await answer(silent, FakeReply(text="ok"), request_timeout_seconds=0.3)
    assert "did not answer in time" in parts[0].error
    assert parts[-1].text == "ok"
    assert len(requests) == 2


async def test_a_stream_that_breaks_after_text_is_not_repeated():
    with FakeOpenAI(in_order(FakeReply(text="hello", drop_after=2))) as server:
        parts = []
        with pytest.raises(ProviderError, match=r"ended too soon.* broke off; what came of it is not kept"):
            await ask(model(server), parts=parts)
        assert parts == [Delta("hello")]
        assert len(server.requests) == 1


async def test_a_server_that_is_not_there_is_named():
    llm = LiteLLM("openai/x", api_base="http://127.0.0.1:9/v1", backoff_seconds=0.0)
    with pytest.raises(ProviderError, match=r"http://127\.0\.0\.1:9/v1 cannot be reached"):
        await ask(llm)


async def test_ollama_that_is_not_there_is_named():
    llm = LiteLLM("ollama_chat/x", api_base="http://127.0.0.1:9", backoff_seconds=0.0)
    assert llm.context_window == 8192
    with pytest.raises(ProviderError, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        await ask(llm)


async def test_a_model_without_a_provider():
    llm = LiteLLM("no-such-model")
    with pytest.raises(ConfigError, match="'no-such-model' names no known provider"):
        await ask(llm)


async def test_with_a_server_a_bare_name_needs_no_provider_and_no_key():
    with FakeOpenAI(in_order(FakeReply(text="ok"))) as server:
        for name in ("llama", "Qwen/Qwen3-8B"):
            assert text_of(await ask(model(server, name, api_key=None))) == "ok"
        assert [body["model"] for body in server.requests] == ["llama", "Qwen/Qwen3-8B"]


@pytest.mark.parametrize("argument", ["prompt_cache_key", "stream_options"])
async def test_an_argument_that_a_server_refuses_is_left_out(argument):
    def handler(body):
        refused = {"error": {"message": f"Unknown parameter: {argument}", "code": 400}}
        return FakeReply(status=400, body=json.dumps(refused)) if argument in body else FakeReply(text="ok")

    with FakeOpenAI(handler) as server:
        llm = model(server)
        assert text_of(await ask(llm, request(cache_key="k"))) == "ok"
        assert text_of(await ask(llm, request(cache_key="k"))) == "ok"
        assert [argument in body for body in server.requests] == [True, False, False]


def overflow(message, **fields):
    return FakeReply(status=400, body=json.dumps({"error": {"message": message, "code": 400, **fields}}))


@pytest.mark.parametrize(
    ("reply", "window"),
    [
        (overflow("This model's maximum context length is 4096 tokens. However, you requested 5000 tokens."), 4096),
        (overflow("the request exceeds the available context size", n_prompt_tokens=5000, n_ctx=2048), 2048),
        (overflow("request (5000 tokens) exceeds the available context size (8192 tokens), try increasing it"), 8192),
        (overflow("prompt is too long: 215000 tokens > 200000 maximum"), 200_000),
        (overflow("The input token count (9) exceeds the maximum number of tokens allowed (1048576)."), 1_048_576),
        (overflow("the input length exceeds the context length"), None),
        (overflow("too long", code="context_length_exceeded"), None),
        (FakeReply(status=500, body='{"error": {"message": "context window exceeded"}}'), None),
    ],
)
async def test_an_overflow_names_the_window(reply, window):
    error, requests = await failure(reply)
    assert isinstance(error, ContextOverflow)
    assert error.window_tokens == window
    assert len(requests) == 1


async def test_a_rate_limit_on_tokens_is_no_overflow():
    limit = FakeReply(status=429, body='{"error": {"message": "Request is too long: tokens per minute"}}')
    error, _ = await failure(limit)
    assert type(error) is ProviderError


def test_an_explanation_is_one_line_without_the_library_s_words():
    error = Exception("litellm.BadRequestError: OpenAIException - no\n\n  good\n" + "x" * 1000)
    text = str(explain(error, "m", "http://here"))
    assert "litellm" not in text
    assert "\n" not in text
    assert "no good" in text
    assert len(text) < 500


# other providers' dialects


def anthropic_reply(*events):
    body = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
    return FakeReply(body=body, headers=EVENT_STREAM)


def anthropic_block(index, block, *deltas):
    yield {"type": "content_block_start", "index": index, "content_block": block}
    yield from ({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas)
    yield {"type": "content_block_stop", "index": index}


CLAUDE = anthropic_reply(
    {
        "type": "message_start",
        "message": {
            "id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": "claude-sonnet-4-5",
            "usage": {
                "input_tokens": 10, "cache_read_input_tokens": 500, "cache_creation_input_tokens": 20,
                "output_tokens": 1,
            },
        },
    },
    *anthropic_block(
        0, {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": "let me"}, {"type": "thinking_delta", "thinking": " see"},
        {"type": "signature_delta", "signature": "SIG=="},
    ),
    *anthropic_block(1, {"type": "text", "text": ""}, {"type": "text_delta", "text": "Saving."}),
    *anthropic_block(
        2, {"type": "tool_use", "id": "toolu_1", "name": "save", "input": {}},
        {"type": "input_json_delta", "partial_json": '{"content":'},
        {"type": "input_json_delta", "partial_json": ' "tea"}'},
    ),
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 30}},
    {"type": "message_stop"},
)  # fmt: skip


async def claude(server, asked):
    return await ask(LiteLLM("anthropic/claude-sonnet-4-5", api_base=server.root, api_key="key"), asked)


async def test_claude_s_thinking_marks_and_cache():
    with FakeOpenAI(in_order(CLAUDE)) as server:
        reply = (await claude(server, request(tools=[SAVE])))[-1]
        assert (reply.text, reply.calls[0].id, reply.calls[0].values) == ("Saving.", "toolu_1", {"content": "tea"})
        assert reply.usage.cost_usd > 0
        assert (reply.usage.prompt_tokens, reply.usage.cached_tokens) == (530, 500)
        thinking = [{"type": "thinking", "thinking": "let me see", "signature": "SIG=="}]
        assert reply.provider["fields"]["thinking_blocks"] == thinking
        again = request([*MESSAGES, *tool_step(**reply.provider["fields"])], [SAVE], previous_length=2)
        await claude(server, again)
        system, messages = server.requests[1]["system"], server.requests[1]["messages"]
    mark = {"type": "ephemeral"}
    assert system[-1]["cache_control"] == messages[0]["content"][-1]["cache_control"] == mark
    assert messages[1]["content"][0] == thinking[0]
    assert messages[2]["content"][-1]["cache_control"] == mark
    assert json.dumps(server.requests[1]).count("cache_control") == 3


async def test_claude_on_openrouter_gets_its_marks_in_the_content():
    with FakeOpenAI(in_order(FakeReply(text="ok", usage={}))) as server:
        llm = model(server, "openrouter/anthropic/claude-sonnet-4.5")
        parts = await ask(llm, request([*MESSAGES, *tool_step()], [SAVE], previous_length=2))
        sent = server.requests[0]["messages"]
    assert parts[-1].usage is None
    assert [isinstance(m.get("content"), list) for m in sent] == [True, True, False, True]
    assert json.dumps(sent).count("cache_control") == 3


async def test_a_server_page_in_place_of_a_stream_at_another_provider():
    with FakeOpenAI(in_order(FakeReply(body="<html></html>", headers={"content-type": "text/html"}))) as server:
        with pytest.raises(ProviderError):
            await ask(model(server, "openrouter/openai/gpt-4.1-mini"))
        assert len(server.requests) == MAX_REQUESTS


OLLAMA_LINES = [
    {"message": {"role": "assistant", "content": "", "thinking": "hm"}, "done": False},
    {"message": {"role": "assistant", "content": "Hel"}, "done": False},
    {"message": {"role": "assistant", "content": "lo"}, "done": False},
    {
        "message": {
            "role": "assistant", "content": "",
            "tool_calls": [{"function": {"name": "save", "arguments": {"n": n}}} for n in (1, 2)],
        },
        "done": False,
    },
    {
        "message": {"role": "assistant", "content": ""},
        "done": True, "done_reason": "stop", "prompt_eval_count": 9, "eval_count": 4,
    },
]  # fmt: skip


async def test_ollama():
    body = "".join(json.dumps({"model": "q", "created_at": "x", **line}) + "\n" for line in OLLAMA_LINES)
    reply = FakeReply(body=body, headers={"content-type": "application/x-ndjson"})
    with FakeOpenAI(in_order(reply)) as server:
        llm = LiteLLM("ollama_chat/q", api_base=server.root, context_window=4000)
        parts = await ask(llm, request(tools=[SAVE]))
        chats = [body for body in server.requests if "messages" in body]
    assert text_of(parts) == "Hello"
    assert [c.values for c in parts[-1].calls] == [{"n": 1}, {"n": 2}]
    assert (parts[-1].usage.prompt_tokens, parts[-1].usage.completion_tokens) == (9, 4)
    assert parts[-1].provider["fields"] == {"reasoning_content": "hm"}
    assert chats[0]["options"]["num_ctx"] == 4000


def test_reasoning_under_its_other_name_keeps_it():
    building = ReplyBuilder([])
    delta = SimpleNamespace(role="assistant", content=None, tool_calls=None, reasoning="hm")
    chunk = SimpleNamespace(model="m", choices=[SimpleNamespace(finish_reason="stop", delta=delta)])
    assert list(building.feed(chunk)) == [Delta(reasoning="hm")]
    assert building.fields == {"reasoning": "hm"}


# windows and counting


def test_a_known_model_s_window():
    llm = LiteLLM("anthropic/claude-sonnet-4-5", api_key="key")
    assert (llm.context_window, llm.max_output_tokens, llm.provider) == (200_000, 4096, "anthropic")


def test_a_window_that_is_given():
    llm = LiteLLM("openai/gpt-4.1-mini", api_key="key", context_window=8000)
    assert (llm.context_window, llm.max_output_tokens) == (8000, 2000)


def test_counting_tokens():
    llm = LiteLLM("openai/gpt-4.1-mini")
    assert llm.count_tokens("") == 0
    assert llm.count_tokens("hello world") == 2
    assert llm.count_tokens("<|endoftext|>") > 1
    assert llm.count_tokens("a\ud800b") > 0
    # unbroken text is what makes encoders quadratic
    assert 10_000 < llm.count_tokens("a" * 1_000_000) < 1_000_000


# the fake server itself


async def test_the_chain_policy_calls_as_often_as_asked():
    messages = [{"role": "user", "content": "[2026-01-01 10:00:00 Thu] please chain 3"}]
    names = ["archival_memory_insert", "core_memory_append"]
    tools = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in names]
    made = []
    with FakeOpenAI(chain_policy()) as server:
        for _ in range(3):
            [entry] = (await ask(model(server), request(messages, tools)))[-1].calls
            made.append((entry.name, entry.values["request_heartbeat"]))
            function = {"name": entry.name, "arguments": entry.arguments}
            calls = [{"id": entry.id, "type": "function", "function": function}]
            messages.append({"role": "assistant", "content": None, "tool_calls": calls})
            messages.append({"role": "tool", "tool_call_id": entry.id, "content": "done"})
        assert (await ask(model(server), request(messages, tools)))[-1].text == "done after 3 calls"
        messages.append({"role": "user", "content": "thanks"})
        assert (await ask(model(server), request(messages, tools)))[-1].text == "ok"
    assert made == [(names[0], True), (names[1], True), (names[0], True)]


async def test_the_simulated_cache_knows_the_prefix_of_the_same_key():
    with FakeOpenAI() as server:
        first = (await ask(model(server), request(cache_key="a")))[-1].usage
        grown = (await ask(model(server), request([*MESSAGES, *MESSAGES[1:]], cache_key="a")))[-1].usage
        other = (await ask(model(server), request(cache_key="b")))[-1].usage
    assert (first.cached_tokens, other.cached_tokens) == (0, 0)
    assert grown.cached_tokens == first.prompt_tokens < grown.prompt_tokens


async def test_the_fake_server_as_a_process():
    command = (sys.executable, "-m", "agentos.testing.fake_openai", "--port", "0")
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        url = (await process.stdout.readline()).decode().strip()
        assert text_of(await ask(LiteLLM("fake-model", api_base=url))) == "ok"
    finally:
        process.terminate()
        await process.communicate()


def test_litellm_is_no_load_on_the_garbage_collector():
    load_litellm()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 100_000
