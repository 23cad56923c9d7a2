"""What the queue state machine costs: microseconds per message, and bytes per waiting message besides its body.

    python -m benchmarks.machine [messages]

Entries are encoded and decoded as a node gets them, so that strings are not shared by accident; only apply() and
summary() are timed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator

from shadow_nodes.core.machine import Machine
from shadow_nodes.protocol.commands import (
    Batch,
    Command,
    Configure,
    Content,
    Delete,
    Entry,
    Operation,
    Receive,
    Send,
    Session,
    Settings,
    decode_entry,
    encode,
)

BODY_BYTES = 512
ENTRY_OPERATIONS = 50


class Shard:
    """A machine that is fed entries of many operations, as a busy owner makes them."""

    def __init__(self, settings: Settings) -> None:
        self.machine = Machine()
        self.seq = 0
        self.now_ms = 1_700_000_000_000
        self.counter = 0
        self.seconds = 0.0
        self.run([Configure(settings)])

    def run(self, commands: list[Command]) -> list[object]:
        results: list[object] = []
        for start in range(0, len(commands), ENTRY_OPERATIONS):
            some = commands[start : start + ENTRY_OPERATIONS]
            self.seq += 1
            self.now_ms += 1
            operations = [Operation(0, self.counter + place, command) for place, command in enumerate(some)]
            sessions = [Session(2**62 + 1, self.counter)]
            self.counter += len(some)
            entry = decode_entry(encode(Entry(1, self.seq, self.now_ms, sessions, operations)))
            began = time.process_time()
            results += self.machine.apply(entry)
            self.machine.summary(self.now_ms)
            self.seconds += time.process_time() - began
        return results

    def timed(self, messages: int, commands: list[Command]) -> tuple[float, list[object]]:
        self.seconds = 0.0
        results = self.run(commands)
        return self.seconds / messages * 1e6, results


def chunks(count: int, size: int) -> Iterator[range]:
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


def measure(name: str, settings: Settings, batch: int, count: int, content: Callable[[int], Content]) -> None:
    shard = Shard(settings)
    sends: list[Command] = [Send([content(i) for i in places]) for places in chunks(count, batch)]
    send_us, _ = shard.timed(count, sends)
    receive_us, results = shard.timed(count, [Receive(batch) for _ in chunks(count, batch)])
    handles = [[(m.key, m.delivery) for m in r.messages] for r in results if isinstance(r, Batch)]
    assert sum(map(len, handles)) == count
    delete_us, _ = shard.timed(count, [Delete(some) for some in handles])
    assert shard.machine.messages() == 0
    print(f"{name:32} send {send_us:5.2f}  receive {receive_us:5.2f}  delete {delete_us:5.2f} µs per message")


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory(count: int, batch: int) -> None:
    shard = Shard(Settings(version=1))
    before = resident_bytes()
    for places in chunks(count, batch * ENTRY_OPERATIONS):
        shard.run(
            [
                Send([Content(f"{i:0{BODY_BYTES}}", sender_id="AIDAEXAMPLEEXAMPLE123") for i in some])
                for some in chunks(len(places), batch)
            ]
        )
        if shard.machine.changed_rows() > 2_000:
            shard.machine.take_changes()
    each = (resident_bytes() - before) / count
    kind = f"{count:,} waiting messages of {BODY_BYTES} bytes, sent {batch} at a time"
    print(f"{kind}: {each - BODY_BYTES:.0f} bytes each besides the body")
    began = time.perf_counter()
    shard.run([Receive(10)])
    print(f"  a receive from them: {(time.perf_counter() - began) * 1e6:.0f} µs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("messages", nargs="?", type=int, default=1_000_000)
    count = parser.parse_args().messages
    standard, fifo = Settings(version=1), Settings(version=1, fifo=True)
    body = "x" * BODY_BYTES

    def plain(_: int) -> Content:
        return Content(body, sender_id="AIDAEXAMPLEEXAMPLE123")

    def grouped(place: int) -> Content:
        return Content(body, group_id=f"group {place // 10}", deduplication_id=f"id {place}")

    def alone(place: int) -> Content:
        return Content(body, group_id=f"group {place}", deduplication_id=f"id {place}")

    for batch in (10, 1):
        measure(f"standard, {batch} at a time", standard, batch, 100_000, plain)
    measure("FIFO groups of 10, 10 at a time", fifo, 10, 20_000, grouped)
    for batch in (10, 1):
        measure(f"FIFO groups of 1, {batch} at a time", fifo, batch, 20_000, alone)
    sys.stdout.flush()
    for batch in (10, 1):
        child = os.fork()
        if not child:
            memory(count, batch)
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
