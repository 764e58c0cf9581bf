"""What was decided of calls that waited for approval, and which tools ask."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the two columns."""
    op.add_column("run", sa.Column("decisions", sa.JSON(), nullable=True))
    op.add_column("tool", sa.Column("approval", sa.String(), nullable=False, server_default="always"))
