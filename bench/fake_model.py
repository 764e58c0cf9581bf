"""The fake model as a process: `fake_model.py [SECONDS]` answers each request after so long.

A user message `clock` is answered with the time at which the answer left.
"""

import asyncio
import sys
import time
from typing import Any

from agentos.testing import FakeOpenAI, FakeReply


def handler(latency_seconds: float) -> Any:
    def answer(body: dict[str, Any]) -> FakeReply:
        last = next((m for m in reversed(body["messages"]) if m["role"] == "user"), {"content": ""})
        text = repr(time.time()) if str(last["content"]).endswith("clock") else "ok"
        return FakeReply(text=text, hang_seconds=latency_seconds)

    return answer


def main() -> None:
    server = FakeOpenAI(handler(float(sys.argv[1]) if len(sys.argv) > 1 else 0.0))
    asyncio.run(server.serve(lambda url: print(url, flush=True)))


if __name__ == "__main__":
    main()
