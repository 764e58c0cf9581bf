"""The session database: migrations, refusals in clear sentences, and durability."""

import asyncio
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlmodel import SQLModel

from agentos.errors import ConfigError, StoreError
from agentos.llm.offline import OfflineLLM
from agentos.messages import Message
from agentos.state import AgentRecord
from agentos.store import tables
from agentos.store.database import Database, make_engine, sqlite_url, store_error
from agentos.store.migrations import HEAD, migrate
from agentos.testing import LLM_CHECKS, STORE_CHECKS, FunctionLLM, ScriptedLLM, memory_database

SRC = Path(__file__).parent.parent / "src"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agentos.db"


@pytest.fixture
def url(path: Path) -> str:
    migrate(sqlite_url(path))
    return sqlite_url(path)


def in_memory(_: Path) -> Database:
    return memory_database()


def on_disk(folder: Path) -> Database:
    url = sqlite_url(folder / "agentos.db")
    migrate(url)
    return Database(url)


@pytest.mark.parametrize("check", STORE_CHECKS)
@pytest.mark.parametrize("make", [in_memory, on_disk])
async def test_conformance(check: Callable[[Any], Any], make: Callable[[Path], Database], tmp_path: Path) -> None:
    store = make(tmp_path)
    try:
        await check(store)
    finally:
        await store.close()


MODELS: dict[str, Callable[[], Any]] = {
    "function": lambda: FunctionLLM(lambda r: "hello"),
    "scripted": lambda: ScriptedLLM(["hello"] * 3),
    "offline": OfflineLLM,
}


@pytest.mark.parametrize("check", LLM_CHECKS)
@pytest.mark.parametrize("make", list(MODELS.values()), ids=list(MODELS))
async def test_models_conform(check: Callable[[Any], Any], make: Callable[[], Any]) -> None:
    await check(make())


# migrations


def test_a_new_database_and_the_same_again(path: Path) -> None:
    assert migrate(sqlite_url(path)) is None
    before = path.read_bytes()
    assert migrate(sqlite_url(path)) is None
    assert path.read_bytes() == before
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT version_num FROM alembic_version").fetchall() == [(HEAD,)]
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    raw.close()


def test_two_that_start_at_once_make_one_schema(path: Path) -> None:
    code = f"from agentos.store.migrations import migrate; migrate({sqlite_url(path)!r})"
    both = [
        subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(SRC)}) for _ in range(2)
    ]
    assert [process.wait(60) for process in both] == [0, 0]
    assert migrate(sqlite_url(path)) is None


def test_tables_match_the_models(url: str) -> None:
    engine = make_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        changes = compare_metadata(context, SQLModel.metadata)
        names = set(sa.inspect(connection).get_table_names())
    engine.dispose()
    assert [c for c in changes if "_fts" not in str(c)] == []
    assert {t.name for t in SQLModel.metadata.tables.values()} <= names
    assert tables.MessageRow.__tablename__ in names


def test_a_newer_database_is_refused(url: str, path: Path) -> None:
    set_version(path, "9999")
    with pytest.raises(StoreError, match=f"version 9999 and this agentos knows {HEAD}; install the newer agentos"):
        migrate(url)


async def test_rows_of_the_first_version_are_kept(path: Path) -> None:
    url = sqlite_url(path)
    migrate(url, to="0001")
    with sqlite3.connect(path) as raw:
        raw.executescript(
            "INSERT INTO passage (agent_id, text, text_hash, origin, created_at, tags) "
            "VALUES ('agent-1', 'tea at four', 'x', 'agent', '2026-05-08T09:30:00.000000+00:00', '[]');"
            "INSERT INTO run (id, agent_id, created_at, trigger, status, steps, llm_calls, spoke, nudged,"
            " prompt_tokens, completion_tokens, cached_tokens)"
            " VALUES ('run-1', 'agent-1', '2026-05-08T09:30:00.000000+00:00', 'user', 'completed', 1, 1, 1, 0, 1, 1, 0)"
            "; INSERT INTO journal (agent_id, created_at, actor, action, target, note)"
            " SELECT 'agent-1', '2026-05-08T09:30:00.000000+00:00', actor, 'passage.insert', 'p1', note FROM (SELECT"
            " 'client' AS actor, 'replaces p9; from Desk' AS note UNION ALL SELECT 'client', 'from Desk (laptop)'"
            " UNION ALL SELECT 'client', 'replaces p9; from a; from b'"
            " UNION ALL SELECT 'user', 'from here') AS written"
        )
    raw.close()
    assert migrate(url) is not None, "after a copy was made"
    test_tables_match_the_models(url)
    database = Database(url)
    [passage] = await database.read(lambda tx: tx.recent_passages("agent-1"))
    found = await database.read(
        lambda tx: tx.lexical_passages("agent-1", ["tea"], tags=(), start=None, end=None, limit=9)
    )
    run = await database.read(lambda tx: tx.run("run-1"))
    events = await database.read(lambda tx: tx.events("agent-1"))
    await database.close()
    assert sorted((e["client"] or "", e["note"]) for e in events) == [
        ("", "from here"), ("Desk", "replaces p9"), ("Desk (laptop)", ""),
        ("a; from b", "replaces p9"),
    ]  # fmt: skip
    assert (passage.text, passage.replaces, passage.superseded_by, found) == ("tea at four", None, None, [passage.id])
    assert (run.max_steps, run.background, run.decisions) == (None, False, {})


async def test_the_journal_is_read_by_indexes(url: str, path: Path) -> None:
    database, asked = Database(url), []
    sa.event.listen(database.engine, "before_cursor_execute", lambda *given: asked.append(given[2:4]))

    def look(tx: Any) -> None:
        tx.events("ada")
        for source in ({"run_id": "run-1"}, {"client": "Desk"}):
            tx.events("ada", actions=("passage.", "undo."), **source)
        tx.undos("ada", 5)
        tx.clients("ada")

    await database.read(look)
    await database.close()
    with sqlite3.connect(path) as raw:
        plans = [
            " ".join(row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {statement}", values))
            for statement, values in asked if "FROM journal" in statement
        ]  # fmt: skip
    raw.close()
    found = ["agent", "run", "client", "undo", "client"]
    assert [re.search(r"INDEX ix_journal_(\w+)", plan)[1] for plan in plans] == found, plans  # type: ignore[index]
    assert not [plan for plan in plans if "TEMP B-TREE" in plan or "SCAN" in plan]


def test_a_backup_is_made_before_an_upgrade(url: str, path: Path) -> None:
    set_version(path, "0000")
    with pytest.raises(StoreError, match="cannot be migrated: Can't locate revision identified by '0000'"):
        migrate(url)  # there is no such version, so the upgrade fails; the copy was made before
    [backup] = (path.parent / "backups").iterdir()
    with sqlite3.connect(backup) as raw:
        assert raw.execute("SELECT version_num FROM alembic_version").fetchone() == ("0000",)
        assert raw.execute("SELECT count(*) FROM home").fetchone() == (2,)
    raw.close()


@pytest.mark.parametrize(
    "tables",
    [
        "CREATE TABLE recipes (name TEXT)",
        "CREATE TABLE alembic_version (version_num TEXT); INSERT INTO alembic_version VALUES ('0001')",
        "CREATE TABLE alembic_version (version_num TEXT); CREATE TABLE agent (name TEXT)",
    ],
)
def test_a_database_of_another_program_is_left_alone(path: Path, tables: str) -> None:
    with sqlite3.connect(path) as raw:
        raw.executescript(tables)
    raw.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"is not an agentos database.* set AGENTOS_HOME"):
        migrate(sqlite_url(path))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: b"this is no database at all" * 100, "is not an agentos database; move it away"),
        (lambda data: data[:100] + os.urandom(8000) + data[8100:], "is damaged; restore the newest copy"),
        (lambda data: data[:5000], "is damaged; restore the newest copy"),
    ],
)
def test_a_damaged_file_is_named(url: str, path: Path, damage: Callable[[bytes], bytes], says: str) -> None:
    path.write_bytes(damage(path.read_bytes()))
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    with pytest.raises(StoreError, match=says):
        migrate(url)


def test_a_url_that_cannot_be_used() -> None:
    with pytest.raises(ConfigError, match="correct AGENTOS_DATABASE_URL"):
        Database("nonsense://x")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot be opened for writing; check that its folder exists"):
        migrate(sqlite_url(tmp_path / "nowhere" / "agentos.db"))


def test_a_locked_database_is_named(url: str, path: Path) -> None:
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    engine = make_engine(url)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=0")  # the ten seconds it waits otherwise
        with pytest.raises(sa.exc.OperationalError) as caught:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
    engine.dispose()
    holder.close()
    assert "was locked by another program for 10 s; close that program" in str(store_error(caught.value, url))


def test_what_may_not_be_written_is_named() -> None:
    """As nobody where the tests run as root, whom no mode bits stop."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "agentos.db"
        migrate(sqlite_url(path))
        path.chmod(0o444)
        Path(folder).chmod(0o555)
        code = (
            "import asyncio, os, sys\n"
            "from agentos.store.database import Database, sqlite_url\n"
            "from agentos.store.migrations import migrate\n"
            "from pathlib import Path\n"
            "url = sqlite_url(Path(sys.argv[1]))\n"
            "if os.geteuid() == 0: os.setuid(65534)\n"
            "async def main():\n"
            "    migrate(url)\n"
            "    store = Database(url)\n"
            "    try:\n"
            "        await store.write(lambda tx: tx.learn_window('m', 1, 1))\n"
            "    finally:\n"
            "        await store.close()\n"
            "asyncio.run(main())\n"
        )
        done = run_python(code, str(path))
        Path(folder).chmod(0o755)
    assert "agentos.errors.StoreError: " in done.stderr, done.stderr
    assert "cannot be written; make it writable" in done.stderr or "cannot be opened; check" in done.stderr


def test_a_full_disk_keeps_what_was_acknowledged(url: str, path: Path) -> None:
    """The limit on a file's size stands for the full disk; when there is room again, writing goes on."""
    code = (
        "import asyncio, resource, signal, sys\n"
        "from agentos.errors import StoreError\n"
        "from agentos.store.database import Database\n"
        "async def main():\n"
        "    store = Database(sys.argv[1])\n"
        "    await store.write(lambda tx: tx.learn_window('before', 1, 1))\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))\n"
        "    kept = 0\n"
        "    try:\n"
        "        while kept < 1000:\n"
        "            await store.write(lambda tx: tx.learn_window(f'{kept}' + 'x' * 4000, 1, 1))\n"
        "            kept += 1\n"
        "    except StoreError as error:\n"
        "        print(kept, error)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "    await store.write(lambda tx: tx.learn_window('after', 1, 1))\n"
        "    await store.close()\n"
        "asyncio.run(main())\n"
    )
    done = run_python(code, url)
    assert done.returncode == 0, done.stderr
    kept, sentence = done.stdout.split(" ", 1)
    assert "nothing of this step was kept" in sentence
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT count(*) FROM model_window").fetchone() == (int(kept) + 2,)
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    raw.close()


# durability


async def test_every_connection_is_set_for_durability(url: str) -> None:
    store = Database(url)

    def pragmas(tx: Any) -> list[Any]:
        names = ("journal_mode", "synchronous", "secure_delete", "busy_timeout")
        return [tx.connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

    assert await store.write(pragmas) == ["wal", 2, 1, 10_000]
    assert await store.read(pragmas) == ["wal", 2, 1, 10_000]
    await store.close()


async def test_one_fsync_serves_the_writes_that_wait(url: str) -> None:
    store = Database(url)
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold(tx: Any) -> None:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result()

    def changes(tx: Any) -> int:
        return int(tx.connection.exec_driver_sql("PRAGMA data_version").scalar())

    watcher = Database(url)
    held = store.write(hold)
    await watcher.read(changes)
    waiting = [store.write(lambda tx, n=n: tx.learn_window(f"m{n}", 1, n)) for n in range(40)]
    before = await watcher.read(changes)
    release.set()
    await asyncio.gather(held, *waiting)
    seen = await watcher.read(lambda tx: [tx.learned_window(f"m{n}", 1) for n in range(40)])
    assert seen == list(range(40))
    assert await watcher.read(changes) - before <= 2, "forty writes took more than two commits"
    await asyncio.gather(store.close(), watcher.close())


async def test_a_bad_statement_undoes_only_its_own_work(url: str) -> None:
    store = Database(url)
    jobs = [lambda tx: tx.learn_window("a", 1, 1), lambda tx: tx.connection.exec_driver_sql("SELECT nope FROM agent"),
            lambda tx: tx.learn_window("b", 1, 1)]  # fmt: skip
    done = await asyncio.gather(*map(store.write, jobs), return_exceptions=True)
    assert [type(d).__name__ for d in done] == ["NoneType", "StoreError", "NoneType"]
    assert await store.read(lambda tx: tx.learned_window("b", 1)) == 1


def test_what_is_deleted_leaves_no_word_in_the_file(url: str) -> None:
    asyncio.run(tell_and_delete(url))
    held = Path(url.removeprefix("sqlite:///")).read_bytes()
    assert b"secretbobword" in held
    assert not re.search(rb"(?i)secretada|adaword", held)


async def tell_and_delete(url: str) -> None:
    store = Database(url)
    now = datetime(2026, 5, 8, tzinfo=UTC)
    for name in ("ada", "bob"):
        agent = AgentRecord(f"agent-{name}", name, "assistant", now)
        await store.write(lambda tx, agent=agent: tx.add_agent(agent))  # type: ignore[misc]
        for n in range(3):
            message = Message(0, agent.id, "user", f"secret{name}word{n}", "user", now)
            await store.write(lambda tx, message=message: tx.add_message(message))
    await store.write(lambda tx: tx.delete_agent("agent-ada"))
    await store.close()


async def test_a_cancelled_waiter_harms_nobody(url: str) -> None:
    store = Database(url)
    waiting = [asyncio.ensure_future(store.write(lambda tx, n=n: tx.learn_window(f"m{n}", 1, n))) for n in range(5)]
    waiting[2].cancel()
    done = await asyncio.gather(*waiting, return_exceptions=True)
    assert [isinstance(d, asyncio.CancelledError) for d in done] == [False, False, True, False, False]
    assert await store.read(lambda tx: tx.learned_window("m4", 1)) == 4
    await store.close()
    await store.close()


def set_version(path: Path, version: str) -> None:
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE alembic_version SET version_num = ?", (version,))
    raw.close()


def run_python(code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=False,
    )
