"""Links to peers that are known by name, against a DNS server of the test's own."""

from __future__ import annotations

from typing import Any

import pytest
from links_harness import FakeNode, Journal

from distribution_manager.links.node_links import NodeLinks
from shadow_nodes import resolve
from tests.dns_server import DnsServer
from tests.waiting import until

SERVICE = "_shadowq._tcp.test"


@pytest.fixture(autouse=True)
def quick(monkeypatch: Any) -> None:
    monkeypatch.setattr(resolve, "TTL_SECONDS_MIN", 0.01)


@pytest.fixture
async def second() -> Any:
    """The same node as ``node``, in another place."""
    node = FakeNode()
    await node.start()
    yield node
    await node.stop()


def place(dns: DnsServer, port: int) -> None:
    """From now on the service is at this port, whatever it was before, and nobody is to remember it."""
    dns.records.clear()
    dns.a("n1.test", "127.0.0.1", ttl=0)
    dns.srv(SERVICE, 1, port, "n1.test", ttl=0)


async def test_several_addresses_are_tried(links: NodeLinks, node: FakeNode, dns: DnsServer, journal: Journal) -> None:
    """The first of the two refuses connections, on whichever comes first the link still comes up."""
    dns.srv(SERVICE, 1, 1, "dead.test")
    dns.srv(SERVICE, 2, node.port, "alive.test")
    dns.a("dead.test", "127.0.0.1")
    dns.a("alive.test", "127.0.0.1")
    links.set_targets({"n1": SERVICE})
    await until(lambda: journal.count("up"))


async def test_a_name_that_moves_takes_the_link_along(
    links: NodeLinks, node: FakeNode, second: FakeNode, dns: DnsServer, journal: Journal
) -> None:
    """The first place still works: without the TTL nobody would look."""
    place(dns, node.port)
    links.set_targets({"n1": SERVICE})
    await until(lambda: journal.count("up"))
    assert node.frames
    assert not second.frames
    place(dns, second.port)
    await until(lambda: journal.count("up") == 2)
    assert second.frames
    assert journal.kinds == ["up", "down", "up"]
    assert links.is_up("n1")


async def test_a_link_is_not_given_up_for_what_does_not_answer(
    links: NodeLinks, node: FakeNode, dns: DnsServer, journal: Journal, caplog: Any
) -> None:
    place(dns, node.port)
    links.set_targets({"n1": SERVICE})
    await until(lambda: journal.count("up"))
    place(dns, 1)
    await until(lambda: "no link to n1 at _shadowq._tcp.test: moved?" in caplog.text)
    assert journal.kinds == ["up"]
    assert links.is_up("n1")


async def test_links_outlive_their_dns(
    links: NodeLinks, node: FakeNode, dns: DnsServer, journal: Journal, caplog: Any
) -> None:
    dns.a("n1.test", "127.0.0.1", ttl=0)
    links.set_targets({"n1": f"n1.test:{node.port}"})
    await until(lambda: journal.count("up"))
    dns.failing.add("n1.test")
    await until(lambda: "going on with what DNS said last" in caplog.text)
    assert journal.kinds == ["up"]
    node.cut()
    await until(lambda: journal.count("up") == 2)


async def test_a_silent_dns_delays_no_redial(
    links: NodeLinks, node: FakeNode, dns: DnsServer, journal: Journal
) -> None:
    dns.a("n1.test", "127.0.0.1", ttl=0)
    links.set_targets({"n1": f"n1.test:{node.port}"})
    await until(lambda: journal.count("up"))
    dns.silent = True
    node.cut()
    await until(lambda: journal.count("up") == 2)


async def test_closing_while_a_link_moves(
    links: NodeLinks, node: FakeNode, second: FakeNode, dns: DnsServer, journal: Journal
) -> None:
    place(dns, node.port)
    links.set_targets({"n1": SERVICE})
    await until(lambda: journal.count("up"))
    place(dns, second.port)
    await until(lambda: second.requests)
    await links.close()
    await until(lambda: all(request.transport is None for request in second.requests))
    assert journal.kinds in (["up", "down"], ["up", "down", "up", "down"])
