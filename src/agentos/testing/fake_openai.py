"""A small OpenAI-compatible server for tests and benchmarks: standard library only, loopback only.

    with FakeOpenAI(in_order(FakeReply(status=500), FakeReply(text="hello"))) as server:
        ...  # talk to server.url; server.requests holds the bodies it got

`python -m agentos.testing.fake_openai --port 0` serves `chain_policy` and prints its URL on the first line.
"""

import argparse
import asyncio
import itertools
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

Body = dict[str, Any]
MODEL = "fake-model"


@dataclass(frozen=True)
class FakeReply:
    """What the server answers; the default is an empty reply that ends normally."""

    text: str = ""
    calls: Sequence[Body | list[Body]] = ()
    """`tool_calls` entries, sent as they are (see `call`); a list inside is one call in several deltas."""
    reasoning: str = ""
    finish_reason: str | None = None
    """None: `tool_calls` with calls, else `stop`; an empty string leaves the finishing chunk out."""
    usage: Mapping[str, Any] | None = None
    """None: estimated, with a simulated prompt cache; an empty mapping reports none."""
    chunk_chars: int = 0
    """Length of a text piece when streamed; 0 sends each text whole."""
    events: Sequence[Mapping[str, Any] | str] | None = None
    """Streamed events instead of those made from the fields above; a string is sent as it is."""
    drop_after: int | None = None
    """The connection is closed after this many events."""
    hang_seconds: float = 0.0
    """Waits this long before the answer."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None
    """The raw body instead of a completion; with an error status None makes OpenAI's error object."""


Handler = Callable[[Body], FakeReply]


def call(name: str, arguments: Mapping[str, Any] | str, id: str | None = "call_1", index: int | None = 0) -> Body:
    """One complete `tool_calls` entry; arguments given as text are sent as they are, None leaves a field out."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    entry: Body = {"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": text}}
    return {key: value for key, value in entry.items() if value is not None}


def in_order(*replies: FakeReply) -> Handler:
    """A handler that gives these replies one after another, then the last one again and again."""
    queue = itertools.chain(replies[:-1], itertools.repeat(replies[-1]))
    return lambda body: next(queue)


def chain_policy() -> Handler:
    """Answers "ok"; a user message with `chain N` gets N memory calls, one a request, and then a text."""
    numbers = itertools.count(1)

    def handler(body: Body) -> FakeReply:
        wanted, done = _chain(body["messages"])
        if done < wanted:
            return FakeReply(calls=[_memory_call(next(numbers), body)])
        return FakeReply(text=f"done after {done} calls" if wanted else "ok")

    return handler


def _chain(messages: list[Body]) -> tuple[int, int]:
    """How many calls the last user message asks for, and how many results came since."""
    done = 0
    for message in reversed(messages):
        done += message["role"] == "tool"
        if message["role"] == "user" and "[system notice]" not in str(message["content"]):
            match = re.search(r"\bchain (\d+)", str(message["content"]))
            return (int(match[1]) if match else 0), done
    return 0, done


def _memory_call(number: int, body: Body) -> Body:
    """The next call: archival inserts and core appends in turn, as far as the request offers them."""
    offered = {tool["function"]["name"] for tool in body.get("tools", ())}
    arguments: Body = {"content": f"fact {number}", "request_heartbeat": True}
    if number % 2 == 0 and "core_memory_append" in offered:
        return call("core_memory_append", {"label": "human", **arguments}, id=f"call_{number}")
    return call("archival_memory_insert", arguments, id=f"call_{number}")


class PromptCache:
    """A provider's prompt cache: what a request shares with the one before it, a quarter of a token a character."""

    def __init__(self) -> None:
        self._last: dict[str, list[str]] = {}

    def usage(self, body: Body, reply: FakeReply) -> Body:
        """The usage object for this request and reply."""
        parts = [json.dumps(part) for part in (body.get("tools", []), *body["messages"])]
        key = f"{body.get('prompt_cache_key', '')} {body.get('model')}"
        shared = _shared_chars(self._last.get(key, []), parts)
        self._last[key] = parts
        prompt, completion = sum(map(len, parts)) // 4, len(reply.text + reply.reasoning + json.dumps(reply.calls)) // 4
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": shared // 4},
        }


def _shared_chars(old: list[str], new: list[str]) -> int:
    shared = 0
    for before, after in zip(old, new, strict=False):
        if before != after:
            pairs = enumerate(zip(before, after, strict=False))
            return shared + next((at for at, (a, b) in pairs if a != b), min(len(before), len(after)))
        shared += len(after)
    return shared


def _pieces(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)] if size else [text] if text else []


def _finish(reply: FakeReply) -> str | None:
    if reply.finish_reason is None:
        return "tool_calls" if reply.calls else "stop"
    return reply.finish_reason or None


def _deltas(reply: FakeReply) -> Iterator[Body]:
    yield {"role": "assistant", "content": ""}
    yield from ({"reasoning_content": piece} for piece in _pieces(reply.reasoning, reply.chunk_chars))
    yield from ({"content": piece} for piece in _pieces(reply.text, reply.chunk_chars))
    for entry in reply.calls:
        yield from ({"tool_calls": [piece]} for piece in (entry if isinstance(entry, list) else [entry]))


def _events(reply: FakeReply, head: Body, usage: Mapping[str, Any]) -> list[str]:
    """The server-sent events of a streamed reply."""
    if reply.events is not None:
        return [
            event if isinstance(event, str) else f"data: {json.dumps({**head, **event})}\n\n" for event in reply.events
        ]
    chunks: list[Body] = [{"choices": [{"index": 0, "delta": d, "finish_reason": None}]} for d in _deltas(reply)]
    if finish := _finish(reply):
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    if usage:
        chunks.append({"choices": [], "usage": usage})
    return [*(f"data: {json.dumps(head | chunk)}\n\n" for chunk in chunks), "data: [DONE]\n\n"]


def _completion(reply: FakeReply, head: Body, usage: Mapping[str, Any]) -> Body:
    """The object of a reply that is not streamed."""
    message: Body = {"role": "assistant", "content": reply.text or None}
    if reply.reasoning:
        message["reasoning_content"] = reply.reasoning
    if reply.calls:
        message["tool_calls"] = list(reply.calls)
    choice = {"index": 0, "message": message, "finish_reason": _finish(reply)}
    return head | {"object": "chat.completion", "choices": [choice]} | ({"usage": usage} if usage else {})


def _error(status: int) -> str:
    return json.dumps({"error": {"message": f"fake error {status}", "type": "fake", "code": status}})


class FakeOpenAI:
    """The server, in a thread of its own while the context (`with` or `async with`) is open.

    `handler` gets each chat request's body and returns its `FakeReply`; `pages` are JSON values served
    to GET by path, such as `{"/api/tags": {...}}`.
    """

    def __init__(
        self,
        handler: Handler | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        pages: Mapping[str, Any] | None = None,
    ) -> None:
        self.requests: list[Body] = []
        """The bodies of the chat requests so far, oldest first."""
        self.root = ""
        """Where the server listens, such as `http://127.0.0.1:40123`."""
        self._handler = handler or chain_policy()
        self._address = (host, port)
        self._pages = {"/v1/models": {"object": "list", "data": [{"id": MODEL, "object": "model"}]}, **(pages or {})}
        self._cache = PromptCache()
        self._numbers = itertools.count(1)
        self._ready = threading.Event()
        self._failure: OSError | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self.serve()), daemon=True)

    @property
    def url(self) -> str:
        """The API base for clients."""
        return f"{self.root}/v1"

    def __enter__(self) -> "FakeOpenAI":
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def __aenter__(self) -> "FakeOpenAI":
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, tb)

    async def serve(self, announce: Callable[[str], object] = lambda url: None) -> None:
        """Serve on the running loop until cancelled; `announce` gets the URL once it listens."""
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            server = await asyncio.start_server(self._connection, *self._address, limit=1 << 24)
        except OSError as failure:
            self._failure = failure
            self._ready.set()
            return
        self.root = "http://{}:{}".format(*server.sockets[0].getsockname()[:2])
        self._ready.set()
        announce(self.url)
        await self._stop.wait()
        server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # asyncio sets TCP_NODELAY itself
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._answer(await _read(reader), writer):
                await writer.drain()
        writer.close()

    async def _answer(self, request: "_Request", writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False when the connection is to be closed."""
        if request.method == "GET":
            page = self._pages.get(request.path)
            _write(writer, 404 if page is None else 200, _error(404) if page is None else json.dumps(page))
            return True
        self.requests.append(request.body)
        reply = self._handler(request.body)
        await asyncio.sleep(reply.hang_seconds)
        if reply.status != 200 or reply.body is not None:
            body = _error(reply.status) if reply.body is None else reply.body
            _write(writer, reply.status, body, reply.headers)
            return True
        return self._complete(request.body, reply, writer)

    def _complete(self, body: Body, reply: FakeReply, writer: asyncio.StreamWriter) -> bool:
        head: Body = {"id": f"chatcmpl-{next(self._numbers)}", "object": "chat.completion.chunk", "created": 1}
        head["model"] = body.get("model")
        usage = self._cache.usage(body, reply) if reply.usage is None else reply.usage
        if not body.get("stream"):
            _write(writer, 200, json.dumps(_completion(reply, head, usage)), reply.headers)
            return True
        events = _events(reply, head, usage)
        _write_stream(writer, events[: reply.drop_after], complete=reply.drop_after is None, headers=reply.headers)
        return reply.drop_after is None


@dataclass(frozen=True)
class _Request:
    method: str
    path: str
    body: Body


async def _read(reader: asyncio.StreamReader) -> _Request:
    """The next request of the connection; raises IncompleteReadError at its end."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    method, path, _ = head.split(" ", 2)
    length = re.search(r"(?im)^content-length: *(\d+)", head)
    body = await reader.readexactly(int(length[1])) if length else b""
    return _Request(method, path.partition("?")[0], json.loads(body or b"{}"))


def _write(writer: asyncio.StreamWriter, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
    body = text.encode()
    fields = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    writer.write(_head(status, fields) + body)


def _write_stream(
    writer: asyncio.StreamWriter, events: Sequence[str], *, complete: bool, headers: Mapping[str, str]
) -> None:
    parts = [_head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked", **headers})]
    for event in events:
        data = event.encode()
        parts.append(b"%x\r\n%b\r\n" % (len(data), data))
    writer.write(b"".join([*parts, b"0\r\n\r\n" if complete else b""]))


def _head(status: int, fields: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Fake", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def _announce(url: str) -> None:
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve `chain_policy` until interrupted; the URL is the first line of the output."""
    parser = argparse.ArgumentParser(description="A fake OpenAI-compatible server on the loopback interface.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    server = FakeOpenAI(port=parser.parse_args(arguments).port)
    with suppress(KeyboardInterrupt):
        asyncio.run(server.serve(_announce))


if __name__ == "__main__":
    main()
