"""Facts about the home itself, and windows that providers named."""

import sqlalchemy as sa

from agentos.store.rows import Rows, table
from agentos.store.tables import HomeRow, WindowRow

_home, _window = table(HomeRow), table(WindowRow)
_LEARN = sa.text("""
INSERT INTO model_window (model, believed, tokens) VALUES (:model, :believed, :tokens)
ON CONFLICT (model) DO UPDATE SET believed = excluded.believed, tokens = excluded.tokens
""")
_KEEP = sa.text("INSERT INTO home (key, value) VALUES (:key, :value) ON CONFLICT (key) DO UPDATE SET value = :value")


class HomeRows(Rows):
    """Statements on what belongs to no agent."""

    def home(self, key: str) -> str:
        """A fact about the home, such as its `id` or `salt` (made when the database was made)."""
        value = self.scalar(sa.select(_home.c.value).where(_home.c.key == key))
        return "" if value is None else str(value)

    def homes(self, prefix: str) -> dict[str, str]:
        """The facts about the home whose keys begin so, by key."""
        query = sa.select(_home.c.key, _home.c.value).where(_home.c.key.startswith(prefix, autoescape=True))
        return {row[0]: row[1] for row in self.connection.execute(query.order_by(_home.c.key))}

    def set_home(self, key: str, value: str | None) -> None:
        """Keep a fact about the home, or with None forget it."""
        if value is None:
            self.connection.execute(sa.delete(_home).where(_home.c.key == key))
        else:
            self.connection.execute(_KEEP, {"key": key, "value": value})

    def learned_window(self, model: str, believed: int) -> int | None:
        """The context window, in tokens, that this model's provider named when it was believed to be `believed`.

        Another belief, mostly a new setting, asks the provider anew.
        """
        known = sa.select(_window.c.tokens).where(_window.c.model == model, _window.c.believed == believed)
        tokens: int | None = self.scalar(known)
        return tokens

    def learn_window(self, model: str, believed: int, tokens: int) -> None:
        """Keep a model's true window."""
        self.connection.execute(_LEARN, {"model": model, "believed": believed, "tokens": tokens})
