"""What several requests have in common."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from agentos.messages import clean_json, clean_text

Text = Annotated[str, AfterValidator(clean_text)]
"""Text with what no party could store or send replaced."""
Json = dict[str, Any]
Object = Annotated[Json, AfterValidator(clean_json)]
"""Any JSON object that can be stored and sent."""


def _tags(given: list[str]) -> list[str]:
    return list(dict.fromkeys(tag for text in given if (tag := clean_text(text).strip())))


def _moment(given: datetime) -> datetime:
    try:
        given = given if given.tzinfo else given.astimezone()
        _ = given.astimezone(UTC) + timedelta(days=1), given.astimezone(UTC) - timedelta(days=1)
    except (ValueError, OverflowError):
        raise ValueError("it is no time of this calendar in every zone") from None
    return given


Moment = Annotated[datetime, AfterValidator(_moment)]
"""A point in time; without an offset in the machine's zone."""
Tags = Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=200), AfterValidator(_tags)]
"""Words without spaces around them, each once."""
Label = Annotated[Text, Field(min_length=1, max_length=100)]
Limit = Annotated[int, Field(ge=1, le=1_000_000)]
"""Characters of a block."""
MOST_LISTED = 1000
"""Ids or names that one request may list."""


class Request(BaseModel):
    """A body; fields that are not known are passed over."""

    model_config = ConfigDict(extra="ignore")

    def given(self, *names: str, reset: Json | None = None) -> Json:
        """What was said of these fields; null counts as what `reset` has for it, else as nothing said."""
        said = {name: getattr(self, name) for name in names if name in self.model_fields_set}
        return {
            name: (reset or {})[name] if value is None else value
            for name, value in said.items()
            if value is not None or name in (reset or {})
        }
