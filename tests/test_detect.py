"""Which model is found on which machine."""

import subprocess
import sys

import pytest

from agentos.llm.detect import detect_model
from agentos.testing.fake_openai import FakeOpenAI

NOWHERE = {"OLLAMA_HOST": "127.0.0.1:9"}


@pytest.fixture
def ollama():
    models = [{"name": "llama2:7b", "capabilities": ["completion"]}, {"name": "qwen3:4b", "capabilities": ["tools"]}]
    with FakeOpenAI(pages={"/api/tags": {"models": models}}) as server:
        yield server


def test_a_bare_machine_gets_the_offline_model():
    assert detect_model(None, environ=NOWHERE) == ("offline", "no key and no local server")


def test_what_is_set_wins_over_everything(ollama):
    environ = {"OLLAMA_HOST": ollama.root, "OPENAI_API_KEY": "k"}
    assert detect_model("groq/x", environ=environ) == ("groq/x", "as set")


def test_a_key_wins_over_ollama(ollama):
    environ = {"OLLAMA_HOST": ollama.root, "OPENAI_API_KEY": "k"}
    assert detect_model(None, environ=environ) == ("openai/gpt-4.1-mini", "a provider's key")


def test_ollama_gives_its_first_model_that_calls_tools(ollama):
    found = detect_model(None, environ={"OLLAMA_HOST": ollama.root})
    assert found == ("ollama_chat/qwen3:4b", f"Ollama at {ollama.root}")


def test_ollama_without_capabilities_gives_its_first_model():
    with FakeOpenAI(pages={"/api/tags": {"models": [{"name": "b"}, {"name": "a"}]}}) as server:
        assert detect_model(None, environ={"OLLAMA_HOST": server.root})[0] == "ollama_chat/b"


@pytest.mark.parametrize("page", [[], {}, {"models": None}, {"models": []}, {"models": ["x", {}]}])
def test_an_odd_answer_from_ollama_is_no_model(page):
    with FakeOpenAI(pages={"/api/tags": page}) as server:
        assert detect_model(None, environ={"OLLAMA_HOST": server.root})[0] == "offline"


def test_a_server_is_asked_for_its_first_model():
    page = {"data": [{"id": "Qwen/Qwen3-8B"}, {"id": "other"}]}
    with FakeOpenAI(pages={"/v1/models": page}) as server:
        found = detect_model(None, api_base=server.url, environ={"OPENAI_API_KEY": "k"})
    assert found == ("openai/Qwen/Qwen3-8B", f"first model of {server.url}")


def test_a_server_that_does_not_answer_is_named():
    assert detect_model(None, api_base="http://127.0.0.1:9/v1") == ("offline", "http://127.0.0.1:9/v1 lists no model")


def test_a_file_is_not_a_server(tmp_path):
    (tmp_path / "models").write_text('{"data": [{"id": "x"}]}')
    assert detect_model(None, api_base=tmp_path.as_uri())[0] == "offline"


def test_detection_does_not_load_litellm():
    code = (
        "import sys; from agentos.llm.detect import detect_model; from agentos.llm.litellm import LiteLLM; "
        f"detect_model(None, environ={NOWHERE!r}); assert LiteLLM('openai/x').name == 'openai/x'; "
        "assert not {'litellm', 'openai', 'tiktoken'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
