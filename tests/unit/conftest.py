"""What unit tests of both sides need: a DNS server of the test's own, and whoever asks it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from shadow_nodes.resolve import Resolver
from tests.dns_server import DnsServer


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    server = DnsServer()
    yield server
    server.stop()


@pytest.fixture
async def resolver(dns: DnsServer) -> AsyncIterator[Resolver]:
    resolver = Resolver([await dns.start()])
    yield resolver
    await resolver.close()
