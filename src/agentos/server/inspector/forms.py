"""What forms send."""

from typing import Any

from pydantic import BaseModel, model_validator


class FormQuery(BaseModel):
    """A query that a form made: it sends every field, also those that were left empty."""

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, given: Any) -> Any:
        return {name: value for name, value in given.items() if value != ""}
