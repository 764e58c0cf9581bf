"""Fakes, references and conformance suites for tests of agents and adapters."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentos.testing.conformance import LLM_CHECKS, STORE_CHECKS, llm_conformance, store_conformance
    from agentos.testing.fake_openai import FakeOpenAI, FakeReply
    from agentos.testing.homes import FixedClock, memory_database, temporary_runtime
    from agentos.testing.indexes import (
        INDEX_CHECKS,
        ExactIndex,
        HashEmbedder,
        embedder_conformance,
        index_conformance,
    )
    from agentos.testing.llms import FunctionLLM, ScriptedLLM, call, say

_HOMES = {
    "ExactIndex": "indexes",
    "FakeOpenAI": "fake_openai",
    "FakeReply": "fake_openai",
    "FixedClock": "homes",
    "FunctionLLM": "llms",
    "HashEmbedder": "indexes",
    "INDEX_CHECKS": "indexes",
    "LLM_CHECKS": "conformance",
    "STORE_CHECKS": "conformance",
    "ScriptedLLM": "llms",
    "call": "llms",
    "embedder_conformance": "indexes",
    "index_conformance": "indexes",
    "llm_conformance": "conformance",
    "memory_database": "homes",
    "say": "llms",
    "store_conformance": "conformance",
    "temporary_runtime": "homes",
}

__all__ = [
    "INDEX_CHECKS",
    "LLM_CHECKS",
    "STORE_CHECKS",
    "ExactIndex",
    "FakeOpenAI",
    "FakeReply",
    "FixedClock",
    "FunctionLLM",
    "HashEmbedder",
    "ScriptedLLM",
    "call",
    "embedder_conformance",
    "index_conformance",
    "llm_conformance",
    "memory_database",
    "say",
    "store_conformance",
    "temporary_runtime",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: what needs numpy or a database costs nobody else."""
    if name not in _HOMES:
        raise AttributeError(f"module 'agentos.testing' has no attribute {name!r}")
    return getattr(import_module(f"agentos.testing.{_HOMES[name]}"), name)
