"""The documents say what the code says, and what they show runs."""

import inspect
import os
import re
import shlex
import subprocess
import sys
import textwrap
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from forks import Forks

ROOT = Path(__file__).parent.parent
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def find(dotted: str) -> Any:
    """The object behind a dotted path, importing as far as modules go."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: Any = import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            found = (
                found.__dataclass_fields__[name]
                if name in getattr(found, "__dataclass_fields__", {})
                else getattr(found, name)
            )
        return found
    raise AssertionError(f"{dotted} is not there")


def test_every_word_of_the_glossary_names_something_in_the_code() -> None:
    glossary = (ROOT / "docs/glossary.md").read_text()
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| `(agentos[\w.]+)` \|$", glossary, re.MULTILINE)
    assert len(rows) > 20
    for _, dotted in rows:
        assert find(dotted) is not None


def test_the_architecture_page_shows_the_loop_as_it_is() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    path, name, shown = re.search(r"<!-- source: (\S+) (\S+) -->\n```python\n(.*?)```", page, re.DOTALL).groups()  # type: ignore[union-attr]
    module = path.removeprefix("src/").removesuffix(".py").replace("/", ".")
    assert shown == textwrap.dedent(inspect.getsource(find(f"{module}.{name}")))


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_links_inside_the_repository_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", prose):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def run(command: list[str], home: Path, folder: Path) -> "subprocess.CompletedProcess[str]":
    values = environment(home)
    return subprocess.run(command, env=values, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    path = f"{Path(sys.executable).parent}:{kept['PATH']}"
    return kept | {"AGENTOS_HOME": str(home), "AGENTOS_MODEL": "offline", "OLLAMA_HOST": "127.0.0.1:9", "PATH": path}


@pytest.mark.parametrize("code", blocks(ROOT / "README.md", "python"))
def test_python_in_the_readme_runs(code: str, tmp_path: Path) -> None:
    done = run([sys.executable, "-c", code], tmp_path, tmp_path)
    assert done.returncode == 0, done.stderr
    for line in re.findall(r"# -> (.*)", code):
        assert line in done.stdout


@pytest.mark.parametrize("code", blocks(ROOT / "README.md", "console"))
def test_commands_in_the_readme_run(code: str, tmp_path: Path, forks: Forks) -> None:
    for command in re.findall(r"^\$ (.*)$", code, re.MULTILINE):
        before, _, arguments = command.rpartition("agentos ")
        typed = subprocess.check_output(["bash", "-c", before.removesuffix("| ")], text=True)
        done = forks.run(shlex.split(arguments), typed, environment(tmp_path), ROOT)
        assert done.returncode == 0, f"{command}: {done.stderr}"


def test_the_test_command_of_the_readme_is_what_make_runs() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "make test" in (ROOT / "README.md").read_text()
    assert re.search(r"^check: .*\btest\b", makefile, re.MULTILINE)
    assert "make check" in (ROOT / ".ci/run").read_text()


def test_nothing_shipped_names_a_package_index() -> None:
    hosts = re.compile("|".join(("py" + r"pi\.org", "python" + "hosted", "npm" + r"js\.")))
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    for name in listed.stdout.splitlines():
        text = (ROOT / name).read_bytes().decode("utf-8", "replace")
        assert not hosts.search(text), f"{name} names a package index"
