"""The driver's turns: what steps in during one is flushed together, and its frames go with the flush."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from distribution_manager.coordination.memory_coordination import MemoryCoordination
from distribution_manager.core.manager import CoreConfig
from distribution_manager.driver import Driver
from distribution_manager.links.settings import LinkSettings
from shadow_nodes.resolve import Resolver


@pytest.fixture
async def driver() -> AsyncIterator[Driver]:
    made = Driver(CoreConfig("m1", 1, "here"), "c", MemoryCoordination(), LinkSettings(), Resolver())
    yield made
    await made.close()


async def test_frames_go_in_the_loop_turn_of_the_flush(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def flush() -> None:
        done.append("flush")
        driver.at_turn_end(lambda: done.append("what the flush put"))

    monkeypatch.setattr(driver.core, "flush", flush)
    driver.enter()
    driver.at_turn_end(lambda: done.append("what was put before"))
    assert done == []
    await asyncio.sleep(0)
    assert sorted(done) == ["flush", "what the flush put", "what was put before"]
    assert done[0] == "flush"


async def test_outside_a_turn_frames_go_with_the_loops(driver: Driver) -> None:
    done: list[str] = []
    driver.at_turn_end(lambda: done.append("frame"))
    assert done == []
    await asyncio.sleep(0)
    assert done == ["frame"]


async def test_a_frame_that_fails_leaves_the_others_for_the_next_turn(driver: Driver) -> None:
    """Not for ever: a link that waits for its flush gathers, and asks for no other."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: None)
    done: list[str] = []
    driver.enter()
    driver.at_turn_end(lambda: done.append("frame"))
    driver.at_turn_end(lambda: 1 // 0)
    await asyncio.sleep(0)
    assert done == []
    driver.enter()
    await asyncio.sleep(0)
    assert done == ["frame"]


async def test_a_driver_that_fails_says_so(driver: Driver, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """Else it would look alive to its clients for ever, while others take its shards over."""
    failed = asyncio.Event()
    driver.on_fatal = failed.set
    monkeypatch.setattr(driver.core, "tick", lambda: 1 // 0)
    driver.start()
    await failed.wait()
    assert "a task of the driver failed" in caplog.text


async def test_a_driver_that_is_closed_has_not_failed(driver: Driver) -> None:
    failed = asyncio.Event()
    driver.on_fatal = failed.set
    driver.start()
    await asyncio.sleep(0)
    await driver.close()
    await asyncio.sleep(0)
    assert not failed.is_set()
