"""Links to nodes: up and down in turn, frames gathered, what waits bounded."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from links_harness import HELLO, FakeNode, Journal

from distribution_manager.links.node_links import NodeLinks
from distribution_manager.links.settings import BACKOFF_SECONDS_MAX
from shadow_nodes.protocol.messages import (
    LOG_START,
    Append,
    LinkState,
    Ping,
    Pong,
    Sighting,
    Sightings,
    Token,
    Welcome,
    encode_frame,
)
from tests.waiting import until

SIGHTINGS = Sightings([Sighting("m1", 5, LinkState.UP)])
BIG = Append("s", Token(1, 1), LOG_START, [b"x" * 1_000_000], 0, False)


async def test_hello_welcome_and_what_comes_with_it(links: NodeLinks, node: FakeNode, journal: Journal) -> None:
    node.alongside = [SIGHTINGS]
    assert not links.send("n1", Ping(0))
    links.set_targets({"n1": node.address})
    await until(lambda: journal.count("messages"))
    assert journal.events == [("up", "n1", node.welcome), ("messages", "n1", [SIGHTINGS])]
    assert node.frames == [[HELLO]]
    assert links.is_up("n1")


async def test_one_frame_per_loop_turn(links: NodeLinks, node: FakeNode, journal: Journal) -> None:
    links.set_targets({"n1": node.address})
    await until(lambda: links.is_up("n1"))
    assert all(links.send("n1", Ping(number)) for number in range(100))
    await until(lambda: len(node.frames) > 1)
    assert node.frames[1:] == [[Ping(number) for number in range(100)]]


async def test_frames_that_would_be_too_large_are_split(
    make_links: Callable[..., NodeLinks], node: FakeNode, journal: Journal
) -> None:
    links = make_links(waiting_bytes_max=200 << 20)
    links.set_targets({"n1": node.address})
    await until(lambda: links.is_up("n1"))
    for _ in range(100):
        links.send("n1", BIG)
    await until(lambda: sum(len(frame) for frame in node.frames[1:]) == 100)
    assert [len(frame) for frame in node.frames[1:]] == [50, 50]
    assert journal.kinds == ["up"]


async def test_a_link_that_breaks_is_noticed_at_once_and_dialled_again(
    links: NodeLinks, node: FakeNode, journal: Journal
) -> None:
    links.set_targets({"n1": node.address})
    await until(lambda: journal.count("up") == 1)
    node.cut()
    await until(lambda: journal.count("up") == 2)
    assert journal.kinds == ["up", "down", "up"]


async def test_a_node_that_comes_back_is_reached_soon(links: NodeLinks, node: FakeNode, journal: Journal) -> None:
    links.set_targets({"n1": node.address})
    await until(lambda: journal.count("up") == 1)
    await node.stop()
    await until(lambda: journal.count("down") == 1)
    assert not links.send("n1", Ping(0))
    await asyncio.sleep(0.1)
    await node.start()
    started = time.monotonic()
    await until(lambda: journal.count("up") == 2)
    assert time.monotonic() - started < BACKOFF_SECONDS_MAX


async def test_targets_change(links: NodeLinks, node: FakeNode, journal: Journal) -> None:
    other = FakeNode("n2")
    await other.start()
    links.set_targets({"n1": node.address, "n2": other.address})
    await until(lambda: journal.count("up") == 2)
    links.set_targets({"n1": node.address})
    assert not links.is_up("n2")
    assert journal.count("down") == 0, "never from inside a method"
    await until(lambda: journal.count("down") == 1)
    assert journal.events[-1] == ("down", "n2")
    links.set_targets({"n1": f"localhost:{node.port}"})
    await until(lambda: journal.count("up") == 3)
    assert journal.events[-2:] == [("down", "n1"), ("up", "n1", node.welcome)]
    await other.stop()


async def test_close_ends_every_link(links: NodeLinks, node: FakeNode, journal: Journal) -> None:
    links.set_targets({"n1": node.address})
    await until(lambda: journal.count("up") == 1)
    await links.close()
    assert journal.kinds == ["up", "down"]


async def test_a_slow_node_is_dropped_when_too_much_waits(
    make_links: Callable[..., NodeLinks], node: FakeNode, journal: Journal
) -> None:
    links = make_links(waiting_bytes_max=4 << 20)
    links.set_targets({"n1": node.address})
    await until(lambda: links.is_up("n1"))
    transport = node.requests[0].transport
    assert transport is not None
    transport.pause_reading()
    sent = 0
    while links.send("n1", BIG):
        sent += 1
        await asyncio.sleep(0)
        assert links.waiting_bytes("n1") < 6 << 20
    assert 4 < sent < 50
    await until(lambda: journal.count("up") == 2)
    assert journal.kinds == ["up", "down", "up"]
    transport.abort()


@pytest.mark.parametrize(
    ("welcome", "reason"),
    [
        (Welcome(99, "c", "n1", "r1", "inc", 0), "version 99"),
        (Welcome(1, "other", "n1", "r1", "inc", 0), "cluster other"),
        (Welcome(1, "c", "n2", "r1", "inc", 0), "node n2"),
        (Pong(1, 2, None), "not a frame"),  # type: ignore[arg-type]
    ],
)
async def test_a_wrong_peer_is_not_taken_for_the_node(  # noqa: PLR0917
    links: NodeLinks, node: FakeNode, journal: Journal, caplog: pytest.LogCaptureFixture, welcome: Welcome, reason: str
) -> None:
    node.welcome = welcome
    links.set_targets({"n1": node.address})
    await until(lambda: len(node.requests) > 2)
    assert journal.events == []
    complaints = [record.getMessage() for record in caplog.records if record.name.startswith("distribution_manager")]
    assert len(complaints) == 1, "said once, not at every attempt"
    assert reason in complaints[0]


async def test_nonsense_breaks_the_link(links: NodeLinks, node: FakeNode, journal: Journal) -> None:
    links.set_targets({"n1": node.address})
    await until(lambda: journal.count("up") == 1)
    await node.sockets[0].send_bytes(b"\xc1")
    await until(lambda: journal.count("up") == 2)
    assert journal.kinds == ["up", "down", "up"]


async def test_an_error_in_a_callback_breaks_the_link_and_not_the_rest(
    links: NodeLinks, node: FakeNode, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    links.set_targets({"n1": node.address})
    await until(lambda: journal.count("up") == 1)
    links._on_messages = lambda peer, messages: 1 / 0  # type: ignore[assignment, func-returns-value]
    await node.sockets[0].send_bytes(encode_frame([SIGHTINGS]))
    await until(lambda: journal.count("up") == 2)
    assert any(record.exc_info for record in caplog.records)


async def test_a_killed_process_is_noticed_in_milliseconds(links: NodeLinks, journal: Journal, tmp_path: Path) -> None:
    options = ["--node", "n1", "--region", "r1", "--cluster", "c", "--data", str(tmp_path), "--listen", "127.0.0.1:0"]
    command = [sys.executable, "-m", "shadow_nodes", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:  # noqa: ASYNC220
        assert child.stderr is not None
        line = await asyncio.to_thread(child.stderr.readline)
        links.set_targets({"n1": f"127.0.0.1:{line.split('port ')[1].split(',')[0]}"})
        await until(lambda: journal.count("messages"))
        os.kill(child.pid, signal.SIGKILL)
        started = time.monotonic()
        await until(lambda: journal.count("down"))
        assert time.monotonic() - started < 0.5
