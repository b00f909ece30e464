"""Filters as SQL against the same filters as plain Python, unknown values included."""

from __future__ import annotations

import hashlib
import itertools
from datetime import UTC, datetime, time, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.orm import Session

from indexer import gallery
from indexer.errors import InvalidFilter
from indexer.filters import Condition, ImageFilter, TimeOfDay, conditions, time_zones
from indexer.gallery import NewImage
from indexer.tables import Image

DAY = datetime(2026, 9, 1, tzinfo=UTC)
HOURS = [DAY + timedelta(hours=n) for n in range(4)]
NAMES = ["a", "b", "it's", "ü%_"]
TAGS = ["night", "platform", "staff"]
NAME_FIELDS = ["camera_id", "identity", "track_id", "external_id", "site"]
SITES: dict[str | None, str | None] = {"a": "a", "b": "it's", "it's": "a"}  # of the cameras; others are at none
VALUES = [1, 3.5, True, "a", "it's", "1"]
ZONES = ["UTC", "Europe/Berlin", "Asia/Kathmandu"]


def value_of(image: NewImage, field: str) -> Any:
    match field:
        case "site":
            return SITES.get(image.camera_id)
        case "width_px":
            return image.width
        case "height_px":
            return image.height
        case "time_of_day":
            return image.captured_at
        case _ if field.startswith("attributes."):
            return as_json(image.attributes.get(field.removeprefix("attributes.")))
    return getattr(image, field)


def as_json(value: Any) -> Any:
    """Told apart as JSON does: in Python, 1 and True are the same."""
    return value if value is None else (isinstance(value, bool), value)


def holds(image: NewImage, condition: Condition) -> bool:
    """The condition's meaning, from the documentation of filters.py."""
    value, wanted = value_of(image, condition.field), condition.value
    if condition.field.startswith("attributes.") and condition.op != "exists":
        wanted = [as_json(one) for one in wanted] if condition.op in ("in", "not_in") else as_json(wanted)
    match condition.op:
        case "within":
            if value is None:
                return False
            shown = value.astimezone(ZoneInfo(wanted.tz)).time()
            if wanted.gte < wanted.lt:
                return bool(wanted.gte <= shown < wanted.lt)
            return bool(shown >= wanted.gte or shown < wanted.lt)
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


an_hour = st.builds(time, st.integers(0, 23), st.sampled_from([0, 45]))
a_span = st.builds(TimeOfDay, an_hour, an_hour, st.sampled_from(ZONES)).filter(lambda span: span.gte != span.lt)
maybe_value = st.none() | st.sampled_from(VALUES)
an_attribute = st.sampled_from(["attributes.x", "attributes.it's"])
a_side = st.sampled_from(["width_px", "height_px"])
some_pixels = st.integers(1, 5)
maybe_name = st.none() | st.sampled_from(NAMES)
a_condition = st.one_of(
    st.builds(Condition, st.sampled_from(NAME_FIELDS), st.sampled_from(["eq", "ne"]), maybe_name),
    st.builds(
        Condition, st.sampled_from(NAME_FIELDS), st.sampled_from(["in", "not_in"]), st.lists(maybe_name, max_size=3)
    ),
    st.builds(Condition, st.sampled_from([*NAME_FIELDS, "captured_at"]), st.just("exists"), st.booleans()),
    st.builds(Condition, an_attribute, st.sampled_from(["eq", "ne"]), maybe_value),
    st.builds(Condition, an_attribute, st.sampled_from(["in", "not_in"]), st.lists(maybe_value, max_size=3)),
    st.builds(Condition, an_attribute, st.just("exists"), st.booleans()),
    st.builds(Condition, a_side, st.sampled_from(["eq", "ne", "lt", "lte", "gt", "gte"]), some_pixels),
    st.builds(Condition, a_side, st.sampled_from(["in", "not_in"]), st.lists(some_pixels, max_size=3)),
    st.builds(Condition, st.just("time_of_day"), st.just("within"), a_span),
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
        gallery.add_camera(session, name, site=SITES.get(name))
    names, times = itertools.cycle([None, *NAMES]), itertools.cycle([None, *HOURS])
    values = itertools.cycle([*VALUES, None, [1], {"y": 1}])
    tags = [tags for n in range(4) for tags in itertools.combinations(TAGS, n)]
    added = {}
    for n in range(72):
        image = NewImage(
            hashlib.sha256(str(n).encode()).hexdigest(), n % 5 + 1, n % 3 + 1, "png", 1,
            external_id=NAMES[n] if n < len(NAMES) else None,
            camera_id=next(names),
            captured_at=next(times) if n % 3 else None,
            identity=NAMES[n // 8 % 4] if n % 2 else None,
            track_id=NAMES[n // 16 % 4] if n % 4 else None,
            tags=tags[n % 8],
            attributes={"x": next(values)} if n % 4 else {"it's": "it's"},
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


@pytest.mark.parametrize(
    ("moment", "tz", "gte", "lt", "expected"),
    [
        # 18:30 in UTC is 20:30 in a Berlin summer and 19:30 in its winter.
        ("2026-07-01T18:30Z", "Europe/Berlin", "20:00", "21:00", True),
        ("2026-12-01T18:30Z", "Europe/Berlin", "20:00", "21:00", False),
        ("2026-12-01T18:30Z", "Europe/Berlin", "19:00", "20:00", True),
        # Over midnight: from 20:00 to 06:00, the beginning included, the end not.
        ("2026-07-01T18:00Z", "Europe/Berlin", "20:00", "06:00", True),
        ("2026-07-01T17:59Z", "Europe/Berlin", "20:00", "06:00", False),
        ("2026-07-01T22:00Z", "Europe/Berlin", "20:00", "06:00", True),
        ("2026-07-02T03:59Z", "Europe/Berlin", "20:00", "06:00", True),
        ("2026-07-02T04:00Z", "Europe/Berlin", "20:00", "06:00", False),
        # 29 March 2026: at 02:00 clocks go to 03:00, so that 02:30 never is.
        ("2026-03-29T00:59Z", "Europe/Berlin", "01:00", "02:00", True),
        ("2026-03-29T01:00Z", "Europe/Berlin", "02:00", "03:00", False),
        ("2026-03-29T01:00Z", "Europe/Berlin", "03:00", "04:00", True),
        # 25 October 2026: at 03:00 clocks go back to 02:00, so that 02:30 is twice.
        ("2026-10-25T00:30Z", "Europe/Berlin", "02:00", "03:00", True),
        ("2026-10-25T01:30Z", "Europe/Berlin", "02:00", "03:00", True),
        ("2026-10-25T02:30Z", "Europe/Berlin", "02:00", "03:00", False),
        # Until midnight, and zones that are off by a quarter of an hour.
        ("2026-07-01T23:59Z", "UTC", "22:00", "00:00", True),
        ("2026-07-01T00:00Z", "UTC", "22:00", "00:00", False),
        ("2026-07-01T18:15Z", "Asia/Kathmandu", "00:00", "00:01", True),
    ],
)
def test_time_of_day_is_what_clocks_showed(
    session: Session, moment: str, tz: str, gte: str, lt: str, expected: bool
) -> None:
    gallery.add_image(session, NewImage("0" * 64, 1, 1, "png", 1, captured_at=datetime.fromisoformat(moment)))
    span = TimeOfDay(time.fromisoformat(gte), time.fromisoformat(lt), tz)
    assert bool(found(session, ImageFilter((Condition("time_of_day", "within", span),)))) == expected


def test_the_zones_are_those_of_the_database(session: Session) -> None:
    assert {"UTC", "Europe/Berlin", "America/St_Johns"} <= time_zones(session)
    assert not {"Mars/Olympus", "XYZ+3", "europe/berlin"} & time_zones(session)


def test_ids_and_when_an_image_was_added(session: Session) -> None:
    ids = [gallery.add_image(session, NewImage(f"{n:064}", 1, 1, "png", 1)).image_id for n in range(3)]
    rows = [session.scalars(select(Image.row).where(Image.id == id)).one() for id in ids]
    assert found(session, ImageFilter((Condition("image_id", "in", ids[:2]),))) == set(rows[:2])
    assert found(session, ImageFilter((Condition("image_id", "not_in", ids[:2]),))) == set(rows[2:])
    now = session.scalars(select(Image.created_at)).first()
    assert found(session, ImageFilter((Condition("created_at", "gte", now),))) == set(rows)
    assert found(session, ImageFilter((Condition("created_at", "gt", now),))) == set()


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
        ("width_px", "eq", "3", "whole numbers"),
        ("width_px", "in", [True], "whole numbers"),
        ("image_id", "in", ["a"], "ids of images"),
        ("image_id", "eq", None, "use one of in"),
        ("time_of_day", "within", "20:00", "give gte, lt and tz"),
        ("site", "like", "a", "use one of eq"),
        ("attributes.x", "lt", 3, "use one of eq"),
        ("attributes.x", "eq", [1], "give text, a number"),
        ("attributes.x", "in", [float("nan")], "give text, a number"),
        ("attributes.x", "eq", "a\x00", "no text can hold"),
        ("attributes.", "eq", 1, "cannot be filtered by"),
        ("captured_at", "lt", "2026-09-01T00:00:00Z", "with its zone"),
    ],
)
def test_filter_that_makes_no_sense_is_refused(field: str, op: str, value: Any, sentence: str) -> None:
    for filter in (ImageFilter((Condition(field, op, value),)), ImageFilter(any=(Condition(field, op, value),))):
        with pytest.raises(InvalidFilter, match=sentence):
            conditions(filter)
