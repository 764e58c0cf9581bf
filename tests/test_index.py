"""The vector index on a real Chroma: its contract, and what happens when its process, files or server fail."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agentos.archive.chroma import ChromaIndex, CollectionDamaged, IndexDamaged
from agentos.archive.chroma_process import DATABASE
from agentos.errors import ConfigError, IndexBusy, IndexUnavailable
from agentos.testing.indexes import ExactIndex, index_conformance, random_vectors

AGENT = "agent-7b1c0f0e-1111-4222-8333-444455556666"
OWNER = """
import asyncio, sys
from pathlib import Path
from agentos.archive.chroma import ChromaIndex

async def main():
    index = ChromaIndex(Path(sys.argv[1]), None, "test:32")
    await index.count("agent-other")
    print("holding", flush=True)
    sys.stdin.readline()

asyncio.run(main())
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "home" / "chroma"


@asynccontextmanager
async def opened(place: Path, fingerprint: str = "test:32", **options: Any) -> AsyncIterator[ChromaIndex]:
    index = ChromaIndex(place, None, fingerprint, **{"rest_seconds": 0.01, **options})
    try:
        yield index
    finally:
        await index.close()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with 1,500 vectors in its index."""
    home = tmp_path_factory.mktemp("filled") / "home"

    async def fill() -> None:
        async with opened(home / "chroma") as index:
            await index.upsert(AGENT, list(range(1500)), random_vectors(1500))

    asyncio.run(fill())
    return home


@pytest.fixture
def filled_place(filled: Path, place: Path) -> Path:
    shutil.copytree(filled, place.parent)
    return place


def child_of(index: ChromaIndex) -> int:
    assert index._child is not None
    return index._child.process.pid


def is_gone(pid: int) -> bool:
    """Whether the process ended, though nobody may have reaped it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def until(condition: Callable[[], bool]) -> None:
    def wait() -> None:
        while not condition():
            time.sleep(0.02)

    await asyncio.to_thread(wait)


def mode(place: Path) -> int:
    return place.stat().st_mode & 0o777


def segments(place: Path) -> list[Path]:
    return [folder for folder in place.iterdir() if folder.is_dir()]


async def test_reference_conforms() -> None:
    vectors: dict[str, dict[int, Any]] = {}
    await index_conformance(lambda: ExactIndex(vectors))


async def test_chroma_conforms(place: Path) -> None:
    await index_conformance(lambda: ChromaIndex(place, None, "test:32"))


async def test_nothing_starts_before_the_first_request(place: Path, tmp_path: Path) -> None:
    async with opened(place) as index:
        assert index._child is None
    assert os.listdir(tmp_path) == []
    with pytest.raises(IndexUnavailable, match="closed"):
        await index.count(AGENT)


async def test_directory_is_private_and_holds_no_files_of_dropped_collections(place: Path) -> None:
    async with opened(place) as index:
        await index.upsert(AGENT, list(range(1200)), random_vectors(1200))
        assert len(segments(place)) == 1
        await index.drop(AGENT)
        assert segments(place) == []
        await index.upsert(AGENT, [1], random_vectors(1))
        assert await index.count(AGENT) == 1
    assert mode(place) == 0o700


async def test_vectors_of_another_embedder_are_never_searched(filled_place: Path) -> None:
    async with opened(filled_place, "other:16") as other:
        assert await other.query(AGENT, random_vectors(1, 16)[0], 3) == []
        await other.upsert(AGENT, [1], random_vectors(1, 16))
        await other.upsert("agent-gone", [1], random_vectors(1, 16))
        assert await other.prune([AGENT]) == 2  # the old embedder's, and that of an agent that is no more
        assert await other.count(AGENT) == 1
    async with opened(filled_place) as index:
        assert await index.count(AGENT) == 0


async def test_killed_while_idle_is_started_again(place: Path) -> None:
    async with opened(place) as index:
        await index.upsert(AGENT, [1, 2], random_vectors(2))
        os.kill(child_of(index), signal.SIGKILL)
        assert (await index.query(AGENT, random_vectors(2)[1], 1))[0][0] == 2


async def test_silent_process_is_killed_and_the_next_request_starts_another(place: Path) -> None:
    async with opened(place) as index:
        await index.upsert(AGENT, [1], random_vectors(1))
        silent, usual = child_of(index), index.timeout_seconds
        index.timeout_seconds = 0.25
        os.kill(silent, signal.SIGSTOP)
        with pytest.raises(IndexUnavailable, match=r"did not answer within 0\.25 seconds"):
            await index.count(AGENT)
        assert is_gone(silent)
        await asyncio.sleep(0.02)
        index.timeout_seconds = usual
        assert await index.count(AGENT) == 1


async def test_close_does_not_wait_for_a_silent_process(place: Path) -> None:
    async with opened(place, stop_seconds=0.1) as index:
        await index.count(AGENT)
        silent = child_of(index)
        os.kill(silent, signal.SIGSTOP)
        waiting = asyncio.create_task(index.count(AGENT))
        await asyncio.sleep(0)
        await index.close()
        with pytest.raises(IndexUnavailable):
            await waiting
        assert is_gone(silent)


async def test_idle_process_ends_and_gives_the_directory_back(place: Path) -> None:
    async with opened(place, idle_seconds=0.2) as index, opened(place) as second:
        await index.upsert(AGENT, [1], random_vectors(1))
        first = child_of(index)
        await until(lambda: is_gone(first))
        assert await second.count(AGENT) == 1
        await second.close()
        await asyncio.sleep(0.02)
        assert await index.count(AGENT) == 1
        assert child_of(index) != first


async def test_cancelled_request_does_not_put_answers_out_of_step(place: Path) -> None:
    async with opened(place) as index:
        await index.upsert(AGENT, [1, 2, 3], random_vectors(3))
        task = asyncio.create_task(index.query(AGENT, random_vectors(3)[0], 3))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await index.count(AGENT) == 3


async def test_second_process_is_refused_until_the_owner_is_gone(place: Path) -> None:
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, str(place), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert owner.stdout is not None
    assert await owner.stdout.readline() == b"holding\n"
    async with opened(place) as index:
        for _ in range(2):  # the second time it rests
            with pytest.raises(IndexBusy, match=rf"in use by another process \(pid {owner.pid}\)"):
                await index.upsert(AGENT, [1], random_vectors(1))
        owner.kill()
        await owner.communicate()
        while True:  # its child ends by itself, a moment later
            try:
                await index.upsert(AGENT, [1], random_vectors(1))
                break
            except IndexUnavailable:
                await asyncio.sleep(0.05)
        assert await index.count(AGENT) == 1


async def test_after_a_refusal_it_rests(place: Path) -> None:
    async with opened(place) as owner, opened(place, rest_seconds=60) as index:
        await owner.count(AGENT)
        for _ in range(2):
            with pytest.raises(IndexUnavailable, match="in use"):
                await index.count(AGENT)
            assert index._child is None
            await owner.close()  # the second time it is not even tried


async def test_missing_segment_loses_vectors_silently(filled_place: Path) -> None:
    """Why `IndexSync.verify` looks for stored vectors: the count alone says nothing."""
    for folder in segments(filled_place):
        shutil.rmtree(folder)
    async with opened(filled_place) as index:
        assert await index.count(AGENT) == 1500
        assert await index.query(AGENT, random_vectors(1500)[3], 1) != [(3, pytest.approx(1.0))]


async def test_unreadable_segment_is_one_collections_damage(filled_place: Path) -> None:
    (segments(filled_place)[0] / "header.bin").unlink()
    async with opened(filled_place) as index:
        await index.upsert("agent-well", [1], random_vectors(1))
        with pytest.raises(CollectionDamaged):
            await index.query(AGENT, random_vectors(1)[0], 1)
        assert await index.count("agent-well") == 1
        await index.drop(AGENT)
        await index.upsert(AGENT, [1], random_vectors(1))
        assert await index.count(AGENT) == 1


def garbage(place: Path) -> None:
    (place / DATABASE).write_bytes(b"not a database " * 500)


async def test_damaged_directory_is_set_aside_in_place_of_an_older_one(filled_place: Path) -> None:
    place = filled_place
    garbage(place)
    os.makedirs(f"{place}.broken-20200101-000000/old")
    async with opened(place) as index:
        for _ in range(2):
            with pytest.raises(IndexDamaged, match="agentos reindex"):
                await index.count(AGENT)
        moved = await index.set_aside()
        assert moved is not None
        assert Path(moved).parent == place.parent
        assert segments(Path(moved))
        assert sorted(os.listdir(place.parent)) == ["chroma", Path(moved).name, "chroma.lock", "chroma.owner"]
        assert await index.count(AGENT) == 0
        await index.upsert(AGENT, [1], random_vectors(1))
        assert await index.count(AGENT) == 1


async def test_process_that_keeps_crashing_means_damage(place: Path) -> None:
    """A crash while a request runs: started again once, then taken for the directory's fault."""
    async with opened(place) as index:
        await index.count(AGENT)

        async def crash() -> None:
            child = index._child
            assert child is not None
            os.kill(child.process.pid, signal.SIGSTOP)
            task = asyncio.create_task(index.count(AGENT))
            await asyncio.sleep(0.05)
            child.process.kill()
            await until(lambda: index._child is not child and index._child is not None)
            index._child.process.kill()  # type: ignore[union-attr]
            await task

        with pytest.raises(IndexDamaged, match="crashed twice"):
            await crash()
        await index.set_aside()
        assert await index.count(AGENT) == 0


async def test_unwritable_place_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    async with opened(tmp_path / "file" / "chroma") as index:
        with pytest.raises(IndexUnavailable, match="cannot be opened") as caught:
            await index.count(AGENT)
        assert type(caught.value) is IndexUnavailable


async def test_a_file_in_its_place_is_damage_and_is_set_aside(place: Path, tmp_path: Path) -> None:
    def put_file() -> None:
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(exist_ok=True)
        place.write_text("in the way")

    for _ in range(2):
        put_file()
        async with opened(place) as index:
            with pytest.raises(IndexDamaged, match="is a file and not a folder"):
                await index.count(AGENT)
            moved = await index.set_aside()
            assert await index.count(AGENT) == 0
    assert sorted(os.listdir(place.parent)) == ["chroma", Path(str(moved)).name, "chroma.lock", "chroma.owner"]


async def test_unreachable_server() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    index = ChromaIndex(None, url, "test:32")
    try:
        with pytest.raises(IndexUnavailable, match=f"no Chroma server answers at {url[7:]}"):
            await index.count(AGENT)
        assert await index.set_aside() is None
    finally:
        await index.close()


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://", "http://host:99999", "not a url"])
def test_bad_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(ConfigError, match="AGENTOS_CHROMA_URL"):
        ChromaIndex(None, url, "test:32")


async def test_chroma_server_conforms(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("chroma")), "run", "--path", str(tmp_path), "--host", "127.0.0.1",
        "--port", str(port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await until(lambda: _listens(port) or server.returncode is not None)
        url = f"http://127.0.0.1:{port}"
        await index_conformance(lambda: ChromaIndex(None, url, "test:32"))
        ours, theirs = ChromaIndex(None, url, "new:32"), ChromaIndex(None, url, "test:32")
        await theirs.upsert("agent-theirs", [1], random_vectors(1))
        await ours.upsert("agent-kept", [1], random_vectors(1))
        assert await ours.prune(["agent-kept"]) == 1  # our agent's, of the old embedder; not that of a stranger
        assert await theirs.count("agent-theirs") == 1
        assert await theirs.count("agent-kept") == 0
        await ours.close()
        await theirs.close()
    finally:
        if server.returncode is None:
            server.kill()
        await server.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
