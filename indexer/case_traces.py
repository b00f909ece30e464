"""What case work and the audit know of a person, and how it goes when the person is erased. Called by traces.py.

Of an item a line without image, similarity and note stays, with the date, so that the numbers of a case stay true. Free
text that names the person is replaced as a whole: nobody can tell which other words of it are about them, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

from sqlalchemy import CursorResult, Text, Uuid, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

IDS = bindparam("ids", type_=ARRAY(Uuid))
VALUES = bindparam("values", type_=ARRAY(Text))
WORDS = bindparam("words", type_=ARRAY(Text))
ERASED = "It named somebody who was erased."


def forget_images(session: Session, ids: Sequence[UUID]) -> Counter[str]:
    """Take images out of cases, verdicts and exports, before their rows go; the files of the exports go afterwards."""
    images = {"ids": list(ids)}
    return Counter(
        case_items=_changed(session, _FORGET_ITEMS, images),
        verdicts=_changed(session, _FORGET_VERDICTS, images),
        case_exports=_changed(session, _FORGET_EXPORTS, images),
    )


_FORGET_ITEMS = text("""
    UPDATE case_item SET image_id = NULL, similarity = NULL, band = NULL, note = NULL, erased_at = now()
    WHERE image_id = ANY(:ids)
""").bindparams(IDS)
_FORGET_VERDICTS = text("DELETE FROM verdict WHERE image_id = ANY(:ids)").bindparams(IDS)
_FORGET_EXPORTS = text("DELETE FROM case_export WHERE image_ids && :ids").bindparams(IDS)


def forget_names(session: Session, values: Sequence[str], words: Sequence[str]) -> Counter[str]:
    """Blank searches of cases that asked for one of the values or words (in lower case), and texts with such a word."""
    told = {"words": list(words)}
    texts = [(_FORGET_TITLES, {"erased": ERASED}), (_FORGET_NOTES, {"erased": ERASED})]
    texts += [(_FORGET_ITEM_NOTES, {}), (_FORGET_VERDICT_NOTES, {})]
    changed = sum(_changed(session, statement, {**told, **more}) for statement, more in texts) if words else 0
    asked = _changed(session, _FORGET_CASE_SEARCHES, {"values": list(values), **told})
    return Counter(case_texts=changed, searches=asked)


_NAMED = "EXISTS (SELECT FROM unnest(:words) AS word WHERE strpos(lower({column}), word) > 0)"
_FORGET_TITLES = text(f"UPDATE case_file SET title = :erased WHERE {_NAMED.format(column='title')}").bindparams(WORDS)
_FORGET_NOTES = text(f"UPDATE case_note SET note = :erased WHERE {_NAMED.format(column='note')}").bindparams(WORDS)
_FORGET_ITEM_NOTES = text(f"UPDATE case_item SET note = NULL WHERE {_NAMED.format(column='note')}").bindparams(WORDS)
_FORGET_VERDICT_NOTES = text(f"UPDATE verdict SET note = NULL WHERE {_NAMED.format(column='note')}").bindparams(WORDS)
_FORGET_CASE_SEARCHES = text("""
    UPDATE case_search SET request = '{}'
    WHERE request <> '{}' AND (
        EXISTS (SELECT FROM jsonb_path_query(request, 'strict $.**') AS part
                WHERE jsonb_typeof(part) = 'string' AND part #>> '{}' = ANY(:values))
        OR EXISTS (SELECT FROM jsonb_path_query(request, 'lax $.query.**') AS part, unnest(:words) AS word
                   WHERE jsonb_typeof(part) = 'string' AND strpos(lower(part #>> '{}'), word) > 0))
""").bindparams(VALUES, WORDS)


def remains(session: Session, erasure_id: UUID) -> Counter[str]:
    """What cases still have of an erasure's images, by table."""
    tables = {
        "case_item": "case_item.image_id = erased_image.image_id",
        "verdict": "verdict.image_id = erased_image.image_id",
        "case_export": "erased_image.image_id = ANY(case_export.image_ids)",
    }
    return +Counter(
        {
            table: session.scalar(
                text(f"SELECT count(*) FROM {table}, erased_image WHERE erasure_id = :id AND {same}"),
                {"id": erasure_id},
            )
            or 0
            for table, same in tables.items()
        }
    )


def _changed(session: Session, statement: Any, values: dict[str, Any]) -> int:
    return cast("CursorResult[Any]", session.execute(statement, values)).rowcount
