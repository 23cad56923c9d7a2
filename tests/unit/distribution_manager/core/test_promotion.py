"""Promotion by load, failback and drains, by manager cores, nodes and etcd on virtual time."""

from __future__ import annotations

import itertools
import math

import msgspec
import pytest

from distribution_manager.core.metadata import Drain, Permit, encode_record, permit_key, region_drain_key
from distribution_manager.core.promotion import FOLLOW_AFTER, FOLLOW_INTERVAL_MS
from distribution_manager.core.thresholds import Thresholds
from distribution_manager.core.transactions import Remove, Transaction
from shadow_nodes.protocol.messages import Append, ToNode
from tests.unit.distribution_manager.core.promotion_world import QUICK, PromotionWorld
from tests.unit.distribution_manager.core.review_world import SHARD, Manager

NOBODY = msgspec.structs.replace(QUICK, defaults=Thresholds())


def steady(rate: float):  # type: ignore[no-untyped-def]
    return lambda _: rate


def test_a_load_below_its_threshold_moves_nothing() -> None:
    world = PromotionWorld()
    world.drive("b", 10_000, steady(35))
    assert world.promotions == []


def test_a_load_over_its_threshold_moves_the_primary_and_the_owner_to_its_clients() -> None:
    world = PromotionWorld()
    world.drive("a", 2_000, steady(20))
    assert world.owner == "m1"
    world.drive("b", 20_000, steady(100))
    assert [(was, now, cause) for _, was, now, cause in world.promotions] == [("a", "b", "load")]
    assert world.owner == "m2"
    assert world.failed() == 0
    assert world.permits() == []
    assert "message rate" in world.moves[0][2]
    assert "threshold 50" in world.moves[0][2]


def test_a_spike_is_not_pressing() -> None:
    world = PromotionWorld(msgspec.structs.replace(QUICK, pace=msgspec.structs.replace(QUICK.pace, after_ms=8_000)))
    world.drive("b", 20_000, lambda ms: 150 if 5_000 <= ms < 7_000 else 20)
    assert world.promotions == []


def test_a_ramp_promotes_before_its_peak() -> None:
    """From 10 messages a second to 100 in 40 s: the threshold is reached after 24 s if one waits for it."""
    world = PromotionWorld(msgspec.structs.replace(QUICK, defaults=Thresholds(message_rate=70)))
    world.drive("a", 4_000, steady(10))
    began_ms = world.ms
    world.drive("b", 40_000, lambda ms: 10 + 90 * ms / 40_000)
    assert len(world.promotions) == 1
    assert world.promotions[0][0] - began_ms < 27_000, "the rate is 70 a second by then"
    assert world.failed() == 0


def test_a_load_that_swings_around_its_threshold_promotes_once() -> None:
    world = PromotionWorld()
    world.drive("b", 120_000, lambda ms: 55 + 20 * math.sin(2 * math.pi * ms / 12_000))
    assert len(world.promotions) == 1
    assert world.failed() == 0


def test_a_load_that_follows_the_primary_promotes_once_in_a_cooldown() -> None:
    """Wherever the primary is, that node is busy: without a cool-down it would go round and round."""
    world = PromotionWorld(msgspec.structs.replace(QUICK, defaults=Thresholds(cpu=0.8)), one_way_ms=3)
    for _ in range(100):
        for node in world.nodes:
            world.load_node(node, 0.95 if node == world.record.primary else 0.1)
        world.drive("b", 1_000, steady(10))
    assert 4 <= len(world.promotions) <= 100_000 // QUICK.cooldown_ms
    between = [later[0] - earlier[0] for earlier, later in itertools.pairwise(world.promotions)]
    assert min(between) >= QUICK.cooldown_ms
    assert world.failed() == 0


def test_nothing_moves_where_no_replica_would_be_better() -> None:
    world = PromotionWorld()
    world.drive("a", 20_000, steady(100))
    assert world.promotions == []


def test_a_busy_processor_moves_the_primary_to_one_that_is_freer_by_the_margin() -> None:
    busy = msgspec.structs.replace(QUICK, defaults=Thresholds(cpu=0.8))
    world = PromotionWorld(busy, one_way_ms=3)
    for node, cpu in (("a", 0.95), ("b", 0.85), ("c", 0.3)):
        world.load_node(node, cpu)
    world.drive("a", 10_000, steady(10))
    assert [(now, cause) for _, _, now, cause in world.promotions] == [("c", "load")]
    near = PromotionWorld(busy, one_way_ms=3)
    for node, cpu in (("a", 0.9), ("b", 0.75), ("c", 0.75)):
        near.load_node(node, cpu)
    near.drive("a", 10_000, steady(10))
    assert near.promotions == []


def test_a_disk_that_is_filling_up_is_seen_before_it_is_full() -> None:
    """Two hundredths of the disk every two seconds: less than a tenth is left after 20 s."""
    world = PromotionWorld(msgspec.structs.replace(QUICK, defaults=Thresholds(disk_free=0.1)))
    world.drive("a", 1_000, steady(10))
    free = 0.3
    while not world.promotions and free > 0.1:
        world.load_node("a", disk_free=free)
        world.drive("a", 2_000, steady(10))
        free -= 0.02
    assert [(was, cause) for _, was, _, cause in world.promotions] == [("a", "load")]
    assert free > 0.1


def test_nothing_is_promoted_to_a_replica_that_lags(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is well and in reach, but gets no entries: a move there is not even begun."""
    world = PromotionWorld()
    world.drive("a", 1_000, steady(10))
    sent = world.to_node

    def without_entries(manager: Manager, node: str, message: ToNode) -> None:
        if not (node == "b" and isinstance(message, Append)):
            sent(manager, node, message)

    monkeypatch.setattr(world, "to_node", without_entries)
    world.drive("b", 15_000, steady(100))
    assert world.promotions == []
    assert world.moves == []


def test_nothing_is_promoted_to_a_region_without_a_manager() -> None:
    world = PromotionWorld()
    world.drive("a", 1_000, steady(10))
    world.managers["m1"].step(lambda: world.managers["m1"].core.manager_down("m2"))
    world.drive("b", 15_000, steady(100))
    assert world.promotions == []


def test_a_queue_that_wants_its_region_is_not_moved_from_it_for_its_clients() -> None:
    world = PromotionWorld(PreferredPrimaryRegion="a")
    world.drive("b", 15_000, steady(100))
    assert world.promotions == []


def test_a_queues_own_threshold_counts_before_the_default() -> None:
    world = PromotionWorld(PromotionMessageRate="0")
    world.drive("b", 15_000, steady(100))
    assert world.promotions == []


# --- ack latency -----------------------------------------------------------------------------------------------------


def test_slow_acknowledgements_promote_and_then_are_quick() -> None:
    """The owner's way to the others is long; between the others it is short."""
    world = PromotionWorld(msgspec.structs.replace(QUICK, defaults=Thresholds(ack_latency_ms=300)))
    for other in "bc":
        world.delays["m1", other] = 250
        world.delays[{"b": "m2", "c": "m3"}[other], "a"] = 250
    world.drive("b", 25_000, steady(100))
    assert [(was, now, cause) for _, was, now, cause in world.promotions] == [("a", "b", "load")]
    assert "ack latency" in world.moves[0][2]
    assert world.failed() == 0


# --- permits ---------------------------------------------------------------------------------------------------------


def test_no_more_promotions_at_once_than_permits_and_a_dead_holder_frees_its_own() -> None:
    world = PromotionWorld()
    world.drive("a", 1_000, steady(10))
    lease = world.etcd.grant(1_000, world.ms)
    for number in range(QUICK.permits):
        permit = Permit(manager="dead", life=1, shard="0/0")
        world.etcd.transact(Transaction([], [_leased(permit_key(number), encode_record(permit))]), lease)
    world.drive("b", 15_000, steady(100))
    assert world.promotions == []
    world.etcd.expire(lease)
    world.drive("b", 5_000, steady(100))
    assert len(world.promotions) == 1
    assert world.permits() == []


def test_a_permit_whose_outcome_is_unknown_is_used_or_given_back() -> None:
    world = PromotionWorld()
    world.drive("a", 1_000, steady(10))
    world.drive("b", 2_000, steady(100))
    while not world.permits():
        world.etcd.replies_to_lose = 1
        world.drive("b", 100, steady(100))
        assert world.ms < 60_000
    world.drive("b", 5_000, steady(100))
    assert len(world.promotions) == 1
    assert world.permits() == []


def test_a_permit_of_this_process_that_nobody_needs_is_given_back() -> None:
    world = PromotionWorld()
    core = world.managers["m1"].core
    permit = Permit(manager="m1", life=core.life, shard=SHARD)
    world.etcd.transact(Transaction([], [_leased(permit_key(0), encode_record(permit))]), world.managers["m1"].lease)
    world.run(1_000)
    assert world.permits() == []


def _leased(key: str, value: bytes):  # type: ignore[no-untyped-def]
    from distribution_manager.core.transactions import Put

    return Put(key, value, leased=True)


# --- clients ---------------------------------------------------------------------------------------------------------


def test_the_primary_goes_to_its_clients_when_they_have_been_elsewhere_for_long() -> None:
    world = PromotionWorld(NOBODY)
    world.drive("a", 1_000, steady(100))
    long_ms = FOLLOW_AFTER * NOBODY.pace.after_ms + 2 * FOLLOW_INTERVAL_MS
    world.drive("c", long_ms // 2, steady(200))
    assert world.promotions == []
    world.drive("c", long_ms, steady(200))
    assert [(now, cause) for _, _, now, cause in world.promotions] == [("c", "clients")]
    assert world.owner == "m3"
    assert world.failed() == 0


# --- failback --------------------------------------------------------------------------------------------------------


def test_a_queue_returns_to_its_region_when_that_has_been_well() -> None:
    world = PromotionWorld(
        msgspec.structs.replace(NOBODY, cooldown_ms=2_000), PreferredPrimaryRegion="a", Failback="true"
    )
    world.drive("b", 1_000, steady(50))
    node, manager = world.nodes["a"], world.managers["m1"]
    node.up = False
    for one in world.managers.values():
        world.unlink(one, node)
    world.drive("b", 5_000, steady(50))
    assert world.record.primary != "a"
    before = len(world.promotions)
    node.up = True
    for one in world.managers.values():
        world.link(one, node)
    world.drive("b", 3_000, steady(50))
    assert len(world.promotions) == before, "it has not been well for long enough"
    world.drive("b", 8_000, steady(50))
    assert world.promotions[before:][-1][2:] == ("a", "failback")
    assert world.owner == manager.name
    assert world.failed() == 0


def test_without_failback_it_stays() -> None:
    world = PromotionWorld(msgspec.structs.replace(NOBODY, cooldown_ms=2_000), PreferredPrimaryRegion="a")
    world.drive("b", 1_000, steady(50))
    world.managers[world.owner].core.handoffs.promote(SHARD, "b", "by hand")
    world.drive("b", 15_000, steady(50))
    assert world.record.primary == "b"


# --- drains ----------------------------------------------------------------------------------------------------------


def test_a_drained_region_loses_its_primaries_and_owners_and_gets_none_until_it_is_undone() -> None:
    world = PromotionWorld(NOBODY)
    world.drive("a", 1_000, steady(50))
    assert (world.record.primary, world.owner) == ("a", "m1")
    world.put(region_drain_key("a"), encode_record(Drain()))
    world.drive("a", 3_000, steady(50))
    assert world.record.primary != "a"
    assert world.owner != "m1"
    assert world.promotions[-1][3] == "drain"
    owner = world.managers[world.owner].core
    assert owner.handoffs.promote(SHARD, "a", "by hand") == "a is being drained"
    world.etcd.transact(Transaction([], [Remove(region_drain_key("a"))]))
    world.run(100)
    assert owner.handoffs.promote(SHARD, "a", "by hand") == ""
    world.drive("a", 2_000, steady(50))
    assert world.owner == "m1"
    assert world.failed() == 0


def test_an_owner_leaves_a_drained_region_though_its_primary_is_elsewhere() -> None:
    world = PromotionWorld(NOBODY)
    world.drive("b", 1_000, steady(50))
    core = world.managers["m1"].core
    core.managers.pop("m2")
    assert core.handoffs.promote(SHARD, "b", "by hand") == ""
    world.run(300)
    assert (world.record.primary, world.owner) == ("b", "m1")
    world.put(region_drain_key("a"), encode_record(Drain()))
    world.drive("b", 3_000, steady(50))
    assert world.owner == "m3", "the only one in reach"
    assert world.failed() == 0


def test_a_manager_of_a_drained_region_takes_nothing_over_while_another_can() -> None:
    world = PromotionWorld(NOBODY)
    world.drive("a", 1_000, steady(50))
    world.put(region_drain_key("b"), encode_record(Drain()))
    dead = world.managers["m1"]
    dead.up = False
    for node in world.nodes.values():
        node.core.disconnected(dead.number)
        node.pump()
    for name in ("m2", "m3"):
        core = world.managers[name].core
        world.managers[name].step(lambda core=core: core.manager_down("m1"))
    world.drive("c", 3_000, steady(50))
    assert world.owner == "m3"


def test_a_shard_that_nobody_uses_is_taken_to_be_given_away() -> None:
    world = PromotionWorld(NOBODY)
    me = world.managers["m1"].core.me
    world.put(f"shards/{SHARD}", encode_record(msgspec.structs.replace(world.record, epoch=2, owner=me)))
    assert SHARD not in world.managers["m1"].core.owners
    world.put(region_drain_key("a"), encode_record(Drain()))
    world.run(3_000)
    assert world.record.primary != "a"
    assert world.owner != "m1"
