"""Hybrid search: identifiers are always found, words by their stems, meaning by vectors; failures leave the rest."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos.errors import IndexUnavailable, ProviderError
from agentos.memory import search as search_module
from agentos.memory.search import HybridSearch, fuse, query_terms
from agentos.memory.vectors import nearest, to_bytes
from agentos.messages import Cause, Message, Passage
from agentos.protocols import SearchQuery
from agentos.store.lexical import COMMON
from agentos.store.tx import SqlTx
from agentos.testing import ExactIndex, HashEmbedder, ScriptedLLM
from conftest import Home, chances

NOW = datetime(2026, 5, 8, 9, 30, tzinfo=UTC)
IDENTIFIERS = [
    "7f9c24e8-3b12-4f3a-9d5e-0a1b2c3d4e5f", "ZX-1234-9f", "INV/2026/00042", "https://example.org/a/b?id=17#x",
    "ada.lovelace+list@example.co.uk", "10.0.17.254", "+351912345678", "AB123456", "user_name@host", "3.14159",
]  # fmt: skip

SQLITE = pytest.mark.parametrize("either_home", ["sqlite"], indirect=True)
"""For what has nothing of the database's own, or a twin in `test_postgres.py`."""


@pytest.fixture
def home(either_home: Home) -> Home:
    return either_home


async def fill(home: Home, texts: list[str], *, embed: bool = True) -> str:
    """Passages with these texts, a minute apart; the agent's id."""
    agent = await home.agent(ScriptedLLM([]))
    vectors = await home.search.embedder.embed(texts)
    cause = Cause(agent.id, "user")

    def work(tx: Any) -> None:
        for n, text in enumerate(texts):
            vector = (
                {"embedding": to_bytes(vectors[n]), "fingerprint": home.search.embedder.fingerprint} if embed else {}
            )
            tx.add_passage(Passage(0, agent.id, text, "agent", NOW + timedelta(minutes=n), **vector), cause)

    await home.store.write(work)
    return agent.id


async def texts_of(search: Any, agent_id: str, query: str, **options: Any) -> list[str]:
    return [hit.text for hit in await search(agent_id, SearchQuery(query, **options))]


@pytest.mark.parametrize("scope", ["archival", "recall"])
async def test_identifiers_are_found_among_a_thousand_that_look_alike(home: Home, scope: str) -> None:
    dice = random.Random(1)

    def twisted(identifier: str) -> str:
        return "".join(dice.choice("0123456789") if c.isdigit() else c for c in identifier)

    texts = [f"order {twisted(dice.choice(IDENTIFIERS))} was shipped to the customer" for _ in range(1000)]
    for place, identifier in enumerate(IDENTIFIERS):
        texts.insert(97 * place, f"note: {identifier}, keep it")
    if scope == "archival":
        agent_id = await fill(home, texts)
    else:
        agent_id = (await home.agent(ScriptedLLM([]))).id
        rows = [Message(0, agent_id, "user", text, "user", NOW, seq=n) for n, text in enumerate(texts, 1)]
        await home.store.write(lambda tx: [tx.add_message(row) for row in rows])
    for identifier in IDENTIFIERS:
        for query in (identifier, f"what was {identifier}?", f"order shipped to the customer {identifier}"):
            hits = await home.search(agent_id, SearchQuery(query, scope, limit=5))  # type: ignore[arg-type]
            best = max(hits, key=lambda hit: hit.score)
            assert identifier in best.text, (query, [hit.text for hit in hits])


async def test_words_are_found_by_their_stems_and_without_accents(home: Home) -> None:
    agent_id = await fill(home, ["She was running races", "The café opened", "nothing here"], embed=False)
    assert (await texts_of(home.search, agent_id, "run race"))[0] == "She was running races"
    assert (await texts_of(home.search, agent_id, "cafe opening"))[0] == "The café opened"


async def test_stop_words_count_only_where_there_is_nothing_else(home: Home) -> None:
    agent_id = await fill(home, ["the and of", "Ada plays the violin"], embed=False)
    assert await texts_of(home.search, agent_id, "what is the violin of Ada") == ["Ada plays the violin"]
    assert "the and of" in await texts_of(home.search, agent_id, "the of")


@pytest.mark.parametrize(
    ("text", "terms", "identifiers"),
    [
        ("", [], []),
        ("?! ...", [], []),
        ("where is Ada", ["Ada"], []),
        ("the and", ["the", "and"], []),
        ("order ZX-1234-9f, please", ["ZX-1234-9f", "order", "please"], ["ZX-1234-9f"]),
        ('say "hi" (there)', ["say", "hi"], []),
        ("in May 2023 at 12345", ["12345", "May", "2023"], ["12345"]),
        (
            "mail ada@example.org about well-known sci-fi",
            ["ada@example.org", "mail", "well", "known", "sci", "fi"],
            ["ada@example.org"],
        ),
    ],
)
def test_query_terms(text: str, terms: list[str], identifiers: list[str]) -> None:
    assert query_terms(text) == (terms, identifiers)


async def test_no_query_breaks_the_full_text_search(home: Home) -> None:
    agent_id = await fill(home, ["NEAR the harbour", "AND so on"], embed=False)

    @settings(max_examples=chances(400))
    @given(
        text=st.text(max_size=60) | st.sampled_from(["NEAR(a b) AND c*", 'x "y', "a:b", "^a", "-a", "{a}: b", "a + b"])
    )
    def search(text: str) -> None:
        terms, identifiers = query_terms(text.encode("utf-8", "replace").decode())
        asyncio.run_coroutine_threadsafe(find(terms), loop).result()
        asyncio.run_coroutine_threadsafe(find(identifiers), loop).result()

    async def find(terms: list[str]) -> list[int]:
        read = home.store.read(lambda tx: tx.lexical_passages(agent_id, terms, tags=(), start=None, end=None, limit=9))
        return await read

    loop = asyncio.get_running_loop()
    await asyncio.to_thread(search)
    assert len(await find(["NEAR", "AND"])) == 2


@SQLITE
async def test_common_words_do_not_hide_what_is_rare(home: Home) -> None:
    texts = [f"the boat number {n} lies in the harbour" for n in range(COMMON + 1)]
    agent_id = await fill(home, [*texts, "the boat Esmeralda lies in the harbour", "Esmeralda sang"], embed=False)
    found = await texts_of(home.search, agent_id, "boat Esmeralda harbour")
    assert set(found) == {"the boat Esmeralda lies in the harbour", "Esmeralda sang"}
    assert len(await texts_of(home.search, agent_id, "boat harbour lies")) == 10


def test_fusion_adds_reciprocal_ranks() -> None:
    ranked = fuse([1, 2, 3], [3, 4])
    assert [key for key, _, _ in ranked] == [3, 1, 2, 4]
    assert {key: why for key, _, why in ranked} == {1: "lexical", 2: "lexical", 3: "both", 4: "vector"}
    assert {k: s for k, s, _ in ranked}[3] == pytest.approx(1 / 12 + search_module.VECTOR_WEIGHT / 10)
    assert [key for key, _, _ in fuse([1, 2], [1], first=[9])] == [9, 1, 2]
    assert fuse([], []) == []


async def test_meaning_is_found_where_words_differ(home: Home) -> None:
    texts = ["alpha beta gamma", "delta epsilon", "zeta"]
    agent_id = await fill(home, texts)
    hits = await home.search(agent_id, SearchQuery("beta gamma omega"))
    assert max(hits, key=lambda h: h.score).text == "alpha beta gamma"
    assert {h.why for h in hits} <= {"both", "vector", "lexical"}


async def test_hits_come_newest_first_and_each_once(home: Home) -> None:
    agent_id = await fill(home, [f"tea {n}" for n in range(8)])
    hits = await home.search(agent_id, SearchQuery("tea", limit=5))
    assert [h.created_at for h in hits] == sorted((h.created_at for h in hits), reverse=True)
    assert len({h.ref for h in hits}) == 5


async def test_what_has_ended_is_not_found(home: Home) -> None:
    agent_id = await fill(home, ["tea at four", "tea at five"])
    await home.store.write(lambda tx: tx.end_passage(1, NOW, Cause(agent_id, "user"), "passage.delete"))
    assert await texts_of(home.search, agent_id, "tea") == ["tea at five"]
    await home.store.write(lambda tx: tx.end_passage(1, None, Cause(agent_id, "user"), "undo.passage"))
    assert len(await texts_of(home.search, agent_id, "tea")) == 2


class BrokenEmbedder(HashEmbedder):
    async def embed(self, texts: Any) -> Any:
        raise ProviderError("the embedder is down")


async def test_a_failing_embedder_leaves_the_lexical_ranking(home: Home) -> None:
    agent_id = await fill(home, ["tea at four", "coffee"])
    broken = HybridSearch(home.store, BrokenEmbedder(), ExactIndex())
    assert await texts_of(broken, agent_id, "tea") == ["tea at four"]
    assert await texts_of(broken, agent_id, "tea", scope="recall") == []


class DownIndex(ExactIndex):
    asked = 0

    async def query(self, collection: str, vector: Any, k: int) -> list[tuple[int, float]]:
        self.asked += 1
        raise IndexUnavailable("the index is down")


@SQLITE
async def test_with_the_index_down_the_exact_scan_answers(home: Home) -> None:
    texts = [f"filler number {n} about nothing" for n in range(search_module.EXACT_BELOW + 5)]
    agent_id = await fill(home, [*texts, "alpha beta gamma"])
    index = DownIndex()
    down = HybridSearch(home.store, home.search.embedder, index)
    vector = (await home.search.embedder.embed(["gamma beta alpha"]))[0]
    assert (await down._nearest_passages(agent_id, vector, 3))[0][0] == len(texts) + 1
    assert index.asked == 1
    assert "alpha beta gamma" in await texts_of(down, agent_id, "gamma beta alpha")


@SQLITE
async def test_above_a_thousand_the_index_and_what_it_lacks_are_asked(home: Home) -> None:
    texts = [f"filler number {n} about nothing" for n in range(search_module.EXACT_BELOW + 5)]
    agent_id = await fill(home, [*texts, "alpha beta gamma"])
    await home.store.write(lambda tx: tx.outbox_done([row[0] for row in tx.outbox(agent_id, -1)[:-1]]))
    vector = (await home.search.embedder.embed(["alpha beta gamma"]))[0]
    found = await home.search._nearest_passages(agent_id, vector, 3)
    assert [key for key, _ in found] == [len(texts) + 1], "the index is empty; what waits for it is compared directly"
    rows = [(1, to_bytes(vector))]
    assert nearest(vector, rows, 5)[0] == (1, pytest.approx(1.0))


@SQLITE
async def test_what_cannot_all_be_compared_beside_the_index_is_scanned(home: Home) -> None:
    """Too much waits, or the agent is too small for a collection: the index is not even asked."""
    texts = [f"filler {n}" for n in range(search_module.COMPARED + 1)]
    agent_id = await fill(home, [*texts, "alpha beta gamma"])
    vector = (await home.search.embedder.embed(["gamma beta alpha"]))[0]
    index = DownIndex()
    search = HybridSearch(home.store, home.search.embedder, index)
    assert (await search._nearest_passages(agent_id, vector, 1))[0][0] == len(texts) + 1
    await home.store.write(lambda tx: tx.outbox_done([row[0] for row in tx.outbox(agent_id, -1)]))
    small = HybridSearch(home.store, home.search.embedder, index, exact_below=len(texts) + 1)
    assert (await small._nearest_passages(agent_id, vector, 1))[0][0] == len(texts) + 1
    assert index.asked == 0
    await search._nearest_passages(agent_id, vector, 1)
    assert index.asked == 1


class LargeTx(SqlTx):
    """To which every agent is large."""

    def _is_large(self, name: str, agent_id: str) -> bool:
        return True


@SQLITE
async def test_a_large_agents_few_matching_passages_are_found_behind_better_ones(home: Home) -> None:
    agent_id = await fill(
        home, ["tea"] * 1 + [f"tea {n}" for n in range(30)] + ["tea " + "with milk " * 30], embed=False
    )
    tag = Cause(agent_id, "user")
    long = Passage(0, agent_id, "tea " + "with milk " * 30, "agent", NOW, tags=("rare",))
    await home.store.write(lambda tx: tx.add_passage(long, tag))

    def find(tx: Any, tags: tuple[str, ...]) -> list[list[int]]:
        options: dict[str, Any] = {"tags": tags, "start": None, "end": None, "limit": 2}
        return [rows.lexical_passages(agent_id, ["tea"], **options) for rows in (LargeTx(tx.connection, tx.clock), tx)]

    for tags in ((), ("rare",)):
        large, small = await home.store.read(lambda tx, tags=tags: find(tx, tags))  # type: ignore[misc]
        assert large == small
    assert large == [32]


@pytest.mark.parametrize("query", ["\x00", "a\x00b", "\ud800", "x" * 100_000, "(" * 500, "🙂", "日本語", "ﬁ ª ①"])
async def test_odd_queries_break_nothing(home: Home, query: str) -> None:
    agent_id = await fill(home, ["tea at four 日本語"])
    hits = await home.search(agent_id, SearchQuery(query))
    assert [h.text for h in hits] in ([], ["tea at four 日本語"])


async def test_the_columns_that_guard_a_search_are_not_searched(home: Home) -> None:
    agent_id = await fill(home, ["tea at four", "Ada met an agent"], embed=False)
    assert agent_id == "agent-ada"
    assert await texts_of(home.search, agent_id, "Ada agent") == ["Ada met an agent"]


async def test_agents_find_only_their_own(home: Home) -> None:
    agent_id = await fill(home, ["tea at four"])
    bob = await home.agent(ScriptedLLM([]), name="bob")
    assert await texts_of(home.search, bob.id, "tea") == []
    assert await texts_of(home.search, agent_id, "tea") == ["tea at four"]
