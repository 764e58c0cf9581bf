"""The model of a machine without a model: deterministic rules behind the same tools; start reading in `model`."""

from agentos.llm.offline.model import OfflineLLM
from agentos.llm.offline.policy import INTRODUCTION, UNKNOWN

__all__ = ["INTRODUCTION", "UNKNOWN", "OfflineLLM"]
