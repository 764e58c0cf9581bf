"""Embedders, chosen by name: `static` (no download), `minilm`, or any litellm embedding model.

`make_embedder` is cheap: weights and libraries are loaded by the first `embed`, in a thread.
"""

import asyncio
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentos.errors import ConfigError, ProviderError
from agentos.llm.litellm import load_litellm
from agentos.protocols import Embedder

if TYPE_CHECKING:
    from agentos.protocols import Vectors

MAX_CHARS = 8000
"""Text beyond this is not embedded: within the 8,191 tokens that remote models accept in nearly every script."""
REMOTE_BATCH = 96
"""Texts in one remote request; the smallest limit among the large providers."""

_BARE_NAMES = ("text-embedding-",)  # litellm knows these without a provider in front


def make_embedder(name: str, *, api_base: str | None = None, api_key: str | None = None) -> Embedder:
    """The embedder called `name`; `api_base` and `api_key` are for remote ones. Raises `ConfigError`."""
    if name == "static":
        return StaticEmbedder()
    if name == "minilm":
        return MiniLMEmbedder()
    if "/" in name or name.startswith(_BARE_NAMES):
        return RemoteEmbedder(name, api_base=api_base, api_key=api_key)
    raise ConfigError(
        f"embedding {name!r} is not known; use static, minilm or a litellm embedding model with its provider, "
        "such as openai/text-embedding-3-small or ollama/nomic-embed-text"
    )


class StaticEmbedder:
    """wordllama: averaged word vectors whose weights lie in its wheel; about 0.05 ms a text, no download."""

    name = "static"
    fingerprint = "static:l2_supercat:256"
    in_process = True
    dimensions = 256

    async def embed(self, texts: Sequence[str]) -> "Vectors":
        """(len(texts), 256) float32 of length 1; a zero row where a text has no words."""
        return await asyncio.to_thread(self._embed, list(texts))

    def _embed(self, texts: list[str]) -> "Vectors":
        import numpy as np

        if not texts:
            return np.zeros((0, self.dimensions), np.float32)
        # one text a batch: the library pads a batch to its longest text, which for 64 of them is gigabytes
        return _normalised(self._model.embed([text[:MAX_CHARS] for text in texts], batch_size=1))

    @cached_property
    def _model(self) -> Any:
        import numpy as np
        import wordllama

        folder = Path(wordllama.__file__).parent
        try:
            model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
        except (OSError, ValueError) as error:
            raise ConfigError(f"the weights of embedding 'static' are missing: {error}; reinstall wordllama") from None
        # the file holds 16-bit floats and the library widens them: taking that back loses nothing and saves 16 MB
        model.embedding = model.embedding.astype(np.float16)
        return model


class MiniLMEmbedder:
    """all-MiniLM-L6-v2 on ONNX as Chroma ships it: 80 MB of weights, downloaded by the first use."""

    name = "minilm"
    fingerprint = "minilm:all-MiniLM-L6-v2:384"
    in_process = False  # loading it takes seconds and a text milliseconds: not something a tool call waits for
    dimensions = 384

    async def embed(self, texts: Sequence[str]) -> "Vectors":
        """(len(texts), 384) float32 of length 1. Raises `ProviderError` when the weights cannot be had."""
        return await asyncio.to_thread(self._embed, list(texts))

    def _embed(self, texts: list[str]) -> "Vectors":
        import numpy as np

        if not texts:
            return np.zeros((0, self.dimensions), np.float32)
        try:
            vectors = self._model([text[:MAX_CHARS] for text in texts])
        except Exception as error:  # download, disk, checksum and ONNX errors share no base
            raise ProviderError(
                f"embedding 'minilm' cannot be used: {type(error).__name__}: {error}; its weights are downloaded once "
                "and need a network then; AGENTOS_EMBEDDING=static works without"
            ) from error
        return _normalised(np.asarray(vectors))

    @cached_property
    def _model(self) -> Any:
        from chromadb.utils.embedding_functions import ONNXMiniLM_L6_V2

        return ONNXMiniLM_L6_V2()


class RemoteEmbedder:
    """Any embedding model that litellm reaches. The number of dimensions is known after the first reply."""

    in_process = False

    def __init__(
        self, name: str, *, api_base: str | None = None, api_key: str | None = None, attempts: int = 3,
        max_wait_seconds: float = 8.0, timeout_seconds: float = 60.0,
    ) -> None:  # fmt: skip
        self.name = name
        self.fingerprint = f"litellm:{name}"
        self.dimensions = 0
        self._options: dict[str, Any] = {"timeout": timeout_seconds}
        if api_base:
            self._options["api_base"] = api_base
        if api_key:
            self._options["api_key"] = api_key
        self._attempts = attempts
        self._max_wait_seconds = max_wait_seconds

    async def embed(self, texts: Sequence[str]) -> "Vectors":
        """(len(texts), d) float32 of length 1; a blank text is a zero row and is not sent.

        Raises `ProviderError` after at most `attempts` requests a batch, `ConfigError` for an unknown provider.
        """
        import numpy as np

        wanted = [i for i, text in enumerate(texts) if text.strip()]
        rows: list[list[float]] = []
        for start in range(0, len(wanted), REMOTE_BATCH):
            rows += await self._request([texts[i][:MAX_CHARS] for i in wanted[start : start + REMOTE_BATCH]])
        if rows:
            self.dimensions = len(rows[0])
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        if rows:
            vectors[wanted] = _normalised(np.asarray(rows, np.float32))
        return vectors

    async def _request(self, texts: list[str]) -> list[list[float]]:
        from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

        litellm = await asyncio.to_thread(load_litellm)
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._attempts),
            wait=wait_random_exponential(max=self._max_wait_seconds),
            retry=retry_if_exception(_is_passing),
            reraise=True,
        )
        try:
            reply: Any = await retrying(
                litellm.aembedding, model=self.name, input=texts, num_retries=0, max_retries=0, **self._options
            )
        except Exception as error:  # litellm's errors share no base of their own
            raise _as_ours(self.name, error) from error
        rows = [item["embedding"] for item in sorted(reply.data, key=lambda item: item["index"])]
        if len(rows) != len(texts) or len({len(row) for row in rows}) != 1:
            raise ProviderError(f"embedding {self.name!r} answered {len(texts)} texts with {len(rows)} vectors")
        return rows


@lru_cache
def _is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed a moment later; read off the HTTP status litellm gives every error."""
    status = getattr(error, "status_code", None)
    return isinstance(status, int) and (status in (408, 409, 429) or status >= 500)


def _as_ours(name: str, error: Exception) -> ConfigError | ProviderError:
    if "LLM Provider NOT provided" in str(error):
        return ConfigError(
            f"embedding {name!r} names no provider that litellm knows; use static, minilm or one such as "
            "openai/text-embedding-3-small"
        )
    reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
    return ProviderError(
        f"embedding {name!r} failed: {reason}; check AGENTOS_EMBEDDING, AGENTOS_API_BASE and the provider's key"
    )


def _normalised(vectors: Any) -> "Vectors":
    """Rows of length 1; zero rows stay zero."""
    import numpy as np

    vectors = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)
