"""Language models for tests: a script, or any function."""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Any

from agentos.errors import ProviderError
from agentos.events import Retry
from agentos.messages import Reply, ToolCall, Usage
from agentos.protocols import Delta, LLMRequest


def call(name: str, /, **arguments: Any) -> ToolCall:
    """A call as a model would ask for it; its id is made when it is saved."""
    return ToolCall(id="", name=name, arguments=json.dumps(arguments, ensure_ascii=False))


def say(text: str = "", *calls: ToolCall, usage: Usage | None = None) -> Reply:
    """A reply with text, calls, or both."""
    return Reply(text=text, calls=calls, usage=usage)


class FunctionLLM:
    """A function is the model: `reply(request)` returns a `Reply`, text, or an exception to raise.

    It may be async and may raise itself. `requests` keeps every request.
    A reply without usage is passed on so, as some providers do.
    """

    provider = "test"

    def __init__(
        self,
        reply: Callable[[LLMRequest], Any],
        *,
        name: str = "test/function",
        context_window: int = 32_768,
        max_output_tokens: int = 1024,
        keep_requests: bool = True,
    ) -> None:
        self.reply = reply
        self.name = name
        self.context_window = context_window
        self.max_output_tokens = max_output_tokens
        self.requests: list[LLMRequest] = []
        self._keep = keep_requests

    def count_tokens(self, text: str) -> int:
        """One token for four bytes, rounded up."""
        return (len(text.encode("utf-8", "surrogatepass")) + 3) // 4

    async def stream(self, request: LLMRequest) -> AsyncGenerator[Delta | Retry | Reply, None]:
        """Word by word, then the reply."""
        if self._keep:
            self.requests.append(request)
        value = self.reply(request)
        if isinstance(value, Awaitable):
            value = await value
        if isinstance(value, Exception):
            raise value
        reply = Reply(text=value) if isinstance(value, str) else value
        if reply.text:
            yield Delta(reply.text)
        yield reply


class ScriptedLLM(FunctionLLM):
    """Says and calls what its script tells, a line a request; a script that ends early fails the run.

    A line is text, a `Reply` (see `say` and `call`), or an exception to raise.
    """

    def __init__(self, script: Iterable[Reply | str | Exception], **options: Any) -> None:
        self.script = list(script)
        super().__init__(self._next, **{"name": "test/scripted", **options})

    def _next(self, request: LLMRequest) -> Reply | str | Exception:
        if not self.script:
            raise ProviderError("the script has no line left for this request; add one")
        return self.script.pop(0)
