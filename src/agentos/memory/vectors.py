"""Vectors as bytes: how SQL keeps them, and the exact scan over them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentos.protocols import Vectors


def to_bytes(vector: "Vectors") -> bytes:
    """One vector (d,) as little endian float32."""
    return bytes(vector.astype("<f4").tobytes())


def stack(blobs: Sequence[bytes]) -> "Vectors":
    """The vectors behind `blobs` as (n, d) float32."""
    import numpy as np  # a tenth of a second and 20 MB that only a search pays

    if not blobs:
        return np.zeros((0, 0), dtype="<f4")
    return np.frombuffer(b"".join(blobs), dtype="<f4").reshape(len(blobs), -1)


def nearest(query: "Vectors", rows: Sequence[tuple[int, bytes]], k: int) -> list[tuple[int, float]]:
    """The `k` rows most similar to `query` (d,), as (id, cosine similarity), best first: the exact scan."""
    if not rows:
        return []
    similarities = stack([blob for _, blob in rows]) @ query
    best = (-similarities).argsort(kind="stable")[:k]
    return [(rows[i][0], float(similarities[i])) for i in best]
