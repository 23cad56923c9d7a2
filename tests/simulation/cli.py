"""Runs seeds: one, a range, or as many as fit into a time; says how a failing one is replayed."""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from multiprocessing import get_context
from pathlib import Path

from tests.simulation.plan import make_plan
from tests.simulation.world import Report, World

TRACES = Path("build/sim-traces")


def run_seed(seed: int, profile: str = "all", tracing: bool = False) -> Report:
    return World(make_plan(seed, profile), tracing).run()


def _run(argument: tuple[int, str]) -> tuple[Report, float]:
    start = time.process_time()
    report = run_seed(*argument)
    return report, time.process_time() - start


class Totals:
    def __init__(self) -> None:
        self.seeds = 0
        self.cpu_s = 0.0
        self.simulated_s = 0.0
        self.counts: dict[str, int] = {}
        self.faults: dict[str, int] = {}
        self.failed: list[Report] = []
        self.unknown = 0

    def add(self, report: Report, cpu_s: float) -> None:
        self.seeds += 1
        self.cpu_s += cpu_s
        self.simulated_s += report.simulated_s
        for kind, count in report.faults.items():
            self.faults[kind] = self.faults.get(kind, 0) + count
        for name in ("operations", "acknowledged", "entries", "takeovers", "changes", "snapshots", "digests"):
            self.counts[name] = self.counts.get(name, 0) + getattr(report, name)
        if report.verdict == "invalid":
            self.failed.append(report)
        self.unknown += report.verdict == "unknown"

    def line(self) -> str:
        counts = self.counts
        return (
            f"{self.seeds} seeds, {self.simulated_s / 3600:.1f} h simulated in {self.cpu_s:.0f} CPU s, "
            f"{counts.get('operations', 0)} operations, {counts.get('takeovers', 0)} takeovers, "
            f"{counts.get('changes', 0)} replica changes, {sum(self.faults.values())} faults, "
            f"{len(self.failed)} failed, {self.unknown} unknown"
        )

    def per_hour(self) -> str:
        hours = max(self.cpu_s, 0.001) / 3600
        parts = [f"{int(value / hours):,} {name}" for name, value in self.counts.items()]
        return (
            f"per CPU hour: {int(self.seeds / hours):,} seeds, {int(sum(self.faults.values()) / hours):,} faults, "
            + ", ".join(parts)
        )

    def table(self, profile: str) -> str:
        """For docs/simulation.md: a row of the runs, and what happened how often."""
        commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        counts = self.counts
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(self.faults.items()))
        row = (
            f"{when}, {commit.stdout.strip() or 'unknown'}{'' if profile == 'all' else f', {profile}'}",
            f"{self.seeds:,}",
            f"{self.simulated_s / 3600:.1f} h",
            f"{counts.get('operations', 0):,}; {counts.get('takeovers', 0):,}; {sum(self.faults.values()):,}",
            f"{self.cpu_s:,.0f} s",
            str(len(self.failed) + self.unknown),
        )
        return f"| {' | '.join(row)} |\nfaults: {kinds}"


def _seeds(arguments: argparse.Namespace) -> Iterable[int]:
    if arguments.seed is not None:
        return [arguments.seed]
    if arguments.seeds:
        first, _, last = arguments.seeds.partition("-")
        return range(int(first), int(last or first) + 1)
    return itertools.count(arguments.start)


def _until(seeds: Iterable[int], end: float) -> Iterator[int]:
    for seed in seeds:
        if time.monotonic() >= end:
            return
        yield seed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="one seed, with its trace written to a file")
    parser.add_argument("--seeds", help="A-B")
    parser.add_argument("--minutes", type=float, help="as many seeds as fit")
    parser.add_argument("--start", type=int, default=1_000_000, help="with --minutes: the first seed")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--profile", default="all")
    parser.add_argument("--stop", action="store_true", help="at the first seed that fails")
    parser.add_argument(
        "--shrink", type=int, metavar="SEED", help="look for a shorter schedule that fails the same way"
    )
    arguments = parser.parse_args()
    if arguments.shrink is not None:
        from tests.simulation.shrink import shrink

        return shrink(arguments.shrink, arguments.profile)
    if arguments.seed is not None:
        return _replay(arguments.seed, arguments.profile)
    end = time.monotonic() + (arguments.minutes * 60 if arguments.minutes else 1e9)
    work = ((seed, arguments.profile) for seed in _until(_seeds(arguments), end))
    totals = Totals()
    if arguments.jobs > 1:
        with get_context("spawn").Pool(arguments.jobs) as pool:
            _show(totals, pool.imap_unordered(_run, work), arguments)
    else:
        _show(totals, map(_run, work), arguments)
    print(totals.line())
    print(totals.per_hour())
    print(totals.table(arguments.profile))
    return 1 if totals.failed else 0


def _show(totals: Totals, results: Iterable[tuple[Report, float]], arguments: argparse.Namespace) -> None:
    shown = time.monotonic()
    for report, cpu_s in results:
        totals.add(report, cpu_s)
        if report.verdict != "valid":
            _complain(report, arguments.profile)
            if arguments.stop:
                return
        if time.monotonic() - shown > 5:
            shown = time.monotonic()
            print(totals.line(), file=sys.stderr, flush=True)


def _complain(report: Report, profile: str) -> None:
    check, text = report.violations[0] if report.violations else ("", "")
    more = f" (and {len(report.violations) - 1} more)" if len(report.violations) > 1 else ""
    option = "" if profile == "all" else f" --profile {profile}"
    print(f"seed {report.seed}: {report.verdict}: {check}: {text[:300]}{more}", flush=True)
    print(f"  python -m tests.simulation --seed {report.seed}{option}", flush=True)


def _replay(seed: int, profile: str) -> int:
    world = World(make_plan(seed, profile), tracing=True)
    report = world.run()
    assert world.trace is not None
    TRACES.mkdir(parents=True, exist_ok=True)
    path = TRACES / f"{seed}-{profile}.txt"
    path.write_text("\n".join([*world.trace, "", *(f"{op!r}" for op in world.history.ops)]) + "\n")
    for check, text in report.violations:
        print(f"{check}: {text}")
    print(report)
    print(f"trace: {path}")
    return 0 if report.verdict == "valid" else 1
