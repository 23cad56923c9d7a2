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
from benchmarks.spawning import HOST, Absent, Spawned, beside_python, spawn, wait_for_port
from distribution_manager.drills.local import LocalCluster
from distribution_manager.drills.ports import free_ports

REPLICAS = 3


class Caller(Protocol):
    async def send(self, count: int, body: str) -> None: ...

    async def take(self, count: int) -> int:
        """Receives and deletes up to so many; returns how many. 0: none came in a while."""


class System(Protocol):
    name: str
    sends_only: bool
    slow: bool
    """A quick run leaves out its batches, which would take longest of all."""
    note: str
    """What a reader must know of how it is used."""

    async def start(self, folder: Path) -> None:
        """Raises Absent."""

    async def stop(self) -> None: ...

    def pids(self) -> list[int]: ...

    async def open(self, stack: AsyncExitStack, callers: int) -> list[Caller]:
        """``stack`` closes what was opened."""


# --- SQS servers ---------------------------------------------------------------------------------------------------


class SqsCaller:
    _encoded: dict[tuple[str, int, int], bytes] = {}

    def __init__(self, client: SqsClient, url: str) -> None:
        self._client = client
        self._url = url

    async def send(self, count: int, body: str) -> None:
        key = (self._url, count, len(body))
        encoded = self._encoded.get(key)
        if encoded is None:
            value: Any = {"QueueUrl": self._url, "MessageBody": body}
            encoded = msgspec.json.encode(value if count == 1 else send_batch_body(self._url, [body] * count))
            self._encoded[key] = encoded
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


class SqsSystem:
    """Base: a server that speaks SQS."""

    name = ""
    sends_only = False
    slow = False
    note = ""
    endpoint = ""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    async def open(self, stack: AsyncExitStack, callers: int) -> list[Caller]:
        client = await stack.enter_async_context(SqsClient(self.endpoint, callers))
        url = await client.create_queue(f"bench-{next(self._numbers)}", VisibilityTimeout="3600")
        caller = SqsCaller(client, url)
        return [caller] * callers


class ShadowQ(SqsSystem):
    name = "ShadowQ"
    note = "three regions on one machine, etcd, majority acknowledgement, fsync before ack; the owner is the one asked"

    async def start(self, folder: Path) -> None:
        self.cluster = LocalCluster(folder / "shadowq", port=0)
        await asyncio.to_thread(self.cluster.start)
        self.endpoint = next(iter(self.cluster.endpoints.values()))

    async def stop(self) -> None:
        await asyncio.to_thread(self.cluster.stop)

    def pids(self) -> list[int]:
        return [pid for pid in self.cluster.pids.values() if pid is not None]


class Moto(Spawned, SqsSystem):
    name = "moto"
    slow = True
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
