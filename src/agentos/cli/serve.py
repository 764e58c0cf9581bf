"""`agentos serve` and `agentos worker`."""

import sys

from agentos.cli.opening import blocking, open_runtime
from agentos.cli.output import safe


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
