"""How operations become entries, on ways as long as they are between continents."""

from __future__ import annotations

from review_world import World

from distribution_manager.core.messages import Verdict
from shadow_nodes.protocol.commands import Content, Send

NEARER_MS, FARTHER_MS = 80, 120
"""One way."""
LOCAL_MS = 1
PACE_SLACK_MS = 3
"""An operation may wait for the next entry, and what an arrival brings is looked at in the next millisecond."""


def test_on_long_ways_an_operation_takes_a_round_trip_to_the_nearer_shadow_and_no_longer() -> None:
    world = World(delays={("m1", "a"): LOCAL_MS, ("m1", "b"): NEARER_MS, ("m1", "c"): FARTHER_MS})
    world.run(2_000)
    world.ask(Send([Content("first")]), within_ms=5_000)
    world.run(1_000)
    begun = []
    taken_ms: list[int] = []
    for _ in range(600):
        begun.append((world.ms, world.submit(Send([Content("x")]))))
        world.run(1)
        while begun and begun[0][1]:
            since_ms, answers = begun.pop(0)
            assert answers[0][0] is Verdict.DONE
            taken_ms.append(world.ms - since_ms)
    assert len(taken_ms) > 400
    assert max(taken_ms) <= 2 * NEARER_MS + PACE_SLACK_MS
