"""Names to addresses, against a DNS server of the test's own."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from links_harness import DnsServer, FakeNode, Journal, until

from distribution_manager.links import resolve
from distribution_manager.links.node_links import NodeLinks
from distribution_manager.links.resolve import Endpoint, Resolver, split_address
from shadow_nodes.protocol.errors import ProtocolError


async def test_a_name_and_its_time_to_live(resolver: Resolver, dns: DnsServer, monkeypatch: Any) -> None:
    dns.a("n1.test", "127.0.0.2", ttl=60)
    dns.a("n1.test", "127.0.0.3", ttl=30)
    found = await resolver.resolve("n1.test:7")
    assert sorted(found, key=str) == [Endpoint("127.0.0.2", 7, "n1.test"), Endpoint("127.0.0.3", 7, "n1.test")]
    asked = len(dns.questions)
    await resolver.resolve("n1.test:7")
    assert len(dns.questions) == asked, "answered from the cache"
    later = asyncio.get_running_loop().time() + 31
    monkeypatch.setattr(resolve, "_now", lambda: later)
    await resolver.resolve("n1.test:7")
    await until(lambda: len(dns.questions) > asked)


async def test_after_a_failure_it_is_asked_anew(resolver: Resolver, dns: DnsServer) -> None:
    dns.a("n1.test", "127.0.0.2")
    await resolver.resolve("n1.test:7")
    dns.records.clear()
    dns.a("n1.test", "127.0.0.9")
    resolver.forget("n1.test:7")
    assert [endpoint.ip for endpoint in await resolver.resolve("n1.test:7")] == ["127.0.0.2"], "without waiting"
    await until(lambda: not resolver._asking)
    assert [endpoint.ip for endpoint in await resolver.resolve("n1.test:7")] == ["127.0.0.9"]


async def test_a_service_by_priority(resolver: Resolver, dns: DnsServer) -> None:
    service = "_shadowq._tcp.test"
    dns.srv(service, 20, 7002, "b.test")
    dns.srv(service, 10, 7001, "a.test")
    dns.srv(service, 5, 7000, "gone.test")
    dns.a("a.test", "127.0.0.2")
    dns.a("b.test", "127.0.0.3")
    assert await resolver.resolve(service) == [
        Endpoint("127.0.0.2", 7001, "a.test"),
        Endpoint("127.0.0.3", 7002, "b.test"),
    ]


async def test_weights_share_a_priority_out(resolver: Resolver, dns: DnsServer) -> None:
    service = "_shadowq._tcp.test"
    dns.srv(service, 1, 1, "a.test", weight=1)
    dns.srv(service, 1, 2, "b.test", weight=9)
    dns.a("a.test", "127.0.0.2")
    dns.a("b.test", "127.0.0.3")
    first = 0
    for _ in range(100):
        resolver._answers.clear()
        first += (await resolver.resolve(service))[0].port == 2
    assert 70 < first <= 100


@pytest.mark.parametrize(
    ("address", "endpoints"),
    [
        ("10.1.2.3:5", [Endpoint("10.1.2.3", 5, "10.1.2.3")]),
        ("[::1]:5", [Endpoint("::1", 5, "::1")]),
        ("localhost:5", [Endpoint("127.0.0.1", 5, "localhost"), Endpoint("::1", 5, "localhost")]),
    ],
)
async def test_literal_addresses_ask_nobody(
    resolver: Resolver, dns: DnsServer, address: str, endpoints: list[Endpoint]
) -> None:
    assert await resolver.resolve(address) == endpoints
    assert dns.questions == []


async def test_what_dns_does_not_know_the_system_may(resolver: Resolver, dns: DnsServer, monkeypatch: Any) -> None:
    async def from_hosts_file(host: str, *_: Any, **__: Any) -> list[Any]:
        assert host == "in-hosts-file"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.4", 0))]

    monkeypatch.setattr(resolve, "_getaddrinfo", from_hosts_file)
    assert await resolver.resolve("in-hosts-file:1") == [Endpoint("127.0.0.4", 1, "in-hosts-file")]
    assert ("in-hosts-file", "A") in dns.questions


async def test_an_old_answer_is_better_than_none(resolver: Resolver, dns: DnsServer, monkeypatch: Any) -> None:
    async def nothing(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(resolve, "_getaddrinfo", nothing)
    dns.a("n1.test", "127.0.0.2")
    found = await resolver.resolve("n1.test:7")
    dns.records.clear()
    resolver.forget("n1.test:7")
    assert await resolver.resolve("n1.test:7") == found
    await until(lambda: not resolver._asking)
    assert await resolver.resolve("n1.test:7") == found
    with pytest.raises(OSError, match="not known"):
        await resolver.resolve("never-seen.test:7")


@pytest.mark.parametrize("address", ["", "host", "host:", ":5", "host:0", "host:65536", "host:x"])
def test_what_is_not_an_address(address: str) -> None:
    with pytest.raises(ProtocolError, match="host:port"):
        split_address(address)


async def test_several_addresses_are_tried(links: NodeLinks, node: FakeNode, dns: DnsServer, journal: Journal) -> None:
    """The first of the two refuses connections, on whichever comes first the link still comes up."""
    dns.srv("_shadowq._tcp.test", 1, 1, "dead.test")
    dns.srv("_shadowq._tcp.test", 2, node.port, "alive.test")
    dns.a("dead.test", "127.0.0.1")
    dns.a("alive.test", "127.0.0.1")
    links.set_targets({"n1": "_shadowq._tcp.test"})
    await until(lambda: journal.count("up"))


async def test_a_dead_dns_delays_no_link_that_is_known(resolver: Resolver, dns: DnsServer) -> None:
    dns.a("n1.test", "127.0.0.2")
    found = await resolver.resolve("n1.test:7")
    dns.silent = True
    resolver.forget("n1.test:7")
    async with asyncio.timeout(0.5):
        assert await resolver.resolve("n1.test:7") == found
