"""The token, once, for a session; a link in its place; and out again."""

import asyncio
import hmac
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from agentos.server.inspector.render import page, see
from agentos.server.inspector.sessions import Session, local_path
from agentos.server.replies import answer
from agentos.server.service import Service, Serving

router = APIRouter(include_in_schema=False)
links = APIRouter(prefix="/agentos/v1", tags=["agentos"])
_checks = asyncio.Lock()
"""Tokens are checked one at a time, so that guessing is slow however many guess."""


@router.get("/sign-in")
async def form(request: Request, serving: Serving, next: str = "/", code: str | None = None) -> Response:
    """The form; with the code of a link there is nothing to fill in."""
    if code is not None:
        if serving.sessions.redeem(code):
            return _signed_in(request, serving, next)
        said = (
            "this link has been used, or is older than a minute; run agentos inspect again, or sign in with the token"
        )
        return page(request, "sign_in.html", 401, next=local_path(next), error=said)
    if request.scope.get("agentos.session") is not None:
        return see(local_path(next))
    return page(request, "sign_in.html", next=local_path(next), error=None)


@router.post("/sign-in")
async def sign_in(
    request: Request, serving: Serving, token: Annotated[str, Form()] = "", next: Annotated[str, Form()] = "/"
) -> Response:
    """A session for whoever has the token."""
    async with _checks:
        if not hmac.compare_digest(token.strip().encode("utf-8", "replace"), serving.token.encode()):
            await asyncio.sleep(serving.wrong_token_seconds)
            said = "that is not this server's token; its home holds it in the file server.token"
            return page(request, "sign_in.html", 401, next=local_path(next), error=said)
    return _signed_in(request, serving, next)


@router.post("/sign-out")
async def sign_out(request: Request, serving: Serving) -> Response:
    """The session ends, also for whoever copied its cookie; and the browser forgets it."""
    session: Session | None = request.scope.get("agentos.session")
    if session is not None:  # a token's own request has none
        await serving.sessions.end(session)
    response = Response(status_code=204, headers={"hx-redirect": "/sign-in"})
    return _with_cookie(request, serving, response, None)


@links.post("/sign-in-links")
async def make_link(serving: Serving) -> Response:
    """A path that signs one browser in to the Inspector, once, within a minute."""
    return answer({"path": f"/sign-in?code={serving.sessions.link()}"})


def _signed_in(request: Request, serving: Service, path: str) -> Response:
    return _with_cookie(request, serving, see(local_path(path)), serving.sessions.begin())


def _with_cookie(request: Request, serving: Service, response: Response, session: Session | None) -> Response:
    secure = request.scope["scheme"] == "https"
    response.headers["set-cookie"] = serving.sessions.set_cookie(session, secure=secure)
    return response
