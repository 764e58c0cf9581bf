"""What a person does to an agent's memory: look, edit, undo, ask why, bring in past conversations."""

from agentos.curate.blocks import (
    BlockChanged,
    attach_block,
    change_block,
    delete_block,
    detach_block,
    edit_block,
    fitting,
    restore_block,
    share_block,
)
from agentos.curate.imports import Imported, import_conversation
from agentos.curate.origins import PROVENANCE, Origin, source_chain, why
from agentos.curate.passages import delete_passage, insert_passage, passage_id
from agentos.curate.sources import Source
from agentos.curate.taking_back import Undone, undo, undo_all, undoable, undone_events

__all__ = [
    "PROVENANCE",
    "BlockChanged",
    "Imported",
    "Origin",
    "Source",
    "Undone",
    "attach_block",
    "change_block",
    "delete_block",
    "delete_passage",
    "detach_block",
    "edit_block",
    "fitting",
    "import_conversation",
    "insert_passage",
    "passage_id",
    "restore_block",
    "share_block",
    "source_chain",
    "undo",
    "undo_all",
    "undoable",
    "undone_events",
    "why",
]
