"""What all faults share: how they end, and how ways are cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from tests.simulation.etcd_front import ETCD

if TYPE_CHECKING:
    from tests.simulation.world import World


class Mending:
    def __init__(self, world: World) -> None:
        self.world = world
        self.happened: dict[str, int] = {}
        """How often each kind of fault did."""
        self._mending: dict[int, Callable[[], None]] = {}
        """How the faults end that have begun."""

    def _lasting(self, lasts_us: float, mend: Callable[[], None]) -> None:
        """The fault ends after this time, or when all faults do."""
        number = self.world.number()
        self._mending[number] = mend
        self.world.loop.later(lasts_us, self._end, number)

    def _end(self, number: int) -> None:
        mend = self._mending.pop(number, None)
        if mend is not None:
            mend()

    def _count(self, kind: str) -> None:
        self.happened[kind] = self.happened.get(kind, 0) + 1

    def _names(self) -> list[str]:
        return [*self.world.processes, ETCD]

    def _cut(self, ways: list[tuple[str, str]]) -> Callable[[], None]:
        self.world.network.cut_ways(ways)
        return lambda: self.world.network.mend_ways(ways)

    def _cut_apart(self, some: Iterable[str]) -> Callable[[], None]:
        """These from all others, both ways; clients reach everybody."""
        side, names = set(some), self._names()
        return self._cut([(a, b) for a in names for b in names if (a in side) != (b in side)])
