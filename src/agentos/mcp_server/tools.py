"""The tools, named for what a caller wants; thin over `curate`, `values` and the search."""

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from agentos import curate, values
from agentos.errors import PendingApproval, ProviderError, ToolError
from agentos.memory import core
from agentos.memory.agent_memory import AgentMemory
from agentos.messages import Block, clean_text, read_time
from agentos.protocols import SearchQuery
from agentos.runtime import Runtime
from agentos.state import AgentRecord

Json = dict[str, Any]
EXCERPT = 2000
"""Characters of a memory that a result shows; its resource has the rest."""
_MOST_CHARS = 100_000
_MEMORY_EVENTS = ("block.", "passage.", "undo.", "import")

Text = Annotated[str, Field(min_length=1, max_length=_MOST_CHARS)]
Tags = Annotated[list[Annotated[str, Field(max_length=100)]] | None, Field(max_length=20)]
When = Annotated[str | None, Field(max_length=40)]


@dataclass(frozen=True)
class Caller:
    """Who calls, and the agent whose memory it is about."""

    runtime: Runtime
    agent: AgentRecord
    client: str
    send: Callable[[str, str, str], Awaitable[Any]]

    @property
    def memory(self) -> AgentMemory:
        """What finds and embeds."""
        return self.runtime.memory(self.agent.id)

    def time(self, name: str, text: str | None) -> datetime | None:
        """An ISO date or time; a bare end date includes its whole day."""
        if not text:
            return None
        try:
            return read_time(text, self.runtime.clock.now(), end=name not in ("start", "since"))
        except ValueError:
            raise ToolError(f"{name} is {text!r}, which is no ISO date; write it like 2026-05-08") from None


class Tool(BaseModel):
    """A call with its arguments; what a model reads of it is the docstring and the fields' descriptions."""

    model_config = ConfigDict(extra="forbid")
    writes: ClassVar[bool] = True
    """Whether it can change what the agent knows."""
    hints: ClassVar[Json] = {}

    agent: Annotated[
        str | None, Field(max_length=200, description="Whose memory; not needed where it is one agent's.")
    ] = None

    @abstractmethod
    async def run(self, caller: Caller) -> Json:
        """Do it; JSON values."""

    @classmethod
    def described(cls) -> Json:
        """The tool as the protocol lists it."""
        hints = {"read_only_hint": not cls.writes, "open_world_hint": False, "destructive_hint": False, **cls.hints}
        schema = _without_titles(cls.model_json_schema())
        schema.pop("description", None)
        return {
            "name": _name(cls),
            "description": " ".join((cls.__doc__ or "").split()),
            "input_schema": schema,
            "annotations": hints,
        }


class Remember(Tool):
    """Store a fact in the agent's long-term memory, where `recall` finds it.

    One fact a call, which can be understood on its own, with names and dates.
    """

    content: Text = Field(description="The fact.")
    tags: Tags = Field(None, description="Words to filter by later.")
    source: Annotated[str | None, Field(max_length=200)] = Field(
        None, description="Where it is from: who said it, a file, a URL."
    )
    confidence: Annotated[float | None, Field(ge=0, le=1)] = Field(None, description="How sure you are of it, 0 to 1.")
    hints: ClassVar[Json] = {"idempotent_hint": True}

    async def run(self, caller: Caller) -> Json:
        """Insert; equal text is the passage that is there."""
        return await _insert(caller, self.content, self.tags or (), self.source, self.confidence)


class Recall(Tool):
    """Search what the agent knows, by words and by meaning; the best hits, newest first."""

    query: Annotated[str, Field(min_length=1, max_length=10_000)] = Field(description="What to look for.")
    scope: Literal["archival", "recall", "all"] = Field(
        "all", description="archival: stored facts; recall: past messages; all: both."
    )
    tags: Tags = Field(None, description="Only facts with one of these tags; leaves messages out.")
    start: When = Field(None, description="Only from this ISO date or time on.")
    end: When = Field(None, description="Only up to this ISO date or time, included.")
    as_of: When = Field(None, description="Facts that were valid at this ISO date or time instead of now.")
    include_superseded: bool = Field(False, description="Also facts whose place another took; they are marked.")
    limit: Annotated[int, Field(ge=1, le=50)] = Field(10, description="Hits of each kind.")
    writes: ClassVar[bool] = False

    async def run(self, caller: Caller) -> Json:
        """Hybrid search of one scope or both."""
        scopes: Sequence[Literal["archival", "recall"]] = (
            ("archival", "recall") if self.scope == "all" else (self.scope,)
        )
        if self.tags:
            scopes = [scope for scope in scopes if scope == "archival"]
        found = []
        for scope in scopes:
            hits = await caller.runtime.search(caller.agent.id, self._query(caller, scope))
            found += [{"in": scope, **_clipped(values.hit_value(hit), "text")} for hit in hits]
        return {"hits": found}

    def _query(self, caller: Caller, scope: Literal["archival", "recall"]) -> SearchQuery:
        return SearchQuery(
            clean_text(self.query), scope, tags=tuple(self.tags or ()), start=caller.time("start", self.start),
            end=caller.time("end", self.end), limit=self.limit, now=caller.runtime.clock.now(),
            as_of=caller.time("as_of", self.as_of), include_superseded=self.include_superseded,
        )  # fmt: skip


class ReadCoreMemory(Tool):
    """Read the agent's core memory: the short texts it always has in view, such as who the user is."""

    label: Annotated[str | None, Field(max_length=200)] = Field(None, description="Only this block.")
    writes: ClassVar[bool] = False

    async def run(self, caller: Caller) -> Json:
        """The blocks with their versions and limits."""
        return await caller.runtime.store.read(lambda tx: values.memory_value(tx, caller.agent, self.label))


class UpdateMemory(Tool):
    """Put a memory right.

    The content takes the place of a stored fact (p12) from now on, and both are kept. To a block of core memory it is
    added as a line, or takes the place of old_content.
    """

    target: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        description="The id of a fact, such as p12, or the label of a block."
    )
    content: Annotated[str, Field(max_length=_MOST_CHARS)] = Field(
        description="The new text; with old_content it may be empty, which deletes that."
    )
    old_content: Annotated[str | None, Field(max_length=_MOST_CHARS)] = Field(
        None, description="Of a block: the exact text to replace; it occurs once."
    )
    expected_version: Annotated[int | None, Field(ge=0)] = Field(
        None, description="Of a block: the version you read; where it changed since, nothing is done."
    )
    tags: Tags = Field(None, description="Of a fact: its tags; without, those of the old one.")
    source: Annotated[str | None, Field(max_length=200)] = Field(None, description="Of a fact: where it is from.")
    confidence: Annotated[float | None, Field(ge=0, le=1)] = Field(
        None, description="Of a fact: how sure you are of it."
    )

    async def run(self, caller: Caller) -> Json:
        """A new passage that supersedes, or an edit of a block."""
        if self.target[:1] == "p" and self.target[1:].isdigit():
            if self.old_content is not None or self.expected_version is not None:
                raise ToolError(
                    f"{self.target} is a fact, which is replaced as a whole; leave out old_content and version"
                )
            return await self._supersede(caller)
        if self.tags or self.source or self.confidence is not None:
            raise ToolError(f"{self.target!r} is a block, which has no tags, source or confidence; leave them out")
        return await self._edit(caller)

    async def _supersede(self, caller: Caller) -> Json:
        number = curate.passage_id(self.target)
        old = await caller.memory.passages([number])
        kept = [tag for passage in old for tag in passage.tags if not tag.startswith(curate.PROVENANCE)]
        tags = kept if self.tags is None else self.tags
        return await _insert(caller, self.content, tags, self.source, self.confidence, replaces=number)

    async def _edit(self, caller: Caller) -> Json:
        text, old = clean_text(self.content), self.old_content

        def edited(block: Block) -> str:
            if self.expected_version not in (None, block.version_id):
                raise ToolError(
                    f"block {block.label!r} is at version {block.version_id}, not {self.expected_version}, and was "
                    f"left as it is; it reads:\n{block.value or '(empty)'}"
                )
            return core.append(block, text) if old is None else core.replace(block, clean_text(old), text)

        turn = await (await caller.runtime.agent_of(caller.agent.id)).turn()
        before, after = await curate.edit_block(caller.runtime.store, turn, self.target, edited, client=caller.client)
        return {
            "label": after.label, "version": after.version_id, "characters": len(after.value), "limit": after.limit,
            "changes": core.changed_lines(before.value, after.value),
        }  # fmt: skip


class Forget(Tool):
    """End a stored fact: no search finds it any more. The agent's owner can bring it back."""

    id: Annotated[str, Field(max_length=20)] = Field(description="The fact's id, such as p12.")
    hints: ClassVar[Json] = {"destructive_hint": True}

    async def run(self, caller: Caller) -> Json:
        """End a passage's validity."""
        store, clock = caller.runtime.store, caller.runtime.clock
        gone = await curate.delete_passage(store, clock, caller.agent.id, curate.passage_id(self.id), caller.client)
        return {"id": gone.ref, "forgotten": True, "text": gone.text[:EXCERPT]}


class Ask(Tool):
    """Ask the agent itself and wait for its reply.

    It thinks, searches its memory and may change it; that takes seconds to minutes.
    """

    message: Text = Field(description="What you say to it.")

    async def run(self, caller: Caller) -> Json:
        """A turn of the agent."""
        try:
            result = await caller.send(caller.agent.id, self.message, caller.client)
        except PendingApproval:  # the owner's to decide; a client's message does not refuse what waits
            raise ToolError("the agent waits for its owner's approval of a call; ask again later") from None
        if result is None:
            raise ToolError(
                "the agent waits for its owner's approval of an earlier call; the message is saved and will be "
                "answered after it: do not send it again, ask for the answer later"
            )
        if result.stop_reason == "llm_error":
            raise ProviderError(f"the agent's model failed: {result.error}; ask again later")
        waits = {"waits_for_approval": [call["name"] for call in result.approvals]} if result.approvals else {}
        return {"reply": result.reply, "run_id": result.run_id, "stop_reason": result.stop_reason, **waits}


class ListChanges(Tool):
    """What changed in the agent's memory: who, when, and the text before and after; oldest first."""

    after: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0, description="Only behind this event; `next` of the last page."
    )
    since: When = Field(None, description="Only from this ISO date or time on.")
    limit: Annotated[int, Field(ge=1, le=100)] = Field(50, description="Events on a page.")
    writes: ClassVar[bool] = False

    async def run(self, caller: Caller) -> Json:
        """A page of the journal."""
        since = caller.time("since", self.since)

        def work(tx: Any) -> list[Json]:
            return values.changes_value(tx, caller.agent.id, self.after, since, self.limit + 1, _MEMORY_EVENTS)

        found = await caller.runtime.store.read(work)
        page = [_clipped(event, "changes") for event in found[: self.limit]]
        return {"changes": page, "next": page[-1]["id"] if len(found) > self.limit else None}


def _name(tool: type[Tool]) -> str:
    """CamelCase as snake_case."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in tool.__name__).lstrip("_")


TOOLS = {_name(tool): tool for tool in (Remember, Recall, ReadCoreMemory, UpdateMemory, Forget, Ask, ListChanges)}
"""By the names that clients call."""


async def _insert(
    caller: Caller,
    content: str,
    tags: Sequence[str],
    source: str | None,
    confidence: float | None,
    replaces: int | None = None,
) -> Json:
    """A passage with its provenance in its tags."""
    told = [f"source:{' '.join(source.split())}"] if source and source.strip() else []
    told += [] if confidence is None else [f"confidence:{confidence:g}"]
    own = [tag for tag in tags if not tag.startswith(curate.PROVENANCE)]
    saved = await curate.insert_passage(
        caller.runtime.store, caller.runtime.clock, caller.memory, caller.agent.id, content, [*own, *told],
        replaces=replaces, client=caller.client,
    )  # fmt: skip
    superseded = {} if replaces in (None, saved.id) else {"supersedes": f"p{replaces}"}
    return {"id": saved.ref, "tags": list(saved.tags)} | superseded


def _clipped(value: Json, name: str) -> Json:
    """The value with a long text cut, and how long it is."""
    text = value[name]
    return value if len(text) <= EXCERPT else {**value, name: text[:EXCERPT], "characters": len(text)}


def _without_titles(schema: Any) -> Any:
    """The schema without pydantic's generated titles: fewer tokens, same meaning."""
    if isinstance(schema, dict):
        return {k: _without_titles(v) for k, v in schema.items() if not (k == "title" and isinstance(v, str))}
    return [_without_titles(item) for item in schema] if isinstance(schema, list) else schema
