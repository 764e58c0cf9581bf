"""Calls that wait for approval: shown, asked about, decided."""

import sys
from contextlib import aclosing
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.patch_stdout import patch_stdout
from rich.console import Group, RenderableType
from rich.text import Text

from agentos.cli.chosen import Chosen
from agentos.cli.oneshot import show_turn
from agentos.cli.opening import blocking, open_talk
from agentos.cli.output import as_json, make_console, safe, show, show_json
from agentos.errors import Conflict, UsageError
from agentos.state import Decision

Json = dict[str, Any]


def calls(values: list[Json]) -> RenderableType:
    """The calls in full, for nobody should approve what was cut off."""
    return Group(*(_call(value) for value in values))


def _call(value: Json) -> Text:
    arguments = safe(as_json(value["arguments"]))
    return Text.assemble(("? ", "warn"), (safe(value["name"]), "name"), f" {arguments}")


async def asked(values: list[Json]) -> dict[str, Decision] | None:
    """What the person at the terminal says of each call; None where the question is left open (Ctrl-C, Ctrl-D)."""
    session: PromptSession[str] = PromptSession()
    console, said = make_console(), {}
    for value in values:
        console.print(_call(value))
        words = ""
        while not words:
            try:
                with patch_stdout(raw=True):
                    words = (await session.prompt_async("  run it? [y]es / [n]o / why not: ")).strip()
            except (EOFError, KeyboardInterrupt):
                return None
        said[value["call_id"]] = _decision(words)
    return said


def _decision(words: str) -> Decision:
    if words.lower() in ("y", "yes"):
        return Decision(True)
    return Decision(False, "" if words.lower() in ("n", "no") else words)


@blocking
async def approve(chosen: Chosen, yes: bool, deny: str | None, only: list[str], in_json: bool) -> int:
    """Show what waits; decide as the options say, or as the person at the terminal does, and go on with the turn."""
    if yes and deny is not None:
        raise UsageError("--yes and --deny contradict each other; give one")
    async with open_talk(chosen) as opened:
        waiting = await opened.talk.approvals()
        if unknown := [call_id for call_id in only if all(call_id != v["call_id"] for v in waiting)]:
            raise Conflict(f"call {unknown[0]!r} does not wait for approval")
        waiting = [value for value in waiting if not only or value["call_id"] in only]
        said: dict[str, Decision] | None = None
        if yes or deny is not None:
            if not waiting:
                raise Conflict(f"no call of {opened.talk.name!r} waits for approval")
            said = {value["call_id"]: Decision(yes, deny or "") for value in waiting}
        elif waiting and not in_json and sys.stdin.isatty() and sys.stdout.isatty():
            said = await asked(waiting)
        elif in_json:
            show_json(waiting)
        else:
            show(_list(waiting))
        if said is None:
            return 0
        async with aclosing(opened.talk.approve(waiting[0]["run_id"], said)) as events:
            return await show_turn(opened.talk, events, "json" if in_json else "text")


def _list(values: list[Json]) -> RenderableType:
    if not values:
        return Text("no call waits for approval", style="quiet")
    what = "--yes runs it, --deny REASON refuses it"
    if len(values) > 1:
        what = "--yes runs them, --deny REASON refuses them; --call ID decides on one, --json shows the IDs"
    return Group(calls(values), Text(what, style="quiet"))
