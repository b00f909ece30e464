"""Many results: scrolling to the five hundredth, tracks as groups, 10,000 in the grid; an upgrade beside searches."""

from __future__ import annotations

import json
import re
import threading
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from indexer import worker
from tests.fake_encoder import GridEncoder
from tests.page.conftest import Open, answered, picture_kept, search, violations
from tests.service.conftest import Service, wait_until

LONG_TASK = 100  # milliseconds that nothing may take while somebody scrolls
FIRST_RESULTS = 300  # milliseconds from the API's answer to the first cards
MANY = 10_000


@pytest.fixture
def page(visit: Open, crowd: Service) -> Page:
    return visit(crowd).goto()


def test_scrolling_to_result_500(page: Page) -> None:
    search(page, "a person in red")
    reach = "document.querySelector('main').scrollTo(0, document.querySelector('main').scrollHeight)"
    for _ in range(40):
        if page.locator("[data-index='499'] > button").count():
            break
        page.evaluate(
            reach if not page.locator("[data-index]").count() else "document.querySelector('main').scrollBy(0, 700)"
        )
        expect(page.get_by_text("Loading more …")).to_have_count(0)
    else:
        pytest.fail("rank 500 never came")
    expect(page.locator("[data-index='499'] img")).to_have_js_property("complete", True)
    assert page.locator(".hit").count() < 120, "only what is on the screen is in the document"
    page.locator("[data-index='499'] > button").click()
    expect(page.get_by_role("dialog", name="Rank 500")).to_be_visible()


def test_grouped_by_track_each_stands_for_three(page: Page) -> None:
    search(page, "a person in red")
    answer = answered(page, lambda: page.get_by_label("Group").select_option("by track"))
    assert answer["ranked"] == 207
    expect(page.locator(".badge.pile").first).to_have_text("3")
    page.locator("[data-index='0'] > button").click()
    expect(page.get_by_label("Others of the group").get_by_role("listitem")).to_have_count(2)


def test_the_grid_scrolls_smoothly_through_10000_results(visit: Open, crowd: Service, browser: Browser) -> None:
    """The ranking repeats one answer of the service, its pages are cut by this test; the pictures are the service's."""
    visited = visit(crowd)
    page = visited.goto()
    model = crowd.found({"query": {"text": "a person"}, "limit": 60})
    shown = model["results"]

    def results(start: int, count: int) -> list[dict[str, Any]]:
        return [{**shown[rank % len(shown)], "rank": rank + 1} for rank in range(start, min(MANY, start + count))]

    def first(route: Route) -> None:
        answer = {**model, "results": results(0, 60), "next_cursor": "60", "candidates": MANY, "ranked": MANY}
        route.fulfill(status=201, content_type="application/json", body=json.dumps(answer))

    def further(route: Route) -> None:
        start = int(re.search(r"cursor=(\d+)", route.request.url)[1])  # type: ignore[index]
        end = start + 120
        body = {"results": results(start, 120), "next_cursor": str(end) if end < MANY else None}
        route.fulfill(content_type="application/json", body=json.dumps(body))

    page.route(re.compile(r"/searches$"), first)
    page.route(re.compile(r"/searches/[^/]+/results"), further)
    page.evaluate(
        """() => {
            const send = window.fetch;
            window.fetch = async (...asked) => {
                const answer = await send(...asked);
                if (String(asked[0]).endsWith("/searches")) window.answeredAt = performance.now();
                return answer;
            };
            new MutationObserver(() => {
                if (!document.querySelector(".hit")) window.shownAt = null;
                else window.shownAt ??= performance.now();
            }).observe(document.body, {childList: true, subtree: true});
        }"""
    )
    waited = []
    for _ in range(3):  # the best of three: a busy machine is not the page's fault
        page.get_by_label("Describe the person").fill("a person")
        page.keyboard.press("Enter")
        expect(page.locator(".hit").first).to_be_visible()
        waited.append(page.evaluate("window.shownAt - window.answeredAt"))
        if waited[-1] < FIRST_RESULTS:
            break
        page.get_by_role("button", name="New search").click()
        expect(page.locator(".hit")).to_have_count(0)
    assert min(waited) < FIRST_RESULTS
    browser.start_tracing(page=page, categories=["toplevel", "disabled-by-default-devtools.timeline"])
    for _ in range(200):  # as fast as pages come
        page.evaluate("document.querySelector('main').scrollTo(0, document.querySelector('main').scrollHeight)")
        if page.locator("[data-index='9999']").count():
            break
        page.wait_for_timeout(40)
    else:
        pytest.fail("the last result never came")
    picture_kept(page, "crowd")
    page.evaluate(
        """async () => {
            const main = document.querySelector("main");
            for (let step = 0; step < 60; step++) {
                main.scrollBy(0, -900);
                await new Promise(requestAnimationFrame);
            }
        }"""
    )
    assert page.locator(".hit").count() < 150
    longest = longest_task(browser.stop_tracing())
    assert longest < LONG_TASK, f"a task of {longest:.0f} ms"


def longest_task(trace: bytes) -> float:
    """Milliseconds of processor time, so that what else the machine does is not counted as the page's."""
    events = json.loads(trace)["traceEvents"]
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    tasks = [e for e in events if e["name"].endswith("RunTask") and names.get((e["pid"], e["tid"])) == "CrRendererMain"]
    assert len(tasks) > 100, "the trace has the tasks of the page"
    return max(task.get("tdur", 0) for task in tasks) / 1000


def test_an_upgrade_is_watched_judged_activated_and_rolled_back(visit: Open, crowd: Service) -> None:
    new = GridEncoder(96).checkpoint_id
    page = visit(crowd).goto("#/system")
    expect(page.get_by_role("heading", name="Ready", exact=True)).to_be_visible()
    sent = {"name": "better.safetensors", "mimeType": "application/octet-stream", "buffer": new.encode()}
    page.get_by_label("Checkpoint file").set_input_files(sent)  # type: ignore[arg-type]
    card = page.get_by_role("article", name=f"Checkpoint {new}")
    expect(card).to_contain_text("620 waiting")
    expect(card.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "0")
    files, stop = crowd.context.files, threading.Event()
    worker.run(crowd.database, crowd.context.store, None, crowd.settings, stop, once=True, load=files.load)
    expect(card).to_contain_text("All 620 images embedded.")
    card.get_by_role("button", name="Ask the gate").click()
    expect(card.get_by_text(re.compile("The gate (agrees|refuses)"))).to_be_visible()
    picture_kept(page, "upgrade")
    assert violations(page) == []
    card.get_by_role("button", name="Activate").click()
    decide = page.get_by_role("dialog", name=re.compile("Let this checkpoint"))
    decide.get_by_label(re.compile("Even if")).check()
    decide.get_by_label(re.compile("Reason")).fill("it is what the test asks for")
    decide.get_by_role("button", name="Activate").click()
    expect(card.get_by_text("answers searches")).to_be_visible()
    ask = {"query": {"text": "a person"}, "limit": 1}
    wait_until(lambda: crowd.found(ask)["checkpoint_id"] == new, "the new one answers")
    card.get_by_role("button", name="Roll back").click()
    page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    expect(card.get_by_text("candidate")).to_be_visible()
    wait_until(lambda: crowd.found(ask)["checkpoint_id"] != new, "the old one answers again")
