"""What searches over HTTP share."""

from agentos.protocols import Hit, SearchQuery
from agentos.server.service import Service

MOST_AGENTS = 100
"""That are searched where none is named: each is a search of its own."""


async def search_agents(service: Service, agent_id: str | None, query: SearchQuery) -> list[tuple[str, Hit]]:
    """(agent id, hit), best first: of one agent, or of the `MOST_AGENTS` whose turns ended last.

    Each agent's best come before any one's second.
    """
    if agent_id is not None:
        agents = [(await service.agent_record(agent_id)).id]
    else:
        part = {"order_by": "last_run_completion", "ascending": False, "limit": MOST_AGENTS}
        agents = [record.id for record in await service.store.read(lambda tx: tx.agent_page(**part))]
    ranked: list[tuple[int, float, str, Hit]] = []
    for one in agents:
        hits = sorted(await service.runtime.search(one, query), key=lambda hit: -hit.score)
        ranked += [(rank, -hit.score, one, hit) for rank, hit in enumerate(hits)]
    ranked.sort(key=lambda item: item[:3])
    return [(one, hit) for _, _, one, hit in ranked[: query.limit]]
