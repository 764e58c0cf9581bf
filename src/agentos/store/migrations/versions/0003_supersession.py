"""A passage can take another's place."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the links between passages, both ways."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    for name in ("replaces", "superseded_by"):
        op.add_column("passage", sa.Column(name, number, nullable=True))
    linked = sa.text("superseded_by IS NOT NULL")
    op.create_index("ix_passage_superseded", "passage", ["superseded_by"], sqlite_where=linked, postgresql_where=linked)
