"""`person-search config`: every setting with its source and meaning, and a check that tries them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer import settings as settings_module
from service import cli, config_cli
from service.settings import ServiceSettings
from tests.postgres_fixtures import fresh_database

SETTINGS = Path(__file__).parents[2] / "docs" / "settings.md"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run `person-search config ARGUMENTS` with no setting but those the test makes."""
    for name in os.environ:
        if name.upper().startswith("PERSON_SEARCH_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(settings_module, "SECRETS_DIR", tmp_path / "secrets")

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["person-search", "config", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return call


def test_the_committed_list_of_settings_is_current() -> None:
    current = config_cli.HEADER + "\n".join(config_cli.documented()) + "\n"
    assert SETTINGS.read_text("utf-8") == current, "python -m service.config_cli > docs/settings.md"


def test_every_setting_says_what_it_is_for() -> None:
    assert [name for name, field in ServiceSettings.model_fields.items() if not field.description] == []


def test_show_tells_value_source_and_meaning_and_hides_secrets(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "person_search_database_url").write_text("postgresql://somebody:hunter2@db/x")
    monkeypatch.setenv("PERSON_SEARCH_DATABASE_URL", "postgresql://somebody:hunter3@db/x")
    monkeypatch.setenv("PERSON_SEARCH_BATCH_SIZE", "7")
    monkeypatch.setenv("PERSON_SEARCH_INTAKE_ROOTS", '["/srv/[red]deliveries"]')
    status, out, _ = run("show")
    assert status == 0 and "hunter" not in out
    told = {line.split("=")[0]: line for line in out.splitlines()}
    assert set(told) == {f"PERSON_SEARCH_{name.upper()}" for name in ServiceSettings.model_fields}
    assert told["PERSON_SEARCH_BATCH_SIZE"].startswith("PERSON_SEARCH_BATCH_SIZE=7 ")
    assert "# environment: images, or texts" in told["PERSON_SEARCH_BATCH_SIZE"]
    assert "# secret file: " in told["PERSON_SEARCH_DATABASE_URL"]
    assert "# default: address to listen on" in told["PERSON_SEARCH_HOST"]
    assert '=["/srv/[red]deliveries"]' in told["PERSON_SEARCH_INTAKE_ROOTS"]

    status, out, _ = run("show", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert rows["PERSON_SEARCH_BATCH_SIZE"]["source"] == "environment"
    assert rows["PERSON_SEARCH_DATABASE_URL"]["value"] == "**********"


def test_what_is_shown_can_be_set_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSON_SEARCH_INTAKE_ROOTS", '["/srv/deliveries"]')
    monkeypatch.setenv("PERSON_SEARCH_AUTH", "open")
    rows = json.loads(run("show", "--json")[1])
    before = ServiceSettings()
    for row in rows:
        if row["value"]:
            monkeypatch.setenv(row["name"], row["value"])
    assert ServiceSettings() == before


@pytest.mark.parametrize("command", ["show", "check"])
def test_a_mistyped_variable_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("PERSON_SEARCH_SEARCH_SLOT", "3")
    status, _, err = run(command)
    assert status == 1 and "did you mean PERSON_SEARCH_SEARCH_SLOTS" in " ".join(err.split())


def test_check_tries_what_is_configured(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PERSON_SEARCH_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PERSON_SEARCH_DEVICE", "cpu")
    with fresh_database() as database:
        monkeypatch.setenv("PERSON_SEARCH_DATABASE_URL", database.url)
        status, out, _ = run("check")
    assert status == 0, out
    assert "PostgreSQL" in out and "wrong" not in out
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("DATABASE_URL", "postgresql://127.0.0.1:1/x", "database: The database cannot be reached"),
        ("DATABASE_URL", "mysql://h/x", "must be PostgreSQL"),
        ("CHECKPOINT", "/nowhere/net.safetensors", "checkpoint: "),
        ("INTAKE_ROOTS", '["/nowhere"]', "/nowhere is no folder"),
        ("POSTGRES_BIN", "/nowhere", "There is no PostgreSQL in /nowhere"),
        ("DATA_DIR", "/dev/null/data", "data folder: /dev/null is no folder that can be written to"),
    ],
)
def test_check_names_what_is_wrong(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv("PERSON_SEARCH_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("PERSON_SEARCH_MIN_FREE_BYTES", "0")
    monkeypatch.setenv(f"PERSON_SEARCH_{name}", value)
    status, out, _ = run("check")
    assert status == 1 and sentence in " ".join(out.split())


def test_check_tells_of_a_disk_that_is_full(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PERSON_SEARCH_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("PERSON_SEARCH_MIN_FREE_BYTES", str(2**60))
    status, out, _ = run("check")
    assert status == 1 and "MiB of disk are free" in " ".join(out.split())
