"""An agent runtime whose agents edit their own bounded memory, page the rest, and never lose a turn."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentos.agent import Agent
    from agentos.errors import AgentOSError, ConfigError, ProviderError, StoreError, ToolError, UsageError
    from agentos.events import Event, TurnResult
    from agentos.messages import Block, Message, Passage, Usage
    from agentos.runtime import Runtime
    from agentos.settings import Settings, load_settings
    from agentos.state import Decision
    from agentos.tools.tool import Tool, tool

_HOMES = {
    "Agent": "agent",
    "AgentOSError": "errors",
    "Block": "messages",
    "ConfigError": "errors",
    "Decision": "state",
    "Event": "events",
    "Message": "messages",
    "Passage": "messages",
    "ProviderError": "errors",
    "Runtime": "runtime",
    "Settings": "settings",
    "StoreError": "errors",
    "Tool": "tools.tool",
    "ToolError": "errors",
    "TurnResult": "events",
    "Usage": "messages",
    "UsageError": "errors",
    "load_settings": "settings",
    "tool": "tools.tool",
}

__all__ = [
    "Agent",
    "AgentOSError",
    "Block",
    "ConfigError",
    "Decision",
    "Event",
    "Message",
    "Passage",
    "ProviderError",
    "Runtime",
    "Settings",
    "StoreError",
    "Tool",
    "ToolError",
    "TurnResult",
    "Usage",
    "UsageError",
    "load_settings",
    "tool",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that `agentos --version` costs next to nothing."""
    if name == "__version__":
        return _version()
    if name not in _HOMES:
        raise AttributeError(f"module 'agentos' has no attribute {name!r}")
    return getattr(import_module(f"agentos.{_HOMES[name]}"), name)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # 30 ms that no other import of the package pays

    try:
        return version("agentos-kernel")
    except PackageNotFoundError:  # a source tree that was not installed
        return "0.0.0"
