"""`agentos` in a process of its own that starts at once: a fork of one that has loaded its modules.

Loading takes longer than most commands. What depends on how Python itself starts needs a real start.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

_SECONDS = 120


class Forks:
    """Runs commands one after another, each in a fork."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(
        self,
        args: list[str],
        stdin: str,
        env: dict[str, str],
        cwd: Path,
        meanwhile: Callable[[int], None] = lambda pid: None,
    ) -> "subprocess.CompletedProcess[str]":
        """As `subprocess.run` would, with output and errors as text; `meanwhile` is given the id of the process."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / name for name in ("stdin", "stdout", "stderr")]
            files[0].write_text(stdin, encoding="utf-8", newline="")
            order = {"args": args, "env": env, "cwd": str(cwd), "files": list(map(str, files))}
            self._server.stdin.write(json.dumps(order) + "\n")
            self._server.stdin.flush()
            meanwhile(int(self._server.stdout.readline()))
            code = int(self._server.stdout.readline())
            out, err = (file.read_bytes().decode() for file in files[1:])
        return subprocess.CompletedProcess(args, code, out, err)

    def close(self) -> None:
        """End the process that forks."""
        self._server.communicate()


def _serve() -> None:
    import agentos.cli.app
    import agentos.mcp_client.connection
    import agentos.runtime
    import agentos.server.serve
    import agentos.store.migrations  # noqa: F401
    from agentos.llm.litellm import load_litellm

    for line in sys.stdin:
        order = json.loads(line)
        if order["env"].get("AGENTOS_MODEL") == "fake":
            load_litellm()  # takes seconds to load
        child = os.fork()
        if child == 0:
            _become(order)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(order: dict[str, Any]) -> None:
    """The command, in this process."""
    import signal

    signal.alarm(_SECONDS)
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    for number, (name, flags) in enumerate(
        zip(order["files"], (os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT] * 2), strict=True)
    ):
        os.dup2(os.open(name, flags, 0o600), number)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    sys.argv = ["agentos", *order["args"]]
    code: Any = 0
    try:
        from agentos.cli import main

        main()
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    _serve()
