"""Links on the loop that runs in production, against peers in this process."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop

sys.path.insert(0, str(Path(__file__).parent))

from links_harness import HELLO, FakeNode, Journal

from distribution_manager.links.node_links import NodeLinks
from distribution_manager.links.settings import LinkSettings
from shadow_nodes.resolve import Resolver


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
async def node() -> AsyncIterator[FakeNode]:
    node = FakeNode()
    await node.start()
    yield node
    await node.stop()


@pytest.fixture
async def make_links(resolver: Resolver, journal: Journal) -> AsyncIterator[Callable[..., NodeLinks]]:
    """``make_links(secret=..., ...)``: NodeLinks that write into the journal."""
    made: list[NodeLinks] = []

    def make(**settings: object) -> NodeLinks:
        links = NodeLinks(HELLO, resolver, LinkSettings(**settings), **journal.callbacks())  # type: ignore[arg-type]
        made.append(links)
        return links

    yield make
    for links in made:
        await links.close()


@pytest.fixture
def links(make_links: Callable[..., NodeLinks]) -> NodeLinks:
    return make_links()
