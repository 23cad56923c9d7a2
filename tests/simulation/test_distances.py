"""What managers tell each other of their ways reaches all, through faults, and does not grow."""

from __future__ import annotations

from itertools import combinations

import pytest

from distribution_manager.core.latency import PUBLISH_INTERVAL_MIN_MS
from tests.simulation.loop import MS
from tests.simulation.plan import make_plan
from tests.simulation.world import World


@pytest.mark.parametrize("seed", [1, 2, 6])
def test_after_all_is_mended_every_manager_knows_what_is_measured(seed: int) -> None:
    world = World(make_plan(seed))
    assert world.run().verdict == "valid"
    world.loop.run(world.loop.now_us + 2 * PUBLISH_INTERVAL_MIN_MS * MS)
    homes = {manager.region for manager in world.managers.values() if manager.alive}
    told = [item.key for item in world.cluster.list_prefix_always("latency/")]
    assert told == sorted(f"latency/{name}" for name, manager in world.managers.items() if manager.alive)
    for manager in world.managers.values():
        core = manager.live_core()
        for one, other in combinations(world.plan.regions, 2):
            if one in homes or other in homes:
                assert core.atlas.between(one, other), (manager.name, one, other)
        assert len(core.liveness._round_trips) <= len(world.processes)
