"""Speed and size of `agentos serve`, as a table. The fake model, the server and the clients are processes of their own.

python bench/bench_serve.py            everything (several minutes)
python bench/bench_serve.py first cost only the rows whose name contains one of the words
"""

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # it would triple import times
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "tests")]

import psycopg

from common import home, p50, percentile, store_messages
from process_rows import rss_mb, ticks, tree
from table import Measure, print_table

TOKEN = "bench-token-0123456789"
_KILLED_SECONDS = 3.0
"""What the model takes where a worker is killed: all of its turns have begun by then, and none has ended."""
Json = dict[str, Any]


@contextmanager
def process(*command: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process with a readable stdout, ended with the context."""
    started = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        yield started
    finally:
        started.terminate()
        with suppress(subprocess.TimeoutExpired):
            started.wait(20)
        started.kill()
        assert started.stdout is not None
        started.stdout.close()


@contextmanager
def model(latency_seconds: float) -> Iterator[str]:
    """The URL of a fake model."""
    with process(str(Path(__file__).parent / "fake_model.py"), str(latency_seconds)) as fake:
        assert fake.stdout is not None
        yield fake.stdout.readline().strip()


class Client:
    """As little of a client as can be: it shares the machine with what it measures."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def send(self, method: str, path: str, body: Json | None = None) -> tuple[int, bytes]:
        """(status, body) of one request."""
        reader, writer = (
            self._free.pop() if self._free else await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)
        )
        _write(writer, method, path, body)
        status, headers = await _head(reader)
        if headers.get("transfer-encoding") == "chunked":
            data = b"".join([part async for part in _chunks(reader)])
        else:
            data = await reader.readexactly(int(headers.get("content-length", "0")))
        self._free.append((reader, writer))
        return status, data

    async def first_token(self, path: str, body: Json) -> float:
        """Milliseconds from when the model answered, by its own text, until its text arrived here."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        _write(writer, "POST", path, body)
        await _head(reader)
        took = -1.0
        async for part in _chunks(reader):
            now = time.time()
            for line in part.decode().splitlines():
                value = json.loads(line[6:]) if line.startswith("data: {") else {}
                if took < 0 and value.get("message_type") == "assistant_message" and value["content"]:
                    took = 1000 * (now - float(value["content"]))
        writer.close()
        return took

    async def agent(self, name: str) -> str:
        """A new agent's id."""
        body = {"name": name, "memory_blocks": [{"label": "human", "value": "Name: Ann"}]}
        status, data = await self.send("POST", "/v1/agents/", body)
        assert status == 200, data
        return str(json.loads(data)["id"])

    async def turn(self, agent_id: str, text: str = "hello") -> float:
        """Milliseconds of one turn; an assertion fails where it did not end well."""
        started = time.perf_counter()
        body = {"messages": [{"role": "user", "content": text}]}
        status, data = await self.send("POST", f"/v1/agents/{agent_id}/messages", body)
        assert status == 200, data[:300]
        assert json.loads(data)["stop_reason"]["stop_reason"] == "end_turn", data[:300]
        return 1000 * (time.perf_counter() - started)


def _write(writer: asyncio.StreamWriter, method: str, path: str, body: Json | None) -> None:
    data = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {TOKEN}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    writer.write(head.encode() + data)


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = (line.split(": ", 1) for line in lines[1:] if ": " in line)
    return int(lines[0].split(" ")[1]), {name.lower(): value for name, value in fields}


async def _chunks(reader: asyncio.StreamReader) -> Any:
    while size := int((await reader.readline()).strip(), 16):
        yield await reader.readexactly(size)
        await reader.readline()
    await reader.readline()


@dataclass
class Served:
    """A running server."""

    pid: int
    port: int
    client: Client
    start_seconds: float

    @property
    def cpu_ms(self) -> float:
        """CPU that the server and its children have used."""
        return _cpu_ms(self.pid)

    @property
    def rss_mb(self) -> float:
        """Its memory, with its children's."""
        return sum(map(rss_mb, tree(self.pid)))


def environment(folder: Path, base: str, **more: str) -> dict[str, str]:
    """The settings of a process on the home `folder` with the model at `base`."""
    return {
        "AGENTOS_HOME": str(folder), "AGENTOS_MODEL": "openai/fake-model", "AGENTOS_API_BASE": base,
        "AGENTOS_API_KEY": "bench-key-0123456789", "AGENTOS_TOKEN": TOKEN, "AGENTOS_CONTEXT_WINDOW": "128000", **more,
    }  # fmt: skip


@contextmanager
def server(folder: Path, base: str, *options: str, **more: str) -> Iterator[Served]:
    """`agentos serve`."""
    port = _free_port()
    started = time.perf_counter()
    command = ("-m", "agentos", "serve", "--port", str(port), *options)
    with process(*command, **environment(folder, base, **more)) as served:
        while not _alive(port):
            time.sleep(0.02)
            assert served.poll() is None, "the server ended at once"
        yield Served(served.pid, port, Client(port), time.perf_counter() - started)


@contextmanager
def worker(folder: Path, base: str, url: str) -> Iterator[subprocess.Popen[str]]:
    """`agentos worker`, capped at 16 turns at once."""
    with process(
        "-m", "agentos", "worker", "--turns", "16", **environment(folder, base, AGENTOS_DATABASE_URL=url)
    ) as it:
        assert it.stdout is not None
        it.stdout.readline()
        yield it


@contextmanager
def database() -> Iterator[str]:
    """The URL of a PostgreSQL database of its own."""
    import postgres

    found = postgres.binaries()
    assert found is not None, "needs the pgserver package"
    running = postgres.Server(found)
    try:
        yield running.database("bench")
    finally:
        running.close()


def _free_port() -> int:
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _alive(port: int) -> bool:
    import socket

    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as sock:
            sock.sendall(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
            return b" 200 " in sock.recv(100)
    except OSError:
        return False


async def turns_per_second(client: Client, agents: list[str], seconds: float) -> tuple[float, list[float]]:
    """(turns a second, sorted milliseconds) with every agent talked to without pause, after a first turn each."""
    await asyncio.gather(*map(client.turn, agents))
    end = time.perf_counter() + seconds
    taken: list[float] = []

    async def talk(agent_id: str) -> None:
        while time.perf_counter() < end:
            taken.append(await client.turn(agent_id))

    started = time.perf_counter()
    await asyncio.gather(*map(talk, agents))
    return len(taken) / (time.perf_counter() - started), sorted(taken)


async def start(folder: Path) -> str:
    with model(0.0) as base:
        with server(folder, base):
            pass  # the home is made
        times = []
        for _ in range(5):
            with server(folder, base) as served:
                times.append(served.start_seconds)
                idle = served.rss_mb
        with server(folder, base) as served:
            agents = [await served.client.agent(f"a{n}") for n in range(64)]
            await turns_per_second(served.client, agents, 5.0)
            loaded = served.rss_mb
    return f"{statistics.median(times):.1f} s; {idle:.0f} / {loaded:.0f} MB"


async def bare_call_cpu_ms(base: str, times: int = 100) -> float:
    """CPU of one streamed litellm call with nothing around it."""
    import litellm

    async def call() -> None:
        stream = await litellm.acompletion(
            model="openai/fake-model", api_base=base, api_key="none", stream=True,
            messages=[{"role": "user", "content": "hello"}],
        )  # fmt: skip
        async for _ in stream:
            pass

    for _ in range(5):
        await call()
    before = time.process_time()
    for _ in range(times):
        await call()
    return 1000 * (time.process_time() - before) / times


async def throughput(folder: Path) -> str:
    with model(0.0) as base, server(folder, base) as served:
        rates, cpu = [], []
        agents = [await served.client.agent(f"a{n}") for n in range(64)]
        for count in (1, 8, 64):
            before = served.cpu_ms
            rate, taken = await turns_per_second(served.client, agents[:count], 8.0)
            rates.append(rate)
            cpu.append((served.cpu_ms - before) / len(taken))
        bare = await bare_call_cpu_ms(base)
    return (
        f"{' / '.join(f'{r:.0f}' for r in rates)}; server CPU a turn {' / '.join(f'{c:.0f}' for c in cpu)} ms, "
        f"a bare litellm call {bare:.1f} ms of CPU"
    )


async def latency(folder: Path) -> str:
    with model(0.5) as base, server(folder, base) as served:
        agents = [await served.client.agent(f"a{n}") for n in range(500)]
        some, _ = await turns_per_second(served.client, agents[:64], 8.0)
        many, taken = await turns_per_second(served.client, agents, 15.0)
    return (
        f"{some:.0f} / {many:.0f}, no errors; 500 agents p50 {p50(taken):.0f} ms, p95 {percentile(taken, 0.95):.0f} ms"
    )


async def first_token(folder: Path) -> str:
    with model(0.0) as base, server(folder, base) as served:
        agent = await served.client.agent("a")
        body = {"messages": [{"role": "user", "content": "clock"}], "stream_tokens": True}
        taken = sorted(
            [await served.client.first_token(f"/v1/agents/{agent}/messages/stream", body) for _ in range(60)]
        )
    return f"p50 {p50(taken):.1f} ms, p95 {percentile(taken, 0.95):.1f} ms"


async def cost(folder: Path) -> str:
    async with home(folder, model="offline") as runtime:
        ids = []
        for name, stored in (("few", 10), ("many", 5000)):
            agent = await runtime.agent(name)
            await store_messages(runtime, agent.id, stored, in_queue=False)
            ids.append(agent.id)
    with model(0.0) as base, server(folder, base) as served:
        taken: list[list[float]] = [[], []]
        for _ in range(60):
            for place, agent_id in enumerate(ids):
                taken[place].append(await served.client.turn(agent_id))
    few, many = (statistics.median(t) for t in taken)
    return f"{many / few:.2f} x ({many:.1f} against {few:.1f} ms)"


async def workers(folder: Path) -> str:
    """One worker, then two; and again with a model so slow that the turns are not bounded by this machine's CPU."""
    said = []
    for latency_seconds in (0.5, 2.0):
        place = folder / str(latency_seconds)
        rates, cpu = await _one_and_two(place, latency_seconds)
        said.append(
            f"{1000 * latency_seconds:.0f} ms: {rates[1] / rates[0]:.2f} x ({rates[0]:.0f}, {rates[1]:.0f} turns/s), "
            f"CPU {cpu[1] / cpu[0]:.2f} x ({cpu[0]:.0f} and {cpu[1]:.0f} ms)"
        )
    return "; ".join(said)


async def _one_and_two(folder: Path, latency_seconds: float) -> tuple[list[float], list[float]]:
    """([turns a second], [milliseconds of CPU a turn, without PostgreSQL's]) with one worker and with two."""
    rates, cpu = [], []
    with (
        database() as url,
        model(latency_seconds) as base,
        server(folder / "front", base, "--turns", "0", AGENTOS_DATABASE_URL=url) as front,
        worker(folder / "1", base, url) as one,
    ):
        agents = [await front.client.agent(f"a{n}") for n in range(64)]

        async def measure(pids: list[int]) -> None:
            await asyncio.gather(*map(front.client.turn, agents))
            before, started = sum(map(_cpu_ms, pids)), time.perf_counter()
            _, taken = await turns_per_second(front.client, agents, 12.0)
            turns = len(taken) + len(agents)  # the first turn of each is in that time too
            rates.append(turns / (time.perf_counter() - started))
            cpu.append((sum(map(_cpu_ms, pids)) - before) / turns)

        await measure([front.pid, one.pid])
        with worker(folder / "2", base, url) as two:
            await measure([front.pid, one.pid, two.pid])
    return rates, cpu


async def killed(folder: Path) -> str:
    """Sixteen turns at one worker, which is killed; the other one takes them up."""
    with (
        database() as url,
        model(_KILLED_SECONDS) as base,
        server(folder / "front", base, "--turns", "0", AGENTOS_DATABASE_URL=url) as front,
        worker(folder / "1", base, url) as one,
    ):
        agents = [await front.client.agent(f"a{n}") for n in range(16)]
        await asyncio.gather(*map(front.client.turn, agents))
        with worker(folder / "2", base, url) as two:
            await asyncio.gather(*map(front.client.turn, agents))
            two.send_signal(signal.SIGSTOP)  # so that all of them run at the one to be killed
            await asyncio.sleep(8.0)  # longer than what it held is its
            talks = [asyncio.create_task(front.client.turn(agent_id)) for agent_id in agents]
            await asyncio.to_thread(_wait_until_held, url, len(agents))
            two.send_signal(signal.SIGCONT)
            one.kill()
            died = time.perf_counter()
            await asyncio.gather(*talks)
            took = time.perf_counter() - died - _KILLED_SECONDS
    return f"{took:.1f} s until the last of 16 turns was answered elsewhere, less the model's {_KILLED_SECONDS:.0f} s"


def _wait_until_held(url: str, count: int) -> None:
    """Until so many agents' turns run: each is somebody's."""
    held = "SELECT count(*) FROM agent WHERE lease_owner IS NOT NULL AND lease_until > clock_timestamp()"
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute(held).fetchone() != (count,):
            time.sleep(0.01)


def _cpu_ms(pid: int) -> float:
    return sum(map(ticks, tree(pid)))


MEASURES = [
    Measure("start", "start to first healthy answer; RSS idle / under 64 agents", "2 s; 250 / 400 MB", start),
    Measure("throughput", "turns/s at 1 / 8 / 64 agents, model latency 0", "40 / 70 / 70", throughput),
    Measure("latency", "turns/s at 64 / 500 agents, model latency 500 ms", "70 / 70", latency),
    Measure("first", "first token to the client after the model's first token", "15 ms", first_token),
    Measure("cost", "a turn with 5,000 messages stored, against one with 10", "1.2 x", cost),
    Measure("workers", "two workers of 16 turns against one on PostgreSQL, latency 500 ms: turns/s; CPU a turn",
            "1.7 x; 1.15 x", workers),
    Measure("killed", "a worker killed: its turns go on elsewhere after", "10 s", killed),
]  # fmt: skip


if __name__ == "__main__":
    print_table("agentos bench-serve", MEASURES)
