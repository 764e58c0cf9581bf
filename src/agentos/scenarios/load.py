"""From a file to a scenario; a mistake is named with file, line and what was expected."""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from agentos.errors import ConfigError, UsageError
from agentos.scenarios.model import BOUNDS, MEASURES, SUFFIX, Bounds, Scenario

_Model = TypeVar("_Model", bound=BaseModel)
Place = tuple[str | int, ...]
"""Keys and positions that lead to a value."""


def find_scenarios(paths: Iterable[Path]) -> list[Path]:
    """The scenario files among `paths` and in their folders, sorted; `UsageError` where there are none."""
    found: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist; name a {SUFFIX} file or a folder with some")
        here = sorted(path.rglob(f"*{SUFFIX}")) if path.is_dir() else [path]
        if not here:
            raise UsageError(f"{path} has no file that ends in {SUFFIX}; name a folder that has")
        found.update(dict.fromkeys(here))
    return list(found)


def scenarios_in(folder: Path) -> list[Path]:
    """The scenario set of a folder: its files, without those of folders in it."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def load_scenario(path: Path) -> Scenario:
    """The scenario in a file; `ConfigError` names file, line and what was expected.

    A file in `personas/NAME/scenarios/` is about persona NAME when it names none.
    """
    values, lines = _read(path, "a scenario has `name` and `turns`")
    if isinstance(values, dict) and persona_folder(path):
        values.setdefault("persona", path.absolute().parent.parent.name)
    return _validated(path, Scenario, values, lines)


def load_bounds(folder: Path) -> Bounds | None:
    """What the measures of the scenarios in a folder must come to, or None; `ConfigError` as for a scenario."""
    path = folder / BOUNDS
    if not path.exists() or not scenarios_in(folder):
        return None
    return _validated(path, Bounds, *_read(path, f"it has some of: {', '.join(MEASURES)}"))


def _validated(path: Path, model: type[_Model], values: Any, lines: dict[Place, int]) -> _Model:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        place, sentence = _fault(error, model)
        raise ConfigError(f"{path}:{_line_of(place, lines)}: {sentence}") from None


def persona_folder(path: Path) -> Path | None:
    """The folder of personas that a scenario file lies in, if it does."""
    persona = path.absolute().parent.parent
    return persona.parent if (persona / "persona.md").exists() else None


def _read(path: Path, content: str) -> tuple[Any, dict[Place, int]]:
    """(the file's values, the line of each); `content` says what such a file has."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            raise ConfigError(f"{path}:1: the file is empty; {content}")
        values: Any = yaml.safe_load(text)
        walked = list(_walk(root, (), root.start_mark.line + 1))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: this is not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a value such as 2026-13-45 too
        raise ConfigError(f"{path}:1: this is not YAML: {' '.join(str(error).split())}") from None
    lines: dict[Place, int] = {}
    for place, line in walked:
        if place in lines:
            raise ConfigError(f"{path}:{line}: {place[-1]!r} is there twice, first in line {lines[place]}; keep one")
        lines[place] = line
    return values, lines


def _walk(node: yaml.Node, place: Place, line: int) -> Iterator[tuple[Place, int]]:
    """Each value's place and line, a key's own line where it has one."""
    yield place, line
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _walk(value, (*place, str(key.value)), key.start_mark.line + 1)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from _walk(value, (*place, number), value.start_mark.line + 1)


def _line_of(place: Place, lines: dict[Place, int]) -> int:
    """The line of a value, or of what it should be part of."""
    while place not in lines and place:
        place = place[:-1]
    return lines.get(place, 1)


_REMEDIES = {
    "dict_type": "it has keys with their values below it",
    "list_type": "it is a list; begin each line below it with a hyphen",
    "string_type": "it is a text; put quotes around it",
    "string_too_short": "it has at least one character",
    "too_short": "it is empty; write what belongs there, or leave it out",
    "too_long": "a call is one tool; its arguments stand indented below its name",
    "timezone_aware": "it has an offset, such as 2026-05-08T09:30:00+02:00",
}
"""What to write instead, for mistakes that pydantic words for programmers."""


def _fault(error: ValidationError, model: type[BaseModel]) -> tuple[Place, str]:
    """(where, what is wrong and what was expected) of the mistake that is deepest in the file."""
    fault = max(error.errors(), key=lambda e: (len(_keys(e["loc"])), e["type"] == "extra_forbidden"))
    place = _keys(fault["loc"])
    name = next((key for key in reversed(place) if isinstance(key, str)), "the scenario")
    if fault["type"] == "extra_forbidden":
        known = _known(model, place[:-1])
        close = get_close_matches(str(name), known, 1)
        meant = f"did you mean {close[0]!r}? " if close else ""
        return place, f"there is no {name!r} here; {meant}there are: {', '.join(known)}"
    if fault["type"] in ("model_type", "model_attributes_type"):
        return place, f"{name!r} cannot be {_shown(fault['input'])}; it has the keys: {', '.join(_known(model, place))}"
    if fault["type"] == "missing":
        return place[:-1], f"{name!r} is missing"
    if fault["type"] == "literal_error":
        close = get_close_matches(str(fault["input"]), _choices(fault), 1)
        meant = f"did you mean {close[0]!r}? " if close else ""
        return place, f"{name!r} is {fault['input']!r}; {meant}expected: {fault['ctx']['expected']}"
    if fault["type"] == "value_error":
        return place, str(fault["ctx"]["error"])
    told = _REMEDIES.get(fault["type"]) or f"{fault['msg'][0].lower()}{fault['msg'][1:]}"
    return place, f"{name!r} cannot be {_shown(fault['input'])}: {told}"


def _shown(value: Any) -> str:
    return {dict: "keys and values", list: "a list", type(None): "empty"}.get(type(value), repr(value))


def _choices(fault: Any) -> list[str]:
    return [choice.strip("' ") for choice in fault["ctx"]["expected"].replace(" or ", ",").split(",")]


_ALTERNATIVES = ("Line", "str")
"""How pydantic names in a place what a line of a script may be."""


def _keys(loc: tuple[int | str, ...]) -> Place:
    """A place as the file has it."""
    return tuple(part for part in loc if part not in _ALTERNATIVES)


def _known(model: type[BaseModel], place: Place) -> list[str]:
    """The keys that may stand at a place."""
    for part in place:
        annotation = _fields(model).get(str(part))  # None for a position, and for a name that the file gives
        model = next(_models(annotation), model)
    return list(_fields(model))


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
