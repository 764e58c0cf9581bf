"""LoCoMo (arXiv 2402.17753): long conversations of two people, questions with labelled evidence turns."""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from typing import Any

from pydantic import BaseModel

from agentos.curate import import_conversation
from agentos.errors import UsageError
from agentos.evals.data import DataFile
from agentos.evals.suite import (
    MOST_HITS,
    RECALL_AT,
    Case,
    Outcome,
    Suite,
    ask_agent,
    ask_recall,
    best_first,
    sessions_of,
    turn_recall,
)
from agentos.runtime import Runtime

CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop", 5: "adversarial"}
OVERALL = "categories 1-4"


class Turn(BaseModel):
    """What one person said; a picture is known by its caption."""

    speaker: str
    dia_id: str
    text: str
    blip_caption: str | None = None

    @property
    def content(self) -> str:
        """The words of the turn as one line, with its picture in words."""
        picture = f" [picture: {self.blip_caption}]" if self.blip_caption else ""
        return " ".join(f"{self.text}{picture}".split())


class Question(BaseModel):
    """A question with the ids of the turns that answer it."""

    question: str
    category: int
    evidence: list[str] = []


class Talk(BaseModel):
    """One entry of the file; `conversation` holds `session_N` and `session_N_date_time`."""

    conversation: dict[str, str | list[Turn]]
    qa: list[Question]

    def sessions(self) -> Iterator[tuple[str, str, list[Turn]]]:
        """(name, date, turns) in order."""
        names = [name for name in self.conversation if re.fullmatch(r"session_\d+", name)]
        for name in sorted(names, key=lambda name: int(name.split("_")[1])):
            turns, date = self.conversation[name], self.conversation.get(f"{name}_date_time")
            if isinstance(turns, list) and isinstance(date, str):
                yield name, date, turns


class Conversation:
    """One talk, imported into an agent of its own when its first question is asked."""

    def __init__(self, number: int, talk: Talk, place: str, model: str | None) -> None:
        self.number, self.model = number, model
        self.turns = {turn.dia_id: turn for _, _, turns in talk.sessions() for turn in turns}
        self.session_of = {turn.dia_id: name for name, _, turns in talk.sessions() for turn in turns}
        self.lines = list(_lines(talk, place))
        self.agent_id: str | None = None
        if not self.lines:
            raise UsageError(f"{place}: no session with turns and a date; give LoCoMo's published file")

    def evidence(self, question: Question) -> set[str]:
        """Ids of the evidence turns that exist; the file's labels are not all spelled alike."""
        labels = re.findall(r"D:?(\d+):(\d+)", " ".join(question.evidence))
        return {f"D{int(session)}:{int(turn)}" for session, turn in labels} & self.turns.keys()

    async def ask(self, question: Question, runtime: Runtime) -> Outcome:
        """Recall of the evidence by `conversation_search`; with a model, also whether it quotes evidence."""
        outcome = Outcome()
        if self.agent_id is None:
            self.agent_id = await self._take_in(runtime, f"conversation {self.number}")
        evidence = self.evidence(question)
        ranked = best_first(await ask_recall(runtime, self.agent_id, question.question, outcome, MOST_HITS))
        outcome.scores = turn_recall(ranked, evidence)
        wanted, sessions = {self.session_of[turn] for turn in evidence}, sessions_of(ranked)
        outcome.scores |= {f"session any@{k}": float(bool(wanted & set(sessions[:k]))) for k in RECALL_AT}
        if self.model is not None:
            outcome.scores["evidence quoted"] = await self._quotes(runtime, question.question, evidence)
        return outcome

    async def _quotes(self, runtime: Runtime, question: str, evidence: set[str]) -> float:
        """Whether the first quotation of the reply is an evidence turn's text, or a part of it.

        An agent of its own is asked, else it would find the questions asked before.
        """
        name = "asked"
        agent_id = await self._take_in(runtime, name)
        try:
            reply = (await ask_agent(await runtime.agent(name), question)).reply
        finally:
            await runtime.delete_agent(agent_id)
        quoted = re.search(r'"(.+)"', reply, re.DOTALL)
        words = quoted.group(1).strip(" ….") if quoted else ""
        return float(len(words) > 1 and any(words in self.turns[turn].content for turn in evidence))

    async def _take_in(self, runtime: Runtime, name: str) -> str:
        """A new agent that has the talk as past messages; its id."""
        record = await runtime.create_agent(name)
        await import_conversation(runtime.store, runtime.clock, record.id, self.lines)
        return record.id


def _lines(talk: Talk, place: str) -> Iterator[str]:
    """The talk as `agentos memory import` takes it; a session's turns follow its date."""
    for name, date, turns in talk.sessions():
        try:
            when = datetime.strptime(date, "%I:%M %p on %d %B, %Y")
        except ValueError:
            raise UsageError(
                f"{place}: {name}_date_time {date!r} is no date such as '1:56 pm on 8 May, 2023'"
            ) from None
        for number, turn in enumerate(turns):
            values: dict[str, Any] = {"role": "user", "content": turn.content, "name": turn.speaker}
            values |= {"session": name, "id": turn.dia_id} | ({} if number else {"created_at": when.isoformat()})
            if turn.content:
                yield json.dumps(values)


def read(file: DataFile, model: str | None) -> list[Case]:
    """A case for each question that has evidence in its conversation."""
    cases = []
    for number, talk in enumerate(file.document(Talk), 1):
        conversation = Conversation(number, talk, f"{file.path}, entry {number}", model)
        for n, question in enumerate(talk.qa, 1):
            if question.category not in CATEGORIES:
                raise UsageError(
                    f"{file.path}, entry {number}, question {n}: category {question.category} is not 1 to 5"
                )
            if conversation.evidence(question):
                groups = (CATEGORIES[question.category], *([OVERALL] if question.category != 5 else []))
                cases.append(Case(f"{number}:{n}", groups, partial(conversation.ask, question)))
    return cases


LOCOMO = Suite("locomo", read, groups=(*list(CATEGORIES.values())[:4], OVERALL, CATEGORIES[5]))
