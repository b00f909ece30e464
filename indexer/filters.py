"""Which images a search may find: conditions on what is known about them, as SQL.

What is unknown is not equal to anything: an image without a camera is not from camera c1, so `ne "c1"` and
`not_in ["c1"]` keep it, while `eq` and `in` do not. An unknown time is neither before nor after any other. To compare
with "unknown" itself use `eq null`, `ne null` or `exists`.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import ColumnElement, or_
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.types import Text

from indexer.errors import InvalidFilter
from indexer.tables import Image

NAME_OPS = ("eq", "ne", "in", "not_in", "exists")
TIME_OPS = ("lt", "lte", "gt", "gte", "exists")
TAGS_OPS = ("any", "all", "none")
OPS = {
    "camera_id": NAME_OPS,
    "identity": NAME_OPS,
    "track_id": NAME_OPS,
    "external_id": NAME_OPS,
    "captured_at": TIME_OPS,
    "tags": TAGS_OPS,
}


Scope = frozenset[str] | None  # the cameras whose images somebody may see; None: all, and images without a camera


@dataclass(frozen=True)
class Condition:
    """`field op value`, e.g. `Condition("camera_id", "in", ("c1", "c2"))`. `OPS` lists what can be said of what."""

    field: str
    op: str
    value: Any


@dataclass(frozen=True)
class ImageFilter:
    """Images that meet every condition of `all` and, unless it is empty, at least one of `any`."""

    all: tuple[Condition, ...] = ()
    any: tuple[Condition, ...] = ()


def conditions(filter: ImageFilter) -> list[ColumnElement[bool]]:
    """The filter as conditions on `Image`, to be ANDed. Raises `InvalidFilter`."""
    clauses = [_clause(condition) for condition in filter.all]
    if filter.any:
        clauses.append(or_(*[_clause(condition) for condition in filter.any]))
    return clauses


def in_scope(scope: Scope) -> list[ColumnElement[bool]]:
    """The scope as conditions on `Image`, to be ANDed with whatever is asked for."""
    return [] if scope is None else [Image.camera_id.in_(sorted(scope))]


def _clause(condition: Condition) -> ColumnElement[bool]:
    if condition.field not in OPS:
        raise InvalidFilter(f"Images cannot be filtered by {condition.field!r}; use one of {', '.join(OPS)}.")
    ops = OPS[condition.field]
    if condition.op not in ops:
        raise InvalidFilter(f"{condition.field} has no operator {condition.op!r}; use one of {', '.join(ops)}.")
    column: InstrumentedAttribute[Any] = getattr(Image, condition.field)
    if condition.op == "exists":
        if not isinstance(condition.value, bool):
            raise InvalidFilter(f"{condition.field} exists: give true or false.")
        return column.is_not(None) if condition.value else column.is_(None)
    if ops is NAME_OPS:
        return _name_clause(column, condition)
    if ops is TIME_OPS:
        return _time_clause(column, condition)
    return _tags_clause(column, condition)


def _name_clause(column: InstrumentedAttribute[Any], condition: Condition) -> ColumnElement[bool]:
    if condition.op in ("eq", "ne") and condition.value is None:
        return column.is_(None) if condition.op == "eq" else column.is_not(None)
    if condition.op == "eq":
        return column == _text(condition, condition.value)
    if condition.op == "ne":
        return column.is_distinct_from(_text(condition, condition.value))
    values = _list(condition)
    among = column.in_([_text(condition, value) for value in values if value is not None])
    if condition.op == "in":
        return or_(among, column.is_(None)) if None in values else among
    return ~among & column.is_not(None) if None in values else or_(~among, column.is_(None))


def _time_clause(column: InstrumentedAttribute[Any], condition: Condition) -> ColumnElement[bool]:
    value = condition.value
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise InvalidFilter(f"{condition.field} {condition.op}: give a time with its zone, as 2026-09-01T18:00:00Z.")
    compare = {"lt": operator.lt, "lte": operator.le, "gt": operator.gt, "gte": operator.ge}[condition.op]
    return cast("ColumnElement[bool]", compare(column, value))


def _tags_clause(column: InstrumentedAttribute[Any], condition: Condition) -> ColumnElement[bool]:
    tags = sql_cast([_text(condition, tag) for tag in _list(condition)], ARRAY(Text))
    some: ColumnElement[bool] = column.overlap(tags)
    every: ColumnElement[bool] = column.contains(tags)
    return {"any": some, "all": every, "none": ~some}[condition.op]


def _list(condition: Condition) -> Sequence[Any]:
    if not isinstance(condition.value, list | tuple | set | frozenset):
        raise InvalidFilter(f"{condition.field} {condition.op}: give a list.")
    return tuple(condition.value)


def _text(condition: Condition, value: Any) -> str:
    """A string PostgreSQL can hold: it knows neither the character zero nor half of a surrogate pair."""
    if not isinstance(value, str):
        raise InvalidFilter(f"{condition.field} {condition.op}: {value!r} is not text.")
    if "\x00" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidFilter(f"{condition.field} {condition.op}: the value holds a character that no text can hold.")
    return value
