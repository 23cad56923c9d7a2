"""Who may join, and who may be forgotten: etcd's twin, and a node that says who it is over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from aiohttp import web

from distribution_manager.coordination.memory_coordination import MemoryCoordination
from distribution_manager.core.directory import Directory
from distribution_manager.core.metadata import (
    Drain,
    NodeRecord,
    Replica,
    ShardRecord,
    decode_record,
    encode_record,
    node_drain_key,
    node_key,
)
from distribution_manager.core.transactions import KeyValue, Put, Transaction
from distribution_manager.nodes import Nodes, RefusedError
from shadow_nodes import peer_http, resolve
from shadow_nodes.peer_http import PeerHttp
from shadow_nodes.protocol.joining import IDENTITY_PATH, Announcement, Identity
from shadow_nodes.resolve import Resolver
from tests.dns_server import DnsServer
from tests.waiting import until

NODE = Identity(node="n1", region="r1", cluster="c", incarnation="i1", life=1)


class Place:
    """An address, and who is there."""

    def __init__(self, identity: Identity | None) -> None:
        self.identity = identity
        self.address = ""
        self.elsewhere = ""
        self.garbage = b""
        self._runner: web.AppRunner | None = None

    async def open(self) -> None:
        app = web.Application()
        app.router.add_get(IDENTITY_PATH, self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.address = f"127.0.0.1:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _answer(self, _: web.Request) -> web.Response:
        if self.identity is None:
            raise web.HTTPUnauthorized
        if self.elsewhere:
            raise web.HTTPFound(self.elsewhere)
        if self.garbage:
            return web.Response(body=self.garbage)
        return web.Response(body=msgspec.json.encode(self.identity))


class Bench:
    def __init__(self, dns: DnsServer, resolver: Resolver) -> None:
        self.dns = dns
        nothing: Any = lambda _: None  # noqa: E731 - four times the same
        self.directory = Directory(on_shard=nothing, on_grave=nothing, on_queue=nothing, on_manager=nothing)
        self.linked: dict[str, Any] = {}
        core = SimpleNamespace(directory=self.directory, liveness=SimpleNamespace(nodes=self.linked))
        self.etcd = MemoryCoordination()
        self.introduced: list[tuple[str, str]] = []
        driver: Any = SimpleNamespace(core=core, introduce=lambda *told: self.introduced.append(told))
        self.nodes = Nodes(driver, self.etcd, PeerHttp(resolver, "", None), "c")

    async def put(self, key: str, record: Any) -> None:
        await self.etcd.transact(Transaction([], [Put(key, encode_record(record))]))

    async def record(self, node: str = "n1") -> NodeRecord | None:
        """As etcd has it; the directory learns of it, as from a watch."""
        found = await self.etcd.get(node_key(node))
        if found is None:
            return None
        self.directory.learn(KeyValue(found.key, found.value, found.mod_revision))
        return decode_record(NodeRecord, found.key, found.value)


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(resolve, "TTL_SECONDS_MIN", 0.01)
    monkeypatch.setattr(resolve, "TTL_SECONDS_MAX", 0.01)
    dns = DnsServer()
    resolver = Resolver([await dns.start()])
    bench = Bench(dns, resolver)
    await bench.etcd.start()
    yield bench
    await bench.etcd.close()
    await resolver.close()
    dns.stop()


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    place = Place(NODE)
    await place.open()
    yield place
    await place.close()


@pytest.fixture
async def second() -> AsyncIterator[Place]:
    place = Place(NODE)
    await place.open()
    yield place
    await place.close()


async def test_a_node_that_is_where_it_says_is_written_down(bench: Bench, place: Place) -> None:
    announcement = Announcement(identity=NODE, address=place.address)
    assert await bench.nodes.join(announcement)
    assert await bench.record() == NodeRecord(node="n1", region="r1", address=place.address, incarnation="i1")
    assert not await bench.nodes.join(announcement), "nothing to change"


async def test_a_node_elsewhere_or_with_another_store(bench: Bench, place: Place, second: Place) -> None:
    """Both while its old address answers: it is the same process."""
    await bench.nodes.join(Announcement(identity=NODE, address=place.address))
    await bench.record()
    assert await bench.nodes.join(Announcement(identity=NODE, address=second.address))
    place.identity = second.identity = anew = msgspec.structs.replace(NODE, incarnation="i2", life=2)
    await bench.record()
    assert await bench.nodes.join(Announcement(identity=anew, address=second.address))
    record = await bench.record()
    assert record is not None
    assert (record.address, record.incarnation) == (second.address, "i2")


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"cluster": "d"}, "this is cluster c, not d"),
        ({"node": "a/b"}, "'a/b' is not the name of a node"),
        ({"region": ""}, "'' is not the name of a region"),
        ({"life": 2}, "is node n1 of"),
    ],
)
async def test_what_is_refused(bench: Bench, place: Place, wrong: dict[str, Any], reason: str) -> None:
    claimed = msgspec.structs.replace(NODE, **wrong)
    with pytest.raises(RefusedError, match=reason):
        await bench.nodes.join(Announcement(identity=claimed, address=place.address))
    assert await bench.record() is None


@pytest.mark.parametrize("address", ["0.0.0.0:7600", "nowhere", "a..b:1", "127.0.0.1:1"])
async def test_an_address_where_it_is_not(bench: Bench, address: str) -> None:
    with pytest.raises(RefusedError, match="advertise"):
        await bench.nodes.join(Announcement(identity=NODE, address=address))


@pytest.mark.parametrize("garbage", [b'{"node":"\xff"}', b'{"x":' + b"[" * 100_000], ids=["no UTF-8", "deep"])
async def test_what_is_there_need_not_be_a_node(bench: Bench, place: Place, garbage: bytes) -> None:
    place.garbage = garbage
    with pytest.raises(RefusedError, match="cannot reach the node"):
        await bench.nodes.join(Announcement(identity=NODE, address=place.address))


async def test_nobody_is_sent_elsewhere(bench: Bench, place: Place, second: Place) -> None:
    """Or whoever joins could have a manager ask any address, any path."""
    place.elsewhere = f"http://{second.address}{IDENTITY_PATH}"
    with pytest.raises(RefusedError, match="it answers 302"):
        await bench.nodes.join(Announcement(identity=NODE, address=place.address))


async def test_an_answer_is_bounded(bench: Bench, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_http, "ANSWER_BYTES_MAX", 20)
    with pytest.raises(RefusedError, match="more than 20 bytes"):
        await bench.nodes.join(Announcement(identity=NODE, address=place.address))


async def test_another_secret(bench: Bench, place: Place) -> None:
    place.identity = None
    with pytest.raises(RefusedError, match=r"answers 401.*has it the same secret"):
        await bench.nodes.join(Announcement(identity=NODE, address=place.address))


async def test_a_name_that_another_process_has(bench: Bench, place: Place, second: Place) -> None:
    await bench.nodes.join(Announcement(identity=NODE, address=place.address))
    await bench.record()
    second.identity = other = msgspec.structs.replace(NODE, life=2)
    with pytest.raises(RefusedError, match="has the name n1: give another with --node"):
        await bench.nodes.join(Announcement(identity=other, address=second.address))
    place.identity = None
    assert await bench.nodes.join(Announcement(identity=other, address=second.address)), "the first is gone"


async def test_a_node_keeps_its_region(bench: Bench, place: Place) -> None:
    await bench.nodes.join(Announcement(identity=NODE, address=place.address))
    await bench.record()
    moved = msgspec.structs.replace(NODE, region="r2")
    with pytest.raises(RefusedError, match="is of region r1, and a node keeps its region"):
        await bench.nodes.join(Announcement(identity=moved, address=place.address))


async def test_what_a_manager_has_not_seen_yet_counts(bench: Bench, place: Place) -> None:
    """etcd is asked, not only this manager's copy of it."""
    await bench.nodes.join(Announcement(identity=NODE, address=place.address))
    with pytest.raises(RefusedError, match="a node keeps its region"):
        await bench.nodes.join(Announcement(identity=msgspec.structs.replace(NODE, region="r2"), address=place.address))


async def test_a_service_in_nodes_means_each_of_its_targets(bench: Bench, place: Place, second: Place) -> None:
    second.identity = msgspec.structs.replace(NODE, node="n2")
    bench.dns.srv("_nodes._tcp.test", 1, int(place.address.split(":")[1]), "a.test")
    bench.dns.a("a.test", "127.0.0.1")
    introducing = asyncio.create_task(bench.nodes.introduce("_nodes._tcp.test"))
    await until(lambda: len(bench.introduced) == 1)
    bench.dns.srv("_nodes._tcp.test", 1, int(second.address.split(":")[1]), "b.test")
    bench.dns.a("b.test", "127.0.0.1")
    await until(lambda: len(bench.introduced) == 2)
    introducing.cancel()
    assert [(node, address.partition(":")[0]) for node, address in bench.introduced] == [
        ("n1", "a.test"),
        ("n2", "b.test"),
    ]


async def test_forgetting(bench: Bench, place: Place) -> None:
    with pytest.raises(RefusedError, match="there is no node 'n1'"):
        await bench.nodes.forget("n1")
    await bench.nodes.join(Announcement(identity=NODE, address=place.address))
    bench.linked["n1"] = object()
    with pytest.raises(RefusedError, match="is running: stop it first"):
        await bench.nodes.forget("n1")
    bench.linked.clear()
    for number in range(4):
        await bench.put(f"shards/q{number}/0", ShardRecord(replicas=(Replica(node="n1", incarnation="i1"),)))
    with pytest.raises(RefusedError, match=r"holds replicas of 4 queues \(q0, q1, q2, ...\)"):
        await bench.nodes.forget("n1")
    for number in range(4):
        await bench.put(f"shards/q{number}/0", ShardRecord(replicas=(Replica(node="n2", incarnation="i1"),)))
    await bench.put(node_drain_key("n1"), Drain(since_ms=1))
    await bench.nodes.forget("n1")
    assert await bench.record() is None
    assert await bench.etcd.get(node_drain_key("n1")) is None
