"""The filter of a search as a request states it, typed field by field. What it means in SQL is `indexer.filters`.

Strict: an unknown field or operator, a wrong type or a null where none belongs is refused, because a mistyped filter
must fail rather than widen a search.
"""

from __future__ import annotations

from datetime import time
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import Field, StringConstraints, field_validator, model_validator

from indexer.filters import ATTRIBUTE, Condition, ImageFilter, TimeOfDay
from service.schemas import Name, RequestBody, Time, optional

VALUES_MAX = 1000
PIXELS_MAX = 2**31 - 1  # what the database has room for

Pixels = Annotated[int, Field(ge=0, le=PIXELS_MAX)]
Clock = Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?$")]
ZoneName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_+/-]{1,64}$")]
Value = bool | int | float | Annotated[str, StringConstraints(max_length=1024)]


def names() -> Any:
    return optional(min_length=1, max_length=VALUES_MAX)


def values() -> Any:
    return Field(default_factory=list, alias="in", min_length=1, max_length=VALUES_MAX)


class Operators(RequestBody):
    """Base of the operators on one field: all that are given must hold."""

    @model_validator(mode="after")
    def at_least_one(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("This filter has no operator, so it would not filter. Add one or leave the field out.")
        return self

    def operands(self) -> dict[str, Any]:
        """Operator -> operand, only those that were sent; names as in the request ("in", not "in_")."""
        fields = type(self).model_fields
        return {fields[name].alias or name: getattr(self, name) for name in fields if name in self.model_fields_set}


class NameFilter(Operators):
    """Operators on one name. `eq: null` means "has none", `exists` asks whether there is one."""

    eq: Name | None = None
    ne: Name | None = None
    in_: list[Name] = values()
    not_in: list[Name] = names()
    exists: bool = optional()


class TimeFilter(Operators):
    """Operators on a moment. Every time needs a zone."""

    lt: Time = optional()
    lte: Time = optional()
    gt: Time = optional()
    gte: Time = optional()
    exists: bool = optional()


class NumberFilter(Operators):
    """Operators on a number of pixels."""

    eq: Pixels = optional()
    ne: Pixels = optional()
    in_: list[Pixels] = values()
    not_in: list[Pixels] = names()
    lt: Pixels = optional()
    lte: Pixels = optional()
    gt: Pixels = optional()
    gte: Pixels = optional()


class TagsFilter(Operators):
    """Operators on the set of tags: at least one of, all of, none of."""

    any: list[Name] = names()
    all: list[Name] = names()
    none: list[Name] = names()


class AttributeFilter(Operators):
    """Operators on one attribute, compared as JSON: 3 equals 3.0, but neither "3" nor true. `eq: null`: has none."""

    eq: Value | None = None
    ne: Value | None = None
    in_: list[Value] = values()
    not_in: list[Value] = names()
    exists: bool = optional()


class IdFilter(Operators):
    """Only these images, or all but these."""

    in_: list[UUID] = values()
    not_in: list[UUID] = names()


class TimeOfDayFilter(RequestBody):
    """From `gte` until before `lt` by the clocks of the zone, over midnight if `lt` is earlier. Daylight saving counts:
    20:00 is 20:00 in summer and in winter. An image without a time does not pass."""

    gte: Clock
    lt: Clock
    tz: ZoneName = Field(description="An IANA zone", examples=["Europe/Berlin"])

    @model_validator(mode="after")
    def not_empty(self) -> Self:
        if time.fromisoformat(self.gte) == time.fromisoformat(self.lt):
            raise ValueError(
                "`gte` and `lt` are the same. For the whole day leave time_of_day out, else make them differ."
            )
        return self

    def operands(self) -> dict[str, Any]:
        return {"within": TimeOfDay(time.fromisoformat(self.gte), time.fromisoformat(self.lt), self.tz)}


class Clause(RequestBody):
    """Filters by field; all that are given must hold."""

    camera_id: NameFilter = optional()
    site: NameFilter = optional(description="Of the camera; an image without a camera is at no site")
    captured_at: TimeFilter = optional()
    time_of_day: TimeOfDayFilter = optional()
    created_at: TimeFilter = optional(description="When the image was added")
    tags: TagsFilter = optional()
    identity: NameFilter = optional()
    track_id: NameFilter = optional()
    external_id: NameFilter = optional()
    image_id: IdFilter = optional()
    width_px: NumberFilter = optional()
    height_px: NumberFilter = optional()
    attributes: dict[Name, AttributeFilter] = optional(min_length=1, max_length=20, description="By name of attribute")

    def comparisons(self) -> list[tuple[str, str, Any]]:
        """(field, operator, operand) of everything that was sent."""
        fields: dict[str, Any] = {
            name: getattr(self, name) for name in Clause.model_fields if name in self.model_fields_set
        }
        for name, operators in fields.pop("attributes", {}).items():
            fields[ATTRIBUTE + name] = operators
        return [
            (field, operator, operand)
            for field, operators in fields.items()
            for operator, operand in operators.operands().items()
        ]


class Filter(Clause):
    """Which images may be ranked. Applied before ranking; the answer is exact within it."""

    any: list[Clause] = optional(
        min_length=1,
        max_length=20,
        description="At least one of these must hold; each has one field with one operator.",
    )

    @field_validator("any")
    @classmethod
    def one_comparison_each(cls, clauses: list[Clause]) -> list[Clause]:
        for clause in clauses:
            if len(clause.comparisons()) != 1:
                raise ValueError("Each entry of `any` needs exactly one field with exactly one operator.")
        return clauses

    def conditions(self) -> ImageFilter:
        return ImageFilter(
            all=tuple(Condition(*comparison) for comparison in self.comparisons()),
            any=tuple(Condition(*comparison) for clause in self.any or () for comparison in clause.comparisons()),
        )
