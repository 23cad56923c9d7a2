"""One etcd that is killed, frozen, cut off, compacted, emptied or restored, and what its users see of it."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from distribution_manager.coordination import etcd_settings
from distribution_manager.coordination.embedded import find_etcd
from distribution_manager.coordination.etcd3_protobuf import etcd3, etcdrpc
from distribution_manager.coordination.interface import Coordination, CoordinationUnavailable
from distribution_manager.core.transactions import Put, Remove, Transaction
from shadow_nodes.protocol.errors import OutcomeUnknownError

if TYPE_CHECKING:
    from .conftest import Bench
else:
    Bench = Any

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(60)]


def put(key: str, value: bytes = b"", *, leased: bool = False) -> Transaction:
    return Transaction([], [Put(key, value, leased)])


class Writers:
    """Puts unique values, many at once, and keeps what it was told of each."""

    def __init__(self, coordination: Coordination, count: int = 8) -> None:
        self.done: dict[bytes, int] = {}
        self.unknown: set[bytes] = set()
        self.rejected: set[bytes] = set()
        self._numbers = itertools.count()
        self._stop = False
        self._tasks = [asyncio.create_task(self._write(coordination, f"key{i}")) for i in range(count)]

    async def _write(self, coordination: Coordination, key: str) -> None:
        while not self._stop:
            value = b"%d" % next(self._numbers)
            try:
                self.done[value] = (await coordination.transact(put(key, value))).revision
            except OutcomeUnknownError:
                self.unknown.add(value)
            except CoordinationUnavailable:
                self.rejected.add(value)

    async def stop(self) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)


ETCD_THAT_FORGETS = {"3.5.0", "3.5.1", "3.5.2"}


def etcd_version() -> str:
    said = subprocess.run([find_etcd(), "--version"], capture_output=True, text=True, check=True).stdout
    return said.split("etcd Version:", 1)[1].split()[0]


async def test_killed_and_restarted_under_load(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    etcd = bench.etcd()
    await etcd.start()
    coordination = await bench.connect(etcd.endpoint)
    follower = await bench.follow(coordination)
    writers = Writers(coordination)
    for _ in range(3):
        answered = len(writers.done)
        await bench.until(lambda answered=answered: len(writers.done) > answered + 50)
        etcd.kill()
        lost = len(writers.rejected)
        await bench.until(lambda lost=lost: len(writers.rejected) > lost)
        await etcd.start()
    answered = len(writers.done)
    await bench.until(lambda: len(writers.done) > answered + 50)
    await writers.stop()
    await follower.same_as(coordination)

    if "another history" in caplog.text and etcd_version() in ETCD_THAT_FORGETS:
        # killed, these may come back without what they have told, or with it twice (etcd issue 13766): all that can be
        # asked of us is that this is noticed and everything read again, so that the copies are the same
        assert follower.snapshots > 1
        return
    assert follower.snapshots == 1, "nothing was compacted, so nothing had to be read again"
    seen = [change.value for change in follower.changes]
    assert len(seen) == len(set(seen)), "a repeat"
    at = {change.value: change.mod_revision for change in follower.changes}
    assert {value: at.get(value) for value in writers.done} == writers.done, "told as done, and seen at that revision"
    assert not writers.rejected & at.keys(), "told as not done, and seen"
    assert at.keys() <= writers.done.keys() | writers.unknown
    assert writers.unknown, "what was under way at kill -9 cannot be known"


async def test_frozen_is_noticed_within_the_bound_and_goes_on_when_thawed(bench: Bench) -> None:
    etcd = bench.etcd()
    await etcd.start()
    coordination = await bench.connect(etcd.endpoint)
    follower = await bench.follow(coordination)
    await coordination.transact(put("a"))
    etcd.freeze()
    started_s = time.monotonic()
    with pytest.raises(OutcomeUnknownError):
        await coordination.transact(put("unknown"))
    with pytest.raises(CoordinationUnavailable):
        await coordination.transact(put("never"))
    with pytest.raises(CoordinationUnavailable):
        await coordination.get("a")
    assert time.monotonic() - started_s < 3 * 1.0 + 0.5
    assert not coordination.healthy
    etcd.thaw()
    await bench.until(lambda: coordination.healthy)
    await coordination.transact(put("b"))
    await follower.same_as(coordination)
    assert follower.snapshots == 1
    assert {"a", "b"} <= follower.known.keys() <= {"a", "b", "unknown"}


async def test_a_lost_reply_is_unknown_though_it_happened(bench: Bench) -> None:
    etcd = bench.etcd()
    await etcd.start()
    proxy = await bench.proxy(etcd)
    near, far = await bench.connect(etcd.endpoint), await bench.connect(proxy.endpoint)
    await far.transact(put("a"))
    proxy.replies_pass = False
    with pytest.raises(OutcomeUnknownError):
        await far.transact(put("b"))
    assert await near.get("b") is not None
    await proxy.cut()
    with pytest.raises(CoordinationUnavailable):
        await far.transact(put("c"))
    await proxy.open()
    assert await far.get("c") is None
    assert far.counters.unknown_outcomes == 1


async def test_a_network_that_went_silent_is_noticed_by_a_watch(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcd_settings, "KEEPALIVE_INTERVAL_MS", 500)
    monkeypatch.setattr(etcd_settings, "KEEPALIVE_TIMEOUT_MS", 500)
    etcd = bench.etcd(arguments=["--grpc-keepalive-min-time=100ms"])
    await etcd.start()
    proxy = await bench.proxy(etcd)
    near, far = await bench.connect(etcd.endpoint), await bench.connect(proxy.endpoint)
    await near.transact(put("before"))
    follower = await bench.follow(far)
    proxy.replies_pass = False
    await near.transact(put("during"))
    await bench.until(lambda: not far.healthy)
    proxy.forget_old_connections()
    await follower.same_as(near)
    assert follower.snapshots == 1
    assert far.counters.watch_resumptions == 1


async def test_cut_off_without_compaction_misses_nothing(bench: Bench) -> None:
    etcd = bench.etcd()
    await etcd.start()
    proxy = await bench.proxy(etcd)
    near, far = await bench.connect(etcd.endpoint), await bench.connect(proxy.endpoint)
    await near.transact(put("before"))
    follower = await bench.follow(far)
    for cut in range(3):
        await proxy.cut()
        for i in range(50):
            await near.transact(put(f"{cut}/{i}"))
            await near.transact(Transaction([], [Remove(f"{cut}/{i}")]))
        await proxy.open()
        await near.transact(put(f"after{cut}"))
        await follower.same_as(near)
    assert follower.snapshots == 1
    assert far.counters.watch_resumptions >= 3
    assert len(follower.changes) == 3 * 101


async def test_compacted_while_cut_off_gives_a_new_snapshot(bench: Bench) -> None:
    etcd = bench.etcd()
    await etcd.start()
    proxy = await bench.proxy(etcd)
    near, far = await bench.connect(etcd.endpoint), await bench.connect(proxy.endpoint)
    await near.transact(put("a"))
    follower = await bench.follow(far)
    await proxy.cut()
    await near.transact(Transaction([], [Remove("a")]))
    revision = (await near.transact(put("b"))).revision
    client = etcd3.client(port=etcd.client_port, timeout=2)
    client.kvstub.Compact(etcdrpc.CompactionRequest(revision=revision, physical=True), 2)
    client.close()
    await proxy.open()
    await follower.same_as(near)
    assert follower.snapshots == 2
    assert follower.changes == []
    await near.transact(put("c"))
    await follower.same_as(near)
    assert [change.key for change in follower.changes] == ["c"]


@pytest.mark.parametrize("restored", [False, True])
@pytest.mark.parametrize("caught_up", [False, True])
async def test_lost_or_restored_data_gives_a_new_snapshot_even_if_its_revisions_caught_up(
    bench: Bench, restored: bool, caught_up: bool
) -> None:
    etcd = bench.etcd()
    await etcd.start()
    proxy = await bench.proxy(etcd)
    far = await bench.connect(proxy.endpoint)
    near = await bench.connect(etcd.endpoint)
    await near.transact(put("old"))
    follower = await bench.follow(far)
    backup = bench.folder / "backup"
    if restored:
        await etcd.stop()
        shutil.copytree(etcd.data_dir, backup)
        await etcd.start()
    for i in range(10):
        await near.transact(put(f"lost{i}"))
    await follower.same_as(near)
    await proxy.cut()
    await etcd.stop()
    shutil.rmtree(etcd.data_dir)
    if restored:
        shutil.copytree(backup, etcd.data_dir)
    await etcd.start()
    for i in range(20 if caught_up else 1):
        revision = (await near.transact(put(f"new{i % 5}"))).revision
    assert (revision > follower.revision) == caught_up, "if it caught up, the revision alone shows nothing"
    await proxy.open()
    await follower.until(lambda: "lost0" not in follower.known)
    await follower.same_as(near)
    assert ("old" in follower.known) == restored
    assert follower.snapshots == 2


async def test_a_lost_session_is_replaced_and_told(bench: Bench) -> None:
    etcd = bench.etcd()
    await etcd.start()
    proxy = await bench.proxy(etcd)
    near, far = await bench.connect(etcd.endpoint), await bench.connect(proxy.endpoint)
    told: list[int] = []
    far.on_session(told.append)
    await far.transact(put("registered", leased=True))
    follower = await bench.follow(near)
    await proxy.cut()
    await follower.until(lambda: "registered" not in follower.known)
    await proxy.open()
    await bench.until(lambda: len(told) == 2)
    await far.transact(put("registered", leased=True))
    await follower.until(lambda: "registered" in follower.known)
    assert far.session == told[1] != told[0]
    kept_s = time.monotonic()
    await bench.until(lambda: time.monotonic() - kept_s > 2.0)  # twice its time to live
    assert "registered" in follower.known
    assert len(told) == 2


async def test_a_transaction_under_a_lost_lease_takes_the_next_one(bench: Bench) -> None:
    etcd = bench.etcd()
    await etcd.start()
    coordination = await bench.connect(etcd.endpoint, session_ttl_s=60, call_timeout_s=2.0)
    await coordination.transact(put("a", leased=True))
    first = coordination.session
    client = etcd3.client(port=etcd.client_port, timeout=2)
    client.revoke_lease(first)
    client.close()
    await coordination.transact(put("a", leased=True))
    assert coordination.session != first
    await coordination.close()


async def test_starting_without_etcd_waits_for_it(bench: Bench) -> None:
    etcd = bench.etcd()
    await etcd.start()
    etcd.kill()
    coordination = await bench.connect(etcd.endpoint)
    follower = asyncio.create_task(bench.follow(coordination))
    with pytest.raises(CoordinationUnavailable):
        await coordination.transact(put("a", leased=True))
    await etcd.start()
    # how soon gRPC dials again is its own affair: a call's bound may end before
    await bench.until(lambda: coordination.session is not None)
    await coordination.transact(put("a", leased=True))
    await (await follower).same_as(coordination)
