"""Links between managers: a dialler and a listener of ours against each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from links_harness import Journal, Listener

from distribution_manager.core.messages import (
    Forward,
    Greeting,
    ManagerMessage,
    ManagerPing,
    ManagerPong,
    Reply,
    Verdict,
    encode_manager_frame,
)
from distribution_manager.links.listener import ManagerListener
from distribution_manager.links.manager_links import ManagerLinks
from distribution_manager.links.settings import LinkSettings
from shadow_nodes.resolve import Resolver
from tests.waiting import until

A = Greeting(1, "c", "a", 11, "r1")
B = Greeting(1, "c", "b", 22, "r2")


def forward(request: int) -> Forward:
    return Forward(request, "s", 11, request, 0, 0, 0, 1, "r1", None)


class Peer:
    """Manager b: answers every Forward with DONE, and keeps what it was told."""

    def __init__(self, settings: LinkSettings, greeting: Greeting = B) -> None:
        self.requests: list[tuple[int, str, int, list[ManagerMessage]]] = []
        self.closed: list[int] = []
        self.manager_listener = ManagerListener(
            greeting, settings, on_request=self._requested, on_closed=self.closed.append
        )
        self.listener = Listener(self.manager_listener.handle)

    def _requested(self, connection: int, manager: str, life: int, messages: list[ManagerMessage]) -> None:
        self.requests.append((connection, manager, life, messages))
        for message in messages:
            assert isinstance(message, Forward)
            self.manager_listener.reply(connection, Reply(message.request, Verdict.DONE))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.listener.port}"


@pytest.fixture
async def peer(request: pytest.FixtureRequest) -> AsyncIterator[Peer]:
    peer = Peer(getattr(request, "param", LinkSettings()))
    await peer.listener.start()
    yield peer
    peer.manager_listener.close()
    await peer.listener.stop()


@pytest.fixture
async def links(resolver: Resolver, journal: Journal) -> AsyncIterator[ManagerLinks]:
    links = ManagerLinks(A, resolver, LinkSettings(secret="s3cret"), **journal.callbacks())
    yield links
    await links.close()


async def test_greetings_requests_and_replies(links: ManagerLinks, peer: Peer, journal: Journal) -> None:
    links.set_targets({"b": peer.address})
    await until(lambda: journal.count("up"))
    assert journal.events == [("up", "b", B)]
    for number in range(50):
        links.send("b", forward(number))
    await until(lambda: journal.count("messages"))
    assert peer.requests == [(1, "a", 11, [forward(number) for number in range(50)])]
    assert journal.events[1:] == [("messages", "b", [Reply(number, Verdict.DONE) for number in range(50)])]


async def test_pings_are_answered_by_the_listener_alone(links: ManagerLinks, peer: Peer, journal: Journal) -> None:
    links.set_targets({"b": peer.address})
    await until(lambda: journal.count("up"))
    links.send("b", ManagerPing(7))
    await until(lambda: journal.count("messages"))
    assert journal.events[-1] == ("messages", "b", [ManagerPong(7)])
    assert peer.requests == []


async def test_a_connection_that_ends_is_reported_once(links: ManagerLinks, peer: Peer, journal: Journal) -> None:
    links.set_targets({"b": peer.address})
    await until(lambda: journal.count("up") == 1)
    links.send("b", forward(1))
    await until(lambda: peer.requests)
    links.drop("b", "a test")
    await until(lambda: journal.count("up") == 2)
    assert peer.closed == [1]
    assert not peer.manager_listener.reply(1, Reply(1, Verdict.DONE))
    links.set_targets({})
    await until(lambda: peer.closed == [1, 2])


@pytest.mark.parametrize("peer", [LinkSettings(secret="s3cret")], indirect=True)
async def test_the_secret_opens(links: ManagerLinks, peer: Peer, journal: Journal) -> None:
    links.set_targets({"b": peer.address})
    await until(lambda: journal.count("up"))


@pytest.mark.parametrize("peer", [LinkSettings(secret="other")], indirect=True)
async def test_another_secret_does_not(
    links: ManagerLinks, peer: Peer, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    links.set_targets({"b": peer.address})
    await until(lambda: any("401" in record.getMessage() for record in caplog.records))
    assert journal.events == []


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (encode_manager_frame([Greeting(9, "c", "x", 1, "r")]), "version 9"),
        (encode_manager_frame([Greeting(1, "d", "x", 1, "r")]), "cluster d"),
        (encode_manager_frame([forward(1)]), "not a Greeting"),
        (encode_manager_frame([]), "not a Greeting"),
        (b"\xc1", "not a frame"),
    ],
)
async def test_a_listener_says_why_it_refuses(peer: Peer, frame: bytes, reason: str) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(f"ws://{peer.address}/link") as socket:
        await socket.send_bytes(frame)
        message = await socket.receive(timeout=20)
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert reason in str(message.extra)
    assert peer.requests == []
    assert peer.closed == []


async def test_another_manager_at_the_address_is_not_taken_for_it(
    links: ManagerLinks, peer: Peer, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    links.set_targets({"c": peer.address})
    await until(lambda: any("that is manager b" in record.getMessage() for record in caplog.records))
    assert journal.events == []


async def test_an_asker_that_takes_no_replies_is_dropped(peer: Peer) -> None:
    peer.manager_listener._settings = LinkSettings(waiting_bytes_max=1 << 20)
    async with aiohttp.ClientSession() as session, session.ws_connect(f"ws://{peer.address}/link") as socket:
        await socket.send_bytes(encode_manager_frame([A]))
        await socket.receive(timeout=20)
        await socket.send_bytes(encode_manager_frame([forward(1)]))
        await socket.receive(timeout=20)
        transport: Any = socket._writer.transport
        transport.pause_reading()
        while peer.manager_listener.reply(1, Reply(1, Verdict.DONE, owner=None)):
            for _ in range(10_000):
                peer.manager_listener.reply(1, Reply(1, Verdict.RETRY))
            await asyncio.sleep(0)
        await until(lambda: peer.closed == [1])
        transport.abort()
