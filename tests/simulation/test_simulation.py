"""Two hundred seeds, the regression seeds, and that a seed is a run: the same trace under any string hash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.cli import run_seed
from tests.simulation.plan import AIMED_KINDS

SEEDS = 200
PER_TEST = 10
ROOT = Path(__file__).parents[2]


def regressions() -> list[tuple[int, str]]:
    """(seed, profile) of each line of seeds.txt: ``seed profile: what it was``."""
    lines = (Path(__file__).parent / "seeds.txt").read_text().splitlines()
    named = [line.partition(":")[0].split() for line in lines if line and not line.startswith("#")]
    return [(int(seed), profile) for seed, profile in named]


@pytest.mark.parametrize("first", range(1, SEEDS + 1, PER_TEST))
def test_seeds(first: int) -> None:
    reports = [run_seed(seed) for seed in range(first, first + PER_TEST)]
    assert [(report.seed, report.violations) for report in reports if report.verdict != "valid"] == []


KINDS = ("none", "nodes", "managers", "network", "etcd", "clocks", "disks", "damage", "healing", "moves", "restores")


@pytest.mark.parametrize("profile", [*KINDS, *AIMED_KINDS])
def test_one_kind_of_faults_at_a_time(profile: str) -> None:
    reports = [run_seed(seed, profile) for seed in range(1, 6)]
    assert [(report.seed, report.violations) for report in reports if report.verdict != "valid"] == []


@pytest.mark.parametrize(("seed", "profile"), regressions())
def test_seeds_that_once_failed(seed: int, profile: str) -> None:
    report = run_seed(seed, profile)
    assert report.violations == []
    assert report.verdict == "valid"


def test_the_same_seed_is_the_same_trace_under_any_string_hash() -> None:
    """All of it: every frame between any two processes, and every client's operation."""
    program = (
        "import hashlib\n"
        "from tests.simulation.plan import make_plan\n"
        "from tests.simulation.world import World\n"
        "world = World(make_plan(7), tracing=True)\n"
        "world.run()\n"
        "text = chr(10).join([*world.trace, *(repr(op) for op in world.history.ops)])\n"
        "print(len(world.trace), hashlib.sha256(text.encode()).hexdigest())\n"
    )
    traces = []
    for number in ("0", "1", "271828"):
        environment = {**os.environ, "PYTHONHASHSEED": number, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        traces.append(done.stdout)
    assert int(traces[0].split()[0]) > 1000
    assert len(set(traces)) == 1
