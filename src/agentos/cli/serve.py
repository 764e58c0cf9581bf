"""`agentos serve`, `agentos inspect` and `agentos worker`."""

import sys
import webbrowser

import httpx

from agentos.cli.opening import blocking, open_runtime
from agentos.cli.output import safe, show
from agentos.errors import UsageError
from agentos.settings import load_settings

_ANSWER_SECONDS = 10


@blocking
async def serve(host: str, port: int, token: str | None, allowed_hosts: list[str], turns: int) -> None:
    """Serve the home until the process is told to stop. Where it is goes to stdout, the log to stderr."""
    from agentos.server import serve as server
    from agentos.server.logs import log_to
    from agentos.server.spans import send_spans

    def ready(url: str, new_token: str | None) -> None:
        sys.stdout.write(f"agentos serves {safe(runtime.home)} at {url}\n")
        if new_token:
            sys.stdout.write(f"its token, made now and kept in {safe(runtime.home / 'server.token')}: {new_token}\n")
        sys.stdout.flush()

    async with open_runtime(token=token) as runtime:
        log_to()
        with send_spans():
            await server.serve(runtime, host, port, allowed_hosts=tuple(allowed_hosts), turns=turns, ready=ready)


def inspect(no_browser: bool) -> None:
    """Open the running server's pages in a browser, signed in by a link that works once; or print that link."""
    from agentos.server.place import server_address, server_token

    settings = load_settings()
    address = server_address(settings.home)
    if address is None:
        raise UsageError(f"no server runs on {settings.home}; start one with `agentos serve`, then do this again")
    url = address + _sign_in_link(address, server_token(settings)[0])
    if no_browser or not webbrowser.open(url):
        sys.stdout.write(f"{url}\n")  # in one line, however narrow the terminal is
        return
    show(f"opened {address} in your browser")


def _sign_in_link(address: str, token: str) -> str:
    try:
        answer = httpx.post(
            f"{address}/agentos/v1/sign-in-links", headers={"Authorization": f"Bearer {token}"}, trust_env=False,
            timeout=_ANSWER_SECONDS,
        )  # fmt: skip
    except (httpx.HTTPError, httpx.InvalidURL):
        raise UsageError(f"the server at {address} does not answer; see its log, or start it anew") from None
    if answer.status_code != 200:
        raise UsageError(f"the server at {address} refused: it has another token; give it as AGENTOS_TOKEN")
    return str(answer.json()["path"])


@blocking
async def worker(turns: int) -> None:
    """Run turns of a shared database until the process is told to stop."""
    from agentos.scale.processes import work
    from agentos.server.logs import log_to
    from agentos.server.spans import send_spans

    def ready() -> None:
        sys.stdout.write("agentos works\n")
        sys.stdout.flush()

    async with open_runtime() as runtime:
        log_to()
        with send_spans():
            await work(runtime, turns, ready)
