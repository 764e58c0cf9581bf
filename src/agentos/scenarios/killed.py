"""A turn in a process of its own that kills itself with SIGKILL: `python -m agentos.scenarios.killed`.

The order comes on stdin as JSON, the events go to stdout as JSON lines, up to the point of the kill.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from agentos.events import Retry
from agentos.protocols import LLM, LLMRequest
from agentos.runtime import Runtime
from agentos.scenarios.model import Kill, Scenario
from agentos.scenarios.run import Stage, run_events


async def play_until_killed(order: dict[str, Any]) -> None:
    """The turn, until its process is gone; when it returns, the turn never came to the point."""
    scenario = Scenario.model_validate(order["scenario"])
    turn = scenario.turns[order["number"] - 1]
    personas = order["personas"] and Path(order["personas"])
    stage = Stage(
        scenario, Path(order["home"]), personas, order["model"], open_runtime=_Asking if turn.kill and turn.kill.during
        else Runtime, now=datetime.fromisoformat(order["now"]), embedding=order["embedding"],
    )  # fmt: skip
    stage.script, stage.results = turn.lines, order["results"]
    agent = await stage.agent(turn.speaker)
    assert turn.kill is not None
    assert turn.user is not None
    async with aclosing(run_events(agent.send(turn.user))) as events:
        async for event in events:
            sys.stdout.write(json.dumps(event) + "\n")
            sys.stdout.flush()
            if _is_point(turn.kill, event):
                os.kill(os.getpid(), signal.SIGKILL)
    await stage.close()


class _Asking(Runtime):
    """Its models kill the process when an answer begins to come in."""

    def llm(self, model: str | None = None) -> LLM:
        return cast(LLM, _Killing(super().llm(model)))


class _Killing:
    def __init__(self, llm: LLM) -> None:
        self._llm = llm

    def __getattr__(self, name: str) -> Any:
        return getattr(self._llm, name)

    async def stream(self, request: LLMRequest) -> AsyncGenerator[Any, None]:
        async with aclosing(self._llm.stream(request)) as items:
            async for item in items:
                if not isinstance(item, Retry):
                    os.kill(os.getpid(), signal.SIGKILL)
                yield item


def _is_point(kill: Kill, event: dict[str, Any]) -> bool:
    kind, name = ("tool_call", kill.before) if kill.before else ("tool_result", kill.after)
    return bool(event["type"] == kind and event["name"] == name)


if __name__ == "__main__":
    asyncio.run(play_until_killed(json.load(sys.stdin)))
