"""`agentos mcp`: memory for MCP clients, and the servers whose tools an agent has."""

from typing import Annotated

import typer

from agentos.cli.commands.options import Approval, Json

app = typer.Typer(rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The server's name.", show_default=False)]
Agent = Annotated[str, typer.Option("--agent", metavar="NAME", help="The agent whose server it is.")]


@app.callback(invoke_without_command=True)
def mcp(
    context: typer.Context,
    agent: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Whose memory (`default`); again for several.", show_default=False),
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="No tool may change anything.")] = False,
) -> None:
    """Give an MCP client (an editor, an assistant) the memory of an agent, over stdin and stdout."""
    if context.invoked_subcommand is not None:
        return
    from agentos.cli import mcp_server

    mcp_server.serve(agent or ["default"], read_only)


@app.command("add")
def add(
    name: Name,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- COMMAND ARGS", help="The command that starts it.", show_default=False),
    ] = None,
    agent: Agent = "default",
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="Where it listens, instead of a command.", show_default=False)
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME:VALUE", help="Sent with each request; ${X} is a variable.", show_default=False),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="The command's environment; ${X} is a variable.", show_default=False),
    ] = None,
    cwd: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Where the command runs; without, here.", show_default=False)
    ] = None,
    tool: Annotated[
        list[str] | None, typer.Option(metavar="TOOL", help="Only this tool; again for several.", show_default=False)
    ] = None,
    approval: Annotated[Approval, typer.Option(help="Whether its tools run without asking.")] = Approval.ASK,
    approve: Annotated[
        list[str] | None,
        typer.Option(metavar="TOOL=APPROVAL", help="The same for one of its tools.", show_default=False),
    ] = None,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="What a call may take.")] = 60.0,
) -> None:
    """Give an agent the tools of an MCP server."""
    from agentos.cli import mcp_client as commands

    commands.add(
        agent, commands.given_server(name, command or [], url, header or [], env or [], cwd, tool, approval.value,
                                     approve or [], timeout)
    )  # fmt: skip


@app.command("list")
def list_servers(
    agent: Annotated[str | None, typer.Option(metavar="NAME", help="Only this agent's.", show_default=False)] = None,
    json: Json = False,
) -> None:
    """The servers, with their tools as they were last seen; none is started or asked."""
    from agentos.cli import mcp_client as commands

    commands.list_servers(agent, json)


@app.command("test")
def ask(name: Name, agent: Agent = "default") -> None:
    """Start or reach a server, and save which tools it has now."""
    from agentos.cli import mcp_client as commands

    raise typer.Exit(commands.test(agent, name))


@app.command("remove")
def remove(name: Name, agent: Agent = "default") -> None:
    """Take a server from an agent, with its tools."""
    from agentos.cli import mcp_client as commands

    commands.remove(agent, name)
