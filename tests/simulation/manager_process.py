"""A simulated manager: the real core, driven as distribution_manager/driver.py drives it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from distribution_manager.core.manager import CoreConfig, ManagerCore
from distribution_manager.core.messages import (
    Greeting,
    ManagerMessage,
    ManagerPing,
    ManagerPong,
    decode_manager_frame,
    encode_manager_frame,
)
from distribution_manager.core.metadata import (
    ManagerRecord,
    NodeRecord,
    encode_record,
    manager_key,
    node_key,
)
from distribution_manager.core.promotion import PromotionConfig
from distribution_manager.core.request import Now
from distribution_manager.core.thresholds import Pace, Thresholds
from distribution_manager.core.transactions import Change, Outcome, Put, Snapshot, Transaction
from shadow_nodes.protocol.errors import RejectedError
from shadow_nodes.protocol.handles import SESSION_BITS
from shadow_nodes.protocol.limits import HEARTBEAT_INTERVAL_MS, PROTOCOL_VERSION
from shadow_nodes.protocol.messages import Hello, ToNode, Welcome, decode_to_manager, encode_frame
from tests.simulation.etcd_front import EtcdFront
from tests.simulation.loop import MS, SECOND
from tests.simulation.network import Connection
from tests.simulation.node_process import NodeProcess
from tests.simulation.process import Process

if TYPE_CHECKING:
    from tests.simulation.world import World

BACKOFF_START_US = 20 * MS
BACKOFF_MAX_US = 1 * SECOND
REGISTRATION_LOOK_US = 2 * SECOND
"""As REGISTRATION_LOOK_SECONDS of the runtime."""
PROCEDURE_US = 8 * SECOND
"""As PROCEDURE_SECONDS_MAX of the backend."""

Procedure = Generator[Transaction, Outcome, Any]
Ended = Callable[[str, Any], None]
"""("ok", value), ("refused", error) or ("unknown", None)."""


class ManagerProcess(Process):
    """Also the core's ``Effects``."""

    def __init__(self, world: World, name: str, region: str) -> None:
        super().__init__(world, name, region)
        self.core: ManagerCore | None = None

    # --- lives -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self.begin_life()
        life = self.world.random.getrandbits(SESSION_BITS)
        self._links: dict[str, Connection] = {}
        """By peer, nodes and managers: dialled, up or not yet."""
        self._incoming: dict[int, Connection] = {}
        self._gathered: dict[int, tuple[Connection, list[Any]]] = {}
        self._pauses: dict[str, int] = {}
        self._flushing = False
        self._alarm_ms: int | None = None
        self.calls: dict[int, Callable[[], None]] = {}
        """What clients wait for: told when this process dies."""
        self.core = ManagerCore(
            CoreConfig(self.name, life, self.region, self._promotion(), heal_after_ms=self.world.plan.heal_after_ms),
            self,
        )
        self.greeting = Greeting(PROTOCOL_VERSION, "sim", self.name, life, self.region)
        self.hello = Hello(PROTOCOL_VERSION, "sim", self.name, life, self.region)
        self.etcd = EtcdFront(self)
        self.timer(self.world.random.randrange(HEARTBEAT_INTERVAL_MS * MS), self._tick)
        self.timer(REGISTRATION_LOOK_US, self._stay_registered)

    def _promotion(self) -> PromotionConfig:
        plan = self.world.plan
        if not plan.quick_promotion:
            return PromotionConfig()
        return PromotionConfig(
            Thresholds(plan.message_rate, cpu=0.8),
            Pace(window_ms=1_000, after_ms=500, horizon_ms=4_000),
            cooldown_ms=1_000,
            failback_after_ms=1_500,
            permits=1,
        )

    def crash(self) -> None:
        self.end_life()
        self.core = None
        self.etcd.close()
        self.world.network.died(self)
        calls, self.calls = self.calls, {}
        for lost in calls.values():
            self.world.loop.later(self.world.random.uniform(0, 20 * MS), lost)

    def live_core(self) -> ManagerCore:
        assert self.core is not None
        return self.core

    # --- turns -----------------------------------------------------------------------------------------------------

    def now(self) -> Now:
        return Now(self.monotonic_ms(), self.clock_ms())

    def enter(self) -> None:
        if not self._flushing:
            self._flushing = True
            self.timer(self.world.plan.turn_us, self._flush)
        self.live_core().turn(self.now())

    def _flush(self) -> None:
        core = self.live_core()
        self._flushing = False
        core.turn(self.now())
        core.flush()
        gathered, self._gathered = self._gathered, {}
        for connection, messages in gathered.values():
            self._send_frame(connection, messages)
        self._set_alarm()

    def _send_frame(self, connection: Connection, messages: list[Any]) -> None:
        self.world.traced(
            self.name,
            (connection.listener if connection.dialler is self else connection.dialler).name,
            messages,
        )
        if not self.world.plan.codec:
            connection.send(self, messages)
        elif isinstance(connection.listener, NodeProcess):
            connection.send(self, encode_frame(messages))
        else:
            connection.send(self, encode_manager_frame(messages))

    def _set_alarm(self) -> None:
        due_ms = self.live_core().next_alarm_ms()
        if due_ms is None or (self._alarm_ms is not None and self._alarm_ms <= due_ms):
            return
        self._alarm_ms = due_ms
        wait_ms = max(0, due_ms - self.monotonic_ms())
        self.timer(wait_ms * MS / self.clock.rate + 1, self._ring, due_ms)

    def _ring(self, due_ms: int) -> None:
        if self._alarm_ms != due_ms:
            return
        self._alarm_ms = None
        self.enter()
        self.live_core().alarm()

    def _stay_registered(self) -> None:
        self.timer(REGISTRATION_LOOK_US, self._stay_registered)
        core = self.live_core()
        if self.etcd.lease is not None and core.directory.synchronized and not core.registered:
            self.register(self.etcd.lease)

    def _tick(self) -> None:
        self.timer(HEARTBEAT_INTERVAL_MS * MS, self._tick)
        self.enter()
        self.live_core().tick()

    # --- links -----------------------------------------------------------------------------------------------------

    def _link(self) -> None:
        """Dials what the directory names and is not linked, and drops what it does not name any more."""
        directory = self.live_core().directory
        targets = [*directory.nodes, *(name for name in directory.managers if name != self.name)]
        for name in [name for name in self._links if name not in targets]:
            self._links[name].close_end(self)
        for name in targets:
            if name not in self._links:
                self._dial(name)

    def _dial(self, name: str) -> None:
        if name in self._links:
            return
        core = self.live_core()
        if name not in core.directory.nodes and name not in core.directory.managers:
            return
        peer = self.world.processes[name]
        first: Any = self.hello if isinstance(peer, NodeProcess) else self.greeting
        self._links[name] = self.world.network.dial(self, peer, first, self._not_dialled)

    def _not_dialled(self, connection: Connection) -> None:
        name = connection.listener.name
        if self._links.get(name) is connection:
            del self._links[name]
            self._dial_again(name)

    def _dial_again(self, name: str) -> None:
        pause_us = self._pauses.get(name, BACKOFF_START_US)
        self._pauses[name] = min(2 * pause_us, BACKOFF_MAX_US)
        self.timer(pause_us * self.world.random.uniform(0.5, 1), self._dial, name)

    def accepted(self, connection: Connection, first: Any) -> None:
        self._incoming[connection.number] = connection
        self._send_frame(connection, [self.greeting])

    def disconnected(self, connection: Connection) -> None:
        if self._incoming.pop(connection.number, None) is not None:
            return
        name = connection.listener.name
        if self._links.get(name) is not connection:
            return
        del self._links[name]
        if connection.welcomed:
            self.enter()
            if isinstance(connection.listener, NodeProcess):
                self.live_core().node_down(name)
            else:
                self.live_core().manager_down(name)
        self._dial_again(name)

    def received(self, connection: Connection, messages: Any) -> None:
        self.enter()
        core = self.live_core()
        if connection.dialler is not self:
            if isinstance(messages, bytes):
                messages = decode_manager_frame(messages)
            pings = [item for item in messages if isinstance(item, ManagerPing)]
            for ping in pings:
                self.reply(connection.number, ManagerPong(ping.sent_at))
            asked = [item for item in messages if not isinstance(item, ManagerPing)]
            if asked:
                core.manager_asks(connection.number, asked)
            return
        name = connection.listener.name
        to_node = isinstance(connection.listener, NodeProcess)
        if isinstance(messages, bytes):
            messages = decode_to_manager(messages) if to_node else decode_manager_frame(messages)
        if not connection.welcomed:
            connection.welcomed = True
            self._pauses.pop(name, None)
            first, messages = messages[0], messages[1:]
            if to_node:
                core.node_up(name, first)
                self._register_node(connection.listener, first)
            else:
                core.manager_up(first)
        if messages:
            if to_node:
                core.node_messages(name, messages)
            else:
                core.manager_messages(name, messages)

    # --- effects ---------------------------------------------------------------------------------------------------

    def send_to_node(self, node: str, message: ToNode) -> None:
        self._gather(self._links.get(node), message)

    def send_to_manager(self, manager: str, message: ManagerMessage) -> None:
        self._gather(self._links.get(manager), message)

    def reply(self, connection: int, message: ManagerMessage) -> None:
        self._gather(self._incoming.get(connection), message)

    def _gather(self, connection: Connection | None, message: Any) -> None:
        if connection is not None and (connection.welcomed or connection.dialler is not self):
            self._gathered.setdefault(connection.number, (connection, []))[1].append(message)

    def drop_node(self, node: str) -> None:
        connection = self._links.get(node)
        if connection is not None:
            self.timer(0, connection.close_end, self)

    def transact(self, transaction: Transaction, done: Callable[[Outcome | None], None]) -> None:
        self.etcd.transact(transaction, done)

    def random_bits(self) -> int:
        return self.world.random.getrandbits(SESSION_BITS)

    # --- etcd ------------------------------------------------------------------------------------------------------

    def register(self, lease: int) -> None:
        record = ManagerRecord(
            manager=self.name, life=self.live_core().life, region=self.region, address=self.name, endpoint=self.name
        )
        put = Transaction([], [Put(manager_key(self.name), encode_record(record), leased=True)])

        def done(outcome: Outcome | None) -> None:
            if outcome is None and self.etcd.lease == lease:
                self.timer(200 * MS, self.register, lease)

        self.etcd.transact(put, done)

    def _register_node(self, node: Process, welcome: Welcome) -> None:
        """A manager introduces the nodes of its own region."""
        if node.region != self.region:
            return
        record = NodeRecord(node=node.name, region=node.region, address=node.name, incarnation=welcome.incarnation)
        if self.live_core().directory.nodes.get(node.name) == record:
            return

        def done(outcome: Outcome | None) -> None:
            if outcome is None:
                self.timer(1 * SECOND, self._register_node, node, welcome)

        self.etcd.transact(Transaction([], [Put(node_key(node.name), encode_record(record))]), done)

    def etcd_says(self, item: Snapshot | list[Change]) -> None:
        self.enter()
        directory = self.live_core().directory
        if isinstance(item, Snapshot):
            directory.snapshot(item)
        else:
            directory.changes(item)
        self._link()

    def run(self, begin: Callable[[], Procedure], ended: Ended) -> None:
        """Runs a procedure, again and again while outcomes are unknown, as the backend does."""
        until_us = self.world.loop.now_us + PROCEDURE_US

        def advance(procedure: Procedure, outcome: Outcome | None) -> None:
            try:
                transaction = next(procedure) if outcome is None else procedure.send(outcome)
            except StopIteration as stop:
                ended("ok", stop.value)
            except RejectedError as error:
                ended("refused", error)
            else:
                self.etcd.transact(transaction, lambda answer: answered(procedure, answer))

        def answered(procedure: Procedure, outcome: Outcome | None) -> None:
            if outcome is not None:
                self.live_core().directory.outcome(outcome)
                advance(procedure, outcome)
            elif self.world.loop.now_us < until_us:
                self.timer(self.world.random.uniform(0.05, 0.5) * SECOND, advance, begin(), None)
            else:
                ended("unknown", None)

        advance(begin(), None)
