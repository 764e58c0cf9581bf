"""The Inspector's Runs and Chat pages in a browser: turns while they go on, and what they leave."""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, get_args

import pytest

from agentos.errors import ProviderError
from agentos.events import Retry
from agentos.messages import Reply, StopReason
from agentos.protocols import Delta
from agentos.testing import FixedClock, FunctionLLM, call, say
from inspecting import HOSTILE, PHONE, browser, check_page, faults, told, window
from serving import Served, served, until

__all__ = ["browser", "window"]  # fixtures
Window = Callable[..., Any]


class Talker(FunctionLLM):
    """Does what it is told, word by word; at `pause` it waits in the middle of a sentence until it may go on."""

    def __init__(self) -> None:
        super().__init__(lambda request: "", name="test/talker")
        self.go_on = asyncio.Event()

    async def stream(self, request: Any) -> AsyncGenerator[Delta | Retry | Reply, None]:
        last = request.messages[-1]
        words = str(last["content"]).partition("] ")[2] if last["role"] == "user" else ""
        if words.startswith("note "):
            asked = call(
                "core_memory_append", label="human", content=words.removeprefix("note "), request_heartbeat=True
            )
            yield say("", asked)
        elif words.startswith("fail"):
            raise ProviderError("the model is away; try again later")
        elif words.startswith("pause"):
            if "retry" in words:
                yield Retry("a hiccup.", 1, 0.0)
            yield Delta("Half of ")
            yield Delta("what I say, ")
            await self.go_on.wait()
            yield Delta("and the rest.")
            yield say("Half of what I say, and the rest.")
        else:
            yield Delta("Noted. ")
            yield say("Noted. " + (words if words.startswith("<") else ""))


@pytest.fixture(scope="module")
def live() -> Iterator[Served]:
    with served(Talker(), clock=FixedClock()) as live:
        yield live


@pytest.fixture
def gate(live: Served) -> Iterator[Callable[[], None]]:
    """Lets turns that pause go on; at the end all may."""
    live.loop.call_soon_threadsafe(live.llm.go_on.clear)
    yield lambda: live.loop.call_soon_threadsafe(live.llm.go_on.set)
    live.loop.call_soon_threadsafe(live.llm.go_on.set)


def start(live: Served, agent: str, text: str) -> str:
    """Input that is accepted; the id of its run."""

    async def accept() -> str:
        return (await live.service.dispatcher.accept(agent, [text])).run_id

    return str(live.run(accept()))


def seen(page: Any, selector: str, text: str) -> Any:
    """The element with this text, once it is there."""
    found = page.locator(selector, has_text=text).first
    found.wait_for()
    return found


def test_a_turn_is_followed_while_it_runs(live: Served, window: Window, gate: Callable[[], None]) -> None:
    agent = told(live, "follow", "note Name: Ann")
    page = window()
    page.goto("/agents/follow/runs")
    first = page.get_by_role("row").nth(1)
    assert re.search(r"note Name: Ann.*done", first.inner_text().replace("\n", " "))
    run = start(live, agent, "pause with retry <b>now</b>")
    seen(page, "tbody th a", "pause with retry <b>now</b>").click()
    page.wait_for_url(f"**/runs/{run}")
    seen(page, "#live-text", "Half of")
    seen(page, ".state", "runs")
    page.reload()  # what was being written is there again
    seen(page, "#live-text", "Half of")
    gate()
    seen(page, ".entry.reply", "Half of what I say, and the rest.")
    seen(page, ".state", "done")
    assert not page.locator("#live").is_visible()
    assert "test/talker" in page.locator(".entry.reply").first.inner_text()
    assert page.locator(".facts [title=end_turn]").inner_text() == "finished"
    status, value, _ = live.ask("GET", f"/agentos/v1/agents/follow/runs/{run}")
    assert (status, [entry["type"] for entry in value["entries"]]) == (200, ["input", "reply"])
    page.goto(f"/agents/follow/runs/{live.ask('GET', '/agentos/v1/agents/follow/runs')[1]['runs'][1]['id']}")
    card = page.locator(".entry.reply").first.inner_text()
    assert re.search(r"core_memory_append.*done.*heartbeat.*content: Name: Ann", card.replace("\n", " "))


def test_a_turn_is_cancelled(live: Served, window: Window, gate: Callable[[], None]) -> None:
    agent = told(live, "cancel")
    run = start(live, agent, "pause")
    page = window()
    page.goto(f"/agents/cancel/runs/{run}")
    seen(page, "#live-text", "Half of")
    page.get_by_role("button", name="Cancel").click()
    seen(page, ".state", "cancelled")
    assert page.get_by_role("button", name="Cancel").count() == 0
    assert live.ask("POST", "/agentos/v1/agents/cancel/cancel", {"run_ids": [run]})[1] == {run: "failed"}
    page.goto("/agents/cancel/runs?status=failed")
    assert "No such runs" in page.inner_text("main")
    words = page.get_by_label("Status").locator("option").all_inner_texts()
    assert words == ["Any status", "waits", "runs", "done", "failed", "cancelled"], "as the runs' tags have them"
    page.get_by_label("Status").select_option("cancelled")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**status=cancelled*")
    assert page.get_by_role("row").count() == 2
    assert page.goto("/agents/cancel/runs/run-of-nobody").status == 404
    told(live, "other")
    assert page.goto(f"/agents/other/runs/{run}").status == 404


def test_runs_and_traces_are_paged(live: Served, window: Window) -> None:
    told(live, "paged", *(f"word {n}" for n in range(21)))
    page = window()
    page.goto("/agents/paged/runs")
    assert page.get_by_role("row").count() == 21
    page.get_by_role("link", name="Older →").click()
    page.wait_for_url("**before=*")
    assert page.get_by_role("row").nth(1).inner_text().startswith("word 0")
    run = live.ask("GET", "/agentos/v1/agents/paged/runs?limit=1")[1]["runs"][0]["id"]
    value = live.ask("GET", f"/agentos/v1/agents/paged/runs/{run}?limit=1")[1]
    assert [e["type"] for e in value["entries"]] == ["input"]
    rest = live.ask("GET", f"/agentos/v1/agents/paged/runs/{run}?after={value['after']}")[1]
    assert ([e["type"] for e in rest["entries"]], rest["after"]) == (["reply"], None)


def test_talking_changes_memory_beside_it(live: Served, window: Window, gate: Callable[[], None]) -> None:
    told(live, "chat", "note Name: Ann")
    page = window()
    page.goto("/agents/chat/chat")
    words = page.get_by_label("Your message")
    words.fill("note Likes tea")
    page.keyboard.press("Enter")
    seen(page, "#memory .block.changed", "Likes tea")
    assert "+ Likes tea" in re.sub(r"\s+", " ", page.locator("#memory .events").inner_text())
    seen(page, "#conversation .bubble.user", "note Likes tea")
    seen(page, "#conversation .did", "core_memory_append")
    seen(page, "#conversation .bubble.assistant", "Noted.")
    words.fill("pause")
    page.get_by_role("button", name="Send").click()
    seen(page, "#live-text", "Half of what I say,")
    seen(page, ".busy", "chat is at work")
    page.reload()
    seen(page, "#live-text", "Half of what I say,")
    words.fill("one that waits")
    page.keyboard.press("Enter")
    seen(page, ".bubble.user", "waits for its turn")
    gate()
    seen(page, ".bubble.assistant", "Half of what I say, and the rest.")
    page.locator(".busy .state").wait_for(state="detached")
    assert page.locator("#live").is_hidden()
    assert page.locator(".bubble", has_text="Half of what I say").count() == 1
    assert words.input_value() == ""


def test_chat_tells_of_failures_and_cancels(live: Served, window: Window, gate: Callable[[], None]) -> None:
    agent = told(live, "faults")
    page = window()
    page.goto("/agents/faults/chat")
    words = page.get_by_label("Your message")
    words.fill("fail")
    page.keyboard.press("Enter")
    seen(page, "#conversation .notice.bad", "the model is away; try again later").get_by_role("link").click()
    page.wait_for_url("**/runs/run-*")
    assert "the model is away" in seen(page, ".entry", "Model call").inner_text()
    page.go_back()
    words.fill("pause")
    page.keyboard.press("Enter")
    seen(page, "#live-text", "Half of")
    page.get_by_role("button", name="Cancel").click()
    seen(page, "#conversation .notice", "This turn was cancelled.")
    page.context.clear_cookies()
    words.fill("signed out")
    page.keyboard.press("Enter")
    assert seen(page, "#notice .bad", "You are signed out").get_by_role("link", name="Sign in").count() == 1
    assert words.input_value() == "signed out"
    said = live.read(lambda tx: [m.content for m in tx.recent_messages(agent, 50)])
    assert "signed out" not in said


def test_what_is_new_is_read_out_once(live: Served, window: Window, gate: Callable[[], None]) -> None:
    told(live, "spoken", "note Name: Ann")
    page = window()
    page.goto("/agents/spoken/chat")
    log = page.get_by_role("log")
    for text in ("note Likes tea", "pause", "fail"):
        page.get_by_label("Your message").fill(text)
        page.keyboard.press("Enter")
        gate()
        if text != "fail":
            seen(page, "#conversation .bubble.user", text)
            seen(page, "#heard", "Half of what I say, and the rest." if text == "pause" else "Noted.")
    seen(page, "#heard", "the model is away")
    said = log.locator("p").all_inner_texts()
    assert [line for line in said if "Noted." in line or "Half of" in line] == [said[1], said[2]]
    assert "core_memory_append done" in said[0] or "core_memory_append runs" in said[0]
    assert len(said) == 4
    assert log.get_attribute("aria-live") == "polite"
    assert not (found := faults(page)), found


def test_a_page_that_follows_notices_the_end_of_its_session(live: Served, window: Window) -> None:
    told(live, "watched", "hello")
    live.service.keep_alive_seconds = 0.05
    try:
        page, other = window(), window(signed_in=False)
        page.goto("/agents/watched/runs")
        other.context.add_cookies(page.context.cookies())
        other.goto("/agents/watched/chat")
        with other.expect_navigation(url="**/sign-in?next=*"):
            page.get_by_role("button", name="Sign out").click()
        page.wait_for_url("**/sign-in")
    finally:
        live.service.keep_alive_seconds = 20.0


def test_focus_is_kept_by_decisions(live: Served, window: Window) -> None:
    agent = live.create("decided", settings={"approvals": {"core_memory_append": "ask"}})
    run = start(live, agent, "note Name: Ann")
    page = window()
    page.goto(f"/agents/decided/runs/{run}")
    reason = page.get_by_label("Reason, for a refusal")
    reason.fill("typed before the page was made anew")
    page.reload()
    reason.fill("typed")
    with page.expect_response(f"**/runs/{run}"):
        pass
    assert reason.input_value() == "typed"
    page.get_by_role("button", name="Approve core_memory_append").press("Enter")
    seen(page, ".state", "done")
    page.locator("main :focus").wait_for()


def test_hostile_words_stay_words(live: Served, window: Window) -> None:
    told(live, "<b>x<i>", "note " + HOSTILE)
    page = window()
    page.goto("/agents/%3Cb%3Ex%3Ci%3E/chat")
    page.get_by_label("Your message").fill("<img src=x onerror=pwned=1><script>pwned=1</script>")
    page.keyboard.press("Enter")
    seen(page, ".bubble.assistant", "Noted. <img src=x onerror=pwned=1>")
    assert page.locator("main img, main script:not([src])").count() == 0
    seen(page, ".bubble.user", "\\x1b[31mred")
    page.goto("/agents/%3Cb%3Ex%3Ci%3E/runs")
    page.locator("tbody th a").last.click()
    page.wait_for_url("**/runs/run-*")
    seen(page, ".entry.input", "{{7*7}}")


def test_pages_are_light_and_fit(live: Served, window: Window) -> None:
    told(live, "fit", "note " + "much " * 40, *(f"note fact {n} " + "x" * 60 for n in range(12)), "fail")
    run = live.ask("GET", "/agentos/v1/agents/fit/runs")[1]["runs"][1]["id"]
    for path, name in (("runs", "runs"), (f"runs/{run}", "run"), ("chat", "chat")):
        check_page(window(), f"/agents/fit/{path}", name)
    page = window(viewport=PHONE, has_touch=True)
    page.goto("/agents/fit/chat")
    page.get_by_label("Your message").fill("note by phone")
    page.get_by_role("button", name="Send").click()
    seen(page, "#memory .block.changed", "by phone")


def test_conversations_go_on_to_older_ones(live: Served, window: Window) -> None:
    agent = told(live, "older", *(f"word {n}" for n in range(14)))
    page = window()
    page.goto("/agents/older/chat")
    assert page.locator(".bubble").filter(visible=True).count() == 24
    page.get_by_role("link", name="Older →").hover()
    page.mouse.down()
    with page.expect_event("requestfinished", lambda request: request.url == page.url):  # made anew in mid-click
        start(live, agent, "word 14")
    page.mouse.up()
    page.wait_for_url("**before=*")
    assert page.locator(".bubble.user").first.inner_text().endswith("word 0")
    assert page.locator("#say").count() == 0
    value = live.ask("GET", "/agentos/v1/agents/older/conversation?limit=2")[1]
    assert [m["role"] for m in value["messages"]] == ["user", "assistant"]
    assert until(lambda: not live.read(lambda tx: tx.open_runs(agent))) is True


def test_calls_that_wait_are_decided(live: Served, window: Window) -> None:
    agent = live.create("asks", settings={"approvals": {"core_memory_append": "ask"}})
    run = start(live, agent, "note Name: Ann")
    page = window()
    page.goto(f"/agents/asks/runs/{run}")
    seen(page, ".state", "waits for approval")
    page.get_by_role("button", name="Approve core_memory_append").click()
    seen(page, ".call .tag", "approved by a person")
    seen(page, ".state", "done")
    page.goto("/agents/asks/chat")
    words = page.get_by_label("Your message")
    words.fill("note Name: Mallory")
    page.keyboard.press("Enter")
    seen(page, ".busy", "waits for approval")
    assert not (found := faults(page)), found
    page.get_by_label("Reason, for a refusal").fill("it is not so <b>")
    page.get_by_role("button", name="Refuse core_memory_append").click()
    page.locator(".decide").wait_for(state="detached")
    page.locator(".busy .state").wait_for(state="detached")
    seen(page, ".did .tag", "refused")
    assert live.read(lambda tx: [b.value for b in tx.blocks(agent) if b.label == "human"]) == ["Name: Ann"]
    run = live.ask("GET", "/agentos/v1/agents/asks/runs")[1]["runs"][0]["id"]
    page.goto(f"/agents/asks/runs/{run}")
    assert "it is not so <b>" in seen(page, ".call", "refused by a person").inner_text()
    page.goto("/agents/asks/timeline?kind=all")
    for said in ("approved a call of", "refused a call of"):
        assert "core_memory_append" in seen(page, ".event .line", said).inner_text()
    assert "the first request" in seen(page, ".event", "began the prompt anew").inner_text()
    page.goto("/")


def test_why_a_turn_stopped_is_said_in_words(live: Served, window: Window) -> None:
    agent = live.create("stops", settings={"approvals": {"core_memory_append": "ask"}})
    start(live, agent, "note Name: Ann")
    assert until(lambda: live.ask("GET", "/agentos/v1/agents/stops/approvals")[1])
    start(live, agent, "something else")
    start(live, agent, "fail")
    assert until(lambda: not live.read(lambda tx: tx.open_runs(agent))) is True
    page = window()
    page.goto("/?find=stops")
    assert page.locator("td [title=llm_error]").inner_text() == "the model failed"
    page.goto("/agents/stops/runs")
    assert page.locator("td [title=requires_approval]").inner_text() == "a call needed approval"
    options = page.locator("#stop_reason option").all()
    assert {option.get_attribute("value") for option in options} == {"", *get_args(StopReason)}
    assert all("_" not in option.inner_text() for option in options)
    page.goto("/agents/stops/chat")  # the refused call's result stands behind the words that refused it
    assert page.locator(".said > li").all_inner_texts()[2].startswith("a call needed approval")
    assert page.locator("[title=requires_approval]").count() == 1
