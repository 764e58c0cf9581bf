"""A table of measures, with the machine it was taken on."""

import asyncio
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Measure:
    """One row of the table."""

    name: str
    what: str
    reach: str
    run: Callable[[Path], Coroutine[Any, Any, str]]


def print_table(title: str, measures: Sequence[Measure]) -> None:
    """Take the measures whose name holds one of the words of the command line, all without any, and print them."""
    wanted = sys.argv[1:]
    chosen = [m for m in measures if not wanted or any(word in m.name for word in wanted)]
    table = Table("what", "reach", "measured", title=title)
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
