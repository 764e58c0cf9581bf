"""`agentos memory`: look into and correct what an agent knows."""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from agentos import curate, values
from agentos.cli import views
from agentos.cli.opening import blocking, existing, open_runtime
from agentos.cli.output import line, show, show_json
from agentos.errors import UsageError
from agentos.memory import core
from agentos.talk import HomeTalk

Scope = Literal["recall", "archival", "all"]


@blocking
async def show_memory(name: str, what: str | None, as_json: bool) -> None:
    """Core memory, one block of it, or the passage `p12` or message `m12`."""
    value: Any
    async with open_runtime() as runtime:
        record = await existing(runtime, name)
        labels = [block.label for block in await runtime.store.read(lambda tx: tx.blocks(record.id))]
        if what is None or what in labels or not re.fullmatch(r"[pm]\d+", what):
            value, view = await runtime.store.read(lambda tx: values.memory_value(tx, record, what)), views.memory
        elif what[0] == "p":
            value, view = await values.shown_passage(runtime.store, record.id, what), views.passage
        else:
            value, view = await values.shown_message(runtime.store, record.id, what), views.message
    show_json(value) if as_json else show(view(value))


@blocking
async def versions(name: str, label: str, limit: int, before: int | None, as_json: bool) -> None:
    """What each version of a block changed."""

    def work(tx: Any) -> values.Json:
        return values.versions_value(tx, core.find_block(tx.blocks(record.id), label), record.id, before, limit)

    async with open_runtime() as runtime:
        record = await existing(runtime, name)
        value = await runtime.store.read(work)
    show_json(value) if as_json else show(views.versions(value))


@blocking
async def search(
    name: str, query: str | None, scope: Scope, limit: int, as_json: bool, *, tag: str | None, role: str | None,
    start: str | None, end: str | None, as_of: str | None, include_superseded: bool,
) -> None:  # fmt: skip
    """Archival memory, past messages, or both: searched, or without a query listed, newest first."""
    if query is not None and not query.strip():
        raise UsageError("the query is empty; say what to look for")
    for option, given, place in (("--tag", tag, "archival"), ("--role", role, "recall")):
        if given is not None and scope != place:
            raise UsageError(f"{option} is of {place} memory alone; say --in {place}")
    found: dict[str, list[values.Json]] = {}
    async with open_runtime() as runtime:
        record, now = await existing(runtime, name), runtime.clock.now()
        which: dict[str, Any] = {
            "start": values.moment("--start", start, now), "end": values.moment("--end", end, now, end=True),
            "limit": limit,
        }  # fmt: skip
        if scope != "recall":
            page = await values.passage_page(
                runtime, record.id, query, **which, tag=tag, as_of=values.moment("--as-of", as_of, now, end=True),
                include_superseded=include_superseded,
            )  # fmt: skip
            found["archival"] = page["passages"]
        if scope != "archival":
            page = await values.message_page(runtime, record.id, query, **which, role=role)
            found["recall"] = page["messages"]
    if as_json:
        show_json([{"in": place, **value} for place, listed in found.items() for value in listed])
        return
    for place, listed in found.items():
        show(views.hits(listed, f"{place} memory"))


@blocking
async def add(name: str, text: str, tags: list[str], replaces: str | None, as_json: bool) -> None:
    """Store a text in archival memory as a person."""
    old = None if replaces is None else curate.passage_id(replaces)
    async with open_runtime() as runtime:
        record = await existing(runtime, name)
        memory = runtime.memory(record.id)
        saved = await curate.insert_passage(runtime.store, runtime.clock, memory, record.id, text, tags, replaces=old)
    instead = f" in place of {replaces}" if old not in (None, saved.id) else ""
    show_json(values.passage_value(saved)) if as_json else show(f"stored as {saved.ref}{instead}")


@blocking
async def delete(name: str, ref: str, as_json: bool) -> None:
    """Take a passage out of archival memory as a person."""
    number = curate.passage_id(ref)
    async with open_runtime() as runtime:
        record = await existing(runtime, name)
        gone = await curate.delete_passage(runtime.store, runtime.clock, record.id, number)
    show_json(values.passage_value(gone)) if as_json else show(f"deleted {gone.ref}; `memory undo` brings it back")


@dataclass(frozen=True)
class Asked:
    """The options that name a source of memory events."""

    run: str | None = None
    message: str | None = None
    client: str | None = None
    since: str | None = None
    imported: bool = False

    def source(self, now: datetime) -> curate.Source | None:
        """The source; None where none is named."""
        if self == Asked():
            return None
        since = values.moment("--since", self.since, now)
        return curate.Source(self.run, _message_id(self.message), None, self.client, since, self.imported)


def _message_id(message: str | None) -> int | None:
    if message is None:
        return None
    if not (message[:1] == "m" and message[1:].isascii() and message[1:].isdigit()):
        raise UsageError(f"{message!r} is no message; `agentos memory search` shows their ids, such as m12")
    return int(message[1:19])


@blocking
async def history(name: str, limit: int, asked: Asked, as_json: bool, **filters: Any) -> None:
    """The journal; `filters` are those of `values.history_value`."""
    async with open_runtime() as runtime:
        filters["source"] = asked.source(runtime.clock.now())
        record = await existing(runtime, name)
        value = await runtime.store.read(lambda tx: values.history_value(tx, record.id, limit, **filters))
    show_json(value) if as_json else show(views.history(value))


@blocking
async def why(name: str, what: str, as_json: bool) -> None:
    """Where a memory came from."""
    async with open_runtime() as runtime:
        record = await existing(runtime, name)
        found = [values.chain_value(chain) for chain in await curate.why(runtime.store, record.id, what)]
    show_json(found) if as_json else show(views.chains(found))


@blocking
async def undo(name: str, event_id: int | None, asked: Asked, as_json: bool) -> None:
    """Take back one memory event, or all that came from one source."""
    if asked != Asked() and event_id is not None:
        raise UsageError("EVENT and a source both say what to take back; leave one out")
    async with open_runtime() as runtime:
        source = asked.source(runtime.clock.now())
        record = await existing(runtime, name)
        talk = HomeTalk(runtime, name, await runtime.agent_of(record.id))
        undone = [await talk.undo(event_id)] if source is None else await talk.undo_all(source)
    if as_json:
        show_json(undone)
        return
    for one in undone:
        show(f"took back event {one['event_id']} ({one['action']})")
        show(views.diff(one["changes"]))


@blocking
async def import_file(name: str, file: str) -> None:
    """Past messages from a file of JSON lines; the agent is made on first use."""
    lines = _read_file(file).split("\n")  # JSON may hold other line separators
    async with open_runtime() as runtime:
        record = await runtime.store.read(lambda tx: tx.agent_named(name)) or await runtime.create_agent(name)
        done = await curate.import_conversation(runtime.store, runtime.clock, record.id, lines)
    show(f"imported {done.added} messages into {line(name)}; {done.known} were known already")


@blocking
async def edit(name: str, label: str, value: str | None, file: str | None) -> None:
    """Rewrite a block as a person; refused when it changed while it was edited."""
    if value is not None and file is not None:
        raise UsageError("--value and --file both give the text; leave one out")
    async with open_runtime() as runtime:
        record = await existing(runtime, name)
        agent = await runtime.agent_of(record.id)
        block = core.find_block(await runtime.store.read(lambda tx: tx.blocks(record.id)), label)
        typed = value is None and file in (None, "-")
        if file is not None:
            value = _read_file(file).removesuffix("\n")
        text = _edited(block.value, label) if value is None else value
        turn = await agent.turn()
        try:
            before, after = await curate.edit_block(runtime.store, turn, label, text, expected=block.version_id)
        except UsageError as error:
            raise UsageError(f"{error} (your text is kept in {_kept(text, label)})" if typed else str(error)) from None
    if before.value == after.value:
        show("nothing was changed")
        return
    show(f"{line(label)}: {len(after.value)} of {after.limit} characters; the agent is told at its next step")
    show(views.diff(core.changed_lines(before.value, after.value)))


@blocking
async def share(name: str, label: str, receiver: str) -> None:
    """Attach a block to another agent too."""
    async with open_runtime() as runtime:
        owner, other = await existing(runtime, name), await existing(runtime, receiver)
        await curate.share_block(runtime.store, owner.id, label, await (await runtime.agent_of(other.id)).turn())
    show(f"{line(name)} and {line(receiver)} share {line(label)}: both read and edit it")


@blocking
async def detach(name: str, label: str) -> None:
    """Take a shared block out of an agent's core memory."""
    async with open_runtime() as runtime:
        record = await existing(runtime, name)
        await curate.detach_block(runtime.store, record.id, label)
    show(f"{line(name)} no longer has {line(label)}; the others keep it")


def _read_file(file: str) -> str:
    """The text of a file, or of stdin for `-`."""
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return raw.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}; give a file of yours") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8 at byte {error.start}; convert it first") from None


def _edited(text: str, label: str) -> str:
    """`text` after the user's editor had it."""
    if not sys.stdin.isatty():
        raise UsageError("without a terminal, give the new text with --value or --file")
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{label}.txt"
        path.write_text(text, "utf-8")
        try:
            done = subprocess.run([*shlex.split(editor), str(path)], check=False)
        except OSError as error:
            raise UsageError(f"the editor {editor!r} cannot be started: {error.strerror}; set EDITOR") from None
        if done.returncode:
            raise UsageError(f"the editor {editor!r} ended with {done.returncode}; nothing was changed")
        return _read_file(str(path)).removesuffix("\n")


def _kept(text: str, label: str) -> str:
    """The path of a new file of the user's own that holds `text`."""
    with tempfile.NamedTemporaryFile("w", prefix=f"{label}-", suffix=".txt", delete=False, encoding="utf-8") as file:
        file.write(text)
    return file.name
