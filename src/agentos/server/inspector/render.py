"""How values become pages: templates, which escape every text, and what all pages have in common."""

import re
from datetime import datetime
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Request, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from agentos.server.inspector.formats import FORMATS, shortened, shortened_to
from agentos.server.inspector.sessions import Session
from agentos.server.inspector.static_files import static_url

SECURITY = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data:; base-uri 'self'; form-action 'self'; frame-ancestors 'none'; "
        "object-src 'none'"
    ),  # the style sheet's icons are data
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # without any, browsers say `Origin: null` of our own forms
    "cross-origin-opener-policy": "same-origin",
}
"""Headers of every answer."""
VIEWS: list[tuple[str, str]] = [
    ("context", "Context"),
    ("core", "Core memory"),
    ("archival", "Archival"),
    ("recall", "Recall"),
    ("timeline", "Timeline"),
    ("runs", "Runs"),
    ("chat", "Chat"),
]
"""The pages of an agent in the order of the navigation: the last part of the URL, and the title."""
_NO_PAGES = ("/v1/", "/openai/", "/agentos/", "/static/", "/mcp", "/metrics", "/openapi.json", "/healthz", "/readyz")
_MOST_BYTES = 48_000
"""What a page weighs at most, where its texts can be cut: with style and scripts less than 200 kB."""
_SHARES = (1.0, 0.5, 0.25, 0.1, 0.03)
_PART_CHARS, _PART_BYTES = 20_000, 40_000
"""What is shown at once of one long text: so many characters, if they weigh no more."""
_LINE_CHARS = 60
"""What a line of a diff weighs beside its text."""
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2028\u2029\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
"""What a page would not show, or show elsewhere than it stands."""


class Page(Response):
    """HTML that nobody keeps."""

    media_type = "text/html"


def page(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """A page of its own, with what all pages have; the more long texts it shows, the less of each."""
    session: Session | None = request.scope.get("agentos.session")
    known = {"csrf": session.csrf if session else "", "signed_in": session is not None}
    for share in _SHARES:
        with shortened(share):
            html = _environment().get_template(template).render(known | values).encode("utf-8", "replace")
        if len(html) <= _MOST_BYTES:
            break
    return Page(html, status, {"cache-control": "no-store"})


def text_part(text: str, at: int) -> dict[str, Any]:
    """What is shown at once of a long text from character `at` on; `after` is where the rest begins."""
    shown = text[at : at + _PART_CHARS]
    while (weight := len(escape(_shown(shown)).encode("utf-8", "replace"))) > _PART_BYTES:
        shown = shown[: len(shown) * _PART_BYTES // weight]
    after = at + len(shown)
    return {"text": shown, "at": at, "length": len(text), "after": after if after < len(text) else None}


def notice(status: int, detail: str) -> Response:
    """A refusal of a change: the notice that stands above a page and leaves the rest of it as it is."""
    html = _environment().get_template("notice.html").render(detail=detail, status=status)
    headers = {"hx-retarget": "#notice", "hx-reswap": "innerHTML", "hx-reselect": "#refusal"}
    return Page(html, status, headers | {"cache-control": "no-store"})


def wants_page(request: Request) -> bool:
    """Whether a browser asks for a page or a part of one, whose errors are pages too."""
    elsewhere = request.scope["path"].startswith(_NO_PAGES)
    return not elsewhere and (is_part(request) or "text/html" in request.headers.get("accept", ""))


def is_part(request: Request) -> bool:
    """Whether a page asks, for a part of itself."""
    return request.headers.get("hx-request") == "true"


def agent_path(name: str, *parts: object, **query: object) -> str:
    """The URL of an agent's page; what is None is left out of the query."""
    path = "/".join(["/agents", *(quote(str(part), safe="") for part in (name, *parts))])
    return with_query(path, **query)


def place(name: str, ref: str) -> str | None:
    """The URL of the page that shows the block, passage or message of an agent that `ref` names (`b1`, `p3`, `m7`)."""
    view = {"b": "core", "p": "archival", "m": "recall"}.get(ref[:1])
    return view and agent_path(name, view, ref)


def with_query(path: str, **query: object) -> str:
    """The path with a query of all that is not None or empty."""
    said = {name: str(value) for name, value in query.items() if value not in (None, "")}
    return f"{path}?{urlencode(said)}" if said else path


def see(path: str) -> Response:
    """Go on at another page, after a change."""
    return Response(status_code=303, headers={"location": path, "cache-control": "no-store"})


def _shown(value: Any) -> Any:
    """What an expression in a template puts out: control characters of a text as `\\xNN`."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return _CONTROL.sub(lambda m: f"\\x{ord(m[0]):02x}" if ord(m[0]) < 256 else f"\\u{ord(m[0]):04x}", value)


def _exact(value: str) -> Markup:
    """A text as it is, escaped: for fields that are sent back."""
    return Markup("\n") + escape(value)  # HTML drops a first newline


def _number(value: float) -> str:
    return f"{value:,}"


def _cost(value: float | None) -> str:
    return "–" if value is None else f"${value:,.4f}" if 0 < value < 1 else f"${value:,.2f}"


def _when(value: str | None, none: str = "never") -> Markup:
    """A time as `<time>`: to the minute, with the rest as its title."""
    if value is None:
        return Markup(escape(none))
    shown = datetime.fromisoformat(value).strftime("%Y-%m-%d %H:%M")
    return Markup('<time datetime="{0}" title="{0}">{1}</time>').format(value, shown)


def _diff(text: str, most: int | None = None) -> list[tuple[str, str]]:
    """The lines of `core.changed_lines` as (kind, text); where they are cut at `most` characters, ("cut", "") last."""
    kinds = {"+": "added", "-": "removed"}
    lines = [
        (kinds.get(line[:1], "same"), line[2:] if line[:1] in kinds else line) for line in text.split("\n") if line
    ]
    if most is None:
        return lines
    most = shortened_to(most)
    shown: list[tuple[str, str]] = []
    for kind, line in lines:
        if most <= 0 or len(line) > most:
            return [*shown, (kind, f"{line[: max(0, most)]} …"), ("cut", "")]
        shown.append((kind, line))
        most -= len(line) + _LINE_CHARS
    return shown


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("agentos.server.inspector"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=_shown, auto_reload=False,
    )  # fmt: skip
    made.filters |= {
        "exact": _exact, "number": _number, "cost": _cost, "when": _when, "diff_lines": _diff,
    }  # fmt: skip
    made.filters |= FORMATS
    made.globals |= {
        "views": VIEWS, "agent_path": agent_path, "place": place, "with_query": with_query, "static": static_url,
    }  # fmt: skip
    return made
