"""What every simulated process has: a clock of its own, lives, pauses, and an order in which things reach it.

Model: whatever reaches a process is for one of its lives; what is for a former one is lost. While it is paused (as by
SIGSTOP) everything waits; on resuming it finds all of it at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.simulation.loop import MS

if TYPE_CHECKING:
    from tests.simulation.world import World

EPOCH_MS = 1_800_000_000_000
"""Unix time at the beginning of every run."""


class Clock:
    """``offset_ms``: how far Unix time is off. ``rate``: how fast both clocks run."""

    def __init__(self) -> None:
        self.offset_ms = 0
        self.rate = 1.0
        self.boot_ms = 0


class Process:
    def __init__(self, world: World, name: str, region: str) -> None:
        self.world = world
        self.name = name
        self.region = region
        self.clock = Clock()
        self.alive = False
        self.paused = False
        self.life_number = 0
        self._waiting: list[tuple[bool, Callable[..., Any], tuple[Any, ...]]] = []

    # --- time

    def monotonic_ms(self) -> int:
        return self.clock.boot_ms + int(self.world.loop.now_us * self.clock.rate / MS)

    def clock_ms(self) -> int:
        return EPOCH_MS + self.clock.offset_ms + int(self.world.loop.now_us * self.clock.rate / MS)

    # --- what reaches it

    def timer(self, delay_us: float, action: Callable[..., Any], *args: Any) -> None:
        """A timer of this life."""
        self.world.loop.later(delay_us, self._reach, self.life_number, True, action, args)

    def input(self, delay_us: float, action: Callable[..., Any], *args: Any) -> None:
        """Something from outside that will reach this life."""
        self.world.loop.later(delay_us, self._reach, self.life_number, False, action, args)

    def input_now(self, action: Callable[..., Any], *args: Any) -> None:
        self._reach(self.life_number, False, action, args)

    def _reach(self, life_number: int, timer: bool, action: Callable[..., Any], args: tuple[Any, ...]) -> None:
        if life_number != self.life_number or not self.alive:
            return
        if self.paused:
            self._waiting.append((timer, action, args))
        else:
            action(*args)

    # --- lives

    def begin_life(self) -> None:
        assert not self.alive
        self.life_number += 1
        self.alive = True
        self.paused = False
        self.clock.boot_ms = self.world.random.randrange(1, 10_000_000)

    def end_life(self) -> None:
        assert self.alive
        self.alive = False
        self.paused = False
        self._waiting = []

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        """Sockets and timers are all ready; which come first is for the event loop to say."""
        if not self.alive or not self.paused:
            return
        self.paused = False
        self.world.network.heard_all(self)
        waiting, self._waiting = self._waiting, []
        if self.world.random.random() < 0.5:
            waiting = [item for item in waiting if not item[0]] + [item for item in waiting if item[0]]
        life_number = self.life_number
        for timer, action, args in waiting:
            self._reach(life_number, timer, action, args)

    # --- connections; the two kinds of processes say more

    def accepted(self, connection: Any, first: Any) -> None:
        raise NotImplementedError

    def received(self, connection: Any, messages: Any) -> None:
        raise NotImplementedError

    def disconnected(self, connection: Any) -> None:
        raise NotImplementedError
