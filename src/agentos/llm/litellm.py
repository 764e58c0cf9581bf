"""Any hosted or local model through litellm: the only importer of that library, on first use (it takes seconds)."""

import asyncio
import gc
import logging
import os
import threading
import warnings
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type
from tenacity.wait import wait_exponential, wait_random

from agentos.errors import ConfigError, ProviderError
from agentos.events import Retry
from agentos.llm.assembly import ReplyBuilder
from agentos.llm.cache_plan import cache_style, plan_cache
from agentos.llm.faults import MAX_WAIT_SECONDS, Transient, explain, no_provider
from agentos.messages import Reply, Usage
from agentos.protocols import Delta, LLMRequest

MAX_REQUESTS = 5
"""For one reply, the first included."""
MAX_BACKOFF_SECONDS = 30.0
DEFAULT_WINDOW = 32_768
OLLAMA_WINDOW = 8192
"""Ollama loads a model with the window each request names; its own default silently cuts longer prompts."""
DEFAULT_OUTPUT = 4096
_O200K_FILE = "fb374d419588a4632f3f557e76b4b70aebbca790"
"""Under this name litellm's wheel carries the vocabulary o200k_base."""
_TOKEN_CHUNK = 2000
"""Characters encoded at once: the encoder is quadratic in the length of an unbroken run of letters."""
_LOADING = threading.Lock()
_OPTIONAL = ("prompt_cache_key", "stream_options")
"""Arguments that some servers refuse and a reply does not need."""


class LiteLLM:
    """An `LLM` behind any provider litellm knows, or any OpenAI-compatible server at `api_base`.

    Making one is cheap; litellm is loaded at the first request, or when `provider`, `context_window` or
    `max_output_tokens` is read. With `api_base`, a model without a provider's prefix is `openai/<model>`.
    `backoff_seconds` is the first wait before a repeated request; each further one is about twice as long.
    """

    def __init__(
        self,
        model: str,
        api_base: str | None = None,
        api_key: str | None = None,
        *,
        context_window: int | None = None,
        request_timeout_seconds: float = 120.0,
        backoff_seconds: float = 1.0,
    ) -> None:
        self.name = model
        self._api_base = _checked_url(api_base)
        self._api_key = api_key
        self._window = context_window
        self._timeout = request_timeout_seconds
        self._backoff = backoff_seconds
        self._refused: set[str] = set()

    @cached_property
    def provider(self) -> str:
        """The provider's name, with the server's address where one was given. Raises `ConfigError`."""
        return self._route[1] + (f"@{urlsplit(self._api_base).netloc}" if self._api_base else "")

    @property
    def loaded(self) -> bool:
        """Whether its properties are known without loading litellm, which takes seconds."""
        return bool(load_litellm.cache_info().currsize)

    @cached_property
    def context_window(self) -> int:
        """Tokens of prompt and reply together: as given, else as litellm knows it, else a cautious default."""
        known = int(self._info.get("max_input_tokens") or 0)
        if self._is_ollama:
            return self._window or min(known or OLLAMA_WINDOW, OLLAMA_WINDOW)
        return self._window or known or DEFAULT_WINDOW

    @cached_property
    def max_output_tokens(self) -> int:
        """Tokens reserved for the reply."""
        return min(int(self._info.get("max_output_tokens") or DEFAULT_OUTPUT), DEFAULT_OUTPUT, self.context_window // 4)

    def count_tokens(self, text: str) -> int:
        """Tokens of o200k_base: an estimate for every other model. Never downloads."""
        encode = _encoder()
        return sum(encode(text[at : at + _TOKEN_CHUNK]) for at in range(0, len(text), _TOKEN_CHUNK))

    async def stream(self, request: LLMRequest) -> AsyncGenerator[Delta | Retry | Reply, None]:
        """The reply to `request`, as it arrives; see `LLM`."""
        if not load_litellm.cache_info().currsize:
            await asyncio.to_thread(load_litellm)
        _mute()
        retries: list[Retry] = []
        try:
            async for attempt in self._attempts(retries):
                if retries:
                    yield retries[-1]
                    await asyncio.sleep(retries[-1].wait_seconds)
                with attempt:
                    source = self._reply(request)
                    first = await anext(source)
        except Transient as fault:
            tried = f" (tried {len(retries) + 1} times)" if retries else ""
            raise ProviderError(f"{fault}{tried}; {fault.remedy}") from fault
        async with aclosing(source):
            yield first
            try:
                async for part in source:
                    yield part
            except Transient as fault:
                raise ProviderError(
                    f"the reply ended too soon, {fault}; what came of it is not kept, so ask again"
                ) from fault

    def _attempts(self, retries: list[Retry]) -> AsyncRetrying:
        """Up to five attempts; each failed one that is repeated leaves its event in `retries`."""
        backoff = wait_exponential(self._backoff, MAX_BACKOFF_SECONDS) + wait_random(0, self._backoff)

        def wait(state: RetryCallState) -> float:
            asked = getattr(state.outcome and state.outcome.exception(), "retry_after_seconds", None)
            return float(backoff(state) if asked is None else asked)

        def is_enough(state: RetryCallState) -> bool:
            return state.attempt_number >= MAX_REQUESTS or state.idle_for + state.upcoming_sleep > MAX_WAIT_SECONDS

        def note(state: RetryCallState) -> None:
            error = state.outcome and state.outcome.exception()
            retries.append(Retry(error=str(error), attempt=state.attempt_number, wait_seconds=state.upcoming_sleep))

        async def no_sleep(seconds: float) -> None:
            """`stream` itself waits, after it has yielded the event."""

        return AsyncRetrying(
            stop=is_enough,
            retry=retry_if_exception_type(Transient),
            wait=wait,
            before_sleep=note,
            sleep=no_sleep,
            reraise=True,
        )

    async def _reply(self, request: LLMRequest) -> AsyncGenerator[Delta | Reply, None]:
        """One attempt: one request and its whole reply."""
        building = ReplyBuilder([tool["function"]["name"] for tool in request.tools])
        async with aclosing(self._chunks(request)) as chunks:
            async for chunk in chunks:
                for delta in building.feed(chunk):
                    yield delta
        if not building.heard:
            raise Transient(f"{self._url} answered {self.name} with no reply at all", "see if it is a model server")
        for delta in building.finish():
            yield delta
        fields = building.fields
        yield Reply(
            text=building.text,
            calls=building.calls,
            usage=self._usage(building.usage),
            finish_reason=building.finish_reason or "stop",
            provider={"name": self.provider, "fields": fields} if fields else None,
            model=building.model or self.name,
        )

    async def _chunks(self, request: LLMRequest) -> AsyncGenerator[Any, None]:
        """The chunks of the reply as the provider sent them; raises what `explain` makes of any failure."""
        arguments = self._arguments(request)
        response: Any = None
        try:
            async with asyncio.timeout(self._timeout):
                response = await load_litellm().acompletion(**arguments)
            # an OpenAI stream is read without litellm's wrapper: that one doubles the time of a request, makes up
            # usage and a finish reason where none came, and takes a hundred equal chunks for a fault
            raw: Any = getattr(response, "completion_stream", None)
            stream = raw if type(raw).__name__ == "AsyncStream" else _unembellished(response)
            chunks = aiter(stream)
            while True:
                async with asyncio.timeout(self._timeout):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    return
                yield chunk
        # whatever a provider's library raises, of a hundred kinds, is a failed request
        except Exception as error:
            self._drop_refused(arguments, error)
            raise explain(error, self.name, self._url) from error
        finally:
            if response is not None:
                await response.aclose()

    def _drop_refused(self, arguments: dict[str, Any], error: Exception) -> None:
        """Where the server refused an argument that is not needed, leave it out from now on and try again."""
        if getattr(error, "status_code", None) not in (400, 422):
            return
        for name in _OPTIONAL:
            if name in arguments and name in str(error):
                self._refused.add(name)
                raise Transient(f"{self._url} does not take {name}; it is left out", retry_after_seconds=0.0) from error

    def _arguments(self, request: LLMRequest) -> dict[str, Any]:
        model, provider = self._route
        style = cache_style(provider, model)
        messages, extra = plan_cache(style, request.messages, request.previous_length, request.cache_key)
        arguments: dict[str, Any] = {
            "model": f"{provider}/{model}",
            "messages": [dict(message) for message in messages],  # some of litellm's adapters edit them in place
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": request.max_tokens,
            "timeout": self._timeout,
            "num_retries": 0,
            "max_retries": 0,
            "api_base": self._api_base,
            "api_key": self._key,
            **extra,
        }
        if request.tools:
            arguments["tools"] = list(request.tools)
        if self._is_ollama:
            arguments["num_ctx"] = self.context_window
        for name in self._refused:
            arguments.pop(name, None)
        return _unchecked(arguments) if self._is_custom_server else arguments

    @cached_property
    def _route(self) -> tuple[str, str]:
        """(model, provider) as litellm has them."""
        litellm = load_litellm()
        model = self.name
        if self._api_base and model.partition("/")[0] not in {str(p.value) for p in litellm.LlmProviders}:
            return model, "openai"
        try:
            model, provider, *_ = litellm.get_llm_provider(model, api_base=self._api_base)
        except litellm.exceptions.BadRequestError:
            raise ConfigError(no_provider(self.name)) from None
        return str(model), str(provider)

    @cached_property
    def _info(self) -> dict[str, Any]:
        model, provider = self._route
        try:
            return dict(load_litellm().get_model_info(model, custom_llm_provider=provider, api_base=self._api_base))
        except Exception:  # it raises a bare Exception for a model it does not know
            return {}

    @property
    def _is_ollama(self) -> bool:
        return self._route[1] in ("ollama", "ollama_chat")

    @cached_property
    def _is_custom_server(self) -> bool:
        """An OpenAI-compatible server that is not OpenAI's, for a model that litellm would not route elsewhere."""
        host = urlsplit(self._api_base or "https://api.openai.com").hostname or ""
        return (
            self._route[1] == "openai" and not host.endswith("openai.com") and self._info.get("mode") in (None, "chat")
        )

    @property
    def _key(self) -> str | None:
        if self._api_key or not self._is_custom_server:
            return self._api_key
        # a local server needs none, but the client library does
        return load_litellm().get_secret_str("OPENAI_API_KEY") or "none"

    @property
    def _url(self) -> str:
        """Where requests go, for error messages."""
        if self._api_base:
            return self._api_base
        return "http://localhost:11434" if self._is_ollama else f"the provider {self._route[1]!r}"

    def _usage(self, usage: Any) -> Usage | None:
        """Our figures from the provider's; None where it reported none."""
        prompt, completion = (int(getattr(usage, f"{kind}_tokens", 0) or 0) for kind in ("prompt", "completion"))
        if not prompt and not completion:
            return None
        details = getattr(usage, "prompt_tokens_details", None)
        cached = getattr(details, "cached_tokens", None) or getattr(usage, "cache_read_input_tokens", None)
        return Usage(prompt, completion, int(cached or 0), self._cost(usage))

    def _cost(self, usage: Any) -> float | None:
        reported = getattr(usage, "cost", None)  # OpenRouter says what it charged
        if isinstance(reported, int | float):
            return float(reported)
        if not self._info:  # nothing is known of the model, and to find that out again takes a while
            return None
        litellm = load_litellm()
        model, provider = self._route
        known = usage if isinstance(usage, litellm.Usage) else litellm.Usage(**usage.model_dump())
        try:
            return float(sum(litellm.cost_per_token(model, custom_llm_provider=provider, usage_object=known)))
        except Exception:  # it raises a bare Exception for a model without a price
            return None


def _unchecked(arguments: dict[str, Any]) -> dict[str, Any]:
    """The same request with its long parts in `extra_body`, which the client library sends as they are.

    Checked by its type annotations, each message costs 0.2 ms: 200 ms for a thousand.
    """
    body = {name: arguments.pop(name) for name in ("messages", "tools") if name in arguments}
    return arguments | {"messages": [], "extra_body": body}


async def _unembellished(response: Any) -> AsyncGenerator[Any, None]:
    """litellm's chunks without the usage and the finish reason it made up."""
    async for chunk in response:
        if getattr(chunk, "usage", None) and not any(getattr(past, "usage", None) for past in response.chunks):
            chunk.usage = None
        for choice in chunk.choices[:1]:
            if response.received_finish_reason is None and not getattr(response, "intermittent_finish_reason", None):
                choice.finish_reason = None
        yield chunk


@lru_cache
def load_litellm() -> Any:
    """litellm, quiet and without its own downloads and retries."""
    # otherwise its import fetches a price list from the network
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    with _kept_for_good():
        import litellm

    litellm.suppress_debug_info = True  # it prints advice to the terminal
    litellm.telemetry = False
    litellm.disable_streaming_logging = True
    litellm.DEFAULT_MAX_RETRIES = 0  # for embeddings it takes `max_retries=0` for "not given" and tries three times
    for name in ("LiteLLM", "LiteLLM Proxy", "LiteLLM Router"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return litellm


@contextmanager
def _kept_for_good() -> Iterator[None]:
    """Have the garbage collector never look at what is made meanwhile, nor at what was there before.

    litellm's 400,000 objects stay as long as the process; to look through them stops it for a third of a second,
    several times during the import and then every few hundred turns.
    """
    with _LOADING:  # two threads may both be the first to need it
        collecting = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            gc.freeze()
            if collecting:
                gc.enable()


def _checked_url(url: str | None) -> str | None:
    """`url` where it can be one; `ConfigError` says what it should look like."""
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0):
            return url
    except ValueError:  # a port beyond 65535, half an IPv6 address
        pass
    raise ConfigError(f"AGENTOS_API_BASE {url!r} is no URL of a server; write it like http://127.0.0.1:8080/v1")


def _mute() -> None:
    """Ignore the warnings that litellm's own types cause; a caller may have reset the filters it sets on import."""
    # the last: where a request fails early, it leaves a coroutine of its own that it never awaits
    for message in (".*`ReadOnly` qualifier.*", "Pydantic serializer warnings.*", "coroutine 'OpenAIChatCompletion.*"):
        warnings.filterwarnings("ignore", message=message)


@lru_cache
def _encoder() -> Callable[[str], int]:
    """Counts the tokens of a short text with a vocabulary from litellm's wheel, without importing litellm."""
    spec = find_spec("litellm")
    folder = Path(((spec and spec.submodule_search_locations) or [""])[0]) / "litellm_core_utils" / "tokenizers"
    os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)  # as litellm itself sets it
    import tiktoken

    # without its file tiktoken would download the vocabulary; older wheels carry only the other one
    encoding = tiktoken.get_encoding("o200k_base" if (folder / _O200K_FILE).exists() else "cl100k_base")

    @lru_cache(maxsize=1024)  # agents share system text and tools, which are most of a first prompt
    def count(chunk: str) -> int:
        return len(encoding.encode_ordinary(chunk))

    return count
