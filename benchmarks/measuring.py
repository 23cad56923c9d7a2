"""What every benchmark needs: callers under way, percentiles, what processes cost, tables."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distribution_manager.drills.local import LocalCluster

MIB = 1024 * 1024
KINDS = ("manager", "node", "etcd")
"""Of a ShadowQ cluster's processes."""
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Timings:
    """``seconds`` of each call; ``elapsed`` of all of them together."""

    seconds: list[float] = field(default_factory=list)
    elapsed: float = 0.0

    def quantile_ms(self, share: float) -> float:
        if not self.seconds:
            return float("nan")
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3

    @property
    def per_second(self) -> float:
        return len(self.seconds) / self.elapsed if self.elapsed else float("nan")


async def under_way(
    count: int, work: Callable[[], Awaitable[object]], *, calls: int | None = None, seconds: float | None = None
) -> Timings:
    """Keeps ``count`` calls of ``work`` under way until so many are done, or for so long."""
    timings = Timings()
    started = time.perf_counter()
    end = started + seconds if seconds is not None else float("inf")
    left = calls if calls is not None else 1 << 60

    async def caller() -> None:
        nonlocal left
        before = time.perf_counter()
        while left > 0 and before < end:
            left -= 1
            await work()
            now = time.perf_counter()
            timings.seconds.append(now - before)
            before = now

    await asyncio.gather(*(caller() for _ in range(count)))
    timings.elapsed = time.perf_counter() - started
    return timings


# --- processes -----------------------------------------------------------------------------------------------------


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES


def peak_resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def cpu_seconds(pid: int) -> float:
    """User and system time of all the process's threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def written_bytes(pid: int) -> int:
    """To disk, by the kernel's account of the process."""
    for line in Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines():
        if line.startswith("write_bytes:"):
            return int(line.split()[1])
    return 0


@dataclass(frozen=True)
class Usage:
    """Sums over a system's processes at one moment; their differences are what something cost."""

    cpu_seconds: float
    written_bytes: int
    peak_bytes: int

    @classmethod
    def of(cls, pids: Iterable[int]) -> Usage:
        """Processes that are gone count nothing."""
        cpu, written, peak = 0.0, 0, 0
        for pid in pids:
            try:
                cpu += cpu_seconds(pid)
                written += written_bytes(pid)
                peak += peak_resident_bytes(pid)
            except (FileNotFoundError, ProcessLookupError):
                continue
        return cls(cpu, written, peak)


def by_kind(cluster: LocalCluster, measure: Callable[[int], float]) -> dict[str, float]:
    """Sums of ``measure(pid)`` over the managers, the nodes and etcd."""
    sums = dict.fromkeys(KINDS, 0.0)
    for name, pid in cluster.pids.items():
        if pid is not None:
            sums[cluster.member(name).kind] += measure(pid)
    return sums


# --- output --------------------------------------------------------------------------------------------------------


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """First column to the left, the others to the right."""
    lines = [[str(cell) for cell in row] for row in [heads, *rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))])
        for first, *rest in lines
    )
