"""Views of the context window."""

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from agentos.cli.output import line, safe
from agentos.cli.views import indented, number, older, spaced, when

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


def context(value: Json) -> RenderableType:
    """The window by section, what was paged out, and how the provider's cache did."""
    window = value["window_tokens"]
    percent = round(100 * value["prompt_tokens"] / window)
    head = Text.assemble((safe(value["model"]), "name"), f"  {number(window)} tokens, {percent} % full")
    parts = [*value["sections"].items(), ("free", value["free_tokens"])]
    legend = [_legend_row(name, tokens, window, value) for name, tokens in parts]
    alert, left = number(value["alert_at_tokens"]), number(value["page_out_to_tokens"])
    marks = Text(f"  ┃ alert at {alert} tokens  ┆ a page-out leaves {left}", style="quiet")
    shown: list[RenderableType] = [Group(head, context_bar(value), *legend, marks)]
    if value["page_outs"]:
        shown.append(Group(Text("paged out", style="name"), *map(_receipt, value["page_outs"][-8:])))
    if value["cache_ledger"]:
        faults = f"page faults: {value['page_fault_rate']:.0%} of recent searches"
        shown.append(Group(Text("prompt cache, newest first", style="name"), *map(_ledger_row, value["cache_ledger"])))
        shown.append(Text(faults, style="quiet"))
    return spaced(shown)


def context_bar(value: Json) -> Text:
    """The bar itself; `┃` stands where the memory pressure alert is given, `┆` where a page-out ends."""
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
    left, alert = (2 + round(_BAR * value[name] / window) for name in ("page_out_to_tokens", "alert_at_tokens"))
    return Text.assemble(bar[:left], ("┆", "warn"), bar[left:alert], ("┃", "warn"), bar[alert:])


def _legend_row(name: str, tokens: int, window: int, value: Json) -> Text:
    sign = "░" if name == "free" else "▒" if name == "reserved reply" else "█"
    row = Text.assemble((f"  {sign} ", _COLOURS.get(name, "quiet")), f"{name:<15}{number(tokens):>9}")
    row.append(f"{100 * tokens / window:>6.1f} %", style="quiet")
    if name == "messages":
        row.append(f"  {value['messages']} messages", style="quiet")
    return row


def _receipt(value: Json) -> Text:
    row = Text(f"  {when(value['created_at'])}  {value['first']}-{value['last']}, {value['messages']} messages, ")
    row.append(f"{number(value['tokens_before'])} → {number(value['tokens_after'])} tokens")
    row.append(f"  saving step {value['saving_step']}", style="quiet")
    row.append("" if value["in_context"] else ", entry left the summary", style="quiet")
    return row


def _ledger_row(value: Json) -> Text:
    expected, reported = value["expected_cached_tokens"], value["cached_tokens"]
    row = Text(f"  {when(value['created_at'])}  {value['kind']:<13}{number(value['prompt_tokens']):>6} prompt, ")
    row.append(f"{number(reported):>6} cached, {number(expected):>6} expected")
    row.append(f"  ({safe(value['cause'])})" if value["cause"] else "", style="quiet")
    row.append(f"  {line(value['error'])}" if value["error"] else "", style="bad")
    return row


def page_outs(value: Json) -> RenderableType:
    """Receipts, newest first, each with the entry that stands for it in the summary."""
    if not value["page_outs"]:
        return Text("nothing was paged out", style="quiet")
    rows: list[RenderableType] = []
    for one in value["page_outs"]:
        rows += [_receipt(one), indented(one["text"], "    ", most=900)]
    return Group(*rows, *older(value))


def filling(values: list[Json]) -> RenderableType:
    """The prompt of each of the last steps as a bar, oldest first; the longest prompt fills its bar."""
    if not values:
        return Text("no request was sent yet", style="quiet")
    longest = max(value["prompt_tokens"] for value in values)
    rows = []
    for value in values:
        bar = "█" * round(24 * value["prompt_tokens"] / longest)
        row = Text.assemble(f"{when(value['created_at'])}  ", (f"{bar:<24}", "green"))
        row.append(f"  {number(value['prompt_tokens']):>7} tokens, {number(value['cached_tokens'])} cached")
        row.append("  after a page-out" if value["page_out"] else "", style="warn")
        rows.append(row)
    return Group(*rows)


def request(value: Json) -> RenderableType:
    """The request sent last, part by part, with what of it the provider had in its cache."""
    step = value["step"]
    head = Text("the request sent last" if value["sent"] else "the request that comes next", style="name")
    head.append(f"  {number(value['tokens'])} tokens, {value['messages']} messages", style="quiet")
    if step:
        reported = f"{number(step['prompt_tokens'])} tokens, {number(step['cached_tokens'])} cached"
        head.append(f"; reported {when(step['created_at'])}: {reported}", style="quiet")
    if value["sent"] and not value["exact"]:
        head.append("\nsystem text, tools or model changed since; the head is as it would be sent now", style="warn")
    shown: list[RenderableType] = [head]
    for part in value["parts"]:
        name = part["role"] if part["section"] == "messages" else part["section"]
        row = Text.assemble((f"  {part['id'] or name}", "name"), f"  {name}" if part["id"] else "")
        row.append(f"  {number(part['tokens'])} tokens", style="quiet")
        if step:
            whole = part["cached"] == part["tokens"]
            cached = "cached" if whole else f"{number(part['cached'])} cached" if part["cached"] else "sent anew"
            row.append(f"  {cached}", style="good" if whole else "warn")
        shown.append(row)
        if text := part["text"] or ", ".join(part["tools"]):
            shown.append(Text(f"    {line(text, 220)}"))
        shown += [Text(f"    → {line(call['name'])} {line(call['arguments'], 220)}") for call in part["calls"]]
    return Group(*shown)
