"""What a filter names must exist, for whoever asks: a mistyped camera or zone must fail, not empty the answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy.orm import Session

from indexer import gallery
from indexer.filters import Scope, TimeOfDay, time_zones
from service.errors import Refusal
from service.filter_schemas import Clause, Filter


def refuse_unknown(session: Session, wanted: Filter, scope: Scope = None) -> None:
    """Raises Refusal for a camera that is not there, or not in the scope, and for a time zone nobody knows."""
    for pointer, clause in [("/filter", wanted), *((f"/filter/any/{i}", c) for i, c in enumerate(wanted.any or ()))]:
        if unknown := gallery.unknown_cameras(session, sorted(_cameras(clause)), scope):
            names = ", ".join(repr(name) for name in unknown)
            sentence = f"There is no camera {names}. GET /api/v1/cameras lists them all."
            raise Refusal("unknown_camera", sentence, f"{pointer}/camera_id")
        for _, _, span in _operands(clause, "time_of_day"):
            if isinstance(span, TimeOfDay):
                refuse_unknown_zone(session, span.tz, f"{pointer}/time_of_day/tz")


def refuse_unknown_zone(session: Session, tz: str, pointer: str) -> None:
    if tz not in time_zones(session):
        sentence = f"There is no time zone {tz!r}. Give its IANA name, as Europe/Berlin or UTC."
        raise Refusal("invalid_filter", sentence, pointer)


def _operands(clause: Clause, field: str) -> Iterator[tuple[str, str, Any]]:
    return (comparison for comparison in clause.comparisons() if comparison[0] == field)


def _cameras(clause: Clause) -> set[str]:
    named: set[str] = set()
    for _, operator, operand in _operands(clause, "camera_id"):
        if operator != "exists" and operand is not None:
            named.update([operand] if isinstance(operand, str) else operand)
    return named
