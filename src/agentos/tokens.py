"""Tokens for programs that use the memory of some agents: made, listed, revoked, and what each may do."""

import hashlib
import json
import secrets
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from agentos.errors import NotFound, UsageError
from agentos.messages import clean_text
from agentos.protocols import Clock, Store
from agentos.state import AgentRecord

PREFIX = "agentos-"
"""What each of these tokens begins with; nothing else is looked up."""
_KEY = "token:"
_ID_CHARS = 12
_LONGEST_NAME = 60


@dataclass(frozen=True)
class Grant:
    """What a program may reach: agents by id (None: all), and whether it may only read."""

    agents: frozenset[str] | None = None
    read_only: bool = False
    name: str = ""
    """What its owner calls it."""
    id: str = ""

    @property
    def kind(self) -> str:
        """`personal` of one agent, `shared` of several, `all`."""
        return "all" if self.agents is None else "personal" if len(self.agents) == 1 else "shared"


@dataclass(frozen=True)
class Token:
    """A token as it is kept: the secret itself is not."""

    id: str
    """The beginning of the secret's hash."""
    name: str
    agents: list[str]
    read_only: bool
    created_at: str
    expires_at: str | None = None
    """ISO 8601; None: never."""

    def grant(self) -> Grant:
        """What it allows."""
        return Grant(frozenset(self.agents), self.read_only, self.name, self.id)


async def create_token(
    store: Store,
    clock: Clock,
    names: list[str],
    *,
    read_only: bool = False,
    name: str = "",
    expires_at: datetime | None = None,
) -> tuple[str, Token]:
    """(the secret, which is kept nowhere, the token) for the agents of these names; `UsageError` for a wrong one."""
    label = clean_text(name).strip()
    if len(label) > _LONGEST_NAME or not label.isprintable():
        raise UsageError(f"a token's name has at most {_LONGEST_NAME} printable characters; give a shorter one")
    if not names:
        raise UsageError("a token is for one agent or more; name them with --agent")
    now, secret = clock.now(), PREFIX + secrets.token_urlsafe(32)
    if expires_at is not None and expires_at <= now:
        raise UsageError(
            f"the token would have expired at {expires_at.isoformat(timespec='seconds')}; choose a later time"
        )
    digest, end = _hash(secret), None if expires_at is None else expires_at.isoformat()

    def work(tx: Any) -> Token:
        found: dict[str, AgentRecord | None] = {name: tx.agent_named(name) for name in names}
        if None in found.values():
            missing = next(name for name, record in found.items() if record is None)
            raise NotFound(f"there is no agent {missing!r}; `agentos agents list` shows all")
        ids = sorted({record.id for record in found.values() if record})
        token = Token(digest[:_ID_CHARS], label, ids, read_only, now.isoformat(), end)
        tx.set_home(_KEY + digest, json.dumps(asdict(token)))
        return token

    return secret, await store.write(work)


def tokens(tx: Any) -> list[Token]:
    """All that were made and not revoked, oldest first."""
    return sorted(map(_read, tx.homes(_KEY).values()), key=lambda token: (token.created_at, token.id))


async def revoke_token(store: Store, token_id: str) -> Token:
    """Make a token useless at once; `NotFound` when there is none of that id."""

    def work(tx: Any) -> Token:
        for key, value in tx.homes(_KEY).items():
            if _read(value).id == token_id:
                tx.set_home(key, None)
                return _read(value)
        raise NotFound(f"there is no token {token_id!r}; `agentos token list` shows all")

    return await store.write(work)


async def find_grant(store: Store, clock: Clock, secret: str) -> Grant | None:
    """What a secret allows; None for one that was never given out, was revoked or has expired.

    It is looked up by its hash: how long that takes tells nothing about any secret.
    """
    if not secret.startswith(PREFIX):
        return None
    kept = await store.read(lambda tx: tx.home(_KEY + _hash(secret)))
    if not kept:
        return None
    token = _read(kept)
    if token.expires_at is not None and datetime.fromisoformat(token.expires_at) <= clock.now():
        return None
    return token.grant()


def _hash(secret: str) -> str:
    """The secrets have 256 random bits, so a plain hash is as good as a slow one."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _read(value: str) -> Token:
    return Token(**json.loads(value))
