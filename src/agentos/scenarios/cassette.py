"""Recorded models: what a live model answered is kept in a vcrpy cassette beside the scenario, and played back offline.

The only importer of vcrpy, on first use: it is an optional part of the package.
"""

import json
import os
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, aclosing, contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from agentos.errors import AgentOSError, ConfigError, ProviderError
from agentos.events import Retry
from agentos.llm.litellm import LiteLLM
from agentos.messages import Reply
from agentos.protocols import Delta, LLMRequest
from agentos.scenarios.model import SUFFIX
from agentos.settings import load_settings, secrets

_HIDDEN = "HIDDEN"
"""Stands in a cassette where a key was."""
_UNSTABLE = ("prompt_cache_key",)
"""Parts of a request that are new in every run."""
_KEPT_HEADERS = ("content-type",)
_CALL_ID = re.compile(r"call_[0-9a-f]{32}")
_PASSING = (408, 429, 500, 502, 503, 504, 529)
_SHOWN = 60
"""Characters of a value that differs."""


def cassette_of(path: Path) -> Path:
    """The cassette of a scenario file."""
    return path.with_name(path.name.removesuffix(SUFFIX).removesuffix(".yaml") + ".cassette.yaml")


class Recorded(LiteLLM):
    """A model whose answers come from a cassette; a request that is not in it fails at once."""

    def __init__(self, path: Path, cassette: Any) -> None:
        made = cassette.get_metadata("agentos", {})
        super().__init__(made["model"], made["api_base"], _HIDDEN, context_window=made["context_window"])
        self.path, self._cassette = path, cassette
        self.asked: dict[str, Any] = {}
        """The last request."""

    async def stream(self, request: LLMRequest) -> AsyncGenerator[Delta | Retry | Reply, None]:
        """The reply as it was recorded."""
        played = self._cassette.play_count
        try:
            async with aclosing(super().stream(request)) as items:
                async for item in items:
                    if isinstance(item, Retry) and self._cassette.play_count == played:
                        break  # without a network it can only fail again
                    played = self._cassette.play_count
                    yield item
                else:
                    return
        except AgentOSError:
            if self._cassette.play_count > played:
                raise  # so it was recorded
        raise ProviderError(self._mismatch())

    @property
    def left(self) -> str:
        """What is wrong with a cassette that has more than was asked for, in one sentence; empty where it has not."""
        over = len(self._cassette) - self._cassette.play_count
        return f"{self.path} has {over} more requests than were made; {_REMEDY}" if over else ""

    def _mismatch(self) -> str:
        played, requests = self._cassette.play_count, self._cassette.requests
        if played >= len(requests):
            return f"{self.path} has {len(requests)} requests and this is one more; {_REMEDY}"
        lines = self.path.read_text("utf-8").splitlines()
        line = [at for at, text in enumerate(lines, 1) if text.startswith("- request:")][played]
        told = _difference(json.loads(requests[played].body or b"{}"), self.asked)
        return f"{self.path}:{line}: request {played + 1} is not the one that was recorded: {told}; {_REMEDY}"


_REMEDY = "record it anew with `agentos test SCENARIO --record --model NAME`"


class Recording(LiteLLM):
    """A live model whose answers are recorded."""

    is_sound = True
    """False: a request failed, and the recording is not kept."""


@contextmanager
def recording(path: Path, model: str, context_window: int | None) -> Iterator[Recording]:
    """The live model; what it is asked and answers takes the place of the cassette when no request failed."""
    settings = load_settings(model=model, context_window=context_window)
    hidden = secrets(settings)
    made = {"model": model, "api_base": _plain(settings.api_base), "context_window": settings.context_window}
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    try:
        with _vcr(hidden).use_cassette(str(new), record_mode="all") as cassette:
            cassette.get_metadata("agentos", made)
            llm = Recording(model, settings.api_base, settings.api_key, context_window=settings.context_window)
            yield llm
        if llm.is_sound:
            os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


@contextmanager
def replaying(path: Path) -> Iterator[Recorded]:
    """The model that was recorded; no request reaches the network. `ConfigError` where there is no sound cassette."""
    if not path.exists():
        raise ConfigError(f"{path} is not there; {_REMEDY}")
    asked: dict[str, Any] = {}
    opening = _vcr([], asked).use_cassette(str(path), record_mode="none")
    with ExitStack() as stack:
        try:
            recorded = Recorded(path, stack.enter_context(opening))
        except Exception as error:  # whatever vcrpy and YAML make of a file that is none
            raise ConfigError(f"{path} is no cassette: {' '.join(str(error).split())}; {_REMEDY}") from None
        recorded.asked = asked
        yield recorded


def _vcr(hidden: list[str], asked: dict[str, Any] | None = None) -> Any:
    """Cassettes without keys, in which a request is found by its body; the last one asked for is in `asked`."""
    try:
        import vcr
    except ImportError:
        remedy = "install them with `pip install 'agentos-kernel[record]'`"
        raise ConfigError(f"recorded models need parts that are not installed; {remedy}") from None

    def without_keys(text: str) -> str:
        return _without(text.encode(), hidden).decode()

    def request(made: Any) -> Any:
        body = json.loads(made.body or b"{}")
        values = {name: value for name, value in body.items() if name not in _UNSTABLE}
        made.body = _numbered(without_keys(json.dumps(values, ensure_ascii=False, sort_keys=True)))
        made.uri, made.headers = without_keys(made.uri), {}
        if asked is not None:
            asked.clear()
            asked.update(json.loads(made.body))
        return made

    def response(given: dict[str, Any]) -> dict[str, Any] | None:
        if given["status"]["code"] in _PASSING:
            return None  # the request was made again
        kept = {name: value for name, value in given["headers"].items() if name.lower() in _KEPT_HEADERS}
        return {**given, "headers": kept, "body": {"string": _without(given["body"]["string"], hidden)}}

    return vcr.VCR(
        match_on=["method", "path", "raw_body"], before_record_request=request, before_record_response=response,
        filter_query_parameters=["key", "api_key", "api-key"], decode_compressed_response=True,
    )  # fmt: skip


def _without(content: bytes, hidden: list[str]) -> bytes:
    for secret in hidden:
        content = content.replace(secret.encode(), _HIDDEN.encode())
    return content


def _numbered(text: str) -> str:
    """The ids that the runtime made for calls, which are new in every run, as numbers in their order."""
    numbers: dict[str, str] = {}
    return _CALL_ID.sub(lambda found: numbers.setdefault(found[0], f"call_{len(numbers) + 1}"), text)


def _plain(url: str | None) -> str | None:
    """An address without a user's name and password."""
    if url is None:
        return None
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def _difference(recorded: Any, asked: Any, place: str = "") -> str:
    """Where two requests differ first, and how."""
    if isinstance(recorded, dict) and isinstance(asked, dict):
        pairs = [(f"{place}.{key}".lstrip("."), recorded.get(key), asked.get(key)) for key in recorded | asked]
    elif isinstance(recorded, list) and isinstance(asked, list):
        pairs = [(f"{place}[{at}]", *pair) for at, pair in enumerate(zip_longest(recorded, asked))]
    else:
        at = next((i for i, pair in enumerate(zip(str(recorded), str(asked), strict=False)) if pair[0] != pair[1]), 0)
        start = max(0, at - 20)
        was, now = (str(value)[start : start + _SHOWN] for value in (recorded, asked))
        return f"{place} is {now!r} and was {was!r}"
    return next((_difference(was, now, where) for where, was, now in pairs if was != now), "its address is another")
