"""Style, script and icon: read once, sent compressed, kept by browsers until they change."""

import gzip
import hashlib
from functools import cache
from importlib import resources

from fastapi import APIRouter, Request, Response

from agentos.errors import NotFound

_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}


@cache
def files() -> dict[str, tuple[bytes, bytes, str]]:
    """File name -> (bytes, the same compressed, media type)."""
    folder = resources.files("agentos.server.inspector") / "static"
    found = {file.name: file.read_bytes() for file in folder.iterdir() if file.name.rpartition(".")[2] in _TYPES}
    return {name: (raw, gzip.compress(raw, mtime=0), _TYPES[name.rpartition(".")[2]]) for name, raw in found.items()}


@cache
def static_url(name: str) -> str:
    """The path of a static file, which changes with what is in it."""
    return f"/static/{name}?v={hashlib.sha256(files()[name][0]).hexdigest()[:8]}"


router = APIRouter(include_in_schema=False)


@router.get("/static/{name}")
async def static(name: str, request: Request) -> Response:
    """One file."""
    if name not in files():
        raise NotFound("there is no such file; reload the page")
    raw, small, kind = files()[name]
    headers = {"cache-control": "public, max-age=31536000, immutable", "vary": "accept-encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(small, headers=headers | {"content-encoding": "gzip"}, media_type=kind)
    return Response(raw, headers=headers, media_type=kind)
