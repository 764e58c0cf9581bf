"""Hybrid search: full text and vectors, fused by reciprocal rank.

Full text (FTS5, porter stems) finds words and identifiers; vectors find what was said in other
words. Passages have their vectors in the index, or in SQL while the index lags or is down; for
messages the vectors only re-rank what full text found, computed when asked (`docs/adr`).
"""

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from agentos.errors import AgentOSError, IndexUnavailable
from agentos.memory.vectors import nearest, to_bytes
from agentos.messages import Message, Passage
from agentos.protocols import Embedder, Hit, SearchQuery, Store, VectorIndex

if TYPE_CHECKING:
    from agentos.protocols import Vectors


FUSION_K = 10
"""Reciprocal rank fusion's constant; a small one trusts the top of each list."""
CANDIDATES = 100
"""Hits taken from each list before fusion."""
VECTOR_WEIGHT = 0.3
"""Weight of the vectors' ranking beside full text's; an equal one loses 2 to 5 points of recall on real talk."""
QUESTION_WEIGHT = 0.5
"""Weight of a message that only asks: it states nothing, but shares its words with the next one who asks."""
EXACT_BELOW = 1000
"""Passages up to which the exact scan is faster than the index."""
COMPARED = 5000
"""Passages waiting for the index that are compared directly; with more, all are scanned and it is not asked."""
_SCAN_CHUNK = 20_000

STOP_WORDS = frozenset(
    """a about after all also am an and any are as at be because been before being but by can could did do does doing
    for from had has have having he her here hers him his how i if in into is it its just me more most my no nor not
    of off on once only or our out over own s she should so some such t than that the their them then there these
    they this those through to too until up very was we were what when where which while who whom why will with
    would you your""".split()  # noqa: SIM905  a text reads better than 120 quoted words
)
_IDENTIFIER = re.compile(
    r"\d{5,}"  # an order number; four digits are a year
    r"|(?=\S*\d)(?=\S*[^\W\d])[\w-]{5,}"  # letters and digits: a UUID, a part number
    r"|\S*\w[@_/:.#]\w\S{2,}|\S+://\S+|#\d+"  # an address, a path, a name_like_this
)


Ranked = tuple[int, float, str]
"""(row id, score, why it ranked)."""


class HybridSearch:
    """Searches one home's memories; the implementation of `agentos.protocols.Search`.

    The index is asked only for agents with more than `exact_below` vectors.
    """

    def __init__(self, store: Store, embedder: Embedder, index: VectorIndex, exact_below: int = EXACT_BELOW) -> None:
        self.store = store
        self.embedder = embedder
        self.index = index
        self.exact_below = exact_below

    async def __call__(self, agent_id: str, query: SearchQuery, not_run: str | None = None) -> list[Hit]:
        """One page of hits, newest first; messages of the run `not_run` are left out.

        A query without a single word has no hits. Neither an embedder nor an index that fails stops a search.
        """
        terms, identifiers = query_terms(query.text)
        if not terms:
            return []
        wanted = max(CANDIDATES, (query.page + 1) * query.limit)
        if query.scope == "recall":
            found = await self._find_messages(agent_id, query, (terms, identifiers), wanted, not_run)
        else:
            found = await self._find_passages(agent_id, query, (terms, identifiers), wanted)
        return sorted(found, key=lambda hit: (hit.created_at, hit.ref), reverse=True)

    async def _find_messages(
        self, agent_id: str, q: SearchQuery, terms: tuple[list[str], list[str]], wanted: int, not_run: str | None
    ) -> list[Hit]:
        """Full text finds; vectors re-rank what it found; messages that only ask count less."""
        roles = q.roles or ("user", "assistant")

        def find(tx: Any) -> tuple[list[int], list[int], list[Message]]:
            lexical, exact = (
                tx.lexical_messages(agent_id, t, roles=roles, start=q.start, end=q.end, not_run=not_run, limit=wanted)
                for t in terms
            )
            return lexical, exact, tx.messages(agent_id, [*lexical, *exact])

        lexical, exact, messages = await self.store.read(find)
        asks = {m.id for m in messages if only_asks(m.content)}
        ranked = fuse(lexical, await self._rerank(q.text, messages), first=exact, asks=asks)
        return _hits(_page(ranked, q), messages)

    async def _rerank(self, text: str, messages: Sequence[Message]) -> list[int]:
        if not self.embedder.in_process or len(messages) < 2:
            return []
        try:
            vectors = await self.embedder.embed([text, *(m.content[:2000] for m in messages)])
        except AgentOSError:
            return []  # a failing embedder leaves the ranking of full text
        rows = [(m.id, to_bytes(v)) for m, v in zip(messages, vectors[1:], strict=True)]
        return [key for key, _ in nearest(vectors[0], rows, len(rows))]

    async def _find_passages(
        self, agent_id: str, q: SearchQuery, terms: tuple[list[str], list[str]], wanted: int
    ) -> list[Hit]:
        """Full text and the nearest vectors, each over all of the agent's valid passages."""
        near = await self._nearest(agent_id, q.text, wanted)
        filters: dict[str, Any] = {"tags": q.tags, "start": q.start, "end": q.end}

        def find(tx: Any) -> list[Hit]:
            lexical, exact = (tx.lexical_passages(agent_id, t, **filters, limit=wanted) for t in terms)
            page = _page(fuse(lexical, tx.valid_passages(agent_id, near, **filters), first=exact), q)
            return _hits(page, tx.passages(agent_id, [key for key, _, _ in page]))

        return await self.store.read(find)

    async def _nearest(self, agent_id: str, text: str, wanted: int) -> list[int]:
        try:
            vector = (await self.embedder.embed([text]))[0]
            return [key for key, _ in await self._nearest_passages(agent_id, vector, wanted)]
        except AgentOSError:
            return []  # a failing embedder leaves the ranking of full text

    async def _nearest_passages(self, agent_id: str, vector: "Vectors", k: int) -> list[tuple[int, float]]:
        # first what the index lacks, else a row that it takes in meanwhile would be in neither
        lacking = await self.store.read(lambda tx: self._index_lacks(tx, agent_id, vector, k))
        if lacking is not None:
            try:
                # what was deleted a moment ago may still be in the index, so ask for a few more
                found = dict(await self.index.query(agent_id, vector, k + 10)) | dict(lacking)
                return sorted(found.items(), key=lambda hit: -hit[1])
            except IndexUnavailable:
                pass
        return await self._scan(agent_id, vector, k)

    def _index_lacks(self, tx: Any, agent_id: str, vector: "Vectors", k: int) -> list[tuple[int, float]] | None:
        """The nearest of what waits for the index; None where all is to be scanned instead."""
        fingerprint = self.embedder.fingerprint
        if not tx.has_more_vectors_than(agent_id, fingerprint, self.exact_below):
            return None
        rows = tx.vectors(agent_id, fingerprint, waiting=True, limit=COMPARED + 1)
        return nearest(vector, rows, k) if len(rows) <= COMPARED else None

    async def _scan(self, agent_id: str, vector: "Vectors", k: int) -> list[tuple[int, float]]:
        """The exact scan: every vector of the agent in SQL, a chunk at a time."""
        best: list[tuple[int, float]] = []
        after: int | None = 0
        while after is not None:

            def chunk(tx: Any, after_id: int = after) -> tuple[list[tuple[int, float]], int | None]:
                rows = tx.vectors(agent_id, self.embedder.fingerprint, after_id=after_id, limit=_SCAN_CHUNK)
                return nearest(vector, rows, k), rows[-1][0] if len(rows) == _SCAN_CHUNK else None

            found, after = await self.store.read(chunk)
            best = sorted([*best, *found], key=lambda hit: -hit[1])[:k]
        return best


def query_terms(text: str) -> tuple[list[str], list[str]]:
    """(the words of `text` worth searching for, its identifiers among them); empty where there are none.

    Stop words are left out unless there is nothing else. An identifier (a UUID, an order number, a
    URL, an address) is one term: its parts must stand together.
    """
    chunks = [chunk.strip(".,;:!?\"'()[]{}<>") for chunk in text.split()[:200]]
    identifiers = [c for c in chunks if _IDENTIFIER.fullmatch(c) and re.search(r"\w", c)]
    words = re.findall(r"\w+", " ".join(c for c in chunks if c not in identifiers))
    kept = [w for w in words if w.lower() not in STOP_WORDS] or words
    return list(dict.fromkeys([*identifiers, *kept])), list(dict.fromkeys(identifiers))


def fuse(
    lexical: Sequence[int], vector: Sequence[int], first: Sequence[int] = (), asks: Collection[int] = ()
) -> list[Ranked]:
    """(id, score, why) by weighted reciprocal rank fusion, best first.

    `first` (exact identifiers) come before all; those in `asks` count less.
    """
    scores: dict[int, float] = {}
    for weight, ranking in ((1.0, lexical), (VECTOR_WEIGHT, vector)):
        for rank, key in enumerate(ranking):
            scores[key] = scores.get(key, 0.0) + weight / (FUSION_K + rank)
    for key in asks:
        scores[key] = scores.get(key, 0.0) * QUESTION_WEIGHT
    for rank, key in enumerate(first):
        scores[key] = scores.get(key, 0.0) + 1 + 1 / (FUSION_K + rank)
    exact, words, meaning = set(first), set(lexical), set(vector)

    def why(key: int) -> str:
        if key in exact:
            return "identifier"
        return "both" if key in words and key in meaning else "lexical" if key in words else "vector"

    return [(key, score, why(key)) for key, score in sorted(scores.items(), key=lambda item: (-item[1], -item[0]))]


def only_asks(text: str) -> bool:
    """Whether a text is a single question."""
    stripped = text.strip()
    return stripped.endswith("?") and not re.search(r"[.!?]\s", stripped)


def _page(ranked: list[Ranked], query: SearchQuery) -> list[Ranked]:
    return ranked[query.page * query.limit : (query.page + 1) * query.limit]


def _hits(page: list[Ranked], rows: Sequence[Message | Passage]) -> list[Hit]:
    by_id = {row.id: row for row in rows}
    return [_to_hit(by_id[key], score, why) for key, score, why in page]


def _to_hit(row: Message | Passage, score: float, why: str) -> Hit:
    if isinstance(row, Passage):
        return Hit(row.ref, row.text, row.created_at, score, why, tags=row.tags)
    return Hit(
        row.ref, row.content, row.created_at, score, why, role=row.role, name=row.name, session=row.session,
        external_id=row.external_id, seq=row.seq, local_time=row.local_time,
    )  # fmt: skip
