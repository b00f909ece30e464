"""What can be configured about a gallery: read once, from the environment and from /run/secrets, and never changed.

Defaults < environment variables `PERSON_SEARCH_*` < files of the same names in /run/secrets. A name nobody knows stops
the start: a mistyped setting must not silently fall back to its default.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SecretsSettingsSource, SettingsConfigDict

from indexer.errors import InvalidSettings

PREFIX = "PERSON_SEARCH_"
SECRETS_DIR = Path("/run/secrets")

OF_CLIENTS = {PREFIX + "API_KEY"}  # read by the command line alone, but perhaps set where a service is started, too

MiB = 1024**2
GiB = 1024**3


class GallerySettings(BaseSettings):
    """Database, image store, worker and index. The service adds its own settings to these."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", validate_default=True)

    database_url: SecretStr | None = Field(None, description="PostgreSQL 15 or newer; empty: one runs in data_dir")
    data_dir: Path = Field(Path("person-search-data"), description="image files and the embedded database")
    postgres_bin: Path | None = Field(None, description="folder of initdb and postgres for the embedded database")
    database_wait_seconds: float = Field(60, gt=0, description="how long a start waits for the database")

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`cuda` never silently becomes the CPU")
    checkpoint: Path | None = Field(None, description="file a new gallery begins with; empty: the one shipped")
    index: str = Field(
        "flat",
        description="flat: exact, all in memory; compressed: a quarter of the memory, on disk else; milvus: elsewhere",
    )
    milvus_uri: str | None = Field(None, description="with `index=milvus`, as http://milvus:19530")
    milvus_token: SecretStr | None = Field(None, description="user:password, or an API key, if Milvus wants one")
    milvus_prefix: str = Field(
        "person_search",
        pattern=r"^[A-Za-z](_?[A-Za-z0-9])*$",
        description="of the collections; each gallery in one Milvus needs its own",
    )
    milvus_index: Literal["flat", "hnsw"] = Field("flat", description="flat: exact; hnsw: faster, may miss some")
    index_snapshot_seconds: float = Field(60, ge=0, description="how often a changed index goes to disk; 0: never")
    index_check_seconds: float = Field(60, gt=0, description="how often the index is compared with the database")

    max_image_bytes: int = Field(20 * MiB, gt=0, description="of one image file")
    max_image_pixels: int = Field(40_000_000, gt=0, description="width times height")
    min_image_side: int = Field(8, gt=0, description="pixels; a shorter side shows nobody")
    archive_max_entries: int = Field(100_000, gt=0, description="images of one delivery")
    archive_max_total_bytes: int = Field(20 * GiB, gt=0, description="of all files of an archive, unpacked")
    archive_max_ratio: int = Field(200, gt=0, description="unpacked bytes per packed byte")
    archive_max_depth: int = Field(32, gt=0, description="folders above a file")
    manifest_max_line_bytes: int = Field(64 * 1024, ge=1024, description="of one line of metadata.jsonl")
    intake_roots: tuple[str, ...] = Field((), description="folders and object stores whose manifests may be named")

    overlap_warning: float = Field(0.5, ge=0, le=1, description="the gate warns when old and new top ten share less")
    rank1_drop: float = Field(0.02, ge=0, le=1, description="the gate refuses when labelled Rank-1 falls by more")

    lease_seconds: float = Field(60, gt=0, le=3600, description="how long a worker may be silent about its images")
    batch_size: int = Field(32, gt=0, description="images, or texts, that are embedded together")
    decode_threads: int = Field(2, gt=0, description="of a worker, that open images while others are embedded")
    max_attempts: int = Field(4, gt=0, description="how often an image may take its worker down before it is given up")
    poll_seconds: float = Field(0.5, gt=0, description="how often worker and index ask for what is new")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The first source wins. No .env file is read: it would depend on the folder one happens to stand in."""
        if not SECRETS_DIR.is_dir():
            return init_settings, env_settings
        return init_settings, SecretsSettingsSource(settings_cls, secrets_dir=SECRETS_DIR), env_settings


def refuse_unknown_variables(settings_class: type[BaseSettings]) -> None:
    """Raise `InvalidSettings` if the environment or /run/secrets has a `PERSON_SEARCH_*` the class does not know."""
    known = {PREFIX + name.upper() for name in settings_class.model_fields}
    given = list(os.environ)
    if SECRETS_DIR.is_dir():
        given += [path.name for path in SECRETS_DIR.iterdir()]
    unknown = sorted(
        {name for name in given if name.upper().startswith(PREFIX) and name.upper() not in known | OF_CLIENTS}
    )
    if not unknown:
        return
    sentences = []
    for name in unknown:
        near = difflib.get_close_matches(name.upper(), known, n=1)
        sentences.append(f"{name} is not a setting" + (f", did you mean {near[0]}?" if near else "."))
    raise InvalidSettings(" ".join(sentences) + " Remove or correct it; `person-search config show` lists them all.")
