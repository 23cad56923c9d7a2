"""What no system on this machine can go below: one fsync, one loopback round trip; both in microseconds, median."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from pathlib import Path

FSYNCS = 300
ROUND_TRIPS = 2_000
BLOCK_BYTES = 4_096


def fsync_us(folder: Path) -> float:
    """Appending 4 KiB to a file and making it durable."""
    times = []
    descriptor = os.open(folder / "fsync", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        for _ in range(FSYNCS):
            began = time.perf_counter()
            os.write(descriptor, bytes(BLOCK_BYTES))
            os.fsync(descriptor)
            times.append(time.perf_counter() - began)
    finally:
        os.close(descriptor)
    return statistics.median(times) * 1e6


class _Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)  # type: ignore[attr-defined]


class _Asker(_Echo):
    def __init__(self) -> None:
        self.times: list[float] = []
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._began = time.perf_counter()
        super().data_received(b"x")

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self.times.append(now - self._began)
        self._began = now
        if len(self.times) < ROUND_TRIPS:
            super().data_received(data)
        elif not self.done.done():
            self.done.set_result(None)


async def round_trip_us() -> float:
    """One byte there and back over loopback TCP, both ends in this process and loop."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Echo, "127.0.0.1", 0)
    transport, asker = await loop.create_connection(_Asker, "127.0.0.1", server.sockets[0].getsockname()[1])
    await asker.done
    transport.close()
    server.close()
    return statistics.median(asker.times) * 1e6


async def measure(folder: Path) -> dict[str, float]:
    return {"fsync us": fsync_us(folder), "loopback round trip us": await round_trip_us()}
