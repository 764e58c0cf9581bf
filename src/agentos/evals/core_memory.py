"""Letta's core memory rows: facts told to an agent one by one, a question, in update rows a correction."""

from functools import partial
from typing import Annotated

from pydantic import BaseModel, StringConstraints

from agentos.errors import UsageError
from agentos.evals.data import DataFile
from agentos.evals.suite import Case, Outcome, Suite, ask_agent, plain_words
from agentos.runtime import Runtime

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Extra(BaseModel):
    """The facts; update rows name those that the contradicting fact replaces."""

    facts: list[Text]
    contradicting_fact: Text | None = None
    supporting_fact_indices: list[int] = []


class Arguments(BaseModel):
    """What the row gives its agent."""

    extra: Extra


class Row(BaseModel):
    """A question and its answer after all the facts."""

    input: Text
    ground_truth: Text
    agent_args: Arguments


async def ask(row: Row, case_id: str, runtime: Runtime) -> Outcome:
    """Tell the facts and the correction, each in a turn, ask the question, and look for the answer."""
    extra = row.agent_args.extra
    agent = await runtime.agent(case_id)
    for fact in (*extra.facts, *([extra.contradicting_fact] if extra.contradicting_fact else [])):
        await ask_agent(agent, f"Remember that {fact}")
    blocks = (await agent.state()).blocks
    core = plain_words("\n".join(block.value for block in blocks if block.label != "persona"))
    reply = plain_words((await ask_agent(agent, row.input)).reply)
    answer = plain_words(row.ground_truth)
    scores = {"in core memory": float(answer in core), "in reply": float(answer in reply)}
    scores["in either"] = max(scores.values())
    if extra.contradicting_fact:
        stale = [plain_words(extra.facts[index]) for index in extra.supporting_fact_indices]
        scores["contradicted gone"] = float(not any(fact in core or fact in reply for fact in stale))
    await runtime.delete_agent(agent.id)
    return Outcome(scores)


def read(file: DataFile, model: str | None) -> list[Case]:
    """A case for each row."""
    rows = file.rows(Row)
    for n, row in enumerate(rows, 1):
        extra = row.agent_args.extra
        if not all(0 <= index < len(extra.facts) for index in extra.supporting_fact_indices):
            raise UsageError(f"{file.path}, row {n}: supporting_fact_indices name no fact; give Letta's published file")
    return [Case(str(n), (_kind(row),), partial(ask, row, f"row {n}")) for n, row in enumerate(rows, 1)]


def _kind(row: Row) -> str:
    return "update" if row.agent_args.extra.contradicting_fact else "read"


CORE_MEMORY = Suite("core-memory", read, model="offline")
