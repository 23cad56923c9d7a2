"""Names to addresses, against a DNS server of the test's own."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import pytest

from shadow_nodes import resolve
from shadow_nodes.protocol.errors import ProtocolError
from shadow_nodes.resolve import Endpoint, Resolver
from tests.dns_server import DnsServer
from tests.waiting import until


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


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".test", "é" * 100], ids=["empty", "long", "not ASCII"])
async def test_what_no_host_can_be_called(resolver: Resolver, host: str) -> None:
    """As an SRV record, or a node that joins, may say it."""
    with pytest.raises(OSError, match=r"is no host's name"):
        await resolver.resolve(f"{host}:1")


async def test_what_is_taken_of_an_answer_is_bounded(resolver: Resolver, dns: DnsServer) -> None:
    for number in range(1, 101):
        dns.a("n1.test", f"127.0.0.{number}")
    assert len(await resolver.resolve("n1.test:1")) == resolve.RECORDS_MAX


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


@pytest.mark.parametrize("address", ["", "host", "host:0", "_half", "_a b._tcp.test"])
async def test_what_is_not_an_address(resolver: Resolver, address: str) -> None:
    with pytest.raises(ProtocolError, match=r"is not|cannot be connected to"):
        await resolver.resolve(address)


async def test_a_dead_dns_delays_no_link_that_is_known(resolver: Resolver, dns: DnsServer) -> None:
    dns.a("n1.test", "127.0.0.2")
    found = await resolver.resolve("n1.test:7")
    dns.silent = True
    resolver.forget("n1.test:7")
    async with asyncio.timeout(0.5):
        assert await resolver.resolve("n1.test:7") == found


async def test_both_families(resolver: Resolver, dns: DnsServer) -> None:
    dns.a("n1.test", "127.0.0.2", "::2")
    assert [endpoint.ip for endpoint in await resolver.resolve("n1.test:7")] == ["127.0.0.2", "::2"]


async def test_a_truncated_answer_is_asked_for_over_tcp(resolver: Resolver, dns: DnsServer) -> None:
    dns.a("n1.test", "127.0.0.2")
    dns.truncating = True
    assert [endpoint.ip for endpoint in await resolver.resolve("n1.test:7")] == ["127.0.0.2"]
    assert dns.over_tcp


async def test_what_failed_comes_last(resolver: Resolver, dns: DnsServer, monkeypatch: Any) -> None:
    dns.srv("_shadowq._tcp.test", 1, 1, "a.test")
    dns.srv("_shadowq._tcp.test", 2, 2, "b.test")
    dns.a("a.test", "127.0.0.2")
    dns.a("b.test", "127.0.0.3")
    first, second = await resolver.resolve("_shadowq._tcp.test")
    resolver.failed(first)
    assert await resolver.resolve("_shadowq._tcp.test") == [second, first]
    resolver.failed(second)
    assert await resolver.resolve("_shadowq._tcp.test") == [first, second], "all are tried, in their order"
    resolver.answered(second)
    assert await resolver.resolve("_shadowq._tcp.test") == [second, first]
    later = asyncio.get_running_loop().time() + resolve.FAILED_SECONDS
    monkeypatch.setattr(resolve, "_now", lambda: later)
    assert await resolver.resolve("_shadowq._tcp.test") == [first, second], "long ago"


async def test_a_family_that_fails_stays_as_it_was(resolver: Resolver, dns: DnsServer, caplog: Any) -> None:
    """SERVFAIL is no answer: half of an answer must not look like a name that has moved."""
    caplog.set_level(logging.INFO)
    dns.srv("_shadowq._tcp.test", 1, 1, "a.test")
    dns.srv("_shadowq._tcp.test", 2, 2, "b.test")
    dns.a("a.test", "127.0.0.2")
    dns.a("b.test", "127.0.0.3")
    before = await resolver.resolve("_shadowq._tcp.test")
    dns.failing.add("a.test")
    assert await resolver.renewed("_shadowq._tcp.test") == before
    assert resolver.stale
    assert "going on with what DNS said last of a.test A" in caplog.text
    dns.failing.clear()
    assert await resolver.renewed("_shadowq._tcp.test") == before
    assert not resolver.stale
    assert "DNS answers again for a.test A" in caplog.text
    dns.remove("a.test")
    assert await resolver.renewed("_shadowq._tcp.test") == before[1:], "that there is none is an answer"


async def test_waiting_for_what_comes_after_the_ttl(resolver: Resolver, dns: DnsServer, monkeypatch: Any) -> None:
    monkeypatch.setattr(resolve, "TTL_SECONDS_MIN", 0.01)
    dns.a("n1.test", "127.0.0.2", ttl=0)
    await resolver.resolve("n1.test:7")
    dns.remove("n1.test")
    dns.a("n1.test", "127.0.0.3", ttl=0)
    assert [endpoint.ip for endpoint in await resolver.expired("n1.test:7")] == ["127.0.0.3"]


async def test_the_targets_of_a_service(resolver: Resolver, dns: DnsServer) -> None:
    dns.srv("_shadowq._tcp.test", 1, 1, "a.test", ttl=9)
    dns.srv("_shadowq._tcp.test", 2, 2, "b.test", ttl=7)
    assert await resolver.targets("_shadowq._tcp.test") == (["a.test:1", "b.test:2"], 7)
    assert (await resolver.targets("n1.test:7"))[0] == ["n1.test:7"]
