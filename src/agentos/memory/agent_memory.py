"""What one agent's tools may look up, and what stores a text in its archival memory embeds it with."""

from agentos.errors import AgentOSError
from agentos.memory.search import HybridSearch
from agentos.memory.vectors import to_bytes
from agentos.messages import Message, Passage
from agentos.protocols import Embedder, Hit, SearchQuery, Store


class AgentMemory:
    """`MemoryPort` over one home."""

    def __init__(
        self, store: Store, search: HybridSearch, embedder: Embedder, agent_id: str, run_id: str | None = None
    ) -> None:
        self._store, self._search, self._embedder = store, search, embedder
        self._agent_id, self._run_id = agent_id, run_id

    async def search(self, query: SearchQuery) -> list[Hit]:
        """Hybrid search without the running turn's own messages."""
        return await self._search(self._agent_id, query, not_run=self._run_id)

    async def embed(self, text: str) -> tuple[bytes, str] | None:
        """A vector at once, where the embedder lives in this process and works."""
        if not self._embedder.in_process:
            return None
        try:
            return to_bytes((await self._embedder.embed([text]))[0]), self._embedder.fingerprint
        except AgentOSError:
            return None  # the outbox tries again; full text finds the passage meanwhile

    async def messages(self, ids: list[int]) -> list[Message]:
        """Messages by id."""
        return await self._store.read(lambda tx: tx.messages(self._agent_id, ids))

    async def passages(self, ids: list[int]) -> list[Passage]:
        """Passages by id."""
        return await self._store.read(lambda tx: tx.passages(self._agent_id, ids))
