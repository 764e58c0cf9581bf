"""MemGPT's nested key-value task: 140 pairs in archival memory, whose values may be keys of other pairs.

Its files lie side by side: rows of pairs (`ordered_kv_records`), and for each level rows of positions
that form a chain: the value of each is overwritten by the key of the next. Asked is for what the first
key leads to. The file of the pairs stands for all levels beside it, a level's file for that level.
"""

import json
import re
from functools import partial
from itertools import pairwise
from pathlib import Path

from pydantic import BaseModel

from agentos.errors import UsageError
from agentos.evals.data import DataFile
from agentos.evals.suite import Case, Outcome, Suite, ask_agent, timed_searches
from agentos.messages import Reply
from agentos.protocols import LLMRequest
from agentos.runtime import Runtime
from agentos.testing import FunctionLLM, call, say

OVERALL = "all levels"
_PAIR = "Key-value pair: key = {}, value = {}"
_STORE = "Store each line in archival memory:"
_TOLD_AT_ONCE = 20
"""Pairs in one message: a step may make 32 calls."""
_ASK = "Which value does this key lead to, through all values that are keys themselves? "


class Pairs(BaseModel):
    """A row of pairs."""

    ordered_kv_records: list[tuple[str, str]]


async def ask(pairs: list[tuple[str, str]], chain: list[int], case_id: str, runtime: Runtime) -> Outcome:
    """Have the pairs stored, ask for the first key of the chain; exact match of the reply."""
    values = dict(pairs)
    for here, there in pairwise(chain):
        values[pairs[here][0]] = pairs[there][0]
    agent = await runtime.agent(case_id)
    lines = [_PAIR.format(*pair) for pair in values.items()]
    for first in range(0, len(lines), _TOLD_AT_ONCE):
        await ask_agent(agent, "\n".join([_STORE, *lines[first : first + _TOLD_AT_ONCE]]))
    reply, query_ms = await timed_searches(agent, f"{_ASK}{pairs[chain[0]][0]}")
    await runtime.delete_agent(agent.id)
    return Outcome({"exact match": float(reply.strip() == pairs[chain[-1]][1])}, query_ms)


def policy() -> FunctionLLM:
    """The scripted model: stores what it is told, then follows keys by one search a step until no pair has the key."""
    return FunctionLLM(_next_step, name="test/nested-kv", context_window=200_000, keep_requests=False)


def _next_step(request: LLMRequest) -> Reply | str:
    last = request.messages[-1]
    if last["role"] == "tool":
        searched = _last_search(request)
        if searched is None:
            return "All stored."
        found = re.search(rf"key = {re.escape(searched)}, value = ([^\s\"]+)", str(last["content"]))
        return _search(found.group(1)) if found else searched
    lines = str(last["content"]).split("\n")
    pairs = [line for line in lines if line.startswith(_PAIR.split("{")[0])]
    if pairs:
        return say("", *(call("archival_memory_insert", content=pair) for pair in pairs))
    return _search(str(last["content"]).split()[-1])


def _search(key: str) -> Reply:
    return say("", call("archival_memory_search", query=key, request_heartbeat=True))


def _last_search(request: LLMRequest) -> str | None:
    """What the newest call looked for; None where it was no search."""
    newest = next(m for m in reversed(request.messages) if m.get("tool_calls"))["tool_calls"][-1]["function"]
    query = json.loads(newest["arguments"]).get("query")
    return None if query is None else str(query)


def read(file: DataFile, model: str | None) -> list[Case]:
    """A case for each chain of each level; a chain's row of pairs is that of the same number."""
    has_pairs = isinstance(file.rows(object)[0], dict)
    levels = _beside(file.path, "*orderings_*_levels*.jsonl*") if has_pairs else [file.path]
    chains = [(path, n, chain) for path in levels for n, chain in enumerate(file.rows(list[int], path), 1)]
    rows = file.rows(Pairs, file.path if has_pairs else _beside(file.path, "*kv*_keys*.jsonl*")[0])
    cases = []
    for path, n, chain in chains:
        records = rows[(n - 1) % len(rows)].ordered_kv_records
        if not chain or not all(0 <= position < len(records) for position in chain):
            raise UsageError(f"{path}, line {n}: {chain} are not all positions of the {len(records)} pairs")
        level = f"{len(chain)} {'level' if len(chain) == 1 else 'levels'}"
        case_id = f"{path.name.split('.')[0]} {n}"
        cases.append(Case(case_id, (level, OVERALL), partial(ask, records, chain, case_id)))
    return cases


def _beside(path: Path, pattern: str) -> list[Path]:
    """The files of the same data set in the folder, each once, whether packed or not; by name."""
    found = {other.name.split(".")[0]: other for other in sorted(path.parent.glob(pattern)) if other != path}
    if not found:
        raise UsageError(f"{path} needs a file named {pattern} in the same folder; put the published files together")
    return list(found.values())


NESTED_KV = Suite("nested-kv", read, takes_model=False, policy=policy)
