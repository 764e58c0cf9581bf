"""Of a run: how many steps its input allows, and whether its sender waits for it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Two columns; runs of before have no limit of their own and were waited for."""
    op.add_column("run", sa.Column("max_steps", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True))
    op.add_column("run", sa.Column("background", sa.Boolean(), nullable=False, server_default=sa.false()))
