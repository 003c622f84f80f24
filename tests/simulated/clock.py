"""Virtual time: waiting costs nothing, and everything that happens happens in one order that the seed fixes."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

START_S = 1_800_000_000.0
_LONGEST_JUMP_S = 1.0


class VirtualTime:
    """Stands for the module `time` of the driver: whoever sleeps lets the events of that time happen."""

    def __init__(self) -> None:
        self.now = START_S
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Let `act` happen at a time, or now if that is past."""
        heapq.heappush(self._events, (max(when, self.now), next(self._count), act))

    def monotonic(self) -> float:
        """Seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Sleep at least so long, and up to a second more if nothing happens: polling is to cost nothing either."""
        following = self._events[0][0] if self._events else float("inf")
        self.run_until(max(self.now + seconds, min(following, self.now + _LONGEST_JUMP_S)))

    def run_until(self, end: float) -> None:
        """Let everything happen that is due by then."""
        while self._events and self._events[0][0] <= end:
            when, _, act = heapq.heappop(self._events)
            self.now = when
            act()
        self.now = max(self.now, end)
