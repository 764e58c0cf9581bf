"""Figures for Prometheus: of this process since its start, and of what waits in the home."""

import asyncio
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from agentos.dispatch import Dispatcher
from agentos.events import Event, PageOut, ToolResultEvent, TurnEnded
from agentos.runtime import Runtime

CONTENT_TYPE = CONTENT_TYPE_LATEST
_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_TURN_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 900)
_MOST_MODELS = 100
"""Models told apart; a client may name ever new ones."""
_TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens")


class Metrics:
    """Counts requests, turns, model and tool calls of one server; each has a registry of its own."""

    def __init__(self, runtime: Runtime, dispatcher: Dispatcher) -> None:
        self._runtime, self._dispatcher = runtime, dispatcher
        self._since = runtime.clock.now()
        self._step: int | None = None
        """The newest step that was counted."""
        self._models: set[str] = set()
        """Those that have answered."""
        self._reading = asyncio.Lock()
        registry = self._registry = CollectorRegistry()
        route = ["method", "route", "status"]
        self._requests = Counter("agentos_requests", "Requests that were answered.", route, registry=registry)
        self._request_seconds = Histogram(
            "agentos_request_seconds", "Time to the end of the answer.", ["method", "route"], registry=registry,
            buckets=_REQUEST_BUCKETS,
        )  # fmt: skip
        self._turns = Counter("agentos_turns", "Turns that ended.", ["stop_reason"], registry=registry)
        self._turn_seconds = Histogram(
            "agentos_turn_seconds", "Time a turn ran.", registry=registry, buckets=_TURN_BUCKETS
        )
        self._calls = Counter("agentos_model_calls", "Model calls of agents.", ["model", "ok"], registry=registry)
        self._tokens = Counter("agentos_model_tokens", "Tokens of model calls.", ["model", "kind"], registry=registry)
        self._cost = Counter("agentos_model_cost_usd", "Price of model calls.", ["model"], registry=registry)
        self._tools = Counter("agentos_tool_calls", "Tool calls that ended.", ["name", "ok"], registry=registry)
        self._page_outs = Counter("agentos_page_outs", "Page-outs.", registry=registry)
        self._running = Gauge("agentos_running_agents", "Agents with a turn that runs here.", registry=registry)
        self._waiting = Gauge("agentos_waiting_inputs", "Accepted inputs that wait.", registry=registry)
        self._outbox = Gauge("agentos_index_outbox", "Passages the vector index lacks.", registry=registry)
        dispatcher.listeners.append(self._heard)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; `route` is its template, so that ids make no series."""
        method = method if method in ("GET", "POST", "PATCH", "PUT", "DELETE", "HEAD", "OPTIONS") else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(method, route).observe(seconds)

    def _heard(self, agent_id: str, event: Event, seconds: float) -> None:
        if isinstance(event, TurnEnded):
            self._turns.labels(event.result.stop_reason).inc()
            self._turn_seconds.observe(seconds)
        elif isinstance(event, ToolResultEvent):
            # a model may call what does not exist, by ever new names
            name = event.name if event.name in self._runtime.tools.tools else "unknown"
            self._tools.labels(name, str(event.ok).lower()).inc()
        elif isinstance(event, PageOut):
            self._page_outs.inc()

    async def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        async with self._reading:
            await self._read()
        return generate_latest(self._registry)

    async def _read(self) -> None:
        """What the database knows: the model calls since the last time, and what waits now."""

        def work(tx: Any) -> tuple[int, list[dict[str, Any]], int, int]:
            step = tx.last_step_before(self._since) if self._step is None else self._step
            return *tx.usage_after(step), tx.count_waiting(), sum(tx.outbox_sizes().values())

        self._step, rows, waiting, outbox = await self._runtime.store.read(work)
        for row in rows:
            if row["calls"] > row["failed"] and len(self._models) < _MOST_MODELS:
                self._models.add(row["model"])
            model = row["model"] if row["model"] in self._models else "other"
            self._calls.labels(model, "true").inc(row["calls"] - row["failed"])
            self._calls.labels(model, "false").inc(row["failed"])
            for kind in _TOKENS:
                self._tokens.labels(model, kind.removesuffix("_tokens")).inc(row[kind])
            self._cost.labels(model).inc(row["cost_usd"] or 0.0)
        self._running.set(self._dispatcher.running)
        self._waiting.set(waiting)
        self._outbox.set(outbox)
