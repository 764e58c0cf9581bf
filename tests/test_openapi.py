"""The API's own description: valid, whole, and true in that no request it allows is answered by a failure of ours."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from agentos.testing import FunctionLLM
from conftest import chances
from serving import Served, served

REQUIRED = """
GET /v1/health
POST GET /v1/agents
GET PATCH DELETE /v1/agents/{agent_id}
GET /v1/agents/{agent_id}/core-memory/blocks
GET PATCH /v1/agents/{agent_id}/core-memory/blocks/{block_label}
PATCH /v1/agents/{agent_id}/core-memory/blocks/attach/{block_id}
PATCH /v1/agents/{agent_id}/core-memory/blocks/detach/{block_id}
POST GET /v1/blocks
GET PATCH DELETE /v1/blocks/{block_id}
GET /v1/blocks/{block_id}/agents
POST GET /v1/agents/{agent_id}/archival-memory
GET /v1/agents/{agent_id}/archival-memory/search
DELETE /v1/agents/{agent_id}/archival-memory/{memory_id}
POST GET /v1/agents/{agent_id}/messages
POST /v1/agents/{agent_id}/messages/stream
POST /v1/agents/{agent_id}/messages/async
POST /v1/agents/{agent_id}/messages/cancel
PATCH /v1/agents/{agent_id}/reset-messages
POST /v1/agents/{agent_id}/summarize
POST /v1/messages/search
GET /v1/runs
GET /v1/runs/{run_id}
GET /v1/runs/{run_id}/messages
POST /v1/runs/{run_id}/stream
POST PUT GET /v1/tools
GET PATCH DELETE /v1/tools/{tool_id}
GET /v1/agents/{agent_id}/tools
PATCH /v1/agents/{agent_id}/tools/attach/{tool_id}
PATCH /v1/agents/{agent_id}/tools/detach/{tool_id}
GET /v1/models/
GET /v1/tags
"""
"""What Letta's client needs of a server, as this one declares it: without a slash at the end."""
EXAMPLES = chances(16)
"""Requests made up for each operation."""


@pytest.fixture(scope="module")
def home() -> Iterator[Served]:
    with served(FunctionLLM(lambda request: "ok", keep_requests=False)) as home:
        yield home


@pytest.fixture(scope="module")
def document(home: Served) -> Any:
    return home.http.get("/openapi.json").json()


def test_the_description_is_valid_and_whole(document: Any) -> None:
    schemathesis.openapi.from_dict(document).validate()
    declared = {(method.upper(), _shape(path)) for path, item in document["paths"].items() for method in item}
    rows = [line.split() for line in REQUIRED.split("\n") if line]
    needed = {(method, _shape(path)) for *methods, path in rows for method in methods}
    assert not sorted(needed - declared)


def _shape(path: str) -> str:
    """The path without the names of its parameters."""
    return "/".join("{}" if part.startswith("{") else part for part in path.split("/"))


def test_no_request_makes_the_server_fail(home: Served, document: Any) -> None:
    api = schemathesis.openapi.from_dict(document)
    operations = [result.ok() for result in api.get_all_operations()]
    assert len(operations) > 30
    known = _known(home)
    for operation in operations:
        _try(home, operation, known)
        if operation.method.upper() == "DELETE":
            known = _known(home)


def _try(home: Served, operation: Any, known: dict[str, str]) -> None:
    """Ask for an operation with made-up values, and with those of `known` in its path."""

    @seed(4)
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )  # fmt: skip
    @given(case=operation.as_strategy(), number=st.integers(0, 3))
    def check(case: Any, number: int) -> None:
        if number:  # else nearly all would ask for what is not there
            case.path_parameters = {name: known.get(name, value) for name, value in case.path_parameters.items()}
        _ask(home, case)

    check()


def _known(home: Served) -> dict[str, str]:
    """Ids of things that are there, by the names of the path parameters."""
    agent = home.letta.agents.create().id
    run = home.letta.agents.messages.create_async(agent, messages=[{"role": "user", "content": "hello"}]).id
    passage = home.http.post(f"/v1/agents/{agent}/archival-memory", json={"text": "tea"}).json()[0]["id"]
    block = home.letta.agents.retrieve(agent).blocks[0]
    message = f"message-{agent.removeprefix('agent-')}-1"
    return {
        "agent_id": agent, "run_id": run, "memory_id": passage, "step_id": "step-1", "message_id": message,
        "block_id": block.id or "", "block_label": block.label or "",
    }  # fmt: skip


def _ask(home: Served, case: Any) -> None:
    answer = case.call(base_url=home.url, headers={"Authorization": home.http.headers["authorization"]})
    assert answer.status_code < 500 or answer.status_code == 501, (case.as_curl_command(), answer.text)
    if answer.status_code >= 400:
        assert answer.json()["detail"], case.as_curl_command()
