"""The ports of the kernel and their contracts. `agentos.testing` has a reference and a conformance suite for each."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from agentos.events import Retry
from agentos.messages import Block, Cause, Passage, Reply

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

T = TypeVar("T")


class Clock(Protocol):
    """Where the time comes from; tests hand in their own."""

    def now(self) -> datetime:
        """The current time, aware, in local time."""
        ...


@dataclass(frozen=True)
class LLMRequest:
    """One request to a model."""

    messages: list[dict[str, Any]]
    """In the chat completions format. The adapter must not change the list or its members."""
    tools: list[dict[str, Any]] = field(default_factory=list)
    """Function tools in the chat completions format."""
    max_tokens: int = 1024
    """Reserved for the reply."""
    cache_key: str = ""
    """Stable per agent: routes requests that share a prefix to the same cache."""
    previous_length: int = 0
    """How many of `messages` the agent's previous request already had, unchanged (0: none)."""


@dataclass(frozen=True)
class Delta:
    """A piece of a reply as it arrives; only `text` is shown to the user."""

    text: str = ""
    reasoning: str = ""


class LLM(Protocol):
    """A language model behind one provider.

    `stream` yields `Delta`s as text arrives, a `Retry` before each repeated request (only while
    nothing of the reply was yielded), and last, exactly once, the finished `Reply`. Call ids in
    the reply are non-empty; arguments that are not a JSON object come back as a call whose `error`
    says so and whose `arguments` are `{}`; nothing is guessed. It raises `ContextOverflow` when the
    provider says the request is too long, `ConfigError` for what only the caller can change (no such
    model, bad key, bad URL), and `ProviderError` for everything else after at most five requests.
    Closing the iterator cancels the request.
    """

    @property
    def name(self) -> str:
        """The model's name, as the user would set it."""
        ...

    @property
    def provider(self) -> str:
        """Who made a message's provider fields: they are replayed to this provider only."""
        ...

    @property
    def context_window(self) -> int:
        """Tokens of prompt and reply together."""
        ...

    @property
    def max_output_tokens(self) -> int:
        """Tokens reserved for the reply."""
        ...

    def count_tokens(self, text: str) -> int:
        """An estimate for `text`; never downloads, linear in the length of `text`."""
        ...

    def stream(self, request: LLMRequest) -> AsyncGenerator[Delta | Retry | Reply, None]:
        """The reply to `request`, as it arrives."""
        ...


class Embedder(Protocol):
    """Turns texts into vectors. Vectors of different fingerprints are never compared."""

    @property
    def name(self) -> str:
        """The name it was chosen by."""
        ...

    @property
    def fingerprint(self) -> str:
        """Names the weights and dimensions, such as `static:l2_supercat:256`."""
        ...

    @property
    def in_process(self) -> bool:
        """True: fast and local, called at once. False: remote, called from the outbox."""
        ...

    async def embed(self, texts: Sequence[str]) -> "Vectors":
        """(len(texts), d) float32, each row of length 1 (a zero row where a text has no known word).

        Raises `ProviderError` when a remote embedder fails.
        """
        ...


class VectorIndex(Protocol):
    """A rebuildable index of passage vectors: SQL holds the truth, one collection per agent.

    Collections come into being at their first `upsert`. Every method raises `IndexUnavailable` when
    the index cannot answer now; the caller then scans the vectors in SQL.
    """

    async def upsert(self, collection: str, ids: Sequence[int], vectors: "Vectors") -> None:
        """Add or replace; durable when it returns. Idempotent."""
        ...

    async def delete(self, collection: str, ids: Sequence[int]) -> None:
        """Remove; ids that are not there are ignored."""
        ...

    async def query(self, collection: str, vector: "Vectors", k: int) -> list[tuple[int, float]]:
        """The `k` nearest of `collection` to `vector` (d,), as (id, cosine similarity), best first.

        An unknown collection has no hits.
        """
        ...

    async def count(self, collection: str) -> int:
        """How many vectors the collection holds; 0 for an unknown one."""
        ...

    async def drop(self, collection: str) -> None:
        """Remove the collection; an unknown one is ignored."""
        ...

    async def close(self) -> None:
        """Let go of everything; later calls raise `IndexUnavailable`."""
        ...


class Tx(Protocol):
    """One open transaction of the session database, as tools' effects see it.

    An effect runs on the writer's thread and may not await. What it raises undoes all it did.
    """

    def blocks(self, agent_id: str) -> list[Block]:
        """The agent's blocks in order, as this transaction sees them."""
        ...

    def write_block(self, block: Block, value: str, cause: Cause, action: str) -> Block:
        """A new version of `block` holding `value`, with its journal row; returns the block as it is now."""
        ...

    def add_passage(self, passage: Passage, cause: Cause) -> tuple[Passage, bool]:
        """Insert, or unite tags with the first valid passage of equal text; (passage, whether it is new).

        What it `replaces` is superseded by it, or by the united one. `NotFound` where there is no such passage,
        `Conflict` where that is valid no more.
        """
        ...

    def add_timer(self, agent_id: str, due_at: datetime, note: str, cause: Cause) -> int:
        """A timer that wakes the agent at `due_at`; returns its id."""
        ...

    def journal(self, cause: Cause, action: str, target: str, note: str = "") -> int:
        """An event that changes no text itself; `note` is a code or number, never stored text."""
        ...


@dataclass(frozen=True)
class ToolResult:
    """What goes back to the model for one call."""

    text: str
    ok: bool = True
    sources: tuple[str, ...] = ()
    """Ids of the rows the text quotes."""


Effect = Callable[[Tx], ToolResult]
"""What a call changes; applied in the transaction that saves its result."""


class Search(Protocol):
    """Hybrid search over what an agent remembers (`agentos.memory.search` is the implementation)."""

    async def __call__(self, agent_id: str, query: "SearchQuery") -> "list[Hit]":
        """The best hits for one page, newest first."""
        ...


@dataclass(frozen=True)
class SearchQuery:
    """What to look for, and where."""

    text: str
    scope: Literal["recall", "archival"] = "archival"
    roles: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    """Any of these (passages)."""
    all_tags: bool = False
    """All of them instead."""
    start: datetime | None = None
    end: datetime | None = None
    """Both ends are included."""
    as_of: datetime | None = None
    """Passages that were valid at this time; None: that are valid now."""
    include_superseded: bool = False
    """Also passages that had been superseded by then."""
    limit: int = 10
    page: int = 0
    now: datetime | None = None
    """When it is asked, in the asker's zone: "a week ago" counts from here; None leaves such words alone."""


@dataclass(frozen=True)
class Hit:
    """One memory that a search found."""

    ref: str
    text: str
    created_at: datetime
    score: float
    """Higher is better, comparable within one search only; what holds an identifier of the query is above all else."""
    why: str
    """`lexical`, `vector`, `both`, `identifier`, or of a message also `nearby`: the talk around it holds the words."""
    role: str | None = None
    name: str | None = None
    tags: tuple[str, ...] = ()
    session: str | None = None
    external_id: str | None = None
    seq: int | None = None
    """For a message: its place in the queue, to tell a page fault."""
    local_time: datetime | None = None
    valid_to: datetime | None = None
    superseded_by: str | None = None
    """For a passage that is valid no more: since when, and which took its place."""


class Store(Protocol):
    """A session database: short transactions, no transaction spans an await."""

    def write(self, work: "Callable[[Any], T]") -> Awaitable[T]:
        """Run `work(tx)` on the writer and return its value once it is durable."""
        ...

    def read(self, work: "Callable[[Any], T]") -> Awaitable[T]:
        """Run `work(tx)` on a reader that sees the last commit."""
        ...
