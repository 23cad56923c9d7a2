"""What is left on what is drained, and whether it may be stopped."""

from __future__ import annotations

from distribution_manager.core.draining import Drained, drain_key, look_at
from distribution_manager.core.metadata import Drain, encode_record, node_drain_key, region_drain_key
from tests.unit.distribution_manager.core.promotion_world import PromotionWorld
from tests.unit.distribution_manager.core.review_world import SHARD

WELL = {node: {SHARD: ""} for node in "abc"}


def looked_at(world: PromotionWorld, key: str, **replicas: dict[str, str]) -> Drained:
    return look_at(world.managers["m3"].core.directory, "a", key, {**WELL, **replicas})


def test_what_is_there_before_and_after() -> None:
    world = PromotionWorld()
    before = looked_at(world, region_drain_key("a"))
    assert (before.primaries, before.owners, before.replicas, before.marked) == (("q",), ("q",), 1, False)
    assert not before.drained
    world.put(region_drain_key("a"), encode_record(Drain()))
    world.run(3_000)
    after = looked_at(world, region_drain_key("a"))
    assert (after.primaries, after.owners, after.replicas) == ((), (), 1)
    assert after.drained
    assert after.safe


def test_a_node_has_no_owners_and_takes_its_primaries_owner_along() -> None:
    world = PromotionWorld()
    before = looked_at(world, node_drain_key("a"))
    assert (before.primaries, before.owners) == (("q",), ())
    world.put(node_drain_key("a"), encode_record(Drain()))
    world.run(3_000)
    assert looked_at(world, node_drain_key("a")).safe
    assert world.owner != "m1"


def test_it_is_not_safe_where_another_replica_is_down_or_quarantined() -> None:
    world = PromotionWorld()
    world.put(region_drain_key("a"), encode_record(Drain()))
    world.run(3_000)
    for missing in ({}, {SHARD: "an entry failed"}):
        found = looked_at(world, region_drain_key("a"), b=missing)
        assert found.drained
        assert found.without_quorum == ("q",)
        assert not found.safe


def test_what_is_drained_by_name() -> None:
    world = PromotionWorld()
    directory = world.managers["m1"].core.directory
    assert drain_key(directory, "a") == region_drain_key("a"), "a region before a node of the same name"
    assert drain_key(directory, "nowhere") is None
    world.put(node_drain_key("gone"), encode_record(Drain()))
    assert drain_key(directory, "gone") == node_drain_key("gone"), "to be undone"
