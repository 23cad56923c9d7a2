"""The pace of copies: bytes per second of all of them together."""

from __future__ import annotations

from shadow_nodes.pace import Pace


def test_copies_share_the_pace_and_rest_gains_nothing() -> None:
    pace = Pace(1_000)
    assert pace.wait_s(500, 10.0) == 0.5
    assert pace.wait_s(500, 10.0) == 1.0  # another copy, at the same time
    assert pace.wait_s(250, 10.5) == 0.75
    assert pace.wait_s(125, 60.0) == 0.125
