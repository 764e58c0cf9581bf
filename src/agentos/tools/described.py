"""Tools that are known by a description alone: a name and a JSON schema, and somebody else who runs them."""

import ast
import json
import re
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from agentos.errors import ToolError, UsageError
from agentos.messages import clean_json
from agentos.tools.tool import HEARTBEAT, Tool, ToolContext

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What every provider takes as a function's name."""
_MOST_SCHEMA = 50_000
"""Characters of a description; every request would carry it."""
_TYPES = {
    "str": "string", "int": "integer", "float": "number", "bool": "boolean", "list": "array", "List": "array",
    "set": "array", "tuple": "array", "dict": "object", "Dict": "object", "Any": None,
}  # fmt: skip


@dataclass(frozen=True)
class DescribedTool(Tool):
    """A tool whose arguments are described by `parameters`, a JSON schema, and checked by whoever runs it.

    `function` takes the arguments as one dict.
    """

    parameters: dict[str, Any] = field(default_factory=dict)
    continues: bool = True

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The tool in the chat completions format."""
        given = self.parameters
        about = f"Whether you get another step right after this call (default {str(self.continues).lower()})."
        heartbeat = {"type": "boolean", "default": self.continues, "description": about}
        required = [name for name in given.get("required", ()) if name != HEARTBEAT]
        parameters = given | {"properties": given.get("properties", {}) | {HEARTBEAT: heartbeat}, "required": required}
        function = {"name": self.name, "description": self.description, "parameters": parameters}
        return {"type": "function", "function": function}

    def parse(self, values: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """(arguments, whether another step is wanted); `ToolError` when that cannot be read."""
        given = dict(values)
        heartbeat = given.pop(HEARTBEAT, self.continues)
        if not isinstance(heartbeat, bool):
            raise ToolError(f"argument {HEARTBEAT!r} is {heartbeat!r}; it is true or false")
        return given, heartbeat

    async def call(self, context: ToolContext, given: dict[str, Any]) -> Any:
        """Hand the arguments to `function`."""
        result = self.function(given)
        return await result if isinstance(result, Awaitable) else result


def never_run(name: str) -> Callable[[dict[str, Any]], Any]:
    """What a tool does whose source a client sent: it says that it is not run here."""

    def refuse(given: dict[str, Any]) -> Any:
        raise ToolError(f"tool {name!r} is only described here and cannot be run; go on without it and say so")

    return refuse


def checked_schema(given: Any) -> dict[str, Any]:
    """A function in the chat completions format (name, description, parameters) that a provider will take.

    `UsageError` says what is wrong with what was given.
    """
    if isinstance(given, dict) and isinstance(given.get("function"), dict):
        given = given["function"]
    try:
        schema = clean_json(given)
        size = len(json.dumps(schema))
    except ValueError as error:
        raise UsageError(f"the tool's JSON schema cannot be used: {error}") from None
    if size > _MOST_SCHEMA:
        raise UsageError(f"the tool's JSON schema has {size} characters and may have {_MOST_SCHEMA}; shorten it")
    if not isinstance(schema, dict) or not isinstance(name := schema.get("name"), str) or not _NAME.fullmatch(name):
        raise UsageError(
            "a tool needs a name of 1 to 64 letters, digits, _ or -: in json_schema, or as a function in source_code"
        )
    parameters = schema.get("parameters") or {"type": "object", "properties": {}}
    if not isinstance(parameters, dict) or parameters.get("type", "object") != "object":
        raise UsageError(f"tool {name!r}: parameters must be a JSON schema of type object")
    properties, required = parameters.get("properties", {}), parameters.get("required", [])
    if not isinstance(properties, dict) or not all(isinstance(p, dict) for p in properties.values()):
        raise UsageError(f"tool {name!r}: properties must name the arguments, each with a JSON schema")
    if not isinstance(required, list) or not all(isinstance(r, str) for r in required):
        raise UsageError(f"tool {name!r}: required must be a list of arguments' names")
    parameters = {"type": "object", **parameters, "properties": properties, "required": required}
    return {"name": name, "description": str(schema.get("description") or ""), "parameters": parameters}


def schema_of(source: str) -> dict[str, Any]:
    """What Python source says of its last top-level function: name, description, parameters.

    It is read, never run. `UsageError` when there is no function to be found.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of is the author's affair
            return _described(ast.parse(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"source_code is no Python that can be read: {error}; give a json_schema with it") from None


def _described(tree: ast.Module) -> dict[str, Any]:
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    if not found:
        raise UsageError("source_code has no function at its top level; add one, or give a json_schema with a name")
    function = found[-1]
    doc = ast.get_docstring(function) or ""
    about = dict(re.findall(r"^\s+\*{0,2}(\w+)(?: *\([^)\n]*\))?: *(.+)$", doc.partition("Args:")[2], re.MULTILINE))
    places = [*function.args.posonlyargs, *function.args.args]
    defaults: list[ast.expr | None] = [None] * (len(places) - len(function.args.defaults))
    arguments = [*zip(places, [*defaults, *function.args.defaults], strict=True)]
    arguments += zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    properties, required = {}, []
    for argument, default in arguments:
        if argument.arg in ("self", "agent_state", HEARTBEAT):  # what the one who runs it would fill in
            continue
        described = {"description": about[argument.arg].strip()} if argument.arg in about else {}
        properties[argument.arg] = _type_of(argument.annotation) | described
        if default is None:
            required.append(argument.arg)
    return {
        "name": function.name, "description": doc.split("\n\n")[0].replace("\n", " ").strip(),
        "parameters": {"type": "object", "properties": properties, "required": required},
    }  # fmt: skip


def _type_of(annotation: ast.expr | None) -> dict[str, Any]:
    """A JSON schema of a type annotation; what is not known says nothing."""
    match annotation:
        case ast.Constant(value=str(text)):
            return _type_of(ast.Name(text))
        case ast.Attribute(attr=name):
            return _type_of(ast.Name(name))
        case ast.Name(id=name):
            known = _TYPES.get(name)
            typed: dict[str, Any] = {} if known is None else {"type": known}
            return typed | {"items": {}} if known == "array" else typed
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _one_of([left, right])
        case ast.Subscript(value=ast.Name(id=name) | ast.Attribute(attr=name), slice=inner):
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            if name == "Literal":
                given = [p.value for p in parts if isinstance(p, ast.Constant)]
                return {"enum": [value for value in given if isinstance(value, str | int)]}
            if name in ("Optional", "Union"):
                return _one_of(parts)
            if name == "Annotated":
                return _type_of(parts[0])
            kind = _type_of(ast.Name(name))
            return kind | {"items": _type_of(parts[0])} if kind.get("type") == "array" else kind
    return {}


def _one_of(parts: list[ast.expr]) -> dict[str, Any]:
    kinds = [_type_of(p) for p in parts if not (isinstance(p, ast.Constant) and p.value is None)]
    return kinds[0] if len(kinds) == 1 else {"anyOf": [k for k in kinds if k]}
