"""What the options of `agentos chat` choose."""

from dataclasses import dataclass

DEFAULT_AGENT = "default"


@dataclass(frozen=True)
class Chosen:
    """What the options of `agentos chat` say."""

    agent: str | None = None
    persona: str | None = None
    model: str | None = None
    resume: bool = False
    """Take the agent used last."""
    max_steps: int | None = None
    server: str | None = None
    """The URL of a server whose agent it is."""
    known: bool = False
    """Whether the agent must exist already."""
