"""Which images a search may find: conditions on what is known about them, as SQL.

What is unknown is not equal to anything: an image without a camera is not from camera c1, so `ne "c1"` and
`not_in ["c1"]` keep it, while `eq` and `in` do not. An unknown time is neither before nor after any other. To compare
with "unknown" itself use `eq null`, `ne null` or `exists`. A site is that of the image's camera; an attribute that is
JSON's null is unknown.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, time
from typing import Any, cast
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, literal, or_, select, text
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.types import Text, Time

from indexer.errors import InvalidFilter
from indexer.tables import Camera, Image

NAME_OPS = ("eq", "ne", "in", "not_in", "exists")
TIME_OPS = ("lt", "lte", "gt", "gte", "exists")
NUMBER_OPS = ("eq", "ne", "in", "not_in", "lt", "lte", "gt", "gte")
TAGS_OPS = ("any", "all", "none")
ID_OPS = ("in", "not_in")
CLOCK_OPS = ("within",)
OPS = {
    "camera_id": NAME_OPS,
    "site": NAME_OPS,
    "identity": NAME_OPS,
    "track_id": NAME_OPS,
    "external_id": NAME_OPS,
    "captured_at": TIME_OPS,
    "time_of_day": CLOCK_OPS,
    "created_at": TIME_OPS,
    "tags": TAGS_OPS,
    "width_px": NUMBER_OPS,
    "height_px": NUMBER_OPS,
    "image_id": ID_OPS,
}
ATTRIBUTE = "attributes."  # what precedes the name of an attribute, of which NAME_OPS can be said

_COLUMNS = {"width_px": Image.width, "height_px": Image.height, "image_id": Image.id}  # the others bear their own names
_COMPARE = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}


Scope = frozenset[str] | None  # the cameras whose images somebody may see; None: all, and images without a camera


@dataclass(frozen=True)
class Condition:
    """`field op value`, e.g. `Condition("camera_id", "in", ("c1", "c2"))`. `OPS` lists what can be said of what."""

    field: str
    op: str
    value: Any


@dataclass(frozen=True)
class TimeOfDay:
    """From `gte` until before `lt` by the clocks of the zone `tz`, over midnight if `lt` is the earlier one."""

    gte: time
    lt: time
    tz: str  # a name PostgreSQL knows, see `time_zones`


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


_zones: frozenset[str] = frozenset()  # as read once: reading them takes PostgreSQL a tenth of a second


def time_zones(session: Session) -> frozenset[str]:
    """The zones the database knows by name, which is who reckons with them."""
    global _zones
    if not _zones:
        _zones = frozenset(session.scalars(text("SELECT name FROM pg_timezone_names")))
    return _zones


def _clause(condition: Condition) -> ColumnElement[bool]:
    field = condition.field
    attribute = field.removeprefix(ATTRIBUTE) if field.startswith(ATTRIBUTE) else None
    if field not in OPS and not attribute:
        raise InvalidFilter(
            f"Images cannot be filtered by {field!r}; use one of {', '.join(OPS)}, or {ATTRIBUTE}NAME for an attribute."
        )
    ops = NAME_OPS if attribute else OPS[field]
    if condition.op not in ops:
        raise InvalidFilter(f"{field} has no operator {condition.op!r}; use one of {', '.join(ops)}.")
    if attribute:
        return _value_clause(_attribute(condition, attribute), condition, _json)
    if field == "site":
        return _site_clause(condition)
    if field == "time_of_day":
        return _clock_clause(condition)
    column: InstrumentedAttribute[Any] = _COLUMNS.get(field) or getattr(Image, field)
    if ops is TIME_OPS:
        return _time_clause(column, condition)
    if ops is TAGS_OPS:
        return _tags_clause(column, condition)
    if ops is NUMBER_OPS:
        return _number_clause(column, condition)
    return _value_clause(column, condition, _id if ops is ID_OPS else _text)


def _value_clause(
    column: ColumnElement[Any] | InstrumentedAttribute[Any],
    condition: Condition,
    value_of: Callable[[Condition, Any], Any],
) -> ColumnElement[bool]:
    if condition.op == "exists":
        return column.is_not(None) if _true_or_false(condition) else column.is_(None)
    if condition.op in ("eq", "ne") and condition.value is None:
        return column.is_(None) if condition.op == "eq" else column.is_not(None)
    if condition.op == "eq":
        equal: ColumnElement[bool] = column == value_of(condition, condition.value)
        return equal
    if condition.op == "ne":
        return column.is_distinct_from(value_of(condition, condition.value))
    values = _list(condition)
    among = column.in_([value_of(condition, value) for value in values if value is not None])
    if condition.op == "in":
        return or_(among, column.is_(None)) if None in values else among
    return ~among & column.is_not(None) if None in values else or_(~among, column.is_(None))


def _site_clause(condition: Condition) -> ColumnElement[bool]:
    """By the cameras that have such a site; an image without a camera is at none."""
    there = Image.camera_id.in_(select(Camera.id).where(_value_clause(Camera.site, condition, _text)))
    match condition.op:
        case "eq":
            unknown_too = condition.value is None
        case "ne":
            unknown_too = condition.value is not None
        case "exists":
            unknown_too = not condition.value
        case op:
            unknown_too = (op == "in") == (None in _list(condition))
    return or_(there, Image.camera_id.is_(None)) if unknown_too else there


def _time_clause(column: InstrumentedAttribute[Any], condition: Condition) -> ColumnElement[bool]:
    if condition.op == "exists":
        return column.is_not(None) if _true_or_false(condition) else column.is_(None)
    value = condition.value
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise InvalidFilter(f"{condition.field} {condition.op}: give a time with its zone, as 2026-09-01T18:00:00Z.")
    return cast("ColumnElement[bool]", _COMPARE[condition.op](column, value))


def _clock_clause(condition: Condition) -> ColumnElement[bool]:
    span = condition.value
    if not isinstance(span, TimeOfDay):
        raise InvalidFilter("time_of_day: give gte, lt and tz, as 20:00, 06:00 and Europe/Berlin.")
    # As clocks there showed it: daylight saving is PostgreSQL's to know, and an hour that comes twice is in twice.
    shown = sql_cast(func.timezone(_text(condition, span.tz), Image.captured_at), Time)
    since, until = shown >= literal(span.gte, Time), shown < literal(span.lt, Time)
    return and_(since, until) if span.gte < span.lt else or_(since, until)


def _number_clause(column: InstrumentedAttribute[Any], condition: Condition) -> ColumnElement[bool]:
    values = _list(condition) if condition.op in ("in", "not_in") else (condition.value,)
    if not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        raise InvalidFilter(f"{condition.field} {condition.op}: give whole numbers.")
    if condition.op == "in":
        return column.in_(values)
    if condition.op == "not_in":
        return column.not_in(values)
    return cast("ColumnElement[bool]", _COMPARE[condition.op](column, condition.value))


def _tags_clause(column: InstrumentedAttribute[Any], condition: Condition) -> ColumnElement[bool]:
    tags = sql_cast([_text(condition, tag) for tag in _list(condition)], ARRAY(Text))
    some: ColumnElement[bool] = column.overlap(tags)
    every: ColumnElement[bool] = column.contains(tags)
    return {"any": some, "all": every, "none": ~some}[condition.op]


def _attribute(condition: Condition, name: str) -> ColumnElement[Any]:
    """Its value as JSON; NULL where it is absent or JSON's null."""
    return func.nullif(Image.attributes[_text(condition, name)], _as_json(None), type_=JSONB)


def _true_or_false(condition: Condition) -> bool:
    if not isinstance(condition.value, bool):
        raise InvalidFilter(f"{condition.field} exists: give true or false.")
    return condition.value


def _list(condition: Condition) -> Sequence[Any]:
    if not isinstance(condition.value, list | tuple | set | frozenset):
        raise InvalidFilter(f"{condition.field} {condition.op}: give a list.")
    return tuple(condition.value)


def _json(condition: Condition, value: Any) -> ColumnElement[Any]:
    """A value as JSON has it: 3 and 3.0 are equal, 1 and true are not."""
    if isinstance(value, str):
        value = _text(condition, value)
    elif not isinstance(value, bool | int | float) or value != value or value in (float("inf"), float("-inf")):
        raise InvalidFilter(f"{condition.field} {condition.op}: give text, a number, true or false.")
    return _as_json(value)


def _as_json(value: Any) -> ColumnElement[Any]:
    return sql_cast(literal(json.dumps(value), Text), JSONB)


def _id(condition: Condition, value: Any) -> UUID:
    if not isinstance(value, UUID):
        raise InvalidFilter(f"{condition.field} {condition.op}: give ids of images.")
    return value


def _text(condition: Condition, value: Any) -> str:
    """A string PostgreSQL can hold: it knows neither the character zero nor half of a surrogate pair."""
    if not isinstance(value, str):
        raise InvalidFilter(f"{condition.field} {condition.op}: {value!r} is not text.")
    if "\x00" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidFilter(f"{condition.field} {condition.op}: the value holds a character that no text can hold.")
    return value
