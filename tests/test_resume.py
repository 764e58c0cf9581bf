"""A turn of ten calls is killed with SIGKILL at every write and goes on in a new process.

One helper process plays the turn once, so that everything is loaded, and forks a child for each kill and each resume.
"""

import asyncio
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from agentos.agent import Agent
from agentos.context.validator import violations
from agentos.protocols import LLMRequest
from agentos.store.database import Database, sqlite_url
from agentos.store.migrations import migrate
from agentos.testing import FixedClock, FunctionLLM, call, say
from agentos.testing.homes import compiled_once
from agentos.tools.tool import Tool, tool
from conftest import Home, collect, ending
from postgres import Server

WHEN = ("during", "after")
"""`during`: all is written and nothing committed, so it stands for before, too."""


class KillingStore:
    """A store that kills its process around its n-th write."""

    def __init__(self, store: Database, kill_at: int, when: str) -> None:
        self.store, self.kill_at, self.when, self.count = store, kill_at, when, 0

    async def write(self, work: Callable[[Any], Any]) -> Any:
        self.count += 1
        if self.count != self.kill_at:
            return await self.store.write(work)
        await self.store.write(self._deadly(work) if self.when == "during" else work)
        _die()

    def read(self, work: Callable[[Any], Any]) -> Any:
        return self.store.read(work)

    def _deadly(self, work: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def whole(tx: Any) -> None:
            work(tx)
            _die()  # everything is written and nothing is committed

        return whole


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def file_tools(folder: Path) -> list[Tool]:
    """Tools whose effect lies outside the database."""

    def write(name: str, line: str) -> str:
        with (folder / name).open("a") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        return f"wrote {line}"

    @tool
    def note(line: str) -> str:
        """Write a line."""
        return write("notes.txt", line)

    @tool(idempotent=True)
    def mark(line: str) -> str:
        """Write a line; twice does no harm."""
        return write("marks.txt", line)

    return [note, mark]


def model(request: LLMRequest) -> object:
    """The same steps in any process: what comes next is read off the request."""
    step = sum(message["role"] == "assistant" for message in request.messages)
    append = [call("core_memory_append", label="human", content=f"fact {n}") for n in range(3)]
    insert = [call("archival_memory_insert", content=f"passage {n}") for n in range(3)]
    steps = [
        say("", append[0], insert[0], call("note", line="0")),
        say("", insert[1], append[1], call("set_timer", when="2h", note="look", request_heartbeat=True)),
        say("", call("note", line="1"), call("mark", line="0"), append[2], insert[2]),
        "done",
    ]
    return steps[step]


def url_in(folder: Path) -> str:
    """The database of a test's folder: the one that it names, else a file in it."""
    named = folder / "url"
    return named.read_text() if named.exists() else sqlite_url(folder / "agentos.db")


async def make(folder: Path, kill_at: int = 0, when: str = "") -> tuple[Home, Agent, KillingStore]:
    url = url_in(folder)
    database = Database(url) if url.startswith("postgresql") else compiled_once(Database(url))
    home = Home(database, FixedClock())
    store = KillingStore(home.store, kill_at, when)
    agent = await home.agent(FunctionLLM(model), tools=file_tools(folder), store=store)
    return home, agent, store


async def play(folder: Path, kill_at: int, when: str) -> None:
    """The turn, until it is killed."""
    home, agent, store = await make(folder, kill_at, when)
    await collect(agent, "go", otid="o1")
    await home.store.close()
    (folder / "writes").write_text(str(store.count))


async def finish(folder: Path, *_: object) -> None:
    """The turn goes on in this process; afterwards everything is there once."""
    home, agent, _ = await make(folder)
    result = ending(await collect(agent, "go", otid="o1"))
    assert (result.stop_reason, result.reply) == ("end_turn", "done"), result
    saved = await home.saved(agent)
    assert saved.run is None
    assert saved.waiting is None
    assert next(b.value for b in saved.blocks) == "fact 0\nfact 1\nfact 2"
    passages = await home.store.read(lambda tx: tx.recent_passages(agent.id))
    assert [p.text for p in reversed(passages)] == ["passage 0", "passage 1", "passage 2"]
    assert len(await home.store.read(lambda tx: tx.timers(agent.id))) == 1
    events = await home.store.read(
        lambda tx: tx.events(agent.id, actions=("block.append", "passage.insert", "timer.set"))
    )
    assert len(events) == 7
    assert [m.role for m in saved.queue] == [
        "user",
        *["assistant", "tool", "tool", "tool"] * 2,
        "assistant",
        *["tool"] * 4,
        "assistant",
    ]
    assert [m.seq for m in saved.queue] == list(range(1, 16))
    asked = [c.id for m in saved.queue for c in m.calls]
    assert [m.call_id for m in saved.queue if m.role == "tool"] == asked
    assert violations((await agent.turn()).request().messages) == []
    check_outside(folder, [m for m in saved.queue if m.name in ("note", "mark")])
    assert len(await home.store.read(lambda tx: tx.runs(agent.id))) == 1
    await home.store.close()


def check_outside(folder: Path, results: list[Any]) -> None:
    """The user's tool ran at most once and says so where that is not certain; the idempotent one ran."""
    lines = {n: (folder / n).read_text().split() if (folder / n).exists() else [] for n in ("notes.txt", "marks.txt")}
    notes = [r for r in results if r.name == "note"]
    for number, result in enumerate(notes):
        count = lines["notes.txt"].count(str(number))
        assert count <= 1
        if result.ok:
            assert (count, result.content) == (1, f"wrote {number}")
        else:
            assert result.content.startswith("error: interrupted, may have happened")
            with (folder.parent / "interrupted").open("a") as file:
                file.write(f"{count}\n")
    assert set(lines["marks.txt"]) == {"0"}
    assert [r.ok for r in results if r.name == "mark"] == [True]


# the helper process


def forked(work: Callable[..., Any], *args: object) -> int:
    """Run `work` in a child; how the child ended."""
    pid = os.fork()
    if pid == 0:
        try:
            asyncio.run(work(*args))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


async def prepare(folder: Path) -> None:
    migrate(url_in(folder))
    home, _, _ = await make(folder)
    await home.store.close()


def main(root: Path) -> None:
    """Every kill once, and some resumed turns killed again; prints what went wrong as JSON."""
    clean = root / "clean"
    clean.mkdir()
    assert forked(prepare, clean) == 0
    counted = shutil.copytree(clean, root / "counted")
    asyncio.run(play(counted, 0, ""))
    asyncio.run(finish(counted))
    writes = int((counted / "writes").read_text())
    once = [[(n, when)] for n in range(1, writes + 1) for when in WHEN]
    dice = random.Random(1)
    twice = [[*kill, (dice.randint(1, 6), dice.choice(WHEN))] for kill in dice.sample(once[: -2 * 6], 12)]
    folders = ((shutil.copytree(clean, root / str(n)), kills) for n, kills in enumerate(itertools.chain(once, twice)))
    failed = play_and_finish(folders)
    interrupted = (root / "interrupted").read_text().split()
    print(json.dumps({"interrupted": interrupted, "writes": writes, "kills": len(once) + len(twice), "failed": failed}))


def on_databases(root: Path, urls: list[str]) -> None:
    """A kill or two on each of these databases, further on in the turn each time."""
    folders = []
    for n, url in enumerate(urls):
        (folder := root / str(n)).mkdir()
        (folder / "url").write_text(url)
        folders.append((folder, [(6 * n + 1, WHEN[n % 2]), (2, WHEN[n % 2])][: 1 + n % 2]))
    print(json.dumps({"failed": play_and_finish(folders)}))


def play_and_finish(folders: Iterable[tuple[Path, list[tuple[int, str]]]]) -> list[Any]:
    """The kills in each folder, then the end of its turn; what went wrong."""
    failed = []
    for folder, kills in folders:
        ends = [forked(play, folder, *kill) for kill in kills]
        if ends != [-signal.SIGKILL] * len(kills) or forked(finish, folder) != 0:
            failed.append((kills, ends))
        shutil.rmtree(folder)
    return failed


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_turn_goes_on_and_does_everything_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert report["failed"] == [], done.stderr[-3000:]
    assert {"0", "1"} <= set(report["interrupted"]), "killed both before and after the file was written"
    assert report["writes"] >= 20
    assert report["kills"] >= 50


def test_a_turn_killed_on_postgres_goes_on(postgres: Server, tmp_path: Path) -> None:
    urls = [postgres.database(f"kill{n}") for n in range(4)]
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path), *urls], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["failed"] == [], done.stderr[-3000:]


if __name__ == "__main__":
    if urls := sys.argv[2:]:
        on_databases(Path(sys.argv[1]), urls)
    else:
        main(Path(sys.argv[1]))
