"""Rows about whole processes: CPU time and memory, the system's own accounting."""

import asyncio
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pexpect

AGENTOS = [str(Path(sys.executable).with_name("agentos"))]


def _environment(folder: Path) -> dict[str, str]:
    keep = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    return keep | {"AGENTOS_HOME": str(folder), "AGENTOS_MODEL": "offline", "OLLAMA_HOST": "127.0.0.1:9"}


def _cpu_ms(arguments: list[str], folder: Path) -> float:
    """CPU of a command and all its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(AGENTOS + arguments, env=_environment(folder), check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


def _chat(folder: Path) -> "pexpect.spawn[str]":
    chat = pexpect.spawn(
        AGENTOS[0], ["chat"], env=_environment(folder), encoding="utf-8", dimensions=(40, 120), timeout=30
    )
    chat.expect(re.escape("offline"))
    chat.expect("[>❯›]")
    return chat


def ticks(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(p for child in children for p in tree(int(child)))]


def rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    return int(found.group(1)) / 1024 if found else 0.0


async def cpu(folder: Path) -> str:
    return await asyncio.to_thread(_cpu, folder)


async def rss(folder: Path) -> str:
    return await asyncio.to_thread(_rss, folder)


def _cpu(folder: Path) -> str:
    rows = []
    commands = [["--version"], ["--help"], ["chat", "-p", "Hello, my name is Ada"]]
    medians = [statistics.median(_cpu_ms(c, folder) for _ in range(6)) for c in commands]
    for _ in range(5):
        chat = _chat(folder)
        time.sleep(0.3)
        rows.append(ticks(chat.pid))
        chat.sendline("/exit")
        chat.expect(pexpect.EOF)
        chat.close()
    return f"{medians[0]:.0f} / {medians[1]:.0f} / {statistics.median(rows):.0f} / {medians[2]:.0f} ms"


def _rss(folder: Path) -> str:
    """The chat's own process, and all its processes together where it has more than one."""
    chat = _chat(folder)
    chat.sendline("My name is Ada.")
    chat.expect("Ada")
    time.sleep(1.0)
    before = rss_mb(chat.pid)
    chat.sendline("Remember that the boiler was serviced on 3 May 2026 by Joost.")
    time.sleep(2.0)
    chat.sendline("When was the boiler serviced?")
    chat.expect("Joost")
    time.sleep(1.0)
    after = rss_mb(chat.pid)
    time.sleep(8.0)  # long enough for the index to catch up behind the talk
    processes = [rss_mb(pid) for pid in tree(chat.pid)]
    chat.sendline("/exit")
    chat.expect(pexpect.EOF)
    chat.close()
    more = (
        f"; with the index process {sum(processes):.0f} MB in {len(processes)} processes" if len(processes) > 1 else ""
    )
    return f"{before:.0f} / {after:.0f} MB{more}"
