"""Who may use the Inspector's pages, without a browser: cookies, forged requests, errors that are pages."""

import re
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from agentos.errors import StoreError
from agentos.server.inspector.sessions import Sessions, local_path
from agentos.testing import FixedClock, FunctionLLM
from forks import Forks
from serving import TOKEN, Process, Served, served

HTML = {"accept": "text/html"}


@pytest.fixture(scope="module")
def live() -> Iterator[Served]:
    with served(FunctionLLM(lambda request: "ok"), clock=FixedClock()) as live:
        live.service.wrong_token_seconds = 0.0
        live.create("ada")
        yield live


@pytest.fixture
def visitor(live: Served) -> Iterator[httpx.Client]:
    """A browser's requests, by hand; follows no redirect."""
    with closing(httpx.Client(base_url=live.url, headers=HTML, trust_env=False)) as client:
        yield client


def enter(visitor: httpx.Client, **headers: str) -> httpx.Response:
    return visitor.post("/sign-in", data={"token": TOKEN, "next": "/agents/ada/core"}, headers=headers)


def csrf(visitor: httpx.Client) -> str:
    found = re.search(r'X-CSRF-Token": "([0-9a-f]+)"', visitor.get("/").text)
    assert found
    return found[1]


def test_the_cookie_is_a_session_and_not_the_token(visitor: httpx.Client) -> None:
    answer = enter(visitor)
    assert (answer.status_code, answer.headers["location"]) == (303, "/agents/ada/core")
    cookie = answer.headers["set-cookie"]
    assert re.fullmatch(r"agentos-[0-9a-f]{8}=\S+; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict", cookie)
    assert TOKEN not in cookie
    assert visitor.get("/agentos/v1/agents").json()[0]["name"] == "ada"
    assert visitor.get("/v1/agents/").status_code == visitor.get("/metrics").status_code == 200
    assert enter(visitor, **{"x-forwarded-proto": "https"}).headers["set-cookie"].endswith("; Secure")


def test_wrong_tokens_are_refused_slowly(live: Served, visitor: httpx.Client) -> None:
    live.service.wrong_token_seconds = 0.2
    try:
        for wrong in ("", "x", TOKEN[:-1], "t\u00f6ken"):
            before = time.perf_counter()
            answer = visitor.post("/sign-in", data={"token": wrong})
            assert time.perf_counter() - before >= 0.2
            assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)
            assert "not this server" in answer.text
    finally:
        live.service.wrong_token_seconds = 0.0


def test_a_change_needs_the_pages_own_token(live: Served, visitor: httpx.Client) -> None:
    enter(visitor)
    other = httpx.Client(base_url=live.url, headers=HTML, trust_env=False)
    with closing(other):
        enter(other)
        forged: list[dict[str, str]] = [{}, {"x-csrf-token": "0" * 64}, {"x-csrf-token": csrf(other)}]
    changes: list[tuple[str, str, dict[str, Any]]] = [
        ("PATCH", "/agentos/v1/agents/ada/blocks/human", {"json": {"value": "forged"}}),
        ("POST", "/agents/ada/timeline/undo", {"data": {"event": "1"}}),
        ("POST", "/v1/agents/", {"json": {"name": "forged"}}),
        ("POST", "/sign-out", {}),
    ]
    for method, path, body in changes:
        for headers in forged:
            answer = visitor.request(method, path, headers=headers, **body)
            assert (answer.status_code, "page of this session" in answer.text) == (403, True), path
    mine = {"x-csrf-token": csrf(visitor)}
    answer = visitor.patch("/agentos/v1/agents/ada/blocks/human", json={"value": "mine"}, headers=mine)
    assert (answer.status_code, answer.json()["value"]) == (200, "mine")
    two = [("x-csrf-token", "0" * 64), ("x-csrf-token", mine["x-csrf-token"])]
    assert visitor.request("POST", "/agents/ada/timeline/undo", headers=[*HTML.items(), *two]).status_code == 400


def test_pages_keep_to_host_and_origin(live: Served, visitor: httpx.Client) -> None:
    enter(visitor)
    for headers in ({"host": "evil.example"}, {"origin": "http://evil.example"}, {"origin": "null"}):
        for method, path in (("GET", "/"), ("POST", "/sign-in"), ("POST", "/agents/ada/timeline/undo")):
            answer = visitor.request(method, path, headers=headers | {"x-csrf-token": "x"})
            assert answer.status_code == 403, (headers, path)
            assert answer.headers["content-type"].startswith("text/html")
            assert "<h1>Refused</h1>" in answer.text


def test_who_is_not_signed_in_is_led_there(live: Served, visitor: httpx.Client) -> None:
    answer = visitor.get("/agents/Zo%C3%AB%20%3F/core?edit=b1&x=%22")
    assert answer.status_code == 303
    assert (
        answer.headers["location"] == "/sign-in?next=%2Fagents%2FZo%25C3%25AB%2520%253F%2Fcore%3Fedit%3Db1%26x%3D%2522"
    )
    part = visitor.get("/agents/ada/core", headers={"hx-request": "true"})
    assert (part.status_code, part.headers["hx-retarget"]) == (401, "#notice")
    assert "signed out" in part.text
    for path, headers in (("/agentos/v1/agents", HTML), ("/", {"accept": "*/*"})):
        answer = visitor.get(path, headers=headers)
        assert (answer.status_code, "detail" in answer.json()) == (401, True)
    for cookie in ("x", f"{live.service.sessions.cookie}=", f"{live.service.sessions.cookie}=a.1.b", '"', "a=b;;=;"):
        assert visitor.get("/", headers={"cookie": cookie}).status_code == 303


def test_a_session_ends_and_is_made_longer_by_use(live: Served, visitor: httpx.Client) -> None:
    clock: Any = live.service.runtime.clock
    enter(visitor)
    token = csrf(visitor)
    clock.advance(timedelta(minutes=30))
    assert "set-cookie" not in visitor.get("/").headers
    clock.advance(timedelta(hours=11))
    assert "set-cookie" in visitor.get("/").headers
    clock.advance(timedelta(hours=11))
    assert csrf(visitor) == token, "what an open page holds stays good"
    clock.advance(timedelta(hours=12, seconds=1))
    assert visitor.get("/").status_code == 303
    enter(visitor)
    assert "Max-Age=0" in visitor.post("/sign-out", headers={"x-csrf-token": csrf(visitor)}).headers["set-cookie"]
    assert visitor.get("/").status_code == 303


def test_links_are_good_once_and_for_a_minute(live: Served, visitor: httpx.Client) -> None:
    def link() -> str:
        return str(live.ask("POST", "/agentos/v1/sign-in-links")[1]["path"])

    path = link()
    assert [visitor.get(path).status_code for _ in range(2)] == [303, 401]
    path = link()
    live.service.runtime.clock.advance(timedelta(seconds=61))  # type: ignore[attr-defined]
    assert visitor.get(path).status_code == 401
    many = [link() for _ in range(150)]
    assert visitor.get(many[0]).status_code == 401
    assert visitor.get(many[-1]).status_code == 303
    assert live.ask("POST", "/agentos/v1/sign-in-links", authorization="")[0] == 401


def test_nobody_is_led_elsewhere() -> None:
    for path in ("/", "/agents/a%20b/core?x=1", "/a//b"):
        assert local_path(path) == path
    for path in (
        "", "x", "//evil.example", "https://evil.example", "/\\evil.example", "/\nx", "javascript:x", "http:/x",
        "/\u00e9", "http://[",
    ):  # fmt: skip
        assert local_path(path) == "/", path


def test_each_token_has_its_own_sessions(live: Served) -> None:
    store = live.service.store
    one, other = Sessions("token-one", store, lambda: 1000.0), Sessions("token-two", store, lambda: 1000.0)
    cookie = one.set_cookie(one.begin(), secure=False).partition(";")[0]
    session = live.run(one.read(cookie))
    assert session is not None
    assert one.cookie != other.cookie
    assert live.run(other.read(cookie.replace(one.cookie, other.cookie))) is None
    ahead = Sessions("token-one", store, lambda: 1000.0 + 30 * 24 * 3600)  # a clock that was set right since
    assert live.run(one.read(ahead.set_cookie(ahead.begin(), secure=False).partition(";")[0])) is None
    for moment in (session.began, session.expires):
        assert live.run(one.read(cookie.replace(str(moment), str(moment + 9)))) is None


def test_signing_out_ends_the_session_itself(live: Served, visitor: httpx.Client) -> None:
    enter(visitor)
    copied = {"cookie": f"{live.service.sessions.cookie}={visitor.cookies[live.service.sessions.cookie]}"}
    with closing(httpx.Client(base_url=live.url, headers=HTML | copied, trust_env=False)) as thief:
        assert thief.get("/").status_code == 200
        assert visitor.post("/sign-out", headers={"x-csrf-token": csrf(visitor)}).status_code == 204
        assert thief.get("/").headers["location"].startswith("/sign-in")
        assert thief.get("/agentos/v1/agents", headers={"accept": "*/*"}).status_code == 401
    started_again = Sessions(TOKEN, live.service.store, live.service.runtime.clock.now().timestamp)
    assert live.run(started_again.read(copied["cookie"])) is None
    live.service.runtime.clock.advance(timedelta(days=8))  # type: ignore[attr-defined]
    enter(visitor)
    visitor.post("/sign-out", headers={"x-csrf-token": csrf(visitor)})
    assert len(live.read(lambda tx: tx.homes("session-ended:"))) == 1, "only while a cookie could still be good"


def test_use_keeps_no_session_beyond_a_week(live: Served, visitor: httpx.Client) -> None:
    clock: Any = live.service.runtime.clock
    enter(visitor)
    for _ in range(15):
        clock.advance(timedelta(hours=11))
        assert visitor.get("/").status_code == 200
    clock.advance(timedelta(hours=3, seconds=1))
    assert visitor.get("/").status_code == 303


def test_open_streams_end_with_their_session(live: Served, visitor: httpx.Client) -> None:
    live.service.keep_alive_seconds = 0.05
    try:
        for end in ("sign-out", "expiry"):
            enter(visitor)
            with visitor.stream("GET", "/agentos/v1/agents/ada/events") as events:
                parts = events.iter_text()
                assert "begin" in next(parts)
                assert "still there" in next(parts)
                if end == "expiry":
                    live.service.runtime.clock.advance(timedelta(hours=13))  # type: ignore[attr-defined]
                else:
                    visitor.post("/sign-out", headers={"x-csrf-token": csrf(visitor)})
                assert set("".join(parts).split("\n\n")) <= {": still there", ""}
            assert visitor.get("/agentos/v1/agents/ada/events").status_code == 401
    finally:
        live.service.keep_alive_seconds = 20.0


class Away:
    """A database that does not answer."""

    async def read(self, work: Any) -> Any:
        raise StoreError("the database does not answer")


def test_open_streams_outlast_a_database_that_is_away(live: Served, visitor: httpx.Client) -> None:
    sessions = live.service.sessions
    live.service.keep_alive_seconds = 0.05
    try:
        enter(visitor)
        with visitor.stream("GET", "/agentos/v1/agents/ada/events") as events:
            parts = events.iter_text()
            assert "begin" in next(parts)
            live.service.sessions = Sessions(TOKEN, cast("Any", Away()), live.service.runtime.clock.now().timestamp)
            assert ["still there" in next(parts) for _ in range(3)] == [True] * 3
            assert visitor.get("/").status_code == 503
            live.service.sessions = sessions
            visitor.post("/sign-out", headers={"x-csrf-token": csrf(visitor)})
            assert set("".join(parts).split("\n\n")) <= {": still there", ""}
    finally:
        live.service.keep_alive_seconds, live.service.sessions = 20.0, sessions


def test_every_answer_carries_the_policy(live: Served, visitor: httpx.Client) -> None:
    enter(visitor)
    page = visitor.get("/")
    static = re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text)
    assert len(static) == 5
    for path in ("/", "/nowhere", "/agents/nobody/core", "/sign-in?code=x", "/healthz", "/agentos/v1/agents", *static):
        headers = visitor.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    for path in ("/", "/agentos/v1/agents", "/v1/agents/", "/nowhere"):  # nobody reads them in the browser afterwards
        assert visitor.get(path).headers["cache-control"] == "no-store"
    assert not re.search(r"<style|<script(?! src)| style=| on[a-z]+=|https?://", page.text)
    packed = visitor.get(static[1], headers={"accept-encoding": "gzip"})
    assert (packed.headers["content-encoding"], "immutable" in packed.headers["cache-control"]) == ("gzip", True)
    plain = visitor.get(static[1], headers={"accept-encoding": "identity"})
    assert plain.content == packed.content
    assert visitor.get("/static/..%2fNOTICE").status_code == visitor.get("/static/x.css").status_code == 404


def test_errors_of_pages_are_pages(live: Served, visitor: httpx.Client) -> None:
    enter(visitor)
    for path, status, words in (
        ("/agents/nobody/core", 404, "there is no agent"), ("/agents/ada/core/b99", 404, "has no block"),
        ("/agents/ada/timeline?message=m999999", 404, "no message m999999"),
        ("/nowhere", 404, "no page at this address"), ("/agents/ada/nowhere", 404, "no page at this address"),
        ("/agents/ada/timeline/undo", 405, "another page"),
        ("/agents/ada/timeline?before=x", 422, "before"), ("/?after=nobody", 404, "nobody"),
        ("/agents/ada/timeline?message=x", 422, "message"),
    ):  # fmt: skip
        answer = visitor.get(path)
        assert (answer.status_code, words in answer.text) == (status, True), (path, answer.status_code)
        assert '<p role="alert">' in answer.text
        assert 'href="/"' in answer.text
        assert ('aria-label="Views of the agent"' in answer.text) == path.startswith("/agents/ada/")
    for since in ("0001-01-01T00:00:00%2B14:00", "9999-12-31T23:59:59-14:00"):
        assert visitor.get(f"/agents/ada/timeline?client=x&since={since}").status_code == 200
    other = visitor.get("/agents/ada/nowhere", headers={"host": "evil.example"})
    assert (other.status_code, "Views of the agent" in other.text) == (403, False)
    assert visitor.get("/agentos/v1/nowhere").json() == {"detail": "Not Found"}
    headers = {"x-csrf-token": csrf(visitor), "hx-request": "true"}
    part = visitor.post("/agents/ada/timeline/undo", data={"event": "99"}, headers=headers)
    assert (part.status_code, part.headers["hx-reselect"]) == (400, "#refusal")
    assert "no event 99" in part.text


def test_blocks_as_json(live: Served) -> None:
    live.create("json")
    path = "/agentos/v1/agents/json/blocks"
    [block] = [b for b in live.ask("GET", path)[1] if b["label"] == "human"]
    changed = live.ask("PATCH", f"{path}/human", {"value": "one", "expected": block["version"]})[1]
    assert (changed["value"], changed["id"]) == ("one", block["id"])
    stale = {"value": "two", "expected": block["version"]}
    status, lost, _ = live.ask("PATCH", f"{path}/{block['id']}", stale)
    assert (status, lost["current"]["value"], lost["yours"]) == (409, "one", "two")
    assert "changed while you edited it" in lost["detail"]
    assert live.ask("PATCH", f"{path}/human", {"value": "x" * 5000})[0] == 400
    assert live.ask("PATCH", f"{path}/human", {"read_only": True})[1]["read_only"] is True
    assert live.ask("PATCH", f"{path}/human", {"label": "x"})[0] == 422
    restored = live.ask("POST", f"{path}/human/restore", {"version": block["version"]})[1]
    assert restored["value"] == ""
    stale = {"version": changed["version"], "expected": changed["version"]}
    assert live.ask("POST", f"{path}/human/restore", stale)[0] == 409
    elsewhere = live.ask("GET", "/agentos/v1/agents/ada/blocks")[1][0]["version"]
    assert live.ask("POST", f"{path}/human/restore", {"version": elsewhere})[0] == 404
    events = live.ask("GET", "/agentos/v1/agents/json/history?kind=block&actor=user&label=human")[1]
    assert [e["action"] for e in events] == ["block.edit", "block.change", "block.edit"]
    assert [e["undoable"] for e in events] == [True, False, True]
    assert (
        live.ask("GET", f"/agentos/v1/agents/json/history?before={events[0]['id']}&limit=1")[1][0]["id"]
        == events[1]["id"]
    )


def test_inspect_hands_over_a_link(tmp_path: Path, forks: Forks) -> None:
    home = tmp_path / "home"
    environment = {"AGENTOS_HOME": str(home), "AGENTOS_MODEL": "offline", "AGENTOS_TOKEN": TOKEN}

    def inspect(**more: str) -> Any:
        return forks.run(["inspect", "--no-browser"], "", environment | more, tmp_path)

    asked = inspect()
    assert (asked.returncode, "agentos serve" in asked.stderr) == (2, True)
    with Process(home) as server:
        asked = inspect()
        assert asked.stdout.startswith(f"{server.url}/sign-in?code=")
        assert httpx.get(asked.stdout.strip(), trust_env=False).status_code == 303
        asked = inspect(AGENTOS_TOKEN="another-token")
        assert (asked.returncode, "another token" in asked.stderr) == (2, True)
