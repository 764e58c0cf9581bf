"""The session database as the source of the vector index (`IndexSource`)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agentos.archive.sync import Change
from agentos.memory.vectors import stack, to_bytes
from agentos.store.database import Database

if TYPE_CHECKING:
    from agentos.protocols import Vectors


class SqlIndexSource:
    """Answers from the readers, writes through the writer; each call is a transaction of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def waiting(self, after: int = 0) -> dict[str, int]:
        """Agents with changes behind the mark `after`, each with the mark for the next call."""
        return await self._database.read(lambda tx: tx.outbox_agents(after))

    async def pending(self, agent_id: str, limit: int, after_id: int = 0) -> list[Change]:
        """The agent's changes above `after_id`, oldest first."""
        rows = await self._database.read(lambda tx: tx.outbox(agent_id, limit, after_id))
        return [Change(*row) for row in rows]  # type: ignore[arg-type]  # op is written as one of the two

    async def done(self, change_ids: Sequence[int]) -> None:
        """Forget these changes."""
        await self._database.write(lambda tx: tx.outbox_done(change_ids))

    async def texts(self, agent_id: str, passage_ids: Sequence[int], fingerprint: str) -> list[tuple[int, str]]:
        """(id, text) of those passages that are valid and not embedded."""
        return await self._database.read(
            lambda tx: tx.unembedded(fingerprint, ids=passage_ids)  # an agent's outbox names its own passages only
        )

    async def unembedded(self, fingerprint: str, limit: int, after_id: int = 0) -> list[tuple[int, str]]:
        """(id, text) of all valid passages that are not embedded, by id."""
        return await self._database.read(lambda tx: tx.unembedded(fingerprint, limit, after_id))

    async def save_embeddings(self, fingerprint: str, ids: Sequence[int], vectors: "Vectors") -> None:
        """Keep vectors with their passages."""
        rows = [(key, to_bytes(vector)) for key, vector in zip(ids, vectors, strict=True)]
        await self._database.write(lambda tx: tx.save_embeddings(fingerprint, rows))

    async def vectors(
        self, agent_id: str, fingerprint: str, *, ids: Sequence[int] | None = None, after_id: int = 0, limit: int = -1
    ) -> "tuple[list[int], Vectors]":
        """The agent's embedded passages as (ids, (n, d) float32), by id."""

        def work(tx: Any) -> "tuple[list[int], Vectors]":  # stacked here, off the event loop
            rows = tx.vectors(agent_id, fingerprint, ids=ids, after_id=after_id, limit=limit)
            return [key for key, _ in rows], stack([vector for _, vector in rows])

        return await self._database.read(work)

    async def embedded_ids(self, agent_id: str, fingerprint: str) -> list[int]:
        """The ids of the agent's embedded passages."""
        return await self._database.read(lambda tx: tx.embedded_ids(agent_id, fingerprint))

    async def agents(self, fingerprint: str) -> list[tuple[str, int]]:
        """Every agent that has embedded passages, with their number."""
        return await self._database.read(lambda tx: tx.embedded_counts(fingerprint))
