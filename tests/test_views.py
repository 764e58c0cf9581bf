"""Every view of the Inspector is one: its JSON over HTTP is what the command line prints with `--json`."""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.testing import CliRunner

from agentos import values
from agentos.cli.app import app
from agentos.cli.commands.looking import Status
from agentos.cli.commands.memory import Actor, Kind
from agentos.state import RunStatus
from forks import Forks
from serving import Process

PAGE = Path(__file__).parent.parent / "docs/inspector.md"
ROOT = "/agentos/v1/agents"


def rows() -> dict[str, list[list[str]]]:
    """View -> [paths, commands] that read it: of the page's table, what stands in front of a `;`."""
    table = PAGE.read_text().partition("<!-- views -->\n")[2].partition("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in table]
    return {name: [_reads(cell) for cell in said] for name, _, _, *said in cells}


def _reads(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", re.sub(r"\(.*?\)", "", cell.partition(";")[0]))


@dataclass
class Both:
    """One home, asked by commands and by HTTP; what stands for names and ids in what is asked is `known`."""

    env: dict[str, str]
    server: Process
    known: dict[str, str]

    def command(self, text: str, stdin: str = "", code: int = 0) -> str:
        words = [self.known.get(word, word) for word in shlex.split(text)]
        done = CliRunner().invoke(app, words, input=stdin, env=self.env)
        assert done.exit_code == code, f"{text}: {done.exception!r} {done.stderr}"
        return done.stdout

    def printed(self, text: str) -> Any:
        """What a command prints with `--json`, without where a search found it."""
        value = json.loads(self.command(f"{text} --json"))
        return [{k: v for k, v in one.items() if k != "in"} for one in value] if " search " in text else value

    def answered(self, path: str) -> Any:
        words = re.sub(r"\w+", lambda word: self.known.get(word[0], word[0]), path)
        status, value = self.server.ask("GET", words if words.startswith(ROOT) else ROOT + words)
        assert status == 200, f"{path}: {value}"
        return value


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Iterator[Both]:
    """A home with some of everything: turns, a page-out, passages of which one was replaced, a call that waits."""
    home = tmp_path_factory.mktemp("views") / "home"
    known = {"NAME": "ada", "LABEL": "human", "WORDS": "Porto", "p12": "p2", "m12": "m2"}
    with Process(home, forks=forks) as server:
        both = Both({"AGENTOS_HOME": str(home), "AGENTOS_MODEL": "offline"}, server, known)
        both.command("chat --agent ada", "My name is Ada and I live in Porto. \x1b[31mRed.\n")
        both.command("memory add ada 'The boat lies in Porto.' --tag boat")
        both.command("memory add ada 'The boat lies in Porto, berth 14.' --tag boat --replaces p1")
        assert server.ask("POST", f"{ROOT}/ada/compact")[0] == 200
        both.command("chat --agent ada -p 'What is my name?'")
        both.command("agents approval ada core_memory_append ask")
        both.command("chat --agent ada -p 'My favourite colour is green.'", code=5)
        found = both.printed("runs ada")["runs"]
        assert [run["awaits_approval"] for run in found] == [True, False, False]
        known["RUN"] = found[-1]["id"]
        yield both


@pytest.mark.parametrize("view", [name for name in rows() if name != "Chat"])
def test_a_command_prints_what_http_answers(view: str, both: Both) -> None:
    paths, commands = rows()[view]
    assert len(paths) == len(commands) > 0
    for path, command in zip(paths, commands, strict=True):
        value = both.answered(path)
        assert value, f"{path} answers nothing, so it shows nothing"
        assert both.printed(command) == value, f"{command} differs from {path}"
        shown = both.command(command)
        assert shown.strip()
        assert "\x1b" not in shown


def test_the_conversation_is_made_of_what_commands_print(both: Both) -> None:
    [path], _ = rows()["Chat"]
    said = both.answered(path)
    assert said["messages"] == both.printed("memory search NAME --in recall --limit 30")[::-1]
    newest = both.printed("runs NAME --limit 1")["runs"][0]
    assert said["turn"] == newest | {"input": ""}
    assert said["approvals"] == both.printed("approve NAME")
    assert said["events"] == both.printed(f"memory history NAME --kind memory --run {newest['id']}")
    blocks = [{k: v for k, v in block.items() if k != "changed"} for block in said["blocks"]]
    assert blocks == both.printed("memory show NAME")["blocks"]


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("/NAME/runs?status=running", "runs NAME --status running"),
        ("/NAME/runs?before=RUN", "runs NAME --before RUN"),
        (
            "/NAME/passages?tag=boat&include_superseded=true",
            "search NAME --in archival --tag boat --include-superseded",
        ),
        ("/NAME/passages?query=boat&end=2020-01-01", "search NAME boat --in archival --end 2020-01-01"),
        ("/NAME/messages?query=Porto&role=user", "search NAME Porto --in recall --role user"),
        ("/NAME/messages?role=tool&start=2020-01-01", "search NAME --in recall --role tool --start 2020-01-01"),
        ("/NAME/blocks/LABEL/versions?limit=1", "versions NAME LABEL --limit 1"),
        ("/NAME/blocks/LABEL/versions?before=3", "versions NAME LABEL --before 3"),
    ],
)
def test_filters_are_the_same(path: str, command: str, both: Both) -> None:
    memory = "" if command.startswith("runs") else "memory "
    assert both.printed(memory + command) == both.answered(path)


def test_a_turn_reads_as_a_trace(both: Both) -> None:
    shown = both.command("runs NAME RUN")
    order = [
        "completed, end_turn",
        "input",
        "I live in Porto.",
        "reply",
        "→ core_memory_append",
        "✓",
        "stopped: end_turn",
    ]
    places = [shown.index(words) for words in order]
    assert places == sorted(places)
    waiting = both.printed("runs NAME --status running")["runs"][0]["id"]
    assert "waits for approval" in both.command(f"runs NAME {waiting}").splitlines()[-1]
    assert "berth 14" in both.command("memory show NAME p2")
    assert "superseded" in both.command("memory show NAME p1")


def test_the_window_shows_its_marks(both: Both) -> None:
    window = both.answered("/NAME/context")
    shown = both.command("context NAME")
    assert 0 < window["page_out_to_tokens"] < window["alert_at_tokens"] < window["window_tokens"]
    assert f"┆ a page-out leaves {window['page_out_to_tokens']:,}" in shown
    bar = shown.splitlines()[1]
    assert 0 < bar.index("┆") < bar.index("┃")
    assert both.command("context NAME --request").startswith("the request sent last")


def test_the_words_of_options_are_those_of_the_views() -> None:
    assert [*Actor] == list(values.ACTORS)
    assert [*Kind] == list(values.KINDS)
    assert [*Status] == list(get_args(RunStatus))
