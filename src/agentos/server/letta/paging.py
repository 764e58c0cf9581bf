"""The query of a list: `after`, `before`, `limit`, `order`."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field

from agentos.errors import NotFound

Key = TypeVar("Key", bound=Any)
End = TypeVar("End")
Row = TypeVar("Row")


class Page(BaseModel):
    """Which part of a list; `after` and `before` are ids, later and earlier in the chosen order."""

    after: str | None = Field(None, max_length=200)
    before: str | None = Field(None, max_length=200)
    limit: int | None = Field(None, ge=0, le=1000)
    order: Literal["asc", "desc"] | None = None
    order_by: str | None = Field(None, max_length=50)
    ascending: bool | None = None

    def ascends(self, default: bool) -> bool:
        """Whether the oldest comes first."""
        if self.order is not None:
            return self.order == "asc"
        return default if self.ascending is None else self.ascending

    def ends(self, find: Callable[[str], End]) -> list[End | None]:
        """What `find` makes of the ids (after, before)."""
        return [None if given is None else find(given) for given in (self.after, self.before)]

    def size(self, default: int) -> int:
        """How many at most."""
        return default if self.limit is None else self.limit

    def part(self, size: int, *, ascending: bool, key: Callable[[str], Any] = str) -> dict[str, Any]:
        """The same for `Rows.page`; where nothing is said, `size` items. `key` makes a row's key of an id."""
        after, before = (None if given is None else key(given) for given in (self.after, self.before))
        return {"after": after, "before": before, "limit": self.size(size), "ascending": self.ascends(ascending)}

    def cut(self, values: Sequence[dict[str, Any]], size: int, *, ascending: bool) -> list[dict[str, Any]]:
        """The same of a short list that is here as a whole, in ascending order."""
        ends = [_place(values, given) for given in (self.after, self.before)]
        return slice_of(list(enumerate(values)), self.ascends(ascending), ends, self.size(size))


def _place(values: Sequence[dict[str, Any]], given: str | None) -> int | None:
    if given is None:
        return None
    place = next((n for n, value in enumerate(values) if value["id"] == given), None)
    if place is None:
        raise NotFound(f"there is no {given!r} that the list could go on from")
    return place


Paged = Annotated[Page, Query()]


def slice_of(rows: Sequence[tuple[Key, Row]], ascending: bool, ends: Sequence[Key | None], limit: int) -> list[Row]:
    """The page of a short list, (key, row) by key, that `Rows.page` would give."""
    after, before = ends
    listed = rows if ascending else rows[::-1]
    low, high = (after, before) if ascending else (before, after)
    within = [row for key, row in listed if (low is None or key > low) and (high is None or key < high)]
    return within[max(0, len(within) - limit) :] if before is not None and after is None else within[:limit]
