"""Waiting in tests for what tells nobody that it has come about."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.05


def wait_for(holds: Callable[[], T], within_s: float, what: str = "what was waited for") -> T:
    """Asks other processes until the answer is true, and returns it; in vain, it fails the test."""
    deadline_s = time.monotonic() + within_s
    while not (found := holds()):
        assert time.monotonic() < deadline_s, f"not within {within_s:.0f} s: {what}"
        time.sleep(POLL_S)
    return found


async def until(condition: Callable[[], object]) -> None:
    """Lets the loop run until it holds; the test's own time limit is the bound."""
    while not condition():  # noqa: ASYNC110 - conditions are of objects that know no events
        await asyncio.sleep(0.001)
