"""Core memory: bounded blocks, edited by pure functions that refuse what they cannot do exactly."""

import difflib
import re
from collections.abc import Iterable

from agentos.errors import ToolError
from agentos.messages import Block

_OWN_TAG = re.compile(r"<(?=\s*/?\s*(?:block|core_memory)\b)", re.IGNORECASE)


class LimitExceeded(ToolError):
    """A write that would push a block beyond its limit; the block stays as it was."""


def find_block(blocks: Iterable[Block], label: str) -> Block:
    """The block with this label; `ToolError` names the labels there are."""
    blocks = list(blocks)
    for block in blocks:
        if block.label == label:
            return block
    labels = ", ".join(b.label for b in blocks) or "none"
    raise ToolError(f"there is no block {label!r}; the blocks are: {labels}")


def append(block: Block, content: str) -> str:
    """`block.value` with `content` as a new last line."""
    _writable(block)
    if not content.strip():
        raise ToolError("content is empty; give the text to append")
    return _within_limit(block, f"{block.value}\n{content}" if block.value else content)


def replace(block: Block, old_content: str, new_content: str) -> str:
    """`block.value` with the one occurrence of `old_content` replaced; an empty `new_content` deletes it."""
    _writable(block)
    if not old_content:
        raise ToolError("old_content is empty; give the exact text to replace, or use core_memory_append to add")
    place = block.value.find(old_content)
    if place < 0:
        raise ToolError(f"old_content does not occur in {block.label!r}, which reads:\n{block.value or '(empty)'}")
    if place != block.value.rfind(old_content):
        raise ToolError(
            f"old_content occurs more than once in {block.label!r}; give more of the text around it so that it "
            f"occurs once. The block reads:\n{block.value}"
        )
    before, after = block.value[:place], block.value[place + len(old_content) :]
    if not new_content and (not before or before.endswith("\n")) and (not after or after.startswith("\n")):
        # a deleted line takes one line break with it
        before, after = (before, after[1:]) if after else (before[:-1], after)
    return _within_limit(block, before + new_content + after)


def changed_lines(before: str, after: str) -> str:
    """The lines that differ, `- old` and `+ new`."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    return "\n".join(f"{line[0]} {line[1:]}" for line in list(lines)[2:] if not line.startswith("@@"))


def render(blocks: Iterable[Block]) -> str:
    """Core memory as the prompt shows it: no counters or times, so that equal memory gives equal bytes.

    A block's text is shown as it is, so that what a model copies from it is found again; only what would pass
    for one of the tags here has its `<` written as `&lt;`.
    """
    shown = []
    for block in blocks:
        read_only = ' read_only="true"' if block.read_only else ""
        about = f' description="{_quoted(block.description)}"' if block.description else ""
        value = _OWN_TAG.sub("&lt;", block.value)
        head = f'<block label="{_quoted(block.label)}" limit="{block.limit}"{read_only}{about}>'
        shown.append(f"{head}\n{value}\n</block>")
    return "<core_memory>\n" + "\n".join(shown) + "\n</core_memory>"


def _quoted(text: str) -> str:
    """`text` as the value of an attribute."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


def _writable(block: Block) -> None:
    if block.read_only:
        raise ToolError(f"block {block.label!r} is read-only; only a person can change it. Go on without this edit")


def _within_limit(block: Block, value: str) -> str:
    if len(value) > block.limit:
        raise LimitExceeded(
            f"block {block.label!r} would hold {len(value)} characters and its limit is {block.limit} "
            f"(now {len(block.value)}); cut or replace what is outdated in it, or keep the detail in archival memory"
        )
    return value
