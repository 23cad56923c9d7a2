from __future__ import annotations

from itertools import combinations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distribution_manager.core.placement import (
    UNKNOWN_ROUND_TRIP_MS,
    NotEnoughRegionsError,
    Placement,
    Site,
    Wishes,
    placements,
    why_not,
)


class Table:
    """Round-trip times by pairs of regions."""

    def __init__(self, table: dict[tuple[str, str], float]) -> None:
        self._table = table

    def round_trip_ms(self, region: str, other: str) -> float:
        return self._table.get((region, other), self._table.get((other, region), UNKNOWN_ROUND_TRIP_MS))


class Line:
    """Regions on a line, each named by its place."""

    def round_trip_ms(self, region: str, other: str) -> float:
        return abs(float(region) - float(other))


def site(region: str, node: str = "", **state: object) -> Site:
    return msgspec.structs.replace(Site(node or f"node-{region}", region), **state)


def regions(placement: Placement) -> list[str]:
    return [site.region for site in placement.sites]


EUROPE = Table(
    {
        ("dublin", "paris"): 20,
        ("dublin", "virginia"): 70,
        ("dublin", "tokyo"): 220,
        ("paris", "virginia"): 85,
        ("paris", "tokyo"): 230,
        ("virginia", "tokyo"): 150,
    }
)
FOUR = [site(name) for name in ("tokyo", "virginia", "paris", "dublin")]


def test_clients_get_the_primary_and_the_nearest_shadow_makes_the_quorum() -> None:
    best = placements(FOUR, 3, EUROPE, {"dublin": 1})[0]
    assert regions(best) == ["dublin", "paris", "virginia"]
    assert (best.clients_ms, best.quorum_ms) == (0, 20)


def test_a_lone_region_is_better_served_from_a_pair_of_neighbours_when_it_has_few_of_the_clients() -> None:
    best = placements(FOUR, 2, EUROPE, {"tokyo": 1, "paris": 3})[0]
    assert regions(best) == ["paris", "dublin"]
    assert best.clients_ms == pytest.approx(230 / 4)


def test_of_sets_with_the_same_quorum_the_one_that_loses_least_with_its_primary_wins() -> None:
    table = Table({("a", "b"): 10, ("a", "c"): 90, ("a", "d"): 90, ("b", "c"): 100, ("b", "d"): 30, ("c", "d"): 60})
    assert regions(placements([site(name) for name in "abcd"], 3, table, {"a": 1})[0]) == ["a", "b", "d"]


def test_unfit_nodes_come_last_whatever_their_distance() -> None:
    nodes = [site("0"), site("1", reachable=False), site("2", draining=True), site("3", disk_free=0.01), site("9")]
    assert regions(placements(nodes, 2, Line(), {"0": 1})[0]) == ["0", "9"]
    assert regions(placements(nodes, 3, Line(), {"0": 1})[0])[0] == "0"


def test_an_unfit_node_is_no_primary_while_another_can_be() -> None:
    found = placements([site("a", reachable=False), site("b")], 2, Table({("a", "b"): 50}), {"a": 1})
    assert [regions(item) for item in found] == [["b", "a"]]


def test_one_node_of_a_region_the_one_with_most_room() -> None:
    nodes = [site("a", "a1", shards=9), site("a", "a2", shards=3), site("b")]
    best = placements(nodes, 2, Line0(), {"a": 1})[0]
    assert [item.node for item in best.sites] == ["a2", "node-b"]
    with pytest.raises(NotEnoughRegionsError, match="nodes in 3 regions; there are 2: a, b"):
        placements(nodes, 3, Line0(), {})


class Line0:
    def round_trip_ms(self, region: str, other: str) -> float:
        return 1.0


def test_what_is_kept_is_in_every_set_even_where_it_is_not_allowed() -> None:
    nodes = [site(str(place)) for place in (0, 1, 2, 50)]
    found = placements(nodes, 3, Line(), {"0": 1}, wishes=Wishes(frozenset({"0", "1"})), keep={"node-50"})
    assert {frozenset(regions(item)) for item in found} == {frozenset({"0", "1", "50"})}
    assert regions(found[0])[0] == "0"


def test_fewer_than_are_kept_chooses_who_stays() -> None:
    nodes = [site(str(place)) for place in (0, 5, 80)]
    best = placements(nodes, 2, Line(), {"0": 1}, keep=[item.node for item in nodes])[0]
    assert regions(best) == ["0", "5"]


def test_wishes_are_followed_where_they_can_be() -> None:
    assert (
        regions(placements(FOUR, 3, EUROPE, {"dublin": 1}, wishes=Wishes(primary_region="virginia"))[0])[0]
        == "virginia"
    )
    allowed = Wishes(frozenset({"tokyo", "virginia"}))
    assert set(regions(placements(FOUR, 2, EUROPE, {"dublin": 1}, wishes=allowed)[0])) == {"tokyo", "virginia"}
    with pytest.raises(NotEnoughRegionsError, match="AllowedRegions"):
        placements(FOUR, 3, EUROPE, {"dublin": 1}, wishes=allowed)


@given(
    st.lists(st.integers(0, 300), min_size=3, max_size=7, unique=True),
    st.integers(1, 3),
    st.dictionaries(st.integers(0, 300), st.integers(1, 9), min_size=1, max_size=3),
)
def test_no_set_acknowledges_sooner_than_the_best(places: list[int], count: int, clients: dict[int, int]) -> None:
    """Against every set and primary, with the time computed in another way; the tie-breaker's share is allowed."""
    total = sum(clients.values())

    def obvious(chosen: tuple[int, ...], primary: int) -> float:
        to_owner = sum(weight * abs(region - primary) for region, weight in clients.items()) / total
        return to_owner + sorted(abs(primary - other) for other in chosen)[count // 2]

    least = min(obvious(chosen, primary) for chosen in combinations(places, count) for primary in chosen)
    weights = {str(region): float(weight) for region, weight in clients.items()}
    best = placements([site(str(place)) for place in places], count, Line(), weights)[0]
    assert best.acknowledged_ms == pytest.approx(
        obvious(tuple(int(region) for region in best.regions), int(best.regions[0]))
    )
    assert best.acknowledged_ms <= least + 0.02 * 600 + 1e-6


def test_why_a_node_is_not_chosen() -> None:
    sites = [
        site("dublin"),
        site("dublin", "busier", shards=3),
        site("paris", disk_free=0.01),
        site("tokyo"),
        site("virginia"),
    ]
    reasons = {item.node: why for item, why in why_not(sites, wishes=Wishes(frozenset({"dublin", "paris", "tokyo"})))}
    assert reasons == {
        "busier": "node-dublin, of the same region, holds one or has less to do",
        "node-paris": "disk nearly full: only where there is no other",
        "node-virginia": "its region is not among AllowedRegions",
    }
