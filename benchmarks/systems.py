"""The systems that are compared: how each is started, which processes it is, and how its ordinary client uses it.

Model: ``start`` brings a System up in a directory of its own and ``stop`` ends every process of it. ``open`` gives
``callers`` Callers on a new, empty queue. A Caller's ``send`` returns when its messages are acknowledged; ``take``
receives messages and deletes (acknowledges) them. A system that cannot be had raises Absent, with the reason.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import msgspec

from benchmarks.client import SqsClient, send_batch_body
from benchmarks.spawning import HOST, Absent, Spawned, beside_python, group, spawn, wait_for_port
from benchmarks.traffic import Regions
from distribution_manager.drills.local import LocalCluster
from distribution_manager.drills.ports import free_ports

REPLICAS = 3
GROUPS = 1_000
"""Message groups of a FIFO queue: enough for no caller to wait for another's."""


class Caller(Protocol):
    async def send(self, count: int, body: str) -> None: ...

    async def take(self, count: int) -> int:
        """Receives and deletes up to so many; returns how many. 0: none came in a while."""


class System(Protocol):
    name: str
    sends_only: bool
    slow: bool
    """A quick run leaves out its batches, which would take longest of all."""
    has_fifo: bool
    queues_max: int
    depth_max: int
    """Works with more queues, or deeper ones, are left out: see ``Work.left_out_by``."""
    note: str
    """What a reader must know of how it is used."""

    async def start(self, folder: Path) -> None:
        """Raises Absent."""

    async def stop(self) -> None: ...

    def pids(self) -> list[int]: ...

    def regions(self) -> Regions:
        """The processes that would be in regions of their own; empty for a system of one process."""

    async def open(self, stack: AsyncExitStack, callers: int, queues: int = 1, *, fifo: bool = False) -> list[Caller]:
        """Empty queues, and callers on them in turn: at least so many, and one on each. ``stack`` closes them."""


# --- SQS servers ---------------------------------------------------------------------------------------------------


class SqsCaller:
    _encoded: dict[tuple[str, int, int], bytes] = {}

    def __init__(self, client: SqsClient, url: str) -> None:
        self._client = client
        self._url = url

    async def send(self, count: int, body: str) -> None:
        await self._send(count, self._body(count, body))

    def _body(self, count: int, body: str) -> bytes:
        """Of a call; encoded once."""
        key = (self._url, count, len(body))
        encoded = self._encoded.get(key)
        if encoded is None:
            value: Any = {"QueueUrl": self._url, "MessageBody": body}
            encoded = msgspec.json.encode(value if count == 1 else send_batch_body(self._url, [body] * count))
            self._encoded[key] = encoded
        return encoded

    async def _send(self, count: int, encoded: bytes) -> None:
        answer = await self._client.call_encoded("SendMessage" if count == 1 else "SendMessageBatch", encoded)
        if count > 1 and b'"Failed":[{' in answer:
            raise RuntimeError(f"entries failed: {answer!r}")

    async def take(self, count: int) -> int:
        messages = await self._client.receive(self._url, count, wait_s=1)
        handles = [str(message["ReceiptHandle"]) for message in messages]
        if len(handles) == 1:
            await self._client.delete(self._url, handles[0])
        elif handles:
            answer = await self._client.delete_batch(self._url, handles)
            if answer.get("Failed"):
                raise RuntimeError(f"entries failed: {answer}")
        return len(handles)


class FifoCaller(SqsCaller):
    """Every message has a deduplication id of its own, and one of GROUPS groups in turn."""

    _numbers = itertools.count(1)

    def _body(self, count: int, body: str) -> bytes:
        value = send_batch_body(self._url, [body] * count)
        for entry in value["Entries"]:
            number = next(self._numbers)
            entry["MessageDeduplicationId"] = str(number)
            entry["MessageGroupId"] = f"group-{number % GROUPS}"
        if count > 1:
            return msgspec.json.encode(value)
        (entry,) = value["Entries"]
        del entry["Id"]
        return msgspec.json.encode({"QueueUrl": self._url} | entry)


class SqsSystem:
    """Base: a server that speaks SQS."""

    name = ""
    sends_only = False
    slow = False
    has_fifo = True
    queues_max = 1_000
    depth_max = 1_000_000
    note = ""
    endpoint = ""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def regions(self) -> Regions:
        return {}

    def attributes(self) -> dict[str, str]:
        """Of its queues, besides what the work asks for."""
        return {}

    async def open(self, stack: AsyncExitStack, callers: int, queues: int = 1, *, fifo: bool = False) -> list[Caller]:
        """Many queues are used again by the next work: they are not empty then, but for a few messages."""
        client = await stack.enter_async_context(SqsClient(self.endpoint, callers))
        names = [f"bench-many-{number}" for number in range(queues)]
        if queues == 1:
            names = [f"bench-{next(self._numbers)}"]
        attributes = self.attributes() | {"VisibilityTimeout": "3600"} | ({"FifoQueue": "true"} if fifo else {})
        urls = [await client.create_queue(name + (".fifo" if fifo else ""), **attributes) for name in names]
        kind = FifoCaller if fifo else SqsCaller
        on_each: list[Caller] = [kind(client, url) for url in urls]
        return on_each * -(-callers // queues)


class ShadowQ(SqsSystem):
    name = "ShadowQ"
    note = (
        "three regions on one machine, etcd, majority acknowledgement, fsync before ack; the owner is the one asked,"
        " and the primary is in its region"
    )

    async def start(self, folder: Path) -> None:
        self.cluster = LocalCluster(folder / "shadowq", port=0)
        await asyncio.to_thread(self.cluster.start)
        self.endpoint = next(iter(self.cluster.endpoints.values()))

    async def stop(self) -> None:
        await asyncio.to_thread(self.cluster.stop)

    def pids(self) -> list[int]:
        return [pid for pid in self.cluster.pids.values() if pid is not None]

    def attributes(self) -> dict[str, str]:
        """Where no region is nearer than another, as here, the creator's would not always get the primary."""
        return {"PreferredPrimaryRegion": self.cluster.regions[0]}

    def regions(self) -> Regions:
        """Of managers and nodes. etcd has no region here, and no part in a message."""
        found: dict[str, list[int]] = {}
        for name, pid in self.cluster.pids.items():
            member = self.cluster.member(name)
            if pid is not None and member.region:
                found.setdefault(member.region, []).append(pid)
        return found


class Moto(Spawned, SqsSystem):
    name = "moto"
    slow = True
    queues_max = 10
    depth_max = 0
    note = "one process, in memory: nothing replicated, nothing on disk"

    async def start(self, folder: Path) -> None:
        program = beside_python("moto_server")
        if program is None:
            raise Absent("moto_server is not installed: make bench installs it")
        port = free_ports(1)[0]
        self._processes.append(spawn([program, "-H", HOST, "-p", str(port)], folder / "moto.log"))
        self.endpoint = f"http://{HOST}:{port}"
        await wait_for_port(port, self.name)


class Noop(Spawned, SqsSystem):
    name = "floor: HTTP"
    sends_only = True
    has_fifo = False
    queues_max = 1
    depth_max = 0
    note = "aiohttp on uvloop reads the request and answers it"

    async def start(self, folder: Path) -> None:
        port = free_ports(1)[0]
        self._processes.append(
            spawn([sys.executable, "-m", "benchmarks.floor", "noop", str(port)], folder / "noop.log")
        )
        self.endpoint = f"http://{HOST}:{port}"
        await wait_for_port(port, self.name)


class Bare(Spawned, SqsSystem):
    name = "floor: bare path"
    sends_only = True
    has_fifo = False
    queues_max = 1
    depth_max = 0
    note = "HTTP, one sequencer, three WebSocket nodes, a SQLite fsync per entry, majority; nothing else"

    async def start(self, folder: Path) -> None:
        port, *nodes = free_ports(1 + REPLICAS)
        program = [sys.executable, "-m", "benchmarks.floor"]
        for node in nodes:
            database = folder / f"bare-{node}.db"
            self._processes.append(spawn([*program, "node", str(node), str(database)], folder / "bare-node.log"))
        for node in nodes:
            await wait_for_port(node, self.name)
        command = [*program, "manager", str(port), *(str(node) for node in nodes)]
        self._processes.append(spawn(command, folder / "bare.log"))
        self.endpoint = f"http://{HOST}:{port}"
        await wait_for_port(port, self.name)

    def regions(self) -> Regions:
        """The manager is in the first node's region."""
        first, *others = self._processes[:REPLICAS]
        return {"0": group([first, self._processes[-1]])} | {str(one.pid): group([one]) for one in others}
