"""What time it is, by several clocks that were asked over links that take their time.

Model: a clock that was asked at one time and heard at another showed what it said somewhere in between: it is known as
an interval. Source: Marzullo & Owicki 1983, which NTP's selection of servers comes from.
"""

from __future__ import annotations

from collections.abc import Sequence

View = tuple[int, int]
"""(least, greatest) of what may have to be added to our monotonic clock to have that clock's time, in milliseconds."""

CLOCKS_MIN = 3
"""Of two clocks that differ nobody can tell which is wrong."""
DRIFT_PER_MS = 1 / 500
"""Two clocks come apart by no more than this: a view that is a second old is 2 ms wider."""


class ClockWatch:
    """A clock as all its answers together show it: as closely as the quickest of them, and drift since."""

    def __init__(self) -> None:
        self._view: View | None = None
        self._seen_ms = 0

    def heard(self, clock_ms: int, asked_ms: int, now_ms: int) -> View:
        """It said ``clock_ms`` between ``asked_ms`` and ``now_ms`` of our monotonic clock. Returns what is known now.

        What does not fit with what was known is believed: the clock has been set.
        """
        least, greatest = clock_ms - now_ms, clock_ms - asked_ms
        known = self.view(now_ms)
        if known is not None and max(least, known[0]) <= min(greatest, known[1]):
            least, greatest = max(least, known[0]), min(greatest, known[1])
        self._view, self._seen_ms = (least, greatest), now_ms
        return self._view

    def view(self, now_ms: int) -> View | None:
        """What is known of it by now; None where it was never heard."""
        if self._view is None:
            return None
        drift_ms = int((now_ms - self._seen_ms) * DRIFT_PER_MS) + 1
        return self._view[0] - drift_ms, self._view[1] + drift_ms


def agreed_offset(views: Sequence[View], own_ms: int) -> int:
    """An offset that a majority of the views allow: our own clock's, or where that is not among them, it is wrong, and
    their middle. Where no majority agrees, the one that is least far from all, of several the nearest to our own.

    An answer that was long on its way says little, and so decides little. The sum of the distances from intervals is
    least between the two middle ones of all their ends, as that from points is at their median.
    """
    bounds = sorted([(least, -1) for least, _ in views] + [(greatest, 1) for _, greatest in views])
    best, begin, end, depth = 0, 0, 0, 0
    for index, (place, kind) in enumerate(bounds):
        depth -= kind
        if depth > best:
            best, begin, end = depth, place, bounds[index + 1][0]
    if best > len(views) // 2:
        return own_ms if begin <= own_ms <= end else (begin + end) // 2
    return min(max(own_ms, bounds[len(views) - 1][0]), bounds[len(views)][0])
