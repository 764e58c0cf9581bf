"""The query of a list: `after`, `before`, `limit`, `order`."""

from typing import Annotated, Literal

from fastapi import Query
from pydantic import BaseModel, Field


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

    def size(self, default: int) -> int:
        """How many at most."""
        return default if self.limit is None else self.limit


Paged = Annotated[Page, Query()]
