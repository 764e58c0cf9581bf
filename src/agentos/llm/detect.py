"""Which model to use when none is named: a provider's key, a local server, or the built-in offline model."""

import json
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.error import URLError
from urllib.request import ProxyHandler, Request, build_opener

from agentos.settings import key_model, ollama_url

OFFLINE = "offline"
_TIMEOUT_SECONDS = 0.3
"""A local server answers in a few milliseconds; nobody should wait for one that is not there."""


def detect_model(
    model: str | None,
    *,
    api_base: str | None = None,
    api_key: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> tuple[str, str]:
    """(model name, how it was found), trying in order: `model`, the server at `api_base`, a provider's key in
    the environment, Ollama, `offline`.

    `environ` stands in for the process's environment. Never raises: what cannot be reached is passed over.
    Blocks for at most 0.3 s.
    """
    if model:
        return model, "as set"
    if api_base:
        first = _first_served(api_base, api_key)
        return (f"openai/{first}", f"first model of {api_base}") if first else (OFFLINE, f"{api_base} lists no model")
    if found := key_model(environ):
        return found, "a provider's key"
    url = ollama_url(environ)
    if name := _ollama_model(url):
        return f"ollama_chat/{name}", f"Ollama at {url}"
    return OFFLINE, "no key and no local server"


def _first_served(api_base: str, api_key: str | None) -> str | None:
    data = _get(f"{api_base.rstrip('/')}/models", api_key).get("data")
    ids = [item.get("id") for item in data if isinstance(item, dict)] if isinstance(data, list) else []
    return next((id for id in ids if isinstance(id, str) and id), None)


def _ollama_model(url: str) -> str | None:
    """The first model Ollama lists, one that can call tools where the list says so."""
    models = _get(f"{url.rstrip('/')}/api/tags").get("models")
    named = [m for m in models if isinstance(m, dict) and m.get("name")] if isinstance(models, list) else []
    named.sort(key=lambda m: "tools" not in (m.get("capabilities") or ()))  # stable: the list's order otherwise
    return str(named[0]["name"]) if named else None


def _get(url: str, api_key: str | None = None) -> dict[str, Any]:
    """The JSON object at `url`, or an empty one."""
    if not url.startswith(("http://", "https://")):
        return {}  # urllib would read files, too
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        # a proxy of the environment has no way to this machine's own servers
        with build_opener(ProxyHandler({})).open(Request(url, headers=headers), timeout=_TIMEOUT_SECONDS) as answer:
            value = json.load(answer)
    except (URLError, HTTPException, OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
