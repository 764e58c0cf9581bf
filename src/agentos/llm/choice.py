"""Which model answers: the one handed in, the one that is named, or the one that is found."""

from functools import lru_cache

from agentos.llm.detect import detect_model
from agentos.protocols import LLM
from agentos.settings import Settings, ollama_url

_IN_MEMORY = 100


class Models:
    """The models of one home by name. Making one is cheap: its library is loaded when it is first asked."""

    def __init__(self, settings: Settings, given: LLM | None = None) -> None:
        self._settings, self._given = settings, given
        self._called = lru_cache(_IN_MEMORY)(self._make)  # a client may name ever new ones
        self._found: tuple[str, str] | None = None
        self.source = "handed in" if given else ""
        """How the model was chosen, in words."""

    def named(self, model: str | None = None) -> LLM:
        """The model called `model`, or the one the settings and the machine's providers give."""
        if self._given is not None:
            return self._given
        if model is None:
            settings = self._settings
            if self._found is None:
                self._found = detect_model(settings.model, api_base=settings.api_base, api_key=settings.api_key)
            model, self.source = self._found
        return self._called(model)

    def _make(self, model: str) -> LLM:
        settings = self._settings
        if model == "offline":
            from agentos.llm.offline import OfflineLLM

            return OfflineLLM(**({"context_window": settings.context_window} if settings.context_window else {}))
        from agentos.llm.litellm import LiteLLM

        local = ollama_url() if model.startswith(("ollama/", "ollama_chat/")) else None
        return LiteLLM(
            model, api_base=settings.api_base or local, api_key=settings.api_key,
            context_window=settings.context_window, request_timeout_seconds=settings.request_timeout_seconds,
        )  # fmt: skip
