"""`agentos agents`."""

from typing import Annotated

import typer

from agentos.cli.commands.options import AgentName, Approval, Json, Model, Persona

app = typer.Typer(help="Manage agents.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def agents_list(json: Json = False) -> None:
    """All agents."""
    from agentos.cli import agents

    agents.list_agents(json)


@app.command("show")
def agents_show(agent: AgentName, json: Json = False) -> None:
    """One agent in full."""
    from agentos.cli import agents

    agents.show_agent(agent, json)


@app.command("create")
def agents_create(agent: AgentName, persona: Persona = "assistant", model: Model = None, json: Json = False) -> None:
    """A new agent; --model becomes its own."""
    from agentos.cli import agents

    agents.create_agent(agent, "assistant" if persona is None else persona, model, json)


@app.command("delete")
def agents_delete(
    agent: AgentName, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False
) -> None:
    """Remove an agent with all it knows."""
    from agentos.cli import agents

    agents.delete_agent(agent, yes)


@app.command("approval")
def agents_approval(
    agent: AgentName,
    tool: Annotated[str | None, typer.Argument(metavar="TOOL", help="A tool's name.", show_default=False)] = None,
    when: Annotated[
        Approval | None, typer.Argument(metavar="WHEN", help="always, ask or never.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Whether the agent's tools run without asking; with TOOL and WHEN, change it."""
    from agentos.cli import agents

    if (tool is None) != (when is None):
        raise typer.BadParameter("name a tool and when it runs: always, ask or never", param_hint="TOOL WHEN")
    agents.approval(agent, tool, None if when is None else when.value, json)
