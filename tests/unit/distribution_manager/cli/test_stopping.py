"""Ctrl-C and its like, at whatever moment they come."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from distribution_manager.cli import local
from distribution_manager.cli.local import Stopping

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.timeout(60)
def test_signals_at_any_moment_and_several_at_once_end_the_wait() -> None:
    """An event that the handler sets has a lock, which another handler, or the wait, may hold: then it hung."""
    stopping = Stopping()
    stopping.from_now_on()

    def signal_all() -> None:
        for number in NUMBERS * 20:
            os.kill(os.getpid(), number)

    sender = threading.Thread(target=signal_all)
    sender.start()
    while not stopping.wait(0.00001):
        pass
    sender.join()
    assert stopping.wait(0), "it stays so"


def test_before_there_is_anything_to_be_stopped_and_when_it_comes_again_later_it_interrupts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopping = Stopping()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)  # the same once more: what has begun to clear away is let finish
    monkeypatch.setattr(local, "AGAIN_SECONDS", 0.0)
    stopping = Stopping()
    stopping.from_now_on()
    assert not stopping.wait(0)
    signal.raise_signal(signal.SIGHUP)
    assert stopping.wait(0)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
