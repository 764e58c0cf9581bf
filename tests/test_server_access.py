"""Who may ask the server, from where, and how much; where a client library would tidy a request up, by raw bytes."""

import json
import os
import socket
import stat
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentos.errors import ConfigError, Stopping, StoreError, UsageError
from agentos.server.access import Access
from agentos.server.place import only_server, server_address, server_token, tell_address
from agentos.server.replies import patient
from agentos.server.serve import listening
from agentos.server.service import Service
from agentos.settings import Settings, load_settings
from agentos.testing import FunctionLLM
from serving import TOKEN, Served, served


@pytest.fixture(scope="module")
def live() -> Iterator[Served]:
    with served(FunctionLLM(lambda request: "Hello")) as live:
        live.service.allow("Agents.Example.", "[2001:DB8::0001]")
        yield live


def message(live: Served) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": "hi"}]}).encode()


def raw(
    live: Served, line: str, *headers: str, body: bytes = b"", host: str | None = "localhost"
) -> tuple[int, Any, str]:
    """(status, JSON value or text, head) of a request in these very bytes; token and `Connection: close` are added."""
    named = [] if host is None else [f"Host: {host}"]
    token = [] if any(h.lower().startswith("authorization") for h in headers) else [f"Authorization: Bearer {TOKEN}"]
    head = [f"{line} HTTP/1.1", *named, *token, "Connection: close", *headers, "", ""]
    answer = live.raw("\r\n".join(head).encode("latin-1") + body)
    top, _, rest = answer.partition(b"\r\n\r\n")
    text = rest.decode()
    status = int(top.split()[1])
    return status, json.loads(text) if b"application/json" in top and text else text, top.decode().lower()


def test_every_request_needs_the_token(live: Served) -> None:
    for given in ("", "Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN,
                  "Bearer t\xf6ken"):  # fmt: skip
        for path in ("/v1/agents/", "/v1/models", "/metrics", "/openapi.json", "/agentos/v1/usage", "/nowhere", "/"):
            status, value, head = raw(live, f"GET {path}", f"Authorization: {given}")
            assert (status, next(iter(value))) == (401, "detail"), (given, path)
            assert "www-authenticate: bearer" in head
            assert "server.token, and `agentos token create` makes one for /mcp" in value["detail"]
            assert TOKEN not in json.dumps(value)
    assert live.ask("GET", "/metrics", authorization=f"bearer  {TOKEN}")[0] == 200
    for path in ("/healthz", "/readyz", "/healthz/"):
        status, _, headers = live.ask("GET", path, authorization="")
        assert (status, headers["x-request-id"][:4]) == (200, "req-")
    two = (f"Authorization: Bearer {TOKEN}", "Authorization: Bearer other")
    assert raw(live, "GET /v1/health", *two)[0] == 400


def test_the_server_answers_to_its_names_only(live: Served) -> None:
    for host in ("localhost", "LOCALHOST:8283", "localhost.", "127.0.0.1", f"127.0.0.1:{live.port}", "[::1]",
                 "[::1]:80", "[0:0:0:0:0:0:0:1]", "agents.example", "AGENTS.example.:443",
                 "[2001:db8::1]:8283"):  # fmt: skip
        assert raw(live, "GET /v1/health", host=host)[0] == 200, host
    for host in ("evil.example", "localhost.evil.example", "evil.example:8283", "localhost@evil.example",
                 "evil@localhost", "localhost/evil", "localhost:evil", "localhost:80:80", "127.0.0.2", "0.0.0.0",
                 "localhost..", "[::2]", "::1", "[::1", "[fe80::1%25lo]", "", "\xfc.example", "localhost#", "[]",
                 "local\thost", "localhost,evil"):  # fmt: skip
        for path in ("/v1/health", "/nowhere"):
            status, value, _ = raw(live, f"GET {path}", host=host)
            assert status in (400, 403), host
            assert "--allow-host" in str(value) or status == 400, host
    for path in ("/healthz", "/readyz"):  # a balancer calls it by any address
        assert raw(live, f"GET {path}", host="10.1.2.3:8283")[0] == 200
    assert raw(live, "GET /v1/health", host=None)[0] == 400
    assert raw(live, "GET /v1/health", "Host: evil.example")[0] == 400
    for name in ("", "two words", "http://agents.example", "[x]"):
        with pytest.raises(UsageError, match="no name of a host"):
            live.service.allow(name)


def test_pages_of_other_servers_are_refused(live: Served) -> None:
    own = f"http://localhost:{live.port}"
    here = f"localhost:{live.port}"
    for origin, host in ((own, here), (own.upper().replace("HTTP", "http"), here), ("http://localhost", "localhost"),
                         ("http://localhost", "localhost:80"), ("https://agents.example", "agents.example:443"),
                         ("https://agents.example", "agents.example")):  # fmt: skip
        status, _, head = raw(live, "GET /v1/health", f"Origin: {origin}", host=host)
        assert status == 200, origin
        assert "access-control" not in head
    for origin in ("null", "", "http://evil.example", "http://localhost", "http://localhost:1", f"ftp://{here}", here,
                   f"http://{here}.evil.example", f"http://evil@{here}", "http://[", "http://localhost:99999", "file://",
                   f"http://127.0.0.1:{live.port}"):  # fmt: skip
        status, value, head = raw(live, "POST /v1/agents", f"Origin: {origin}", "Content-Length: 0", host=here)
        assert status == 403, origin
        assert "only this server's own" in value["detail"]
        assert "access-control" not in head
    assert raw(live, "GET /v1/health", f"Origin: {own}", "Origin: http://evil.example", host=here)[0] == 400
    preflight = raw(live, "OPTIONS /v1/agents", "Origin: http://evil.example", "Access-Control-Request-Method: POST")
    assert preflight[0] == 403
    assert "access-control" not in preflight[2]


def test_a_request_is_bounded(live: Served) -> None:
    agent = live.create("bounded")
    path, kind = f"POST /v1/agents/{agent}/messages", "Content-Type: application/json"
    live.service.max_body_bytes = 1000
    try:
        status, value, head = raw(live, path, kind, "Content-Length: 1001", body=b"{")
        assert (status, "1000 bytes" in value["detail"]) == (413, True)
        assert "connection: close" in head
        chunk = b"%x\r\n%b\r\n" % (600, b" " * 600)
        status, value, _ = raw(live, path, kind, "Transfer-Encoding: chunked", body=chunk * 2 + b"0\r\n\r\n")
        assert (status, "1000 bytes" in value["detail"]) == (413, True)
        status, value, _ = raw(live, path.replace(agent, "x"), kind, "Content-Length: 99999999999999999999999")
        assert status in (400, 413)
        body = message(live)
        parts = [b"%x\r\n%b\r\n" % (len(body), body), b"0\r\n\r\n"]
        assert raw(live, path, kind, "Transfer-Encoding: chunked", body=b"".join(parts))[0] == 200
    finally:
        live.service.max_body_bytes = Service.max_body_bytes
    said = ("/messages", "/messages/stream", "/messages/async")
    for where in (*(f"/v1/agents/{agent}{part}" for part in said), "/v1/chat/completions", "/v1/agents",
                  f"/agentos/v1/agents/{agent}/turns", f"/v1/agents/{agent}/archival-memory/search"):  # fmt: skip
        status, value, _ = raw(live, f"POST {where}", kind, "Content-Length: 1048577")
        assert (status, "1048576 bytes" in value["detail"]) == (413, True), where
    large = json.dumps({"text": "x"}).encode() + b" " * 2_000_000
    for where, wanted in ((f"/v1/agents/{agent}/archival-memory", 200), ("/v1/agents/import", 422)):
        status, _, _ = raw(live, f"POST {where}", kind, f"Content-Length: {len(large)}", body=large)
        assert status == wanted, where
    for length in ("x", "-1", "1.5", "+1", "1 1", "", "\xb2"):
        assert raw(live, path, kind, f"Content-Length: {length}")[0] == 400, length
    assert raw(live, path, kind, "Content-Length: 2", "Content-Length: 3", body=b"{}")[0] == 400
    both = ("Content-Length: 5", "Transfer-Encoding: chunked")
    assert raw(live, path, kind, *both, body=b"0\r\n\r\n")[0] == 400
    assert live.raw(b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 70_000).startswith(b"HTTP/1.1 400")
    assert live.read(lambda tx: len(tx.runs(agent))) == 1


def test_a_body_that_does_not_come_is_not_waited_for(live: Served) -> None:
    agent = live.create("waiting")
    live.service.body_seconds = 0.1
    try:
        for more in (("Content-Length: 50",), ("Transfer-Encoding: chunked",)):
            status, value, head = raw(live, f"POST /v1/agents/{agent}/messages", *more, body=b"")
            assert (status, "in time" in value["detail"]) == (408, True)
            assert "connection: close" in head
    finally:
        live.service.body_seconds = 30.0
    with socket.create_connection(("127.0.0.1", live.port), timeout=5) as sock:  # one that breaks off in mid-body
        head = f"POST /v1/agents/{agent}/messages HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        sock.sendall(head.encode() + b"Content-Length: 50\r\n\r\n{")
    assert live.ask("GET", "/v1/health")[0] == 200
    assert live.read(lambda tx: tx.runs(agent)) == []


def test_a_head_that_does_not_come_is_not_waited_for(live: Served) -> None:
    whole = f"GET /v1/health HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()

    def answered(sock: socket.socket) -> bool:
        sock.sendall(whole)
        text = b""
        while not text.endswith(b"}"):
            text += sock.recv(65536)
        return text.startswith(b"HTTP/1.1 200")

    live.service.head_seconds = 0.1
    try:
        for before, part in ((0, b""), (0, whole[:20]), (1, whole[:20])):
            with socket.create_connection(("127.0.0.1", live.port), timeout=5) as sock:
                assert all(answered(sock) for _ in range(before))
                sock.sendall(part)
                assert sock.recv(65536) == b"", (before, part)
        with socket.create_connection(("127.0.0.1", live.port), timeout=5) as sock:
            assert answered(sock)
            time.sleep(0.15)  # one that only pauses between requests keeps its connection
            assert answered(sock)
    finally:
        live.service.head_seconds = Service.head_seconds


def test_ids_are_never_paths(live: Served) -> None:
    agent = live.create("plain-name")
    odd = ("..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "%2Fetc%2Fpasswd", "%00", f"{agent}%00",
           f"{agent}%2Fmessages%2F..", "a%5c..%5cb", "%ff", "%ed%a0%80", "~", "server.token", "%25",
           "'%3B--", "x" * 5000)  # fmt: skip
    for ident in odd:
        for path in (f"/v1/agents/{ident}", f"/v1/runs/{ident}", f"/v1/models/{ident}", f"/agentos/v1/{ident}"):
            status, value, _ = raw(live, f"GET {path}")
            assert status in (404, 405, 501), (path, status)
            assert "detail" in value
    for target in ("/v1/agents/../../healthz", "//evil.example/v1/agents", "http://evil.example/v1/health"):
        assert raw(live, f"GET {target}")[0] in (400, 404, 405), target


def test_forms_of_a_path_and_methods(live: Served) -> None:
    agent = live.create("forms")
    for path in (f"/v1/agents/{agent}", "/v1/health", "/metrics", "/openai/v1/models", "/agentos/v1/usage"):
        for form in (path, f"{path}/"):
            assert live.ask("GET", form)[0] == 200, form
    assert live.ask("GET", "/v1/models")[1]["object"] == "list"
    for path in ("/nowhere", "/v2/agents", "//", "/v1//agents", "/openai/v1/nowhere"):
        status, value, _ = live.ask("GET", path)
        assert (status, "detail" in value) == (404, True), path
    for method, path in (("DELETE", "/v1/health"), ("PUT", f"/v1/agents/{agent}"), ("GET", "/v1/chat/completions"),
                         ("OPTIONS", "/v1/health"), ("TRACE", "/v1/health"), ("POST", "/metrics")):  # fmt: skip
        status, value, headers = live.ask(method, path)
        assert (status, "detail" in value) == (405, True), (method, path)
        assert headers["allow"]
    allowed = {"/v1/agents/x": "GET, PATCH, DELETE", "/v1/agents": "GET, POST", "/agentos/v1/agents": "GET, POST"}
    for path, methods in allowed.items():  # those of all routes of a path
        assert live.ask("PUT", path)[2]["allow"] == methods
    assert live.raw(b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400")
    for path, code in (("/healthz", 200), ("/readyz", 200), ("/v1/health", 405)):
        assert live.ask("HEAD", path)[:2] == (code, ""), path


def test_no_websocket(live: Served) -> None:
    answer = raw(live, "GET /v1/health", "Upgrade: websocket", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13")
    assert answer[0] == 200  # an ordinary request


def test_while_it_stops_nothing_is_taken_in(live: Served) -> None:
    agent = live.create("stopping")
    live.service.ready = False
    try:
        for method, path in (("POST", f"/v1/agents/{agent}/messages"), ("POST", "/v1/agents/"),
                             ("POST", "/openai/v1/chat/completions"), ("DELETE", f"/v1/agents/{agent}"),
                             ("PATCH", f"/v1/agents/{agent}")):  # fmt: skip
            status, value, headers = live.ask(method, path, {})
            assert (status, headers["retry-after"]) == (503, "5"), path
            assert "the server stops" in value["detail"]
        assert live.ask("POST", "/v1/agents/", {}, authorization="Bearer wrong-token")[0] == 401
        assert live.ask("GET", "/readyz")[:2] == (503, {"detail": "stopping"})
        assert live.ask("GET", "/healthz")[0] == live.ask("GET", f"/v1/agents/{agent}")[0] == 200
    finally:
        live.service.ready = True
    assert live.ask("GET", "/readyz")[0] == 200


async def test_an_answer_that_has_begun_is_cut_off_when_the_server_stops(live: Served) -> None:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b" ", "more_body": True})
        raise RuntimeError("the response has started") from Stopping()

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {TOKEN}".encode())]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
    await Access(app, live.service)(scope, receive, send)
    assert sent[-1]["more_body"]


async def test_the_start_and_the_end_of_the_server_reach_the_application(live: Served) -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    await Access(app, live.service)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan"]


async def test_an_answer_that_is_there_at_once_leaves_nothing_open() -> None:
    closed = False

    async def parts() -> AsyncGenerator[bytes, None]:
        nonlocal closed
        try:
            yield b"{}"
        finally:
            closed = True

    assert (await patient(parts())).body == b"{}"
    assert closed


def test_a_request_takes_no_thread(live: Served) -> None:
    assert live.ask("GET", "/readyz")[0] == 200
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("AnyIO")]


# the token and the lock of a home


def test_the_token_is_made_once_and_nobody_else_can_read_it(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    before = os.umask(0)  # which would make anything readable
    try:
        left = tmp_path / "server.new"  # by one that was killed
        left.write_text("x")
        token, fresh = server_token(settings)
    finally:
        os.umask(before)
    path = tmp_path / "server.token"
    assert (fresh, path.read_text()) == (True, f"{token}\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(token) >= 32
    assert not left.exists()
    assert server_token(settings) == (token, False)
    path.chmod(0o644)
    assert server_token(settings) == (token, False)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text(" \n")
    assert server_token(settings)[1]


def test_a_token_that_cannot_serve_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "server.token"
    for content in (b"short", b"\xff\xfe\x00" * 9, b"two words here", "töken-mit-umlaut".encode(), b"line\nline-line"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"server\.token cannot be used"):
            server_token(Settings(home=tmp_path))
        assert path.read_bytes() == content
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match="remove it"):
        server_token(Settings(home=tmp_path))
    for token in ("", "short", " " * 20, "nöt-ascii-at-all"):
        with pytest.raises(ConfigError, match="AGENTOS_TOKEN or --token"):
            server_token(Settings(home=tmp_path, token=token))
    given = load_settings({"AGENTOS_HOME": str(tmp_path), "AGENTOS_TOKEN": "from-the-environment"})
    assert server_token(given) == ("from-the-environment", False)
    assert server_token(load_settings({}, token="from-a-flag", home=tmp_path)) == ("from-a-flag", False)


def test_a_home_has_one_server(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert server_address(home) is None
    assert not home.exists()
    with only_server(home):
        assert server_address(home) == "an address it has not told yet"
        tell_address(home, "http://127.0.0.1:1")
        assert server_address(home) == "http://127.0.0.1:1"
        with pytest.raises(UsageError, match=r"runs at http://127\.0\.0\.1:1; use that one"), only_server(home):
            pass
        (home / "server.json").write_text("{")
        assert server_address(home) == "an address it has not told yet"
    assert server_address(home) is None
    tell_address(home, "http://127.0.0.1:2")  # by one that was killed
    assert server_address(home) is None
    with only_server(home):
        assert server_address(home) == "an address it has not told yet"
    with pytest.raises(StoreError, match="cannot be written"), only_server(Path("/proc/nothing")):
        pass


def test_an_address_that_cannot_be_had_is_one_sentence() -> None:
    with listening("127.0.0.1", 0) as sock:
        for host, port in (("127.0.0.1", sock.getsockname()[1]), ("no.such.host.invalid", 0), ("203.0.113.7", 0),
                           ("x" * 300, 0), ("127.0.0.1", 70_000)):  # fmt: skip
            with pytest.raises(UsageError, match="choose another --host or --port"):
                listening(host, port)
