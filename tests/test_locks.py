"""The lock file of an agent's turn."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from agentos.errors import AgentBusy, StoreError
from agentos.locks import hold_file


async def test_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "agent.lock"
    async with hold_file(path, 1.0):
        with pytest.raises(AgentBusy):
            async with hold_file(path, 0.1):
                raise AssertionError("two hold it")
    async with hold_file(path, 0.1):
        pass


async def test_a_folder_that_is_lost_is_made_anew_and_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    async with hold_file(tmp_path / "locks" / "agent.lock", 0.1):
        pass
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "agent.lock", tmp_path):
        with pytest.raises(StoreError, match=r"cannot be opened: .*; what was accepted is saved"):
            async with hold_file(path, 0.1):
                pass


def test_whoever_dies_lets_go_of_it(tmp_path: Path) -> None:
    path = tmp_path / "agent.lock"
    holding = (
        "import asyncio, sys; from pathlib import Path; from agentos.locks import hold_file\n"
        "async def main():\n"
        "    async with hold_file(Path(sys.argv[1]), 1.0): print('held', flush=True); await asyncio.sleep(60)\n"
        "asyncio.run(main())"
    )

    async def hold(wait_seconds: float) -> None:
        async with hold_file(path, wait_seconds):
            pass

    with subprocess.Popen([sys.executable, "-c", holding, str(path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(AgentBusy):
            asyncio.run(hold(0.1))
        other.kill()
        asyncio.run(hold(5.0))


def test_what_a_tool_forks_does_not_keep_it(tmp_path: Path) -> None:
    forking = (
        "import asyncio, os, signal, sys; from pathlib import Path; from agentos.locks import hold_file\n"
        "async def main():\n"
        "    async with hold_file(Path(sys.argv[1]), 1.0):\n"
        "        fork = os.fork() or signal.pause()\n"
        "    try:\n"
        "        async with hold_file(Path(sys.argv[1]), 0.1): pass\n"
        "    finally: os.kill(fork, signal.SIGKILL)\n"
        "asyncio.run(main())"
    )
    subprocess.run([sys.executable, "-c", forking, str(tmp_path / "agent.lock")], check=True)
