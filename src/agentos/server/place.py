"""What a server keeps in its home: its token, its lock, and where it can be reached."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from agentos.errors import ConfigError, StoreError, UsageError
from agentos.settings import TOKEN_FILE, Settings

_ADDRESS_FILE, _LOCK_FILE = "server.json", "server.lock"
_SHORTEST_TOKEN = 8
_LOCK_SECONDS = 0.5
"""Longer than a look at the lock takes."""


def server_token(settings: Settings) -> tuple[str, bool]:
    """(the token, whether it was made now): the setting's, else the home's. `ConfigError` for one that cannot serve."""
    path = settings.home / TOKEN_FILE
    if settings.token is not None:
        return _usable(settings.token, "AGENTOS_TOKEN or --token"), False
    try:
        token = path.read_bytes().strip().decode("utf-8", "replace")
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except FileNotFoundError:
        token = ""
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; remove it, and a token is made anew") from None
    if token:
        return _usable(token, str(path)), False
    token = secrets.token_urlsafe(32)
    part = path.with_suffix(".new")
    with _told(settings.home):
        part.unlink(missing_ok=True)  # an old one's mode would stay
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(f"{token}\n")
        part.replace(path)
    return token, True


def _usable(token: str, source: str) -> str:
    """The token, if a header can carry it."""
    if len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"the token in {source} cannot be used: it takes {_SHORTEST_TOKEN} or more printable ASCII characters "
            "without a space; correct it, or remove it to have one made"
        )
    return token


def server_address(home: Path) -> str | None:
    """The URL of the server that runs on this home; None when none does."""
    if not (home / _LOCK_FILE).exists():
        return None
    lock = FileLock(home / _LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return _address(home)
    except OSError:
        return None
    lock.release()
    return None


def _address(home: Path) -> str:
    try:
        return str(json.loads((home / _ADDRESS_FILE).read_text("utf-8"))["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return "an address it has not told yet"


@contextmanager
def only_server(home: Path) -> Iterator[None]:
    """Be the home's one server, or raise a `UsageError` with the address of the one there is."""
    lock = FileLock(home / _LOCK_FILE, mode=0o600)
    try:
        with _told(home):
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock.acquire(timeout=_LOCK_SECONDS)
    except Timeout:
        raise UsageError(f"a server for {home} runs at {_address(home)}; use that one, or stop it first") from None
    try:
        with _told(home):
            (home / _ADDRESS_FILE).unlink(missing_ok=True)  # left by one that was killed
        yield
    finally:
        with suppress(OSError):
            (home / _ADDRESS_FILE).unlink(missing_ok=True)
        lock.release()


def tell_address(home: Path, url: str) -> None:
    """Write down where the server of this home can be reached."""
    with _told(home):
        (home / _ADDRESS_FILE).write_text(json.dumps({"url": url, "pid": os.getpid()}), "utf-8")


@contextmanager
def _told(home: Path) -> Iterator[None]:
    """A disk that is full or read-only is one sentence."""
    try:
        yield
    except Timeout:
        raise
    except OSError as error:
        raise StoreError(
            f"{home} cannot be written: {error.strerror}; free some space there, or set AGENTOS_HOME to a folder of "
            "yours"
        ) from None
