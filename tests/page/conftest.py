"""The page in a real browser, on a real service: Chromium of the machine, driven by Playwright, and nothing outside.

`demo` has the shipped gallery and the shipped checkpoint; `crowd` has many images and a cheap encoder; `closed` wants
a sign-in. Each test ends by asserting that the page asked nobody but the service, and that the browser complained of
nothing. Pictures of the page are kept in the folder that PAGE_SCREENSHOTS names, if it names one.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright

from indexer import worker
from service.app import PAGE
from service.upload import open_upload
from tests.fake_encoder import GridFiles
from tests.service.accounts import EVERY_ROLE, key, user
from tests.service.conftest import Service, encoded, pixels, running_service, wait_until, zipped

ROOT = Path(__file__).parents[2]
GALLERY = ROOT / "service" / "demo_gallery"
SHIPPED = ROOT / "model" / "weights" / "axm_net_synth.safetensors"
AXE = ROOT / "service" / "page" / "node_modules" / "axe-core" / "axe.min.js"
SITES = {"platform-1": "Station", "platform-2": "Station", "ticket-hall": "Station", "stairs": "Station"}
# Between themes nothing changes but colours.
STANDARD = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
PATIENCE = 20_000  # milliseconds; two busy cores are slow, which is no bug
ROLES = {
    "olga": "operator",
    "ines": "investigator",
    "ivan": "investigator",
    "inge": "ingest",
    "axel": "auditor",
    "ada": "admin",
}

NOWHERE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--no-first-run", NOWHERE)  # fmt: skip


def chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    """For one file: its event loop would be in the way of tests elsewhere that start a service themselves."""
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    assert PAGE.exists(), "The page is not built: run `make page`."
    executable = chromium()
    here = executable is not None or Path(playwright.chromium.executable_path).exists()
    assert here, "There is no Chromium: `tests/page/chromium .venv/bin/python` gets one, or set CHROMIUM to yours."
    browser = playwright.chromium.launch(executable_path=executable, args=list(QUIET))
    yield browser
    browser.close()


class Visit:
    """One visitor of the page: a browser context of its own, and what it asked for and complained of."""

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        usual = {"viewport": {"width": 1280, "height": 800}, "locale": "en-GB", "timezone_id": "Europe/Berlin"}
        self.url = url
        self.context = browser.new_context(**{**usual, **options})
        self.context.set_default_timeout(PATIENCE)
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.expected_statuses: set[int] = set()
        self.context.on("request", lambda request: self.asked.append(request.url))
        self.page = self.open_page()

    def open_page(self) -> Page:
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on(
            "console", lambda message: message.type in ("error", "warning") and self.complaints.append(message.text)
        )
        return page

    def goto(self, fragment: str = "") -> Page:
        self.page.goto(f"{self.url}/{fragment}")
        return self.page

    def close(self) -> None:
        """Raises AssertionError if anything went elsewhere, or the browser complained of what was not expected."""
        self.context.close()
        for address in self.asked:
            parts = urlsplit(address)
            assert parts.scheme in ("blob", "data") or parts.hostname == "127.0.0.1", f"asked {address}"
        expected = [f"status of {status}" for status in self.expected_statuses]
        complaints = [text for text in self.complaints if not any(status in text for status in expected)]
        assert not complaints, complaints


Open = Callable[..., Visit]


@pytest.fixture
def visit(browser: Browser) -> Iterator[Open]:
    """`visit(service, **options of the browser context)` -> Visit"""
    opened: list[Visit] = []

    def open_visit(service: Service, **options: Any) -> Visit:
        opened.append(Visit(browser, str(service.http.base_url).rstrip("/"), **options))
        return opened[-1]

    yield open_visit
    for each in opened:
        each.close()


@contextmanager
def working(service: Service) -> Iterator[None]:
    """A worker that embeds whatever comes, as long as it lasts."""
    stop = threading.Event()
    run = (service.database, service.context.store, service.encoder, service.settings, stop)
    thread = threading.Thread(target=worker.run, args=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The shipped gallery, found by the shipped checkpoint."""
    from model.encoder import Encoder  # here, so that who runs other tests need not wait for torch

    folder = tmp_path_factory.mktemp("demo")
    changes = {"encoder": Encoder(SHIPPED, "cpu", 16), "max_ingestion_bytes": 2**26, "batch_size": 16}
    with running_service(folder, **changes) as service, working(service):
        cameras = {line.split('"camera_id": "')[1].split('"')[0] for line in (GALLERY / "metadata.jsonl").open()}
        for camera in sorted(cameras):
            body = {"id": camera, "name": camera.replace("-", " ").capitalize(), "site": SITES.get(camera, "Outside")}
            assert service.http.post("/api/v1/cameras", json=body).status_code == 201
        with open_upload(GALLERY) as upload:
            headers = {"Content-Type": upload.media_type}
            sent = service.http.post("/api/v1/ingestions", content=upload.chunks, headers=headers)
        assert sent.status_code == 202, sent.text
        wait_until(lambda: service.http.get(sent.headers["Location"]).json()["done"], "the gallery is embedded")
        ask = {"query": {"text": "a person"}, "limit": 1}
        wait_until(lambda: service.found(ask)["candidates"] == 300, "the gallery is found")
        yield service


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """620 small pictures, three a track, some known; an encoder that costs nothing, and a second one to upgrade to."""
    folder = tmp_path_factory.mktemp("crowd")
    with running_service(folder, files=GridFiles(folder / "files"), max_ingestion_bytes=2**25) as service:
        service.camera("north", "south")
        files = {f"{seed}.jpg": encoded(pixels(seed, 60, 24), "JPEG") for seed in range(620)}
        lines = [
            {
                "file": f"{seed}.jpg",
                "camera_id": "north" if seed % 3 else "south",
                "captured_at": f"2026-09-{1 + seed % 5:02}T{seed % 24:02}:{seed % 60:02}:00Z",
                "track_id": f"track-{seed // 3}",
                **({"identity": f"person-{seed % 40}"} if seed % 2 else {}),
            }
            for seed in range(620)
        ]
        assert service.ingest(zipped(files, lines))["counts"]["indexed"] == 620
        ask = {"query": {"text": "a person"}, "limit": 1}
        wait_until(lambda: service.found(ask)["candidates"] == 620, "the crowd is found")
        yield service


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with accounts, one of each role, and thirty images of two cameras."""
    with running_service(tmp_path_factory.mktemp("closed"), auth="required", rate_limit=0) as service:
        for name, role in ROLES.items():
            user(service, name, role)
        service.http.headers["Authorization"] = f"Bearer {key(service, *EVERY_ROLE)[0]}"
        service.camera("north", "south")
        for seed in range(30):
            camera = "north" if seed % 2 else "south"
            service.added(encoded(pixels(seed)), camera_id=camera, captured_at=f"2026-09-01T12:{seed:02}:00Z")
        service.embed()
        ask = {"query": {"text": "a person"}, "limit": 1}
        wait_until(lambda: service.found(ask)["candidates"] == 30, "all are found")
        yield service


def search(page: Page, text: str) -> None:
    """Type a description and wait for its ranking."""
    page.get_by_label("Describe the person").fill(text)
    with page.expect_response(lambda answer: answer.request.method == "POST" and answer.url.endswith("/searches")):
        page.keyboard.press("Enter")
    expect(page.locator(".hit").first).to_be_visible()
    expect(page.locator(".grid")).to_have_attribute("aria-busy", "false")


def answered(page: Page, act: Callable[[], object], path: str = "/searches") -> dict[str, Any]:
    """Do something that leads to a POST; its answer, once the page shows it."""
    with page.expect_response(lambda answer: answer.request.method == "POST" and answer.url.endswith(path)) as caught:
        act()
    body: dict[str, Any] = caught.value.json()
    if path == "/searches" and "id" in body:
        page.wait_for_function("id => location.hash.includes(id)", arg=body["id"])
    return body


def violations(page: Page) -> list[str]:
    """What axe finds, in both themes; it is given to the page by the test, not by the service."""
    if not page.evaluate("Boolean(window.axe)"):
        page.evaluate(AXE.read_text("utf-8"))
    found = []
    for theme, run in {
        "dark": {"type": "rule", "values": ["color-contrast"]},
        "light": {"type": "tag", "values": STANDARD},
    }.items():
        page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
        answer: dict[str, Any] = page.evaluate("run => window.axe.run(document, {runOnly: run})", run)
        found += [
            f"{theme}, {each['id']}: {[(node['html'][:160], node['failureSummary']) for node in each['nodes'][:3]]}"
            for each in answer["violations"]
        ]
    return found


def picture_kept(page: Page, name: str) -> None:
    if folder := os.environ.get("PAGE_SCREENSHOTS"):
        for image in page.locator("img").all():
            expect(image).to_have_js_property("complete", True)
        page.screenshot(path=Path(folder) / f"{name}.png")
