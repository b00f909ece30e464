"""Cursors: where the next page of a ranking begins, signed, so that nobody makes one up or takes one elsewhere."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from uuid import UUID

from service.errors import Refusal

POSITION, SIGNATURE = 4, 16  # bytes


def issue(key: bytes, search_id: UUID, position: int) -> str:
    """The cursor of a position (0 is the best place) of a search."""
    packed = position.to_bytes(POSITION, "big")
    signature = hmac.digest(key, search_id.bytes + packed, hashlib.sha256)[:SIGNATURE]
    return base64.urlsafe_b64encode(packed + signature).rstrip(b"=").decode()


def read(key: bytes, search_id: UUID, cursor: str) -> int:
    """The position a cursor stands for. Raises Refusal unless it was issued for this search."""
    try:
        packed = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except (ValueError, binascii.Error):
        packed = b""
    position = int.from_bytes(packed[:POSITION], "big")
    # As a whole, so that there is no second way of writing a cursor.
    if not hmac.compare_digest(issue(key, search_id, position).encode(), cursor.encode()):
        sentence = "This cursor does not belong to this search. Pass next_cursor of a page as it is."
        raise Refusal("invalid_cursor", sentence, "cursor")
    return position
