"""How often somebody may try: a token bucket for requests, a growing pause for wrong passwords.

Both live in the memory of one replica and are bounded: with several replicas a caller gets so much of each.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

Clock = Callable[[], float]  # seconds that never go back
KEPT = 10_000  # of each, so that strangers cannot fill the memory


class Buckets:
    """A bucket of `burst` tokens for each caller, filled up with `rate` tokens a second; a request takes one."""

    def __init__(self, rate: float, burst: int, clock: Clock = time.monotonic) -> None:
        self.rate, self.burst, self._clock = rate, burst, clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()  # caller -> (tokens, as of)

    def take(self, caller: Hashable) -> int:
        """0 if the request may pass, else the seconds until the next one may."""
        if self.rate == 0:
            return 0
        with self._lock:
            now = self._clock()
            tokens, since = self._buckets.pop(caller, (float(self.burst), now))
            tokens = min(self.burst, tokens + (now - since) * self.rate)
            passes = tokens >= 1
            self._buckets[caller] = (tokens - 1 if passes else tokens, now)
            if len(self._buckets) > KEPT:
                self._buckets.popitem(last=False)  # who has not asked for longest: most likely full again
        return 0 if passes else max(1, math.ceil((1 - tokens) / self.rate))


class Backoff:
    """After `free` failures each further one doubles the pause before the next try, up to `longest` seconds.

    A success forgets the failures; so does a quiet time of four times `longest`.
    """

    def __init__(self, free: int, longest: float = 300.0, clock: Clock = time.monotonic) -> None:
        self.free, self.longest, self._clock = free, longest, clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[Hashable, tuple[int, float]] = OrderedDict()  # who -> (how many, the last one)

    def wait(self, who: Hashable) -> int:
        """Seconds until `who` may try again; 0: now."""
        with self._lock:
            failures, last = self._failures.get(who, (0, 0.0))
            return max(0, math.ceil(last + self._pause(failures) - self._clock()))

    def failed(self, who: Hashable) -> None:
        with self._lock:
            now = self._clock()
            failures, last = self._failures.pop(who, (0, now))
            if now - last > 4 * self.longest:
                failures = 0
            self._failures[who] = (failures + 1, now)
            if len(self._failures) > KEPT:
                self._failures.popitem(last=False)

    def succeeded(self, who: Hashable) -> None:
        with self._lock:
            self._failures.pop(who, None)

    def _pause(self, failures: int) -> float:
        if failures < self.free:
            return 0.0
        return min(self.longest, 2.0 ** min(failures - self.free, 30))
