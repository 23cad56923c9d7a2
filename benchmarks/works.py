"""What a system is asked to do, and what that cost: the works of a comparison, and one of them on one system.

Model: a Work is a shape (callers under way, messages a call, bytes, queues, FIFO, depth). Its kinds are measured one
after the other on new queues: sends; takes of what was sent; full lives (send, take). A work with a depth is full lives
alone, on a queue that was filled once and keeps its depth.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from benchmarks.measuring import Timings, Usage, under_way
from benchmarks.systems import Caller, System
from benchmarks.traffic import Traffic

SEND, TAKE, LIFE = "send", "receive+delete", "full life"
WARM_UP_CALLS = 20
EMPTY_TAKES_MAX = 3
FILLERS = 16
"""Callers that fill a deep queue."""
FILL_BATCH = 10

Result = dict[str, Any]


@dataclass(frozen=True)
class Work:
    callers: int
    batch: int = 1
    size: int = 512
    queues: int = 1
    fifo: bool = False
    depth: int = 0

    def __str__(self) -> str:
        text = f"{self.callers} under way, {self.batch} a call, {self.size} bytes"
        text += ", FIFO" if self.fifo else ""
        text += f", {self.queues:,} queues" if self.queues > 1 else ""
        return text + (f", {self.depth:,} deep" if self.depth else "")

    def left_out_by(self, system: System) -> str:
        """Why a system does not do this work; "" where it does."""
        if self.fifo and not system.has_fifo:
            return "it has no FIFO queues with message groups"
        if self.queues > system.queues_max:
            return f"more than {system.queues_max} queues"
        return f"a depth of more than {system.depth_max:,}" if self.depth > system.depth_max else ""


WORKS: dict[str, list[Work]] = {
    "main": [Work(1), Work(64), Work(64, 10)],
    "callers": [Work(1, 10), Work(8), Work(8, 10), Work(256), Work(256, 10)],
    "sizes": [Work(64, batch, size) for size in (100, 16_384) for batch in (1, 10)],
    "queues": [Work(64, queues=queues) for queues in (10, 100, 1_000)],
    "fifo": [Work(callers, batch, fifo=True) for callers in (1, 64) for batch in (1, 10)],
    "depth": [Work(64, depth=depth) for depth in (10_000, 1_000_000)],
}
QUICK: list[Work] = [*WORKS["main"], Work(64, 10, fifo=True)]
SMOKE: list[Work] = [Work(8), Work(8, 10, fifo=True), Work(8, queues=5), Work(8, depth=200)]
"""One of every kind."""


class Bench:
    """One work on queues that are open: counts what it moves."""

    def __init__(self, callers: list[Caller], work: Work) -> None:
        self._turn = itertools.cycle(callers)
        self._work = work
        self._batch = work.batch
        self._body = "x" * work.size
        self.sent = self.taken = 0
        self._empty = 0

    async def warm_up(self) -> None:
        """Every queue is used once: the first use takes it over."""
        calls = max(min(WARM_UP_CALLS, self._work.callers), self._work.queues)
        await under_way(self._work.callers, lambda: next(self._turn).send(self._batch, self._body), calls=calls)
        await under_way(self._work.callers, lambda: next(self._turn).take(self._batch), calls=calls)

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
        return await under_way(self._work.callers, self.send, seconds=seconds)

    async def run_takes(self, seconds: float) -> Timings:
        """Until all that was sent is taken, or for so long."""
        timings = Timings()
        started = time.perf_counter()

        async def caller() -> None:
            while self.taken + self._batch * self._work.callers < self.sent and self._empty < EMPTY_TAKES_MAX:
                before = time.perf_counter()
                if before - started >= seconds:
                    return
                await self.take()
                timings.seconds.append(time.perf_counter() - before)

        await asyncio.gather(*(caller() for _ in range(self._work.callers)))
        timings.elapsed = time.perf_counter() - started
        return timings

    async def run_lives(self, seconds: float) -> Timings:
        return await under_way(self._work.callers, self.life, seconds=seconds)


async def run_work(system: System, work: Work, seconds: float) -> dict[str, Result]:
    """Each kind of the work on queues of its own."""
    results: dict[str, Result] = {}
    async with AsyncExitStack() as stack:
        bench = Bench(await system.open(stack, work.callers, work.queues, fifo=work.fifo), work)
        await bench.warm_up()
        results[SEND] = await measured(system, work, lambda: bench.run_sends(seconds), lambda: bench.sent)
        if system.sends_only:
            return results
        results[TAKE] = await measured(system, work, lambda: bench.run_takes(seconds), lambda: bench.taken)
    async with AsyncExitStack() as stack:
        bench = Bench(await system.open(stack, work.callers, work.queues, fifo=work.fifo), work)
        await bench.warm_up()
        results[LIFE] = await measured(system, work, lambda: bench.run_lives(seconds), lambda: bench.taken)
    return results


class DeepQueues:
    """Queues that were filled once, by system and depth; open until the comparison ends."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._filled: dict[tuple[str, Work], list[Caller]] = {}

    async def run_work(self, system: System, work: Work, seconds: float) -> dict[str, Result]:
        """Full lives at this depth."""
        callers = await self._callers(system, work)
        bench = Bench(callers, work)
        return {LIFE: await measured(system, work, lambda: bench.run_lives(seconds), lambda: bench.taken)}

    async def _callers(self, system: System, work: Work) -> list[Caller]:
        callers = self._filled.get((system.name, work))
        if callers is None:
            callers = await system.open(self._stack, max(work.callers, FILLERS), 1, fifo=work.fifo)
            turn = itertools.cycle(callers)
            body = "x" * work.size
            began = time.perf_counter()
            await under_way(FILLERS, lambda: next(turn).send(FILL_BATCH, body), calls=work.depth // FILL_BATCH)
            print(f"{system.name}: {work.depth:,} deep after {time.perf_counter() - began:.0f} s", flush=True)
            self._filled[system.name, work] = callers
        return callers


async def measured(
    system: System, work: Work, run: Callable[[], Awaitable[Timings]], messages_of: Callable[[], int]
) -> Result:
    """Runs ``run()`` and says what it cost; ``messages_of()`` counts the messages that it moved."""
    regions = system.regions()
    traffic, before = Traffic.of(regions), Usage.of(system.pids())
    timings = await run()
    after, traffic_after = Usage.of(system.pids()), Traffic.of(regions)
    messages = messages_of()
    body_bytes = max(messages, 1) * work.size
    result = {
        "messages": messages,
        "seconds": timings.elapsed,
        "per_second": messages / timings.elapsed,
        "p50_ms": timings.quantile_ms(0.5),
        "p99_ms": timings.quantile_ms(0.99),
        "p999_ms": timings.quantile_ms(0.999),
        "cpu_seconds_per_million": (after.cpu_seconds - before.cpu_seconds) / max(messages, 1) * 1e6,
        "written_per_body_byte": (after.written_bytes - before.written_bytes) / body_bytes,
        "peak_bytes": after.peak_bytes,
    }
    if regions:
        result["between_regions_per_body_byte"] = traffic_after.since(traffic) / body_bytes
    return result
