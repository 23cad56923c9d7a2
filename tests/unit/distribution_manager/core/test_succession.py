"""Who becomes primary when the primary's node fails: at once, and where the clients are if that is known."""

from __future__ import annotations

from distribution_manager.core import causes
from distribution_manager.core.limits import PROMOTE_AFTER_MS
from distribution_manager.core.messages import Verdict
from distribution_manager.core.promotion import PromotionConfig
from shadow_nodes.protocol.limits import SILENCE_BOUND_MS
from tests.unit.distribution_manager.core.promotion_world import PromotionWorld

NOTICED_WITHIN_MS = SILENCE_BOUND_MS + PROMOTE_AFTER_MS + 1_000


def test_without_known_clients_it_is_the_nearest_to_the_owner() -> None:
    world = PromotionWorld(PromotionConfig())
    world.drive("a", 1_000, lambda _: 20)
    assert (world.record.primary, world.owner) == ("a", "m1")
    world.lose("a")
    world.drive("a", NOTICED_WITHIN_MS, lambda _: 20)
    assert (world.record.primary, world.owner) == ("b", "m1")
    assert world.record.promoted_for == causes.FAILURE
    assert world.failed() == 0


def test_it_is_where_the_clients_are_and_the_owner_follows() -> None:
    world = PromotionWorld(PromotionConfig())
    world.drive("a", 500, lambda _: 20)
    world.drive("c", 10_000, lambda _: 400)
    assert (world.record.primary, world.owner) == ("a", "m1")
    world.lose("a")
    world.drive("c", NOTICED_WITHIN_MS, lambda _: 400)
    assert (world.record.primary, world.owner) == ("c", "m3")
    assert world.record.promoted_for == causes.FAILURE
    assert world.failed() == 0


def test_a_node_that_is_nearly_full_is_passed_over() -> None:
    world = PromotionWorld(PromotionConfig())
    world.load_node("b", disk_free=0.02)
    world.drive("a", 2_000, lambda _: 20)
    world.lose("a")
    world.drive("a", NOTICED_WITHIN_MS, lambda _: 20)
    assert (world.record.primary, world.owner) == ("c", "m3")
    assert world.failed() == 0


def test_it_does_not_wait_for_distances() -> None:
    """What others have measured is gone from etcd: somebody becomes primary all the same."""
    world = PromotionWorld(PromotionConfig())
    world.drive("c", 3_000, lambda _: 400)
    for manager in world.managers.values():
        manager.core.directory.latencies.clear()
    world.lose("a")
    world.drive("c", NOTICED_WITHIN_MS, lambda _: 400)
    assert world.record.primary in {"b", "c"}
    assert all(answer[0][0] is Verdict.DONE for answer in world.answers if answer)
    assert world.failed() == 0
