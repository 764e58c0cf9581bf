"""Embedders: the default works offline, remote ones fail with a clear error and are asked no more than they must."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentos.archive.embedders import MAX_CHARS, REMOTE_BATCH, RemoteEmbedder, StaticEmbedder, make_embedder
from agentos.errors import ConfigError, ProviderError
from agentos.testing.indexes import HashEmbedder, embedder_conformance


class FakeEmbeddings:
    """An OpenAI-compatible /embeddings on loopback: each text's letters counted. `failures` are served first."""

    def __init__(self, *failures: int) -> None:
        self.failures = list(failures)
        self.requests: list[dict[str, Any]] = []

    def answer(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.requests.append(body)
        if self.failures:
            return self.failures.pop(0), {"error": {"message": "no luck today", "type": "server_error"}}
        rows = [[float(text.count(c)) for c in "abcdefghijklmnopqrstuvwxyz"] for text in body["input"]]
        data = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]
        # in any order: the index counts
        return 200, {
            "object": "list",
            "data": data[::-1],
            "model": body["model"],
            "usage": {"prompt_tokens": 1, "total_tokens": 1},
        }


@contextmanager
def serving(fake: FakeEmbeddings) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, reply = fake.answer(body)
            data = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.shutdown()
            thread.join()


def remote(url: str, **options: Any) -> RemoteEmbedder:
    return RemoteEmbedder("openai/letters", api_base=url, api_key="key", max_wait_seconds=0.01, **options)


async def test_hash_conforms() -> None:
    await embedder_conformance(HashEmbedder())


async def test_static_conforms_and_knows_what_is_alike() -> None:
    embedder = make_embedder("static")
    await embedder_conformance(embedder)
    vectors = await embedder.embed(
        ["My dog is called Biscuit", "the name of the puppy", "quarterly revenue forecast for the board"]
    )
    alike, unlike = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert alike > unlike + 0.1


async def test_static_embeds_long_text_without_padding_short_ones() -> None:
    """64 texts padded to one of 20,000 words would be gigabytes; the text beyond the limit does not count."""
    embedder = StaticEmbedder()
    text = "lisbon harbour " * 10_000
    vectors = await embedder.embed([text, *["short"] * 200, text[:MAX_CHARS]])
    assert np.array_equal(vectors[0], vectors[-1])


def test_names_cost_nothing_to_choose() -> None:
    code = """
import sys
from agentos.archive.embedders import make_embedder
made = [make_embedder(n) for n in ("static", "minilm", "openai/x", "text-embedding-3-small")]
print([m.fingerprint for m in made], [m.in_process for m in made])
assert not {"wordllama", "numpy", "litellm", "chromadb"} & set(sys.modules)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == (
        "['static:l2_supercat:256', 'minilm:all-MiniLM-L6-v2:384', 'litellm:openai/x', "
        "'litellm:text-embedding-3-small'] [True, False, False, False]\n"
    )


@pytest.mark.parametrize("name", ["", "statik", "nomic-embed-text"])
def test_unknown_name_says_what_is_known(name: str) -> None:
    with pytest.raises(ConfigError, match="use static, minilm or a litellm embedding model"):
        make_embedder(name)


def test_minilm_without_network_says_what_to_do(tmp_path: Path) -> None:
    """In a process of its own: weights are looked for in the home, the download goes to a proxy that is not there."""
    code = """
import asyncio
from agentos.archive.embedders import make_embedder
from agentos.errors import ProviderError
embedder = make_embedder("minilm")
assert asyncio.run(embedder.embed([])).shape == (0, 384)
try:
    asyncio.run(embedder.embed(["hello"]))
except ProviderError as error:
    print(error)
"""
    nowhere = dict.fromkeys(("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"), "http://127.0.0.1:9")
    env = {**os.environ, **nowhere, "HOME": str(tmp_path), "NO_PROXY": "", "no_proxy": ""}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout
    assert "embedding 'minilm' cannot be used" in out
    assert "AGENTOS_EMBEDDING=static" in out


async def test_remote_conforms() -> None:
    fake = FakeEmbeddings()
    with serving(fake) as url:
        await embedder_conformance(remote(url))
    sent = [text for request in fake.requests for text in request["input"]]
    assert all(text.strip() for text in sent), "a blank text was sent; OpenAI refuses the whole request for it"
    assert max(map(len, sent)) == MAX_CHARS


async def test_remote_sends_batches_and_keeps_the_order() -> None:
    fake = FakeEmbeddings()
    texts = ["abcdefghij"[i % 10] for i in range(REMOTE_BATCH + 5)]
    with serving(fake) as url:
        vectors = await remote(url).embed(texts)
    assert [len(request["input"]) for request in fake.requests] == [REMOTE_BATCH, 5]
    assert [chr(97 + int(i)) for i in vectors.argmax(axis=1)] == texts


async def test_remote_tries_again_what_may_pass() -> None:
    fake = FakeEmbeddings(503, 429)
    with serving(fake) as url:
        assert (await remote(url).embed(["a"])).shape == (1, 26)
    assert len(fake.requests) == 3


@pytest.mark.parametrize(("failures", "requests"), [([500] * 9, 3), ([401], 1), ([400], 1)])
async def test_remote_failure_is_a_provider_error(
    failures: list[int], requests: int, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeEmbeddings(*failures)
    with serving(fake) as url, pytest.raises(ProviderError, match=r"'openai/letters' failed.*AGENTOS_EMBEDDING"):
        await remote(url).embed(["a"])
    assert len(fake.requests) == requests
    assert capsys.readouterr().out == ""  # litellm likes to give advice there


async def test_remote_unreachable_and_unknown_provider() -> None:
    with serving(FakeEmbeddings()) as url:
        pass  # nobody listens there any more
    with pytest.raises(ProviderError, match="failed"):
        await remote(url).embed(["a"])
    with pytest.raises(ConfigError, match="names no provider"):
        await make_embedder("nobody/nothing").embed(["a"])
