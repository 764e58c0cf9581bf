"""The Inspector's Archival, Recall and Context pages in a browser."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from agentos import curate
from inspecting import HOSTILE, PHONE, browser, check_page, live, told, window
from serving import Served

__all__ = ["browser", "live", "window"]  # fixtures
Window = Callable[..., Any]


def store(live: Served, agent: str, text: str, *tags: str) -> str:
    """A passage stored by a person; its id."""

    async def work() -> str:
        runtime = live.service.runtime
        memory = runtime.memory(agent)
        return (await curate.insert_passage(runtime.store, runtime.clock, memory, agent, text, tags)).ref

    return str(live.run(work()))


def passages(live: Served, agent: str, query: str = "") -> Any:
    return live.ask("GET", f"/agentos/v1/agents/{agent}/passages{query}")[1]


def cards(page: Any, kind: str = "passage") -> list[str]:
    """The ids of the cards on a page, in order."""
    return [card.get_attribute("id") for card in page.locator(f"article.{kind}").all()]


def test_a_search_says_why_and_filters(live: Served, window: Window) -> None:
    agent = told(live, "seek", "store the boat Aurora lies in Porto")
    old = store(live, agent, "a ship of the name Aurora was seen", "ships", "Old")
    live.service.runtime.clock.advance(timedelta(days=40))
    new = store(live, agent, "order A4711-22 is about paint", "orders")
    page = window()
    page.goto("/agents/seek/archival")
    shown = cards(page)
    stored = shown.pop()
    assert shown == [new, old]
    page.get_by_label("Search by words and meaning").fill("Aurora boat")
    page.get_by_role("button", name="Search").click()
    page.wait_for_url("**query=Aurora*")
    assert cards(page)[:2] == [stored, old]
    first = page.locator(f"#{stored}")
    assert re.fullmatch(r"lexical|both", first.locator(".why").inner_text())
    assert re.search(r"score 0\.\d{4}", first.inner_text())
    assert "not found by a search lately" in first.inner_text()
    first.get_by_role("link", name="message").click()
    page.wait_for_url("**/recall/m*")
    assert "the boat Aurora lies in Porto" in page.locator(".message.current").inner_text()
    page.goto("/agents/seek/archival?query=A4711-22")
    assert page.locator(f"#{new} .why").inner_text() == "identifier"
    page.goto("/agents/seek/archival")
    page.locator(f"#{old}").get_by_role("link", name="ships").click()
    page.wait_for_url("**tag=ships")
    assert cards(page) == [old]
    day = (live.service.runtime.clock.now() - timedelta(days=1)).date().isoformat()
    page.get_by_label("Tag").fill("")
    page.get_by_label("From").fill(day)
    page.keyboard.press("Enter")
    page.wait_for_url("**start=*")
    assert cards(page) == [new]
    assert [p["id"] for p in passages(live, "seek", f"?query=aurora&end={day}")] in ([stored, old], [old, stored])
    assert passages(live, "seek", "?tag=old") == []
    assert [p["id"] for p in passages(live, "seek", "?tag=Old&limit=1")] == [old]
    bad = page.goto("/agents/seek/archival?start=soon")
    assert bad.status == 400
    assert "which is no ISO date" in page.get_by_role("alert").inner_text()
    assert page.goto("/agents/seek/archival?as_of=2026-01-01").status == 400
    before = (live.service.runtime.clock.now() - timedelta(days=20)).date().isoformat()
    page.goto(f"/agents/seek/archival?query=A4711-22+Aurora&as_of={before}")
    assert sorted(cards(page)) == sorted([stored, old])
    assert page.goto("/agents/seek/archival/p999999").status == 404


def test_passages_are_added_corrected_and_deleted(live: Served, window: Window) -> None:
    agent = told(live, "mend")
    page = window()
    page.goto("/agents/mend/archival")
    page.get_by_role("link", name="Add").click()
    page.get_by_role("button", name="Store").click()
    assert "the text is empty" in page.get_by_role("alert").inner_text()
    page.get_by_label("Text").fill("Ann lives in Lisbon " + HOSTILE)
    page.get_by_label("Tags").fill("home, Ann ,")
    page.get_by_role("button", name="Store").click()
    page.get_by_role("status").filter(has_text="Stored as").wait_for()
    [first] = passages(live, "mend")
    assert (first["text"][:19], first["tags"], first["origin"]) == ("Ann lives in Lisbon", ["home", "Ann"], "user")
    page.locator(f"#{first['id']}").get_by_role("link", name="Correct").click()
    page.get_by_label("Text").fill("Ann lives in Porto")
    page.get_by_role("button", name="Store in its place").click()
    page.get_by_role("status").filter(has_text="Stored as").wait_for()
    [second] = passages(live, "mend")
    assert (second["text"], second["tags"]) == ("Ann lives in Porto", ["home", "Ann"])
    page.goto(f"/agents/mend/archival/{first['id']}")
    assert page.locator("article.ended").count() == 1
    assert page.get_by_role("button", name="Delete").count() == 0
    page.get_by_text(f"superseded by {second['id']}").get_by_role("link").click()
    page.wait_for_url(f"**/archival/{second['id']}")
    page.get_by_text(f"replaces {first['id']}").wait_for()
    page.goto("/agents/mend/archival?query=Ann+lives")
    assert cards(page) == [second["id"]]
    page.get_by_label("Superseded too").check()
    page.get_by_role("button", name="Search").click()
    page.wait_for_url("**include_superseded=true*")
    assert sorted(cards(page)) == sorted([first["id"], second["id"]])
    again = {"text": "x", "replaces": first["id"]}
    assert live.ask("POST", "/agentos/v1/agents/mend/passages", again)[0] == 409
    assert live.ask("POST", "/agentos/v1/agents/mend/passages", {"text": "x", "replaces": "p99"})[0] == 404
    page.goto("/agents/mend/archival")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("status").filter(has_text="was deleted").wait_for()
    assert passages(live, "mend") == []
    assert [notice.name for notice in live.read(lambda tx: tx.notices(agent))] == ["outside_edit"] * 2
    page.get_by_role("link", name="its timeline").click()
    page.wait_for_url("**/timeline?label=*")
    page.get_by_role("button", name="Undo").first.click()
    page.get_by_role("status").filter(has_text="taken back").wait_for()
    assert [p["id"] for p in passages(live, "mend")] == [second["id"]]


def test_messages_are_listed_searched_and_shown_among_others(live: Served, window: Window) -> None:
    agent = told(live, "recall", *(f"I saw {n} whales off Sagres" for n in range(9)), "note long " + "x" * 30_000)
    page = window()
    page.goto("/agents/recall/recall")
    assert len(cards(page, "message")) == 15
    page.get_by_role("link", name="Older →").click()
    page.wait_for_url("**after=*")
    assert page.locator("article.message").last.inner_text().count("I saw 0 whales") == 1
    page.get_by_label("Search by words and meaning").fill("whales Sagres")
    page.get_by_label("Role").select_option("user")
    page.get_by_role("button", name="Search").click()
    page.wait_for_url("**role=user*")
    assert len(cards(page, "message")) == 9
    assert page.locator(".why").first.inner_text() in ("lexical", "identifier")
    page.locator("article.message a").first.click()
    page.wait_for_url("**/recall/m*")
    assert page.locator("article.message").count() >= 5
    page.get_by_role("link", name="its run").first.click()
    page.wait_for_url("**/runs/run-*")
    long = live.read(lambda tx: next(m.ref for m in tx.recent_messages(agent, 9) if len(m.content) > 30_000))
    page.goto(f"/agents/recall/recall/{long}")
    assert len(page.locator("pre.whole").inner_text()) == 20_000
    page.get_by_role("link", name="What follows").click()
    page.wait_for_url("**at=20000")
    assert len(page.locator("pre.whole").inner_text()) == len(f"note long {'x' * 30_000}") - 20_000
    value = live.ask("GET", f"/agentos/v1/agents/recall/messages/{long}")[1]
    assert len(value["message"]["text"]) > 30_000
    other = told(live, "stranger", "hello")
    theirs = live.read(lambda tx: tx.recent_messages(other, 1)[0].ref)
    assert page.goto(f"/agents/recall/recall/{theirs}").status == 404
    assert page.goto("/agents/recall/recall/nonsense").status == 404


def test_the_window_and_the_last_request(live: Served, window: Window) -> None:
    agent = told(live, "full", "note Name: Ann", "hello there", "and again")
    page = window()
    page.goto("/agents/full/context")
    bar = page.get_by_role("img", name=re.compile("The window")).get_attribute("aria-label")
    assert re.search(r"tools [\d.]+ %, system .*, core memory .*, messages .*, free .*, reserved reply", bar)
    assert "The request sent last" in page.locator("#request").inner_text()
    assert "the very messages that were sent" in page.locator("#request").inner_text()
    sent = live.llm.requests[-1].messages
    value = live.ask("GET", "/agentos/v1/agents/full/context/request")[1]
    assert (value["sent"], value["exact"], value["messages"]) == (True, True, len(sent) - 1)
    assert [p["text"] for p in value["parts"] if p["section"] == "messages"] == [m["content"] or "" for m in sent[1:]]
    head = "\n\n".join(p["text"] for p in value["parts"] if p["section"] in ("system", "core memory"))
    assert head == sent[0]["content"]
    filling = live.ask("GET", "/agentos/v1/agents/full/context/filling")[1]
    assert [step["prompt_tokens"] for step in filling] == sorted(step["prompt_tokens"] for step in filling)

    async def compact() -> None:
        async for _ in (await live.service.runtime.agent_of(agent)).compact():
            pass

    live.run(compact())
    page.reload()
    assert "The request that comes next" in page.locator("#request").inner_text()
    out = page.locator("#outs article").inner_text()
    assert re.search(r"Page-out s\d+ *\n*.* messages, m\d+ to m\d+", out)
    told_again = live.service.runtime.agent_of(agent)

    async def go_on() -> None:
        async for _ in (await told_again).send("more"):
            pass

    live.run(go_on())
    page.reload()
    assert page.locator(".chart .out").count() == 1
    assert page.locator("#part-summary").count() == 1


def test_the_form_fits_a_phone(live: Served, window: Window) -> None:
    told(live, "small")
    page = window(viewport=PHONE)
    page.goto("/agents/small/archival")
    box = page.get_by_label("Superseded too").bounding_box()
    assert box["width"] == box["height"] < 24
    tag, start = (page.get_by_label(name, exact=True).bounding_box() for name in ("Tag", "From"))
    assert (tag["y"], tag["width"]) == (start["y"], start["width"])


def test_pages_are_light_and_fit(live: Served, window: Window) -> None:
    agent = told(live, "weight", *(f"note fact {n} {'wide' * 30}" for n in range(9)), "store " + "y" * 3000 + HOSTILE)
    for n in range(20):
        store(live, agent, f"{n} {HOSTILE} {'z' * 2000}", f"tag{n}", "<b>&")
    ref = passages(live, "weight")[0]["id"]
    for path, name in (
        ("archival?query=fact&edit=new", "archival"), (f"archival/{ref}", "passage"),
        ("recall", "recall"), ("recall/m1", "message"), ("context", "context"),
    ):  # fmt: skip
        if path == "recall/m1":
            path = "recall/" + live.read(lambda tx: tx.recent_messages(agent, 1)[0].ref)
        check_page(window(), f"/agents/weight/{path}", name)
