"""The line that `docs/evaluation.md` compares with: plain FTS5 over the same files, one row a turn, ranked by BM25.

    python bench/plain_full_text.py locomo FILE
    python bench/plain_full_text.py longmemeval FILE

Porter stems, a question's words without stop words, any of them; a row of LoCoMo also has its speaker and date.
"""

import sqlite3
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from agentos.evals import locomo, longmemeval
from agentos.evals.data import DataFile
from agentos.memory.search import query_terms

SHOWN, RANKED = 10, 50
Row = tuple[str, str, str]
"""(turn id, session, text), in the order of time."""
Score = tuple[str, str, float]
"""(questions, measure, 0 to 1)."""


class FullText:
    """Turns in a table of their own."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._connection = sqlite3.connect(":memory:")
        columns = "id UNINDEXED, session UNINDEXED, text, tokenize=porter"
        self._connection.execute(f"CREATE VIRTUAL TABLE t USING fts5({columns})")
        self._connection.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)

    def find(self, question: str) -> list[tuple[int, str, str]]:
        """(place in time, turn id, session) of the best turns, best first."""
        words = " OR ".join(f'"{word}"' for word in query_terms(question)[0])
        query = "SELECT rowid, id, session FROM t WHERE t MATCH ? ORDER BY rank LIMIT ?"
        return self._connection.execute(query, (words, RANKED)).fetchall() if words else []


def of_locomo(path: Path) -> Iterator[Score]:
    """recall@10 of each question with evidence, by category."""

    def row(turn: locomo.Turn, session: str, date: str) -> Row:
        return turn.dia_id, session, f"{turn.speaker}: {turn.content} {date}"

    for number, talk in enumerate(DataFile(path).document(locomo.Talk), 1):
        conversation = locomo.Conversation(number, talk, str(path), None)
        index = FullText(row(t, name, date) for name, date, turns in talk.sessions() for t in turns)
        for question in talk.qa:
            evidence = conversation.evidence(question)
            if question.category != 5 and evidence:
                found = {turn for _, turn, _ in index.find(question.question)[:SHOWN]}
                for questions in (locomo.CATEGORIES[question.category], locomo.OVERALL):
                    yield questions, "recall@10", len(found & evidence) / len(evidence)


def of_longmemeval(path: Path) -> Iterator[Score]:
    """Sessions among the first five; of updates, whether the new one stands above the old."""
    questions = DataFile(path).document(longmemeval.Question)
    sessions = {name: (when, turns) for q in questions for name, when, turns in q.sessions()}
    in_time = sorted(sessions.items(), key=lambda item: item[1][0])
    index = FullText((f"{name}:{n}", name, t.content) for name, (_, turns) in in_time for n, t in enumerate(turns))
    for question in questions:
        if question.question_id.endswith("_abs"):
            continue
        found, answers = index.find(question.question), set(question.answer_session_ids)
        first = set(list(dict.fromkeys(session for _, _, session in found))[:5])
        yield longmemeval.OVERALL, "session any@5", float(bool(answers & first))
        yield longmemeval.OVERALL, "session all@5", float(answers <= first)
        if question.question_type == longmemeval.UPDATE:
            newest = max(answers, key=lambda name: sessions[name][0])
            for order, hits in (("newest first", sorted(found[:SHOWN], reverse=True)), ("best first", found[:SHOWN])):
                on_top = next((session for _, _, session in hits if session in answers), None)
                yield longmemeval.UPDATE, f"new above stale, {order}", float(on_top == newest)


def main(suite: str, path: Path) -> None:
    """Print the mean of each measure."""
    scores = defaultdict[tuple[str, str], list[float]](list)
    for questions, measure, score in {"locomo": of_locomo, "longmemeval": of_longmemeval}[suite](path):
        scores[questions, measure].append(score)
    for (questions, measure), values in scores.items():
        print(f"{questions:20} {measure:32} n {len(values):4}  {sum(values) / len(values):.3f}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
