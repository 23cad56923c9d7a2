"""Real sockets on loopback. What is asserted of time are lower bounds: a busy machine only makes it later."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from distribution_manager.drills import ports
from distribution_manager.drills.processes import identify
from distribution_manager.drills.relay import (
    RETRANSMISSION_MS,
    Relay,
    RelayPlan,
    Target,
    Way,
    way_name,
    ways_on_a_line,
    write_plan,
)
from distribution_manager.drills.state import ClusterState, Member, save_state

HOME, FAR = "home", "far"


@asynccontextmanager
async def relayed(data_dir: Path, way: Way) -> AsyncIterator[int]:
    """An echo server in FAR behind a relay's port, dialled by this process, which is of HOME."""
    echo, listen = ports.free_ports(2)
    member = Member("node", "node", HOME, {"link": echo}, identify(os.getpid()))
    save_state(data_dir, ClusterState("c", [HOME, FAR], {"node": member}))
    write_plan(data_dir, RelayPlan([Target("node", FAR, listen, echo)], {way_name(FAR, HOME): way}))

    answering = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering.append(asyncio.current_task())
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, ports.LOOPBACK, echo)
    relay = Relay(data_dir)
    await relay.listen()
    try:
        async with asyncio.timeout(30):
            yield listen
    finally:
        relay.close()
        server.close()
        await asyncio.gather(*filter(None, answering))


async def ask(listen: int, data: bytes) -> tuple[bytes, float]:
    """What comes back, and after how many milliseconds all of it was there."""
    reader, writer = await asyncio.open_connection(ports.LOOPBACK, listen)
    began = time.monotonic()
    writer.write(data)
    answer = await reader.readexactly(len(data))
    took_ms = (time.monotonic() - began) * 1000
    writer.close()
    await writer.wait_closed()
    return answer, took_ms


async def test_bytes_take_the_round_trip_and_keep_their_order(tmp_path: Path) -> None:
    data = os.urandom(200_000)
    async with relayed(tmp_path, Way(round_trip_ms=60, jitter_ms=10)) as listen:
        answer, took_ms = await ask(listen, data)
    assert answer == data
    assert took_ms >= 60


async def test_what_is_lost_comes_later(tmp_path: Path) -> None:
    async with relayed(tmp_path, Way(loss=1.0)) as listen:
        answer, took_ms = await ask(listen, b"x")
    assert answer == b"x"
    assert took_ms >= 2 * RETRANSMISSION_MS


async def test_bandwidth(tmp_path: Path) -> None:
    async with relayed(tmp_path, Way(bytes_per_s=1_000_000)) as listen:
        _, took_ms = await ask(listen, bytes(100_000))
    assert took_ms >= 99


async def test_an_end_passes_on_after_the_bytes(tmp_path: Path) -> None:
    async with relayed(tmp_path, Way(round_trip_ms=20)) as listen:
        reader, writer = await asyncio.open_connection(ports.LOOPBACK, listen)
        writer.write(b"the last words")
        assert await reader.readexactly(14) == b"the last words"
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


def test_regions_on_a_line() -> None:
    ways = ways_on_a_line({"a": 0, "b": 35, "c": 80}, jitter_ms=1)
    assert {name: way.round_trip_ms for name, way in ways.items()} == {"a|b": 35, "a|c": 80, "b|c": 45}
    assert all(way.jitter_ms == 1 for way in ways.values())
