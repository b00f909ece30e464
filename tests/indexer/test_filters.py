"""Filters as SQL against the same filters as plain Python, unknown values included."""

from __future__ import annotations

import hashlib
import itertools
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.orm import Session

from indexer import gallery
from indexer.errors import InvalidFilter
from indexer.filters import Condition, ImageFilter, conditions
from indexer.gallery import NewImage
from indexer.tables import Image

DAY = datetime(2026, 9, 1, tzinfo=UTC)
HOURS = [DAY + timedelta(hours=n) for n in range(4)]
NAMES = ["a", "b", "it's", "ü%_"]
TAGS = ["night", "platform", "staff"]
NAME_FIELDS = ["camera_id", "identity", "track_id", "external_id"]


def holds(image: NewImage, condition: Condition) -> bool:
    """The condition's meaning, from the documentation of filters.py."""
    value, wanted = getattr(image, condition.field), condition.value
    match condition.op:
        case "eq":
            return value == wanted
        case "ne":
            return value != wanted
        case "in":
            return value in wanted
        case "not_in":
            return value not in wanted
        case "exists":
            return (value is not None) == wanted
        case "any":
            return bool(set(value) & set(wanted))
        case "all":
            return set(wanted) <= set(value)
        case "none":
            return not set(value) & set(wanted)
        case "lt":
            return value is not None and value < wanted
        case "lte":
            return value is not None and value <= wanted
        case "gt":
            return value is not None and value > wanted
        case "gte":
            return value is not None and value >= wanted
    raise AssertionError(condition.op)


def passes(image: NewImage, filter: ImageFilter) -> bool:
    return all(holds(image, condition) for condition in filter.all) and (
        not filter.any or any(holds(image, condition) for condition in filter.any)
    )


maybe_name = st.none() | st.sampled_from(NAMES)
a_condition = st.one_of(
    st.builds(Condition, st.sampled_from(NAME_FIELDS), st.sampled_from(["eq", "ne"]), maybe_name),
    st.builds(
        Condition, st.sampled_from(NAME_FIELDS), st.sampled_from(["in", "not_in"]), st.lists(maybe_name, max_size=3)
    ),
    st.builds(Condition, st.sampled_from([*NAME_FIELDS, "captured_at"]), st.just("exists"), st.booleans()),
    st.builds(Condition, st.just("captured_at"), st.sampled_from(["lt", "lte", "gt", "gte"]), st.sampled_from(HOURS)),
    st.builds(
        Condition,
        st.just("tags"),
        st.sampled_from(["any", "all", "none"]),
        st.lists(st.sampled_from([*TAGS, "never"]), max_size=3),
    ),
)
some_conditions = st.lists(a_condition, max_size=3).map(tuple)


@pytest.fixture
def images(session: Session) -> dict[int, NewImage]:
    """By row: each name, time and set of tags with and without each other, unknown ones included."""
    for name in NAMES:
        gallery.add_camera(session, name)
    names, times = itertools.cycle([None, *NAMES]), itertools.cycle([None, *HOURS])
    tags = [tags for n in range(4) for tags in itertools.combinations(TAGS, n)]
    added = {}
    for n in range(72):
        image = NewImage(
            hashlib.sha256(str(n).encode()).hexdigest(), 1, 1, "png", 1,
            external_id=NAMES[n] if n < len(NAMES) else None,
            camera_id=next(names),
            captured_at=next(times) if n % 3 else None,
            identity=NAMES[n // 8 % 4] if n % 2 else None,
            track_id=NAMES[n // 16 % 4] if n % 4 else None,
            tags=tags[n % 8],
        )  # fmt: skip
        id = gallery.add_image(session, image).image_id
        added[session.scalars(select(Image.row).where(Image.id == id)).one()] = image
    return added


def found(session: Session, filter: ImageFilter) -> set[int]:
    return set(session.scalars(select(Image.row).where(*conditions(filter))))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(all=some_conditions, any=some_conditions)
def test_filter_means_what_it_says(
    session: Session, images: dict[int, NewImage], all: tuple[Condition, ...], any: tuple[Condition, ...]
) -> None:
    filter = ImageFilter(all, any)
    assert found(session, filter) == {row for row, image in images.items() if passes(image, filter)}


def test_no_camera_is_not_camera_c1(session: Session) -> None:
    gallery.add_camera(session, "c1")
    ids = {
        camera: gallery.add_image(session, NewImage("0" * 64, 1, 1, "png", 1, camera_id=camera)).image_id
        for camera in (None, "c1")
    }
    for op, value, camera in [
        ("ne", "c1", None),
        ("not_in", ["c1"], None),
        ("eq", None, None),
        ("ne", None, "c1"),
        ("not_in", [None], "c1"),
        ("exists", True, "c1"),
    ]:
        filter = ImageFilter((Condition("camera_id", op, value),))
        assert session.scalars(select(Image.id).where(*conditions(filter))).all() == [ids[camera]], (op, value)


def test_time_is_compared_across_zones(session: Session) -> None:
    gallery.add_image(session, NewImage("0" * 64, 1, 1, "png", 1, captured_at=DAY))
    berlin = timezone(timedelta(hours=2))
    for moment, expected in [(datetime(2026, 9, 1, 2, tzinfo=berlin), 1), (datetime(2026, 9, 1, 1, tzinfo=berlin), 0)]:
        assert len(found(session, ImageFilter((Condition("captured_at", "lte", moment),)))) == expected


@pytest.mark.parametrize(
    ("field", "op", "value", "sentence"),
    [
        ("colour", "eq", "red", "use one of camera_id"),
        ("camera_id", "like", "c%", "use one of eq"),
        ("captured_at", "eq", DAY, "use one of lt"),
        ("camera_id", "eq", 3, "is not text"),
        ("camera_id", "in", "c1", "give a list"),
        ("camera_id", "in", ["c1", 3], "is not text"),
        ("camera_id", "exists", "yes", "give true or false"),
        ("camera_id", "eq", "a\x00", "no text can hold"),
        ("tags", "any", ["\ud800"], "no text can hold"),
        ("tags", "all", [None], "is not text"),
        ("captured_at", "lt", datetime(2026, 9, 1), "with its zone"),
        ("captured_at", "lt", "2026-09-01T00:00:00Z", "with its zone"),
    ],
)
def test_filter_that_makes_no_sense_is_refused(field: str, op: str, value: Any, sentence: str) -> None:
    for filter in (ImageFilter((Condition(field, op, value),)), ImageFilter(any=(Condition(field, op, value),))):
        with pytest.raises(InvalidFilter, match=sentence):
            conditions(filter)
