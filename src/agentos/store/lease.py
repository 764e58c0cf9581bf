"""An agent's turn, held across machines: a lease in the agent's row.

Its epoch grows each time somebody else takes it. Every commit of a turn names the epoch it was begun with, so
that a worker taken for dead cannot write. The server's clock decides what has expired.
"""

from collections.abc import Iterable

import sqlalchemy as sa

from agentos.errors import LeaseLost
from agentos.store.rows import Rows

_TAKE = sa.text("""
UPDATE agent SET lease_owner = :owner, lease_epoch = lease_epoch + 1,
    lease_until = clock_timestamp() + make_interval(secs => :seconds)
WHERE id = (
    SELECT id FROM agent
    WHERE id = :agent_id AND (lease_owner IS NULL OR lease_owner = :owner OR lease_until < clock_timestamp())
    FOR UPDATE SKIP LOCKED
)
RETURNING lease_epoch
""")
_EXISTS = sa.text("SELECT 1 FROM agent WHERE id = :agent_id")
_EPOCH = sa.text("SELECT lease_epoch FROM agent WHERE id = :agent_id FOR UPDATE")
_RENEW = sa.text("""
UPDATE agent SET lease_until = clock_timestamp() + make_interval(secs => :seconds)
WHERE id = :agent_id AND lease_epoch = :epoch
""")
_LEASED = sa.text("""
SELECT id FROM agent WHERE id = ANY(:ids) AND lease_owner IS NOT NULL AND lease_until > clock_timestamp()
""")
_RELEASE = sa.text("UPDATE agent SET lease_owner = NULL WHERE id = :agent_id AND lease_epoch = :epoch")


class LeaseRows(Rows):
    """Statements on leases; all but `check_lease` are for a database that machines share."""

    def take_lease(self, agent_id: str, owner: str, seconds: float) -> int | None:
        """The new epoch, when the lease was free, expired or the owner's; None: another has it (0: no such agent)."""
        values = {"agent_id": agent_id, "owner": owner, "seconds": seconds}
        epoch: int | None = self.connection.execute(_TAKE, values).scalar()
        if epoch is None and self.connection.execute(_EXISTS, values).scalar() is None:
            return 0
        return epoch

    def renew_lease(self, agent_id: str, epoch: int, seconds: float) -> None:
        """Prolong it, unless it was lost."""
        self.connection.execute(_RENEW, {"agent_id": agent_id, "epoch": epoch, "seconds": seconds})

    def release_lease(self, agent_id: str, epoch: int) -> None:
        """Give it back, unless it was lost."""
        self.connection.execute(_RELEASE, {"agent_id": agent_id, "epoch": epoch})

    def leased(self, agent_ids: Iterable[str]) -> set[str]:
        """Those of the agents that some process holds."""
        found: set[str] = set(self.connection.execute(_LEASED, {"ids": list(agent_ids)}).scalars())
        return found

    def check_lease(self, agent_id: str, epoch: int | None) -> None:
        """Raise `LeaseLost` unless the lease is still of this epoch; then it stays so until the commit.

        None: the turn is held by other means.
        """
        if epoch is None:
            return
        if self.connection.execute(_EPOCH, {"agent_id": agent_id}).scalar() != epoch:
            raise LeaseLost(
                "another process took over this agent's turn, because this one was not heard of for too long; "
                "the message is saved and is answered there, so do not send it again"
            )
