"""What can be configured about the service, on top of the gallery's settings: read from the environment, once."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from indexer.settings import GallerySettings, GiB, MiB
from service.schemas import SEARCH_LIMIT_MAX

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class ServiceSettings(GallerySettings):
    """Where to listen, how much to accept, how much to log."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="0 picks a free one")
    allow_remote: bool = Field(False, description="listen beyond this machine although there is no authentication")
    allowed_hosts: tuple[str, ...] = Field((), description="further host names to answer for, as a JSON list")

    max_upload_bytes: int = Field(24 * MiB, gt=0, description="of a whole request with an image")
    max_ingestion_bytes: int = Field(4 * GiB, gt=0, description="of one archive")
    max_checkpoint_bytes: int = Field(4 * GiB, gt=0, description="of a checkpoint's file that is registered")
    ingestion_queue: int = Field(8, gt=0, description="archives that may wait for their turn")
    search_limit_max: int = Field(SEARCH_LIMIT_MAX, ge=1, le=SEARCH_LIMIT_MAX, description="results of one search")
    ranking_max: int = Field(10_000, ge=1, le=100_000, description="how much of a ranking is kept for paging")
    min_free_bytes: int = Field(256 * MiB, ge=0, description="with less free disk nothing is accepted any more")
    sweep_seconds: float = Field(3600, gt=0, description="between two sweeps of what is too old or left behind")
    orphan_grace_seconds: float = Field(86_400, ge=0, description="how old a file that no image shows must be to go")
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def stay_on_this_machine(self) -> ServiceSettings:
        if self.host not in LOOPBACK and not self.allow_remote:
            raise ValueError(
                f"The service would listen on {self.host}, where others reach it, but it has no authentication yet: "
                "anybody could search, add and delete images. Listen on 127.0.0.1, or set "
                "PERSON_SEARCH_ALLOW_REMOTE=true if another layer keeps strangers out."
            )
        return self

    @property
    def answers_for(self) -> frozenset[str]:
        """Host names a request may use; any other is a page elsewhere that points its name at this address."""
        named = {self.host} - {"0.0.0.0", "::"}
        return frozenset(host.lower().strip("[]") for host in LOOPBACK | named | set(self.allowed_hosts))
