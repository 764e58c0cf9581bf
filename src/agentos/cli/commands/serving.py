"""Commands around the server."""

from typing import Annotated

import typer

app = typer.Typer(rich_markup_mode=None)


@app.command()
def serve(
    host: Annotated[str, typer.Option(metavar="NAME", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="0 takes any free port.")] = 8283,
    token: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="The bearer token; without, the home's own.", show_default=False),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A further name clients may call it by.", show_default=False),
    ] = None,
    turns: Annotated[
        int, typer.Option(min=0, metavar="N", help="Turns that run here at once; 0 leaves them to workers.")
    ] = 256,
) -> None:
    """Serve the agents over HTTP: to Letta's client, and to OpenAI's."""
    from agentos.cli import serve as commands

    commands.serve(host, port, token, allow_host or [], turns)


@app.command()
def inspect(
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address instead.")] = False,
) -> None:
    """Open the Memory Inspector of the server that runs on this home; the link signs you in, once."""
    from agentos.cli import serve as commands

    commands.inspect(no_browser)


@app.command()
def worker(
    turns: Annotated[int, typer.Option(min=1, metavar="N", help="Turns that run here at once.")] = 256,
) -> None:
    """Run turns for the servers that share this PostgreSQL database (AGENTOS_DATABASE_URL)."""
    from agentos.cli import serve as commands

    commands.worker(turns)
