"""Published data files, read as they are: gzipped or plain, checked against their format."""

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from agentos.errors import UsageError

T = TypeVar("T")


class DataFile:
    """The file a user named, and what its suite reads beside it.

    Every method raises `UsageError` with the file and the place in it; `digest` covers all that was read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._digest = hashlib.sha256()

    @property
    def digest(self) -> str:
        """SHA-256 of the text read so far, in hexadecimal."""
        return self._digest.hexdigest()

    def document(self, kind: type[T]) -> list[T]:
        """The file as one JSON array of `kind`."""
        values = self._json(self._text(self.path), self.path.name)
        if not isinstance(values, list) or not values:
            raise UsageError(f"{self.path} holds no JSON array with something in it; give the published file")
        return [_checked(kind, value, f"{self.path}, entry {n}") for n, value in enumerate(values, 1)]

    def rows(self, kind: type[T], path: Path | None = None) -> list[T]:
        """The file (or `path`, one that belongs to it) as JSON lines of `kind`."""
        path = path or self.path
        rows = [
            _checked(kind, self._json(line, f"{path.name}, line {n}"), f"{path}, line {n}")
            for n, line in _lines(self._text(path))
        ]
        if not rows:
            raise UsageError(f"{path} is empty; give the published file")
        return rows

    def _text(self, path: Path) -> str:
        try:
            raw = path.read_bytes()
            raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
            self._digest.update(raw)
            return raw.decode("utf-8-sig")
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UsageError(f"{path} is a damaged gzip file ({error}); fetch it again") from None
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}; give a data file of yours") from None
        except UnicodeDecodeError as error:
            raise UsageError(f"{path} is not UTF-8 at byte {error.start}; give the published file") from None

    def _json(self, text: str, place: str) -> Any:
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            where = f"line {error.lineno}, column {error.colno}"
            raise UsageError(f"{place} is not JSON at {where}: {error.msg}; give the published file") from None
        except RecursionError:
            raise UsageError(f"{place} is nested too deep to be read; give the published file") from None


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that hold something, numbered from 1; JSON may hold other line separators than a newline."""
    return ((n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip())


def _checked(kind: type[T], value: object, place: str) -> T:
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the value"
        raise UsageError(f"{place}: {field}: {first['msg']}; give the file in its published format") from None
