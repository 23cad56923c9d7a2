from __future__ import annotations

import pytest

from distribution_manager.core import causes
from distribution_manager.core.demand import (
    RATE_SLOTS_MAX,
    SLOT_MS,
    WEIGHT_HALF_LIFE_MS,
    Demand,
    Rates,
)
from shadow_nodes.protocol.commands import Content, Receive, Send
from tests.unit.distribution_manager.core.review_world import SHARD, World


def test_rates_are_those_of_the_newest_slots() -> None:
    demand = Demand(0)
    for second in range(20):
        for _ in range(100 if second >= 15 else 10):
            demand.count("a", 2, second * SLOT_MS + 500)
    now_ms = 20 * SLOT_MS
    assert demand.rates(now_ms, 5) == Rates(100.0, 200.0, 5 * SLOT_MS)
    assert demand.rates(now_ms, 20) == Rates(32.5, 65.0, 20 * SLOT_MS)
    assert (demand.operations_total, demand.messages_total) == (650, 1300)


def test_before_a_slot_has_ended_there_is_no_rate_and_a_new_owner_says_how_long_it_has_looked() -> None:
    demand = Demand(0)
    demand.count("a", 1, 10)
    assert demand.rates(10) == Rates()
    assert demand.rates(SLOT_MS) == Rates(1.0, 1.0, SLOT_MS)


def test_silence_however_long_ends_the_rate() -> None:
    demand = Demand(0)
    demand.count("a", 1, 10)
    assert demand.rates(10**9, RATE_SLOTS_MAX) == Rates(0.0, 0.0, RATE_SLOTS_MAX * SLOT_MS)
    assert demand.weights(10**9) == {}


def test_weights_follow_the_clients_and_forget_them() -> None:
    demand = Demand(0)
    for _ in range(1000):
        demand.count("a", 0, 1)
    assert demand.weights(1) == {"a": 1000.0}
    later_ms = WEIGHT_HALF_LIFE_MS
    for _ in range(1500):
        demand.count("b", 0, later_ms)
    weights = demand.weights(later_ms)
    assert weights["a"] == pytest.approx(500, rel=0.01)
    assert weights["b"] == 1500


def test_weights_are_inherited() -> None:
    demand = Demand(0)
    demand.inherit({"a": 3.0})
    demand.count("b", 0, 5)
    assert demand.weights(5) == {"a": 3.0, "b": 1.0}


def test_an_owner_counts_whose_clients_it_serves_wherever_they_come_in() -> None:
    world = World(managers=2)
    world.run(500)
    for _ in range(3):
        world.ask(Send([Content("x"), Content("y")]), manager="m1")
    world.ask(Receive(), manager="m2")
    owner = world.managers["m1"].core.owners[SHARD]
    assert owner.demand.weights(world.ms) == pytest.approx({"a": 3.0, "b": 1.0}, rel=0.05)
    world.run(2 * SLOT_MS)
    assert owner.demand.messages_total == 6
    assert world.managers["m2"].core.owners == {}


def test_what_is_known_of_the_clients_goes_with_a_planned_move() -> None:
    world = World(managers=2)
    world.run(500)
    for _ in range(8):
        world.ask(Send([Content("x")]), manager="m1")
    assert world.managers["m1"].core.handoffs.promote(SHARD, "b", causes.BY_HAND) == ""
    world.run(2_000)
    owner = world.managers["m2"].core.owners[SHARD]
    assert owner.demand.weights(world.ms) == pytest.approx({"a": 8.0}, rel=0.05)
