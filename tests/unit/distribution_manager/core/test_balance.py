"""Primaries are spread, once, and not at any price."""

from __future__ import annotations

from distribution_manager.core.balance import COST_MAX_MS, Candidate, Step, plan
from distribution_manager.core.placement import Placement, Site

NODES = ("a", "b", "c")
BETTER_MS = 5.0


def placement(primary: str, score_ms: float = 0.0, *, preferred: bool = True) -> Placement:
    sites = (Site(primary, f"region-{primary}"), *(Site(node, f"region-{node}") for node in NODES if node != primary))
    return Placement(sites, score_ms, 0.0, 0.0, 0.0, preferred)


def queue(name: str, primary: str, *, follows: bool = True) -> Candidate:
    """The other primaries are as good."""
    return Candidate(name, placement(primary), [placement(node) for node in NODES if node != primary], follows)


def carried_out(candidates: list[Candidate], steps: list[Step]) -> dict[str, int]:
    at = {item.queue: item.here.sites[0].node for item in candidates} | {step.queue: step.to for step in steps}
    return {node: list(at.values()).count(node) for node in NODES}


def test_primaries_are_spread_evenly_with_as_few_moves_as_it_takes() -> None:
    candidates = [queue(f"q{number}", "a") for number in range(9)]
    steps = plan(candidates, NODES, BETTER_MS)
    assert carried_out(candidates, steps) == {"a": 3, "b": 3, "c": 3}
    assert len(steps) == 6
    assert steps[0].region == f"region-{steps[0].to}"


def test_what_is_spread_stays() -> None:
    assert plan([queue("q0", "a"), queue("q1", "b"), queue("q2", "c"), queue("q3", "a")], NODES, BETTER_MS) == []
    assert plan([], NODES, BETTER_MS) == []


def test_not_to_a_node_that_costs_too_much() -> None:
    candidates = [
        Candidate(f"q{number}", placement("a"), [placement("b", COST_MAX_MS + 1), placement("c", COST_MAX_MS)])
        for number in range(4)
    ]
    assert carried_out(candidates, plan(candidates, NODES, BETTER_MS)) == {"a": 2, "b": 0, "c": 2}


def test_not_away_from_a_wish() -> None:
    candidates = [Candidate(f"q{number}", placement("a"), [placement("b", preferred=False)]) for number in range(4)]
    assert plan(candidates, NODES, BETTER_MS) == []


def test_what_is_placed_better_elsewhere_goes_there_whatever_the_numbers() -> None:
    candidates = [Candidate("q0", placement("a", 40.0), [placement("b", 30.0), placement("c", 20.0)])]
    assert [(step.queue, step.node, step.to) for step in plan(candidates, NODES, BETTER_MS)] == [("q0", "a", "c")]


def test_a_queue_that_nobody_uses_costs_nothing_and_is_nearer_to_nobody() -> None:
    candidates = [
        Candidate(f"q{number}", placement("a", 40.0), [placement("b"), placement("c", 90.0)], used=False)
        for number in range(3)
    ]
    assert carried_out(candidates, plan(candidates, NODES, BETTER_MS)) == {"a": 1, "b": 1, "c": 1}


def test_an_owner_elsewhere_comes_to_its_primary() -> None:
    candidates = [queue("q0", "a", follows=False)]
    assert [(step.node, step.to) for step in plan(candidates, NODES, BETTER_MS)] == [("a", "a")]


def test_a_node_that_no_primary_may_be_on_is_not_counted() -> None:
    candidates = [Candidate(f"q{number}", placement("a"), [placement("b")]) for number in range(4)]
    assert carried_out(candidates, plan(candidates, ("a", "b"), BETTER_MS)) == {"a": 2, "b": 2, "c": 0}
