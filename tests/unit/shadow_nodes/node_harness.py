"""A manager played by hand, entries made by hand, and a store whose writes the test decides on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import aiohttp

from shadow_nodes.core.store import ShardWrite
from shadow_nodes.driver import now
from shadow_nodes.protocol.commands import Content, Entry, Operation, Send, Session, encode, shard_key
from shadow_nodes.protocol.limits import PROTOCOL_VERSION
from shadow_nodes.protocol.messages import (
    LOG_START,
    Append,
    Appended,
    Fence,
    Fenced,
    Hello,
    Position,
    Token,
    ToManager,
    ToNode,
    Welcome,
    decode_to_manager,
    encode_frame,
)
from shadow_nodes.storage.memory import MemoryStore

M = TypeVar("M")

SHARD = shard_key(7, 0)
TOKEN = Token(1, 11)
LIFE = 5
SECRET = "correct horse battery staple"


async def until(condition: Callable[[], bool]) -> None:
    """Lets the loop run until it holds."""
    while True:
        if condition():
            return
        await asyncio.sleep(0)


def sends_entry(seq: int, operations: int = 1, messages: int = 1, body: str = "hello", epoch: int = 1) -> bytes:
    """An entry of sends; the same arguments give the same ids."""
    send = Send([Content(body) for _ in range(messages)])
    return encode(
        Entry(
            epoch,
            seq,
            now().clock_ms,
            [Session(LIFE, seq * 1000)],
            [Operation(0, seq * 1000 + number, send) for number in range(operations)],
        )
    )


def append(first: int, *entries: bytes, commit: int = 0, results: bool = False, **where: Any) -> Append:
    """``where``: token, shard, and the epoch of the entry before ``first``."""
    previous = Position(where.get("epoch", 1), first - 1) if first > 1 else LOG_START
    return Append(
        where.get("shard", SHARD), where.get("token", TOKEN), previous, list(entries), commit, want_results=results
    )


class Manager:
    """One link to a node; ``take`` gives the next message of a kind, whatever else comes before it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.seen: list[ToManager] = []
        self.frames: list[list[ToManager]] = []

    @classmethod
    async def connect(
        cls, session: aiohttp.ClientSession, port: int, name: str = "m1", cluster: str = "c", life: int = LIFE
    ) -> Manager:
        manager = cls(await session.ws_connect(f"ws://127.0.0.1:{port}/link", max_msg_size=0))
        await manager.hello(name, cluster, life)
        return manager

    async def hello(self, name: str = "m1", cluster: str = "c", life: int = LIFE) -> None:
        await self.send(Hello(PROTOCOL_VERSION, cluster, name, life, "r1"))

    async def send(self, *messages: ToNode) -> None:
        await self.socket.send_bytes(encode_frame(list(messages)))

    async def receive(self) -> None:
        message = await self.socket.receive(timeout=20)
        assert message.type is aiohttp.WSMsgType.BINARY, f"closed: {message.data} {message.extra}"
        self.frames.append(decode_to_manager(message.data))
        self.seen += self.frames[-1]

    async def take(self, kind: type[M], wanted: Callable[[M], bool] = lambda _: True) -> M:
        while True:
            for place, message in enumerate(self.seen):
                if isinstance(message, kind) and wanted(message):
                    del self.seen[place]
                    return message
            await self.receive()

    def has(self, kind: type[Any]) -> bool:
        return any(isinstance(message, kind) for message in self.seen)

    async def welcome(self) -> Welcome:
        return await self.take(Welcome)

    async def fence(self, shard: str = SHARD, token: Token = TOKEN) -> Fenced:
        await self.send(Fence(shard, token))
        return await self.take(Fenced)

    async def append(self, *arguments: Any, **options: Any) -> int:
        message = append(*arguments, **options)
        await self.send(message)
        end = message.previous.seq + len(message.entries)
        return (await self.take(Appended, lambda answer: answer.seq >= end)).seq


class DecidedStore(MemoryStore):
    """``gate``: a write waits until it is set. ``error``: a write raises it."""

    def __init__(self, incarnation: str = "memory") -> None:
        super().__init__(incarnation)
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.error: Exception | None = None
        self.batches: list[list[ShardWrite]] = []
        self.threads: set[str] = set()

    def write(self, writes: list[ShardWrite]) -> None:
        self.batches.append(writes)
        self.threads.add(threading.current_thread().name)
        self.entered.set()
        assert self.gate.wait(20)
        if self.error is not None:
            raise self.error
        super().write(writes)
