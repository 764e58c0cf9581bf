"""Views: functions from the values of `agentos.values` to what a terminal shows."""

from collections.abc import Iterable
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from agentos.cli.output import line, safe

Json = dict[str, Any]
_BAR = 60
"""Cells of the context bar."""
_COLOURS = {
    "tools": "blue",
    "system": "cyan",
    "core memory": "magenta",
    "summary": "yellow",
    "messages": "green",
    "reserved reply": "bright_black",
}


def when(stamp: str | None) -> str:
    """A time of `values.local` for people."""
    return stamp[:16].replace("T", " ") if stamp else "never"


def number(value: int) -> str:
    """1234567 as 1,234,567."""
    return f"{value:,}"


def cost(dollars: float | None) -> str:
    """US dollars; a price that is unknown is said so."""
    if dollars is None:
        return "price unknown"
    return f"${dollars:.4f}" if dollars < 1 else f"${dollars:.2f}"


def diff(changes: str, indent: str = "  ") -> Text:
    """`- old` and `+ new` lines, coloured."""
    text = Text()
    for changed in safe(changes).split("\n"):
        style = {"-": "removed", "+": "added"}.get(changed[:1], "quiet")
        text.append(f"{indent}{changed}\n", style=style)
    text.rstrip()
    return text


def gauge(value: int, limit: int, cells: int = 12) -> Text:
    """A small bar of how full something is."""
    share = min(1.0, value / limit) if limit else 1.0
    full = round(share * cells) or int(value > 0)
    style = "bad" if share > 0.95 else "warn" if share > 0.8 else "good"
    return Text.assemble(("▰" * full, style), ("▱" * (cells - full), "quiet"))


def block(value: Json) -> RenderableType:
    """One block: its name, how full it is, its text."""
    head = Text.assemble((safe(value["label"]), "name"), "  ")
    head.append_text(gauge(value["characters"], value["limit"]))
    head.append(f"  {number(value['characters'])} of {number(value['limit'])} characters", style="quiet")
    if value["read_only"]:
        head.append("  read-only", style="warn")
    if value["shared_with"]:
        head.append(f"  shared with {', '.join(map(line, value['shared_with']))}", style="quiet")
    body = safe(value["value"]).strip("\n") or "(empty)"
    return Group(head, Text("\n".join(f"  {row}" for row in body.split("\n")), style="" if value["value"] else "quiet"))


def memory(value: Json) -> RenderableType:
    """Core memory, and how much lies beside it."""
    beside = f"archival memory: {number(value['passages'])} · recall memory: {number(value['messages'])} messages"
    return _spaced([*map(block, value["blocks"]), Text(beside, style="quiet")])


def hits(values: list[Json], title: str = "") -> RenderableType:
    """What a search found."""
    shown: list[RenderableType] = [Text(title, style="name")] if title else []
    if not values:
        return Group(*shown, Text("nothing found", style="quiet"))
    for value in values:
        about = [when(value["created_at"]), value["role"], value["name"], value["session"]]
        head = Text.assemble((value["id"], "name"), "  ", ("  ".join(safe(a) for a in about if a), "quiet"))
        if value["tags"]:
            head.append("  " + " ".join(f"#{safe(tag)}" for tag in value["tags"]), style="quiet")
        if value["superseded_by"]:
            head.append(f"  superseded on {value['valid_to'][:10]} by {value['superseded_by']}", style="warn")
        shown += [head, Text("  " + line(value["text"], 600))]
    return Group(*shown)


def history(values: list[Json]) -> RenderableType:
    """The journal, newest first."""
    if not values:
        return Text("no events", style="quiet")
    shown: list[RenderableType] = []
    for value in values:
        head = Text.assemble((f"{value['id']:>5}", "name"), f"  {when(value['created_at'])}  ")
        head.append(f"{value['actor']:<8} {value['action']:<15} {line(value['target'], 50)}")
        client = value["client"] and f"from {safe(value['client'])}"
        note = " ".join(filter(None, [safe(value["note"]), client, value["undone"] and "(undone)"]))
        head.append(f"  {note}" if note else "", style="quiet")
        shown.append(head)
        if value["changes"]:
            shown.append(diff(value["changes"], indent="         "))
    return Group(*shown)


def chains(values: list[list[Json]]) -> RenderableType:
    """Where memories came from: each link further in."""
    if not values:
        return Text("nothing is known about that", style="quiet")
    return _spaced(Group(*(_link(link, depth) for depth, link in enumerate(chain))) for chain in values)


def _link(value: Json, depth: int) -> RenderableType:
    arrow = "" if not depth else "  " * depth + "← "
    head = Text.assemble((arrow, "quiet"), (safe(value["what"]), "name" if not depth else ""))
    head.append(f"  {value['id'] or ''}  {when(value['created_at']) if value['created_at'] else ''}", style="quiet")
    head.rstrip()
    return Group(head, Text("  " * depth + "  " + line(value["text"], 600))) if value["text"] else head


def tokens(values: list[Json]) -> RenderableType:
    """Tokens with what they open."""
    if not values:
        return Text("no tokens; `agentos token create --agent NAME` makes one", style="quiet")
    shown = []
    for value in values:
        row = Text.assemble((value["id"], "name"), f"  {safe(value['name'])}" if value["name"] else "")
        row.append(f"  {value['kind']}{', read-only' if value['read_only'] else ''}: ")
        row.append(line(", ".join(value["agents"]) or "no agent is left"))
        until = f"expired {when(value['expires_at'])}" if value["expired"] else f"until {when(value['expires_at'])}"
        row.append(f"  {until}" if value["expires_at"] else "", style="warn" if value["expired"] else "quiet")
        shown.append(row)
    return Group(*shown)


def agents(values: list[Json]) -> RenderableType:
    """The list of agents."""
    if not values:
        return Text("no agents yet; `agentos chat` makes the first", style="quiet")
    shown = []
    for value in values:
        row = Text.assemble((safe(value["name"]), "name"), f"  persona {safe(value['persona'])}")
        row.append(f", model {safe(value['model'])}" if value["model"] else "")
        row.append(f"  {number(value['messages'])} messages, {number(value['passages'])} passages", style="quiet")
        row.append(f"  last used {when(value['last_used_at'])}", style="quiet")
        if value["approvals"]:
            row.append(
                f"  waits for approval: {', '.join(line(c['name'], 40) for c in value['approvals'])}", style="warn"
            )
        elif value["unfinished_run"]:
            row.append("  has an unfinished turn", style="warn")
        shown.append(row)
    return Group(*shown)


def schedules(values: list[Json]) -> RenderableType:
    """What is to be sent, and when."""
    if not values:
        return Text("nothing is scheduled; `agentos schedule add` does it", style="quiet")
    shown = []
    for value in values:
        row = Text.assemble((safe(value["agent"]), "name"), f"  {when(value['next_at'])}")
        row.append(f"  {value['cron']} ({value['time_zone']})" if value["cron"] else "  once", style="quiet")
        row.append(f"  {line(' '.join(value['messages']), 60)}")
        row.append(f"  {value['id']}", style="quiet")
        shown.append(row)
    return Group(*shown)


def agent(value: Json) -> RenderableType:
    """One agent in full."""
    limits = value["limits"]
    most = [f"{limits['max_steps']} steps", *(f"{number(n)} tokens" for n in [limits["max_tokens"]] if n)]
    most += [f"${n}" for n in [limits["max_cost_usd"]] if n]
    facts = {
        "id": value["id"],
        "created": when(value["created_at"]),
        "a turn may take": ", ".join(most),
        "tools": ", ".join(map(safe, value["tools"])) if value["tools"] is not None else "all",
        "used so far": usage_line(value["usage"]),
    }
    rows = [Text.assemble((f"  {name:<16}", "quiet"), text) for name, text in facts.items()]
    rows += [Text(f"  timer at {when(t['due_at'])}: {line(t['note'])}") for t in value["timers"]]
    return _spaced([Group(agents([value]), *rows), *map(block, value["blocks"])])


def tools(values: list[Json]) -> RenderableType:
    """Tools, and whether their calls run without asking."""
    styles = {"always": "quiet", "ask": "warn", "never": "bad"}
    return Group(*(Text.assemble((f"{v['approval']:<8}", styles[v["approval"]]), safe(v["name"])) for v in values))


def usage_line(value: Json) -> str:
    """Tokens and cost in a line."""
    if not value["prompt_tokens"]:
        return "nothing yet"
    tokens = f"{number(value['prompt_tokens'])} prompt + {number(value['completion_tokens'])} completion tokens"
    return f"{tokens}, {number(value['cached_tokens'])} of them cached, {cost(value['cost_usd'])}"


def context(value: Json) -> RenderableType:
    """The window by section, what was paged out, and how the provider's cache did."""
    window = value["window_tokens"]
    percent = round(100 * value["prompt_tokens"] / window)
    head = Text.assemble((safe(value["model"]), "name"), f"  {number(window)} tokens, {percent} % full")
    parts = [*value["sections"].items(), ("free", value["free_tokens"])]
    legend = [_legend_row(name, tokens, window, value) for name, tokens in parts]
    shown: list[RenderableType] = [Group(head, context_bar(value), *legend)]
    if value["page_outs"]:
        shown.append(Group(Text("paged out", style="name"), *map(_receipt, value["page_outs"][-8:])))
    if value["cache_ledger"]:
        faults = f"page faults: {value['page_fault_rate']:.0%} of recent searches"
        shown.append(Group(Text("prompt cache, newest first", style="name"), *map(_ledger_row, value["cache_ledger"])))
        shown.append(Text(faults, style="quiet"))
    return _spaced(shown)


def context_bar(value: Json) -> Text:
    """The bar itself; `┃` stands where the memory pressure alert is given."""
    window = value["window_tokens"]
    bar, done, filled = Text("  "), 0, 0
    for name, tokens in value["sections"].items():
        if name == "reserved reply":  # it stands at the window's end
            continue
        done += tokens
        cells = min(_BAR, round(_BAR * done / window)) - filled
        bar.append("█" * cells, style=_COLOURS[name])
        filled += max(0, cells)
    reserved = min(_BAR - filled, round(_BAR * value["sections"]["reserved reply"] / window))
    bar.append("░" * (_BAR - filled - reserved), style="quiet")
    bar.append("▒" * reserved, style=_COLOURS["reserved reply"])
    mark = 2 + round(_BAR * value["alert_at_tokens"] / window)
    return Text.assemble(bar[:mark], ("┃", "warn"), bar[mark:])


def _legend_row(name: str, tokens: int, window: int, value: Json) -> Text:
    sign = "░" if name == "free" else "▒" if name == "reserved reply" else "█"
    row = Text.assemble((f"  {sign} ", _COLOURS.get(name, "quiet")), f"{name:<15}{number(tokens):>9}")
    row.append(f"{100 * tokens / window:>6.1f} %", style="quiet")
    if name == "messages":
        row.append(f"  {value['messages']} messages", style="quiet")
    if name == "free":
        row.append(f"  alert at {number(value['alert_at_tokens'])} tokens (┃)", style="quiet")
    return row


def _receipt(value: Json) -> Text:
    row = Text(f"  {when(value['created_at'])}  {value['first']}-{value['last']}, {value['messages']} messages, ")
    row.append(f"{number(value['tokens_before'])} → {number(value['tokens_after'])} tokens")
    row.append(f"  saving step {value['saving_step']}", style="quiet")
    row.append("" if value["in_context"] else ", entry left the summary", style="quiet")
    return row


def _ledger_row(value: Json) -> Text:
    expected, reported = value["expected_cached_tokens"], value["cached_tokens"]
    row = Text(f"  {when(value['created_at'])}  {value['kind']:<13}prompt {number(value['prompt_tokens']):>8}, ")
    row.append(f"cached {number(reported):>8} of {number(expected):>8} expected")
    row.append(f"  ({safe(value['cause'])})" if value["cause"] else "", style="quiet")
    row.append(f"  {line(value['error'])}" if value["error"] else "", style="bad")
    return row


def _spaced(parts: Iterable[RenderableType]) -> Group:
    """The parts with an empty line between them."""
    shown: list[RenderableType] = []
    for part in parts:
        shown += [Text(""), part] if shown else [part]
    return Group(*shown)
