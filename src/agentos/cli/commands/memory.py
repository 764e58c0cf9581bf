"""`agentos memory`."""

from enum import StrEnum
from typing import Annotated

import typer

from agentos.cli.commands.options import AgentName, Json

app = typer.Typer(help="Look into and correct what an agent knows.", no_args_is_help=True, rich_markup_mode=None)

OfRun = Annotated[str | None, typer.Option(metavar="ID", help="What came of this turn.", show_default=False)]
OfMessage = Annotated[str | None, typer.Option(metavar="mN", help="What came of this message.", show_default=False)]
OfClient = Annotated[str | None, typer.Option(metavar="NAME", help="What this MCP client wrote.", show_default=False)]
Since = Annotated[
    str | None, typer.Option(metavar="WHEN", help="Of a client: from this ISO date or time on.", show_default=False)
]


class Actor(StrEnum):
    """Who changes memory."""

    AGENT = "agent"
    USER = "user"
    CLIENT = "client"
    IMPORT = "import"
    RUNTIME = "runtime"


class Kind(StrEnum):
    """Kinds of journal events; `memory` is all that changes what an agent knows."""

    MEMORY = "memory"
    BLOCK = "block"
    PASSAGE = "passage"
    UNDO = "undo"
    IMPORT = "import"
    PAGE_OUT = "page_out"


class Place(StrEnum):
    """Where `memory search` looks."""

    RECALL = "recall"
    ARCHIVAL = "archival"
    ALL = "all"


class Role(StrEnum):
    """Who speaks in a message."""

    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@app.command("show")
def memory_show(
    agent: AgentName,
    what: Annotated[
        str | None,
        typer.Argument(metavar="WHAT", help="A block's label, a passage pN or a message mN.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Core memory: the blocks with their sizes and limits; or one of what an agent knows, in full."""
    from agentos.cli import memory

    memory.show_memory(agent, what, json)


@app.command("versions")
def memory_versions(
    agent: AgentName,
    block: Annotated[str, typer.Argument(metavar="BLOCK", help="The block's label.", show_default=False)],
    limit: Annotated[int, typer.Option(min=1, max=100_000, metavar="N", help="Newest versions.")] = 20,
    before: Annotated[
        int | None, typer.Option(min=1, metavar="VERSION", help="Only versions older than it.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """How a block read over time: what each of its versions changed, newest first."""
    from agentos.cli import memory

    memory.versions(agent, block, limit, before, json)


@app.command("search")
def memory_search(
    agent: AgentName,
    query: Annotated[
        str | None, typer.Argument(metavar="QUERY", help="What to look for; without, all.", show_default=False)
    ] = None,
    place: Annotated[Place, typer.Option("--in", help="Where to look.")] = Place.ALL,
    limit: Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="Hits of each place.")] = 10,
    tag: Annotated[
        str | None, typer.Option(metavar="WORD", help="Only passages with this tag.", show_default=False)
    ] = None,
    role: Annotated[Role | None, typer.Option(help="Only messages of this role.", show_default=False)] = None,
    start: Annotated[
        str | None, typer.Option(metavar="TIME", help="Nothing from before it, ISO 8601.", show_default=False)
    ] = None,
    end: Annotated[
        str | None, typer.Option(metavar="TIME", help="Nothing from after it, ISO 8601.", show_default=False)
    ] = None,
    as_of: Annotated[
        str | None, typer.Option(metavar="TIME", help="Passages that were valid then, ISO 8601.", show_default=False)
    ] = None,
    include_superseded: Annotated[
        bool, typer.Option("--include-superseded", help="Also passages that others took the place of.")
    ] = False,
    json: Json = False,
) -> None:
    """Search archival memory and past messages, best hit first; without QUERY list them, newest first."""
    from agentos.cli import memory

    memory.search(
        agent, query, place.value, limit, json, tag=tag, role=role and role.value, start=start, end=end, as_of=as_of,
        include_superseded=include_superseded,
    )  # fmt: skip


@app.command("add")
def memory_add(
    agent: AgentName,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to store.", show_default=False)],
    tag: Annotated[list[str] | None, typer.Option(metavar="WORD", help="A tag.", show_default=False)] = None,
    replaces: Annotated[
        str | None, typer.Option(metavar="ID", help="The passage whose place it takes, pN.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Store a text in archival memory; with --replaces in place of one that no longer holds."""
    from agentos.cli import memory

    memory.add(agent, text, tag or [], replaces, json)


@app.command("delete")
def memory_delete(
    agent: AgentName,
    passage: Annotated[str, typer.Argument(metavar="ID", help="The passage, pN.", show_default=False)],
    json: Json = False,
) -> None:
    """Take a passage out of archival memory; `undo` brings it back."""
    from agentos.cli import memory

    memory.delete(agent, passage, json)


@app.command("edit")
def memory_edit(
    agent: AgentName,
    block: Annotated[str, typer.Argument(metavar="BLOCK", help="The block's label.", show_default=False)],
    value: Annotated[str | None, typer.Option(metavar="TEXT", help="The new text.", show_default=False)] = None,
    file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Take the new text from a file; - is stdin.", show_default=False)
    ] = None,
) -> None:
    """Rewrite a block; without --value or --file your editor opens."""
    from agentos.cli import memory

    memory.edit(agent, block, value, file)


@app.command("history")
def memory_history(
    agent: AgentName,
    block: Annotated[
        str | None, typer.Argument(metavar="BLOCK", help="Only this block, or passage pN.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, metavar="N", help="Newest events.")] = 50,
    before: Annotated[
        int | None, typer.Option(min=1, metavar="EVENT", help="Only what is older than it.", show_default=False)
    ] = None,
    actor: Annotated[Actor | None, typer.Option(help="Only what they did.", show_default=False)] = None,
    kind: Annotated[Kind | None, typer.Option(help="Only events of this kind.", show_default=False)] = None,
    run: OfRun = None,
    message: OfMessage = None,
    client: OfClient = None,
    since: Since = None,
    json: Json = False,
) -> None:
    """Who changed what, when and from which message; newest first."""
    from agentos.cli import memory

    filters = {"actor": actor and actor.value, "kind": kind and kind.value, "before": before}
    memory.history(agent, limit, memory.Asked(run, message, client, since), json, target=block, **filters)


@app.command("undo")
def memory_undo(
    agent: AgentName,
    event: Annotated[
        int | None, typer.Argument(metavar="EVENT", help="An event's number from `history`.", show_default=False)
    ] = None,
    run: OfRun = None,
    message: OfMessage = None,
    client: OfClient = None,
    since: Since = None,
    imported: Annotated[bool, typer.Option("--imported", help="What an agent file brought with it.")] = False,
    json: Json = False,
) -> None:
    """Take back the last memory event, the one named, or all that came of one source."""
    from agentos.cli import memory

    memory.undo(agent, event, memory.Asked(run, message, client, since, imported), json)


@app.command("why")
def memory_why(
    agent: AgentName,
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="A block's label, a passage pN, or words.", show_default=False)
    ],
    json: Json = False,
) -> None:
    """Where a memory came from, back to the words that were said."""
    from agentos.cli import memory

    memory.why(agent, what, json)


@app.command("share")
def memory_share(
    agent: AgentName,
    block: Annotated[str, typer.Argument(metavar="BLOCK", help="The block's label.", show_default=False)],
    receiver: Annotated[str, typer.Argument(metavar="OTHER", help="The agent to share it with.", show_default=False)],
) -> None:
    """Let another agent have a block too: one text that both read and edit."""
    from agentos.cli import memory

    memory.share(agent, block, receiver)


@app.command("detach")
def memory_detach(
    agent: AgentName,
    block: Annotated[str, typer.Argument(metavar="BLOCK", help="The block's label.", show_default=False)],
) -> None:
    """Take a shared block out of an agent's core memory; the others keep it."""
    from agentos.cli import memory

    memory.detach(agent, block)


@app.command("import")
def memory_import(
    agent: AgentName,
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSON lines; - is stdin.", show_default=False)],
) -> None:
    """Take in an existing conversation as past messages; the same file again adds nothing."""
    from agentos.cli import memory

    memory.import_file(agent, file)
