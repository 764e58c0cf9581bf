"""LongMemEval (arXiv 2410.10813): questions over many dated chat sessions, all of the file pooled into one agent."""

import json
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from typing import Any, Literal

from pydantic import BaseModel

from agentos.curate import import_conversation
from agentos.errors import UsageError
from agentos.evals.data import DataFile
from agentos.evals.suite import (
    MOST_HITS,
    Case,
    Outcome,
    SettableClock,
    Suite,
    ask_recall,
    best_first,
    sessions_of,
    turn_recall,
)
from agentos.protocols import Hit
from agentos.runtime import Runtime

UPDATE = "knowledge-update"
OVERALL = "all types"
SHOWN = 10
"""Hits that `conversation_search` shows when the model says no limit."""


class Turn(BaseModel):
    """One message of a session."""

    role: Literal["user", "assistant"]
    content: str
    has_answer: bool = False


class Question(BaseModel):
    """A question, when it was asked, and its sessions; those that hold the answer are named."""

    question_id: str
    question_type: str
    question: str
    question_date: str
    haystack_dates: list[str]
    haystack_session_ids: list[str]
    haystack_sessions: list[list[Turn]]
    answer_session_ids: list[str]

    def sessions(self) -> Iterator[tuple[str, datetime, list[Turn]]]:
        """(id, date, turns) of each session."""
        dates = map(_date, self.haystack_dates)
        return zip(self.haystack_session_ids, dates, self.haystack_sessions, strict=True)

    def evidence(self) -> set[str]:
        """Ids of the turns that hold the answer."""
        found = {_turn_id(name, n): t for name, _, turns in self.sessions() for n, t in enumerate(turns)}
        return {turn_id for turn_id, turn in found.items() if turn.has_answer}


class Pool:
    """All sessions of the file, imported into one agent when the first question is asked."""

    def __init__(self, questions: list[Question]) -> None:
        self.questions = questions
        self.agent_id: str | None = None

    async def ask(self, question: Question, runtime: Runtime) -> Outcome:
        """Recall of sessions and turns by `conversation_search`; of an update also what is shown on top."""
        if self.agent_id is None:
            record = await runtime.create_agent("pool")
            await import_conversation(runtime.store, runtime.clock, record.id, self._lines())
            self.agent_id = record.id
        if isinstance(runtime.clock, SettableClock):
            runtime.clock.set(_date(question.question_date))
        outcome = Outcome()
        ranked = best_first(await ask_recall(runtime, self.agent_id, question.question, outcome, MOST_HITS))
        first, answers = set(sessions_of(ranked)[:5]), set(question.answer_session_ids)
        outcome.scores = {"session any@5": float(bool(answers & first)), "session all@5": float(answers <= first)}
        if evidence := question.evidence():
            outcome.scores |= turn_recall(ranked, evidence)
        if question.question_type == UPDATE:
            shown = await ask_recall(runtime, self.agent_id, question.question, outcome, SHOWN)
            outcome.scores["new above stale"] = float(_new_above_stale(shown, question))
        return outcome

    def _lines(self) -> Iterator[str]:
        """Every session once, oldest first, as `agentos memory import` takes it."""
        sessions = {name: (when, turns) for q in self.questions for name, when, turns in q.sessions()}
        for name, (when, turns) in sorted(sessions.items(), key=lambda item: item[1][0]):
            dated: dict[str, Any] = {"created_at": when.isoformat()}
            for number, turn in enumerate(turns):
                if turn.content.strip():
                    values = {"role": turn.role, "content": turn.content, "session": name}
                    yield json.dumps(values | {"id": _turn_id(name, number)} | dated)
                    dated = {}  # the next ones follow it


def _new_above_stale(shown: list[Hit], question: Question) -> bool:
    """Whether the newest answer session is shown, and no older one above it."""
    newest, _, _ = max((s for s in question.sessions() if s[0] in question.answer_session_ids), key=lambda s: s[1])
    first = next((hit.session for hit in shown if hit.session in question.answer_session_ids), None)
    return first == newest


def _turn_id(session: str, number: int) -> str:
    return f"{session}:{number}"


def _date(text: str) -> datetime:
    return datetime.strptime(text, "%Y/%m/%d (%a) %H:%M")


def read(file: DataFile, model: str | None) -> list[Case]:
    """A case for each question that has an answer; ids that end in `_abs` have none."""
    questions = file.document(Question)
    for number, question in enumerate(questions, 1):
        try:
            known = {name for name, _, _ in question.sessions()}
            _date(question.question_date).astimezone()
            for _, when, _ in question.sessions():
                when.astimezone()
        except (ValueError, OverflowError) as error:
            raise UsageError(f"{file.path}, entry {number}: {error}; give LongMemEval's published file") from None
        if not question.answer_session_ids or not known.issuperset(question.answer_session_ids):
            raise UsageError(f"{file.path}, entry {number}: answer_session_ids are not all among haystack_session_ids")
    pool = Pool(questions)
    return [
        Case(q.question_id, (q.question_type, OVERALL), partial(pool.ask, q))
        for q in questions
        if not q.question_id.endswith("_abs")
    ]


LONGMEMEVAL = Suite("longmemeval", read, takes_model=False)
