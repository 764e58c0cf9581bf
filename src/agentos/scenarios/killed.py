"""A turn in a process of its own that kills itself with SIGKILL: `python -m agentos.scenarios.killed`.

The order comes on stdin as JSON, the events go to stdout as JSON lines, up to the point of the kill.
"""

import asyncio
import json
import os
import signal
import sys
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Any

from agentos.scenarios.model import Kill, Scenario
from agentos.scenarios.run import Stage, run_events


async def play_until_killed(order: dict[str, Any]) -> None:
    """The turn, until its process is gone; when it returns, the turn never came to the point."""
    scenario = Scenario.model_validate(order["scenario"])
    turn = scenario.turns[order["number"] - 1]
    personas = order["personas"] and Path(order["personas"])
    stage = Stage(scenario, Path(order["home"]), personas, order["model"], now=datetime.fromisoformat(order["now"]))
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


def _is_point(kill: Kill, event: dict[str, Any]) -> bool:
    kind, name = ("tool_call", kill.before) if kill.before else ("tool_result", kill.after)
    return bool(event["type"] == kind and event["name"] == name)


if __name__ == "__main__":
    asyncio.run(play_until_killed(json.load(sys.stdin)))
