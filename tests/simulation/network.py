"""Connections between simulated processes, as TCP makes them.

Model: a connection is two pipes; a pipe keeps its order and loses nothing, but may stall. What cannot pass waits, until
the way is free again, the connection is reset (what was on its way is lost) or an end gives up after a time of silence.
Different connections overtake each other freely.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.simulation.loop import MS, SECOND
from tests.simulation.process import Process

if TYPE_CHECKING:
    from tests.simulation.world import World

DIALLER_SILENCE_US = 4_500 * MS
LISTENER_SILENCE_US = 7_500 * MS
"""Half as long again as PROBE_SECONDS of managers and of nodes."""
DIAL_US = 3 * SECOND
"""DIAL_SECONDS_MAX."""
SWEEP_US = 1 * SECOND
FIN = "FIN"


class Pipe:
    """``arrived``: what has come, or would have, by its place; what cannot be handed over yet waits there."""

    __slots__ = ("arrived", "connection", "last_us", "next", "recovering", "sent", "source", "target")

    def __init__(self, connection: Connection, source: Process, target: Process) -> None:
        self.connection = connection
        self.source = source
        self.target = target
        self.last_us = 0
        self.sent = 0
        self.next = 0
        self.arrived: dict[int, Any] = {}
        self.recovering = False
        """Something was stuck: nothing passes until TCP has tried again."""

    def send(self, payload: Any) -> None:
        network = self.connection.network
        now_us = network.world.loop.now_us
        self.last_us = max(self.last_us, now_us + network.delay_us(self.source, self.target))
        network.world.loop.later(self.last_us - now_us, self._arrive, self.sent, payload)
        self.sent += 1

    def _stuck(self) -> bool:
        return self.connection.stalled or self.connection.network.cut(self.source, self.target)

    def _arrive(self, place: int, payload: Any) -> None:
        self.arrived[place] = payload
        if self._stuck():
            self.recovering = True
        elif not self.recovering:
            self._hand_over()

    def release(self) -> None:
        """The way is free again: what waited goes on, when TCP tries again."""
        if self.recovering and not self._stuck():
            network = self.connection.network
            network.world.loop.later(network.world.random.expovariate(1 / (200 * MS)), self._recover)

    def _recover(self) -> None:
        if self.recovering and not self._stuck():
            self.recovering = False
            self._hand_over()

    def _hand_over(self) -> None:
        while self.next in self.arrived:
            payload = self.arrived.pop(self.next)
            self.next += 1
            if payload is FIN or not self.connection.broken:
                self.connection.deliver(self.target, payload)


class Connection:
    """``codec``: whether frames are encoded, as they really are, or handed over as they are, which is faster."""

    def __init__(self, network: Network, number: int, dialler: Process, listener: Process) -> None:
        self.network = network
        self.number = number
        self.dialler = dialler
        self.listener = listener
        self.to_listener = Pipe(self, dialler, listener)
        self.to_dialler = Pipe(self, listener, dialler)
        self.lives = (dialler.life_number, listener.life_number)
        self.dialler_open = True
        self.listener_open = False
        self.welcomed = False
        self.broken = False
        """Reset: nothing that is on its way arrives any more."""
        self.stalled = False
        now_us = network.world.loop.now_us
        self.dialler_heard_us = now_us
        self.listener_heard_us = now_us

    def send(self, sender: Process, payload: Any) -> None:
        if sender is self.dialler:
            if self.dialler_open:
                self.to_listener.send(payload)
        elif self.listener_open:
            self.to_dialler.send(payload)

    def deliver(self, target: Process, payload: Any) -> None:
        now_us = self.network.world.loop.now_us
        if target is self.dialler:
            if not self.dialler_open or target.life_number != self.lives[0]:
                return
            self.dialler_heard_us = now_us
        else:
            if not self.listener_open or target.life_number != self.lives[1]:
                return
            self.listener_heard_us = now_us
        if payload is FIN:
            target.input_now(self.close_end, target)
        else:
            target.input_now(self._hand_over, target, payload)

    def _hand_over(self, target: Process, payload: Any) -> None:
        if self.dialler_open if target is self.dialler else self.listener_open:
            target.received(self, payload)

    def close_end(self, end: Process) -> None:
        """An end learns that the connection is over, or gives it up: it sends and hears nothing more."""
        if end is self.dialler:
            if not self.dialler_open:
                return
            self.dialler_open = False
            self.to_listener.send(FIN)
        else:
            if not self.listener_open:
                return
            self.listener_open = False
            self.to_dialler.send(FIN)
        self.network.forget_if_over(self)
        if end.alive:
            end.disconnected(self)

    def reset(self) -> None:
        """Somebody between the ends breaks the connection."""
        self.broken = True
        delay_us = self.network.world.random.uniform(0, 50 * MS)
        self.dialler.input(delay_us, self.close_end, self.dialler)
        self.listener.input(50 * MS - delay_us, self.close_end, self.listener)

    def died(self, end: Process) -> None:
        """The process at an end is gone; its kernel closes the connection, what was on its way may be lost."""
        if self.network.world.random.random() < 0.5:
            self.broken = True
        if end is self.dialler:
            self.dialler_open = False
            self.to_listener.send(FIN)
        else:
            self.listener_open = False
            self.to_dialler.send(FIN)
        self.network.forget_if_over(self)


class Network:
    def __init__(self, world: World) -> None:
        self.world = world
        self.connections: dict[int, Connection] = {}
        self.slow: dict[tuple[str, str], float] = {}
        """(from, to): how many times slower than usual."""
        self._cuts: dict[tuple[str, str], int] = {}
        self._number = 0
        world.loop.later(SWEEP_US, self._sweep)

    # --- ways

    def delay_us(self, source: Process, target: Process) -> int:
        plan, random = self.world.plan, self.world.random
        base_us = plan.latency_us[source.region][target.region]
        delay_us = base_us * (1 + plan.jitter * random.random())
        if random.random() < plan.hiccups:
            delay_us += random.expovariate(1 / (5 * base_us))
        slower = self.slow.get((source.name, target.name))
        return int(delay_us * slower if slower else delay_us)

    def cut(self, source: Process, target: Process) -> bool:
        return (source.name, target.name) in self._cuts

    def cut_ways(self, ways: list[tuple[str, str]]) -> None:
        for way in ways:
            self._cuts[way] = self._cuts.get(way, 0) + 1

    def mend_ways(self, ways: list[tuple[str, str]]) -> None:
        for way in ways:
            self._cuts[way] -= 1
            if not self._cuts[way]:
                del self._cuts[way]
        self.release()

    def release(self) -> None:
        for connection in list(self.connections.values()):
            connection.to_listener.release()
            connection.to_dialler.release()

    # --- connections

    def dial(self, dialler: Process, listener: Process, first: Any, failed: Callable[[Connection], None]) -> Connection:
        """Begins a connection; ``failed`` is called where the listener has not spoken in time."""
        self._number += 1
        connection = Connection(self, self._number, dialler, listener)
        self.connections[connection.number] = connection
        there_us = self.delay_us(dialler, listener)
        if listener.alive and not self.cut(dialler, listener) and not self.cut(listener, dialler):
            connection.to_listener.last_us = self.world.loop.now_us + there_us
            listener.input(there_us, self._accept, connection, first)
            dialler.timer(DIAL_US, self._dialled, connection, failed)
        elif listener.alive:
            dialler.timer(DIAL_US, self._dialled, connection, failed)
        else:
            dialler.timer(min(2 * there_us, DIAL_US), self._dialled, connection, failed)
        return connection

    def _accept(self, connection: Connection, first: Any) -> None:
        if connection.dialler_open and not connection.broken:
            connection.listener_open = True
            connection.listener_heard_us = self.world.loop.now_us
            connection.listener.accepted(connection, first)

    def _dialled(self, connection: Connection, failed: Callable[[Connection], None]) -> None:
        if connection.dialler_open and not connection.welcomed:
            connection.dialler_open = False
            connection.to_listener.send(FIN)
            self.forget_if_over(connection)
            failed(connection)

    def forget_if_over(self, connection: Connection) -> None:
        if not connection.dialler_open and not connection.listener_open:
            self.connections.pop(connection.number, None)

    def of(self, process: Process) -> list[Connection]:
        return [item for item in self.connections.values() if process in (item.dialler, item.listener)]

    def died(self, process: Process) -> None:
        for connection in self.of(process):
            connection.died(process)

    def heard_all(self, process: Process) -> None:
        """A process that was paused has not been listening: it begins to wait anew."""
        now_us = self.world.loop.now_us
        for connection in self.of(process):
            if process is connection.dialler:
                connection.dialler_heard_us = now_us
            else:
                connection.listener_heard_us = now_us

    def _sweep(self) -> None:
        """Ends that have heard nothing for too long give up."""
        now_us = self.world.loop.now_us
        for item in list(self.connections.values()):
            dialler_silent = now_us - item.dialler_heard_us > DIALLER_SILENCE_US
            if dialler_silent and item.dialler_open and item.welcomed and not item.dialler.paused:
                item.close_end(item.dialler)
            listener_silent = now_us - item.listener_heard_us > LISTENER_SILENCE_US
            if listener_silent and item.listener_open and not item.listener.paused:
                item.close_end(item.listener)
        self.world.loop.later(SWEEP_US, self._sweep)
