"""Round trips, what managers tell each other of them, and what an atlas makes of that."""

from __future__ import annotations

from typing import Any

import pytest

from distribution_manager.core.directory import Directory
from distribution_manager.core.latency import (
    PUBLISH_INTERVAL_MAX_MS,
    PUBLISH_INTERVAL_MIN_MS,
    SAMPLES_MIN,
    LatencyReport,
    effective_ms,
)
from distribution_manager.core.liveness import LATE_MS, Liveness, RoundTrip
from distribution_manager.core.metadata import LatencyRecord, Way, decode_record, latency_key
from distribution_manager.core.placement import UNKNOWN_ROUND_TRIP_MS, placements
from distribution_manager.core.request import Now
from distribution_manager.core.transactions import Change, Put, Transaction
from shadow_nodes.protocol.limits import HEARTBEAT_INTERVAL_MS, PROTOCOL_VERSION
from shadow_nodes.protocol.messages import Welcome
from tests.unit.distribution_manager.core.review_world import World


def nothing(*_: Any) -> None:
    pass


class Teller:
    """A report over links whose round trips the test sets, and a directory that learns what is put."""

    def __init__(self) -> None:
        self.ms = 1_000
        self.directory = Directory(on_shard=nothing, on_grave=nothing, on_queue=nothing, on_manager=nothing)
        self.liveness = Liveness()
        self.report = LatencyReport("m", "here", self.directory, self.liveness)
        self.put: list[LatencyRecord] = []
        self.etcd_up = True

    def link(self, node: str, region: str, *samples_ms: float) -> None:
        self.liveness.node_up(node, Welcome(PROTOCOL_VERSION, "test", node, region, f"{node}-1", 0), self.ms)
        for sample_ms in samples_ms:
            self.liveness.nodes[node].round_trip.add(sample_ms)

    def look(self, after_ms: int) -> int:
        """How often something was put while that time passed."""
        before = len(self.put)
        for _ in range(after_ms // HEARTBEAT_INTERVAL_MS):
            self.ms += HEARTBEAT_INTERVAL_MS
            transaction = self.report.due(self._now())
            if transaction is not None:
                self._carry_out(transaction)
        return len(self.put) - before

    def _carry_out(self, transaction: Transaction) -> None:
        (change,) = transaction.changes
        assert isinstance(change, Put)
        assert change.leased
        self.put.append(decode_record(LatencyRecord, change.key, change.value))
        if self.etcd_up:
            self.directory.changes([Change(change.key, change.value, len(self.put))])
        self.report.told(self._now(), known=self.etcd_up)

    def _now(self) -> Now:
        return Now(self.ms, self.ms + 1_700_000_000_000)


def test_round_trips_are_smoothed_and_loopback_is_nothing() -> None:
    trip = RoundTrip()
    for _ in range(100):
        trip.add(0)
    assert (trip.smoothed_ms, trip.jitter_ms, trip.loss) == (0, 0, 0)
    for _ in range(100):
        trip.add(40)
    assert trip.smoothed_ms == pytest.approx(40, abs=0.1)
    assert trip.jitter_ms < 1


def test_loss_is_what_comes_late_or_never() -> None:
    trip = RoundTrip()
    for number in range(1_000):
        trip.add(80 + (LATE_MS + 100 if number % 20 == 0 else 0))
    assert trip.loss == pytest.approx(0.05, abs=0.03)
    quiet = RoundTrip()
    for number in range(1_000):
        quiet.add(80 + number % 7)
    assert quiet.loss == 0
    quiet.under_way = 6
    quiet.broken()
    assert quiet.loss == pytest.approx(6 / 64, abs=0.01)
    assert quiet.under_way == 0


def test_jitter_and_loss_make_a_way_count_longer() -> None:
    plain = Way(region="r", round_trip_ms=80)
    assert effective_ms(plain) == 80
    assert effective_ms(Way(region="r", round_trip_ms=80, jitter_ms=10)) == 90
    assert effective_ms(Way(region="r", round_trip_ms=80, loss=0.1)) == pytest.approx(80 + 0.1 * (80 + LATE_MS))


def test_a_report_is_put_soon_then_only_on_change_or_when_it_is_old() -> None:
    teller = Teller()
    teller.link("n", "there", *[30.0] * SAMPLES_MIN)
    assert teller.look(PUBLISH_INTERVAL_MIN_MS) == 1
    assert teller.put[0].nodes["n"] == Way(
        region="there", round_trip_ms=30.0, jitter_ms=teller.put[0].nodes["n"].jitter_ms
    )
    assert teller.look(PUBLISH_INTERVAL_MAX_MS - PUBLISH_INTERVAL_MIN_MS) == 0
    assert teller.look(2 * PUBLISH_INTERVAL_MIN_MS) == 1
    for _ in range(20):
        teller.liveness.nodes["n"].round_trip.add(60)
    assert teller.look(PUBLISH_INTERVAL_MIN_MS) == 1
    assert teller.put[-1].nodes["n"].round_trip_ms > 55


def test_however_much_changes_it_is_not_put_more_often_than_bounded() -> None:
    teller = Teller()
    teller.link("n", "there", *[30.0] * SAMPLES_MIN)
    count = 0
    for number in range(20):
        for _ in range(20):
            teller.liveness.nodes["n"].round_trip.add(100 if number % 2 else 10)
        count += teller.look(PUBLISH_INTERVAL_MIN_MS // 4)
    assert 4 <= count <= 5


def test_a_report_that_etcd_lost_or_never_had_is_put_again() -> None:
    teller = Teller()
    teller.link("n", "there", *[30.0] * SAMPLES_MIN)
    teller.etcd_up = False
    assert teller.look(3 * PUBLISH_INTERVAL_MIN_MS) == 3
    teller.etcd_up = True
    assert teller.look(3 * PUBLISH_INTERVAL_MIN_MS) == 1
    teller.directory.changes([Change(latency_key("m"), None, 10)])
    assert teller.look(PUBLISH_INTERVAL_MIN_MS) == 1


def test_a_link_that_is_down_is_not_told_and_a_stranger_is_forgotten() -> None:
    teller = Teller()
    teller.link("n", "there", *[30.0] * SAMPLES_MIN)
    teller.link("gone", "there", *[30.0] * SAMPLES_MIN)
    teller.look(PUBLISH_INTERVAL_MIN_MS)
    teller.liveness.node_down("gone")
    assert teller.look(PUBLISH_INTERVAL_MIN_MS) == 1
    assert teller.put[-1].nodes.keys() == {"n"}
    assert teller.liveness._round_trips.keys() == {"nodes/n"}


def test_ways_between_two_other_regions_are_known_from_etcd_and_outlive_it() -> None:
    """m1 is in a; how far b is from c, m2 in b has told."""
    delays = {("m1", "b"): 20, ("m1", "c"): 40, ("m2", "a"): 20, ("m2", "c"): 35, ("m2", "b"): 0}
    world = World(managers=2, delays=delays)
    atlas = world.managers["m1"].core.atlas
    world.run(1_000)
    assert atlas.round_trip_ms("a", "c") == pytest.approx(80, abs=3)
    round_by_a_ms = atlas.round_trip_ms("b", "a") + atlas.round_trip_ms("a", "c")
    assert atlas.round_trip_ms("b", "c") == round_by_a_ms > 75, "not told yet"
    assert atlas.round_trip_ms("b", "elsewhere") == UNKNOWN_ROUND_TRIP_MS
    world.run(2 * PUBLISH_INTERVAL_MIN_MS)
    assert atlas.round_trip_ms("b", "c") == atlas.round_trip_ms("c", "b") == pytest.approx(70, abs=3)
    assert {item.manager for item in atlas.ways()} == {"m1", "m2"}
    world.etcd.set_available(False)
    world.run(5_000)
    assert atlas.round_trip_ms("b", "c") == pytest.approx(70, abs=3)


def test_what_a_manager_told_goes_with_its_lease() -> None:
    world = World(managers=2, delays={("m2", "c"): 35})
    world.run(2 * PUBLISH_INTERVAL_MIN_MS)
    atlas = world.managers["m1"].core.atlas
    assert atlas.round_trip_ms("b", "c") == pytest.approx(70, abs=3)
    world.managers["m2"].up = False
    world.etcd.revoke(world.managers["m2"].lease)
    world.run(1_000)
    round_by_a_ms = atlas.round_trip_ms("b", "a") + atlas.round_trip_ms("a", "c")
    assert atlas.round_trip_ms("b", "c") == round_by_a_ms < 70


def test_a_queue_s_primary_is_at_home_before_other_regions_have_told_of_their_ways() -> None:
    """As ways between them counted as endless, the failover without the primary at home did too, and it lost."""
    world = World(managers=1, delays={("m1", "b"): 2, ("m1", "c"): 2})
    world.run(1_000)
    atlas = world.managers["m1"].core.atlas
    assert not atlas.between("b", "c")
    assert placements(atlas.sites(), 3, atlas, {"a": 1.0})[0].regions[0] == "a"
