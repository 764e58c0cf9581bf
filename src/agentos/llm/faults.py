"""What a failed model request means: who can act on it, in one clear sentence, and whether to try again."""

import json
import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from agentos.errors import AgentOSError, ConfigError, ContextOverflow, ProviderError

MAX_WAIT_SECONDS = 60.0
"""For one reply, all waits together; a provider that asks for more has failed."""
_TEMPORARY = (408, 409, 425, 429)

_OVERFLOW = re.compile(
    r"(?i)maximum context length|context_length_exceeded|exceed_context_size|context window.{0,40}exceed"
    r"|exceeds? (?:the |its )?(?:available |maximum |model'?s? )*(?:context|number of (?:input )?tokens)"
    r"|(?:prompt|input|request) is too long|input length.{0,40}exceeds|ContextWindowExceeded"
)
_WINDOW = re.compile(
    r"(?i)maximum context length (?:is|of) (\d[\d,]*)|tokens? > (\d[\d,]*) maximum|n_ctx\W{0,4}(\d+)"
    r"|available context size \((\d+)|tokens allowed \(?(\d[\d,]*)|context (?:length|window|size) (?:is|of) (\d[\d,]*)"
)
_UNREACHABLE = re.compile(
    r"(?i)connection error|cannot connect|connect call failed|connection refused|all connection attempts failed"
    r"|name or service not known|nodename nor servname|no address associated"
)
_BROKEN = re.compile(
    r"(?i)payload is not completed|TransferEncodingError|peer closed connection|incomplete (?:chunked )?read"
    r"|server disconnected|connection (?:reset|aborted|closed|lost)|broken pipe|EOF occurred"
)
_NO_PROVIDER = re.compile(r"(?i)LLM provider not provided|unmapped LLM provider")
_NO_KEY = re.compile(r"(?i)missing credentials|api_key client option must be set|missing \w+ api key|api key not found")
_NO_MODEL = re.compile(
    r"(?i)model\W.{0,80}(?:not found|does not exist|not exist)|not a valid model|unknown model|invalid model name"
)
_PREFIX = re.compile(r"^.*?Exception(?: \w+)? - |^(?:litellm\.)?\w+(?:Error|Timeout)\w*: ", re.S)


class Transient(ProviderError):
    """A fault that may pass: the request is repeated while nothing of the reply was shown.

    `remedy` is for the person to whom repeating did not help.
    """

    def __init__(
        self, message: str, remedy: str = "try again later", *, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.retry_after_seconds = retry_after_seconds


def explain(error: Exception, model: str, url: str) -> AgentOSError:
    """The fault behind an error of the provider library; `url` says where the request went."""
    causes = list(_chain(error))
    text = " | ".join(str(cause) for cause in causes)
    status = _status(causes)
    if status != 429 and _OVERFLOW.search(text):
        return ContextOverflow(f"the request is longer than the window of {model}: {_detail(error)}", _window(text))
    if (wrong := _configuration(text, status, model, url)) is not None:
        return ConfigError(f"{wrong} ({_detail(error)})")
    if _UNREACHABLE.search(text):
        return Transient(f"{url} cannot be reached", f"start the server for {model} or correct its address")
    if isinstance(error, TimeoutError) or status == 408:
        return Transient(
            f"{model} at {url} did not answer in time", "try again or raise AGENTOS_REQUEST_TIMEOUT_SECONDS"
        )
    if _BROKEN.search(text):
        return Transient(f"the connection to {url} broke off", "try again")
    if any(isinstance(cause, json.JSONDecodeError) for cause in causes) and status is None:
        return Transient(f"{url} sent something that is no reply", "see if it is a model server")
    if status is None or status >= 500 or status in _TEMPORARY:
        what = "is over its rate limit" if status == 429 else "failed"
        return _asked_to_wait(f"{model} {what}{f' ({status})' if status else ''}: {_detail(error)}", _wait(causes))
    return ProviderError(f"{model} refused the request ({status}): {_detail(error)}; see what the provider accepts")


def _asked_to_wait(fault: str, seconds: float | None) -> ProviderError:
    """A fault to repeat after the wait that the provider asks for, or to give up where that is too long."""
    if seconds is not None and seconds > MAX_WAIT_SECONDS:
        return ProviderError(
            f"{fault}; the provider asks to wait {_span(seconds)}: try again then, or use another model with --model"
        )
    return Transient(fault, retry_after_seconds=seconds)


def _span(seconds: float) -> str:
    """A length of time in its largest unit, rounded up: `90 s`, `2 min`, `1 h`, `3 days`."""
    for unit, length, least in (("days", 86_400, 2 * 86_400), ("h", 3600, 3600), ("min", 60, 120)):
        if seconds >= least:
            return f"{math.ceil(seconds / length)} {unit}"
    return f"{math.ceil(seconds)} s"


def _configuration(text: str, status: int | None, model: str, url: str) -> str | None:
    """What the caller has to change, or None."""
    if _NO_PROVIDER.search(text):
        return no_provider(model)
    if status in (401, 403) or _NO_KEY.search(text):
        return f"{url} refused the key for {model}; set AGENTOS_API_KEY or the provider's own key variable"
    if status == 404 or (status in (400, 422) and _NO_MODEL.search(text)):
        return f"{url} has no model {model}; choose another with AGENTOS_MODEL or correct AGENTOS_API_BASE"
    return None


def no_provider(model: str) -> str:
    """The sentence for a model name without a provider."""
    return (
        f"model {model!r} names no known provider; write it as provider/model, such as openai/gpt-4.1-mini or "
        "ollama_chat/llama3.2, or set AGENTOS_API_BASE to an OpenAI-compatible server"
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what led to it, nearest first."""
    for _ in range(6):
        if error is None:
            return
        yield error
        error = getattr(error, "original_exception", None) or error.__cause__ or error.__context__


def _status(causes: list[BaseException]) -> int | None:
    """The HTTP status. The library's wrapper around a broken stream has a made-up one, so that what it wraps counts."""
    wrapped = [cause for cause in causes if not hasattr(cause, "original_exception")]
    codes = [getattr(cause, "status_code", None) for cause in wrapped]
    return next((int(str(code)) for code in codes if str(code).isdigit()), None)


def _window(text: str) -> int | None:
    match = _WINDOW.search(text)
    return int(next(group for group in match.groups() if group).replace(",", "")) if match else None


def _wait(causes: list[BaseException]) -> float | None:
    """What the provider's Retry-After asks for, in seconds."""
    for cause in causes:
        holders = (getattr(cause, "litellm_response_headers", None), getattr(cause, "headers", None))
        for headers in (*holders, getattr(getattr(cause, "response", None), "headers", None)):
            if headers and (value := headers.get("retry-after")):
                return _seconds(value)
    return None


def _seconds(value: str) -> float | None:
    """Seconds from now: Retry-After is a number or an HTTP date."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value).astimezone(UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, OverflowError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _detail(error: Exception) -> str:
    """The provider's own words on one line, without the library's prefixes."""
    text = str(getattr(error, "original_exception", None) or error)
    for _ in range(4):
        text = _PREFIX.sub("", text, count=1)
    text = " ".join(text.split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:299]}…"
