"""Hybrid search: full text and vectors, fused by reciprocal rank.

Full text (FTS5, porter stems) finds words and identifiers; vectors find what was said in other
words. Passages have their vectors in the index, or in SQL while the index lags or is down; for
messages the vectors only re-rank what full text found, computed when asked (`docs/adr`).
"""

import heapq
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agentos.errors import AgentOSError, IndexUnavailable
from agentos.memory import recall
from agentos.memory.period import named_period
from agentos.memory.vectors import nearest, stack, to_bytes
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
PER_TERM = 300
"""Messages looked at for each word."""
AROUND = 3
"""Row ids to either side of a message in which its neighbours are looked for; tool results lie between."""
NEARBY_WORTH = 0.7
"""Share of the best score from which a message is shown that holds no word of the question itself."""
COMPARED_MESSAGES = 30
"""Messages whose vectors re-rank them."""
EMBEDDED_CHARS = 600
"""Of a message, that its vector is made from."""
RANKED_MESSAGES = 60
"""Messages that are ranked by more than their words; what is further down follows by its words alone."""
FURTHER = 1e-6
"""Factor that puts the scores of those below all others."""
KEPT_VECTORS = 20_000
"""Message vectors (1 kB each) kept in memory, computed when first compared."""
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


@dataclass(frozen=True)
class _Found:
    """What full text found among messages: lists of equal length, in the order of the history."""

    places: list[recall.Place]
    scores: list[float]
    messages: list[Message]
    exact: set[int]
    """Those that hold one of its identifiers."""
    totals: dict[int, float]
    """The BM25 scores of all that hold a word, by id."""


class HybridSearch:
    """Searches one home's memories; the implementation of `agentos.protocols.Search`.

    The index is asked only for agents with more than `exact_below` vectors.
    """

    def __init__(self, store: Store, embedder: Embedder, index: VectorIndex, exact_below: int = EXACT_BELOW) -> None:
        self.store = store
        self.embedder = embedder
        self.index = index
        self.exact_below = exact_below
        self._asked: tuple[str, Vectors] | None = None
        """The text that was looked for last, and its vector."""
        self._vectors: dict[int, bytes] = {}
        """Vectors of messages that were compared before, by id."""

    async def __call__(self, agent_id: str, query: SearchQuery, not_run: str | None = None) -> list[Hit]:
        """One page of hits, newest first; messages of the run `not_run` are left out.

        A query without a single word has no hits. Neither an embedder nor an index that fails stops a search.
        """
        terms, identifiers = query_terms(query.text)
        if not terms:
            return []
        wanted = max(CANDIDATES, (query.page + 1) * query.limit)
        if query.scope == "recall":
            found = await self._find_messages(agent_id, query, (terms, identifiers), not_run)
        else:
            found = await self._find_passages(agent_id, query, (terms, identifiers), wanted)
        return sorted(found, key=lambda hit: (hit.created_at, hit.ref), reverse=True)

    async def _find_messages(
        self, agent_id: str, q: SearchQuery, terms: tuple[list[str], list[str]], not_run: str | None
    ) -> list[Hit]:
        """Full text finds, term by term; the talk around, vectors, speaker and time rank (`agentos.memory.recall`)."""
        wanted = recall.MessageFilter(q.roles or ("user", "assistant"), q.start, q.end, not_run)

        def find(tx: Any) -> _Found:
            words, exact = (tx.message_scores(agent_id, t, wanted, PER_TERM) for t in terms)
            totals: dict[int, float] = {}
            for scores in words:
                for key, score in scores.items():
                    totals[key] = totals.get(key, 0.0) + score
            best = heapq.nlargest(CANDIDATES, totals, key=lambda key: totals[key])
            # who looks for a single word wants the messages that hold it, and none beside them
            around = AROUND if len(words) > 1 else 0
            ids = {key + n for key in best for n in range(-around, around + 1)}
            places = tx.places(agent_id, sorted(ids), wanted)
            scores = recall.spread(words, places) if places else []
            kept = sorted(heapq.nlargest(RANKED_MESSAGES, range(len(places)), key=lambda n: scores[n]))
            places = [places[n] for n in kept]
            messages = {m.id: m for m in tx.messages(agent_id, [place.id for place in places])}
            return _Found(
                places, [float(scores[n]) for n in kept], [messages[place.id] for place in places],
                {key for scores in exact for key in scores}, totals,
            )  # fmt: skip

        found = await self.store.read(find)
        ranked = await self._ranked(q, found)
        messages = found.messages
        if (q.page + 1) * q.limit > len(ranked):
            further = await self.store.read(lambda tx: self._further(tx, agent_id, found.totals, ranked, wanted))
            page = {key for key, _, _ in _page([*ranked, *further], q)}
            messages = await self.store.read(lambda tx: tx.messages(agent_id, page))
            ranked += further
        return _hits(_page(ranked, q), messages)

    def _further(
        self, tx: Any, agent_id: str, totals: dict[int, float], ranked: list[Ranked], wanted: recall.MessageFilter
    ) -> list[Ranked]:
        """What holds a word and is not among the ranked, by its words alone: the same order for every page."""
        seen = {key for key, _, _ in ranked}
        rest = {place.id: totals[place.id] for place in tx.places(agent_id, sorted(totals.keys() - seen), wanted)}
        return [(key, FURTHER * rest[key], "lexical") for key in sorted(rest, key=lambda key: (-rest[key], -key))]

    async def _ranked(self, q: SearchQuery, found: "_Found") -> list[Ranked]:
        import numpy as np

        period = named_period(q.text, q.now) if q.now else None
        scores = np.array(found.scores)
        compared = np.argsort(-scores, kind="stable")[:COMPARED_MESSAGES]
        if (cosines := await self._cosines(q.text, [found.messages[n] for n in compared])) is not None:
            near = np.zeros(len(scores), np.float32)
            near[compared] = cosines
            scores = recall.add_meaning(scores, near, found.places)
        factors = [
            recall.factor(p, m.content, q.text, period) for p, m in zip(found.places, found.messages, strict=True)
        ]
        values = recall.less_of_one_talk((scores * factors).tolist(), found.places)
        ranked = []
        for place, value in zip(found.places, values, strict=True):
            if place.id in found.exact:
                ranked.append((place.id, 100 + value, "identifier"))
            elif place.id in found.totals or value > NEARBY_WORTH * max(values):
                ranked.append((place.id, value, "lexical" if place.id in found.totals else "nearby"))
        return sorted(ranked, key=lambda item: (-item[1], -item[0]))

    async def _cosines(self, text: str, messages: Sequence[Message]) -> "Vectors | None":
        """How near each message is in meaning, (n,); None where only full text is to rank."""
        if not self.embedder.in_process or len(messages) < 2:
            return None
        if len(self._vectors) > KEPT_VECTORS:
            self._vectors.clear()
        unknown = [m for m in messages if m.id not in self._vectors]
        try:
            vectors = await self.embedder.embed([text, *(m.content[:EMBEDDED_CHARS] for m in unknown)])
        except AgentOSError:
            return None
        self._vectors |= {m.id: to_bytes(v) for m, v in zip(unknown, vectors[1:], strict=True)}
        cosines: Vectors = stack([self._vectors[m.id] for m in messages]) @ vectors[0]
        return cosines

    async def _find_passages(
        self, agent_id: str, q: SearchQuery, terms: tuple[list[str], list[str]], wanted: int
    ) -> list[Hit]:
        """Full text and the nearest vectors, each over all of the agent's passages that may be shown."""
        past: dict[str, Any] = {"as_of": q.as_of, "include_superseded": q.include_superseded}
        near = await self._nearest(agent_id, q.text, wanted, past)
        filters: dict[str, Any] = {"tags": q.tags, "all_tags": q.all_tags, "start": q.start, "end": q.end, **past}

        def find(tx: Any) -> list[Hit]:
            lexical, exact = (tx.lexical_passages(agent_id, t, **filters, limit=wanted) for t in terms)
            page = _page(fuse(lexical, tx.shown_passages(agent_id, near, **filters), first=exact), q)
            return _hits(page, tx.passages(agent_id, [key for key, _, _ in page]))

        return await self.store.read(find)

    async def _nearest(self, agent_id: str, text: str, wanted: int, past: dict[str, Any]) -> list[int]:
        try:
            if self._asked is None or self._asked[0] != text:  # of many agents the same is asked
                self._asked = text, (await self.embedder.embed([text]))[0]
            vector = self._asked[1]
            if any(past.values()):  # the index holds only what is valid now
                return [key for key, _ in await self._scan(agent_id, vector, wanted, **past)]
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

    async def _scan(self, agent_id: str, vector: "Vectors", k: int, **past: Any) -> list[tuple[int, float]]:
        """The exact scan: every vector of the agent in SQL that may be shown, a chunk at a time."""
        best: list[tuple[int, float]] = []
        after: int | None = 0
        while after is not None:

            def chunk(tx: Any, after_id: int = after) -> tuple[list[tuple[int, float]], int | None]:
                rows = tx.vectors(agent_id, self.embedder.fingerprint, after_id=after_id, limit=_SCAN_CHUNK, **past)
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


def fuse(lexical: Sequence[int], vector: Sequence[int], first: Sequence[int] = ()) -> list[Ranked]:
    """(id, score, why) by weighted reciprocal rank fusion, best first; `first` (exact identifiers) come before all."""
    scores: dict[int, float] = {}
    for weight, ranking in ((1.0, lexical), (VECTOR_WEIGHT, vector)):
        for rank, key in enumerate(ranking):
            scores[key] = scores.get(key, 0.0) + weight / (FUSION_K + rank)
    for rank, key in enumerate(first):
        scores[key] = scores.get(key, 0.0) + 1 + 1 / (FUSION_K + rank)
    exact, words, meaning = set(first), set(lexical), set(vector)

    def why(key: int) -> str:
        if key in exact:
            return "identifier"
        return "both" if key in words and key in meaning else "lexical" if key in words else "vector"

    return [(key, score, why(key)) for key, score in sorted(scores.items(), key=lambda item: (-item[1], -item[0]))]


def _page(ranked: list[Ranked], query: SearchQuery) -> list[Ranked]:
    return ranked[query.page * query.limit : (query.page + 1) * query.limit]


def _hits(page: list[Ranked], rows: Sequence[Message | Passage]) -> list[Hit]:
    by_id = {row.id: row for row in rows}
    return [to_hit(by_id[key], score, why) for key, score, why in page]


def to_hit(row: Message | Passage, score: float, why: str) -> Hit:
    """A message or passage as a search shows it."""
    if isinstance(row, Passage):
        return Hit(
            row.ref, row.text, row.created_at, score, why, tags=row.tags, valid_to=row.valid_to,
            superseded_by=None if row.superseded_by is None else f"p{row.superseded_by}",
        )  # fmt: skip
    return Hit(
        row.ref, row.content, row.created_at, score, why, role=row.role, name=row.name, session=row.session,
        external_id=row.external_id, seq=row.seq, local_time=row.local_time,
    )  # fmt: skip
