"""Erasures, legal holds, retention, and which checkpoint answers searches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from service.checkpoint_schemas import (
    ActivationRequest,
    CheckpointDetail,
    CheckpointList,
    CheckpointResponse,
    GateReport,
    GateRequest,
    RollbackRequest,
)
from service.client.connection import Connection, Id, Json, at, given
from service.client.ingesting import chunks_of
from service.governance_schemas import (
    ErasureList,
    ErasureRequest,
    ErasureResponse,
    HoldList,
    HoldRequest,
    HoldResponse,
    PolicyList,
    PolicyRequest,
    PolicyResponse,
)


class Governing(Connection):
    def erase(self, request: ErasureRequest | Json) -> ErasureResponse:
        """Erase images for good, and everything about them; with `dry_run` only count. Gives the receipt."""
        return self._ask(ErasureResponse, "POST", at("erasures"), request, timeout=None)

    def erasures(self, limit: int | None = None) -> Iterator[ErasureResponse]:
        """Receipts, the newest first; `limit` a page."""
        for page in self._pages(ErasureList, at("erasures"), "before", limit=limit):
            yield from page.erasures

    def erasure(self, erasure_id: Id) -> ErasureResponse:
        return self._ask(ErasureResponse, "GET", at("erasures", erasure_id))

    def place_hold(self, request: HoldRequest | Json) -> HoldResponse:
        """Let nobody erase these images, nor those that arrive later and are meant, too."""
        return self._ask(HoldResponse, "POST", at("legal-holds"), request)

    def holds(self) -> list[HoldResponse]:
        return self._ask(HoldList, "GET", at("legal-holds")).legal_holds

    def lift_hold(self, hold_id: Id) -> None:
        self.request("DELETE", at("legal-holds", hold_id))

    def retention_policies(self) -> list[PolicyResponse]:
        return self._ask(PolicyList, "GET", at("retention-policies")).retention_policies

    def set_retention(self, request: PolicyRequest | Json) -> PolicyResponse:
        """Keep images of a camera, or of all cameras without a policy, for so many days."""
        return self._ask(PolicyResponse, "PUT", at("retention-policies"), request)

    def remove_retention(self, camera_id: str | None = None) -> None:
        """Remove the policy of a camera, or the default."""
        self.request("DELETE", at("retention-policies"), params=given(camera_id=camera_id))

    def checkpoints(self) -> list[CheckpointResponse]:
        return self._ask(CheckpointList, "GET", at("checkpoints"), timeout=None).checkpoints

    def checkpoint(self, checkpoint_id: str) -> CheckpointDetail:
        return self._ask(CheckpointDetail, "GET", at("checkpoints", checkpoint_id), timeout=None)

    def register_checkpoint(self, file: BinaryIO) -> CheckpointResponse:
        """Send a checkpoint's file, open for reading; the workers begin to embed the gallery with it."""
        headers = {"Content-Type": "application/octet-stream"}
        arguments = {"content": chunks_of(file), "headers": headers, "timeout": None}
        return self._ask(CheckpointResponse, "POST", at("checkpoints"), **arguments)

    def judge_checkpoint(self, checkpoint_id: str, request: GateRequest | Json | None = None) -> GateReport:
        """Compare a candidate with the active checkpoint; nothing changes."""
        return self._ask(GateReport, "POST", at("checkpoints", checkpoint_id, "gate"), request or {}, timeout=None)

    def activate_checkpoint(
        self, checkpoint_id: str, request: ActivationRequest | Json | None = None
    ) -> CheckpointResponse:
        """Have searches answered by a candidate, if the gate lets it pass."""
        path = at("checkpoints", checkpoint_id, "activate")
        return self._ask(CheckpointResponse, "POST", path, request or {}, timeout=None)

    def roll_back_checkpoint(
        self, checkpoint_id: str, request: RollbackRequest | Json | None = None
    ) -> CheckpointResponse:
        """Leave this checkpoint, which must be active, for the one before it, which is the answer."""
        path = at("checkpoints", checkpoint_id, "rollback")
        return self._ask(CheckpointResponse, "POST", path, request or {}, timeout=None)

    def retire_checkpoint(self, checkpoint_id: str) -> CheckpointResponse:
        """Remove the embeddings and the file of a checkpoint that is not active."""
        return self._ask(CheckpointResponse, "POST", at("checkpoints", checkpoint_id, "retire"), timeout=None)
