"""A real conversation, lived through by the chat itself, then asked about.

    python bench/real_conversation.py locomo.json.gz [--conversation 0] [--window 8192]

FILE is LoCoMo's published file (gzipped or not). Every turn of one conversation goes, with its date
and speaker, through `agentos chat` on the offline model, one process per session; then its questions
are asked in a last process. Counted is for how many questions the memory that is quoted, or one of
the first 5 or 10 that the search shows, is an evidence turn; and what was sent to the model, beside
a replay of the full history at every turn.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from agentos.llm.offline import OfflineLLM

CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop", 5: "adversarial"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--conversation", type=int, default=0, help="which of the file's conversations")
    parser.add_argument("--window", type=int, default=8192, help="context window in tokens")
    options = parser.parse_args()
    opened = gzip.open if options.file.suffix == ".gz" else open
    with opened(options.file, "rt") as file:
        data = json.load(file)[options.conversation]
    with tempfile.TemporaryDirectory() as home:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment |= {"AGENTOS_HOME": home, "AGENTOS_MODEL": "offline", "AGENTOS_CONTEXT_WINDOW": str(options.window)}
        sessions = read_sessions(data["conversation"])
        started = time.perf_counter()
        results = [turn for session in sessions for turn in live(session, environment)]
        lived = time.perf_counter() - started
        started = time.perf_counter()
        hits = ask([q["question"] for q in data["qa"]], environment)
        asked = time.perf_counter() - started
    lines = {line: dia_id for session in sessions for dia_id, line in session}
    report(data["qa"], hits, lines)
    tokens(sessions, results)
    print(f"{len(results)} turns in {len(sessions)} processes: {lived:.0f} s; {len(hits)} questions: {asked:.0f} s")


def read_sessions(conversation: dict[str, Any]) -> list[list[tuple[str, str]]]:
    """For each session its (dia_id, line) in order; a line carries date and speaker."""
    sessions = []
    number = 1
    while f"session_{number}_date_time" in conversation:
        date = conversation[f"session_{number}_date_time"]
        turns = conversation.get(f"session_{number}", [])
        sessions.append([(t["dia_id"], f"({date}) {t['speaker']}: {' '.join(t['text'].split())}") for t in turns])
        number += 1
    return [session for session in sessions if session]


def chat(lines: list[str], environment: dict[str, str], output: str) -> list[dict[str, Any]]:
    """One chat process that is given these lines; the JSON lines it printed."""
    command = [sys.executable, "-m", "agentos", "chat", "--agent", "reader", "--output-format", output]
    text = "".join(f"{line}\n" for line in lines)
    done = subprocess.run(command, input=text, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the chat failed with {done.returncode}: {done.stderr.strip()}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def live(session: list[tuple[str, str]], environment: dict[str, str]) -> list[dict[str, Any]]:
    """A session of the conversation, in a process of its own."""
    return chat([line for _, line in session], environment, "json")


def ask(questions: list[str], environment: dict[str, str]) -> list[tuple[str, list[str]]]:
    """For each question (the reply, the texts its search of the conversation showed, best first)."""
    answers = []
    shown: list[str] = []
    for event in chat(questions, environment, "stream-json"):
        if event["type"] == "tool_result" and event["name"] == "conversation_search":
            rows = [json.loads(line) for line in event["text"].splitlines() if line.startswith("{")]
            shown = [row["text"] for row in sorted(rows, key=lambda row: row["rank"])]
        if event["type"] == "result":
            answers.append((event["reply"], shown))
            shown = []
    return answers


def report(questions: list[dict[str, Any]], answers: list[tuple[str, list[str]]], lines: dict[str, str]) -> None:
    """How often evidence was quoted, and was among the first hits, by category."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for question, (reply, shown) in zip(questions, answers, strict=True):
        evidence = set(question.get("evidence", []))
        found = [lines.get(text) in evidence for text in shown]
        quoted = any(dia_id in evidence and line in reply for line, dia_id in lines.items())
        row = [1, int(quoted), int(any(found[:5])), int(any(found[:10]))]
        for name in (
            CATEGORIES[question["category"]],
            "all",
            *(["all but adversarial"] if question["category"] != 5 else []),
        ):
            counts[name] = [a + b for a, b in zip(counts[name], row, strict=True)]
    print(f"{'questions':<22}{'n':>5}{'quoted':>12}{'in first 5':>12}{'in first 10':>13}")
    for name in (*CATEGORIES.values(), "all but adversarial", "all"):
        n, *hits = counts[name]
        print(f"{name:<22}{n:>5}" + "".join(f"{hit:>6} ({100 * hit / max(1, n):3.0f}%)" for hit in hits))


def tokens(sessions: list[list[tuple[str, str]]], results: list[dict[str, Any]]) -> None:
    """What was sent for the conversation's turns, beside a client that replays everything each time."""
    count = OfflineLLM().count_tokens
    history = full = 0
    head = results[0]["usage"]["prompt_tokens"] - count(sessions[0][0][1])
    for (_, line), result in zip((turn for s in sessions for turn in s), results, strict=True):
        history += count(line) + 10
        full += head + history
        history += count(result["reply"]) + 6
    sent = sum(result["usage"]["prompt_tokens"] for result in results)
    print(f"tokens sent: {sent:,}; a full replay of the history: {full:,} ({full / sent:.1f} times as many)")


if __name__ == "__main__":
    main()
