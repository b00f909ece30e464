"""What can be configured about the service, on top of the gallery's settings: read from the environment, once."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from indexer.settings import GallerySettings, GiB, MiB
from service.schemas import SEARCH_LIMIT_MAX

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class ServiceSettings(GallerySettings):
    """Where to listen, who may come in, how much to accept, how much to log."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="0 picks a free one")
    allowed_hosts: tuple[str, ...] = Field((), description="further host names to answer for, as a JSON list")

    auth: Literal["required", "open"] = Field("required", description="open: anybody may do anything; loopback only")
    session_hours: float = Field(12, gt=0, le=720, description="until somebody has to sign in again")
    session_idle_minutes: float = Field(60, gt=1, description="without a request, until a session ends")
    api_key_days_max: int = Field(366, gt=0, description="how long an API key may be good at most")
    rate_limit: float = Field(50, ge=0, description="requests a second of one user or key, in the long run; 0: any")
    rate_limit_burst: int = Field(500, gt=0, description="requests one user or key may send at once")
    sign_in_failures: int = Field(5, gt=0, description="wrong passwords before each further one costs a pause")

    max_upload_bytes: int = Field(24 * MiB, gt=0, description="of a whole request with an image")
    max_ingestion_bytes: int = Field(4 * GiB, gt=0, description="of one archive")
    max_checkpoint_bytes: int = Field(4 * GiB, gt=0, description="of a checkpoint's file that is registered")
    ingestion_queue: int = Field(8, gt=0, description="archives that may wait for their turn")
    search_limit_max: int = Field(SEARCH_LIMIT_MAX, ge=1, le=SEARCH_LIMIT_MAX, description="results of one search")
    ranking_max: int = Field(10_000, ge=1, le=100_000, description="how much of a ranking is kept for paging")
    min_free_bytes: int = Field(256 * MiB, ge=0, description="with less free disk nothing is accepted any more")
    sweep_seconds: float = Field(3600, gt=0, description="between two sweeps of what is too old or left behind")
    orphan_grace_seconds: float = Field(86_400, ge=0, description="how old a file that no image shows must be to go")
    purpose_policy: Literal["off", "optional", "required"] = Field(
        "optional", description="whether a search has to say why: a case, a reason, or both"
    )
    verdicts_needed: int = Field(2, ge=1, le=10, description="people who must agree before a match is confirmed")
    case_export_hours: float = Field(24, gt=0, le=720, description="how long the export of a case can be fetched")

    request_deadline_seconds: float = Field(30, gt=0, le=3600, description="for a search, waiting included")
    search_slots: int = Field(24, gt=0, description="searches that are worked on at the same time")
    search_queue: int = Field(64, ge=0, description="searches that may wait for their turn")
    readiness_seconds: float = Field(2, ge=0, description="how long an answer of /readyz is good for")
    shutdown_seconds: float = Field(10, gt=0, description="that requests under way have to finish when told to stop")
    shutdown_notice_seconds: float = Field(
        0, ge=0, description="how long /readyz says so before connections are refused, for a load balancer to notice"
    )
    metrics_host: str = Field("127.0.0.1", description="address of /metrics, never the public one")
    metrics_port: int = Field(9464, ge=0, le=65535, description="of /metrics of the service; 0: none")
    worker_metrics_port: int = Field(9465, ge=0, le=65535, description="of /metrics of a worker; 0: none")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level of a line")

    @model_validator(mode="after")
    def stay_on_this_machine(self) -> ServiceSettings:
        if self.host not in LOOPBACK and self.auth == "open":
            raise ValueError(
                f"The service would listen on {self.host}, where others reach it, but is open: anybody could search, "
                "add and delete images. Listen on 127.0.0.1, or set PERSON_SEARCH_AUTH=required."
            )
        return self

    @property
    def answers_for(self) -> frozenset[str]:
        """Host names a request may use; any other is a page elsewhere that points its name at this address."""
        named = {self.host} - {"0.0.0.0", "::"}
        return frozenset(host.lower().strip("[]") for host in LOOPBACK | named | set(self.allowed_hosts))
