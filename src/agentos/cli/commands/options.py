"""Arguments and options that commands share."""

from enum import StrEnum
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AgentName = Annotated[str, typer.Argument(metavar="AGENT", help="The agent's name.", show_default=False)]
Persona = Annotated[str | None, typer.Option(metavar="NAME", help="The persona of a new agent.", show_default=False)]
Model = Annotated[
    str | None, typer.Option(metavar="NAME", help="offline, or any litellm model name.", show_default=False)
]


class Approval(StrEnum):
    """Whether calls run without asking, each once somebody approved it, or not at all."""

    ALWAYS = "always"
    ASK = "ask"
    NEVER = "never"
