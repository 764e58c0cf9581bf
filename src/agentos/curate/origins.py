"""Why an agent holds a memory: the chain from the block or passage back to the words it came from."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agentos.curate.sources import Source
from agentos.curate.taking_back import original
from agentos.messages import Block, Message, Passage, clean_text
from agentos.protocols import Store

PROVENANCE = ("source:", "confidence:")
"""What the tags begin with that tell where a program has a memory from, and how sure it is of it."""


@dataclass(frozen=True)
class Origin:
    """One link of the chain from a memory back to the words it came from."""

    what: str
    when: datetime | None
    text: str
    ref: str = ""
    about: str | None = None
    """Of a memory: whose words led to it, where somebody spoke."""


async def why(store: Store, agent_id: str, what: str) -> list[list[Origin]]:
    """For a passage (`p3`), a block's label, or any words in core memory or archival memory: where they came from.

    One chain for each memory that was found, from the memory back to the user's words; empty when nothing is known.
    """

    def work(tx: Any) -> list[list[Origin]]:
        chains = [_block_chain(tx, agent_id, b, what) for b in tx.blocks(agent_id) if _concerns(b, what)]
        chains += [_passage_chain(tx, agent_id, p) for p in _passages_about(tx, agent_id, what)]
        return [chain for chain in chains if chain]

    return await store.read(work)


def source_chain(tx: Any, agent_id: str, source: Source) -> list[Origin]:
    """What a source of memory events is, back to the words that led to it: the tool call or message, and its turn's."""
    if source.client is not None:
        return [Origin(f"written by the client {source.client!r}", None, "")]
    if source.imported:
        return [Origin("it was imported", None, "")]
    message, run_id, chain = None, source.run_id, []
    if source.message_id is not None:
        message = source.message(tx, agent_id)
        run_id = message.run_id
        if message.role != "user":
            chain.append(_written(message, source.call_id))
    before = message.id if message and message.role != "user" else None
    said = tx.run_messages(run_id) if run_id else []
    return chain + _because([m for m in said if m.agent_id == agent_id], before)


def _concerns(block: Block, what: str) -> bool:
    return block.label == what or (len(what) > 2 and what.lower() in block.value.lower())


def _passages_about(tx: Any, agent_id: str, what: str) -> list[Passage]:
    if what[:1] == "p" and what[1:].isdigit() and len(what) < 17:
        found: list[Passage] = tx.passages(agent_id, [int(what[1:])])
        return found
    if len(what) <= 2:
        return []
    found = tx.passage_page(agent_id, False, None, None, 5, text=clean_text(what))
    if found or what.isascii():
        return found
    # the database may tell "É" from "é"
    return [p for p in tx.recent_passages(agent_id, limit=2000) if what.lower() in p.text.lower()][:5]


def _block_chain(tx: Any, agent_id: str, block: Block, what: str) -> list[Origin]:
    """The version that brought the words in, and what led to it."""
    versions = tx.block_versions(block.id)
    words = "" if block.label == what else what.lower()
    born = next((v for v in versions if words and _holds_since(versions, v, words)), versions[-1])
    if words not in born["value"].lower():
        return []
    born = next(v for v in versions if v["id"] == original(born))  # what an undo brought back was written before
    head = Origin(f"block {block.label!r}", born["created_at"], block.value, f"b{block.id}", born["about"])
    if born["origin"] == "client" and born["agent_id"] == agent_id:
        return [head, _client(tx, agent_id, head.ref, born["id"])]
    return [head, *_causes(tx, agent_id, born)]


def _holds_since(versions: list[dict[str, Any]], since: dict[str, Any], words: str) -> bool:
    """Whether every version from `since` on holds the words."""
    return all(words in v["value"].lower() for v in versions if v["id"] >= since["id"])


def _passage_chain(tx: Any, agent_id: str, passage: Passage) -> list[Origin]:
    """The passage, what led to it, and the same of each passage whose place it took."""
    chain, waiting = _passage_links(tx, agent_id, passage, "passage"), [passage]
    while waiting:
        replaced = tx.superseded(agent_id, waiting.pop().id)
        for old in replaced:
            chain += _passage_links(tx, agent_id, old, "in place of a passage")
        waiting += reversed(replaced)
    return chain


def _passage_links(tx: Any, agent_id: str, passage: Passage, what: str) -> list[Origin]:
    if passage.superseded_by is not None and passage.valid_to is not None:
        what += f", superseded on {passage.valid_to.astimezone():%Y-%m-%d} by p{passage.superseded_by}"
    head = Origin(what, passage.created_at, passage.text, passage.ref, passage.about)
    if passage.origin == "client":
        return [head, _client(tx, agent_id, passage.ref, passage.id, passage.tags)]
    row = {
        "agent_id": agent_id,
        "origin": passage.origin,
        "message_id": passage.message_id,
        "run_id": passage.run_id,
        "call_id": passage.call_id,
    }
    return [head, *_causes(tx, agent_id, row)]


def _client(tx: Any, agent_id: str, target: str, after: int, tags: Sequence[str] = ()) -> Origin:
    """The program that wrote a memory, and what it said of where that is from."""
    events = tx.events(agent_id, target, limit=1000)
    event = next((e for e in reversed(events) if e["actor"] == "client" and e["after_id"] == after), None)
    name = event["client"] if event else "unknown"
    provenance = "; ".join(tag.replace(":", ": ", 1) for tag in tags if tag.startswith(PROVENANCE))
    return Origin(f"written by the client {name!r}", event and event["created_at"], provenance)


def _causes(tx: Any, agent_id: str, row: dict[str, Any]) -> list[Origin]:
    """The call that wrote a memory, and the message that began its turn; what others said to others stays theirs."""
    writer = tx.agent(row["agent_id"]) if row["agent_id"] not in (agent_id, None) else None
    if writer is not None:
        return [Origin(f"written by agent {writer.name!r}, which shares the block", row["created_at"], "")]
    if row["message_id"] is None:
        who = {"user": "a person wrote it", "runtime": "it came with the persona", "import": "it was imported"}
        return [Origin(who.get(row["origin"], row["origin"]), None, "")]
    chain = [_written(message, row["call_id"]) for message in tx.messages(agent_id, [row["message_id"]])]
    return chain + _because(tx.run_messages(row["run_id"]), row["message_id"])


def _written(message: Message, call_id: str | None) -> Origin:
    """A message of the agent, or one of its calls."""
    call = next((c for c in message.calls if c.id == call_id), None)
    text = f"{call.name} {call.arguments}" if call else message.content
    return Origin("written by the agent", message.created_at, text, message.ref)


def _because(said: Sequence[Message], before: int | None) -> list[Origin]:
    """What led to a turn, as far as it was said before the message `before`."""
    spoken = [m for m in said if m.role == "user" and (before is None or m.id < before)]
    return [Origin(f"because of the {m.origin}'s message", m.created_at, m.content, m.ref) for m in spoken]
