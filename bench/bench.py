"""Speed and size, as a table: what, how far it should reach, what was measured here.

    python bench/bench.py            everything (several minutes)
    python bench/bench.py turn cpu   only the rows whose name contains one of the words

Machines are noisy: medians, and the time of one fsync beside every table.
"""

import asyncio
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # it would triple import times
sys.path.insert(0, str(Path(__file__).parent))

from rich.console import Console
from rich.table import Table

import memory_rows
import process_rows
import turn_rows


@dataclass(frozen=True)
class Measure:
    """One row of the table."""

    name: str
    what: str
    reach: str
    run: Callable[[Path], Coroutine[Any, Any, str]]


MEASURES = [
    Measure("turn-http", "plain turn through litellm and HTTP, p50 (a bare call beside)", "14 ms", turn_rows.http),
    Measure("turn-scripted", "plain turn, scripted model in the process, p50", "4 ms", turn_rows.scripted),
    Measure("step-chain", "step in a 10-call chain through HTTP, p50", "12 ms", turn_rows.chain),
    Measure("turn-1000", "own time of a turn with 1,000 messages in context, p50", "10 ms", turn_rows.long_context),
    Measure("turn-100k", "a turn with 100,000 stored messages, against one with 10", "1.2 x", turn_rows.many_stored),
    Measure("facts-lost", "facts lost by refused writes; evicted, not found, 500 sessions", "0; 0", memory_rows.lost),
    Measure("insert", "archival insert acknowledged, 100,000 passages there, p50 / p95", "5 ms", memory_rows.insert),
    Measure("search", "archival search at 1,000 / 100,000 passages, p95", "5 / 25 ms", memory_rows.search),
    Measure("prefix", "share of the previous prompt that the next one repeats", "100 %", turn_rows.prefix),
    Measure("calls", "model calls for a turn that answers and saves a fact", "1", turn_rows.model_calls),
    Measure("cpu", "CPU of --version / --help / prompt on screen / chat -p offline, median",
            "80 / 220 / 700 / 1,500 ms", process_rows.cpu),
    Measure("rss", "RSS of an offline chat before / after its first search", "120 / 220 MB", process_rows.rss),
    Measure("commits", "64 agents committing steps at once: p95 / worst commit", "5 / 50 ms", turn_rows.commits),
]  # fmt: skip


def fsync_ms(folder: Path, times: int = 200) -> tuple[float, float]:
    """(median, 95th percentile) of writing 4 kB and syncing it, in milliseconds."""
    taken = []
    with (folder / "fsync").open("wb") as file:
        for _ in range(times):
            file.write(b"x" * 4096)
            file.flush()
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(1000 * (time.perf_counter() - started))
    return statistics.median(taken), sorted(taken)[int(times * 0.95)]


def main() -> None:
    wanted = sys.argv[1:]
    chosen = [m for m in MEASURES if not wanted or any(word in m.name for word in wanted)]
    table = Table("what", "reach", "measured", title="agentos bench")
    with tempfile.TemporaryDirectory() as folder:
        sync = fsync_ms(Path(folder))
        for measure in chosen:
            print(f"{measure.name} ...", file=sys.stderr, flush=True)
            place = Path(folder) / measure.name
            place.mkdir()
            table.add_row(measure.what, measure.reach, asyncio.run(measure.run(place)))
    console = Console(width=130)
    console.print(table)
    console.print(
        f"fsync here: median {sync[0]:.2f} ms, p95 {sync[1]:.2f} ms; {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    )


if __name__ == "__main__":
    main()
