"""Distances between the regions of a local cluster: ``python -m distribution_manager.drills.relay DIR``.

Model: every node and manager is advertised at a port of this process, which passes the bytes on, each way after half of
the round trip between the two regions. Who has dialled is found in /proc, by the socket: so processes need no setting
for it, and what nodes copy from each other goes the same way. DIR/relay.json says what is where and how far; it is read
again when it changes. Invariant: bytes of one direction never overtake each other, as on one TCP connection.
What is not imitated: the handshake's round trip, congestion. A lost segment is a pause of everything behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import sys
from collections import deque
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, cast

import msgspec
import uvloop

from distribution_manager.drills.ports import LOOPBACK
from distribution_manager.drills.state import ClusterError, load_state

log = logging.getLogger(__name__)

RELAY_FILE: Final = "relay.json"
WAITING_BYTES_MAX: Final = 16 * 1024 * 1024
"""Bytes on their way in one direction of a connection; the sender waits while there are more, as for a TCP window."""
RETRANSMISSION_MS: Final = 200
"""A lost segment comes this much later, and a round trip: Linux's shortest retransmission timeout (TCP_RTO_MIN)."""
REREAD_S: Final = 0.1
IDENTIFY_TRIES: Final = 40
IDENTIFY_PAUSE_S: Final = 0.05
"""A process may dial before it is written down in DIR/cluster.json who it is."""


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """Between two regions, both directions. ``loss``: the share of segments (reads) that are lost the first time.

    ``bytes_per_s`` 0: unlimited. Jitter is added, uniformly from nothing to ``jitter_ms`` each way.
    """

    round_trip_ms: float = 0.0
    jitter_ms: float = 0.0
    loss: float = 0.0
    bytes_per_s: int = 0


class Target(msgspec.Struct, frozen=True):
    """A process that is reached through the relay: at ``listen`` instead of at ``port``."""

    name: str
    region: str
    listen: int
    port: int


class RelayPlan(msgspec.Struct, frozen=True):
    """``ways`` by ``way_name(region, other)``; between regions without one, and within a region, there is no delay."""

    targets: list[Target]
    ways: dict[str, Way]


def way_name(region: str, other: str) -> str:
    return "|".join(sorted((region, other)))


def ways_on_a_line(places_ms: Mapping[str, float], **shared: float) -> dict[str, Way]:
    """Regions on a line: the round trip between two is the difference of their places. ``shared``: as of Way."""
    regions = sorted(places_ms)
    return {
        way_name(one, other): Way(round_trip_ms=abs(places_ms[one] - places_ms[other]), **shared)  # type: ignore[arg-type]
        for index, one in enumerate(regions)
        for other in regions[index + 1 :]
    }


def read_plan(data_dir: Path) -> RelayPlan:
    return msgspec.json.decode((data_dir / RELAY_FILE).read_bytes(), type=RelayPlan)


def write_plan(data_dir: Path, plan: RelayPlan) -> None:
    """Replaces it whole; a relay that runs follows within REREAD_S."""
    path, new = data_dir / RELAY_FILE, data_dir / f"{RELAY_FILE}.new"
    new.write_bytes(msgspec.json.format(msgspec.json.encode(plan), indent=2) + b"\n")
    new.replace(path)


# --- who has dialled -----------------------------------------------------------------------------------------------


def region_of_dialler(data_dir: Path, dialler_port: int, listen_port: int) -> str | None:
    """The region of the cluster's process that has this connection; None where none of them has it."""
    inode = _socket_inode(dialler_port, listen_port)
    state = load_state(data_dir)
    if inode is None or state is None:
        return None
    for member in state.members.values():
        if member.process is not None and _holds_socket(member.process.pid, inode):
            return member.region
    return None


def _socket_inode(local_port: int, remote_port: int) -> str | None:
    """Of the loopback TCP socket with these ports: proc_pid_net(5)."""
    host = "0100007F"
    local, remote = f"{host}:{local_port:04X}", f"{host}:{remote_port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines():
        fields = line.split()
        if fields[1:3] == [local, remote]:
            return fields[9]
    return None


def _holds_socket(pid: int, inode: str) -> bool:
    wanted = f"socket:[{inode}]"
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{name}") == wanted:
                    return True
    return False


# --- passing on ----------------------------------------------------------------------------------------------------


class _Direction:
    """Bytes from ``source`` to ``sink``, each chunk when it is due."""

    def __init__(self, relay: Relay, source: asyncio.Transport, sink: asyncio.Transport, way: str) -> None:
        self._relay = relay
        self._source = source
        self._sink = sink
        self._way = way
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._waiting_bytes = 0
        self._paused = False
        self._last_due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def put(self, data: bytes) -> None:
        """``data`` b"" is the end."""
        due = self._due(len(data))
        if not self._waiting and due <= self._loop.time():
            self._pass_on(data)
            return
        self._waiting.append((due, data))
        self._waiting_bytes += len(data)
        if self._waiting_bytes > WAITING_BYTES_MAX and not self._paused:
            self._paused = True
            self._source.pause_reading()
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._ring)

    def _due(self, size: int) -> float:
        way = self._relay.way(self._way)
        delay_ms = way.round_trip_ms / 2 + random.random() * way.jitter_ms
        if way.loss and random.random() < way.loss:
            delay_ms += way.round_trip_ms + RETRANSMISSION_MS
        due = max(self._loop.time() + delay_ms / 1000, self._last_due)
        if way.bytes_per_s:
            due += size / way.bytes_per_s
        self._last_due = due
        return due

    def _ring(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._waiting and self._waiting[0][0] <= now:
            _, data = self._waiting.popleft()
            self._waiting_bytes -= len(data)
            self._pass_on(data)
        if self._paused and self._waiting_bytes <= WAITING_BYTES_MAX // 2:
            self._paused = False
            if not self._source.is_closing():
                self._source.resume_reading()
        if self._waiting:
            self._timer = self._loop.call_at(self._waiting[0][0], self._ring)

    def _pass_on(self, data: bytes) -> None:
        if self._sink.is_closing():
            return
        if data:
            self._sink.write(data)
        else:
            self._sink.close()


class _End(asyncio.Protocol):
    """One of the two sockets of a connection that is passed on."""

    transport: asyncio.Transport

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._onward: _Direction | None = None
        self._early: list[bytes] = []
        """What came before there was somewhere to write it to; b"" is the end."""

    def pass_on_to(self, onward: _Direction) -> None:
        self._onward = onward
        for data in self._early:
            onward.put(data)
        self._early.clear()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._relay.ends.add(self)

    def data_received(self, data: bytes) -> None:
        if self._onward is None:
            self._early.append(data)
        else:
            self._onward.put(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._relay.ends.discard(self)
        self.data_received(b"")


class _Accepted(_End):
    def __init__(self, relay: Relay, target: Target) -> None:
        super().__init__(relay)
        self._target = target

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._relay.begin(self._pair())

    async def _pair(self) -> None:
        port = self.transport.get_extra_info("peername")[1]
        region = await self._relay.identify(port, self._target.listen)
        loop = asyncio.get_running_loop()
        try:
            _, far = await loop.create_connection(partial(_End, self._relay), LOOPBACK, self._target.port)
        except OSError:
            self.transport.abort()
            return
        way = way_name(region, self._target.region)
        self.pass_on_to(_Direction(self._relay, self.transport, far.transport, way))
        far.pass_on_to(_Direction(self._relay, far.transport, self.transport, way))


class Relay:
    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._plan = read_plan(data_dir)
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self.ends: set[_End] = set()

    def way(self, name: str) -> Way:
        return self._plan.ways.get(name, _HERE)

    def begin(self, work: object) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def identify(self, dialler_port: int, listen_port: int) -> str:
        """The dialler's region; "" for one that is no process of the cluster."""
        for _ in range(IDENTIFY_TRIES):
            region = region_of_dialler(self._data_dir, dialler_port, listen_port)
            if region is not None:
                return region
            await asyncio.sleep(IDENTIFY_PAUSE_S)
        log.warning("port %d is none of the cluster's processes: no delay", dialler_port)
        return ""

    async def listen(self) -> None:
        """Raises OSError where a port is taken."""
        loop = asyncio.get_running_loop()
        for target in self._plan.targets:
            server = await loop.create_server(partial(_Accepted, self, target), LOOPBACK, target.listen)
            self._servers.append(server)

    def close(self) -> None:
        for server in self._servers:
            server.close()
        for end in list(self.ends):
            end.transport.close()

    async def follow(self) -> None:
        """Reads the plan again when it changes; until cancelled."""
        path = self._data_dir / RELAY_FILE
        seen = path.stat().st_mtime_ns
        while True:
            await asyncio.sleep(REREAD_S)
            changed = path.stat().st_mtime_ns
            if changed != seen:
                seen, self._plan = changed, read_plan(self._data_dir)


_HERE = Way()


async def _run(data_dir: Path) -> None:
    relay = Relay(data_dir)
    await relay.listen()
    await relay.follow()


def main(arguments: Iterable[str]) -> int:
    (data_dir,) = arguments
    try:
        uvloop.run(_run(Path(data_dir)))
    except (OSError, ClusterError, msgspec.MsgspecError) as error:
        print(f"relay: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
