"""Views of runs: the list, and one turn step by step."""

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from agentos.cli.output import line, safe
from agentos.cli.views import call, indented, number, older, spent, took, when

Json = dict[str, Any]
_SHOWN_CHARS = 900
"""Of one text; `memory show` has all of a message."""


def runs(value: Json) -> RenderableType:
    """Turns, newest first."""
    if not value["runs"]:
        return Text("no such turns", style="quiet")
    rows: list[RenderableType] = []
    for run in value["runs"]:
        rows += [_head(run), Text(f"  {_said(run)}"), Text(f"  {_facts(run)}", style="quiet")]
    return Group(*rows, *older(value))


def trace(value: Json) -> RenderableType:
    """One turn as it went."""
    run = value["run"]
    rows: list[RenderableType] = [_head(run), Text(f"  {_facts(run)}", style="quiet")]
    for entry in value["entries"]:
        rows += [Text(""), *_ENTRIES[entry["type"]](entry)]
    if not run["open"]:
        rows += [Text(""), Text(f"stopped: {run['stop_reason'] or run['status']}", style="quiet")]
    if run["error"]:
        rows.append(Text(safe(run["error"]), style="warn"))
    return Group(*rows)


def _head(run: Json) -> Text:
    state = "waits for approval" if run["awaits_approval"] else "waits" if run["status"] == "created" else run["status"]
    style = "bad" if run["status"] == "failed" else "warn" if run["open"] else "good"
    head = Text.assemble((run["id"], "name"), f"  {when(run['created_at'])}  ", (state, style))
    reason = "" if run["open"] or run["stop_reason"] in (None, run["status"]) else f", {run['stop_reason']}"
    return head.append(reason, style="quiet" if reason == ", end_turn" else "warn")


def _said(run: Json) -> str:
    return line(run["input"], 76) or ("a timer" if run["trigger"] == "timer" else "no words")


def _facts(run: Json) -> str:
    steps, calls = (f"{n} {word}{'' if n == 1 else 's'}" for n, word in (
        (run["steps"], "step"), (run["model_calls"], "model call"),
    ))  # fmt: skip
    return f"{steps}, {calls}, {took(run['seconds'])}, {spent(run['usage'])}"


def _message(entry: Json) -> list[RenderableType]:
    """What came in, or a result whose call stands on the page before."""
    value = entry["message"]
    about = [entry["type"], value["name"] and line(value["name"], 40)]
    head = Text.assemble((value["id"], "name"), "  ", ("  ".join(filter(None, about)), "quiet"))
    return [head, indented(value["text"], most=_SHOWN_CHARS)]


def _reply(entry: Json) -> list[RenderableType]:
    value = entry["message"]
    head = Text.assemble((value["id"], "name"), "  ", ("reply", "quiet"))
    head.append("  in agentos's own words" if value["kind"] == "fallback" else "", style="quiet")
    rows: list[RenderableType] = [head]
    if entry["step"]:
        head.append(f"  {_step(entry['step'])}", style="quiet")
    if value["reasoning"]:
        thought = indented(value["reasoning"], most=_SHOWN_CHARS)
        thought.stylize("quiet")
        rows.append(thought)
    if value["text"]:
        rows.append(indented(value["text"], most=_SHOWN_CHARS))
    for made in value["calls"]:
        rows += [call(made, most=_SHOWN_CHARS), *_outcome(made)]
    return rows


def _outcome(made: Json) -> list[RenderableType]:
    """What was decided of a call, what it gave, and whether it asked for another step."""
    rows: list[RenderableType] = []
    decision, result = made["decision"], made["result"]
    if decision:
        said = f"{'approved' if decision['approve'] else 'refused'} by {line(decision['by'], 40)}"
        rows.append(Text(": ".join(filter(None, [f"    {said}", line(decision["reason"])])), style="quiet"))
    if result is None:
        rows.append(Text("    waits for approval" if made["waits"] else "    no result yet", style="warn"))
        return rows
    shown = indented(result["text"], "      ", most=_SHOWN_CHARS)
    sign = ("✓", "good") if result["ok"] else ("✗", "bad")
    rows.append(Text.assemble("    ", sign, shown[5:]))
    if result["heartbeat"]:
        rows.append(Text("      heartbeat: another step", style="quiet"))
    return rows


def _model_call(entry: Json) -> list[RenderableType]:
    step = entry["step"]
    name = "notes for a page-out" if step["kind"] == "summary" else "model call"
    rows: list[RenderableType] = [Text(f"{name}  {_step(step)}", style="quiet")]
    return [*rows, Text(f"  {line(step['error'], 300)}", style="bad")] if step["error"] else rows


def _step(step: Json) -> str:
    why = f", {safe(step['cause'])}" if step["cause"] else ""
    return f"{line(step['model'], 40)}, {took(step['latency_ms'] / 1000)}, {spent(step)}{why}"


def _page_out(entry: Json) -> list[RenderableType]:
    value = entry["page_out"]
    moved = f"paged out {value['messages']} messages, {value['first']}-{value['last']}"
    tokens = f"{number(value['tokens_before'])} → {number(value['tokens_after'])} tokens"
    return [Text(f"{moved}: {tokens} (saving step: {value['saving_step']})", style="quiet")]


_ENTRIES = {
    "input": _message, "notice": _message, "result": _message, "reply": _reply, "model_call": _model_call,
    "page_out": _page_out,
}  # fmt: skip
