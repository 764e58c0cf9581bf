"""The tools one agent has, and how a call of theirs becomes an effect."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from agentos.errors import AgentOSError, ToolError
from agentos.messages import Approval, ToolCall
from agentos.protocols import Effect, ToolResult
from agentos.tools.tool import Tool, ToolContext


class Toolset:
    """An ordered set of tools with unique names."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self.tools = {tool.name: tool for tool in tools}
        self.schemas: list[dict[str, Any]] = [tool.schema for tool in self.tools.values()]

    def only(self, names: Iterable[str] | None) -> "Toolset":
        """The tools among `names` (all for None), in this set's order."""
        wanted = None if names is None else set(names)
        return Toolset(t for t in self.tools.values() if wanted is None or t.name in wanted)

    def usable(self, approvals: Mapping[str, Approval]) -> "Toolset":
        """The tools that may be used, where `approvals` (tool name -> approval) stand in for the tools' own."""
        chosen = [_with_approval(tool, approvals.get(tool.name)) for tool in self.tools.values()]
        return Toolset(tool for tool in chosen if tool.approval != "never")

    def asks(self, call: ToolCall) -> bool:
        """Whether somebody has to approve the call before it runs; one that cannot run at all needs nobody."""
        tool = self.tools.get(call.name)
        if tool is None or tool.approval != "ask" or call.error:
            return False
        try:
            tool.parse(call.values)
        except ToolError:
            return False
        return True

    def wants_heartbeat(self, call: ToolCall) -> bool:
        """Whether the call asks for another step, by value or by its tool's default; False when it cannot be read."""
        tool = self.tools.get(call.name)
        if tool is None or call.error:
            return False
        try:
            return tool.parse(call.values)[1]
        except ToolError:
            return False

    def is_repeatable(self, call: ToolCall) -> bool:
        """Whether the call may run again after a crash, because it commits with its result or is idempotent."""
        tool = self.tools.get(call.name)
        return tool is None or tool.transactional or tool.idempotent or call.error is not None

    async def prepare(self, call: ToolCall, context: ToolContext) -> Effect:
        """Do what the call asks up to its commit; the effect applies the rest and gives the result.

        A failure on the way comes back as a result that starts with `error:`; what the effect itself raises
        undoes it and is for who applies it (`failure` words both).
        """
        try:
            outcome = await self._outcome(call, context)
        except Exception as error:  # a user's function may raise anything; the model is told, the turn goes on
            outcome = failure(call, error)
        if isinstance(outcome, ToolResult):
            result = outcome
            return lambda tx: result
        return outcome

    async def _outcome(self, call: ToolCall, context: ToolContext) -> "ToolResult | Effect":
        if call.error is not None:
            raise ToolError(call.error)
        tool = self.tools.get(call.name)
        if tool is None:
            raise ToolError(f"there is no tool {call.name!r}; the tools are: {', '.join(self.tools) or 'none'}")
        given, _ = tool.parse(call.values)
        value = await tool.call(context, given)
        if tool.transactional or isinstance(value, ToolResult):
            return value  # type: ignore[no-any-return]  # a transactional tool returns an effect or a result
        return ToolResult(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def _with_approval(tool: Tool, approval: Approval | None) -> Tool:
    # the same object where nothing changes: it knows its schema already
    return tool if approval in (None, tool.approval) else replace(tool, approval=approval)


def failure(call: ToolCall, error: Exception) -> ToolResult:
    """What the model is told of a call that failed."""
    text = str(error) if isinstance(error, AgentOSError) else f"{call.name} failed: {type(error).__name__}: {error}"
    return ToolResult(f"error: {text}", ok=False)
