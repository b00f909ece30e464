"""Searching with the page: words, a picture, both, filters, examples, order, one result, the keyboard alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from model.checkpoint import infrared_checkpoint
from service.app import PAGE
from tests.page.conftest import GALLERY, Open, answered, picture_kept, search
from tests.service.conftest import Service, running_service

ASKED = "a woman in a blue dress with a red handbag"
LINES = [json.loads(line) for line in (GALLERY / "metadata.jsonl").read_text("utf-8").splitlines()]
SOMEBODY = GALLERY / LINES[0]["file"]


@pytest.fixture
def page(visit: Open, demo: Service) -> Page:
    page = visit(demo).goto()
    expect(page.get_by_label("Describe the person")).to_be_visible()
    return page


def external_ids(answer: dict[str, Any]) -> list[str]:
    return [result["image"]["external_id"] for result in answer["results"]]


def drop(page: Page, file: Path, onto: str = ".search") -> None:
    """What dropping a file from a file manager does."""
    data = list(file.read_bytes())
    transfer = page.evaluate_handle(
        """([bytes, name]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name, {type: "image/jpeg"}));
            return transfer;
        }""",
        [data, file.name],
    )
    page.dispatch_event(onto, "drop", {"dataTransfer": transfer})


def test_where_the_network_reads_no_text_the_box_asks_for_a_picture(visit: Open, tmp_path: Path) -> None:
    """And whoever describes somebody all the same is told why there is no answer."""
    with running_service(tmp_path, checkpoint=infrared_checkpoint()) as service:
        service.added(SOMEBODY.read_bytes())
        service.embed()
        visitor = visit(service)
        visitor.expected_statuses.add(409)
        page = visitor.goto()
        box = page.get_by_label("Describe the person")
        expect(box).to_have_attribute("placeholder", "Drop a picture: the network in use reads no descriptions")
        box.fill(ASKED)
        page.keyboard.press("Enter")
        expect(page.get_by_text("The active checkpoint cannot read text")).to_be_visible()
        box.fill("")
        answer = answered(page, lambda: drop(page, SOMEBODY))
        assert len(answer["results"]) == 1
        expect(page.locator(".hit")).to_have_count(1)


def test_a_description_finds_the_right_person(page: Page) -> None:
    expect(page.get_by_role("heading", name="Who are you looking for?")).to_be_visible()
    page.get_by_label("Describe the person").fill(ASKED)
    answer = answered(page, lambda: page.keyboard.press("Enter"))
    assert external_ids(answer)[0].startswith("07674_"), "the woman in blue of the README"
    expect(page.get_by_role("status").first).to_have_text(re.compile(r"300 images, best first"))
    first = page.locator("[data-index='0'] > button")
    expect(first).to_have_accessible_name(re.compile(r"^Rank 1 ?, .*Strong resemblance"))
    expect(page.locator(".hit img").first).to_have_js_property("complete", True)
    assert page.evaluate("location.hash") == f"#/search/{answer['id']}", "nothing of the description is in the address"
    picture_kept(page, "results")
    page.reload()
    expect(page.locator("[data-index='0'] > button")).to_be_visible()
    expect(page.get_by_label("Describe the person")).to_have_value(ASKED)


def test_an_example_of_the_empty_page_is_a_search(page: Page) -> None:
    answered(page, lambda: page.get_by_role("button", name="green cap, black top").click())
    expect(page.locator(".hit").first).to_be_visible()


def test_a_dropped_picture_finds_itself_and_then_both_with_the_slider(page: Page) -> None:
    answer = answered(page, lambda: drop(page, SOMEBODY))
    assert external_ids(answer)[0] == LINES[0]["external_id"]
    assert "text" not in answer["request"]["query"]
    expect(page.get_by_alt_text("The picture to search with")).to_be_visible()

    page.get_by_label("Describe the person").fill("with a red handbag")
    both = answered(page, lambda: page.keyboard.press("Enter"))
    assert both["request"]["query"]["weights"] == {"text": 0.5, "image": 0.5}
    slider = page.get_by_label("Balance of words and picture")
    slider.focus()
    moved = answered(page, lambda: slider.press("ArrowRight"))
    assert moved["request"]["query"]["weights"] == {"text": 0.45, "image": 0.55}
    assert external_ids(moved) != external_ids(answer)


def test_a_part_of_the_picture_can_be_chosen(page: Page) -> None:
    answered(page, lambda: page.get_by_label("Picture file").set_input_files(SOMEBODY))
    page.get_by_title("Choose the part that counts").click()
    image = page.locator(".crop img")
    expect(image).to_have_js_property("complete", True)
    box = image.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    answer = answered(page, lambda: page.get_by_role("button", name="Use this part").click())
    crop = answer["request"]["query"]["image"]["crop"]
    assert crop["width"] > 100 and 170 < crop["height"] < 200, crop


def test_what_the_person_does_not_look_like(page: Page) -> None:
    page.get_by_label("Describe the person").fill(ASKED)
    before = answered(page, lambda: page.keyboard.press("Enter"))
    page.get_by_role("button", name="not:").click()
    field = page.get_by_label("What the person does not look like", exact=True)
    field.fill("a blue dress")
    answer = answered(page, lambda: field.press("Enter"))
    assert answer["request"]["query"]["negative_text"] == "a blue dress"
    with_it = next(one for one in answer["results"] if one["image"]["external_id"] == "07674_0")
    assert with_it["similarity"] < before["results"][0]["similarity"], "what is blue counts less"
    assert external_ids(answer) != external_ids(before)


def test_cameras_by_site_with_their_counts(page: Page) -> None:
    search(page, ASKED)
    page.get_by_role("button", name="Cameras").click()
    choice = page.get_by_role("dialog", name="Cameras")
    expect(choice.get_by_label(re.compile("Platform 1"))).to_be_visible()
    counts = {line["camera_id"] for line in LINES}
    assert len(counts) == 8
    platform = sum(line["camera_id"] == "platform-1" for line in LINES)
    expect(choice.locator("label", has_text="Platform 1").locator(".count")).to_have_text(str(platform))
    answer = answered(page, lambda: choice.get_by_label(re.compile("Platform 1")).check())
    assert answer["candidates"] == platform
    station = answered(page, lambda: choice.get_by_label(re.compile("^Station")).check())
    assert set(station["request"]["filter"]["camera_id"]["in"]) == {"platform-1", "platform-2", "ticket-hall", "stairs"}
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Cameras: 4 cameras")).to_be_focused()
    everything = answered(page, lambda: page.get_by_role("button", name="Clear Cameras").click())
    assert everything["candidates"] == 300


def test_dates_hours_tags_and_identity(page: Page) -> None:
    search(page, ASKED)
    page.get_by_role("button", name="Dates").click()
    day = answered(page, lambda: page.get_by_role("button", name=re.compile("^2024-05-07")).click())
    expected = sum("2024-05-06T22" <= line["captured_at"] < "2024-05-07T22" for line in LINES)  # a day in Berlin
    assert day["candidates"] == expected > 0
    page.keyboard.press("Escape")

    page.get_by_role("button", name="Time of day").click()
    panel = page.get_by_role("dialog", name="Time of day")
    panel.get_by_label("From").fill("17:00")
    evening = answered(page, lambda: panel.get_by_label("Until before").fill("08:00"))
    assert evening["request"]["filter"]["time_of_day"] == {"gte": "17:00", "lt": "08:00", "tz": "Europe/Berlin"}
    expect(panel.get_by_text("Over midnight")).to_be_visible()
    assert 0 < evening["candidates"] < expected
    page.keyboard.press("Escape")
    answered(page, lambda: page.get_by_role("button", name="Clear all").click())

    page.get_by_role("button", name="Tags").click()
    group = page.get_by_role("group", name="Tag evening")
    tagged = answered(page, lambda: group.get_by_role("button", name="with", exact=True).click())
    assert tagged["candidates"] == sum("evening" in line["tags"] for line in LINES)
    others = answered(page, lambda: group.get_by_role("button", name="without").click())
    assert others["candidates"] == sum("evening" not in line["tags"] for line in LINES)
    page.keyboard.press("Escape")

    page.get_by_role("button", name="Identity").click()
    known = answered(page, lambda: page.get_by_label(re.compile("^Known")).check())
    assert known["candidates"] == 0
    expect(page.get_by_text("The filter leaves no image.").first).to_be_visible()


def test_refine_with_examples(page: Page) -> None:
    search(page, "a man in a jacket")
    page.locator("[data-index='2']").hover()
    page.get_by_role("button", name="Like rank 3", exact=True).click()
    page.locator("[data-index='0']").hover()
    page.get_by_role("button", name="Unlike rank 1", exact=True).click()
    bar = page.get_by_role("region", name="Refine")
    expect(bar).to_contain_text("1 like this")
    expect(bar).to_contain_text("1 not this")
    answer = answered(page, lambda: bar.get_by_role("button", name="Refine").click(), "/refinements")
    assert answer["parent_id"] is not None
    assert len(answer["request"]["query"]["positive_image_ids"]) == 1
    page.wait_for_function("id => location.hash.includes(id)", arg=answer["id"])
    expect(bar).to_be_hidden()


def test_order_and_groups(page: Page) -> None:
    search(page, ASKED)
    earliest = answered(page, lambda: page.get_by_label("Order").select_option("earliest first"))
    times = [result["image"]["captured_at"] for result in earliest["results"]]
    assert times == sorted(times)
    expect(page.get_by_role("status").first).to_contain_text("earliest first")
    answered(page, lambda: page.get_by_label("Order").select_option("best first"))
    grouped = answered(page, lambda: page.get_by_label("Group").select_option("by camera"))
    assert grouped["ranked"] == 8
    expect(page.locator(".hit")).to_have_count(8)
    expect(page.get_by_role("status").first).to_contain_text("8 cameras of 300 images")


def test_one_result_with_neighbours_explanation_and_provenance(page: Page) -> None:
    search(page, ASKED)
    page.locator("[data-index='0'] > button").click()
    view = page.get_by_role("dialog", name="Rank 1")
    expect(view.get_by_alt_text(re.compile("^Rank 1"))).to_have_js_property("complete", True)
    expect(view.get_by_label("What was asked")).to_contain_text(ASKED)
    strip = view.get_by_label("Neighbours in time")
    expect(strip.get_by_role("link").first).to_be_visible()
    hour = strip.get_by_role("link").count()
    strip.get_by_role("button", name="± 12 h").click()
    expect(strip.get_by_role("link").nth(hour)).to_be_visible()
    strip.get_by_role("link").first.click()
    beside = page.get_by_role("dialog", name=re.compile("Beside the results|^Rank"))
    expect(beside.locator(".crop-stage img")).to_have_js_property("complete", True)
    page.go_back()
    expect(view).to_be_visible()

    view.get_by_text("Which words met what").click()
    expect(view.get_by_text("not evidence", exact=True)).to_be_visible()
    phrase = view.get_by_role("button", name=re.compile("strip .* from the top")).first
    phrase.click()
    expect(phrase).to_have_attribute("aria-pressed", "true")
    expect(view.locator(".strip-mark").first).to_be_attached()

    view.get_by_text("Provenance").click()
    expect(view.get_by_text(re.compile(r"^[0-9a-f]{64}$"))).to_be_visible()
    expect(view.get_by_text(re.compile(r"^07674_"))).to_be_visible()
    picture_kept(page, "one-result")
    view.get_by_role("button", name="Next result").click()
    expect(page.get_by_role("dialog", name="Rank 2")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("[data-index='1'] > button")).to_be_focused()


def test_more_like_one_result_and_around_its_time(page: Page) -> None:
    search(page, ASKED)
    page.locator("[data-index='0'] > button").click()
    near = answered(page, lambda: page.get_by_role("button", name="This camera, around this time").click())
    assert list(near["request"]["filter"]) == ["camera_id", "captured_at"]
    assert 1 <= near["candidates"] < 40
    page.locator("[data-index='0'] > button").click()
    like = answered(page, lambda: page.get_by_role("button", name="More like this").click())
    assert "image" in like["request"]["query"] and "text" not in like["request"]["query"]


def test_unknown_words_and_weak_results_are_said(page: Page) -> None:
    search(page, "a man in a zorblax")
    expect(page.locator(".warnings del")).to_have_text("zorblax")
    expect(page.get_by_text(re.compile("Weak from here on|Nothing convincing")).first).to_be_visible()


def test_saved_searches_and_the_purpose(page: Page) -> None:
    page.get_by_label("Reason").fill("missing person")
    search(page, ASKED)
    page.get_by_role("button", name="Saved").click()
    page.get_by_label("Name of the search to save").fill("Blue dress")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Blue dress", exact=True)).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="New search").click()
    expect(page.get_by_label("Reason")).to_have_value("missing person")
    page.get_by_role("button", name="Saved").click()
    answer = answered(page, lambda: page.get_by_role("button", name="Blue dress", exact=True).click())
    assert answer["request"]["purpose"] == {"reason": "missing person"}
    page.get_by_role("button", name="Saved").click()
    page.get_by_role("button", name="Remove Blue dress").click()
    expect(page.get_by_text("None yet.")).to_be_visible()


def test_the_keyboard_alone(page: Page) -> None:
    page.keyboard.press("/")
    expect(page.get_by_label("Describe the person")).to_be_focused()
    page.keyboard.type(ASKED)
    answered(page, lambda: page.keyboard.press("Enter"))
    expect(page.locator(".hit").first).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    expect(page.locator("[data-index='0'] > button")).to_be_focused()
    page.keyboard.press("j")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("k")
    focused = int(page.evaluate("document.activeElement.parentElement.dataset.index"))
    assert focused > 2, "a row further"
    page.keyboard.press("+")
    expect(page.get_by_role("region", name="Refine")).to_contain_text("1 like this")
    answered(page, lambda: page.keyboard.press("1"), "/verdicts")
    expect(page.locator(f"[data-index='{focused}'] .verdict.match")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.locator("dialog.viewer")).to_be_visible()
    page.keyboard.press("k")
    expect(page.get_by_role("dialog", name=f"Rank {focused}", exact=True)).to_be_visible()
    answered(page, lambda: page.keyboard.press("2"), "/verdicts")
    expect(page.get_by_role("button", name="No match", exact=True)).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Escape")
    expect(page.locator(f"[data-index='{focused - 1}'] > button")).to_be_focused()
    answer = answered(page, lambda: page.keyboard.press("r"), "/refinements")
    assert len(answer["request"]["query"]["positive_image_ids"]) == 1
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()


def test_a_service_that_is_away_and_comes_back(visit: Open, demo: Service) -> None:
    visited = visit(demo)
    visited.complaints = []
    page = visited.goto()
    expect(page.get_by_label("Describe the person")).to_be_visible()
    gone = re.compile(r"/(api|livez)")

    def fail(route: Route) -> None:
        route.abort()

    page.route(gone, fail)
    page.get_by_label("Describe the person").fill(ASKED)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="The service does not answer")).to_be_visible()
    page.unroute(gone, fail)
    answered(page, lambda: page.get_by_role("button", name="Try again").click())
    expect(page.locator(".hit").first).to_be_visible()
    visited.complaints = [text for text in visited.complaints if "ERR_FAILED" not in text]


def test_a_picture_that_is_refused_for_a_moment_comes_later(visit: Open, demo: Service) -> None:
    visited = visit(demo)
    visited.expected_statuses = {429}
    page = visited.goto()
    refused: set[str] = set()

    def refuse_once(route: Route) -> None:
        address = route.request.url
        if address in refused:
            route.fallback()
        else:
            refused.add(address)
            route.fulfill(status=429, headers={"Retry-After": "1"}, body="")

    page.route(re.compile("variant=thumb"), refuse_once)
    search(page, ASKED)
    expect(page.locator("[data-index='0'] img")).to_have_js_property("naturalWidth", 85)
    assert len(refused) > 10


def test_pictures_stay_in_no_cache_and_no_code_is_inline(page: Page, demo: Service) -> None:
    with page.expect_response(re.compile("variant=thumb")) as thumbnail:
        search(page, ASKED)
    assert "no-store" in thumbnail.value.headers["cache-control"]
    policy = demo.http.get("/").headers["Content-Security-Policy"]
    assert "unsafe" not in policy and policy.startswith("default-src 'none'")
    assert page.evaluate("Object.keys(localStorage).length") == 0, "nothing of a search is kept in the browser"


def test_the_bundle_is_small() -> None:
    import gzip

    scripts = list((PAGE / "assets").glob("*.js")) + list((PAGE / "assets").glob("*.css"))
    assert sum(len(gzip.compress(file.read_bytes())) for file in scripts) < 250_000
