"""Where memory events came from: what the journal can be asked for, and an undo be told to take back whole."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from agentos.errors import NotFound, UsageError
from agentos.messages import Message

LARGEST_ID = 2**63 - 1
"""What the database can hold as a row's id."""


@dataclass(frozen=True)
class Source:
    """Where memory events came from: a turn, a message, one tool call of a message, an MCP client, or an import."""

    run_id: str | None = None
    message_id: int | None = None
    """A message that began a turn stands for the turn."""
    call_id: str | None = None
    client: str | None = None
    """The name of an MCP client, as the journal has it: what it calls itself and, in brackets, its token's name."""
    since: datetime | None = None
    """Of a client: only from this time on."""
    imported: bool = False
    """What an agent file brought with it."""

    def __post_init__(self) -> None:
        kinds = (self.run_id, self.message_id, self.call_id), (self.client,), (self.imported or None,)
        if sum(any(name is not None for name in kind) for kind in kinds) > 1:
            raise UsageError("a turn or message, a client, and what was imported are different sources; name one")
        if self.since is not None and self.client is None:
            raise UsageError("a time to begin from is for what a client wrote; name the client too")

    def message(self, tx: Any, agent_id: str) -> Message:
        """The message it names; `NotFound` when the agent has no such message."""
        found = next(iter(tx.messages(agent_id, [min(self.message_id or 0, LARGEST_ID)])), None)
        if found is None:
            raise NotFound(f"this agent has no message m{self.message_id}")
        return cast("Message", found)

    def events_of(self, tx: Any, agent_id: str) -> dict[str, Any]:
        """The source as conditions of `tx.events`; `NotFound` when the agent has no such message."""
        if self.client is not None:
            return {"client": self.client, "since": self.since}
        if self.imported:
            return {"actor": "import"}
        if self.message_id is None:
            return {"run_id": self.run_id, "call_id": self.call_id}
        message = self.message(tx, agent_id)
        if message.role == "user" and message.run_id:
            return {"run_id": message.run_id, "call_id": self.call_id}
        # its turn, too, by which the journal finds its events
        return {"run_id": self.run_id or message.run_id, "message_id": message.id, "call_id": self.call_id}
