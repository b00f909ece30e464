"""How fast something goes and how long it will take, from what was seen of it."""

from __future__ import annotations

from collections import deque

WINDOW_SECONDS = 30.0  # what was seen before that says little about now


class Pace:
    """Fed with (moment, how many are done); tells the rate over the last WINDOW_SECONDS."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, moment: float, done: int) -> None:
        """`moment` in seconds of a clock that never goes back."""
        self._seen.append((moment, done))
        while len(self._seen) > 2 and self._seen[1][0] <= moment - WINDOW_SECONDS:
            self._seen.popleft()

    @property
    def rate(self) -> float | None:
        """Items a second; None until two moments were seen."""
        if len(self._seen) < 2:
            return None
        (begin, before), (end, now) = self._seen[0], self._seen[-1]
        return max(0.0, (now - before) / (end - begin)) if end > begin else None

    def seconds_left(self, total: int | None) -> float | None:
        """None while that cannot be told: the total is not known, or nothing moves."""
        if total is None or not self._seen:
            return None
        left = max(0, total - self._seen[-1][1])
        if left == 0:
            return 0.0
        return left / self.rate if self.rate else None
