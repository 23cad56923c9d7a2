"""ShadowQ beside what a user would pick instead, and beside the floors: python -m benchmarks.compare [--quick].

Every system is started once, on this machine, and stays up. Each work is done in rounds, one system after the other
within a round (A B C A B C), so that whatever else the machine does falls on all of them; a figure is the median of the
rounds, with minimum and maximum, and ShadowQ's ratio to another system is taken round by round. Messages are counted,
not calls. Raw results: benchmarks/results/*.json; the table: the same name, .txt; with matplotlib installed, .png.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import tempfile
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from benchmarks import floors, wrk
from benchmarks.measuring import Usage
from benchmarks.peers import Nats, Rabbit
from benchmarks.report import plot, text_of
from benchmarks.spawning import Absent
from benchmarks.systems import Bare, Moto, Noop, ShadowQ, System
from benchmarks.works import QUICK, SEND, SMOKE, WORKS, DeepQueues, Result, Work, run_work

SYSTEMS: tuple[type[System], ...] = (ShadowQ, Nats, Rabbit, Moto, Bare, Noop)
NOT_TO_BE_HAD = {
    "LocalStack": "its server is a Docker image; what PyPI has (localstack-core 2026.3.0) ends with"
    " 'No component plugins found in namespace localstack.runtime.components'"
}
OURS = ShadowQ.name
RESULTS = Path(__file__).parent / "results"
QUICK_SECONDS_MAX = 100.0
"""A quick run begins no further round after this long: on a busy machine it has fewer rounds."""
WORK_SECONDS_MAX = 60.0
"""Besides 20 times what it is to be measured for; with a queue that is filled first, DEEP_SECONDS_MAX."""
DEEP_SECONDS_MAX = 1_800.0


async def start_all(stack: AsyncExitStack, folder: Path, wanted: list[str]) -> tuple[list[System], dict[str, str]]:
    """Those that came up, and why the others did not."""
    systems: list[System] = []
    absent: dict[str, str] = {} if wanted else dict(NOT_TO_BE_HAD)
    for kind in SYSTEMS:
        if wanted and not any(word.lower() in kind.name.lower() for word in wanted):
            continue
        system = kind()
        stack.push_async_callback(system.stop)
        try:
            await system.start(folder)
        except Absent as error:
            absent[system.name] = str(error)
        else:
            systems.append(system)
        print(f"{system.name}: {absent.get(system.name, 'up')}", flush=True)
    return systems, absent


async def run(options: argparse.Namespace, works: list[Work], folder: Path) -> Result:
    task = asyncio.current_task()
    assert task is not None
    # whoever ends this, by timeout(1) for one, is to leave no servers behind
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    report: Result = {
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}",
        "load_before": os.getloadavg(),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "left_out": [],
        "failures": [],
        "results": [],
    }
    report["floors"] = await floors.measure(folder)
    async with AsyncExitStack() as stack:
        systems, report["absent"] = await start_all(stack, folder, options.systems)
        if not wrk.installed():
            report["absent"]["wrk"] = "wrk is not installed: apt-get install wrk"
        report["notes"] = {system.name: system.note for system in systems}
        pairs = [(work, system) for work in works for system in systems if not _left_out(report, options, work, system)]
        deep = DeepQueues(await stack.enter_async_context(AsyncExitStack()))
        end_s = time.monotonic() + (QUICK_SECONDS_MAX if options.quick else float("inf"))
        for number in range(options.rounds):
            for work, system in pairs:
                await one(report, deep, system, work, number)
            await drive_with_wrk(report, systems, number, options.seconds)
            report["rounds"] = number + 1
            if time.monotonic() >= end_s:
                break
    report["load_after"] = os.getloadavg()
    return report


def _left_out(report: Result, options: argparse.Namespace, work: Work, system: System) -> bool:
    """Says so in the report."""
    reason = work.left_out_by(system)
    if options.quick and system.slow and work.batch > 1:
        reason = "too slow for a quick run"
    if reason:
        report["left_out"].append(f"{work}: {system.name}: {reason}")
    return bool(reason)


async def one(report: Result, deep: DeepQueues, system: System, work: Work, number: int) -> None:
    """A failure of a system is a result like another."""
    seconds = report["seconds"]
    runner = deep.run_work if work.depth else run_work
    try:
        async with asyncio.timeout(20 * seconds + (DEEP_SECONDS_MAX if work.depth else WORK_SECONDS_MAX)):
            results = await runner(system, work, seconds)
    except Exception as error:
        report["failures"].append([system.name, str(work), number, repr(error)])
        print(f"{system.name}, {work}: {error!r}", flush=True)
        return
    for kind, values in results.items():
        report["results"].append({"system": system.name, "kind": kind, "work": str(work), "round": number} | values)
    kind, values = next(iter(results.items()))
    print(f"round {number}, {work}, {system.name}: {kind} {values['per_second']:,.0f}/s", flush=True)


async def drive_with_wrk(report: Result, systems: list[System], number: int, seconds: float) -> None:
    """Single sends by wrk, whose own cost is next to nothing."""
    if "wrk" in report["absent"]:
        return
    work = Work(64)
    for system in systems:
        if isinstance(system, ShadowQ | Moto | Bare | Noop):
            usage = Usage.of(system.pids())
            values = await wrk.send(system.endpoint, max(1, round(seconds)), work.callers, work.size)
            spent = Usage.of(system.pids()).cpu_seconds - usage.cpu_seconds
            values["cpu_seconds_per_million"] = spent / max(values["messages"], 1) * 1e6
            shape = {"system": system.name, "kind": f"{SEND}, by wrk", "work": str(work), "round": number}
            report["results"].append(shape | values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the main table, in under three minutes")
    parser.add_argument(
        "--smoke", action="store_true", help="only that it works: one short round of every kind of work"
    )
    parser.add_argument("--works", nargs="*", choices=WORKS, default=list(WORKS), help="all, if not given")
    parser.add_argument("--rounds", type=int, help="5, or 3 if quick")
    parser.add_argument("--seconds", type=float, help="of each measurement: 2, or 0.5 if quick")
    parser.add_argument("--systems", nargs="*", default=[], help="only those whose name contains one of these words")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.smoke else 3 if options.quick else 5)
    options.seconds = options.seconds or (0.1 if options.smoke else 0.5 if options.quick else 2.0)
    works = [work for name in options.works for work in WORKS[name]]
    if options.quick or options.smoke:
        works = SMOKE if options.smoke else QUICK
    RESULTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="shadowq-compare-") as folder:
        report = uvloop.run(run(options, works, Path(folder)))
    path = RESULTS / f"compare-{report['began'].replace(':', '')}.json"
    path.write_text(json.dumps(report, indent=1), encoding="utf-8")
    text = text_of(report, OURS)
    path.with_suffix(".txt").write_text(text, encoding="utf-8")
    plotted = plot(report, path.with_suffix(".png"))
    print(f"\n{text}\nraw: {path}{', plot: .png' if plotted else '; no plot: matplotlib is not installed'}")


if __name__ == "__main__":
    main()
