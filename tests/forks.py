"""`agentos` in a process of its own that starts at once: a fork of one that has loaded its modules.

Loading takes longer than most commands. What depends on how Python itself starts needs a real start.
"""

import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

_SECONDS = 300
_LOADED = (
    "agentos.cli.app", "agentos.cli.chat", "agentos.cli.doctor", "agentos.runtime", "agentos.server.serve",
    "requests", "tokenizers",  # of wordllama, whose own import sets logging up: that is left to the command
)  # fmt: skip


class Forked:
    """A command that runs; what `subprocess.Popen` is called by, as far as the tests call it."""

    def __init__(self, pid: int, wait: Callable[[int], int]) -> None:
        self.pid, self._wait = pid, wait
        self.returncode: int | None = None

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def wait(self) -> int:
        """The exit code, once it has ended; nothing else is started or waited for meanwhile."""
        if self.returncode is None:
            self.returncode = self._wait(self.pid)
        return self.returncode


class Forks:
    """Starts commands, each in a fork."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, args: list[str], env: dict[str, str], cwd: Path, files: Sequence[Path | str]) -> Forked:
        """The command, once it runs, with these files as its standard input, output and errors."""
        pid = self._ask({"args": args, "env": env, "cwd": str(cwd), "files": list(map(str, files))})
        return Forked(pid, lambda pid: self._ask({"wait": pid}))

    def run(
        self,
        args: list[str],
        stdin: str,
        env: dict[str, str],
        cwd: Path,
        meanwhile: Callable[[int], None] = lambda pid: None,
    ) -> "subprocess.CompletedProcess[str]":
        """As `subprocess.run` would, with output and errors as text; `meanwhile` is given the id of the process."""
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / name for name in ("stdin", "stdout", "stderr")]
            files[0].write_text(stdin, encoding="utf-8", newline="")
            started = self.start(args, env, cwd, files)
            meanwhile(started.pid)
            code = started.wait()
            out, err = (file.read_bytes().decode() for file in files[1:])
        return subprocess.CompletedProcess(args, code, out, err)

    def _ask(self, order: dict[str, Any]) -> int:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def close(self) -> None:
        """End the process that forks."""
        self._server.communicate()


def _serve() -> None:
    for name in _LOADED:
        import_module(name)
    from agentos.store.migrations import migrate

    with tempfile.TemporaryDirectory() as folder:
        migrate(f"sqlite:///{folder}/agentos.db")  # loads what a new home needs
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            _, status = os.waitpid(order["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        if order["env"].get("AGENTOS_MODEL", "offline") != "offline":
            _load_litellm()
        gc.freeze()  # a collection in a child would copy all that it shares with us
        if (child := os.fork()) == 0:
            _become(order)
        print(child, flush=True)


@cache
def _load_litellm() -> None:
    """What a command with a model of a provider loads, which takes seconds."""
    from agentos.llm.litellm import load_litellm

    load_litellm()
    import_module("openai.resources")  # which litellm loads when it is first asked


def _become(order: dict[str, Any]) -> None:
    """The command, in this process."""
    import signal

    signal.alarm(_SECONDS)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that started the tests beside itself ignores it
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    for number, (name, flags) in enumerate(
        zip(order["files"], (os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT] * 2), strict=True)
    ):
        os.dup2(os.open(name, flags, 0o600), number)
    sys.stdin, sys.stdout = open(0), open(1, "w")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115
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
