"""A result as one HTML page that needs nothing else."""

from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined


def measures(result: dict[str, Any]) -> list[str]:
    """Every measure of a result, in the order of its rows."""
    return list(dict.fromkeys(measure for row in result["rows"] for measure in row["scores"]))


def render(result: dict[str, Any]) -> str:
    """The page of a result of `Evaluation.result`; all text from files is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files(__package__) / "report.html").read_text("utf-8"))
    return template.render(result=result, measures=measures(result))
