"""Settings and where they come from. The only reader of the environment.

Order: what the caller passes (flags), environment, `./agentos.toml`, the user's config file, default.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from platformdirs import user_config_path, user_data_path
from pydantic import BaseModel, ConfigDict, DirectoryPath, Field, ValidationError

from agentos.errors import ConfigError

PROVIDER_KEYS = {
    "ANTHROPIC_API_KEY": "anthropic/claude-sonnet-4-5",
    "OPENAI_API_KEY": "openai/gpt-4.1-mini",
    "GEMINI_API_KEY": "gemini/gemini-2.5-flash",
    "MISTRAL_API_KEY": "mistral/mistral-medium-latest",
    "OPENROUTER_API_KEY": "openrouter/openai/gpt-4.1-mini",
    "GROQ_API_KEY": "groq/llama-3.3-70b-versatile",
    "DEEPSEEK_API_KEY": "deepseek/deepseek-chat",
}
"""The model each provider's key stands for, first match wins."""
TOKEN_FILE = "server.token"
"""In a home: the bearer token of its server."""
_SHORTEST_SECRET = 8
"""What is shorter would be found in ordinary words."""
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Settings(BaseModel):
    """Everything that can be configured; see README for the names in the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    home: Path = Field(default_factory=lambda: user_data_path("agentos"))
    """The one directory that holds all data."""
    model: str | None = None
    """`offline`, any litellm model name, or None to detect one."""
    api_base: str | None = None
    """An OpenAI-compatible server for `model`."""
    api_key: str | None = Field(default=None, repr=False)
    context_window: int | None = Field(default=None, ge=8000)
    """Tokens; None takes the model's. Below the minimum, core memory could not grow beside tools and system text."""
    embedding: str = "static"
    database_url: str | None = Field(default=None, repr=False)
    """None: SQLite in the home; `postgresql://...` where several machines serve the same agents."""
    lease_seconds: float = Field(default=6.0, gt=0)
    """On PostgreSQL, how long a process that is not heard of keeps its agents."""
    chroma_url: str | None = None
    """None: embedded, in the home."""
    token: str | None = Field(default=None, repr=False)
    cache_ttl_seconds: int = Field(default=300, ge=0)
    """How long the provider keeps a prompt cache; a longer pause makes rebasing the snapshot free."""
    index_min_passages: int = Field(default=0, ge=0)
    """An agent gets its vector collection once it has more passages than this; the exact scan answers below."""
    max_steps: int = Field(default=25, ge=1)
    max_turn_tokens: int | None = Field(default=None, ge=1)
    """Prompt and completion tokens of one turn."""
    max_turn_cost_usd: float | None = Field(default=None, gt=0)
    request_timeout_seconds: float = Field(default=120.0, gt=0)
    personas: DirectoryPath | None = None
    """A folder of the user's own personas; None takes `personas` in the home."""


_ENVIRONMENT = {
    f"AGENTOS_{name.upper()}": name
    for name in (
        "home", "model", "api_base", "api_key", "context_window", "embedding", "database_url", "lease_seconds",
        "chroma_url", "token", "cache_ttl_seconds", "index_min_passages", "max_steps", "max_turn_tokens",
        "max_turn_cost_usd", "request_timeout_seconds", "personas",
    )
}  # fmt: skip


def load_settings(environ: Mapping[str, str] | None = None, **flags: Any) -> Settings:
    """The settings in force; flags that are None count as not given. Raises `ConfigError`."""
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    files = (user_config_path("agentos") / "config.toml", Path("agentos.toml"))
    given = [(name, value, str(path)) for path in files for name, value in _read_toml(path).items()]
    given += [(name, environ[key], key) for key, name in _ENVIRONMENT.items() if environ.get(key)]
    given += [(name, value, "a flag") for name, value in flags.items() if value is not None]
    for name, value, source in given:
        _refuse_unknown(name, source)
        values[name], sources[name] = value, source
    if isinstance(folder := values.get("personas"), str):
        values["personas"] = os.path.expanduser(folder)
    try:
        settings = Settings.model_validate(values)
        return settings.model_copy(update={"home": settings.home.expanduser().absolute()})
    except RuntimeError as error:  # `~somebody` who is not there
        raise ConfigError(f"AGENTOS_HOME {str(values['home'])!r} names no folder: {error}; give a full path") from None
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        shown = repr(first.get("input")) if Settings.model_fields[name].repr else "what was given"
        raise ConfigError(
            f"setting {name!r} cannot be {shown}: {first['msg']}; correct it in {sources[name]}"
        ) from None


def key_model(environ: Mapping[str, str] | None = None) -> str | None:
    """The model that a provider key in the environment stands for, or None."""
    environ = os.environ if environ is None else environ
    return next((model for key, model in PROVIDER_KEYS.items() if environ.get(key)), None)


def secrets(settings: Settings, environ: Mapping[str, str] | None = None) -> list[str]:
    """Keys that must not be written anywhere, the longest first: those of the settings and of the environment."""
    environ = os.environ if environ is None else environ
    given = [value for name, value in environ.items() if name.endswith(("_KEY", "_TOKEN", "_SECRET"))]
    given += [settings.api_key or "", settings.token or "", urlsplit(settings.database_url or "").password or ""]
    found = {value for value in given if len(value) >= _SHORTEST_SECRET}
    return sorted(found, key=len, reverse=True)


def filled_in(text: str, environ: Mapping[str, str] | None = None) -> tuple[str, list[str]]:
    """(`text` with each `${NAME}` as the environment has it, the values put in); `ConfigError` where it has none."""
    environ = os.environ if environ is None else environ
    values: list[str] = []

    def value(match: re.Match[str]) -> str:
        if match[1] not in environ:
            raise ConfigError(f"the environment variable {match[1]} is not set where agentos runs; set it there")
        values.append(environ[match[1]])
        return values[-1]

    return _REFERENCE.sub(value, text), values


def references_only(text: str) -> bool:
    """Whether `text` holds nothing that could be a secret beside references like `${NAME}`."""
    return _REFERENCE.sub("", text).strip() in ("", "Bearer", "Basic", "token")


def home_token(home: Path) -> str:
    """The token that a home's server made for itself; empty when there is none."""
    try:
        return (home / TOKEN_FILE).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def ollama_url(environ: Mapping[str, str] | None = None) -> str:
    """Where Ollama listens, if it runs."""
    environ = os.environ if environ is None else environ
    host = (environ.get("OLLAMA_HOST") or "127.0.0.1").replace("0.0.0.0", "127.0.0.1")
    url = host if "://" in host else f"http://{host}"
    return url if url.rpartition(":")[2].strip("/").isdigit() else f"{url.rstrip('/')}:11434"


def _refuse_unknown(name: str, source: str) -> None:
    if name in Settings.model_fields:
        return
    close = get_close_matches(name, Settings.model_fields, 1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    raise ConfigError(f"{source}: there is no setting {name!r}; {meant}there are: {', '.join(Settings.model_fields)}")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}; correct or remove it") from None
