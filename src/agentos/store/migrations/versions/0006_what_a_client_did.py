"""The journal by client, turn and age; what tags a passage had."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Give the client's name, so far the end of a note, a column of its own; create the indexes and the table."""
    op.add_column("journal", sa.Column("client", sa.String(), nullable=True))
    database = op.get_bind()
    notes = database.exec_driver_sql("SELECT id, note FROM journal WHERE actor = 'client'").all()
    moved = []
    for event_id, note in notes:
        rest, _, client = f"; {note}".partition("; from ")  # a name may hold these words, too
        if client:
            moved.append({"event": event_id, "client": client, "rest": rest.removeprefix("; ")})
    if moved:
        change = sa.text("UPDATE journal SET client = :client, note = :rest WHERE id = :event")
        database.execute(change, moved)
    op.create_index("ix_journal_agent", "journal", ["agent_id", "id"])
    op.create_index("ix_journal_run", "journal", ["agent_id", "run_id", "id"])
    for name, columns, few in (
        ("client", ["agent_id", "client", "id"], "client"),
        ("undo", ["agent_id", "id"], "undo_of"),
    ):
        known = sa.text(f"{few} IS NOT NULL")
        op.create_index(f"ix_journal_{name}", "journal", columns, sqlite_where=known, postgresql_where=known)
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "passage_tags",
        sa.Column("id", number, primary_key=True),
        sa.Column("agent_id", sa.String(), nullable=False),
        sa.Column("before", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("after", sa.JSON(none_as_null=True), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_passage_tags_agent_id", "passage_tags", ["agent_id"])
