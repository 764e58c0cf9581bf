"""Models and tags: what agents can be made with and found by."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel

from agentos.errors import AgentOSError
from agentos.llm.detect import OFFLINE
from agentos.runtime import Runtime
from agentos.server.letta.fields import Json
from agentos.server.letta.paging import Page
from agentos.server.replies import answer
from agentos.server.service import Serving

router = APIRouter()
_MOST_MODELS = 50


async def model_facts(runtime: Runtime, model: str | None) -> Json:
    """A model's `name`, `provider` and `window` (tokens); one that cannot be had has a window of 0."""

    def look() -> Json:  # which may load a library, or ask a server on this machine
        try:
            llm = runtime.llm(model)
            return {"name": llm.name, "provider": llm.provider.partition("@")[0], "window": llm.context_window}
        except AgentOSError:
            return {"name": model or "", "provider": "unknown", "window": 0}

    return await asyncio.to_thread(look)


def model_value(facts: Json) -> Json:
    """A model in Letta's shape."""
    return {
        "name": facts["name"], "display_name": facts["name"], "handle": facts["name"], "model": facts["name"],
        "model_type": "llm", "provider_type": facts["provider"], "provider_name": facts["provider"],
        "provider_category": "base", "model_endpoint_type": facts["provider"], "context_window": facts["window"],
        "max_context_window": facts["window"],
    }  # fmt: skip


class ModelQuery(BaseModel):
    """Which models."""

    provider_name: str | None = None
    provider_type: str | None = None


@router.get("/models/", tags=["models"])
async def list_models(query: Annotated[ModelQuery, Query()], serving: Serving) -> Response:
    """The home's model, those that most of its agents have, and the built-in one; any other that works, works too."""
    names: list[str] = await serving.store.read(lambda tx: tx.agent_models(_MOST_MODELS))
    found = {(await model_facts(serving.runtime, name))["name"]: name for name in (None, *names, OFFLINE)}
    facts = [await model_facts(serving.runtime, name) for name in found.values()]
    wanted = {given for given in (query.provider_name, query.provider_type) if given is not None}
    return answer([model_value(f) for f in facts if wanted <= {f["provider"]}])


@router.get("/models/embedding", tags=["models"])
async def list_embedding_models(serving: Serving) -> Response:
    """The one embedder of the home."""
    embedder = serving.runtime.embedder
    kind, _, size = embedder.name.partition(":")[0], "", embedder.fingerprint.rpartition(":")[2]
    value = {
        "name": embedder.name, "display_name": embedder.name, "handle": embedder.name, "model_type": "embedding",
        "embedding_model": embedder.name, "embedding_dim": int(size) if size.isdecimal() else 0,
        "provider_type": kind, "provider_name": kind, "embedding_endpoint_type": kind,
    }  # fmt: skip
    return answer([value])


class TagQuery(Page):
    """Which tags; `after` and `before` are tags themselves."""

    name: str | None = None
    query_text: str | None = None


@router.get("/tags", tags=["tags"])
async def list_tags(query: Annotated[TagQuery, Query()], serving: Serving) -> Response:
    """The tags that agents have, by name."""
    text = (query.name or query.query_text or "").lower()
    tags: list[str] = await serving.store.read(lambda tx: tx.agent_tags())
    found = [{"id": tag} for tag in tags if text in tag.lower()]
    return answer([value["id"] for value in query.cut(found, 50, ascending=True)])
