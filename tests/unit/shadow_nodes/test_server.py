"""The driver: what is said when, what is written together, and what happens when the store fails."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from node_harness import LIFE, SECRET, SHARD, TOKEN, DecidedStore, Manager, append, sends_entry, until

from shadow_nodes.driver import INLINE_AGAIN_SECONDS, INLINE_WRITE_SECONDS_MAX, WritePace
from shadow_nodes.protocol.commands import shard_key
from shadow_nodes.protocol.errors import NoRoomError
from shadow_nodes.protocol.limits import PROTOCOL_VERSION, SILENCE_BOUND_MS
from shadow_nodes.protocol.messages import (
    Appended,
    Applied,
    Fence,
    Fenced,
    Hello,
    LinkState,
    NoRoom,
    Ping,
    Pong,
    Sighting,
    Sightings,
    Stale,
    Token,
    encode_frame,
)


async def entered(store: DecidedStore) -> None:
    """Until a write is under way."""
    assert await asyncio.to_thread(store.entered.wait, 20)
    store.entered.clear()


async def test_welcome_fence_append_and_results(start_node, connect) -> None:
    server = await start_node(DecidedStore("inc"))
    manager = await connect(server)
    welcome = await manager.welcome()
    assert (welcome.node, welcome.region, welcome.incarnation) == ("n1", "r1", "inc")
    assert (await manager.take(Sightings)).sightings == [Sighting("m1", LIFE, LinkState.UP)]
    fenced = await manager.fence()
    assert (fenced.token, fenced.last.seq) == (TOKEN, 0)
    assert await manager.append(1, sends_entry(1), sends_entry(2)) == 2
    await manager.send(append(3, commit=2, results=True))
    applied = await manager.take(Applied)
    assert (applied.seq, applied.summary.ready) == (2, 2)
    await manager.send(append(3, sends_entry(3), token=Token(1, 12)))
    assert (await manager.take(Stale)).promised == TOKEN


async def test_nothing_is_acknowledged_before_it_is_written(start_node, connect) -> None:
    store = DecidedStore()
    server = await start_node(store)
    server.driver.pace.inline = False
    server.driver.pace.smoothed_seconds = 1.0
    manager = await connect(server)
    store.gate.clear()
    await manager.send(Fence(SHARD, TOKEN))
    await entered(store)
    await manager.send(Ping(1))
    await manager.take(Pong)
    assert not manager.has(Fenced)
    store.gate.set()
    await manager.take(Fenced)


async def test_what_comes_while_a_write_is_under_way_is_written_together(start_node, connect) -> None:
    store = DecidedStore()
    server = await start_node(store)
    server.driver.pace.inline = False
    server.driver.pace.smoothed_seconds = 1.0
    manager, other = await connect(server), await connect(server, name="m2", life=6)
    await manager.fence()
    await other.fence(shard_key(8, 0))
    store.entered.clear()
    store.gate.clear()
    await manager.send(append(1, sends_entry(1)))
    await entered(store)
    before = len(store.batches)
    for seq in (2, 3):
        await manager.send(append(seq, sends_entry(seq)), Ping(seq))
        await manager.take(Pong)
    await other.send(append(1, sends_entry(1), shard=shard_key(8, 0)), Ping(1))
    await other.take(Pong)
    store.gate.set()
    await manager.take(Appended, lambda answer: answer.seq == 3)
    await other.take(Appended)
    batch = store.batches[before]
    assert len(store.batches) == before + 1
    assert [len(write.entries) for write in batch] == [2, 1]
    assert store.threads == {"writer_0"}


async def test_one_frame_carries_the_answers_of_many_shards(start_node, connect) -> None:
    server = await start_node(DecidedStore())
    manager = await connect(server)
    shards = [shard_key(number, 0) for number in range(20)]
    await manager.send(*(Fence(shard, TOKEN) for shard in shards))
    await manager.take(Fenced)
    frame = [message for message in manager.frames[-1] if isinstance(message, Fenced)]
    assert [message.shard for message in frame] == shards


def test_a_slow_disk_sends_writes_to_the_thread_and_a_quick_one_back() -> None:
    pace = WritePace()
    for _ in range(100):
        pace.observe(INLINE_WRITE_SECONDS_MAX * 0.9)
    assert pace.inline
    pace.observe(INLINE_WRITE_SECONDS_MAX * 20)
    assert not pace.inline
    while not pace.inline:
        pace.observe(INLINE_AGAIN_SECONDS * 0.5)
    assert pace.smoothed_seconds < INLINE_AGAIN_SECONDS


async def test_writes_run_on_the_loop_while_they_are_quick(start_node, connect) -> None:
    store = DecidedStore()
    server = await start_node(store)
    manager = await connect(server)
    await manager.fence()
    assert store.threads == {"MainThread"}
    server.driver.pace.observe(1.0)
    store.threads.clear()
    await manager.append(1, sends_entry(1))
    assert store.threads == {"writer_0"}


async def test_a_large_batch_goes_to_the_thread_and_says_nothing_of_the_disk(start_node, connect) -> None:
    store = DecidedStore()
    server = await start_node(store)
    manager = await connect(server)
    await manager.fence()
    smoothed = server.driver.pace.smoothed_seconds
    store.threads.clear()
    await manager.append(1, sends_entry(1, body="x" * 300_000))
    assert store.threads == {"writer_0"}
    assert server.driver.pace.smoothed_seconds == smoothed


@pytest.mark.parametrize("inline", [True, False])
async def test_a_store_that_fails_ends_the_node_without_an_answer(start_node, connect, fatal, inline: bool) -> None:
    store = DecidedStore()
    server = await start_node(store)
    if not inline:
        server.driver.pace.observe(100.0)
    manager = await connect(server)
    await manager.fence()
    store.error = OSError("the disk is gone")
    await manager.send(append(1, sends_entry(1)))
    await manager.send(Ping(1))
    await until(lambda: bool(fatal))
    store.error = None
    await manager.send(append(1, sends_entry(1)))
    assert fatal == [fatal[0]]
    assert str(fatal.pop()) == "the disk is gone"
    await server.stop()
    message = await manager.socket.receive(timeout=20)
    while message.type is aiohttp.WSMsgType.BINARY:
        assert b"hello" not in message.data
        manager.frames.append(message.data)
        message = await manager.socket.receive(timeout=20)
    assert not any(isinstance(item, Appended) for item in manager.seen)
    assert len(store.batches) == 2


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (encode_frame([Hello(PROTOCOL_VERSION + 1, "c", "m1", 1, "r")]), "version"),
        (encode_frame([Hello(PROTOCOL_VERSION, "other", "m1", 1, "r")]), "cluster"),
        (encode_frame([Ping(1)]), "Hello"),
        (encode_frame([]), "Hello"),
        (b"\xc1 nonsense", "not a frame"),
    ],
)
async def test_strangers_are_told_why_they_may_not_stay(start_node, session, frame: bytes, reason: str) -> None:
    server = await start_node(DecidedStore())
    async with session.ws_connect(f"ws://127.0.0.1:{server.port}/link") as socket:
        await socket.send_bytes(frame)
        message = await socket.receive(timeout=20)
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert reason in message.extra


async def test_nonsense_on_a_link_closes_it_and_others_see_that(start_node, connect) -> None:
    server = await start_node(DecidedStore())
    watcher = await connect(server, name="watcher", life=1)
    manager = await connect(server)
    await manager.welcome()
    await manager.socket.send_bytes(b"\xc1")
    gone = Sighting("m1", LIFE, LinkState.CLOSED)
    await watcher.take(Sightings, lambda message: gone in message.sightings)


async def test_a_silent_manager_is_seen_silent(start_node, connect, monkeypatch) -> None:
    server = await start_node(DecidedStore())
    watcher = await connect(server, name="watcher", life=1)
    await (await connect(server)).welcome()
    started = asyncio.get_running_loop().time()
    silent = Sighting("m1", LIFE, LinkState.SILENT)
    pinging = asyncio.create_task(ping_forever(watcher))
    await watcher.take(Sightings, lambda message: silent in message.sightings)
    pinging.cancel()
    assert asyncio.get_running_loop().time() - started > SILENCE_BOUND_MS / 1000


async def ping_forever(manager: Manager) -> None:
    while True:
        await manager.send(Ping(0))
        await asyncio.sleep(0.1)


async def test_a_manager_that_takes_nothing_is_dropped(start_node, connect) -> None:
    server = await start_node(DecidedStore())
    manager = await connect(server)
    await manager.welcome()
    (writer,) = server.driver._links.values()
    writer._waiting_bytes_max = 1 << 20
    manager.socket._writer.transport.pause_reading()
    message = Stale(SHARD, TOKEN, TOKEN)
    for _ in range(64):
        writer.send([message] * 10_000)
        if writer.broken:
            break
    assert "wait for the peer" in writer.broken
    await until(lambda: not server.driver.links)
    manager.socket._writer.transport.abort()


async def test_a_node_with_a_secret_refuses_strangers_on_every_path_but_the_open_ones(
    start_node, session, tmp_path
) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n")
    server = await start_node(DecidedStore(), secret_file=tmp_path / "secret")
    base = f"http://127.0.0.1:{server.port}"
    closed = ["/link", "/inspect", f"/replica/{SHARD}/log?after=0", f"/replica/{SHARD}/snapshot", "/nowhere"]
    for path in closed:
        for given in ({}, {"Authorization": f"Bearer {SECRET}x"}, {"Authorization": "Bearer \xe9"}):
            async with session.get(base + path, headers=given) as response:
                assert response.status == 401, path
    for path in ("/healthz", "/readyz", "/metrics"):
        async with session.get(base + path) as response:
            assert response.status == 200
    async with session.get(f"{base}/inspect", headers={"Authorization": f"Bearer {SECRET}"}) as response:
        assert response.status == 200


async def test_what_operators_see(start_node, connect, session) -> None:
    server = await start_node(DecidedStore("inc"), replaced="page 7 is damaged")
    manager = await connect(server)
    await manager.fence()
    await manager.append(1, sends_entry(1))
    await manager.append(2, sends_entry(2), commit=1)
    base = f"http://127.0.0.1:{server.port}"
    async with session.get(f"{base}/healthz") as response:
        health = await response.json()
    assert (health["store_replaced"], health["incarnation"], health["shards"]) == ("page 7 is damaged", "inc", 1)
    async with session.get(f"{base}/inspect?digest=1") as response:
        (shard,) = (await response.json())["shards"]
    assert (shard["shard"], shard["last"], shard["applied_seq"]) == (SHARD, {"epoch": 1, "seq": 2}, 1)
    assert shard["digest"]
    async with session.get(f"{base}/metrics") as response:
        text = await response.text()
    for line in (
        "shadowq_node_entries_written_total 2.0",
        "shadowq_node_fences_total 1.0",
        'shadowq_node_messages_sent_total{kind="Appended"} 2.0',
        "shadowq_node_store_replaced 1.0",
        "shadowq_node_applied 1.0",
        "shadowq_node_links 1.0",
    ):
        assert line in text


async def test_a_full_disk_holds_back_answers_and_refuses_what_needs_another_write(start_node, connect) -> None:
    store = DecidedStore()
    server = await start_node(store)
    manager = await connect(server)
    await manager.fence()
    assert await manager.append(1, sends_entry(1)) == 1
    store.error = NoRoomError("the disk is full")
    await manager.send(append(2, sends_entry(2), commit=1))
    await until(lambda: server.core.out_of_room)
    await manager.send(append(3, sends_entry(3), commit=1), Fence(SHARD, Token(2, 12)), Ping(1))
    assert [(await manager.take(NoRoom)).token for _ in range(2)] == [TOKEN, Token(2, 12)]
    await manager.take(Pong)
    assert not manager.has(Appended)
    assert server.core.replicas[SHARD].promised == TOKEN
    store.error = None
    assert (await manager.take(Appended)).seq == 2
    assert not server.core.out_of_room
    assert [entry.seq for entry in store.read_log(SHARD, 0, 9, 1 << 20)] == [1, 2]
    assert await manager.append(3, sends_entry(3), commit=2) == 3


async def test_a_full_disk_under_the_writers_thread(start_node, connect) -> None:
    store = DecidedStore()
    server = await start_node(store)
    server.driver.pace.inline = False
    server.driver.pace.smoothed_seconds = 1.0
    manager = await connect(server)
    await manager.fence()
    store.error = NoRoomError("the disk is full")
    await manager.send(append(1, sends_entry(1)))
    await until(lambda: server.core.out_of_room)
    store.error = None
    assert (await manager.take(Appended)).seq == 1
    assert store.threads == {"writer_0"}
