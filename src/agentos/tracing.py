"""OpenTelemetry spans of turns, model calls and tool calls, by its GenAI conventions; never a word of a message.

Until a program sets up OpenTelemetry's SDK they go nowhere and cost next to nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from agentos.messages import Reply, Usage

_PROVIDERS = {
    "azure": "azure.ai.openai", "bedrock": "aws.bedrock", "gemini": "gcp.gemini", "mistral": "mistral_ai",
    "vertex_ai": "gcp.vertex_ai", "xai": "x_ai",
}  # fmt: skip
"""Our names of providers that have another one there."""


@cache
def _api() -> tuple[Any, Any]:
    from opentelemetry import trace  # which takes longer than most commands

    return trace, trace.get_tracer("agentos")


class Trace:
    """The spans of one agent: its turns one after another, and in each its model and tool calls."""

    def __init__(self) -> None:
        self._turn: Any = None
        self._run_id: str | None = None

    def turn(self, run_id: str | None, agent_id: str, agent_name: str) -> Any:
        """The context that a call of this run belongs to; the turn's span begins with its first. None without a run."""
        trace, tracer = _api()
        if run_id != self._run_id:
            self.end()
        if run_id is None:
            return None
        if self._turn is None:
            attributes = {
                "gen_ai.operation.name": "invoke_agent", "gen_ai.agent.id": agent_id, "gen_ai.agent.name": agent_name,
                "gen_ai.conversation.id": agent_id, "agentos.run.id": run_id,
            }  # fmt: skip
            self._turn = tracer.start_span(f"invoke_agent {agent_name}", attributes=attributes)
            self._run_id = run_id
        return trace.set_span_in_context(self._turn)

    def end(self, stop_reason: str | None = None, usage: Usage | None = None) -> None:
        """The turn is over, or, without a reason, breaks off. Nothing happens when none goes on."""
        if self._turn is None:
            return
        span, self._turn, self._run_id = self._turn, None, None
        span.set_attributes({"agentos.stop_reason": stop_reason or "interrupted", **_used(usage)})
        if stop_reason in ("llm_error", None):
            _fail(span, stop_reason or "interrupted")
        span.end()


@contextmanager
def chat(context: Any, provider: str, model: str, max_tokens: int, agent_id: str) -> Iterator[Any]:
    """A model call; `replied` notes its end on what this yields."""
    kind = provider.partition("@")[0]
    attributes = {
        "gen_ai.provider.name": _PROVIDERS.get(kind, kind), "gen_ai.request.model": model,
        "gen_ai.conversation.id": agent_id, "gen_ai.request.max_tokens": max_tokens, "gen_ai.request.stream": True,
    }  # fmt: skip
    with _call(context, "chat", model, "CLIENT", attributes) as span:
        yield span


def replied(span: Any, reply: Reply) -> None:
    """Note what a model call used and why it ended."""
    found = {"gen_ai.response.finish_reasons": [reply.finish_reason], **_used(reply.usage)}
    if reply.model:
        found["gen_ai.response.model"] = reply.model
    span.set_attributes(found)


@contextmanager
def execute_tool(context: Any, name: str, call_id: str) -> Iterator[Any]:
    """A tool call; `failed` notes on what this yields that it did not succeed."""
    attributes = {"gen_ai.tool.name": name, "gen_ai.tool.call.id": call_id, "gen_ai.tool.type": "function"}
    with _call(context, "execute_tool", name, "INTERNAL", attributes) as span:
        yield span


def failed(span: Any) -> None:
    """Note that a tool call's result is an error."""
    _fail(span, "tool_error")


@contextmanager
def _call(context: Any, operation: str, name: str, kind: str, attributes: dict[str, Any]) -> Iterator[Any]:
    """A span that is the current one meanwhile. An exception leaves its type only: its text may quote a message."""
    trace, tracer = _api()
    with tracer.start_as_current_span(
        f"{operation} {name}", context, trace.SpanKind[kind], {"gen_ai.operation.name": operation, **attributes},
        record_exception=False, set_status_on_exception=False,
    ) as span:  # fmt: skip
        try:
            yield span
        except BaseException as error:
            _fail(span, type(error).__qualname__)
            raise


def _fail(span: Any, kind: str) -> None:
    trace, _ = _api()
    span.set_attribute("error.type", kind)
    span.set_status(trace.StatusCode.ERROR)


def _used(usage: Usage | None) -> dict[str, Any]:
    if usage is None:
        return {}
    return {
        "gen_ai.usage.input_tokens": usage.prompt_tokens, "gen_ai.usage.output_tokens": usage.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
    }  # fmt: skip
