"""Signed in: a cookie that proves that its browser once had the server's token, and does not hold it."""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from agentos.protocols import Store

LASTS_SECONDS = 12 * 3600
"""How long a session is good for after it was used."""
LONGEST_SECONDS = 7 * 24 * 3600
"""How long it is good for after the sign-in, however much it is used."""
_ENDED = "session-ended:"
"""Keys of what the database keeps of sessions that were signed out of."""
_RENEW_SECONDS = 3600
LINK_SECONDS = 60
_MOST_LINKS = 100


@dataclass(frozen=True)
class Session:
    """A browser that is signed in."""

    nonce: str
    began: int
    expires: int
    """Unix times in seconds."""
    csrf: str
    """What a change must bring along in `X-CSRF-Token`: only pages of this server know it."""


class Sessions:
    """Makes and checks sessions. A new token ends every session.

    Cookies prove themselves; what the database keeps is which sessions were signed out of, so that a sign-out holds
    on every server of it and after a restart. `now` gives the Unix time in seconds.
    """

    def __init__(self, token: str, store: Store, now: Callable[[], float]) -> None:
        self._store = store
        self._key = hmac.digest(token.encode(), b"agentos inspector", "sha256")
        self._now = now
        self._links: dict[str, float] = {}
        self.cookie = f"agentos-{self._sign('name')[:8]}"
        """The cookie's name: ports share cookies, so each token has its own."""

    def begin(self) -> Session:
        """A new session."""
        now = int(self._now())
        return self._session(secrets.token_urlsafe(16), now, now + LASTS_SECONDS)

    async def read(self, cookies: str) -> Session | None:
        """The session in a Cookie header; None where there is none that is valid now. `StoreError` as of any read."""
        try:
            morsel = SimpleCookie(cookies).get(self.cookie)
        except CookieError:
            return None
        nonce, *times, mac = ((morsel.value if morsel else "").split(".") + [""] * 3)[:4]
        if not nonce or not all(time.isascii() and time.isdigit() and len(time) < 15 for time in times):
            return None
        session = self._session(nonce, *map(int, times))
        right = hmac.compare_digest(mac.encode(), self._mac(session).encode())
        return session if right and await self.good(session) else None

    async def good(self, session: Session) -> bool:
        """Whether a session is valid still: neither too old nor signed out of."""
        left = session.expires - self._now()
        if not 0 < left <= LASTS_SECONDS + _RENEW_SECONDS:  # more has only what was signed while the clock ran ahead
            return False
        ended: str = await self._store.read(lambda tx: tx.home(_ENDED + session.nonce))
        return not ended

    async def end(self, session: Session) -> None:
        """Make a session useless at once, whoever holds its cookie."""
        now = int(self._now())

        def work(tx: Any) -> None:
            for key, last in tx.homes(_ENDED).items():
                if int(last) <= now:  # its cookies are too old by themselves
                    tx.set_home(key, None)
            tx.set_home(_ENDED + session.nonce, str(session.began + LONGEST_SECONDS))

        await self._store.write(work)

    def renewed(self, session: Session) -> Session | None:
        """The same session with a later end; None while it has long enough, or has no more."""
        end = min(int(self._now()) + LASTS_SECONDS, session.began + LONGEST_SECONDS)
        if end - session.expires < _RENEW_SECONDS:
            return None
        return self._session(session.nonce, session.began, end)

    def set_cookie(self, session: Session | None, *, secure: bool) -> str:
        """The Set-Cookie header of a session; of None, the one that ends it."""
        value = "" if session is None else f"{session.nonce}.{session.began}.{session.expires}.{self._mac(session)}"
        age = 0 if session is None else max(0, session.expires - int(self._now()))
        rest = "; Secure" if secure else ""
        return f"{self.cookie}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{rest}"

    def link(self) -> str:
        """A code that signs one browser in, once, within `LINK_SECONDS`."""
        self._links = {code: end for code, end in self._links.items() if end > self._now()}
        for code in list(self._links)[: -_MOST_LINKS + 1]:
            del self._links[code]
        code = secrets.token_urlsafe(24)
        self._links[code] = self._now() + LINK_SECONDS
        return code

    def redeem(self, code: str) -> bool:
        """Whether the code of a link is good; it is not a second time."""
        return self._links.pop(code, 0) > self._now()

    def _session(self, nonce: str, began: int, expires: int) -> Session:
        return Session(nonce, began, expires, self._sign(f"csrf {nonce}"))

    def _mac(self, session: Session) -> str:
        return self._sign(f"session {session.nonce} {session.began} {session.expires}")

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def local_path(given: str) -> str:
    """`given` where it is a path of this server, else `/`: nobody is led elsewhere after signing in."""
    try:
        parts = urlsplit(given)
    except ValueError:
        return "/"
    odd = parts.scheme or parts.netloc or "\\" in given or not given.isprintable() or not given.isascii()
    return "/" if odd or not given.startswith("/") or given.startswith("//") else given
