"""What a model is writing at this moment, for pages that show a turn while it goes on."""

from typing import Any

from agentos.server.service import Service

NOTHING: dict[str, Any] = {"place": 0, "text": ""}


async def written(serving: Service, run_id: str, last: int) -> dict[str, Any]:
    """The text of a run's message that is not saved yet, and its place; `last` is the place of the last that is."""
    async with serving.dispatcher.feeds.follow(run_id) as feed:
        return {"place": feed.place, "text": feed.text} if feed.place > last else NOTHING
