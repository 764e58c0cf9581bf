"""Tools that are known by a description alone, and what source says without being run."""

from typing import Any

import pytest

from agentos.errors import ToolError, UsageError
from agentos.testing import ScriptedLLM, call, say
from agentos.tools.described import DescribedTool, checked_schema, never_run, schema_of
from conftest import Home, collect, ending, of

WORD = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word", "request_heartbeat"]}


async def test_somebody_else_runs_it(home: Home) -> None:
    asked: list[dict[str, Any]] = []

    async def look_up(given: dict[str, Any]) -> Any:
        asked.append(given)
        return {"found": given["word"]}

    tool = DescribedTool("look_up", "Look a word up.", look_up, parameters=WORD)
    function = tool.schema["function"]
    assert function["parameters"]["required"] == ["word"]
    assert set(function["parameters"]["properties"]) == {"word", "request_heartbeat"}
    assert "request_heartbeat" not in WORD["properties"]  # type: ignore[operator]
    llm = ScriptedLLM(
        [
            say("", call("look_up", word="tea")),
            say("", call("look_up", word="x", request_heartbeat="yes")),
            "Found.",
        ]
    )
    events = await collect(await home.agent(llm, tools=[tool]), "Hello")
    assert asked == [{"word": "tea"}]
    good, bad = (result.text for result in of(events, "tool_result"))
    assert good == '{"found": "tea"}'
    assert "true or false" in bad
    assert ending(events).stop_reason == "end_turn"


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        ("int", {"type": "integer"}),
        ("'float'", {"type": "number"}),
        ("Optional[str]", {"type": "string"}),
        ("t.List[int]", {"type": "array", "items": {"type": "integer"}}),
        ("list", {"type": "array", "items": {}}),
        ("dict[str, int]", {"type": "object"}),
        ("int | str", {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        ("Literal['a', 2, b'x']", {"enum": ["a", 2]}),
        ("Annotated[bool, 'x']", {"type": "boolean"}),
        ("datetime.datetime", {}),
        ("'no such ['", {}),
    ],
)
def test_types(annotation: str, schema: dict[str, Any]) -> None:
    found = checked_schema(schema_of(f"def f(x: {annotation}, *rest, y=1, **more): pass"))
    assert found["parameters"] == {"type": "object", "properties": {"x": schema, "y": {}}, "required": ["x"]}


@pytest.mark.parametrize(
    "source", ["class A:\n  def f(self): pass", "f = lambda x: x", "def f(x: " + "int | " * 9000 + "int): 1"]
)
def test_source_that_says_too_little(source: str) -> None:
    with pytest.raises(UsageError, match="json_schema"):
        schema_of(source)


def test_a_schema_is_made_sendable() -> None:
    given = {"type": "function", "function": {"name": "f", "description": "a\x00", "parameters": {"x\ud800": "\x00"}}}
    assert checked_schema(given) == {
        "name": "f", "description": "a\ufffd",
        "parameters": {"type": "object", "x\ufffd": "\ufffd", "properties": {}, "required": []},
    }  # fmt: skip
    with pytest.raises(UsageError, match="no number of JSON"):
        checked_schema({"name": "f", "parameters": {"default": float("nan")}})


def test_a_tool_nobody_runs() -> None:
    with pytest.raises(ToolError, match="'f' is only described"):
        never_run("f")({})
