"""A PostgreSQL of the tests' own: the binaries of the `pgserver` wheel, a Unix socket, a folder under /tmp."""

import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from agentos.store.migrations import migrate


def binaries() -> Path | None:
    """Where the wheel keeps them; None where it is not installed."""
    found = importlib.util.find_spec("pgserver")
    return Path(next(iter(found.submodule_search_locations or ()))) / "pginstall/bin" if found else None


class Server:
    """One running server; databases are copies of a migrated one. It runs as nobody where the tests run as root."""

    def __init__(self, bin_folder: Path) -> None:
        self.bin = bin_folder
        self.folder = Path(tempfile.mkdtemp(prefix="agentos-pg-", dir="/tmp"))
        self.data = self.folder / "data"
        self._as: dict[str, Any] = {"cwd": "/"}
        if os.geteuid() == 0:
            os.chown(self.folder, 65534, 65534)
            self._as |= {"user": 65534, "group": 65534, "extra_groups": []}
        # no locale: words must be told apart in the plainest database too
        self._run("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "--no-locale", "-E", "UTF8", "--no-sync")
        self.start()
        migrate(self.database("template", "template0"))

    def database(self, name: str = "test", template: str = "template") -> str:
        """The URL of a new, migrated database; one of that name that was there before is gone."""
        import psycopg

        with psycopg.connect(host=str(self.folder), user="postgres", dbname="postgres", autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return f"postgresql://postgres@/{name}?host={self.folder}"

    def start(self) -> None:
        """Start; done when it answers."""
        options = f"-k {self.folder} -c listen_addresses='' -c fsync=off -c full_page_writes=off -c shared_buffers=32MB"
        self._run("pg_ctl", "-D", self.data, "-w", "-l", self.folder / "log", "-o", options, "start")

    def stop(self) -> None:
        """Stop at once, as a crash would: connections are cut off."""
        self._run("pg_ctl", "-D", self.data, "-w", "-m", "immediate", "stop")

    def close(self) -> None:
        """Stop and remove everything."""
        self.stop()
        shutil.rmtree(self.folder)

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self.bin / program), *map(str, arguments)]
        # into a file and not a pipe: the server would keep a pipe open
        with (self.folder / "out").open("w+") as out:
            done = subprocess.run(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, check=False, **self._as)
            out.seek(0)
            assert done.returncode == 0, f"{program}: {out.read()}"
