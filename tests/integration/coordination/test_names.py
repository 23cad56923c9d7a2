"""etcd found by name: real etcd processes, a real DNS server, records that change while both run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from distribution_manager.coordination.embedded import EmbeddedEtcd, free_ports
from distribution_manager.coordination.interface import CoordinationUnavailable
from shadow_nodes import resolve

if TYPE_CHECKING:
    from .conftest import Bench
else:
    Bench = Any

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(60)]

SERVICE = "_etcd-client._tcp.example.org"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "TTL_SECONDS_MIN", 0.05)


async def test_one_of_the_service_s_members_is_gone(bench: Bench) -> None:
    """Three targets: one has never been there, one is killed under a watch, one is left with its peer."""
    members = await bench.three_members()
    dns = await bench.dns()
    (nobody,) = free_ports(1)
    dns.srv(SERVICE, 1, nobody, "etcd-0.example.org")
    for priority, member in enumerate(members, start=2):
        dns.srv(SERVICE, priority, member.client_port, f"etcd-{priority}.example.org")
        dns.a(f"etcd-{priority}.example.org", "127.0.0.1")
    dns.a("etcd-0.example.org", "127.0.0.1")

    coordination = await bench.connect(SERVICE, nameservers=(dns.address,))
    follower = await bench.follow(coordination)
    await bench.put(coordination, "one")
    members[0].kill()
    await bench.put(coordination, "two")
    await follower.same_as(coordination)
    assert set(follower.known) == {"one", "two"}


async def test_etcd_moves_and_dns_says_so(bench: Bench) -> None:
    """The same store behind another port: no restart, no gap in the watch, and no answer from the old place."""
    etcd = bench.etcd()
    await etcd.start()
    dns = await bench.dns()
    dns.srv(SERVICE, 1, etcd.client_port, "etcd.example.org", ttl=0)
    dns.a("etcd.example.org", "127.0.0.1", ttl=0)
    coordination = await bench.connect(SERVICE, nameservers=(dns.address,))
    follower = await bench.follow(coordination)
    await bench.put(coordination, "before")

    proxy = await bench.proxy(etcd)
    used = proxy.accepted
    dns.remove(SERVICE)
    dns.srv(SERVICE, 1, proxy.port, "etcd.example.org", ttl=0)
    await bench.until(lambda: proxy.accepted > used)
    await bench.put(coordination, "after")
    await follower.same_as(coordination)
    assert set(follower.known) == {"before", "after"}
    assert follower.snapshots == 1


async def test_etcd_outlives_its_dns(bench: Bench) -> None:
    etcd = bench.etcd()
    await etcd.start()
    dns = await bench.dns()
    dns.a("etcd.example.org", "127.0.0.1", ttl=0)
    coordination = await bench.connect(f"etcd.example.org:{etcd.client_port}", nameservers=(dns.address,))
    follower = await bench.follow(coordination)
    dns.failing.add("etcd.example.org")
    asked = len(dns.questions)
    await bench.until(lambda: len(dns.questions) > asked + 4)
    await bench.put(coordination, "without dns")
    await etcd.stop()
    await etcd.start()
    await bench.put(coordination, "after a restart, without dns")
    await follower.same_as(coordination)


async def test_a_name_that_comes_later(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A manager that starts before DNS knows its etcd waits for it."""
    etcd: EmbeddedEtcd = bench.etcd()
    await etcd.start()
    dns = await bench.dns()
    coordination = await bench.connect(SERVICE, nameservers=(dns.address,))
    with pytest.raises(CoordinationUnavailable, match="no endpoint's name has an address yet"):
        await coordination.get("x")
    dns.srv(SERVICE, 1, etcd.client_port, "etcd.example.org")
    dns.a("etcd.example.org", "127.0.0.1")
    await bench.put(coordination, "found")
    assert "_etcd-client._tcp.example.org has no address" in caplog.text
