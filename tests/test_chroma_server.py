"""The index on a Chroma server (`chroma run`) that comes and goes: searches go on, and what it lacks it gets later."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agentos import Runtime
from agentos.archive.chroma import ChromaIndex
from agentos.archive.sync import SAME, CheckedIndex
from agentos.errors import IndexUnavailable
from agentos.messages import Cause, Passage
from agentos.protocols import SearchQuery
from agentos.settings import load_settings
from agentos.state import AgentRecord
from agentos.testing import FunctionLLM, HashEmbedder
from agentos.testing.indexes import random_vectors
from serving import free_port, until

ADA, NOW = "agent-ada", datetime(2026, 5, 8, 9, 30, tzinfo=UTC)
COUNT = 60


class Chroma:
    """`chroma run` on a loopback port, over a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        program = Path(sys.executable).with_name("chroma")
        command = [program, "run", "--path", self.folder, "--host", "127.0.0.1", "--port", self.port]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._listens, "the server listens")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", int(self.port))) == 0


@pytest.fixture
def chroma(tmp_path: Path) -> Iterator[Chroma]:
    server = Chroma(tmp_path / "chroma")
    server.start()
    yield server
    server.kill()


@asynccontextmanager
async def opened(chroma: Chroma, home: Path, **options: Any) -> AsyncIterator[Runtime]:
    settings = load_settings({"AGENTOS_HOME": str(home), "AGENTOS_CHROMA_URL": chroma.url})
    options = {"embedder": HashEmbedder(), "llm": FunctionLLM(lambda _: "ok")} | options
    async with Runtime(settings, **options) as runtime:
        runtime.search.exact_below = 10  # so that searches ask the index of few passages
        yield runtime


def impatient(chroma: Chroma) -> ChromaIndex:
    """The index that the runtime would make, which does not rest as long after a refusal."""
    return ChromaIndex(None, chroma.url, HashEmbedder().fingerprint, rest_seconds=0.01)


async def add(runtime: Runtime, numbers: range) -> None:
    """The agent notes a fact for each number."""

    def work(tx: Any) -> None:
        if tx.agent(ADA) is None:
            tx.add_agent(AgentRecord(ADA, "ada", "assistant", NOW))
        for number in numbers:
            passage = Passage(0, ADA, f"noted fact {number} about subject{number}", "agent", NOW)
            tx.add_passage(passage, Cause(ADA, "agent"))

    await runtime.store.write(work)


async def found(runtime: Runtime, number: int) -> bool:
    """Whether a search finds the fact of that number."""
    [hit] = await runtime.search(ADA, SearchQuery(f"subject{number}", "archival", limit=1))
    return hit.text == f"noted fact {number} about subject{number}"


async def indexed(runtime: Runtime, number: int) -> float:
    """How near the index says the nearest vector is, once it is searched at all."""
    vector = (await HashEmbedder().embed([f"noted fact {number} about subject{number}"]))[0]
    [(_, similarity)] = await CheckedIndex(runtime.sync).query(ADA, vector, 1)
    return similarity


async def test_the_server_restarts_loses_its_data_and_goes_for_good(chroma: Chroma, tmp_path: Path) -> None:
    async with opened(chroma, tmp_path, index=impatient(chroma)) as runtime:
        await add(runtime, range(COUNT))
        assert (await runtime.sync.drain()).indexed == COUNT
        assert await indexed(runtime, 7) > SAME

        chroma.kill()
        assert await found(runtime, 7)
        await add(runtime, range(COUNT, COUNT + 5))
        report = await runtime.sync.drain()
        assert report.embedded == 5
        assert "no Chroma server answers at 127.0.0.1" in (report.problem or "")
        assert await found(runtime, COUNT)
        chroma.start()
        assert (await runtime.sync.drain()).indexed == 5
        assert await indexed(runtime, COUNT) > SAME

        chroma.kill()
        shutil.rmtree(chroma.folder)  # it was in a container
        chroma.start()
        assert await found(runtime, 7)
        with pytest.raises(IndexUnavailable, match="waits to be rebuilt"):
            await indexed(runtime, 7)
        assert (await runtime.sync.drain()).rebuilt == 1
        assert await indexed(runtime, 7) > SAME
        await runtime.index.drop(ADA)  # as if it were again, and no search had noticed
        await add(runtime, range(COUNT + 5, COUNT + 6))
        assert (await runtime.sync.drain()).rebuilt == 1
        assert await indexed(runtime, 7) > SAME

        os.kill(chroma.process.pid, signal.SIGSTOP)
        with pytest.raises(IndexUnavailable, match=r"did not answer within 0\.1 seconds"):
            await CheckedIndex(runtime.sync, 0.1).query(ADA, random_vectors(1, 64)[0], 1)
        chroma.kill()
        for number in (7, COUNT + 5):
            assert await found(runtime, number)
    async with opened(chroma, tmp_path) as runtime:  # nothing is lost, and nobody waits for it
        assert await found(runtime, COUNT + 5)


async def test_two_runtimes_share_a_server(chroma: Chroma, tmp_path: Path) -> None:
    async with opened(chroma, tmp_path) as one, opened(chroma, tmp_path) as other:
        await add(one, range(COUNT))
        assert (await one.sync.drain()).indexed == COUNT
        assert await indexed(other, COUNT - 1) > SAME
        assert (await other.sync.drain()).indexed == 0

        await asyncio.gather(add(one, range(COUNT, COUNT + 30)), add(other, range(COUNT + 30, COUNT + 60)))
        reports = await asyncio.gather(one.sync.drain(), other.sync.drain())  # of the same rows
        assert [r.problem for r in reports] == [None, None]
        for runtime in (one, other):
            assert (await runtime.sync.verify(ADA)).sound
            assert await indexed(runtime, COUNT + 29) > SAME

        healed = await one.sync.reindex(fresh=True)  # drops what the other one has open
        assert (healed.rebuilt, healed.problem) == (1, None)
        assert await indexed(other, COUNT + 59) > SAME
        await add(other, range(COUNT + 60, COUNT + 61))
        report = await other.sync.drain()
        assert (report.indexed, report.rebuilt) == (1, 0)
        assert await indexed(one, COUNT + 60) > SAME
        assert not (tmp_path / "chroma.lock").exists()
