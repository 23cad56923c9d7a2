"""Three etcd members: losing one, the leader or the one in use, costs no change and no watch."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from distribution_manager.coordination.embedded import EmbeddedEtcd
from distribution_manager.coordination.etcd3_protobuf import etcd3, etcdrpc
from distribution_manager.coordination.interface import CoordinationUnavailable
from distribution_manager.core.transactions import Put, Transaction

if TYPE_CHECKING:
    from .conftest import Bench
else:
    Bench = Any

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(60)]


def is_leader(member: EmbeddedEtcd) -> bool:
    client = etcd3.client(port=member.client_port, timeout=2)
    status = client.maintenancestub.Status(etcdrpc.StatusRequest(), 2)
    client.close()
    return bool(status.leader == status.header.member_id)


async def test_the_leader_is_killed_and_comes_back(bench: Bench) -> None:
    members = await bench.three_members()
    leader = next(member for member in members if is_leader(member))
    others = [member for member in members if member is not leader]
    coordination = await bench.connect(*(member.endpoint for member in [leader, *others]))
    follower = await bench.follow(coordination)
    await bench.put(coordination, "before")
    leader.kill()
    started_s = time.monotonic()
    await bench.put(coordination, "during")
    print(f"a transaction was done {time.monotonic() - started_s:.2f} s after the leader was killed")
    await follower.same_as(coordination)
    await leader.start()
    others[0].kill()
    await bench.put(coordination, "after")
    await follower.same_as(coordination)
    assert follower.snapshots == 1
    assert {"before", "during", "after"} == set(follower.known)


async def test_the_member_in_use_freezes(bench: Bench) -> None:
    members = await bench.three_members()
    used = next(member for member in members if not is_leader(member))
    others = [member for member in members if member is not used]
    coordination = await bench.connect(*(member.endpoint for member in [used, *others]))
    follower = await bench.follow(coordination)
    await bench.put(coordination, "before")
    used.freeze()
    started_s = time.monotonic()
    await bench.put(coordination, "during")
    assert time.monotonic() - started_s < 2.5, "one call's bound, then the next member"
    await follower.same_as(coordination)
    assert follower.snapshots == 1
    used.thaw()


async def test_without_a_majority_nothing_happens_and_nothing_ends(bench: Bench) -> None:
    members = await bench.three_members()
    coordination = await bench.connect(*(member.endpoint for member in members))
    follower = await bench.follow(coordination)
    await bench.put(coordination, "before")
    for member in members[1:]:
        member.kill()
    await bench.until(lambda: not coordination.healthy)
    with pytest.raises(CoordinationUnavailable):
        await coordination.transact(Transaction([], [Put("never", b"")]))
    for member in members[1:]:
        await member.start(wait=False)
    await bench.put(coordination, "after")
    await follower.same_as(coordination)
    assert set(follower.known) == {"before", "after"}
    assert follower.snapshots == 1
