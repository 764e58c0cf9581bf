"""The command line, run as its users run it: in processes of its own, over a home of its own."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import agentos
from agentos.cli.blocks import BlockCutter
from agentos.cli.output import as_json, line, safe
from agentos.errors import ConfigError
from agentos.llm.offline import OfflineLLM
from agentos.messages import Block
from agentos.personas import list_personas
from agentos.settings import load_settings
from agentos.testing import temporary_runtime
from agentos.testing.fake_openai import Body, FakeOpenAI, FakeReply, call
from forks import Forks

COMMAND = [sys.executable, "-m", "agentos"]


class Cli:
    """`agentos` over one home; without `env` the offline model answers."""

    def __init__(self, home: Path, forks: Forks, **env: str) -> None:
        self.home = home
        self.forks = forks
        self.env = {**os.environ, "AGENTOS_HOME": str(home), "AGENTOS_MODEL": "offline", **env}

    def __call__(
        self,
        *args: str,
        stdin: str = "",
        env: dict[str, str] | None = None,
        meanwhile: Callable[[int], None] = lambda pid: None,
    ) -> subprocess.CompletedProcess[str]:
        return self.forks.run([*args], stdin, {**self.env, **(env or {})}, self.home.parent, meanwhile)

    def started(self, *args: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        """The same by a Python that starts anew."""
        return subprocess.run(
            [*COMMAND, *args], input=stdin, env={**self.env, **env}, cwd=self.home.parent, check=False,
            capture_output=True, encoding="utf-8", timeout=120,
        )  # fmt: skip

    def ok(self, *args: str, stdin: str = "") -> str:
        done = self(*args, stdin=stdin)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def json(self, *args: str, stdin: str = "") -> Any:
        return json.loads(self.ok(*args, "--json", stdin=stdin))


@pytest.fixture
def cli(tmp_path: Path, forks: Forks) -> Cli:
    return Cli(tmp_path / "home", forks)


def test_version_and_help_need_no_home(cli: Cli) -> None:
    version, whole, chat, none = cli.started("--version"), cli("--help"), cli("chat", "--help"), cli()
    assert version.stdout == f"agentos {agentos.__version__}\n"
    for name in ("chat", "agents", "memory", "doctor", "reindex"):
        assert f"\n  {name} " in whole.stdout
    for option in ("--agent", "--persona", "--model", "--continue", "--prompt", "--output-format", "--max-steps"):
        assert option in chat.stdout
    assert "Usage:" in none.stdout + none.stderr
    assert not cli.home.exists()


BAD_INPUT = [
    # arguments, exit code, what the sentence says
    (["nonsense"], 2, "nonsense"),
    (["chat", "--max-steps", "0", "-p", "hi"], 2, "--max-steps"),
    (["chat", "--output-format", "xml", "-p", "hi"], 2, "xml"),
    (["chat", "-p", "  "], 2, "the prompt is empty"),
    (["chat", "-c", "--agent", "ada", "-p", "hi"], 2, "leave out --agent"),
    (["chat", "--agent", "a/b", "-p", "hi"], 2, "cannot be named"),
    (["chat", "--agent", "", "-p", "hi"], 2, "--agent is empty; give a name"),
    (["chat", "--agent", "new", "--persona", " ", "-p", "hi"], 2, "--persona is empty; give a name"),
    (["agents", "create", "new", "--persona", ""], 3, "there is no persona ''"),
    (["memory", "share", "ada", "human", "nobody"], 2, "there is no agent 'nobody'"),
    (["memory", "share", "ada", "human", "ada"], 2, "has a block 'human' already"),
    (["memory", "detach", "ada", "human"], 2, "no other agent has block 'human'"),
    (["chat", "--agent", "new", "--persona", "nobody", "-p", "hi"], 3, "there is no persona 'nobody'"),
    (["agents", "show", "nobody"], 2, "there is no agent 'nobody'"),
    (["agents", "delete", "ada"], 2, "say --yes"),
    (["agents", "create", "ada"], 2, "exists already"),
    (["agents", "create", " "], 2, "no space at an end"),
    (["memory", "show", "ada", "nope"], 1, "the blocks are: persona"),
    (["memory", "search", "ada", " "], 2, "the query is empty"),
    (["memory", "search", "ada", "x", "--in", "nowhere"], 2, "nowhere"),
    (["memory", "search", "ada", "--tag", "boat"], 2, "say --in archival"),
    (["memory", "search", "ada", "x", "--role", "user", "--in", "archival"], 2, "say --in recall"),
    (["memory", "search", "ada", "x", "--start", "May"], 2, "--start is 'May', which is no ISO date"),
    (["memory", "search", "ada", "--as-of", "2026-05-08"], 2, "say what to look for"),
    (["memory", "show", "ada", "p99"], 2, "this agent has no passage p99"),
    (["memory", "show", "ada", "m99"], 2, "this agent has no message m99"),
    (["memory", "versions", "ada", "nope"], 1, "the blocks are: persona"),
    (["runs", "nobody"], 2, "there is no agent 'nobody'"),
    (["runs", "ada", "nope"], 2, "this agent has no run 'nope'; the list of its runs shows their ids"),
    (["runs", "ada", "--before", "nope"], 2, "this agent has no run 'nope'"),
    (["context", "nobody"], 2, "there is no agent 'nobody'"),
    (["context", "ada", "--request", "--filling"], 2, "they show different things; give one"),
    (["memory", "edit", "ada", "human"], 2, "--value or --file"),
    (["memory", "edit", "ada", "human", "--file", "missing.txt"], 2, "missing.txt cannot be read"),
    (["memory", "edit", "ada", "human", "--value", "x" * 5000], 2, "4000"),
    (["memory", "undo", "ada", "12345"], 2, "no event 12345"),
    (["memory", "undo", "ada", "1", "--client", "Desk"], 2, "leave one out"),
    (["memory", "undo", "ada", "--client", "Desk", "--since", "2026-05-08"], 2, "wrote to this agent's memory: none"),
    (["memory", "undo", "ada", "--since", "2026-05-08"], 2, "name the client too"),
    (["memory", "undo", "ada", "--imported"], 2, "past conversation, which is not taken back"),
    (["memory", "history", "ada", "--client", "Desk", "--since", "soon"], 2, "write it like 2026-05-08"),
    (["memory", "import", "ada", "missing.jsonl"], 2, "missing.jsonl cannot be read"),
]


def test_bad_input_is_one_sentence_and_an_exit_code(cli: Cli) -> None:
    cli.ok("agents", "create", "ada")
    for args, code, sentence in BAD_INPUT:
        done = cli(*args)
        assert done.returncode == code, (args, done)
        assert sentence in done.stderr, (args, done)
        assert "Traceback" not in done.stderr, (args, done)
        assert done.stdout == "", (args, done)


def test_a_command_that_is_named_can_be_pasted(cli: Cli) -> None:
    assert "`agentos chat --agent 'Ada & Bo'` talks with it" in cli.ok("agents", "create", "Ada & Bo")


def test_settings_that_cannot_be_used(cli: Cli) -> None:
    for env, code, sentence in (
        ({"AGENTOS_CONTEXT_WINDOW": "7999"}, 3, "'context_window' cannot be '7999'"),
        ({"AGENTOS_DATABASE_URL": "nonsense"}, 3, "AGENTOS_DATABASE_URL"),
        ({"AGENTOS_HOME": "/dev/null/home"}, 1, "AGENTOS_HOME"),
    ):
        done = cli("agents", "list", env=env)
        assert (done.returncode, done.stdout) == (code, ""), done
        assert sentence in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cache_ttl_seconds", "-1"),
        ("index_min_passages", "-3"),
        ("max_steps", "0"),
        ("max_turn_tokens", "-1"),
        ("max_turn_cost_usd", "inf"),
        ("max_turn_cost_usd", "nan"),
        ("request_timeout_seconds", "inf"),
        ("request_timeout_seconds", "-1"),
        ("context_window", "many"),
        ("personas", "/no/such/folder"),
    ],
)
def test_an_odd_value_is_named_with_its_place(name: str, value: str) -> None:
    place = f"AGENTOS_{name.upper()}"
    with pytest.raises(ConfigError, match=rf"^setting '{name}' cannot be '{value}': .*; correct it in {place}$"):
        load_settings({place: value})


def test_an_unknown_setting_is_named_with_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "agentos.toml"
    file.write_text("context_windw = 9000")
    with pytest.raises(ConfigError, match=r"^agentos.toml: there is no setting 'context_windw'; did you mean 'context"):
        load_settings({})
    file.write_text("colour = 1")
    with pytest.raises(ConfigError, match=r"no setting 'colour'; there are: home, model, api_base"):
        load_settings({})
    file.write_text("api_key = 1234")
    with pytest.raises(ConfigError, match=r"'api_key' cannot be what was given: .*; correct it in agentos.toml"):
        load_settings({})
    file.write_text('personas = "~"')
    assert load_settings({}).personas == Path.home()


async def test_every_shipped_persona_works_in_the_smallest_window(tmp_path: Path) -> None:
    settings = load_settings({"AGENTOS_HOME": str(tmp_path), "AGENTOS_CONTEXT_WINDOW": "8000"})
    async with temporary_runtime(OfflineLLM(), settings=settings) as runtime:
        for name in list_personas(runtime.persona_folders):
            turn = await (await runtime.agent(name, persona=name)).turn()
            assert turn.window.tokens == 8000
            assert turn.crowding([*turn.state.blocks, Block("learned", "word " * 150)]) is None, name


def test_what_was_said_is_remembered_found_explained_and_undone(cli: Cli) -> None:
    lines = [json.loads(row) for row in cli.ok(
        "chat", "--agent", "ada", "--output-format", "json", stdin="My name is Grace Hopper.\n\nWhat is my name?\n"
    ).splitlines()]  # fmt: skip
    told, asked = lines
    assert [told["agent"], told["stop_reason"], told["tool_calls"][0]["ok"]] == ["ada", "end_turn", True]
    assert told["run_id"] != asked["run_id"]
    assert "Grace Hopper" in asked["reply"]
    assert set(told) == {"agent", "reply", "run_id", "stop_reason", "steps", "llm_calls", "usage", "tool_calls"}
    assert set(told["usage"]) == {"prompt_tokens", "completion_tokens", "cached_tokens", "cost_usd"}

    events = [
        json.loads(row)
        for row in cli.ok("chat", "-c", "-p", "What is my name?", "--output-format", "stream-json").splitlines()
    ]
    assert {e["type"] for e in events} >= {"text_delta", "result"}
    assert [e["seq"] for e in events] == list(range(len(events)))
    assert events[-1]["type"] == "result"
    assert events[-1]["agent"] == "ada"

    (block,) = cli.json("memory", "show", "ada", "human")["blocks"]
    assert "Grace Hopper" in block["value"]
    assert block["characters"] == len(block["value"])
    assert "Grace Hopper" in cli.ok("memory", "show", "ada")

    (chain,) = [c for c in cli.json("memory", "why", "ada", "Grace Hopper") if c[0]["what"] == "block 'human'"]
    assert chain[-1]["text"] == "My name is Grace Hopper."

    cli.ok("memory", "edit", "ada", "human", "--value", "Name: Ada")
    assert "no such versions" in cli.ok("memory", "versions", "ada", "human", "--before", "1")
    history = cli.json("memory", "history", "ada", "human")
    assert history[0]["changes"] == f"- {block['value']}\n+ Name: Ada"
    assert [history[0]["actor"], history[1]["actor"]] == ["user", "agent"]
    assert "+ " + block["value"] in cli.ok("memory", "undo", "ada")
    assert cli.json("memory", "show", "ada", "human")["blocks"][0]["value"] == block["value"]

    hits = cli.json("memory", "search", "ada", "Hopper", "--in", "recall", "--limit", "1")
    assert [hits[0]["in"], hits[0]["id"][0], len(hits)] == ["recall", "m", 1]

    shown = cli.json("agents", "show", "ada")
    assert shown["limits"] == {"max_steps": 25, "max_tokens": None, "max_cost_usd": None}
    assert shown == cli.json("agents", "list")[0] | {
        k: shown[k] for k in ("limits", "tools", "blocks", "timers", "usage", "answers")
    }
    assert "ada" in cli.ok("agents", "list")
    assert "Grace Hopper" in cli.ok("agents", "show", "ada")
    assert "a turn may take 7 steps" in cli("agents", "show", "ada", env={"AGENTOS_MAX_STEPS": "7"}).stdout
    cli.ok("agents", "delete", "ada", "--yes")
    assert cli.json("agents", "list") == []


def test_an_edit_is_refused_when_the_block_changed_meanwhile(cli: Cli, tmp_path: Path) -> None:
    """The editor that a person has open for a while is a script that edits the block itself."""
    cli.ok("agents", "create", "ada")
    text = tmp_path / "new.txt"
    os.mkfifo(text)
    editing = subprocess.Popen(
        [*COMMAND, "memory", "edit", "ada", "human", "--file", str(text)],
        env=cli.env,
        stderr=subprocess.PIPE,
        text=True,
    )
    with text.open("w") as pipe:  # the block was read by now: the command waits for the text
        cli.ok("memory", "edit", "ada", "human", "--value", "first")
        pipe.write("second\n")
    _, complaint = editing.communicate(timeout=60)
    assert editing.returncode == 2
    assert "changed while you edited it" in complaint
    assert complaint.count("\n") == 1
    assert cli.json("memory", "show", "ada", "human")["blocks"][0]["value"] == "first"


def test_text_that_was_typed_is_kept_when_the_edit_is_refused(cli: Cli, tmp_path: Path) -> None:
    cli.ok("agents", "create", "ada")
    done = cli.started("memory", "edit", "ada", "human", "--file", "-", stdin="x" * 5000, TMPDIR=str(tmp_path))
    assert done.returncode == 2
    [kept] = tmp_path.glob("human-*.txt")
    assert f"(your text is kept in {kept})\n" in done.stderr
    assert kept.read_text() == "x" * 5000


def test_a_block_is_shared_between_agents(cli: Cli) -> None:
    for name, block in (("ada", "blocks: [{label: team, value: 'Goal: ship'}]"), ("bob", "{}")):
        (cli.home / "personas" / name).mkdir(parents=True)
        (cli.home / "personas" / name / "persona.md").write_text(f"---\n{block}\n---\nI am {name}.")
        cli.ok("agents", "create", name, "--persona", name)
    assert "both read and edit it" in cli.ok("memory", "share", "ada", "team", "bob")
    cli.ok("memory", "edit", "bob", "team", "--value", "Goal: rest")
    assert "shared with bob" in cli.ok("memory", "show", "ada", "team")
    [block] = cli.json("memory", "show", "ada", "team")["blocks"]
    assert (block["value"], block["shared_with"]) == ("Goal: rest", ["bob"])
    cli.ok("memory", "detach", "bob", "team")
    assert [b["label"] for b in cli.json("memory", "show", "bob")["blocks"]] == ["persona"]
    actions = [e["action"] for e in cli.json("memory", "history", "bob")]
    assert actions[:3] == ["block.detach", "block.edit", "block.attach"]


def test_a_persona_that_cannot_be_used_is_one_sentence(cli: Cli) -> None:
    folder = cli.home / "personas" / "own"
    (folder / "persona.md").mkdir(parents=True)
    said = [cli("agents", "create", "ada", "--persona", "own")]
    (folder / "persona.md").rmdir()
    for text in (
        "---\nblocks: [\n---\n",
        "---\ndescription: 2026-13-45\n---\n",
        "---\n1: x\n---\n",
        "---\nblocks: []\n",
    ):
        (folder / "persona.md").write_text(text)
        said.append(cli("agents", "create", "ada", "--persona", "own"))
    for done in said:
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1), done
        assert str(folder / "persona.md") in done.stderr


def test_an_import_is_searchable_at_once_and_repeats_add_nothing(cli: Cli, tmp_path: Path) -> None:
    rows = [
        {"role": "user", "content": "The launch code is \x1b]0;pwned\x07zebra\u202e.", "session": "s1", "id": "a",
         "created_at": "2024-05-01T10:00:00+00:00"},
        {"role": "assistant", "content": "Noted\u2028zebra.", "name": "Bot"},
    ]  # fmt: skip
    file = tmp_path / "talk.jsonl"
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n", "utf-8")
    assert "imported 2 messages" in cli.ok("memory", "import", "ada", str(file))
    assert "imported 0 messages into ada; 2 were known" in cli.ok(
        "memory", "import", "ada", "-", stdin=file.read_text("utf-8")
    )
    plain = cli.ok("memory", "search", "ada", "zebra")
    assert "The launch code is \\x1b]0;pwned\\x07zebra." in plain
    raw = cli.ok("memory", "search", "ada", "zebra", "--json")
    assert not set(plain + raw) & {"\x1b", "\x07", "\u202e", "\u2028"}
    found = {hit["external_id"]: hit for hit in json.loads(raw)}
    assert found["a"]["text"] == rows[0]["content"]
    assert [found["a"]["session"], found["a"]["created_at"][:4]] == ["s1", "2024"]

    file.write_text('{"role": "user", "content": "one"}\n{"role": "robot", "content": "two"}\n')
    bad = cli("memory", "import", "ada", str(file))
    assert bad.returncode == 2
    assert "line 2 needs" in bad.stderr
    assert cli.json("agents", "list")[0]["messages"] == 2


def test_doctor_and_reindex(cli: Cli) -> None:
    cli.ok("chat", "-p", "My name is Ada.")
    findings = {f["what"]: f for f in cli.json("doctor")}
    assert {"version", "home", "disk", "database", "turns", "model", "embedder", "index", "personas"} <= set(findings)
    assert {f["state"] for f in findings.values()} == {"ok"}
    assert "offline" in findings["model"]["found"]
    assert "in order" in cli.ok("reindex")

    cli.home.chmod(0o755)
    (cli.home / "personas" / "broken").mkdir(parents=True)
    (cli.home / "personas" / "broken" / "persona.md").write_text("---\nblocks: 7\n---\nhello")
    broken = cli("doctor")
    assert broken.returncode == 1
    assert "broken/persona.md" in broken.stdout
    assert cli.home.stat().st_mode & 0o077 == 0, "opening the home closes it to others"


def test_the_doctor_tells_what_waits_for_approval(cli: Cli) -> None:
    cli.ok("agents", "create", "my ada")
    cli.ok("agents", "approval", "my ada", "core_memory_append", "ask")
    assert cli("chat", "--agent", "my ada", "-p", "My name is Ada and I live in Porto.").returncode == 5
    turns = next(f for f in cli.json("doctor") if f["what"] == "turns")
    assert turns["found"] == "0 interrupted, 1 for approval, 0 agents with waiting input"
    assert turns["remedy"].endswith("agentos approve 'my ada'")
    assert "--yes runs them, --deny REASON refuses them" in cli.ok("approve", "my ada")


def test_doctor_names_a_damaged_database_and_an_unreachable_server(cli: Cli) -> None:
    cli.ok("agents", "create", "ada")
    alone = cli("doctor", env={"AGENTOS_MODEL": "", "AGENTOS_API_BASE": "http://127.0.0.1:9/v1"})
    assert alone.returncode == 1
    assert "http://127.0.0.1:9/v1 does not answer" in alone.stdout
    assert "AGENTOS_API_BASE" in alone.stdout

    with sqlite3.connect(cli.home / "agentos.db") as database:
        database.execute("DROP TABLE journal")
        database.execute("DROP TABLE passage_fts")
    lacking = cli("doctor")
    assert lacking.returncode == 1
    assert "the database lacks journal, passage_fts; stop agentos and restore" in " ".join(lacking.stdout.split())

    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    file = cli.home / "agentos.db"
    file.write_bytes(b"not a database, by any measure" + file.read_bytes()[30:])
    done = cli("doctor")
    assert done.returncode == 1
    assert "fail" in done.stdout
    assert "Traceback" not in done.stderr


def hold(body: Body) -> FakeReply:
    """A model for what needs a provider: it fails, hangs, or calls the same tool for ever."""
    said = [str(m["content"]) for m in body["messages"] if m["role"] == "user"][-1]
    if "fail" in said:
        return FakeReply(status=400)
    if "hang" in said and len(hanging) == 0:
        hanging.append(said)
        return FakeReply(hang_seconds=60)
    if "search" in said:
        place = len(body["messages"])
        return FakeReply(calls=[call("conversation_search", {"query": f"{place}"}, id=f"call_{place}")])
    return FakeReply(text="fine")


hanging: list[str] = []


def test_a_terminated_turn_goes_on_at_the_next_start_and_failures_have_their_codes(cli: Cli) -> None:
    hanging.clear()
    with FakeOpenAI(hold) as server:
        env = {"AGENTOS_MODEL": "fake", "AGENTOS_API_BASE": server.url}

        def terminate(pid: int) -> None:
            deadline = time.monotonic() + 60
            while not hanging and time.monotonic() < deadline:
                time.sleep(0.05)
            os.kill(pid, signal.SIGTERM)

        first = cli("chat", "-p", "hang", env=env, meanwhile=terminate)
        assert (first.returncode, first.stderr) == (143, "")

        done = cli(
            "chat", "--output-format", "stream-json", "--max-steps", "2", stdin="go on\nfail\nsearch\n", env=env
        )  # fmt: skip
        results = [row for row in map(json.loads, done.stdout.splitlines()) if row["type"] == "result"]
        assert [r["stop_reason"] for r in results] == ["end_turn", "end_turn", "llm_error", "max_steps"]
        assert results[0]["llm_calls"] == 1, "the interrupted turn went on and ended first"
        assert done.returncode == 4, "the first failure's code"
        assert "fake error 400" in done.stderr
        assert "2 steps" in done.stderr


def test_ctrl_c_ends_piped_input_and_a_retry_is_told(cli: Cli) -> None:
    asked = threading.Event()
    faults = [FakeReply(status=500, headers={"retry-after": "0"}), FakeReply(hang_seconds=60)]

    def handler(body: Body) -> FakeReply:
        if len(faults) == 1:
            asked.set()
        return faults.pop(0) if faults else FakeReply(text="fine")

    with FakeOpenAI(handler) as server:
        env = {"AGENTOS_MODEL": "fake", "AGENTOS_API_BASE": server.url}

        def interrupt(pid: int) -> None:
            assert asked.wait(60)
            os.kill(pid, signal.SIGINT)

        done = cli("chat", stdin="one\ntwo\n", env=env, meanwhile=interrupt)
        assert (done.returncode, done.stdout) == (130, "")
        assert done.stderr == (
            "agentos: trying again at once: fake failed (500): fake error 500\n"
            "agentos: cancelled; what was saved stays\n"
        )
        assert len(server.requests) == 2, "the line behind the cancelled one was not taken"


def test_ctrl_c_while_waiting_for_a_line(cli: Cli) -> None:
    pipe = subprocess.PIPE
    # a shell that started the tests beside itself ignores the signal
    restore = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = f"{restore}; from agentos.cli import main; main()"
    chat = subprocess.Popen(
        [sys.executable, "-c", command, "chat"], env=cli.env, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )
    with chat:
        assert chat.stdin is not None
        assert chat.stdout is not None
        chat.stdin.write("My name is Ada.\n")
        chat.stdin.flush()
        assert "Ada" in chat.stdout.readline()
        chat.send_signal(signal.SIGINT)
        try:
            said = chat.communicate(timeout=60)
        finally:
            chat.kill()
    assert (chat.returncode, *said) == (130, "", "")


def test_nothing_is_lost_in_a_locale_that_is_not_utf_8(cli: Cli) -> None:
    env = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = cli.started("chat", "-p", "Grüße", "--output-format", "json", stdin="日本\n", **env)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["stop_reason"] == "end_turn"
    shown = cli.started("memory", "search", "default", "Grüße", "--in", "recall", "--json", **env)
    assert json.loads(shown.stdout)[0]["text"] == "Grüße\n日本\n"


def test_text_for_a_terminal() -> None:
    assert safe("a\x1b[31mb\x00\r\nc\td\x9b\u202ee\ud800") == "a\\x1b[31mb\\x00\nc\td\\x9be\\xd800"
    assert line("one\n two  three", 9) == "one two …"
    assert json.loads(as_json({"a": "\x7f\x9b\u202e\ud800é"})) == {"a": "\x7f\x9b\u202e\ud800é"}
    assert as_json("\x9b\u202e\ud800é") == '"\\u009b\\u202e\\ud800é"'


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_markdown_is_cut_into_whole_blocks_however_it_arrives(size: int) -> None:
    blocks = [
        "A paragraph\nof two lines.",
        "1. item\n\n   its second paragraph",
        "2. item",
        "```py\na\n\nb\n```",
        "~~~~\n```\n\n~~~~",
        "end",
    ]
    text = "\n\n".join(blocks)
    cutter = BlockCutter()
    found = [block for at in range(0, len(text), size) for block in cutter.feed(text[at : at + size])]
    assert [*found, cutter.finish()] == blocks
    assert cutter.finish() == ""
