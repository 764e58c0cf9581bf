"""Commands that talk with an agent."""

import sys
from enum import StrEnum
from typing import Annotated

import typer

from agentos.cli.commands.options import AgentName, Json, Model, Persona

app = typer.Typer(rich_markup_mode=None)


class OutputFormat(StrEnum):
    """How one-shot and pipe mode print turns."""

    TEXT = "text"
    JSON = "json"
    STREAM_JSON = "stream-json"


@app.command()
def chat(
    agent: Annotated[
        str | None, typer.Option(metavar="NAME", help="Talk with this agent (`default`); made on first use.")
    ] = None,
    persona: Persona = None,
    model: Model = None,
    resume: Annotated[bool, typer.Option("--continue", "-c", help="Talk with the agent used last.")] = False,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", metavar="TEXT", help="One turn and exit; piped text is appended.")
    ] = None,
    output_format: Annotated[
        OutputFormat, typer.Option(help="How to print turns with -p or piped input.")
    ] = OutputFormat.TEXT,
    max_steps: Annotated[int | None, typer.Option(min=1, metavar="N", help="Model calls a turn may take.")] = None,
    server: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Talk with an agent of this server (AGENTOS_TOKEN).", show_default=False),
    ] = None,
) -> None:
    """Chat with an agent; piped input without -p is one turn a line, until its end or Ctrl-C."""
    from agentos.cli.chosen import Chosen

    chosen = Chosen(agent, persona, model, resume, max_steps, server)
    talking = prompt is None and sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    if talking and output_format != OutputFormat.TEXT:
        raise typer.BadParameter("it needs -p TEXT or piped input", param_hint="--output-format")
    if talking:
        from agentos.cli.chat import chat as converse

        converse(chosen)
    else:
        from agentos.cli.oneshot import answer

        raise typer.Exit(answer(chosen, prompt, output_format.value))


@app.command()
def approve(
    agent: AgentName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Run what waits.")] = False,
    deny: Annotated[
        str | None, typer.Option(metavar="REASON", help="Refuse what waits; the agent is told why.", show_default=False)
    ] = None,
    call: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Only this call, as --json shows it.", show_default=False)
    ] = None,
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="The agent is one of this server's.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Show the calls that wait for approval, decide on them, and go on with the turn."""
    from agentos.cli import approvals
    from agentos.cli.chosen import Chosen

    raise typer.Exit(approvals.approve(Chosen(agent, server=server, known=True), yes, deny, call or [], json))
