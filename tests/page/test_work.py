"""What is done with results, and by whom: verdicts, a case and its export, adding images, signing in, roles."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.page.conftest import ROLES, Open, Visit, answered, picture_kept, search, violations
from tests.service.accounts import PASSWORD
from tests.service.conftest import Service, encoded, pixels, zipped


def sign_in(page: Page, name: str, password: str = PASSWORD) -> None:
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def signed_in(visit: Open, service: Service, name: str) -> Visit:
    visited = visit(service)
    visited.expected_statuses = {401}  # the first question is who is there
    sign_in(visited.goto(), name)
    expect(visited.page.get_by_role("navigation", name="Pages")).to_be_visible()
    return visited


def test_a_case_from_two_peoples_verdicts_to_its_export(visit: Open, closed: Service, tmp_path: Path) -> None:
    page = signed_in(visit, closed, "ines").page
    search(page, "a man in red")
    page.locator("[data-index='0'] > button").click()
    answered(page, lambda: page.get_by_role("button", name="Match", exact=True).click(), "/verdicts")
    expect(page.get_by_role("button", name="Match", exact=True)).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Add to case").click()
    adding = page.get_by_role("dialog", name="Add to a case")
    adding.get_by_label("Case").select_option("A new case …")
    adding.get_by_label("Title").fill("File 12/2026")
    adding.get_by_label("Note").fill("the same bag")
    answered(page, lambda: adding.get_by_role("button", name="Add", exact=True).click(), "/items")
    expect(adding).to_be_hidden()
    page.keyboard.press("Escape")
    expect(page.get_by_label("Case")).to_have_value(re.compile("-"))

    page.get_by_role("link", name="Cases").click()
    page.get_by_role("link", name=re.compile("File 12.2026")).click()
    item = page.get_by_label("Items").get_by_role("listitem").first
    expect(item.get_by_label("Note on rank 1")).to_have_value("the same bag")
    expect(item.get_by_text("Undecided")).to_be_visible()
    page.get_by_label("A note").fill("Asked for more images of that hour.")
    answered(page, lambda: page.get_by_role("button", name="Add the note").click(), "/notes")
    expect(page.get_by_label("Notes")).to_contain_text("Asked for more images of that hour.")
    case = page.evaluate("location.hash").removeprefix("#/cases/")

    ivan = next(one for one in accounts(closed) if one["name"] == "ivan")
    with closed_admin(closed, "ines") as ines:
        joined = ines.post(f"/api/v1/cases/{case}/members", json={"person_id": ivan["id"], "name": "ivan"})
        assert joined.status_code in (200, 201), joined.text
    other = signed_in(visit, closed, "ivan").page
    other.goto(f"{other.url.split('#')[0]}#/cases/{case}")
    said = other.get_by_role("group", name="Verdict on rank 1")
    answered(other, lambda: said.get_by_role("button", name="Match", exact=True).click(), "/verdicts")
    answered(
        page,
        lambda: (
            page.get_by_role("group", name="Verdict on rank 1").get_by_role("button", name="Match", exact=True).click()
        ),
        "/verdicts",
    )
    expect(item.get_by_text("Confirmed")).to_be_visible()
    picture_kept(page, "case")
    assert violations(page) == []

    page.get_by_role("button", name="Export").click()
    export = page.get_by_role("dialog", name="Export the case")
    export.get_by_label(re.compile("Why it leaves")).fill("for the court")
    answered(page, lambda: export.get_by_role("button", name="Export").click(), "/exports")
    with page.expect_download() as download:
        export.get_by_role("link", name="Download the zip").click()
    download.value.save_as(tmp_path / "case.zip")
    with zipfile.ZipFile(tmp_path / "case.zip") as archive:
        assert archive.testzip() is None
        assert any(name.endswith(".png") for name in archive.namelist()), archive.namelist()
    export.get_by_role("button", name="Close").click()
    answered_patch(page)
    expect(page.get_by_role("button", name="Open it again")).to_be_visible()


def answered_patch(page: Page) -> None:
    with page.expect_response(lambda answer: answer.request.method == "PATCH"):
        page.get_by_role("button", name="Close the case").click()


def closed_admin(service: Service, name: str):  # type: ignore[no-untyped-def]
    from tests.service.accounts import sign_in as session

    return session(service, name)


def accounts(service: Service) -> list[dict[str, str]]:
    with closed_admin(service, "ada") as ada:
        users: list[dict[str, str]] = ada.get("/api/v1/users").json()["users"]
    return users


def faulty_zip() -> bytes:
    """Three good pictures, a broken one, one of a time without a zone, one that is not there."""
    files = {f"{seed}.png": encoded(pixels(1000 + seed)) for seed in range(3)} | {
        "broken.png": b"no picture",
        "zone.png": encoded(pixels(9)),
    }
    lines = [
        *({"file": f"{seed}.png", "camera_id": "north"} for seed in range(3)),
        {"file": "broken.png", "camera_id": "north"},
        {"file": "zone.png", "captured_at": "2026-09-01T12:00:00"},
        {"file": "missing.png"},
    ]
    return zipped(files, lines)


def test_a_zip_with_bad_files_and_why_each_was_left_out(visit: Open, closed: Service) -> None:
    visited = signed_in(visit, closed, "inge")
    page = visited.page
    expect(page.get_by_role("heading", name="Add images")).to_be_visible()
    sent = {"name": "delivery.zip", "mimeType": "application/zip", "buffer": faulty_zip()}
    page.get_by_label("Archive").set_input_files(sent)  # type: ignore[arg-type]
    before = page.get_by_label("Before sending")
    expect(before).to_contain_text("4 images look fine, 2 would be rejected")
    expect(before).to_contain_text("The time has no zone")
    expect(before).to_contain_text("The file is not in the delivery.")
    picture_kept(page, "before-sending")
    assert violations(page) == []
    before.get_by_role("button", name="Add the images").click()
    expect(page.get_by_role("button", name=re.compile(r"Rejected 3"))).to_be_visible()
    closed.embed()
    expect(page.get_by_role("heading", name="Done, with some left out")).to_be_visible()
    table = page.get_by_label("Items", exact=True)
    for file in ("broken.png", "zone.png", "missing.png"):
        row = table.get_by_role("row", name=re.compile(re.escape(file)))
        assert len(row.inner_text()) > len(file) + 20, "and why"
    picture_kept(page, "delivery")
    assert violations(page) == []
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the list").click()
    listed = Path(download.value.path()).read_bytes()
    assert listed.count(b"\r\n") == 4 and b"broken.png" in listed
    page.get_by_role("button", name=re.compile("Searchable 3")).click()
    expect(table.get_by_role("row")).to_have_count(4)


def test_an_archive_that_is_none_is_refused_before_it_is_sent(visit: Open, closed: Service) -> None:
    page = signed_in(visit, closed, "inge").page
    broken = {"name": "broken.zip", "mimeType": "application/zip", "buffer": b"PK\x03\x04 and no more"}
    page.get_by_label("Archive").set_input_files(broken)  # type: ignore[arg-type]
    expect(page.get_by_text("This is not a zip")).to_be_visible()
    empty = io.BytesIO()
    with zipfile.ZipFile(empty, "w") as archive:
        archive.writestr("a/b/metadata.jsonl", json.dumps({"file": "x.png"}))
    nested = {"name": "nested.zip", "mimeType": "application/zip", "buffer": empty.getvalue()}
    page.get_by_label("Archive").set_input_files(nested)  # type: ignore[arg-type]
    expect(page.get_by_text("There is no metadata.jsonl at the root")).to_be_visible()
    expect(page.get_by_role("button", name="Add the images")).to_be_disabled()


PLACES = {
    "operator": ["Search", "System"],
    "investigator": ["Search", "Cases", "System"],
    "ingest": ["Add images", "System"],
    "auditor": ["System", "Audit"],
    "admin": ["System", "Accounts"],
}


@pytest.mark.parametrize("name", ["olga", "ines", "inge", "axel", "ada"])
def test_everybody_sees_their_places(visit: Open, closed: Service, name: str) -> None:
    visited = signed_in(visit, closed, name)
    visited.expected_statuses = {401, 403}
    page = visited.page
    links = page.get_by_role("navigation", name="Pages").get_by_role("link")
    expect(links).to_have_text(PLACES[ROLES[name]])
    if name == "axel":
        page.get_by_role("link", name="Audit").click()
        page.get_by_role("button", name="Verify").click()
        expect(page.get_by_text("The chain is sound")).to_be_visible()
        page.get_by_label("Did what").fill("session.begin")
        page.get_by_role("button", name="Show").click()
        expect(page.get_by_role("table")).to_be_visible()
    elsewhere = "#/accounts" if name != "ada" else "#/search"
    visited.goto(elsewhere)
    expect(page.get_by_role("heading", name="Not for your account")).to_be_visible()


def test_signing_in_wrongly_rightly_and_out(visit: Open, closed: Service) -> None:
    visited = visit(closed)
    visited.expected_statuses = {401}
    page = visited.goto()
    sign_in(page, "olga", "not the password")
    expect(page.get_by_role("alert")).to_be_visible()
    sign_in(page, "olga")
    expect(page.get_by_role("button", name="olga")).to_be_visible()
    search(page, "a person")
    page.get_by_role("button", name="olga").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert page.locator(".hit").count() == 0
    page.reload()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_session_that_ends_asks_to_sign_in_and_goes_on(visit: Open, closed: Service) -> None:
    visited = signed_in(visit, closed, "olga")
    page = visited.page
    search(page, "a man in red")
    visited.context.clear_cookies()
    page.get_by_label("Describe the person").fill("a woman in green")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Your session has ended")).to_be_visible()
    sign_in(page, "olga")
    expect(page.locator(".hit").first).to_be_visible()


def test_an_account_is_made_and_a_key_is_shown_once(visit: Open, closed: Service) -> None:
    page = signed_in(visit, closed, "ada").page
    page.get_by_role("link", name="Accounts").click()
    page.get_by_role("button", name="Add somebody").click()
    new = page.get_by_role("dialog", name="A new account")
    new.get_by_label("Name").fill("robin")
    new.get_by_label(re.compile("Password")).fill("quiet-anvil-lantern-3")
    answered(page, lambda: new.get_by_role("button", name="Create").click(), "/users")
    expect(page.get_by_role("row", name=re.compile("robin operator"))).to_be_visible()
    page.get_by_role("button", name="Make a key").click()
    key = page.get_by_role("dialog", name="A key for a machine")
    key.get_by_label("Name").fill("intake north")
    answered(page, lambda: key.get_by_role("button", name="Make the key").click(), "/api-keys")
    expect(key.get_by_text(re.compile("^psk_"))).to_be_visible()
    key.get_by_role("button", name="I have it").click()
    page.get_by_role("button", name="Revoke intake north").click()
    expect(page.get_by_role("row", name=re.compile("intake north")).get_by_text("revoked")).to_be_visible()


def test_cameras_are_added_changed_and_removed(visit: Open, closed: Service) -> None:
    page = signed_in(visit, closed, "ada").page
    page.get_by_role("link", name="System").click()
    page.get_by_role("button", name="Add a camera").click()
    page.get_by_label("Id, as images name it").fill("east")
    page.get_by_label("Site").fill("Arcade")
    answered(page, lambda: page.get_by_role("button", name="Save").click(), "/cameras")
    expect(page.get_by_role("row", name=re.compile("east Arcade 0"))).to_be_visible()
    page.get_by_role("button", name="Change east").click()
    page.get_by_role("button", name="Remove").click()
    expect(page.get_by_role("row", name=re.compile("east"))).to_have_count(0)
