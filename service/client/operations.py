"""What was done by whom, and how the service is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import BinaryIO

from service.audit_schemas import AuditEvent, AuditEvents, AuditVerification
from service.client.connection import Connection, Id, at
from service.schemas import Liveness, Readiness, Version


class Operations(Connection):
    def audit_events(
        self,
        *,
        actor: str | None = None,
        action: str | None = None,
        object_kind: str | None = None,
        object_id: Id | None = None,
        case_id: Id | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        limit: int | None = None,
    ) -> Iterator[AuditEvent]:
        """Acts that meet all that is asked for, the newest first; `limit` a page."""
        pages = self._pages(
            AuditEvents,
            at("audit-events"),
            "before",
            actor=actor,
            action=action,
            object_kind=object_kind,
            object_id=object_id,
            case_id=case_id,
            since=since,
            until=until,
            limit=limit,
        )
        for page in pages:
            yield from page.events

    def verify_audit(self) -> AuditVerification:
        """Have the whole chain read again. A chain that is not whole is an answer, too: `sound` is false."""
        return self._ask(AuditVerification, "GET", at("audit-events", "verification"), timeout=None)

    def download_audit(self, file: BinaryIO) -> None:
        """Write all of the audit as JSON lines into a file that is open for writing."""
        self._download(at("audit-events", "export"), file)

    def alive(self) -> bool:
        return self._ask(Liveness, "GET", "/livez").alive

    def ready(self) -> Readiness:
        """The checks, if all that are required pass. Raises ServiceError, at once, with those that do not."""
        return self._ask(Readiness, "GET", "/readyz", retry=False)

    def version(self) -> Version:
        """Which program and which checkpoint answer."""
        return self._ask(Version, "GET", "/version")
