"""Pages of a real server in a real browser: one of each for a module, a window of its own for each test."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from agentos.testing import FixedClock, FunctionLLM, call, say
from serving import Served, served

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}
HEAVIEST_BYTES = 200_000
HOSTILE = (
    "<script>pwned=1</script> <img src=x onerror=pwned=1> [x](javascript:pwned=1) **b** {{7*7}} "
    "\x1b[31mred\x1b[0m \u202e"
)
"""What nothing may execute, and what must be seen as it is."""
_BACKGROUND = "getComputedStyle(document.documentElement).backgroundColor"
_WATCH = """
window.broken = [];
document.addEventListener("securitypolicyviolation", (e) => broken.push(e.violatedDirective + " " + e.blockedURI));
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium. Where there is none the tests are skipped, but not where they are asked for."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        asked = os.environ.get("CI") or os.environ.get("AGENTOS_REQUIRE_BROWSER")
        (pytest.fail if asked else pytest.skip)("there is no chromium; install it to test the pages")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def remembering(request: Any) -> Any:
    """A model that notes in `human` what follows `note `, and stores what follows `store `."""
    last = request.messages[-1]
    words = str(last["content"]).partition("] ")[2] if last["role"] == "user" else ""
    if words.startswith("note "):
        notes = words.removeprefix("note ").split(" and note ")
        return say("", *(call("core_memory_append", label="human", content=note) for note in notes))
    if words.startswith("store "):
        return say("", call("archival_memory_insert", content=words.removeprefix("store ")))
    return "Noted."


@pytest.fixture(scope="module")
def live() -> Iterator[Served]:
    """A server whose agents do as they are told (`remembering`), and whose clock stands."""
    with served(FunctionLLM(remembering), clock=FixedClock(datetime.now().astimezone())) as live:
        live.service.wrong_token_seconds = 0.0
        yield live


@pytest.fixture
def window(browser: Any, live: Served) -> Iterator[Callable[..., Any]]:
    """Opens windows that are signed in; at the end no script may have failed, and no policy been broken."""
    with windows(browser, live) as open_window:
        yield open_window


@contextmanager
def windows(browser: Any, live: Served) -> Iterator[Callable[..., Any]]:
    contexts, errors = [], []

    def open_window(*, signed_in: bool = True, **options: Any) -> Any:
        chosen = {"base_url": live.url, "viewport": DESK, "reduced_motion": "reduce"} | options
        context = browser.new_context(**chosen)
        context.add_init_script(_WATCH)
        context.set_default_timeout(20_000)  # of a machine that is busy
        if signed_in:
            sign_in(context, live)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        contexts.append(context)
        return page

    yield open_window
    for context in contexts:
        for page in context.pages:
            errors += page.evaluate("window.broken ?? []")
            assert page.evaluate("typeof pwned") == "undefined"
        context.close()
    assert errors == []


def sign_in(context: Any, live: Served) -> None:
    """Give a browser a session."""
    header = live.service.sessions.set_cookie(live.service.sessions.begin(), secure=False)
    name, _, value = header.partition(";")[0].partition("=")
    context.add_cookies([{"name": name, "value": value, "url": live.url, "httpOnly": True, "sameSite": "Strict"}])


def told(live: Served, name: str, *texts: str) -> str:
    """A new agent that was told these texts, one a turn; its id."""

    async def tell() -> None:
        agent = await live.service.runtime.agent(name)
        for text in texts:
            async for _ in agent.send(text):
                pass

    made = live.create(name)
    live.run(tell())
    return made


def keep(page: Any, name: str) -> None:
    """Save a screenshot where AGENTOS_SCREENSHOTS names a folder."""
    if folder := os.environ.get("AGENTOS_SCREENSHOTS"):
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


def check_page(page: Any, path: str, name: str) -> None:
    """A page is light, and fits; in light, dark and on a phone nothing of it is hard to use."""
    sizes: list[int] = []
    page.on("response", lambda response: sizes.append(len(response.body())) if response.status == 200 else None)
    page.set_viewport_size(DESK)
    page.emulate_media(color_scheme="light")
    assert page.goto(path).status == 200
    assert sum(sizes) <= HEAVIEST_BYTES, f"{path} weighs {sum(sizes)} bytes"
    light = page.evaluate(_BACKGROUND)
    assert not (found := faults(page)), f"{path}: {found}"
    keep(page, f"{name}-light")
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(_BACKGROUND) != light
    assert not (found := faults(page, "color-contrast")), f"{path} in the dark: {found}"
    keep(page, f"{name}-dark")
    page.set_viewport_size(PHONE)
    page.emulate_media(color_scheme="light")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], f"{path} scrolls sideways"
    keep(page, f"{name}-phone")


def faults(page: Any, *rules: str) -> list[str]:
    """What axe finds that is serious; by these of its rules, or by all."""
    if not page.evaluate("typeof axe === 'object'"):
        page.evaluate((resources.files("axe_playwright_python") / "axe.min.js").read_text("utf-8"))
    chosen = {"resultTypes": ["violations"]} | ({"runOnly": list(rules)} if rules else {})
    found = page.evaluate("options => axe.run(document, options)", chosen)["violations"]
    return [
        f"{one['id']}: {one['help']}: {[node['html'] for node in one['nodes'][:3]]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
