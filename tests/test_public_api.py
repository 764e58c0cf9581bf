"""The public surface: what is exported, sorted and importable, and what an import costs."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import agentos
import agentos.testing
from agentos.settings import Settings
from agentos.testing import FixedClock, ScriptedLLM, call, say, temporary_runtime

SRC = Path(__file__).parent.parent / "src"


@pytest.mark.parametrize("module", [agentos, agentos.testing])
def test_everything_exported_is_sorted_and_there(module: object) -> None:
    names = module.__all__  # type: ignore[attr-defined]
    assert names == sorted(names, key=lambda n: (not n.isupper(), not n[0].isupper(), n))
    assert len(set(names)) == len(names)
    for name in names:
        assert getattr(module, name).__name__ if not name.isupper() else getattr(module, name)
    assert set(names) == set(module._HOMES)  # type: ignore[attr-defined]


@pytest.mark.parametrize("module", [agentos, agentos.testing])
def test_an_unknown_name_is_an_attribute_error(module: object) -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        module.nothing  # noqa: B018  # type: ignore[attr-defined]


def test_star_import_gives_the_public_names() -> None:
    scope: dict[str, object] = {}
    exec("from agentos import *", scope)
    assert set(agentos.__all__) <= set(scope)


def test_each_public_thing_says_what_it_is() -> None:
    for module in (agentos, agentos.testing):
        for name in module.__all__:
            thing = getattr(module, name)
            assert callable(thing) is False or (thing.__doc__ or "").strip(), name


HEAVY = (
    "sqlalchemy",
    "pydantic",
    "numpy",
    "litellm",
    "chromadb",
    "wordllama",
    "alembic",
    "typer",
    "tiktoken",
    "pytest",
)


@pytest.mark.parametrize(
    ("statement", "barred"),
    [
        ("import agentos, agentos.testing", HEAVY),
        ("import agentos.errors, agentos.messages, agentos.events, agentos.protocols", HEAVY),
        ("import agentos.agent", ("sqlalchemy", "numpy", "litellm", "chromadb", "alembic", "typer", "tiktoken")),
        (
            "import agentos.runtime",
            ("numpy", "litellm", "chromadb", "wordllama", "alembic", "typer", "tiktoken", "pytest", "mcp"),
        ),
        ("from agentos.testing import ScriptedLLM, say", ("sqlalchemy", "numpy", "litellm", "chromadb", "pytest")),
    ],
)
def test_an_import_loads_nothing_heavy(statement: str, barred: tuple[str, ...]) -> None:
    code = f"import sys; {statement}; print([m for m in {barred!r} if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"


MODULES = [
    path.relative_to(SRC).with_suffix("")
    for path in sorted(SRC.rglob("*.py"))
    if path.name not in ("__main__.py", "env.py") and "versions" not in path.parts  # these run something
]


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_every_module_can_be_imported_and_says_what_it_is(module: Path) -> None:
    assert importlib.import_module(".".join(module.parts).removesuffix(".__init__")).__doc__


async def test_a_temporary_runtime_remembers_and_touches_no_file(tmp_path: Path) -> None:
    insert = call("archival_memory_insert", content="Ada likes tea")
    script = [say("Noted.", insert), say("", call("archival_memory_search", query="tea")), "Tea!"]
    settings, clock = Settings(home=tmp_path / "home"), FixedClock()
    async with temporary_runtime(ScriptedLLM(script), settings=settings, clock=clock) as runtime:
        ada = await runtime.agent("ada")
        await ada.ask("I like tea")
        events = [event async for event in ada.send("What do I like?")]
        assert any("Ada likes tea" in event.text for event in events if event.type == "tool_result")
        assert (await ada.state()).run is None
        assert runtime.store.in_memory
    assert os.listdir(tmp_path) == []
