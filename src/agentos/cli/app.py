"""The commands and their options; what each does is imported when it is called."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import agentos
from agentos.cli.mcp_servers import app as mcp_app

app = typer.Typer(
    name="agentos", help="Agents that remember: they edit their own bounded memory and never lose a turn.",
    no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False,
)  # fmt: skip
agents_app = typer.Typer(help="Manage agents.", no_args_is_help=True, rich_markup_mode=None)
memory_app = typer.Typer(help="Look into and correct what an agent knows.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(agents_app, name="agents")
schedule_app = typer.Typer(
    help="Messages that `agentos serve` sends to agents by the clock.", no_args_is_help=True, rich_markup_mode=None
)
token_app = typer.Typer(
    help="Tokens for programs that use the memory of some agents (/mcp).", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(memory_app, name="memory")
app.add_typer(mcp_app, name="mcp")
app.add_typer(token_app, name="token")
app.add_typer(schedule_app, name="schedule")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AgentName = Annotated[str, typer.Argument(metavar="AGENT", help="The agent's name.", show_default=False)]
Persona = Annotated[str | None, typer.Option(metavar="NAME", help="The persona of a new agent.", show_default=False)]
Model = Annotated[
    str | None, typer.Option(metavar="NAME", help="offline, or any litellm model name.", show_default=False)
]

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


class OutputFormat(StrEnum):
    """How one-shot and pipe mode print turns."""

    TEXT = "text"
    JSON = "json"
    STREAM_JSON = "stream-json"


class Approval(StrEnum):
    """When a tool's calls run."""

    ALWAYS = "always"
    ASK = "ask"
    NEVER = "never"


class Place(StrEnum):
    """Where `memory search` looks."""

    RECALL = "recall"
    ARCHIVAL = "archival"
    ALL = "all"


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"agentos {agentos.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options before the command."""


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


@app.command()
def doctor(json: Json = False) -> None:
    """What is configured, what is reachable, is the index sound; each finding with its remedy."""
    from agentos.cli import doctor as commands

    raise typer.Exit(commands.doctor(json))


@app.command()
def reindex(
    fresh: Annotated[bool, typer.Option("--fresh", help="Build everything anew, also what is in order.")] = False,
) -> None:
    """Rebuild the vector index from the database; interrupted and called again, it goes on."""
    from agentos.cli import doctor as commands

    raise typer.Exit(commands.reindex(fresh))


@app.command("eval")
def evaluate(
    suite: Annotated[
        str, typer.Argument(metavar="SUITE", help="locomo, longmemeval, core-memory or nested-kv.", show_default=False)
    ],
    data: Annotated[
        str, typer.Option(metavar="FILE", help="The suite's published file, gzipped or not.", show_default=False)
    ],
    model: Model = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first questions.")] = None,
    json: Json = False,
    report: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write an HTML page too.", show_default=False)
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="FILE", help="Compare with a result saved with --json.", show_default=False)
    ] = None,
) -> None:
    """Measure memory on a data file of yours; interrupted and called again, it goes on."""
    from agentos.cli import evals

    evals.evaluate(suite, data, model, limit, json, report, against)


@app.command("test")
def play(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="PATH...", help="Scenario files and folders.", show_default=False)
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Play with this model; again for several.", show_default=False),
    ] = None,
    embedding: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Play with this embedder; again for several.", show_default=False),
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, metavar="N", help="Play each so often and give the pass rate.")] = 1,
    record: Annotated[
        bool, typer.Option("--record", help="Keep what the live --model answers, for `model: recorded`.")
    ] = False,
    regrade: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Check a saved trajectory again; plays nothing.", show_default=False),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="The model that answers `judge` expectations.", show_default=False),
    ] = None,
    measures: Annotated[bool, typer.Option("--measures", help="Show the measures of memory.")] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all of it as one HTML page.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Play persona scenarios (*.scenario.yaml) and check what the agents then know."""
    from agentos.cli import scenarios

    told = scenarios.Told(json, measures, report, judge)
    if regrade and (model or embedding or repeat > 1 or record):
        raise typer.BadParameter(
            "nothing is played, so --model, --embedding, --repeat and --record say nothing", param_hint="--regrade"
        )
    if regrade:
        raise typer.Exit(scenarios.regrade(regrade, paths or [], told))
    if not paths:
        raise typer.BadParameter("name scenario files or folders, such as personas", param_hint="PATH...")
    raise typer.Exit(scenarios.play_all(paths, model or [], embedding or [], repeat, record, told))


@agents_app.command("list")
def agents_list(json: Json = False) -> None:
    """All agents."""
    from agentos.cli import agents

    agents.list_agents(json)


@agents_app.command("show")
def agents_show(agent: AgentName, json: Json = False) -> None:
    """One agent in full."""
    from agentos.cli import agents

    agents.show_agent(agent, json)


@agents_app.command("create")
def agents_create(agent: AgentName, persona: Persona = "assistant", model: Model = None, json: Json = False) -> None:
    """A new agent; --model becomes its own."""
    from agentos.cli import agents

    agents.create_agent(agent, "assistant" if persona is None else persona, model, json)


@agents_app.command("delete")
def agents_delete(
    agent: AgentName, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False
) -> None:
    """Remove an agent with all it knows."""
    from agentos.cli import agents

    agents.delete_agent(agent, yes)


@agents_app.command("approval")
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


@memory_app.command("show")
def memory_show(
    agent: AgentName,
    block: Annotated[str | None, typer.Argument(metavar="BLOCK", help="One block's label.", show_default=False)] = None,
    json: Json = False,
) -> None:
    """Core memory: the blocks with their sizes and limits."""
    from agentos.cli import memory

    memory.show_memory(agent, block, json)


@memory_app.command("search")
def memory_search(
    agent: AgentName,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to look for.", show_default=False)],
    place: Annotated[Place, typer.Option("--in", help="Where to look.")] = Place.ALL,
    limit: Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="Hits of each place.")] = 10,
    as_of: Annotated[
        str | None, typer.Option(metavar="TIME", help="Passages that were valid then, ISO 8601.", show_default=False)
    ] = None,
    include_superseded: Annotated[
        bool, typer.Option("--include-superseded", help="Also passages that others took the place of.")
    ] = False,
    json: Json = False,
) -> None:
    """Search archival memory and past messages."""
    from agentos.cli import memory

    memory.search(agent, query, place.value, limit, as_of, include_superseded, json)


@memory_app.command("add")
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


@memory_app.command("delete")
def memory_delete(
    agent: AgentName,
    passage: Annotated[str, typer.Argument(metavar="ID", help="The passage, pN.", show_default=False)],
    json: Json = False,
) -> None:
    """Take a passage out of archival memory; `undo` brings it back."""
    from agentos.cli import memory

    memory.delete(agent, passage, json)


@memory_app.command("edit")
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


@memory_app.command("history")
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


@memory_app.command("undo")
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


@memory_app.command("why")
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


@memory_app.command("share")
def memory_share(
    agent: AgentName,
    block: Annotated[str, typer.Argument(metavar="BLOCK", help="The block's label.", show_default=False)],
    receiver: Annotated[str, typer.Argument(metavar="OTHER", help="The agent to share it with.", show_default=False)],
) -> None:
    """Let another agent have a block too: one text that both read and edit."""
    from agentos.cli import memory

    memory.share(agent, block, receiver)


@memory_app.command("detach")
def memory_detach(
    agent: AgentName,
    block: Annotated[str, typer.Argument(metavar="BLOCK", help="The block's label.", show_default=False)],
) -> None:
    """Take a shared block out of an agent's core memory; the others keep it."""
    from agentos.cli import memory

    memory.detach(agent, block)


@memory_app.command("import")
def memory_import(
    agent: AgentName,
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSON lines; - is stdin.", show_default=False)],
) -> None:
    """Take in an existing conversation as past messages; the same file again adds nothing."""
    from agentos.cli import memory

    memory.import_file(agent, file)


@schedule_app.command("list")
def schedule_list(
    agent: Annotated[str | None, typer.Argument(metavar="AGENT", help="Only this agent's.", show_default=False)] = None,
    json: Json = False,
) -> None:
    """What is to be sent, soonest first."""
    from agentos.cli import schedule

    schedule.list_schedules(agent, json)


@schedule_app.command("add")
def schedule_add(
    agent: AgentName,
    message: Annotated[str, typer.Argument(metavar="TEXT", help="What the agent is told.", show_default=False)],
    cron: Annotated[
        str | None,
        typer.Option(metavar="CRON", help="Five fields in local time, such as '0 9 * * 1-5'.", show_default=False),
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Once, at this ISO 8601 time.", show_default=False)
    ] = None,
) -> None:
    """Send a message again and again (--cron), or once (--at)."""
    from agentos.cli import schedule

    schedule.add(agent, message, cron, at)


@schedule_app.command("remove")
def schedule_remove(
    schedule_id: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.", show_default=False)],
) -> None:
    """Send it no more."""
    from agentos.cli import schedule

    schedule.remove(schedule_id)


@mcp_app.callback(invoke_without_command=True)
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


@token_app.command("create")
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


@token_app.command("list")
def token_list(json: Json = False) -> None:
    """All tokens; the secrets are not kept."""
    from agentos.cli import tokens

    tokens.list_tokens(json)


@token_app.command("revoke")
def token_revoke(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.", show_default=False)],
) -> None:
    """Make a token useless at once."""
    from agentos.cli import tokens

    tokens.revoke(token_id)
