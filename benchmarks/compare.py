"""ShadowQ beside what a user would pick instead, and beside the floors: python -m benchmarks.compare [--quick].

Every system is started once, on this machine, and stays up. Each work is done in rounds, one system after the other
within a round (A B C A B C), so that whatever else the machine does falls on all of them; a figure is the median of the
rounds, with minimum and maximum, and ShadowQ's ratio to another system is taken round by round. Messages are counted,
not calls. Raw results: benchmarks/results/*.json; the table: the same name, .txt; with matplotlib installed, .png.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import floors, wrk
from benchmarks.measuring import Timings, Usage, table, under_way
from benchmarks.peers import Nats, Rabbit
from benchmarks.spawning import Absent
from benchmarks.systems import Bare, Caller, Moto, Noop, ShadowQ, System

SYSTEMS: tuple[type[System], ...] = (ShadowQ, Nats, Rabbit, Moto, Bare, Noop)
OURS = ShadowQ.name
RESULTS = Path(__file__).parent / "results"
SEND, TAKE, LIFE = "send", "receive+delete", "full life"
QUICK_SECONDS_MAX = 100.0
"""A quick run begins no further round after this long: on a busy machine it has fewer rounds."""
WARM_UP_CALLS = 20
EMPTY_TAKES_MAX = 3

Work = tuple[int, int, int]
"""(callers under way, messages in a call, bytes of a message)"""
QUICK: list[Work] = [(1, 1, 512), (64, 1, 512), (64, 10, 512)]
FULL: list[Work] = [
    *((callers, batch, 512) for callers in (1, 64, 256) for batch in (1, 10)),
    *((64, batch, size) for size in (100, 16_384) for batch in (1, 10)),
]
Result = dict[str, Any]


async def measured(system: System, timings_of: Any, messages_of: Any) -> Result:
    """Runs ``timings_of()`` and says what it cost; ``messages_of()`` counts the messages it moved."""
    before = Usage.of(system.pids())
    timings: Timings = await timings_of()
    after = Usage.of(system.pids())
    messages = messages_of()
    return {
        "messages": messages,
        "seconds": timings.elapsed,
        "per_second": messages / timings.elapsed,
        "p50_ms": timings.quantile_ms(0.5),
        "p99_ms": timings.quantile_ms(0.99),
        "p999_ms": timings.quantile_ms(0.999),
        "cpu_seconds_per_million": (after.cpu_seconds - before.cpu_seconds) / max(messages, 1) * 1e6,
        "written_bytes_per_message": (after.written_bytes - before.written_bytes) / max(messages, 1),
        "peak_bytes": after.peak_bytes,
    }


class Bench:
    """One work on one system: a new queue, a warm-up, then sends, takes of what was sent, and full lives."""

    def __init__(self, callers: list[Caller], work: Work) -> None:
        self._turn = itertools.cycle(callers)
        self._callers = callers
        _, self._batch, size = work
        self._body = "x" * size
        self.sent = self.taken = 0
        self._empty = 0

    async def warm_up(self) -> None:
        for caller in itertools.islice(self._turn, min(WARM_UP_CALLS, len(self._callers))):
            await caller.send(self._batch, self._body)

    async def drain_warm_up(self) -> None:
        for caller in itertools.islice(self._turn, min(WARM_UP_CALLS, len(self._callers))):
            await caller.take(self._batch)

    async def send(self) -> None:
        await next(self._turn).send(self._batch, self._body)
        self.sent += self._batch

    async def take(self) -> None:
        count = await next(self._turn).take(self._batch)
        self.taken += count
        self._empty = 0 if count else self._empty + 1

    async def life(self) -> None:
        caller = next(self._turn)
        await caller.send(self._batch, self._body)
        self.sent += self._batch
        left = self._batch
        while left > 0:
            count = await caller.take(left)
            if not count:
                self._empty += 1
                break
            left -= count
            self.taken += count

    async def run_sends(self, seconds: float) -> Timings:
        return await under_way(len(self._callers), self.send, seconds=seconds)

    async def run_takes(self, seconds: float) -> Timings:
        """Until all that was sent is taken, or for so long."""
        timings = Timings()
        started = time.perf_counter()

        async def caller() -> None:
            while self.taken + self._batch * len(self._callers) < self.sent and self._empty < EMPTY_TAKES_MAX:
                before = time.perf_counter()
                if before - started >= seconds:
                    return
                await self.take()
                timings.seconds.append(time.perf_counter() - before)

        await asyncio.gather(*(caller() for _ in self._callers))
        timings.elapsed = time.perf_counter() - started
        return timings

    async def run_lives(self, seconds: float) -> Timings:
        return await under_way(len(self._callers), self.life, seconds=seconds)


async def run_work(system: System, work: Work, seconds: float) -> dict[str, Result]:
    results: dict[str, Result] = {}
    async with AsyncExitStack() as stack:
        bench = Bench(await system.open(stack, work[0]), work)
        await bench.warm_up()
        results[SEND] = await measured(system, lambda: bench.run_sends(seconds), lambda: bench.sent)
        if system.sends_only:
            return results
        results[TAKE] = await measured(system, lambda: bench.run_takes(seconds), lambda: bench.taken)
    async with AsyncExitStack() as stack:
        bench = Bench(await system.open(stack, work[0]), work)
        await bench.warm_up()
        await bench.drain_warm_up()
        results[LIFE] = await measured(system, lambda: bench.run_lives(seconds), lambda: bench.taken)
    return results


async def start_all(stack: AsyncExitStack, folder: Path, wanted: list[str]) -> tuple[list[System], dict[str, str]]:
    """Those that came up, and why the others did not."""
    systems: list[System] = []
    absent: dict[str, str] = {}
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


async def run(options: argparse.Namespace, folder: Path) -> Result:
    works = QUICK if options.quick else FULL
    report: Result = {
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}",
        "load_before": os.getloadavg(),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "results": [],
    }
    report["floors"] = await floors.measure(folder)
    async with AsyncExitStack() as stack:
        systems, report["absent"] = await start_all(stack, folder, options.systems)
        report["notes"] = {system.name: system.note for system in systems}
        end_s = time.monotonic() + (QUICK_SECONDS_MAX if options.quick else float("inf"))
        for number in range(options.rounds):
            for work in works:
                for system in systems:
                    if not (options.quick and system.slow and work[1] > 1):
                        await one(report, system, work, number, options.seconds)
            await drive_with_wrk(report, systems, number, options.seconds)
            report["rounds"] = number + 1
            if time.monotonic() >= end_s:
                break
    report["load_after"] = os.getloadavg()
    return report


async def one(report: Result, system: System, work: Work, number: int, seconds: float) -> None:
    """A failure of a system is a result like another."""
    callers, batch, size = work
    try:
        async with asyncio.timeout(20 * seconds + 60):
            results = await run_work(system, work, seconds)
    except Exception as error:
        report.setdefault("failures", []).append([system.name, work, number, repr(error)])
        print(f"{system.name} {work}: {error!r}", flush=True)
        return
    for kind, values in results.items():
        report["results"].append(
            {"system": system.name, "kind": kind, "callers": callers, "batch": batch, "size": size, "round": number}
            | values
        )
    print(f"round {number} {work} {system.name}: {results[SEND]['per_second']:,.0f} sent/s", flush=True)


async def drive_with_wrk(report: Result, systems: list[System], number: int, seconds: float) -> None:
    """Single sends by wrk, whose own cost is next to nothing."""
    if not wrk.installed():
        report["absent"]["wrk"] = "wrk is not installed: apt-get install wrk"
        return
    for system in systems:
        if isinstance(system, ShadowQ | Moto | Bare | Noop):
            usage = Usage.of(system.pids())
            values = await wrk.send(system.endpoint, max(1, round(seconds)), 64, 512)
            spent = Usage.of(system.pids()).cpu_seconds - usage.cpu_seconds
            values["cpu_seconds_per_million"] = spent / max(values["messages"], 1) * 1e6
            shape = {"callers": 64, "batch": 1, "size": 512, "round": number}
            report["results"].append({"system": system.name, "kind": "send, by wrk"} | shape | values)


# --- the report ----------------------------------------------------------------------------------------------------

COLUMNS = {
    "messages/s": "per_second",
    "p50 ms": "p50_ms",
    "p99 ms": "p99_ms",
    "CPU s/million": "cpu_seconds_per_million",
    "B written/msg": "written_bytes_per_message",
    "peak MiB": "peak_bytes",
}


def text_of(report: Result) -> str:
    lines = [
        f"{report['began']}, {report['machine']}, load {report['load_before'][0]:.1f} to {report['load_after'][0]:.1f},"
        f" {report['rounds']} rounds of {report['seconds']} s",
        *(f"  {name}: {note}" for name, note in report["notes"].items()),
        *(f"  {name}: ABSENT: {reason}" for name, reason in report["absent"].items()),
        *(f"  FAILED: {failure}" for failure in report.get("failures", [])),
        "  " + ", ".join(f"{name} {value:.1f}" for name, value in report["floors"].items()),
        "",
    ]
    works: dict[tuple[Any, ...], dict[str, list[Result]]] = {}
    for item in report["results"]:
        key = (item["kind"], item["callers"], item["batch"], item["size"])
        works.setdefault(key, {}).setdefault(item["system"], []).append(item)
    for (kind, callers, batch, size), by_system in works.items():
        lines.append(f"{kind}, {callers} under way, {batch} a call, {size} bytes")
        rows = [row(name, items, by_system.get(OURS, [])) for name, items in by_system.items()]
        lines += [table(["system", *COLUMNS, "ShadowQ is (min-max)"], rows), ""]
    return "\n".join(lines)


def row(name: str, items: list[Result], ours: list[Result]) -> list[str]:
    cells = [name]
    for field in COLUMNS.values():
        values = [item[field] for item in items if field in item]
        scale = 2**20 if field == "peak_bytes" else 1
        digits = 2 if field.endswith("_ms") else 0
        cells.append(f"{statistics.median(values) / scale:,.{digits}f}" if values else "")
    rates = {item["round"]: item["per_second"] for item in items}
    ratios = [item["per_second"] / rates[item["round"]] for item in ours if rates.get(item["round"])]
    if ratios and name != OURS:
        cells.append(f"{statistics.median(ratios):.2f} x ({min(ratios):.2f}-{max(ratios):.2f})")
    else:
        spread = [item["per_second"] for item in items]
        cells.append(f"{min(spread):,.0f}-{max(spread):,.0f}/s")
    return cells


def plot(report: Result, path: Path) -> bool:
    """Throughput of every work and system; False where matplotlib is absent."""
    try:
        from matplotlib import pyplot  # noqa: PLC0415 - optional
    except ImportError:
        return False
    works = sorted({(item["kind"], item["callers"], item["batch"], item["size"]) for item in report["results"]})
    names = list(report["notes"])
    figure, axes = pyplot.subplots(figsize=(10, 1 + 0.5 * len(works)))
    for place, name in enumerate(names):
        medians = []
        for work in works:
            values = [
                item["per_second"]
                for item in report["results"]
                if item["system"] == name and (item["kind"], item["callers"], item["batch"], item["size"]) == work
            ]
            medians.append(statistics.median(values) if values else 0)
        offsets = [index + place * 0.8 / len(names) for index in range(len(works))]
        axes.barh(offsets, medians, height=0.8 / len(names), label=name)
    axes.set_yticks([index + 0.4 for index in range(len(works))])
    axes.set_yticklabels([f"{kind}, {callers} x {batch}, {size} B" for kind, callers, batch, size in works])
    axes.set_xscale("log")
    axes.set_xlabel("messages per second")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the main table, in under three minutes")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of each measurement")
    parser.add_argument("--systems", nargs="*", default=[], help="only those whose name contains one of these words")
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 5)
    options.seconds = options.seconds or (0.6 if options.quick else 2.0)
    RESULTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="shadowq-compare-") as folder:
        report = uvloop.run(run(options, Path(folder)))
    path = RESULTS / f"compare-{report['began'].replace(':', '')}.json"
    path.write_text(json.dumps(report, indent=1), encoding="utf-8")
    text = text_of(report)
    path.with_suffix(".txt").write_text(text, encoding="utf-8")
    plot(report, path.with_suffix(".png"))
    print(f"\n{text}\nraw: {path}")


if __name__ == "__main__":
    main()
