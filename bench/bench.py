"""Speed and size, as a table: what, how far it should reach, what was measured here.

    python bench/bench.py            everything (several minutes)
    python bench/bench.py turn cpu   only the rows whose name contains one of the words

Machines are noisy: medians, and the time of one fsync beside every table.
"""

import os
import sys
from pathlib import Path

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # it would triple import times
sys.path.insert(0, str(Path(__file__).parent))

import memory_rows
import process_rows
import turn_rows
from table import Measure, print_table

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


if __name__ == "__main__":
    print_table("agentos bench", MEASURES)
