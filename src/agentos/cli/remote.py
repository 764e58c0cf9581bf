"""`Talk` with an agent of a server: the same screens over HTTP."""

import asyncio
import json
import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import quote

import httpx

from agentos.cli.chosen import DEFAULT_AGENT, Chosen
from agentos.errors import ConfigError, ProviderError, UsageError
from agentos.events import Event, Retry, TextDelta, TurnEnded, event_from_json
from agentos.server.place import server_address
from agentos.settings import home_token, load_settings
from agentos.state import Decision
from agentos.talk import Scope

Json = dict[str, Any]
_NO_ROUTE = "Not Found"
"""What a web server says of a path that it does not know at all."""
_PAGE = 200
"""Agents asked for at once."""
_ATTEMPTS = 5
_LISTEN_AGAIN_SECONDS = 5.0


@asynccontextmanager
async def open_remote(chosen: Chosen) -> "AsyncIterator[RemoteTalk]":
    """The agent that the options name on their server, made on first use."""
    if chosen.max_steps is not None:
        raise UsageError("--max-steps is the server's to set: start it with AGENTOS_MAX_STEPS")
    url = str(chosen.server).rstrip("/")
    settings = load_settings()
    # this home's own token is for its own server alone
    own = server_address(settings.home) == url.replace("//localhost:", "//127.0.0.1:")
    token = settings.token or (home_token(settings.home) if own else "")
    if not token:
        raise ConfigError("the server's token is needed: set AGENTOS_TOKEN; the server's home holds it in server.token")
    if re.match(r"https?://[^/\s]{2,}", url) is None:
        raise UsageError(f"{url!r} is no URL; --server wants one such as http://127.0.0.1:8283")
    client = httpx.AsyncClient(
        base_url=f"{url}/agentos/v1/",
        headers={"Authorization": f"Bearer {token}"},
        timeout=httpx.Timeout(60, connect=5),
    )
    async with client:
        server = _Server(client, url)
        name = chosen.agent or DEFAULT_AGENT
        if chosen.resume:
            if chosen.agent:
                raise UsageError("--continue takes the agent used last; leave out --agent, or --continue")
            agents = await server.agents()
            used = max(agents, key=lambda a: a["last_used_at"] or a["created_at"], default=None)
            name = used["name"] if used else name
        talk = RemoteTalk(server, await _agent(server, name, chosen))
        talk.listen()
        try:
            yield talk
        finally:
            await talk.close()


async def _agent(server: "_Server", name: str, chosen: Chosen) -> Json:
    """The agent as the server tells of it; made where it is new."""
    try:
        found = await server.get(_path(name))
    except _Missing:
        if chosen.known:
            raise
        new = {"name": name, "persona": chosen.persona or "assistant", "model": chosen.model}
        made: Json = await server.post("agents", new)
        return made
    if chosen.persona not in (None, found["persona"]):
        raise UsageError(f"agent {name!r} exists with persona {found['persona']!r}; choose another --agent")
    if chosen.model not in (None, found["answers"]):
        raise UsageError(
            f"agent {name!r} is answered by {found['answers']}; its server decides that, leave out --model"
        )
    return dict(found)


def _path(agent: str) -> str:
    """Where the server tells of an agent, by name or id."""
    if "/" in agent:
        raise UsageError(f"an agent cannot be named {agent!r}; leave the slash out")
    return f"agents/{quote(agent, safe='')}"


class _Missing(UsageError):
    """What was asked for is not there."""


class _Server:
    """Requests to one server, with its refusals as errors."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self.client, self.url = client, url

    async def get(self, path: str, **query: Any) -> Any:
        """What the server answers to a GET."""
        return await self._request("GET", path, params={k: v for k, v in query.items() if v is not None})

    async def agents(self) -> list[Json]:
        """Every agent of the server, by name."""
        found: list[Json] = []
        while True:
            page = await self.get("agents", limit=_PAGE, after=found[-1]["id"] if found else None)
            found += page
            if len(page) < _PAGE:
                return found

    async def post(self, path: str, body: Json | None = None) -> Any:
        """What the server answers to a POST."""
        return await self._request("POST", path, json=body or {})

    async def _request(self, method: str, path: str, **options: Any) -> Any:
        try:
            response = await self.client.request(method, path, **options)
        except httpx.HTTPError as error:
            raise self.unreachable(error) from None
        self.check(response)
        return response.json()

    @asynccontextmanager
    async def events(self, method: str, path: str, body: Json | None = None) -> AsyncIterator[AsyncIterator[Event]]:
        """The events of a stream. A connection that breaks raises `httpx.HTTPError`."""
        async with self.client.stream(method, path, json=body) as response:
            if response.status_code >= 400:
                await response.aread()
                self.check(response)

            async def read() -> AsyncIterator[Event]:
                async for line in response.aiter_lines():
                    if line.startswith("data: ") and (event := event_from_json(json.loads(line[6:]))) is not None:
                        yield event

            yield read()

    def check(self, response: httpx.Response) -> None:
        """Raise what a refusal says."""
        if response.status_code < 400:
            return
        try:
            detail = str(response.json()["detail"])
        except (ValueError, KeyError, TypeError):
            detail = _NO_ROUTE
        if detail == _NO_ROUTE:
            raise ConfigError(f"{self.url} is no agentos server (status {response.status_code})") from None
        if response.status_code in (401, 403):
            raise ConfigError(f"{self.url} refuses: {detail}")
        raise (_Missing if response.status_code == 404 else UsageError)(detail)

    def unreachable(self, error: httpx.HTTPError) -> ProviderError:
        """What a connection that fails means."""
        return ProviderError(
            f"{self.url} cannot be reached: {error or type(error).__name__}; does the server run there?"
        )


class _Heard:
    """What was heard of the texts of some turns: behind a connection that broke, what comes next may not follow it."""

    def __init__(self) -> None:
        self._texts: dict[str, dict[int, str]] = {}
        """Run -> place of a message -> its text."""
        self._last: dict[str, int] = {}
        """Run -> number of the event that was heard last."""
        self._broken = False
        self._whole: set[str] = set()
        """Runs of which nothing was missed so far."""

    def broke(self) -> None:
        """The connection did: from now on something may be missing."""
        self._broken = True
        self._whole.clear()

    def follows(self, event: Event) -> bool:
        """Note an event; False for a text before which some other is missing, so that it is told at the turn's end."""
        run, last = event.run_id, self._last.get(event.run_id, -1)
        first = last < 0 and not isinstance(event, TurnEnded)  # the end alone says nothing of what came before it
        if not self._broken or (event.seq == last + 1 and (first or last >= 0)):
            self._whole.add(run)
        if run in self._whole:
            self._last[run] = event.seq
        if not isinstance(event, TextDelta):
            return True
        if run in self._whole:
            texts = self._texts.setdefault(run, {})
            texts[event.place] = texts.get(event.place, "")[: event.at] + event.text
        return run in self._whole

    def missing(self, ended: TurnEnded) -> str:
        """What of the turn's reply was not heard."""
        heard = [text for text in self._texts.get(ended.run_id, {}).values() if text.strip()]
        if heard and ended.run_id in self._whole:
            return ""
        reply = ended.result.reply
        known = ("\n\n".join(heard[:count]) for count in range(len(heard), 0, -1))
        return reply.removeprefix(next((text for text in known if reply.startswith(text)), ""))


class RemoteTalk:
    """`Talk` over HTTP."""

    def __init__(self, server: _Server, agent: Json, again_seconds: float = 1.0) -> None:
        self._server = server
        self._again_seconds = again_seconds
        """After how long a connection that broke is made again."""
        self._agent = agent
        self._path = _path(agent["id"])
        self._own_runs: set[str] = set()
        self._others: dict[str, list[Event]] = {}
        """Events of turns that nobody asked for here, by run."""
        self._listening: asyncio.Task[None] | None = None
        self._cancelling: asyncio.Task[Any] | None = None

    @property
    def name(self) -> str:
        """The agent's name."""
        return str(self._agent["name"])

    @property
    def model(self) -> str:
        """The model that answers."""
        return str(self._agent["answers"] or "no model")

    @property
    def place(self) -> str:
        """The server's URL."""
        return self._server.url

    async def send(self, text: str) -> AsyncGenerator[Event, None]:
        """A turn; a connection that breaks is made again, and the turn goes on meanwhile."""
        body, heard = {"text": text, "otid": str(uuid.uuid4())}, _Heard()
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                async with self._server.events("POST", f"{self._path}/turns", body) as events:
                    async for event in events:
                        self._own_runs.add(event.run_id)
                        if not heard.follows(event):
                            continue
                        if isinstance(event, TurnEnded) and (missed := heard.missing(event)):
                            yield TextDelta(missed, run_id=event.run_id)
                        yield event
                    return
            except httpx.HTTPError as error:
                if attempt == _ATTEMPTS:
                    raise self._server.unreachable(error) from None
                heard.broke()
                yield Retry(f"the connection to {self._server.url} broke", attempt, self._again_seconds)
                await asyncio.sleep(self._again_seconds)

    async def approve(self, run_id: str, decisions: Mapping[str, Decision]) -> AsyncGenerator[Event, None]:
        """Decide, and show what comes of it; where the connection breaks, the turn goes on all the same."""
        said = {call_id: {"approve": d.approve, "reason": d.reason} for call_id, d in decisions.items()}
        self._own_runs.add(run_id)
        try:
            body = {"run_id": run_id, "decisions": said}
            async with self._server.events("POST", f"{self._path}/approvals", body) as events:
                async for event in events:
                    yield event
        except httpx.HTTPError as error:
            raise self._server.unreachable(error) from None

    async def approvals(self) -> list[Json]:
        """What waits on the server."""
        return list(await self._server.get(f"{self._path}/approvals"))

    def listen(self) -> None:
        """Begin to gather what this agent does unasked, and no longer what another does; `close` ends it."""
        if self._listening is not None:
            self._listening.cancel()
        self._others = {}
        self._listening = asyncio.create_task(self._listen(self._path, self._others))

    async def _listen(self, path: str, others: dict[str, list[Event]]) -> None:
        while True:
            with suppress(httpx.HTTPError, UsageError, ConfigError, ValueError):
                async with self._server.events("GET", f"{path}/events") as events:
                    async for event in events:
                        others.setdefault(event.run_id, []).append(event)
            await asyncio.sleep(_LISTEN_AGAIN_SECONDS)

    async def close(self) -> None:
        """Let go of the server."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait([self._listening])

    async def news(self, *, unfinished: bool = False) -> AsyncGenerator[Event, None] | None:
        """A turn that ended and that nobody asked for here."""
        for run_id in self._own_runs & self._others.keys():
            del self._others[run_id]
        ended = next((r for r, events in self._others.items() if isinstance(events[-1], TurnEnded)), None)
        return None if ended is None else _replayed(self._others.pop(ended))

    async def compact(self) -> AsyncGenerator[Event, None]:
        """Page out now."""
        try:
            async with self._server.events("POST", f"{self._path}/compact") as events:
                async for event in events:
                    yield event
        except httpx.HTTPError as error:
            raise self._server.unreachable(error) from None

    def cancel(self) -> None:
        """Ask the server to stop the agent's runs."""

        async def ask() -> None:
            with suppress(httpx.HTTPError):
                await self._server.client.post(f"{self._server.url}/v1/{self._path}/messages/cancel")

        self._cancelling = asyncio.create_task(ask())

    async def status(self) -> Json:
        """As the server measures it."""
        return dict(await self._server.get(f"{self._path}/status"))

    async def last_used(self) -> str | None:
        """When the agent last answered, by the server's clock."""
        found = await self._server.get(self._path)
        return None if found["last_used_at"] is None else str(found["last_used_at"])

    async def memory(self, label: str | None = None) -> Json:
        """Core memory, or one block of it."""
        return dict(await self._server.get(f"{self._path}/memory", label=label))

    async def context(self) -> Json:
        """What fills the window."""
        return dict(await self._server.get(f"{self._path}/context"))

    async def search(self, text: str, scope: Scope, limit: int) -> list[Json]:
        """Hybrid search."""
        return list(await self._server.get(f"{self._path}/search", query=text, limit=limit, **{"in": scope}))

    async def undo(self, event_id: int | None = None) -> Json:
        """Take back one memory event."""
        return dict(await self._server.post(f"{self._path}/undo", {"event_id": event_id}))

    async def usage(self) -> Json:
        """Tokens and cost so far."""
        return dict(await self._server.get(f"{self._path}/usage"))

    async def agents(self) -> list[Json]:
        """Every agent of the server."""
        return await self._server.agents()

    async def new_conversation(self) -> None:
        """Empty the queue."""
        await self._server.post(f"{self._path}/new")

    async def use_model(self, name: str) -> None:
        """Refused: it is the server's."""
        raise UsageError("over a server an agent keeps its own model; leave out the name to see it")

    async def switch(self, name: str) -> None:
        """Another agent of the server."""
        self._agent = await self._server.get(_path(name))
        self._path = _path(self._agent["id"])
        self.listen()


async def _replayed(events: list[Event]) -> AsyncGenerator[Event, None]:
    for event in events:
        yield event
