"""What time it is, by several clocks that were asked over links that take their time.

Model: a clock that was asked at one time and heard at another showed what it said somewhere in between: it is known as
an interval. Source: Marzullo & Owicki 1983, which NTP's selection of servers comes from.
"""

from __future__ import annotations

from collections.abc import Sequence

View = tuple[int, int]
"""(least, greatest) of what may have to be added to our monotonic clock to have that clock's time, in milliseconds."""


def agreed_offset(views: Sequence[View], own_ms: int) -> int:
    """An offset that a majority of the views allow, the nearest such to our own clock's; else their middles' median.

    An answer that was long on its way says little, and so decides nothing, where a median would take it at its word.
    """
    bounds = sorted([(least, -1) for least, _ in views] + [(greatest, 1) for _, greatest in views])
    best, begin, end, depth = 0, 0, 0, 0
    for index, (place, kind) in enumerate(bounds):
        depth -= kind
        if depth > best:
            best, begin, end = depth, place, bounds[index + 1][0]
    if best > len(views) // 2:
        return min(max(own_ms, begin), end)
    middles = sorted((least + greatest) // 2 for least, greatest in views)
    return middles[len(middles) // 2]
