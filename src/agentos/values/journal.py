"""The journal and the chains of `why`, as plain JSON."""

from datetime import datetime
from typing import Any

from agentos.curate import Origin, Source, Undone, undoable, undone_events
from agentos.memory import core
from agentos.values.plain import Json, local

KINDS: dict[str, tuple[str, ...]] = {
    "memory": ("block.", "passage.", "undo.", "import", "page_out"),
    "block": ("block.", "undo.block"),
    "passage": ("passage.", "undo.passage", "undo.tags"),
    "undo": ("undo.",),
    "import": ("import",),
    "page_out": ("page_out",),
}
"""Kinds of events that can be asked for: how their actions begin. `memory` is all that changes what an agent knows."""
_OF_TAGS = ("passage.tag", "undo.tags")
ACTORS = ("agent", "user", "client", "import", "runtime")


def history_value(
    tx: Any,
    agent_id: str,
    limit: int,
    target: str | None = None,
    *,
    actor: str | None = None,
    kind: str | None = None,
    source: Source | None = None,
    before: int | None = None,
) -> list[Json]:
    """The journal, newest first, with the lines each event changed.

    Of one `target` (a block's label, or an id such as `p3`), one of `ACTORS`, one of `KINDS`, one source, and what is
    older than the event `before`.
    """
    labels = {f"b{b.id}": b.label for b in tx.blocks(agent_id)}
    target = next((ref for ref, known in labels.items() if known == target), target)
    equal = {"actor": actor, **(source.events_of(tx, agent_id) if source else {})}
    actions = KINDS[kind] if kind else ()
    events = tx.events(agent_id, target, actions, limit, before=before, **equal)
    if not events:
        return []
    return _event_values(tx, agent_id, events, labels, undone_events(tx.undos(agent_id, events[-1]["id"])))


def changes_value(
    tx: Any, agent_id: str, after: int, since: datetime | None, limit: int, actions: tuple[str, ...] = ()
) -> list[Json]:
    """What the journal says happened behind the event `after` and from `since` on, oldest first."""
    labels = {f"b{b.id}": b.label for b in tx.blocks(agent_id)}
    events = tx.events_since(agent_id, after, since, limit, actions)
    undone = undone_events(tx.undos(agent_id, events[0]["id"])) if events else set()
    return _event_values(tx, agent_id, events, labels, undone)


def _event_values(tx: Any, agent_id: str, events: list[Json], labels: dict[str, str], undone: set[int]) -> list[Json]:
    calls = {c.id: c.name for m in tx.messages(agent_id, _ids(events, "message_id")) for c in m.calls}
    changes = _changes(tx, agent_id, events)
    return [
        _event_value(event, labels, undone, calls.get(event["call_id"]), changes.get(event["id"], ""))
        for event in events
    ]


def history_page(tx: Any, agent_id: str, limit: int, *args: Any, **filters: Any) -> Json:
    """A page of `history_value`: {"events", "before"}; the latter goes on behind it, and is None at the end."""
    events = history_value(tx, agent_id, limit + 1, *args, **filters)
    return {"events": events[:limit], "before": events[limit - 1]["id"] if len(events) > limit else None}


def _event_value(event: Json, labels: dict[str, str], undone: set[int], tool: str | None, changes: str) -> Json:
    target = "" if event["target"] == event["agent_id"] else event["target"]
    return {
        "id": event["id"], "created_at": local(event["created_at"]), "actor": event["actor"],
        "client": event["client"], "action": event["action"], "target": labels.get(target, target),
        "target_id": target or None, "note": event["note"], "run_id": event["run_id"],
        "message": f"m{event['message_id']}" if event["message_id"] else None, "call_id": event["call_id"],
        "tool": tool, "undo_of": event["undo_of"], "undone": event["id"] in undone,
        "undoable": undoable(event) and event["id"] not in undone, "changes": changes,
    }  # fmt: skip


def _changes(tx: Any, agent_id: str, events: list[Json]) -> dict[int, str]:
    """`- old` and `+ new` lines of the memory events among `events`, by their ids."""
    blocks = [e for e in events if e["target"][:1] == "b" and e["after_id"]]
    tagged = [e for e in events if e["action"] in _OF_TAGS and e["after_id"]]
    passages = [e for e in events if e["target"][:1] == "p" and e["action"] not in _OF_TAGS and e["after_id"]]
    versions = tx.versions({*_ids(blocks, "before_id"), *_ids(blocks, "after_id")})
    texts = {p.ref: p.text for p in tx.passages(agent_id, [int(e["target"][1:]) for e in passages])}
    tags = tx.tag_changes(_ids(tagged, "after_id"))
    found = {e["id"]: core.changed_lines(*map("\n".join, tags[e["after_id"]])) for e in tagged}
    for event in blocks:
        before, after = (versions.get(event[end], {"value": ""})["value"] for end in ("before_id", "after_id"))
        found[event["id"]] = core.changed_lines(before, after)
    for event in passages:
        removed = event["action"] in ("passage.delete", "passage.supersede") or event["note"] == "ended"
        if event["target"] in texts:
            lines = texts[event["target"]].split("\n")
            found[event["id"]] = "\n".join(f"{'-' if removed else '+'} {line}" for line in lines)
    return found


def _ids(events: list[Json], name: str) -> list[int]:
    return list({event[name] for event in events if event[name]})


def undone_value(undone: Undone) -> Json:
    """What was taken back."""
    changes = core.changed_lines(undone.before, undone.after)
    return {"event_id": undone.event_id, "action": undone.action, "changes": changes}


def chain_value(chain: list[Origin]) -> list[Json]:
    """One chain of `why`, from the memory back to the words it came from."""
    return [
        {"what": o.what, "id": o.ref or None, "created_at": local(o.when), "text": o.text, "about": o.about}
        for o in chain
    ]
