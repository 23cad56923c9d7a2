"""What shrinks schedules, and what puts faults into the code."""

from __future__ import annotations

from tests.simulation.mutations import MUTATIONS, check
from tests.simulation.plan import Fault
from tests.simulation.shrink import fewest


def test_shrinking_finds_the_two_faults_that_matter() -> None:
    faults = [Fault(number, "resets", 1, number) for number in range(40)]
    found = fewest(faults, lambda some: {7, 23} <= {fault.at_us for fault in some})
    assert [fault.at_us for fault in found] == [7, 23]


def test_every_mutation_still_finds_its_text() -> None:
    assert check(list(MUTATIONS)) == 0
