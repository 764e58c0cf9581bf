"""`agentos doctor` and `agentos reindex`: is everything in order, and the remedy where it is not."""

import shlex
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from http.client import HTTPException
from typing import Any, Literal
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

from rich.text import Text

import agentos
from agentos.archive.sync import Healed
from agentos.cli.opening import blocking, open_runtime
from agentos.cli.output import make_console, safe, show, show_json
from agentos.cli.views import number
from agentos.errors import AgentOSError, IndexBusy, IndexUnavailable, StoreError
from agentos.personas import list_personas, load_persona
from agentos.runtime import Runtime
from agentos.server.place import server_address
from agentos.settings import Settings, load_settings
from agentos.store.migrations import missing_tables
from agentos.tools.servers import StoredServer

_LITTLE_DISK = 1 << 30
_NO_DISK = 100 << 20
_REACH_SECONDS = 3.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: Literal["ok", "warn", "fail"]
    found: str
    remedy: str = ""


@blocking
async def doctor(as_json: bool) -> int:
    """Look at everything; 1 when something does not work."""
    settings = load_settings()
    findings = [Finding("version", "ok", f"agentos {agentos.__version__}, Python {sys.version.split()[0]}")]
    async for finding in _examine(settings):
        findings.append(finding)
    if as_json:
        show_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            show(_row(finding))
    return int(any(finding.state == "fail" for finding in findings))


def _row(finding: Finding) -> Text:
    sign, style = {"ok": ("✓", "good"), "warn": ("!", "warn"), "fail": ("✗", "bad")}[finding.state]
    row = Text.assemble((f"{sign} {finding.state:<5}", style), (f"{finding.what:<10}", "name"), safe(finding.found))
    row.append(f"\n{'':17}→ {safe(finding.remedy)}" if finding.remedy else "", style="warn")
    return row


async def _examine(settings: Settings) -> AsyncIterator[Finding]:
    new = not settings.home.exists()
    try:
        async with open_runtime() as runtime:
            yield _home(settings, new)
            yield _disk(settings)
            yield await _database(runtime)
            yield _server(settings)
            yield await _left_over(runtime)
            yield await _model(runtime)
            yield await _embedder(runtime)
            yield await _index(runtime)
            yield _personas(runtime)
            yield await _mcp(runtime)
    except StoreError as error:
        yield Finding("database", "fail", str(error), "see the sentence before; nothing else can be looked at")


def _home(settings: Settings, new: bool) -> Finding:
    mode = settings.home.stat().st_mode & 0o777
    place = f"{settings.home}{' (new)' if new else ''}"
    if mode & 0o077:
        return Finding("home", "warn", f"{place} can be read by others ({mode:o})", f"chmod 700 {settings.home}")
    return Finding("home", "ok", f"{place}, only yours")


def _disk(settings: Settings) -> Finding:
    free = shutil.disk_usage(settings.home).free
    found = f"{free / (1 << 30):.1f} GiB free"
    if free < _LITTLE_DISK:
        return Finding("disk", "fail" if free < _NO_DISK else "warn", found, "free some space on the home's disk")
    return Finding("disk", "ok", found)


async def _database(runtime: Runtime) -> Finding:
    dialect = runtime.store.dialect

    def work(tx: Any) -> tuple[str, str, int]:
        ask = tx.connection.exec_driver_sql
        if missing := missing_tables(tx.connection, dialect):
            raise StoreError(
                f"the database lacks {', '.join(missing)}; stop agentos and restore the newest copy from "
                f"{runtime.home / 'backups'}, or move {runtime.home / 'agentos.db'} away"
            )
        return (
            str(ask(dialect.check).scalar()),
            str(ask("SELECT version_num FROM alembic_version").scalar()),
            len(tx.agents()),
        )

    sound, version, agents = await runtime.store.read(work)
    path = runtime.home / "agentos.db"
    size = "" if runtime.settings.database_url else f", {path.stat().st_size / (1 << 20):.1f} MiB"
    found = f"{runtime.store.engine.url.render_as_string(hide_password=True)}, schema {version}{size}, {agents} agents"
    if sound != "ok":
        remedy = f"stop agentos and restore the newest copy from {runtime.home / 'backups'}"
        return Finding("database", "fail", f"{found}; damaged: {sound}", remedy)
    return Finding("database", "ok", f"{found}, sound")


def _server(settings: Settings) -> Finding:
    address = server_address(settings.home)
    return Finding("server", "ok", f"one serves this home at {address}" if address else "none serves this home")


async def _left_over(runtime: Runtime) -> Finding:
    """Turns that are not over: those that somebody has to decide on, that wait, or that were interrupted."""

    def work(tx: Any) -> tuple[list[str], list[str], list[str]]:
        agents = tx.agents()
        asking = [a.name for a in agents if tx.awaits_approval(a.id)]
        waiting = [a.name for a in agents if tx.waiting(a.id)]
        return asking, waiting, [a.name for a in agents if a.name not in asking and tx.unfinished_run(a.id)]

    asking, waiting, unfinished = await runtime.store.read(work)
    if not asking and not waiting and not unfinished:
        return Finding("turns", "ok", "none waits or was interrupted")
    served = bool(server_address(runtime.home))
    begun = f"{len(unfinished)} {'under way' if served else 'interrupted'}"
    found = f"{begun}, {len(asking)} for approval, {len(waiting)} agents with waiting input"
    if asking:
        return Finding("turns", "warn", found, f"decide on what waits: agentos approve {shlex.quote(asking[0])}")
    if served:
        return Finding("turns", "ok", found)
    agent = shlex.quote((unfinished or waiting)[0])
    return Finding("turns", "warn", found, f"they go on when their agent is used: agentos chat --agent {agent}")


async def _model(runtime: Runtime) -> Finding:
    change = "choose another one with AGENTOS_MODEL or --model"
    try:
        llm = runtime.llm()
        window = min(llm.context_window, runtime.settings.context_window or llm.context_window)
        learned = await runtime.store.read(lambda tx: tx.learned_window(llm.name, window))
        found = f"{llm.name} ({runtime.model_source}), window of {number(learned or window)} tokens"
        if learned:
            found += f", as its provider said where {number(window)} was tried; AGENTOS_CONTEXT_WINDOW tries another"
    except AgentOSError as error:
        return Finding("model", "fail", str(error), change)
    base = runtime.settings.api_base
    if base and runtime.settings.model != "offline" and (trouble := _unreachable(base, runtime.settings.api_key)):
        return Finding("model", "fail", f"{found}; {base} {trouble}", "start that server or correct AGENTOS_API_BASE")
    if llm.name == "offline" and not runtime.settings.model:
        return Finding("model", "warn", found, "set a provider's key, start Ollama, or set AGENTOS_MODEL")
    return Finding("model", "ok", found)


def _unreachable(base: str, key: str | None) -> str | None:
    """Why the server at `base` does not answer; any HTTP answer counts as one, but for a refused key."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        request = Request(f"{base.rstrip('/')}/models", headers=headers)
        build_opener(ProxyHandler({})).open(request, timeout=_REACH_SECONDS).close()
    except HTTPError as error:
        return f"refuses the key ({error.code})" if error.code in (401, 403) else None
    except (URLError, HTTPException, OSError, ValueError) as error:
        return f"does not answer: {getattr(error, 'reason', error)}"
    return None


async def _embedder(runtime: Runtime) -> Finding:
    try:
        vectors = await runtime.embedder.embed(["are you there?"])
    except AgentOSError as error:
        return Finding("embedder", "fail", str(error), "set AGENTOS_EMBEDDING=static, which needs no server")
    return Finding("embedder", "ok", f"{runtime.embedder.name}, {vectors.shape[1]} dimensions")


async def _index(runtime: Runtime) -> Finding:
    agents = await runtime.sync.agents()
    sizes = await runtime.store.read(lambda tx: tx.outbox_sizes())
    small = 0 if runtime.settings.index_min_passages == 0 else sum(sizes[a] for a in sizes if a not in agents)
    waiting = sum(sizes.values()) - small  # a small agent's stay in the outbox: it has no collection
    found = f"{number(sum(agents.values()))} vectors of {len(agents)} agents, {number(waiting)} changes wait"
    rebuild = "searches use the exact scan meanwhile; agentos reindex rebuilds it"
    try:
        reports = [await runtime.sync.verify(agent_id) for agent_id in agents]
    except IndexBusy as error:
        return Finding("index", "ok", f"{found}; {error}, which sees to it")
    except IndexUnavailable as error:
        return Finding("index", "warn", f"{found}; {error}", rebuild)
    broken = [report for report in reports if not report.sound]
    if broken:
        return Finding("index", "fail", f"{found}; {broken[0].agent_id}: {broken[0].problem}", rebuild)
    return Finding("index", "ok", f"{found}, sound")


def _personas(runtime: Runtime) -> Finding:
    names = list_personas(runtime.persona_folders)
    for name in names:
        try:
            load_persona(name, runtime.persona_folders)
        except AgentOSError as error:
            return Finding("personas", "fail", str(error), "correct or remove that file")
    return Finding("personas", "ok", ", ".join(names) or "none")


async def _mcp(runtime: Runtime) -> Finding:
    """MCP servers: those elsewhere are asked, of those that a command starts only the command is looked for."""

    def work(tx: Any) -> tuple[dict[str, str], list[StoredServer]]:
        return {record.id: record.name for record in tx.agents()}, tx.mcp_servers()

    names, servers = await runtime.store.read(work)
    problems = [(s, p) for s in servers if (p := await runtime.mcp.check(s) or (s.problem if s.server.command else ""))]
    if not servers:
        return Finding("mcp", "ok", "no agent has an MCP server")
    if not problems:
        return Finding(
            "mcp",
            "ok",
            f"{len(servers)} of {len(servers)} servers in order, as far as can be seen without starting any",
        )
    stored, problem = problems[0]
    remedy = f"agentos mcp test {stored.name} --agent {names[stored.agent_id]} says more"
    return Finding("mcp", "warn", f"{len(problems)} of {len(servers)} servers cannot be used: {problem}", remedy)


@blocking
async def reindex(fresh: bool) -> int:
    """Make the vector index agree with SQL; 1 when it could not be finished."""
    console = make_console(stderr=True)

    def progress(report: Healed) -> None:
        if console.is_terminal:
            console.print(Text(_progress(report), style="quiet"), end="\r")

    async with open_runtime() as runtime:
        await runtime.sync.drain()  # what waits is taken in first, so that the check covers it
        report = await runtime.sync.reindex(progress, fresh=fresh)
    if report.set_aside:
        show(f"the damaged index was moved to {safe(report.set_aside)}")
    show(_progress(report) + (f", {report.pruned} left over dropped" if report.pruned else ""))
    if report.problem:
        console.print(Text(f"agentos: {safe(report.problem)}; call agentos reindex again to go on"))
    return int(report.problem is not None)


def _progress(report: Healed) -> str:
    parts = f"{number(report.embedded)} passages embedded, {report.rebuilt} collections built, {report.sound} in order"
    return f"{parts}, of {report.agents} agents"
