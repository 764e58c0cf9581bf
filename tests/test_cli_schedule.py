"""`agentos schedule` over a home."""

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from agentos.schedules import next_time
from forks import Forks
from test_cli import Cli


def test_schedules_on_the_command_line(tmp_path: Path, forks: Forks) -> None:
    cli = Cli(tmp_path / "home", forks)
    cli.ok("agents", "create", "ada")
    cli.ok("agents", "create", "bob")
    assert cli.json("schedule", "list") == []
    assert "nothing is scheduled" in cli.ok("schedule", "list")
    added = cli.ok("schedule", "add", "ada", "water the plants", "--cron", "30 9 * * *")
    cli.ok("schedule", "add", "bob", "call home", "--at", "2096-05-08T13:30")
    daily, once = cli.json("schedule", "list")
    assert added.startswith(f"{daily['id']}: ada is told at ")
    assert (daily["agent"], daily["cron"], daily["messages"]) == ("ada", "30 9 * * *", ["water the plants"])
    due = datetime.fromisoformat(daily["next_at"])
    assert (due.hour, due.minute, due.tzinfo is None) == (9, 30, False), "cron is read in local time"
    assert once["next_at"].startswith("2096-05-08T13:30:00")
    assert [s["id"] for s in cli.json("schedule", "list", "bob")] == [once["id"]]
    assert "water the plants" in cli.ok("schedule", "list", "ada")
    cli.ok("schedule", "remove", daily["id"])
    assert cli.json("schedule", "list") == [once]
    for args, words in (
        (("remove", daily["id"]), "there is no schedule"),
        (("add", "ada", "x"), "a cron expression or a time"),
        (("add", "ada", "x", "--cron", "* * * * *", "--at", "2096-05-08"), "a cron expression or a time"),
        (("add", "ada", "x", "--cron", "daily"), "is no cron expression"),
        (("add", "ada", "x", "--at", "tomorrow"), "is no ISO 8601 time"),
        (("add", "ada", "x", "--at", "9999-12-31"), "too far off"),
        (("add", "ada", " ", "--at", "2096-05-08"), "the message is empty"),
        (("add", "nobody", "x", "--at", "2096-05-08"), "there is no agent 'nobody'"),
        (("list", "nobody"), "there is no agent 'nobody'"),
    ):
        done = cli("schedule", *args)
        assert (done.returncode, done.stdout) == (2, ""), (args, done)
        assert words in done.stderr, (args, done)


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The machine stands in Berlin."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("cron", "after", "due"),
    [
        ("0 9 * * *", "2026-03-28T12:00+01:00", "2026-03-29T09:00+02:00"),
        ("0 9 1 * *", "2026-03-05T12:00+01:00", "2026-04-01T09:00+02:00"),
        ("0 9 * * *", "2026-10-24T12:00+02:00", "2026-10-25T09:00+01:00"),
        ("*/30 * * * *", "2026-10-25T02:30+02:00", "2026-10-25T02:00+01:00"),
        ("*/30 * * * *", "2026-10-25T02:30+01:00", "2026-10-25T03:00+01:00"),
    ],
)
@pytest.mark.usefixtures("berlin")
def test_local_time_keeps_summer_time(cron: str, after: str, due: str) -> None:
    for zone in ("", "Europe/Berlin"):
        assert next_time(cron, zone, datetime.fromisoformat(after)) == datetime.fromisoformat(due)
