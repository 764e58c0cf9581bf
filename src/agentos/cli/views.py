"""Views: functions from the values of `agentos.values` to what a terminal shows."""

from collections.abc import Iterable
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from agentos.cli.output import as_json, line, safe

Json = dict[str, Any]


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


def spent(usage: Json) -> str:
    """Tokens and cost of a model call or a turn, in a few words."""
    prompt, cached, reply = (number(usage[f"{kind}_tokens"]) for kind in ("prompt", "cached", "completion"))
    return f"{prompt} ({cached} cached) + {reply} tokens, {cost(usage['cost_usd'])}"


def took(seconds: float | None) -> str:
    """How long something took."""
    if seconds is None:
        return "not ended"
    return f"{1000 * seconds:,.0f} ms" if seconds < 1 else f"{seconds:,.1f} s"


def indented(text: str, indent: str = "  ", most: int | None = None) -> Text:
    """Every line of a text, or its first `most` characters and how many there are."""
    rows = safe(text if most is None else text[:most]).strip("\n").split("\n")
    shown = Text("\n".join(f"{indent}{row}" for row in rows))
    if most is not None and len(text) > most:
        shown.append(f" … ({number(len(text))} characters)", style="quiet")
    return shown


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
    return Group(head, indented(value["value"]) if value["value"].strip("\n") else Text("  (empty)", style="quiet"))


def memory(value: Json) -> RenderableType:
    """Core memory, and how much lies beside it."""
    beside = f"archival memory: {number(value['passages'])} · recall memory: {number(value['messages'])} messages"
    return spaced([*map(block, value["blocks"]), Text(beside, style="quiet")])


def hits(values: list[Json], title: str = "") -> RenderableType:
    """Hits of a search, passages or messages."""
    shown: list[RenderableType] = [Text(title, style="name")] if title else []
    if not values:
        return Group(*shown, Text("nothing found", style="quiet"))
    for value in values:
        shown += (
            [_memory_head(value), Text("  " + line(value["text"], 600))] if value["text"] else [_memory_head(value)]
        )
        shown += [call(one, most=300) for one in value.get("calls", ())]
    return Group(*shown)


def _memory_head(value: Json) -> Text:
    """What a passage or message is, and when it was said."""
    about = [when(value["created_at"]), *(value.get(name) for name in ("role", "name", "session"))]
    head = Text.assemble((value["id"], "name"), "  ", ("  ".join(safe(a) for a in about if a), "quiet"))
    if value.get("tags"):
        head.append("  " + " ".join(f"#{safe(tag)}" for tag in value["tags"]), style="quiet")
    if value.get("superseded_by"):
        head.append(f"  superseded on {value['valid_to'][:10]} by {value['superseded_by']}", style="warn")
    elif value.get("valid_to"):
        head.append(f"  deleted on {value['valid_to'][:10]}", style="warn")
    return head


def call(value: Json, indent: str = "  ", most: int | None = None) -> Text:
    """A call that a model asked for, with its arguments."""
    shown = indented(f"→ {value['name']} {as_json(value['arguments'])}", indent, most)
    return shown.append(f"  {line(value['fault'])}", style="bad") if value["fault"] else shown


def passage(value: Json) -> RenderableType:
    """One passage in full, and where it came from."""
    source = [f"by {value['origin']}", value["message"] and f"from {value['message']}", value["run_id"]]
    facts = {
        "stored": " ".join(filter(None, source)),
        "about": safe(value["about"] or ""),
        "in place of": value["replaces"],
        "last found": when(value["last_used_at"]),
    }
    rows = [Text.assemble((f"  {name:<13}", "quiet"), fact) for name, fact in facts.items() if fact]
    return spaced([Group(_memory_head(value), indented(value["text"])), Group(*rows)])


def message(value: Json) -> RenderableType:
    """One message in full among its neighbours."""
    shown: list[RenderableType] = []
    for one in value["around"]:
        if one["id"] != value["message"]["id"]:
            said = one["text"] or ", ".join(made["name"] for made in one["calls"])
            shown.append(Text.assemble(_memory_head(one), "  ", (line(said, 45), "quiet")))
            continue
        shown.append(_memory_head(one))
        shown += [indented(text) for text in (one["reasoning"], one["text"]) if text]
        shown += [call(made) for made in one["calls"]]
        shown += [Text(f"  in {one['run_id']}", style="quiet")] if one["run_id"] else []
    return Group(*shown)


def versions(value: Json) -> RenderableType:
    """What each version of a block changed, newest first."""
    if not value["versions"]:
        return Text("no such versions", style="quiet")
    shown: list[RenderableType] = []
    for one in value["versions"]:
        source = " ".join(filter(None, [one["actor"], one["agent"] and line(one["agent"]), one["message"]]))
        head = Text.assemble((f"{one['id']:>5}", "name"), f"  {when(one['created_at'])}  {source}")
        head.append(f"  {number(one['characters'])} characters", style="quiet")
        head.append(f", as version {one['restores']} read" if one["restores"] else "", style="quiet")
        head.append("  current" if one["current"] else "", style="good")
        shown += [head, diff(one["changes"], indent="         ")] if one["changes"] else [head]
    return Group(*shown, *older(value))


def older(value: Json) -> list[Text]:
    """How a list goes on."""
    return [Text(f"older ones: --before {value['before']}", style="quiet")] if value["before"] else []


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
    return spaced(Group(*(_link(link, depth) for depth, link in enumerate(chain))) for chain in values)


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
        "answers": line(value["answers"] or "no model that can be used"),
        "created": when(value["created_at"]),
        "a turn may take": ", ".join(most),
        "tools": ", ".join(map(safe, value["tools"])) if value["tools"] is not None else "all",
        "used so far": usage_line(value["usage"]),
    }
    rows = [Text.assemble((f"  {name:<16}", "quiet"), text) for name, text in facts.items()]
    rows += [Text(f"  timer at {when(t['due_at'])}: {line(t['note'])}") for t in value["timers"]]
    return spaced([Group(agents([value]), *rows), *map(block, value["blocks"])])


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


def spaced(parts: Iterable[RenderableType]) -> Group:
    """The parts with an empty line between them."""
    shown: list[RenderableType] = []
    for part in parts:
        shown += [Text(""), part] if shown else [part]
    return Group(*shown)
