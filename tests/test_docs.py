"""The documents say what the code says, and what they show runs."""

import inspect
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from agentos.mcp_server.tools import TOOLS
from agentos.server.letta import agents, unsupported
from agentos.server.letta.toolbox import LETTA_TOOLS
from agentos.settings import Settings
from forks import Forks
from postgres import Server

ROOT = Path(__file__).parent.parent
README, SERVER, SCALING = ROOT / "README.md", ROOT / "docs/server.md", ROOT / "docs/scaling.md"
MCP, MEMORY = ROOT / "docs/mcp.md", ROOT / "docs/memory.md"
ADDRESS = "http://127.0.0.1:8283"
"""Where the pages say that the server is."""
TOKEN = "a-token-for-tests"
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


@pytest.mark.parametrize("code", [code for code in blocks(README, "python") if ADDRESS not in code])
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


def test_what_the_memory_page_shows_runs(tmp_path: Path, forks: Forks) -> None:
    [code] = blocks(MEMORY, "console")
    printed: list[str] = []
    for line in code.splitlines():
        if line.startswith("$ agentos "):
            done = forks.run(shlex.split(line)[2:], "", environment(tmp_path), ROOT)
            assert done.returncode == 0, f"{line}: {done.stderr}"
            printed = done.stdout.splitlines()
        else:
            assert line in printed, f"{line!r} is not among {printed}"


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


# the server and its parts


@contextmanager
def running(command: str, environ: dict[str, str], folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """A command as a process of its own, told to stop at the end."""
    with (folder / f"log-{time.monotonic_ns()}").open("w") as log:
        words = shlex.split(command)
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, env=environ, cwd=folder, text=True)
        try:
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=30)


def told(process: "subprocess.Popen[str]") -> str:
    """The last word of the first line that a process prints."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"{process.args} ended with {process.wait(30)}"
    return line.split()[-1]


def commands(page: Path) -> list[str]:
    return [line for code in blocks(page, "console") for line in re.findall(r"^\$ (.*)$", code, re.MULTILINE)]


def test_what_the_inspector_page_shows_runs(tmp_path: Path, forks: Forks) -> None:
    page = ROOT / "docs/inspector.md"
    environ = environment(tmp_path) | {"AGENTOS_TOKEN": TOKEN, "NO_PROXY": "*", "BROWSER": "true"}
    serve, *others = commands(page)
    assert serve == "agentos serve"
    with running(f"{serve} --port 0", environ, tmp_path) as server:
        url = told(server)
        for command in others:
            done = forks.run(shlex.split(command)[1:], "", environ, tmp_path)
            assert done.returncode == 0, f"{command}: {done.stderr}"
        for code in blocks(page, "sh"):
            shell = subprocess.run(
                ["bash", "-e", "-c", code], env=environ | {"SERVER": url}, capture_output=True, text=True
            )
            assert shell.returncode == 0, shell.stderr
            assert '"Name: Ada"' in shell.stdout


def table(page: Path, mark: str) -> list[list[str]]:
    """The rows of the table behind a comment, a list of cells each."""
    found = re.search(rf"<!-- {mark} -->\n\|.*\n\|[-|]+\n((?:\|.*\n)+)", page.read_text())
    assert found is not None, f"{page.name} has no table {mark}"
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in found[1].splitlines()]


def test_what_the_server_page_shows_runs(
    tmp_path: Path, forks: Forks, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = environment(tmp_path) | {"AGENTOS_TOKEN": TOKEN, "NO_PROXY": "*"}
    for name in ("AGENTOS_TOKEN", "NO_PROXY"):
        monkeypatch.setenv(name, environ[name])
    serve, *others = commands(SERVER)
    assert serve == "agentos serve"
    with running(f"{serve} --port 0", environ, tmp_path) as server:
        url = told(server)
        names: dict[str, Any] = {}
        try:
            for language, code in re.findall(
                r"^```(python|bash)\n(.*?)^```", SERVER.read_text(), re.DOTALL | re.MULTILINE
            ):
                code = code.replace(ADDRESS, url)
                if language == "python":
                    exec(compile(code, SERVER.name, "exec"), names)
                else:
                    curl = ["bash", "-ec", code.replace("curl -s", "curl -fsS")]
                    done = subprocess.run(curl, env=environ, capture_output=True, text=True)
                    assert done.returncode == 0, done.stderr
                    assert '"chat.completion"' in done.stdout
            said = capsys.readouterr().out
            assert said.count("Porto") >= 2, said
            assert said.rstrip().endswith("usage_statistics"), said
        finally:
            for client in ("client", "openai"):
                with suppress(KeyError):
                    names[client].close()
        for command in others:
            done = forks.run(shlex.split(command.replace(ADDRESS, url))[1:], "", environ, tmp_path)
            assert done.returncode == 0, f"{command}: {done.stderr}"
        (code,) = [code for code in blocks(README, "python") if ADDRESS in code]
        exec(compile(code.replace(ADDRESS, url).replace('"ada"', '"eve"'), README.name, "exec"), names := {})
        names["client"].close()
        assert "Porto" in capsys.readouterr().out
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False) as http:
            paths = http.get("/openapi.json").json()["paths"]
            own = {f"{verb.upper()} {path}" for path in paths if path.startswith("/agentos/") for verb in paths[path]}
            counted = set(re.findall(r"^# HELP (\w+)", http.get("/metrics").text, re.MULTILINE))
    assert {row[0].strip("`") for row in table(SERVER, "endpoints")} == own
    shown = {name for row in table(SERVER, "metrics") for name in re.findall(r"`(\w+)`", row[0])}
    assert shown == {name.removesuffix("_total").removesuffix("_created") for name in counted}


def test_what_the_mcp_page_shows_runs(tmp_path: Path, forks: Forks) -> None:
    environ = environment(tmp_path / "home")
    passed = {
        name: environ[name] for name in ("AGENTOS_HOME", "AGENTOS_MODEL", "OLLAMA_HOST")
    }  # clients pass on little
    words = [f"{name}={shlex.quote(value)}" for name, value in {**passed, "PYTHONPATH": str(ROOT / "src")}.items()]
    shim = tmp_path / "agentos"
    shim.write_text(f'#!/bin/sh\n{" ".join(words)} exec {shlex.quote(sys.executable)} -m agentos "$@"\n')
    shim.chmod(0o755)
    (code,) = blocks(MCP, "python")
    path = {"PATH": f"{tmp_path}:{environ['PATH']}"}
    done = subprocess.run([sys.executable, "-c", code], env=environ | path, capture_output=True, text=True)
    assert done.stdout == "Ada moved to Porto in May 2026\n", done.stderr
    for command in commands(MCP):
        ran = forks.run(shlex.split(command)[1:], "", environ, tmp_path)
        assert ran.returncode == 0, f"{command}: {ran.stderr}"
        if command.endswith("why ada Porto"):
            assert "source: a postcard" in ran.stdout
    [configured] = {(c["command"], *c["args"]) for c in _configured(MCP) if "command" in c}
    typed = {
        line.partition(" -- ")[2] for line in MCP.read_text().splitlines() if line.startswith("claude") and "--" in line
    }
    assert typed == {"", shlex.join(configured)}
    remote = [c for c in _configured(MCP) if "url" in c]
    assert [(c["url"], c["headers"]) for c in remote] == [(f"{ADDRESS}/mcp", {"Authorization": "Bearer TOKEN"})] * 2
    assert shlex.join(configured) in code.replace('", "', " ").replace('command="agentos", args=["', "agentos ")


def _configured(page: Path) -> list[dict[str, Any]]:
    """The servers in the JSON that a page shows for clients' files."""
    return [server for code in blocks(page, "json") for kind in json.loads(code).values() for server in kind.values()]


def test_the_mcp_page_names_every_tool_and_its_arguments() -> None:
    rows = table(MCP, "mcp tools")
    assert [name.strip("`") for name, _ in rows] == list(TOOLS)
    for name, about in rows:
        named = set(re.findall(r"`(\w+)`", about))
        fields = TOOLS[name.strip("`")].model_fields.keys() - {"agent"}
        assert named - {"isError"} <= fields, f"{name}: {named - fields}"


def test_the_server_page_names_what_the_code_names() -> None:
    rows = {name.strip("`"): tuple(re.findall(r"`(\w+)`", ours)) for name, ours in table(SERVER, "tools")}
    assert rows == LETTA_TOOLS
    page = SERVER.read_text()
    for name in (*unsupported._INSTEAD, *agents._UNSUPPORTED):
        assert f"`{name}`" in page, f"server.md does not say that {name} is not supported"


def test_the_readme_lists_every_setting() -> None:
    page = README.read_text()
    for name in Settings.model_fields:
        assert f"`AGENTOS_{name.upper()}`" in page


def test_the_parts_of_the_scaling_page_work_together(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create, chroma, worker, front = commands(SCALING)
    at = {"PGHOST": str(postgres.folder), "PGUSER": "postgres"}
    subprocess.run([postgres.bin / "dropdb", "--if-exists", "agentos"], env=os.environ | at, check=True)
    program, *arguments = shlex.split(create)
    subprocess.run([postgres.bin / program, *arguments], env=os.environ | at, check=True)
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    environ = environment(tmp_path) | {
        "AGENTOS_DATABASE_URL": f"postgresql://postgres@/agentos?host={postgres.folder}", "AGENTOS_TOKEN": TOKEN,
        "AGENTOS_CHROMA_URL": f"http://127.0.0.1:{port}", "NO_PROXY": "*",
    }  # fmt: skip
    with (
        running(chroma.replace("8000", str(port)), environ, tmp_path),
        running(worker, environ | {"AGENTOS_HOME": str(tmp_path / "worker")}, tmp_path),
        running(f"{front} --port 0", environ | {"AGENTOS_HOME": str(tmp_path / "front")}, tmp_path) as server,
        httpx.Client(headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False, timeout=60) as http,
    ):
        url = told(server)
        agent = http.post(f"{url}/v1/agents", json={"name": "ada"}).json()["id"]
        said = {"input": "My name is Ada and I live in Porto."}
        answer = http.post(f"{url}/v1/agents/{agent}/messages", json=said).json()
        assert answer["stop_reason"]["stop_reason"] == "end_turn"  # by the worker: the server runs no turns
        alive = False
        while not alive:
            with suppress(httpx.TransportError):
                alive = http.get(f"http://127.0.0.1:{port}/api/v2/heartbeat").status_code == 200
            time.sleep(0.05)


def test_the_compose_file_is_made_of_commands_and_settings_that_exist(forks: Forks, tmp_path: Path) -> None:
    (code,) = blocks(SCALING, "yaml")
    services = yaml.safe_load(code)["services"]
    for service in (services["front"], services["worker"]):
        for name in service["environment"]:
            assert name.removeprefix("AGENTOS_").lower() in Settings.model_fields
        done = forks.run([*shlex.split(service["command"])[1:], "--help"], "", environment(tmp_path), tmp_path)
        assert done.returncode == 0, done.stderr
    assert services["front"]["depends_on"].keys() <= services.keys()
