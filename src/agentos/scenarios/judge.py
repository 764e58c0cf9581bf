"""Expectations in words, which another model answers with yes or no."""

import re
from collections.abc import Iterator

from agentos.errors import ProviderError
from agentos.messages import Reply
from agentos.prompts import prompt
from agentos.protocols import LLM, LLMRequest
from agentos.scenarios.model import Scenario
from agentos.scenarios.trajectory import Trajectory, TurnRecord, Verdict


def sentences(scenario: Scenario) -> Iterator[tuple[int, str]]:
    """(turn, sentence) of all there is to judge; turn 0 is the end."""
    for number, expect in [*enumerate((turn.expect for turn in scenario.turns), 1), (0, scenario.expect)]:
        yield from ((number, sentence) for sentence in (expect.judge if expect else ()))


async def judge(scenario: Scenario, trajectory: Trajectory, llm: LLM) -> None:
    """Put what the model thinks of each sentence into the trajectory, in place of earlier verdicts.

    An answer that is neither yes nor no leaves its sentence open, and so does a request that fails.
    `ConfigError` where there is no such model.
    """
    verdicts = []
    for number, sentence in sentences(scenario):
        records = trajectory.turns[number - 1 : number] if number else trajectory.turns
        conversation = "\n".join(map(_told, records))
        try:
            answer = await _answer(llm, prompt("judge", conversation=conversation, sentence=sentence))
        except ProviderError as error:
            verdicts.append(Verdict(turn=number, sentence=sentence, met=None, answer=str(error)))
            continue
        word = re.match(r"\W*(yes|no)\b", answer, re.IGNORECASE)
        met = word[1].casefold() == "yes" if word else None
        verdicts.append(Verdict(turn=number, sentence=sentence, met=met, answer=f"the judge says: {answer}"))
    trajectory.judged = verdicts


def _told(record: TurnRecord) -> str:
    return f"{record.action}\nagent: {record.reply}" if record.reply else record.action


async def _answer(llm: LLM, text: str) -> str:
    answer = ""
    async for item in llm.stream(LLMRequest([{"role": "user", "content": text}], max_tokens=llm.max_output_tokens)):
        if isinstance(item, Reply):
            answer = item.text
    return answer
