"""Errors, sorted by who can act on them.

    AgentOSError
      ToolError            the model can act: its text goes back as the tool's result
      UsageError           the caller can act: bad input (exit code 2)
        NotFound           what is named does not exist, or not for this caller
        Conflict           the input does not go with what is saved already
          PendingApproval    calls wait for approval, and the caller's message is not to refuse them
        Overloaded         too much input waits; the same may be sent again later
      ConfigError          the caller can act: no such model, bad URL, damaged file (exit code 3)
      StoreError           the caller can act: full or read-only disk, locked or newer database (exit code 1)
        AgentBusy          another process holds the agent's turn
          LeaseLost        another process took the agent's turn over from this one
      ProviderError        the model provider failed after its retries (exit code 4)
        ContextOverflow    the provider says the request is longer than its window
      Stopping             this process ends; what was saved goes on at its next start
      IndexUnavailable     the vector index cannot answer now; searches fall back to the exact scan
        IndexBusy          another process has it open

Anything else is a bug and propagates. Each message names the value, the limit and the remedy.
"""


class AgentOSError(Exception):
    """Base of every error that is not a bug."""

    exit_code = 1


class ToolError(AgentOSError):
    """A tool call that cannot be carried out; the text tells the model how to succeed."""


class UsageError(AgentOSError):
    """Input that the caller must change."""

    exit_code = 2


class NotFound(UsageError):
    """What is named does not exist, or not for this caller."""


class Conflict(UsageError):
    """Input that does not go with what is saved: an idempotency key used again, a text that changed meanwhile."""


class PendingApproval(Conflict):
    """Calls wait for approval; nothing was saved, because the message would have refused them."""


class Overloaded(UsageError):
    """Nothing was saved because too much input waits; it may be sent again after `retry_after_seconds`."""

    def __init__(self, message: str, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class ConfigError(AgentOSError):
    """A setting, model or file that the caller must change."""

    exit_code = 3


class StoreError(AgentOSError):
    """The session database refused; nothing of the failed transaction was kept."""


class AgentBusy(StoreError):
    """Another process is running a turn of this agent."""

    def __init__(
        self,
        message: str = "another process has been running a turn of this agent for 30 s; the message is saved and is "
        "answered there or at the next start, so do not send it again",
    ) -> None:
        super().__init__(message)


class LeaseLost(AgentBusy):
    """This process was silent for so long that another took over the agent's turn; nothing more of it is kept here."""


class ProviderError(AgentOSError):
    """The model provider failed; the input is saved and the run can be taken up again."""

    exit_code = 4


class ContextOverflow(ProviderError):
    """The request was longer than the provider's window.

    `window_tokens` is the window the provider named, or None when it named none.
    """

    def __init__(self, message: str, window_tokens: int | None = None) -> None:
        super().__init__(message)
        self.window_tokens = window_tokens


class Stopping(AgentOSError):
    """This process ends before the turn does; the input is saved, and the turn goes on at the next start."""

    def __init__(self) -> None:
        super().__init__("the server stops; the message is saved and is answered once it has started again")


class IndexUnavailable(AgentOSError):
    """The vector index is down, rebuilding, or owned by another process."""


class IndexBusy(IndexUnavailable):
    """Another process has the vector index open, and keeps it up to date."""
