"""`agentos serve`."""

from agentos.cli.opening import blocking, open_runtime
from agentos.cli.output import complain


@blocking
async def serve(host: str, port: int, token: str | None, allowed_hosts: list[str]) -> None:
    """Serve the home until the process is told to stop."""
    from agentos.server import serve as server

    def ready(url: str, new_token: str | None) -> None:
        complain(f"agentos serves {runtime.home} at {url}")
        if new_token:
            complain(f"its token, made now and kept in {runtime.home / 'server.token'}: {new_token}")

    async with open_runtime(token=token) as runtime:
        await server.serve(runtime, host, port, allowed_hosts=tuple(allowed_hosts), ready=ready)
