"""Signed in: a cookie that proves that its browser once had the server's token, and does not hold it."""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

LASTS_SECONDS = 12 * 3600
"""How long a session is good for after it was used."""
_RENEW_SECONDS = 3600
LINK_SECONDS = 60
_MOST_LINKS = 100


@dataclass(frozen=True)
class Session:
    """A browser that is signed in."""

    nonce: str
    expires: int
    """Unix time in seconds."""
    csrf: str
    """What a change must bring along in `X-CSRF-Token`: only pages of this server know it."""


class Sessions:
    """Makes and checks sessions. Nothing is kept but unused links: a new token ends every session.

    `now` gives the Unix time in seconds.
    """

    def __init__(self, token: str, now: Callable[[], float]) -> None:
        self._key = hmac.digest(token.encode(), b"agentos inspector", "sha256")
        self._now = now
        self._links: dict[str, float] = {}
        self.cookie = f"agentos-{self._sign('name')[:8]}"
        """The cookie's name: ports share cookies, so each token has its own."""

    def begin(self) -> Session:
        """A new session."""
        return self._session(secrets.token_urlsafe(16), int(self._now()) + LASTS_SECONDS)

    def read(self, cookies: str) -> Session | None:
        """The session in a Cookie header; None where there is none that is valid now."""
        try:
            morsel = SimpleCookie(cookies).get(self.cookie)
        except CookieError:
            return None
        nonce, _, rest = (morsel.value if morsel else "").partition(".")
        end, _, mac = rest.partition(".")
        if not (nonce and end.isascii() and end.isdigit() and len(end) < 15):
            return None
        session = self._session(nonce, int(end))
        right = hmac.compare_digest(mac.encode(), self._mac(session).encode())
        return session if right and session.expires > self._now() else None

    def renewed(self, session: Session) -> Session | None:
        """The same session with a later end; None while it has long enough."""
        if session.expires - self._now() > LASTS_SECONDS - _RENEW_SECONDS:
            return None
        return self._session(session.nonce, int(self._now()) + LASTS_SECONDS)

    def set_cookie(self, session: Session | None, *, secure: bool) -> str:
        """The Set-Cookie header of a session; of None, the one that ends it."""
        value = "" if session is None else f"{session.nonce}.{session.expires}.{self._mac(session)}"
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

    def _session(self, nonce: str, expires: int) -> Session:
        return Session(nonce, expires, self._sign(f"csrf {nonce}"))

    def _mac(self, session: Session) -> str:
        return self._sign(f"session {session.nonce} {session.expires}")

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
