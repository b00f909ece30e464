"""Settings: which source wins, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field, ValidationError

from indexer import settings as settings_module
from indexer.errors import InvalidSettings
from indexer.settings import GallerySettings, refuse_unknown_variables


class Larger(GallerySettings):
    """As the service adds to the gallery's settings."""

    port: int = Field(8000, gt=0)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in os.environ:
        if name.upper().startswith("PERSON_SEARCH_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(settings_module, "SECRETS_DIR", tmp_path / "secrets")


def test_defaults() -> None:
    settings = GallerySettings()
    assert settings.database_url is None and settings.data_dir == Path("person-search-data")
    assert (settings.device, settings.index, settings.max_image_bytes) == ("auto", "flat", 20 * 1024 * 1024)


def test_secret_file_wins_over_environment_and_is_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PERSON_SEARCH_DATABASE_URL", "postgresql://environment")
    monkeypatch.setenv("PERSON_SEARCH_BATCH_SIZE", "7")
    url = GallerySettings().database_url
    assert url is not None and url.get_secret_value() == "postgresql://environment"
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "person_search_database_url").write_text("postgresql://user:hidden@host/name\n")
    settings = GallerySettings()
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == "postgresql://user:hidden@host/name"
    assert "hidden" not in repr(settings) and "hidden" not in str(settings.model_dump_json())
    assert settings.batch_size == 7
    assert GallerySettings(batch_size=9).batch_size == 9


@pytest.mark.parametrize(
    ("name", "value"),
    [("BATCH_SIZE", "0"), ("BATCH_SIZE", "many"), ("DEVICE", "tpu"), ("LEASE_SECONDS", "-1"), ("POLL_SECONDS", "nan")],
)
def test_impossible_value_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"PERSON_SEARCH_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        GallerySettings()


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        GallerySettings().batch_size = 3  # type: ignore[misc]


def test_unknown_variable_is_refused_with_its_name_and_the_likely_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSON_SEARCH_DEVICE", "cpu")
    refuse_unknown_variables(GallerySettings)
    monkeypatch.setenv("PERSON_SEARCH_BATCHSIZE", "3")
    with pytest.raises(InvalidSettings, match=r"PERSON_SEARCH_BATCHSIZE .*did you mean PERSON_SEARCH_BATCH_SIZE"):
        refuse_unknown_variables(GallerySettings)


def test_variables_of_the_larger_program_are_known_to_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSON_SEARCH_PORT", "9000")
    refuse_unknown_variables(Larger)
    assert Larger().port == 9000
    with pytest.raises(InvalidSettings, match="PERSON_SEARCH_PORT"):
        refuse_unknown_variables(GallerySettings)


def test_unknown_secret_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "somebody_elses").touch()
    (tmp_path / "secrets" / "person_search_batch_size").write_text("5")
    refuse_unknown_variables(GallerySettings)
    assert GallerySettings().batch_size == 5
    (tmp_path / "secrets" / "person_search_databse_url").touch()
    with pytest.raises(InvalidSettings, match="person_search_databse_url"):
        refuse_unknown_variables(GallerySettings)
