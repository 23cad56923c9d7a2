"""Looks for a shorter schedule of faults that still breaks the same promise: fewer kinds first, then fewer faults."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tests.simulation.plan import Fault, Plan, make_plan
from tests.simulation.world import World


def _broken(plan: Plan, faults: list[Fault]) -> str:
    """The first check that fails; "" where all is well."""
    report = World(msgspec.structs.replace(plan, faults=faults)).run()
    return report.violations[0][0] if report.violations else ""


def shrink(seed: int, profile: str) -> int:
    plan = make_plan(seed, profile)
    check = _broken(plan, plan.faults)
    if not check:
        print(f"seed {seed} is valid")
        return 0
    print(f"seed {seed}: {check}, with {len(plan.faults)} faults of {len(_kinds(plan.faults))} kinds", flush=True)
    faults = list(plan.faults)

    def still(candidate: list[Fault]) -> bool:
        return _broken(plan, candidate) == check

    for kind in _kinds(faults):
        without = [fault for fault in faults if fault.kind != kind]
        if still(without):
            faults = without
            print(f"  not needed: {kind}", flush=True)
    faults = fewest(faults, still)
    print(f"{len(faults)} faults are enough:")
    for fault in faults:
        print(f"  {fault.at_us / 1e6:9.3f} s {fault.kind} for {fault.lasts_us / 1e6:.3f} s, pick {fault.pick}")
    return 1


def _kinds(faults: list[Fault]) -> list[str]:
    return sorted({fault.kind for fault in faults})


def fewest(faults: list[Fault], still: Callable[[list[Fault]], bool]) -> list[Fault]:
    """Zeller's delta debugging, the part that leaves out: a list of which no chunk can be left out."""
    size = max(1, len(faults) // 2)
    while faults:
        place, before = 0, len(faults)
        while place < len(faults):
            without = faults[:place] + faults[place + size :]
            if still(without):
                faults = without
            else:
                place += size
        if size == 1 and len(faults) == before:
            break
        size = max(1, size // 2)
    return faults
