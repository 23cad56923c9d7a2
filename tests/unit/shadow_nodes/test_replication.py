"""Catching up from another node: by the log, by a snapshot, and never from a broken stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from node_harness import SECRET, SHARD, TOKEN, DecidedStore, Manager, append, sends_entry, until

from shadow_nodes.core.store import LogEntry, Store
from shadow_nodes.protocol.commands import ShardKey
from shadow_nodes.protocol.limits import MIB
from shadow_nodes.protocol.messages import Appended, Learn, Ping, Pong, Position, Token
from shadow_nodes.replica_stream import (
    BrokenStreamError,
    SnapshotEnd,
    SnapshotHead,
    SnapshotRows,
    pack,
    pack_log,
    read_part,
    unpack_log,
    unpack_snapshot,
)
from shadow_nodes.server import NodeServer
from shadow_nodes.storage.memory import MemoryStore
from shadow_nodes.storage.sqlite import SqliteStore

ENTRIES = [LogEntry(1, 5, b"five"), LogEntry(1, 6, b"six"), LogEntry(2, 7, b"seven")]


async def part_of(data: bytes) -> tuple[int, bytes]:
    stream = asyncio.StreamReader()
    stream.feed_data(data)
    stream.feed_eof()
    return await read_part(stream)


async def test_a_log_comes_as_it_was_sent() -> None:
    assert unpack_log(await part_of(pack_log(ENTRIES)), 4) == ENTRIES


async def test_whatever_byte_is_damaged_or_missing_is_noticed() -> None:
    good = pack_log(ENTRIES)
    for place in range(len(good)):
        damaged = bytearray(good)
        damaged[place] ^= 0x40
        for data in (bytes(damaged), good[:place]):
            with pytest.raises(BrokenStreamError):
                unpack_log(await part_of(data), 4)


@pytest.mark.parametrize("entries", [ENTRIES[1:], [ENTRIES[0], ENTRIES[2]], ENTRIES[::-1]])
async def test_a_log_with_a_hole_is_noticed(entries: list[LogEntry]) -> None:
    with pytest.raises(BrokenStreamError, match="belongs"):
        unpack_log(await part_of(pack_log(entries)), 4)


async def test_a_snapshot_is_not_a_log() -> None:
    with pytest.raises(BrokenStreamError):
        unpack_snapshot(await part_of(pack_log(ENTRIES)))


# --- between two nodes ---------------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "sqlite"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> list[Store]:
    if request.param == "memory":
        return [MemoryStore("a"), MemoryStore("b")]
    return [SqliteStore(tmp_path / "a"), SqliteStore(tmp_path / "b")]


async def learn(manager: Manager, source: NodeServer, seq: int) -> None:
    await manager.send(Learn(SHARD, TOKEN, f"127.0.0.1:{source.port}"))
    await manager.take(Appended, lambda answer: answer.seq >= seq)


def digest(server: NodeServer, shard: ShardKey = SHARD) -> tuple[int, str]:
    inspection = server.core.replicas[shard].inspect(True)
    return inspection.applied_seq, inspection.digest


async def test_catching_up_by_the_log_takes_what_is_committed_and_no_more(start_node, connect, stores) -> None:
    source, target = [await start_node(store, node=name) for store, name in zip(stores, "ab", strict=True)]
    to_source, to_target = await connect(source), await connect(target)
    await to_source.fence()
    await to_source.append(1, *(sends_entry(seq) for seq in range(1, 10)))
    await to_source.send(append(10, commit=8), Ping(1))
    await to_source.take(Pong)
    await to_target.fence()
    await learn(to_target, source, 8)
    assert digest(target) == digest(source)
    assert target.core.replicas[SHARD].last.seq == 8
    assert await to_target.append(9, sends_entry(9), commit=9) == 9
    await until(lambda: target.metrics.pulls == {"entries": 1, "complete": 1})


async def test_a_long_log_comes_in_many_small_parts(start_node, connect) -> None:
    source, target = await start_node(MemoryStore("a")), await start_node(MemoryStore("b"), node="b")
    to_source, to_target = await connect(source), await connect(target)
    await to_source.fence()
    for first in range(1, 101, 10):
        await to_source.append(first, *(sends_entry(seq, body="x" * 60_000) for seq in range(first, first + 10)))
    await to_source.send(append(101, commit=100), Ping(1))
    await to_source.take(Pong)
    await to_target.fence()
    await learn(to_target, source, 100)
    assert digest(target) == digest(source)
    await until(lambda: target.metrics.pulls == {"entries": 2, "complete": 1})  # two requests of up to 4 MiB


async def test_catching_up_by_a_snapshot_and_then_the_log(start_node, connect, stores) -> None:
    settings = {"log_retained_bytes": MIB}
    source, target = [await start_node(store, node=name, **settings) for store, name in zip(stores, "ab", strict=True)]
    to_source = await connect(source)
    await to_source.fence()
    for seq in range(1, 5):
        await to_source.append(seq, sends_entry(seq, operations=110, messages=10, body="x" * 500), commit=seq - 1)
    await to_source.append(5, sends_entry(5), commit=4)
    await to_source.send(append(6, commit=5), Ping(1))
    await to_source.take(Pong)
    assert source.core.replicas[SHARD].log_start.seq > 0, "the log must have been trimmed for this test"
    to_target = await connect(target)
    await to_target.fence()
    await learn(to_target, source, 5)
    assert digest(target) == digest(source)
    assert target.metrics.pulls["snapshot"] == 1
    assert target.metrics.installs == 1
    assert target.core.replicas[SHARD].promised == TOKEN
    assert await to_target.append(6, sends_entry(6), commit=6) == 6


async def test_a_newer_owner_may_fence_while_the_copy_goes_on(start_node, connect) -> None:
    source, target = await start_node(MemoryStore("a")), await start_node(MemoryStore("b"), node="b")
    to_source, to_target = await connect(source), await connect(target)
    await to_source.fence()
    await to_source.append(1, sends_entry(1), sends_entry(2))
    await to_source.send(append(3, commit=2), Ping(1))
    await to_source.take(Pong)
    await to_target.fence()
    newer = Token(2, 5)
    await to_target.send(Learn(SHARD, TOKEN, f"127.0.0.1:{source.port}"))
    await to_target.fence(token=newer)
    await until(lambda: target.metrics.pulls["complete"] == 1)
    assert target.core.replicas[SHARD].promised == newer
    assert digest(target) == digest(source)


async def test_an_entry_that_is_being_replaced_is_given_to_nobody(start_node, connect, session) -> None:
    """Committed by the others while this node still writes it over a dead owner's: the store holds the wrong one."""
    store = DecidedStore()
    server = await start_node(store)
    server.driver.pace.observe(100.0)
    manager = await connect(server)
    await manager.fence()
    await manager.append(1, sends_entry(1), sends_entry(2, body="a dead owner's"))
    newer = Token(2, 5)
    await manager.fence(token=newer)
    store.entered.clear()
    store.gate.clear()
    await manager.send(append(2, sends_entry(2, body="the right one", epoch=2), token=newer))
    assert await asyncio.to_thread(store.entered.wait, 20)
    await manager.send(append(3, commit=2, token=newer, epoch=2), Ping(1))
    await manager.take(Pong)
    assert server.core.replicas[SHARD].committed == Position(2, 2)
    url = f"http://127.0.0.1:{server.port}/replica/{SHARD}/log"
    async with session.get(url, params={"after": 1}) as response:
        assert response.status == 204
    store.gate.set()
    await manager.take(Appended, lambda answer: answer.token == newer)
    async with session.get(url, params={"after": 1}) as response:
        assert b"the right one" in await response.read()


async def test_nodes_show_each_other_their_secret(start_node, connect, tmp_path, session) -> None:
    (tmp_path / "secret").write_text(SECRET)
    session.headers["Authorization"] = f"Bearer {SECRET}"
    options = {"secret_file": tmp_path / "secret"}
    source, target = await start_node(MemoryStore("a"), **options), await start_node(MemoryStore("b"), "b", **options)
    to_source, to_target = await connect(source), await connect(target)
    await to_source.fence()
    await to_source.append(1, sends_entry(1))
    await to_source.send(append(2, commit=1), Ping(1))
    await to_source.take(Pong)
    await to_target.fence()
    await learn(to_target, source, 1)
    assert digest(target) == digest(source)


# --- from a node that is not well -----------------------------------------------------------------------------------


@pytest.fixture
async def broken_source(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The address of a node whose log is trimmed and whose snapshot is the parameter's bytes."""
    data: bytes = request.param

    async def log(_: web.Request) -> web.Response:
        return web.Response(status=410)

    async def snapshot(_: web.Request) -> web.Response:
        return web.Response(body=data)

    app = web.Application()
    app.router.add_get(f"/replica/{SHARD}/log", log)
    app.router.add_get(f"/replica/{SHARD}/snapshot", snapshot)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


HEAD = pack(SnapshotHead(SHARD, Position(1, 9)))
ROWS = pack(SnapshotRows([(5, 1, b"row")]))


@pytest.mark.parametrize(
    "broken_source",
    [
        b"",
        HEAD,
        HEAD + ROWS,
        HEAD + ROWS + pack(SnapshotEnd(2)),
        HEAD + ROWS[:-1] + b"?" + pack(SnapshotEnd(1)),
        HEAD + HEAD + pack(SnapshotEnd(0)),
        ROWS + pack(SnapshotEnd(1)),
        pack(SnapshotHead("0000000000000009/0", Position(1, 9))) + pack(SnapshotEnd(0)),
    ],
    indirect=True,
)
async def test_a_broken_snapshot_is_never_installed(start_node, connect, broken_source: str) -> None:
    store = DecidedStore()
    server = await start_node(store)
    manager = await connect(server)
    await manager.fence()
    await manager.send(Learn(SHARD, TOKEN, broken_source))
    await until(lambda: server.metrics.pulls["failed"] == 1)
    assert not any(write.install for writes in store.batches for write in writes)
    assert server.driver.copying == 0
    assert await manager.append(1, sends_entry(1)) == 1
    await manager.send(Learn(SHARD, TOKEN, broken_source))
    await until(lambda: server.metrics.pulls["failed"] == 2)


async def test_a_source_that_is_not_there_is_a_failed_pull(start_node, connect) -> None:
    server = await start_node(MemoryStore("a"))
    manager = await connect(server)
    await manager.fence()
    await manager.send(Learn(SHARD, TOKEN, "127.0.0.1:1"))
    await until(lambda: server.metrics.pulls["failed"] == 1)


async def test_what_a_node_answers_to_copiers(start_node, connect, session) -> None:
    server = await start_node(MemoryStore("a"))
    await (await connect(server)).fence()
    base = f"http://127.0.0.1:{server.port}/replica"
    for path, status in (
        (f"{SHARD}/log?after=0", 204),
        (f"{SHARD}/log", 400),
        (f"{SHARD}/log?after=-1", 400),
        (f"{SHARD}/log?after={10**18}", 400),
        (f"{SHARD}/log?after={'9' * 5_000}", 400),
        (f"{SHARD}/operations?after={'9' * 5_000}", 400),
        (f"{SHARD}/operations?since_ms={'9' * 5_000}", 400),
        (f"{SHARD}/operations?after={10**18}", 400),
        (f"{SHARD}/operations?after={10**18 - 1}", 200),
        (f"{SHARD}/operations", 200),
        ("0000000000000001/0/log?after=0", 404),
        ("0000000000000001/0/snapshot", 404),
    ):
        async with session.get(f"{base}/{path}") as response:
            assert response.status == status, path
