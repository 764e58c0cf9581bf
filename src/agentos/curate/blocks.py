"""A person edits, shares and removes blocks of core memory."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from agentos.actions.turn import Turn
from agentos.curate.passages import by
from agentos.errors import Conflict, NotFound, UsageError
from agentos.memory import core
from agentos.messages import Block, Cause, clean_text
from agentos.protocols import Store


class BlockChanged(Conflict):
    """A block's text changed since the version that an edit was made from."""

    def __init__(self, message: str, block: Block) -> None:
        super().__init__(message)
        self.block = block
        """As it reads now."""


async def edit_block(
    store: Store,
    turn: Turn,
    label: str,
    value: str | Callable[[Block], str],
    expected: int | None = None,
    client: str = "",
) -> tuple[Block, Block]:
    """Rewrite a block as a person; the agent is told at its next step. Returns it (before, after).

    The limits that hold for the model hold here: beyond them is a `UsageError`. `expected` is the
    version the person saw: when the block changed since, it is left as it is (`BlockChanged`). A function as
    `value` gives the new text of the block as it then is. `client` names the program that does it.
    """
    agent_id = turn.state.agent.id

    def work(tx: Any) -> tuple[Block, Block]:
        blocks = tx.blocks(agent_id)
        block = next((b for b in blocks if b.label == label), None)
        if block is None:
            raise UsageError(f"there is no block {label!r}; the blocks are: {', '.join(b.label for b in blocks)}")
        text = clean_text(value(block) if callable(value) else value)
        if len(text) > block.limit:
            size = f"{len(text)} characters and its limit is {block.limit}"
            raise UsageError(f"block {label!r} would have {size}; shorten the text")
        _refuse_stale(block, expected)
        refuse_crowding(turn, tx, block, text)
        if text == block.value:
            return block, block
        return block, tx.write_block(block, text, by(agent_id, client), "block.edit")

    return await store.write(work)


async def share_block(store: Store, owner_id: str, label: str, receiver: Turn) -> Block:
    """Attach an agent's block to another agent too: both read and edit the one text. Returns the block.

    The receiver has it from its next step on. `UsageError` when the receiver has a block of that label,
    or when core memory would take more than half of its window.
    """

    def work(tx: Any) -> Block:
        block = core.find_block(tx.blocks(owner_id), label)
        _attach(tx, receiver, block)
        return block

    return await store.write(work)


async def attach_block(store: Store, block_id: int, receiver: Turn) -> None:
    """The same of any block by its id, `NotFound` when there is none. Nothing happens where the agent has it."""

    def work(tx: Any) -> None:
        block = _existing_block(tx, block_id)
        if all(b.id != block_id for b in tx.blocks(receiver.state.agent.id)):
            _attach(tx, receiver, block)

    await store.write(work)


async def change_block(
    store: Store, block_id: int, turn: Turn | None, expected: int | None = None, **values: Any
) -> Block:
    """Change a block as a person: `value`, `label`, `limit`, `description`, `read_only`, `tags`, `meta`. Returns it.

    All of it or nothing: `NotFound` when there is no such block, `UsageError` where its text would be longer than
    its limit, another block of an agent has the label, or core memory would take more than half of a window.
    `turn` is of an agent that has the block, None where none has it; agents that have it are told. `expected` is the
    version the person saw: `BlockChanged` when the block's text changed since.
    """

    def work(tx: Any) -> Block:
        before = _existing_block(tx, block_id)
        holders = tx.holders(block_id)
        if turn is None and holders:
            raise Conflict(f"block {before.label!r} was attached to an agent at this moment; change it again")
        _refuse_stale(before, expected)
        after = replace(before, **values)
        fitting(after)
        if after.label != before.label:
            for holder, name in holders.items():
                if any(b.label == after.label for b in tx.blocks(holder)):
                    raise UsageError(f"agent {name!r} has a block {after.label!r} already; choose another label")
        if turn is not None and len(core.render([after])) > len(core.render([before])):
            _refuse(turn.crowds_as(tx, after))
        cause = Cause(turn.state.agent.id if turn is not None else "", "user")
        rest = {name: v for name, v in values.items() if name != "value" and v != getattr(before, name)}
        if rest:
            before = tx.change_block(before, cause, **rest)
        if after.value != before.value:
            before = tx.write_block(before, after.value, cause, "block.edit")
        return before

    return await store.write(work)


async def restore_block(store: Store, turn: Turn, block_id: int, version_id: int, expected: int | None = None) -> Block:
    """Let a block of the turn's agent read as it did at one of its versions. Returns it; the same rules as an edit's.

    `NotFound` when the block has no such version.
    """
    agent_id = turn.state.agent.id

    def work(tx: Any) -> Block:
        block: Block | None = next((b for b in tx.blocks(agent_id) if b.id == block_id), None)
        version = tx.version(version_id)
        if block is None or version is None or version["block_id"] != block_id:
            raise NotFound(f"the agent has no version {version_id} of block b{block_id}")
        _refuse_stale(block, expected)
        fitting(replace(block, value=version["value"]))
        refuse_crowding(turn, tx, block, version["value"])
        if version["value"] == block.value:
            return block
        restored: Block = tx.write_block(
            block, version["value"], Cause(agent_id, "user"), "block.edit",
            restores=int(version["restores"] or version["id"]),
        )  # fmt: skip
        return restored

    return await store.write(work)


async def delete_block(store: Store, block_id: int) -> None:
    """Remove a block with every version of its text, from every agent that has it; `NotFound` when there is none."""

    def work(tx: Any) -> None:
        tx.delete_block(_existing_block(tx, block_id).id)

    await store.write(work)


async def detach_block(store: Store, agent_id: str, label: str, *, keep: bool = False) -> Block:
    """Take a shared block out of an agent's context; the others keep it. Returns the block.

    `UsageError` when no other agent has it, as its text would be out of reach; with `keep` it stays as nobody's.
    """

    def work(tx: Any) -> Block:
        block = core.find_block(tx.blocks(agent_id), label)
        tx.lock_block(block.id)
        if not keep and len(tx.holders(block.id)) == 1:
            raise UsageError(f"no other agent has block {label!r}, so its text would be out of reach; share it first")
        tx.detach_block(agent_id, block.id)
        tx.journal(Cause(agent_id, "user"), "block.detach", f"b{block.id}", before=block.version_id)
        return block

    return await store.write(work)


def fitting(block: Block) -> Block:
    """The block; `UsageError` where its text is longer than its limit."""
    if len(block.value) > block.limit:
        size = f"{len(block.value)} characters and its limit is {block.limit}"
        raise UsageError(f"block {block.label!r} would have {size}; shorten the text or raise the limit")
    return block


def _refuse_stale(block: Block, expected: int | None) -> None:
    if expected is not None and block.version_id != expected:
        raise BlockChanged(
            f"block {block.label!r} changed while you edited it and was left as it now is; look at it and edit it "
            "again", block,
        )  # fmt: skip


def _attach(tx: Any, receiver: Turn, block: Block) -> None:
    agent_id = receiver.state.agent.id
    tx.attach_block(agent_id, block.id)
    if crowded := receiver.crowding(tx.blocks(agent_id)):
        raise UsageError(crowded)
    tx.update_agent(agent_id, core_room=receiver.core_room())
    tx.journal(Cause(agent_id, "user"), "block.attach", f"b{block.id}", after=block.version_id)


def _existing_block(tx: Any, block_id: int) -> Block:
    block: Block | None = tx.block(block_id)
    if block is None:
        raise NotFound(f"there is no block {block_id}")
    return block


def refuse_crowding(turn: Turn, tx: Any, block: Block, text: str) -> None:
    """`UsageError` where core memory would take too much of an agent's window with this text in the block."""
    _refuse(turn.crowds(tx, block, text))


def _refuse(crowded: str | None) -> None:
    if crowded:
        raise UsageError(f"{crowded}; shorten core memory first")
