"""Rate and time left, by moments worked out by hand."""

from __future__ import annotations

import pytest

from service.progress import WINDOW_SECONDS, Pace


def test_nothing_is_told_before_there_is_something_to_tell() -> None:
    pace = Pace()
    assert pace.rate is None and pace.seconds_left(10) is None
    pace.add(100.0, 5)
    assert pace.rate is None and pace.seconds_left(10) is None and pace.seconds_left(5) == 0.0
    pace.add(100.0, 6)
    assert pace.rate is None, "no time has passed"
    pace.add(101.0, 6)
    assert pace.seconds_left(None) is None


def test_rate_and_time_left() -> None:
    pace = Pace()
    for moment, done in ((10.0, 0), (12.0, 10), (15.0, 40)):
        pace.add(moment, done)
    assert pace.rate == pytest.approx(8.0)
    assert pace.seconds_left(100) == pytest.approx(7.5)
    assert pace.seconds_left(30) == 0.0


def test_what_stands_still_takes_for_ever_and_the_past_is_forgotten() -> None:
    pace = Pace()
    pace.add(0.0, 0)
    pace.add(1.0, 1000)
    pace.add(1.0 + WINDOW_SECONDS, 1000)
    assert pace.rate == 0.0 and pace.seconds_left(2000) is None
    pace.add(11.0 + WINDOW_SECONDS, 1200)
    assert pace.rate == pytest.approx(200 / (10.0 + WINDOW_SECONDS))
    pace.add(1.0 + 2 * WINDOW_SECONDS, 1200)
    assert pace.rate == pytest.approx(200 / WINDOW_SECONDS)
