"""Medians of interleaved runs: a drift of the machine then hits both sides of a ratio alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def medians(
    sides: Mapping[str, Callable[[], object]], runs: int = 5, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median seconds of each callable over ``runs`` interleaved rounds, after one round to warm up.

    With `time.thread_time` as the clock, those that this thread was computing: others may use the machine meanwhile.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(runs + 1):
        for name, call in sides.items():
            start = clock()
            call()
            if round_:
                seconds[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}
