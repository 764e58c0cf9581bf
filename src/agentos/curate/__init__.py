"""What a person does to an agent's memory: look, edit, undo, ask why, bring in past conversations."""

from agentos.curate.blocks import (
    attach_block,
    change_block,
    delete_block,
    detach_block,
    edit_block,
    fitting,
    share_block,
)
from agentos.curate.imports import Imported, import_conversation
from agentos.curate.origins import PROVENANCE, Origin, why
from agentos.curate.passages import delete_passage, insert_passage, passage_id
from agentos.curate.taking_back import Undone, undo, undone_events

__all__ = [
    "PROVENANCE",
    "Imported",
    "Origin",
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
    "share_block",
    "undo",
    "undone_events",
    "why",
]
