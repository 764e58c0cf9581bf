"""The Memory Inspector in a browser: signing in, agents, core memory, timeline, why; and what must not happen."""

import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from agentos import curate
from inspecting import DESK, HOSTILE, PHONE, browser, check_page, live, told, window
from serving import TOKEN, Served

__all__ = ["browser", "live", "window"]  # fixtures
Window = Callable[..., Any]


def block_of(live: Served, agent: str, label: str = "human") -> Any:
    return live.read(lambda tx: next(b for b in tx.blocks(agent) if b.label == label))


def write(live: Served, agent: str, text: str, label: str = "human") -> None:
    """A person elsewhere edits a block."""

    async def edit() -> None:
        turn = await (await live.service.runtime.agent_of(agent)).turn()
        await curate.edit_block(live.service.store, turn, label, text)

    live.run(edit())


def card(page: Any, live: Served, agent: str, label: str = "human") -> Any:
    return page.locator(f"#block-b{block_of(live, agent, label).id}")


# signing in


def test_the_token_once_and_then_a_session(live: Served, window: Window) -> None:
    told(live, "sign")
    page = window(signed_in=False)
    page.goto("/agents/sign/core?edit=x")
    assert page.url.endswith("/sign-in?next=%2Fagents%2Fsign%2Fcore%3Fedit%3Dx")
    page.get_by_label("The server's token").fill("wrong")
    page.keyboard.press("Enter")
    assert "not this server's token" in page.get_by_role("alert").inner_text()
    page.get_by_label("The server's token").fill(TOKEN)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/agents/sign/core?edit=x")
    [cookie] = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/")
    assert TOKEN not in json.dumps(cookie)
    live.service.runtime.clock.advance(timedelta(hours=2))  # used again, it lasts longer
    page.reload()
    live.service.runtime.clock.advance(timedelta(hours=11))
    page.reload()
    assert page.url.endswith("/core?edit=x")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in")
    assert page.context.cookies() == []
    page.goto("/")
    assert "/sign-in" in page.url


def test_an_expired_session_keeps_what_was_typed(live: Served, window: Window) -> None:
    agent = told(live, "expired", "note old")
    page = window()
    page.goto("/agents/expired/core")
    card(page, live, agent).get_by_text("Edit").click()
    page.get_by_label("Text").fill("typed for long")
    live.service.runtime.clock.advance(timedelta(hours=13))
    page.get_by_role("button", name="Save").click()
    assert "signed out" in page.locator("#refusal").inner_text()
    assert page.get_by_label("Text").input_value() == "typed for long"
    assert block_of(live, agent).value == "old"
    page.goto("/agents/expired/core")
    assert "/sign-in" in page.url


def test_a_link_signs_in_once(live: Served, window: Window) -> None:
    path = live.ask("POST", "/agentos/v1/sign-in-links")[1]["path"]
    page = window(signed_in=False)
    page.goto(path)
    assert page.url == f"{live.url}/"
    other = window(signed_in=False)
    other.goto(path)
    assert "has been used" in other.get_by_role("alert").inner_text()
    other.goto("/")
    assert "/sign-in" in other.url


# agents and core memory


def test_agents_are_listed_and_found(live: Served, window: Window) -> None:
    told(live, "list & <b>find</b"[:17].replace("/", "|"), "note x")
    for number in range(26):
        live.create(f"many-{number:02}")
    page = window()
    page.goto("/")
    page.get_by_role("link", name="More").click()
    page.wait_for_url("**after=*")
    page.get_by_role("link", name="Back").click()
    page.wait_for_url("**before=*")
    page.get_by_label("Find agents by name").fill("list & <b>")
    page.keyboard.press("Enter")
    page.wait_for_url("**find=*")
    row = page.get_by_role("row").nth(1)
    assert re.search(r"idle.*of 32,768 tokens", row.inner_text().replace("\n", " "))
    row.get_by_role("link").click()
    page.wait_for_url("**/core")
    assert "list & <b>" in page.get_by_role("banner").inner_text()


def test_a_block_is_edited_locked_and_restored(live: Served, window: Window) -> None:
    agent = told(live, "edited", "note first")
    page = window()
    page.goto("/agents/edited/core")
    human = card(page, live, agent)
    human.get_by_text("Edit").click()
    text = human.get_by_label("Text")
    playing = "second <b>\n\ttab & \u00e9\u4e16"
    text.fill(playing)
    assert human.locator("output").inner_text() == str(len(playing))
    human.get_by_role("button", name="Save").click()
    human.get_by_text("The agent is told at its next step").wait_for()
    assert block_of(live, agent).value == playing
    assert human.locator("pre").inner_text() == playing
    human.get_by_text("Edit").click()
    limit = block_of(live, agent).limit
    text.fill("x" * (limit + 1))
    human.get_by_role("button", name="Save").click()
    assert f"{limit + 1} characters and its limit is {limit}" in human.get_by_role("alert").inner_text()
    assert len(text.input_value()) == limit + 1
    human.get_by_text("Cancel").click()
    human.get_by_role("button", name="Lock human").click()
    human.get_by_text("locked", exact=True).wait_for()
    assert block_of(live, agent).read_only
    human.get_by_role("button", name="Unlock human").click()
    human.get_by_text("locked", exact=True).wait_for(state="detached")
    human.get_by_role("link", name="Versions of human").click()
    page.wait_for_url("**/core/b*")
    assert page.locator("#versions .event").count() == 3
    page.once("dialog", lambda dialog: dialog.accept())
    page.locator("#versions .event").nth(1).get_by_role("button").click()
    page.locator("#versions .event").nth(3).wait_for()
    assert "reads as in version" in page.evaluate(
        "document.activeElement.innerText"
    )  # whoever works by keyboard goes on
    assert block_of(live, agent).value == "first"
    status, value, _ = live.ask("GET", "/agentos/v1/agents/edited/blocks/human/versions?limit=3")
    assert (status, [v["value"] for v in value["versions"]]) == (200, ["first", playing, "first"])
    older = live.ask("GET", f"/agentos/v1/agents/edited/blocks/human/versions?before={value['before']}")[1]
    assert ([v["value"] for v in older["versions"]], older["before"]) == ([""], None)


def test_an_edit_that_lost_a_race_shows_both(live: Served, window: Window) -> None:
    agent = told(live, "raced", "note old")
    page = window()
    page.goto("/agents/raced/core")
    human = card(page, live, agent)
    human.get_by_text("Edit").click()
    human.get_by_label("Text").fill("mine")
    write(live, agent, "theirs")
    with page.expect_response("**/core/b*") as answered:
        human.get_by_role("button", name="Save").click()
    assert answered.value.status == 409
    human.get_by_role("heading", name="It reads now").wait_for()
    assert human.locator("pre").all_inner_texts() == ["theirs", "mine"]
    assert "Nothing was written" in human.get_by_role("alert").inner_text()
    assert block_of(live, agent).value == "theirs"
    human.get_by_role("button", name="Save mine").click()
    human.get_by_text("The agent is told").wait_for()
    assert block_of(live, agent).value == "mine"


def test_by_keyboard_alone(live: Served, window: Window) -> None:
    agent = told(live, "keys", "note old")
    page = window()
    page.goto("/agents/keys/core")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    page.keyboard.press("Enter")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == f"edit-b{block_of(live, agent).id}":
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.locator("textarea:focus").wait_for()
    page.keyboard.press("Control+A")
    page.keyboard.type("by keys")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator("[id^=edit-]:focus").wait_for()
    assert block_of(live, agent).value == "by keys"


def focused(page: Any) -> str:
    return str(page.evaluate("document.activeElement.closest('[id]').id + ' ' + document.activeElement.tagName"))


def test_an_undo_by_keyboard_alone(live: Served, window: Window) -> None:
    agent = told(live, "undo keys", "note one", "note two")
    page = window()
    page.goto("/agents/undo%20keys/timeline")
    page.get_by_label("Block or passage").focus()
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.innerText").startswith("Undo"):
            break
    page.keyboard.press("Enter")
    page.locator("#timeline [role=status]:focus").wait_for()
    assert block_of(live, agent).value == "one"
    page.keyboard.press("Tab")
    assert focused(page).startswith("event-"), "Tab goes on from there"
    refused = page.locator(".event").filter(has_text="+two").filter(has_text="undone")
    refused.get_by_role("link", name="its turn").click()
    page.wait_for_url("**run_id=*")
    page.goto("/agents/undo%20keys/timeline")
    write(live, agent, "by hand")
    page.locator(".event").first.get_by_role("button").focus()
    page.keyboard.press("Enter")
    page.locator("#refusal[role=alert]").wait_for()
    assert page.evaluate("document.activeElement.tagName") == "BUTTON", "a refusal leaves the focus where it was"


def test_focus_is_kept_by_every_change(live: Served, window: Window) -> None:
    agent = told(live, "focus", "note one", "store a fact")
    page = window()
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto("/agents/focus/core")
    human = card(page, live, agent)
    for name in ("Lock human", "Unlock human"):
        human.get_by_role("button", name=name).press("Enter")
        human.get_by_text("Changed.").wait_for()
        page.locator(":focus", has_text="Edit").wait_for()
    page.goto("/agents/focus/archival")
    page.get_by_role("link", name="Correct").press("Enter")
    page.locator("textarea:focus").fill("another fact")
    page.get_by_role("button", name="Store in its place").press("Enter")
    page.locator("[role=status]:focus", has_text="Stored as").wait_for()
    page.get_by_role("button", name="Delete").press("Enter")
    page.locator("[role=status]:focus", has_text="was deleted").wait_for()


def test_a_double_click_is_one_click(live: Served, window: Window) -> None:
    agent = told(live, "double", "note one", "note two", "note three")
    page = window()
    asked: list[str] = []
    page.on("request", lambda request: request.method == "POST" and asked.append(request.url))
    page.goto("/agents/double/timeline")
    page.locator(".event").first.get_by_role("button").dblclick()
    page.get_by_role("status").filter(has_text="1 event was taken back").wait_for()
    page.wait_for_load_state("networkidle")
    assert page.locator("#refusal").count() == 0
    assert len(asked) == 1
    page.goto("/agents/double/core")
    page.evaluate("document.querySelector('[hx-post$=lock] button').click()")
    page.evaluate("for (let n = 0; n < 3; n++) document.querySelectorAll('[hx-post$=lock] button')[1].click()")
    page.get_by_role("status").filter(has_text="Changed").first.wait_for()
    page.wait_for_load_state("networkidle")
    assert len(asked) == 3, "nor are clicks while the first is answered"
    assert block_of(live, agent).value == "one\ntwo"


def test_shared_blocks_name_who_has_them(live: Served, window: Window) -> None:
    one, other = told(live, "owner", "note ours"), live.create("other one", blocks=[])

    async def share() -> None:
        receiver = await (await live.service.runtime.agent_of(other)).turn()
        await curate.share_block(live.service.store, one, "human", receiver)

    live.run(share())
    page = window()
    page.goto("/agents/owner/core")
    card(page, live, one).get_by_role("link", name="shared with other one").click()
    page.wait_for_url("**/agents/other%20one/core*")
    human = card(page, live, other)
    human.get_by_text("Edit").click()
    human.get_by_label("Text").fill("by the other")
    human.get_by_role("button", name="Save").click()
    human.get_by_text("The agent is told").wait_for()
    page.goto("/agents/other%20one/timeline")
    assert "by the other" in page.locator(".event").first.inner_text()
    page.locator(".event").first.get_by_role("button", name="Undo").click()
    page.get_by_role("status").filter(has_text="taken back").wait_for()
    assert block_of(live, one).value == "ours"


# timeline and why


def test_events_are_taken_back_one_or_all_of_a_turn(live: Served, window: Window) -> None:
    agent = told(live, "history", "note one and note two", "store a fact", "note three")
    page = window()
    page.goto("/agents/history/timeline")
    events = page.locator(".event")
    assert "three" in events.first.inner_text()
    events.first.get_by_role("button", name="Undo").click()
    page.get_by_role("status").filter(has_text="1 event was taken back").wait_for()
    assert block_of(live, agent).value == "one\ntwo"
    assert events.nth(1).get_by_text("undone", exact=True).count() == 1
    one = events.filter(has_text="+one")
    one.get_by_role("button", name="Undo").click()
    refusal = page.locator("#refusal").inner_text()
    assert "changed since event" in refusal
    assert "It now reads" in refusal
    one.get_by_role("link", name="its turn").click()
    page.wait_for_url("**run_id=*")
    assert page.locator(".chain").inner_text().count("note one and note two") == 1
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Undo all of it").click()
    page.get_by_role("status").filter(has_text="2 events were taken back").wait_for()
    assert block_of(live, agent).value == ""
    page.goto("/agents/history/timeline?kind=passage")
    assert events.count() == 1
    page.get_by_label("Who").select_option("user")
    page.get_by_label("Kind").select_option("undo")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**kind=undo&actor=user*")
    assert events.count() == 3


def test_undo_of_all_is_refused_whole(live: Served, window: Window) -> None:
    agent = told(live, "whole", "note one and note two", "store kept")
    write(live, agent, "put right by hand")
    page = window()
    page.goto("/agents/whole/timeline")
    page.locator(".event").filter(has_text="+two").get_by_role("link", name="its turn").click()
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Undo all of it").click()
    refusal = page.locator("#refusal").inner_text()
    assert "nothing was taken back" in refusal
    assert "put right by hand" in refusal
    assert block_of(live, agent).value == "put right by hand"


def test_what_an_mcp_client_wrote_is_told_as_such(live: Served, window: Window) -> None:
    agent, runtime = live.create("written"), live.service.runtime
    memory = runtime.memory(agent)
    live.run(curate.insert_passage(runtime.store, runtime.clock, memory, agent, "Ada sails", client="Desk"))
    page = window()
    page.goto("/agents/written/archival")
    assert "by an MCP client" in page.locator(".passage").inner_text()
    page.goto("/agents/written/timeline")
    page.get_by_role("link", name="all by Desk").click()
    page.wait_for_url("**client=Desk")
    assert page.locator(".source strong").all_inner_texts() == ["What the MCP client Desk wrote"]


def test_long_histories_are_paged(live: Served, window: Window) -> None:
    agent = told(live, "long")
    for number in range(65):
        write(live, agent, f"text {number}")
    page = window()
    page.goto("/agents/long/timeline?kind=block")
    seen: list[str] = []
    while True:
        seen += page.locator(".from > span").all_inner_texts()
        if not (older := page.get_by_role("link", name="Older")).count():
            break
        older.click()
        page.wait_for_url(f"**before={seen[-1].removeprefix('event ')}*")
    assert len(seen) == len(set(seen)) == live.read(lambda tx: len(tx.events(agent, actions=("block.",))))
    page.goto(f"/agents/long/core/b{block_of(live, agent).id}")
    assert page.locator("#versions .event").count() == 20
    page.get_by_role("link", name="Older").click()
    page.wait_for_url("**before=*")
    assert page.get_by_text("text 44", exact=True).count() > 0


def test_long_memories_are_cut_and_lead_to_the_whole(live: Served, window: Window) -> None:
    agent = told(live, "large")
    text = "<quay>\n" * 250 + "the end"
    long = text * 14

    async def keep_many() -> None:
        runtime, turn = live.service.runtime, await (await live.service.runtime.agent_of(agent)).turn()
        for number in range(25):
            await curate.edit_block(runtime.store, turn, "human", text.replace("quay", f"pier {number}"))
            await curate.insert_passage(runtime.store, runtime.clock, runtime.memory(agent), agent, f"{number} {long}")
        await curate.undo(runtime.store, runtime.clock, turn)

    live.run(keep_many())
    page = window()
    check_page(page, "/agents/large/timeline", "large-timeline")
    check_page(page, f"/agents/large/core/b{block_of(live, agent).id}", "large-versions")
    page.set_viewport_size(DESK)
    page.get_by_role("link", name="All of it").last.click()
    page.wait_for_url("**version=*")
    assert page.locator("pre").inner_text().endswith("the end")
    page.get_by_role("link", name="All versions").click()
    page.wait_for_url(re.compile(r"/core/b\d+$"))
    page.goto("/agents/large/archival/p99999999")
    assert "has no passage" in page.get_by_role("alert").inner_text()
    page.goto("/agents/large/timeline?kind=passage")
    page.get_by_role("link", name="All of it").first.click()
    page.get_by_text("characters, from 0 on").wait_for()
    page.get_by_role("link", name="What follows").click()
    page.wait_for_url("**at=20000")
    page.get_by_role("link", name="why").click()
    page.wait_for_url("**/why*")
    assert len(page.locator("pre").first.inner_text()) < 3000
    page.get_by_role("link", name=re.compile("All .* characters")).click()
    page.wait_for_url("**/archival/p*")


def test_why_leads_back_to_the_words(live: Served, window: Window) -> None:
    told(live, "asked", "note Likes tea", "store The key is under the mat")
    page = window()
    page.goto("/agents/asked/core")
    page.get_by_role("link", name="Why human").click()
    page.wait_for_url("**/why?what=human")
    links = page.locator(".chain li")
    said = [" ".join(line.split()[:-3]) for line in links.locator(".line").all_inner_texts()]
    assert said[1:] == ["written by the agent", "because of the user's message"]
    assert "note Likes tea" in links.last.inner_text()
    page.get_by_label("A block, a passage").fill("under the mat")
    page.keyboard.press("Enter")
    page.wait_for_url("**what=under*")
    assert "store The key is under the mat" in links.last.inner_text()
    links.last.get_by_role("link").click()
    page.wait_for_url("**/recall/m*")
    assert "The key is under the mat" in page.locator("main").inner_text()


# what must not happen


def test_hostile_texts_are_shown_as_they_are(live: Served, window: Window) -> None:
    name = HOSTILE[:24].replace("/", "|")
    agent = told(live, name, f"note {HOSTILE}", f"store {HOSTILE}")
    page = window()
    shown = HOSTILE.replace("\x1b", r"\x1b").replace("\u202e", r"\u202e")
    for path in ("core", "timeline", f"why?what={agent and 'human'}", f"core/b{block_of(live, agent).id}"):
        assert page.goto(f"/agents/{name.replace('?', '%3F').replace(' ', '%20')}/{path}").status == 200
        assert shown in page.get_by_role("main").inner_text(), path
        assert name in page.get_by_role("banner").inner_text()
        assert page.locator("main img, main script, main b, main [href^=javascript]").count() == 0
    page.goto("/?find=" + "%3Cscript%3E%22'")
    assert "No agent has “<script>\"'” in its name" in page.get_by_role("main").inner_text()
    page.goto(f"/agents/{name.replace(' ', '%20')}/core?edit=b{block_of(live, agent).id}")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("The agent is told").wait_for()
    assert block_of(live, agent).value == HOSTILE, "saved as it was"
    page.goto("/agents/%3Cscript%3Epwned=1/core")
    assert "there is no agent '<script>" in page.get_by_role("alert").inner_text()


def test_when_the_server_does_not_answer(live: Served, window: Window) -> None:
    agent = told(live, "silent", "note old")
    page = window()
    page.goto("/agents/silent/core")
    card(page, live, agent).get_by_text("Edit").click()
    page.get_by_label("Text").fill("kept")
    page.context.set_offline(True)
    page.get_by_role("button", name="Save").click()
    assert "does not answer" in page.locator("#notice p").inner_text()
    page.context.set_offline(False)
    page.get_by_role("button", name="Save").click()
    page.get_by_text("The agent is told").wait_for()
    assert block_of(live, agent).value == "kept"


# every page


@pytest.mark.parametrize("view", ["agents", "core", "edit", "versions", "timeline", "turn", "why", "error", "sign-in"])
def test_every_page_is_light_fits_and_can_be_used_by_all(view: str, live: Served, window: Window) -> None:
    if live.read(lambda tx: tx.agent_named("shown")) is None:
        agent = told(
            live, "shown", "note Name: Maria", "note Lives in Lisbon and note Likes tea", "store Her sister is Ana"
        )
        for number in range(40):
            write(live, agent, f"Name: Maria\nLives in Porto\nNote {number}: {'long words ' * 20}", "human")
    agent = live.read(lambda tx: tx.agent_named("shown").id)
    run = live.read(lambda tx: tx.runs(agent)[1].id)
    block = block_of(live, agent).id
    path = {
        "agents": "/", "core": "/agents/shown/core", "edit": f"/agents/shown/core?edit=b{block}",
        "versions": f"/agents/shown/core/b{block}", "timeline": "/agents/shown/timeline",
        "turn": f"/agents/shown/timeline?run_id={run}", "why": "/agents/shown/why?what=Ana",
        "error": "/?limit=1", "sign-in": "/sign-in",
    }[view]  # fmt: skip
    page = window(signed_in=view != "sign-in")
    if view == "error":
        page.goto("/agents/nobody/core")
        page.set_viewport_size(PHONE)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    else:
        check_page(page, path, view)
