"""Cache marks: few enough, close enough, and nothing else changed."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.llm.cache_plan import LOOK_BACK, MAX_MARKS, cache_style, count_blocks, plan_cache

SYSTEM = {"role": "system", "content": "system"}


def user(text="hello"):
    return {"role": "user", "content": text}


def step(calls=1, text="", thinking=0):
    ids = [f"c{n}" for n in range(calls)]
    function = {"name": "f", "arguments": "{}"}
    message = {"role": "assistant", "content": text or None}
    message["tool_calls"] = [{"id": id, "type": "function", "function": function} for id in ids]
    if thinking:
        message["thinking_blocks"] = [{"type": "thinking", "thinking": "t", "signature": "s"}] * thinking
    return [message, *({"role": "tool", "tool_call_id": id, "content": "done"} for id in ids)]


exchanges = st.lists(
    st.one_of(
        st.builds(lambda: [user()]),
        st.builds(lambda: [{"role": "assistant", "content": "hi"}]),
        st.builds(step, st.integers(1, 8), st.sampled_from(["", "text"]), st.integers(0, 2)),
    ),
    max_size=40,
).map(lambda parts: [SYSTEM, user(), *(message for part in parts for message in part)])


def marked(messages):
    return [at for at, message in enumerate(messages) if "cache_control" in message]


def gaps(messages, marks):
    """Blocks from each mark to the next, the first from the beginning."""
    ends = [sum(map(count_blocks, messages[: at + 1])) for at in marks]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


@given(exchanges, st.data())
def test_marks_are_few_and_close_and_the_rest_is_untouched(messages, data):
    previous = data.draw(st.integers(0, len(messages)))
    before = copy.deepcopy(messages)
    planned, extra = plan_cache("anthropic", messages, previous, "key")
    marks = marked(planned)
    assert messages == before
    assert extra == {}
    assert [{k: v for k, v in m.items() if k != "cache_control"} for m in planned] == messages
    assert 1 <= len(marks) <= MAX_MARKS
    assert not any(planned[at]["role"] == "assistant" for at in marks)
    assert 0 in marks
    assert max(at for at, m in enumerate(messages) if m["role"] != "assistant") == marks[-1]
    # marks left over would have filled a gap that is too wide
    assert len(marks) == MAX_MARKS or all(gap <= LOOK_BACK for gap in gaps(messages, marks))


def test_the_end_of_the_previous_request_is_marked():
    messages = [SYSTEM, user(), *step(2), *step(1)]
    assert marked(plan_cache("anthropic", messages, 2, "")[0]) == [0, 1, len(messages) - 1]


def test_many_results_since_the_previous_request_get_a_mark_between():
    messages = [SYSTEM, user(), *step(12)]
    marks = marked(plan_cache("anthropic", messages, 2, "")[0])
    assert marks[:2] == [0, 1]
    assert len(marks) == 4
    assert gaps(messages, marks)[-1] == LOOK_BACK or gaps(messages, marks)[-2] <= LOOK_BACK


def test_a_message_of_many_calls_counts_each():
    assert [count_blocks(m) for m in step(3, "text", 2)] == [6, 1, 1, 1]
    assert count_blocks({"role": "user", "content": [{"type": "text", "text": "a"}] * 2}) == 2


@pytest.mark.parametrize("style", ["openai", "none"])
def test_other_providers_get_the_messages_as_they_are(style):
    messages = [SYSTEM, user()]
    planned, extra = plan_cache(style, messages, 1, "agent-1")
    assert planned == messages
    assert extra == ({"prompt_cache_key": "agent-1"} if style == "openai" else {})


def test_nothing_to_mark():
    assert plan_cache("anthropic", [], 0, "k") == ([], {})
    assert plan_cache("openai", [user()], 0, "") == ([user()], {})


@pytest.mark.parametrize(
    ("provider", "model", "style"),
    [
        ("anthropic", "claude-sonnet-4-5", "anthropic"),
        ("bedrock", "anthropic.claude-sonnet-4-5-20250929-v1:0", "anthropic"),
        ("vertex_ai", "claude-sonnet-4-5", "anthropic"),
        ("openrouter", "anthropic/claude-sonnet-4.5", "anthropic"),
        ("openrouter", "openai/gpt-4.1-mini", "none"),
        ("openai", "gpt-4.1-mini", "openai"),
        ("ollama_chat", "llama3.2", "none"),
    ],
)
def test_styles(provider, model, style):
    assert cache_style(provider, model) == style
