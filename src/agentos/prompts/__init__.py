"""Prompt texts, kept as data files."""

from functools import cache
from importlib.resources import files
from string import Template


@cache
def _template(name: str) -> Template:
    return Template((files(__name__) / f"{name}.md").read_text("utf-8").strip())


def prompt(name: str, **values: object) -> str:
    """The prompt file `name` with its `$names` filled in; an undefined name is an error."""
    return _template(name).substitute(values)
