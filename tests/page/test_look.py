"""How the page looks to everybody: axe in both themes, 200 % zoom, reduced motion, wide screens."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.page.conftest import Open, answered, picture_kept, search, violations
from tests.service.conftest import Service

PAGES = ("search", "add", "cases", "system", "audit", "accounts")


def test_axe_finds_nothing_in_either_theme(visit: Open, demo: Service) -> None:
    visited = visit(demo)
    page = visited.goto()
    found: dict[str, list[str]] = {}

    def look(what: str) -> None:
        page.wait_for_load_state("networkidle")
        found[what] = violations(page)
        picture_kept(page, what)

    look("empty")
    search(page, "a woman in a blue dress with a red zorblax")
    look("results")
    for chip in ("Cameras", "Dates", "Time of day", "Tags", "Identity"):
        page.get_by_role("button", name=chip, exact=True).click()
        look(chip)
        page.keyboard.press("Escape")
    page.locator("[data-index='1'] > button").focus()
    page.keyboard.press("+")
    look("marked")
    page.keyboard.press("Enter")
    page.get_by_text("Which words met what").click()
    page.get_by_text("Provenance").click()
    look("one")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    look("keyboard")
    page.keyboard.press("Escape")
    for name in PAGES[1:]:
        visited.goto(f"#/{name}")
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        look(name)
    assert {what: each for what, each in found.items() if each} == {}


def test_axe_finds_nothing_at_the_door(visit: Open, closed: Service) -> None:
    visited = visit(closed)
    visited.expected_statuses = {401}
    page = visited.goto("#setup=a-token")
    expect(page.get_by_role("heading", name="Create the first user")).to_be_visible()
    assert page.evaluate("location.hash") == "#/search", "the token stays in no history"
    assert violations(page) == []


def test_everything_works_at_200_percent_zoom_and_without_motion(visit: Open, demo: Service) -> None:
    """200 % zoom of a 1280 x 800 window is a window of 640 x 400 with twice the pixels."""
    visited = visit(demo, viewport={"width": 640, "height": 400}, device_scale_factor=2, reduced_motion="reduce")
    page = visited.goto()
    search(page, "a woman in a blue dress with a red handbag")
    picture_kept(page, "zoom-results")
    page.get_by_role("button", name="Cameras", exact=True).click()
    answered(page, lambda: page.get_by_label(re.compile("^Ticket hall")).check())
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Cameras: Ticket hall")).to_be_visible()
    expect(page.locator(".grid")).to_have_attribute("aria-busy", "false")
    page.locator("[data-index='0'] > button").click()
    for name in ("Match", "More like this"):
        page.get_by_role("button", name=name, exact=True).scroll_into_view_if_needed()
        expect(page.get_by_role("button", name=name, exact=True)).to_be_in_viewport()
    page.get_by_label("Neighbours in time").scroll_into_view_if_needed()
    picture_kept(page, "zoom-one")
    page.keyboard.press("Escape")
    for name in PAGES:
        visited.goto(f"#/{name}")
        expect(page.get_by_role("heading", level=1)).to_be_attached()
        page.wait_for_load_state("networkidle")
        wide = page.evaluate("document.querySelector('main').scrollWidth - document.querySelector('main').clientWidth")
        assert wide <= 0, f"{name} scrolls sideways"
        picture_kept(page, f"zoom-{name}")
    motion = page.evaluate(
        "[...document.getAnimations()].filter(animation => animation.playState === 'running').length"
    )
    assert motion == 0


def test_a_wide_screen_holds_more_in_a_row(visit: Open, demo: Service) -> None:
    columns = []
    for width in (1280, 1920):
        page = visit(demo, viewport={"width": width, "height": 1080}).goto()
        search(page, "a man in an orange jacket carrying a white backpack")
        columns.append(
            page.evaluate("getComputedStyle(document.querySelector('.cards')).gridTemplateColumns.split(' ').length")
        )
        picture_kept(page, f"results-{width}")
    assert columns[1] > columns[0] >= 8
