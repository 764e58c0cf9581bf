"""`agentos token`."""

from typing import Annotated

import typer

from agentos.cli.commands.options import Json

app = typer.Typer(
    help="Tokens for programs that use the memory of some agents (/mcp).", no_args_is_help=True, rich_markup_mode=None
)


@app.command("create")
def token_create(
    agent: Annotated[
        list[str], typer.Option(metavar="NAME", help="Whose memory; again for several.", show_default=False)
    ],
    name: Annotated[str, typer.Option(metavar="LABEL", help="What you call it.", show_default=False)] = "",
    read_only: Annotated[bool, typer.Option("--read-only", help="It changes nothing.")] = False,
    expires: Annotated[
        str | None, typer.Option(metavar="WHEN", help="90d, 12h, or a date; without, never.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Make a token and show it, this once."""
    from agentos.cli import tokens

    tokens.create(agent, name, read_only, expires, json)


@app.command("list")
def token_list(json: Json = False) -> None:
    """All tokens; the secrets are not kept."""
    from agentos.cli import tokens

    tokens.list_tokens(json)


@app.command("revoke")
def token_revoke(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.", show_default=False)],
) -> None:
    """Make a token useless at once."""
    from agentos.cli import tokens

    tokens.revoke(token_id)
