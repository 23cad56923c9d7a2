"""One manager's link to one node, in two processes on this machine: ``python benchmarks/link.py [--seconds S]``.

Measures what the wire costs (Ping and Pong), and what an entry costs that must be on disk before it is answered (Append
and Appended), one at a time and pipelined. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import uvloop

from distribution_manager.links.node_links import NodeLinks
from distribution_manager.links.settings import LinkSettings
from shadow_nodes.protocol.commands import Content, Entry, Operation, Send, Session, encode, shard_key
from shadow_nodes.protocol.limits import PROTOCOL_VERSION
from shadow_nodes.protocol.messages import (
    LOG_START,
    Append,
    Appended,
    Fence,
    Fenced,
    Hello,
    Ping,
    Pong,
    Position,
    Token,
    ToManager,
    ToNode,
)
from shadow_nodes.resolve import Resolver

TOKEN = Token(1, 1)
SHARDS = [shard_key(number, 0) for number in range(1, 51)]
IN_FLIGHT = 64
BODY = "x" * 256


class Bench:
    """``on_answered`` is told how many requests an answer answers: one Appended may stand for many entries."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.up = asyncio.Event()
        self.fenced = asyncio.Event()
        self.frames = 0
        self.seqs = dict.fromkeys(SHARDS, 0)
        self.acknowledged = dict.fromkeys(SHARDS, 0)
        self.on_answered: Callable[[int], None] = lambda count: None
        hello = Hello(PROTOCOL_VERSION, "bench", "m", 1, "r")
        self.links = NodeLinks(
            hello,
            Resolver(),
            LinkSettings(),
            on_up=lambda node, welcome: self.up.set(),
            on_messages=self._messages,
            on_down=lambda node: sys.exit("the link went down"),
        )

    def _messages(self, node: str, messages: list[ToManager]) -> None:
        self.frames += 1
        for message in messages:
            if isinstance(message, Appended):
                count = message.seq - self.acknowledged[message.shard]
                self.acknowledged[message.shard] = message.seq
                self.on_answered(count)
            elif isinstance(message, Pong):
                self.on_answered(1)
            elif isinstance(message, Fenced) and message.shard == SHARDS[-1]:
                self.fenced.set()

    def send(self, message: ToNode) -> None:
        self.links.send("n1", message)

    def append(self, shard: str) -> None:
        seq = self.seqs[shard] = self.seqs[shard] + 1
        now_ms = time.time_ns() // 1_000_000
        send = Operation(0, seq, Send([Content(BODY)]))
        entry = encode(Entry(1, seq, now_ms, [Session(1, seq)], [send]))
        previous = Position(1, seq - 1) if seq > 1 else LOG_START
        self.send(Append(shard, TOKEN, previous, [entry], seq - 1, False))

    async def one_at_a_time(self, send: Callable[[], None]) -> dict[str, float]:
        """Each is sent when the last is answered."""
        times: list[float] = []
        done = asyncio.Event()
        end = time.perf_counter() + self.seconds
        started = time.perf_counter()

        def answered(_: int) -> None:
            nonlocal started
            now = time.perf_counter()
            times.append(now - started)
            started = now
            if now < end:
                send()
            else:
                done.set()

        self.on_answered = answered
        send()
        await done.wait()
        times.sort()
        return {
            "per_second": round(len(times) / self.seconds),
            "p50_us": round(times[len(times) // 2] * 1e6, 1),
            "p99_us": round(times[len(times) * 99 // 100] * 1e6, 1),
        }

    async def pipelined(self, send: Callable[[], None]) -> dict[str, float]:
        """Every answer sends the next: IN_FLIGHT under way. What arrives in one frame is answered in one."""
        count = 0
        frames = self.frames
        waiting = IN_FLIGHT
        done = asyncio.Event()
        start = time.perf_counter()
        end = start + self.seconds

        def answered(number: int) -> None:
            nonlocal count, waiting
            count += number
            if time.perf_counter() < end:
                for _ in range(number):
                    send()
            else:
                waiting -= number
                if not waiting:
                    done.set()

        self.on_answered = answered
        for _ in range(IN_FLIGHT):
            send()
        await done.wait()
        took = time.perf_counter() - start
        return {"per_second": round(count / took), "frames_per_second": round((self.frames - frames) / took)}

    async def one_way_frames(self) -> dict[str, float]:
        """A frame per loop turn, not waiting for answers but every 200 frames."""
        count = 0
        answers = 0
        arrived = asyncio.Event()

        def answered(number: int) -> None:
            nonlocal answers
            answers += number
            if answers == count:
                arrived.set()

        self.on_answered = answered
        start = time.perf_counter()
        while time.perf_counter() - start < self.seconds:
            arrived.clear()
            count += 200
            for _ in range(200):
                self.send(Ping(0))
                await asyncio.sleep(0)
            await arrived.wait()
        return {"frames_per_second": round(count / (time.perf_counter() - start))}

    async def run(self, port: int) -> dict[str, object]:
        self.links.set_targets({"n1": f"127.0.0.1:{port}"})
        await self.up.wait()
        for shard in SHARDS:
            self.send(Fence(shard, TOKEN))
        await self.fenced.wait()
        turn = iter(range(1 << 60))
        results: dict[str, object] = {
            "ping, one at a time": await self.one_at_a_time(lambda: self.send(Ping(0))),
            "ping, frames": await self.one_way_frames(),
            "append, one at a time": await self.one_at_a_time(lambda: self.append(SHARDS[0])),
            f"append, {IN_FLIGHT} under way on one shard": await self.pipelined(lambda: self.append(SHARDS[1])),
            f"append, {IN_FLIGHT} under way on {len(SHARDS)} shards": await self.pipelined(
                lambda: self.append(SHARDS[next(turn) % len(SHARDS)])
            ),
        }
        self.links._on_down = lambda node: None
        await self.links.close()
        return results


async def main(seconds: float, directory: str | None) -> dict[str, object]:
    with tempfile.TemporaryDirectory(dir=directory) as data:
        options = ["--node", "n1", "--region", "r", "--cluster", "bench", "--data", data, "--listen", "127.0.0.1:0"]
        command = [sys.executable, "-m", "shadow_nodes", *options]
        node = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)  # noqa: ASYNC220
        try:
            assert node.stderr is not None
            line = await asyncio.to_thread(node.stderr.readline)
            port = int(json.loads(line)["msg"].split("port ")[1].split(",")[0])
            results = await Bench(seconds).run(port)
            with open(f"/proc/{node.pid}/stat") as file:  # noqa: ASYNC230
                fields = file.read().split()
            ticks = os.sysconf("SC_CLK_TCK")
            results["node cpu seconds"] = round((int(fields[13]) + int(fields[14])) / ticks, 2)
            return results
        finally:
            node.terminate()
            await asyncio.to_thread(node.communicate)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=2.0, help="for each measurement")
    parser.add_argument("--directory", help="where the node keeps its data; measures that disk")
    given = parser.parse_args()
    print(json.dumps(uvloop.run(main(given.seconds, given.directory)), indent=2))
