"""What time it is, by several clocks that were asked over links that take their time.

Model: a clock that was asked at one time and heard at another showed what it said somewhere in between: it is known as
an interval. Source: Marzullo & Owicki 1983, which NTP's selection of servers comes from.
"""

from __future__ import annotations

from collections.abc import Sequence

View = tuple[int, int]
"""(least, greatest) of what may have to be added to our monotonic clock to have that clock's time, in milliseconds."""


def agreed_offset(views: Sequence[View], own_ms: int) -> int:
    """An offset that a majority of the views allow, or else one that is least far from all of them; of several the
    nearest to our own clock's.

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
        return min(max(own_ms, begin), end)
    return min(max(own_ms, bounds[len(views) - 1][0]), bounds[len(views)][0])
