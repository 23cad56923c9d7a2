"""Runs the core: gives it the time and what has come, carries out what it wants, once per loop turn.

Model: every callback from links, coordination or clients steps into the core and asks for a flush; the flush runs at
the end of the loop turn, so that all that came in one turn shares entries, frames and confirmation rounds.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable

from distribution_manager.coordination.interface import Coordination
from distribution_manager.core.manager import CoreConfig, ManagerCore
from distribution_manager.core.messages import Greeting, ManagerMessage, Verdict
from distribution_manager.core.metadata import NodeRecord, encode_record, node_key
from distribution_manager.core.owner import ShardOwner
from distribution_manager.core.relocation import Move
from distribution_manager.core.request import Now
from distribution_manager.core.transactions import Change, Outcome, Put, Snapshot, Transaction
from distribution_manager.links.listener import ManagerListener
from distribution_manager.links.manager_links import ManagerLinks
from distribution_manager.links.node_links import NodeLinks
from distribution_manager.links.settings import LinkSettings
from shadow_nodes.protocol.commands import Command, Result, Summary
from shadow_nodes.protocol.errors import OutcomeUnknownError, RejectedError
from shadow_nodes.protocol.handles import SESSION_BITS
from shadow_nodes.protocol.limits import HEARTBEAT_INTERVAL_MS, PROTOCOL_VERSION
from shadow_nodes.protocol.messages import Hello, Inspect, Inspected, ToManager, ToNode, Welcome
from shadow_nodes.resolve import Resolver

log = logging.getLogger(__name__)

INSPECT_SECONDS_MAX = 2.0
"""How long an operator's question waits for the nodes' answers."""

Answer = tuple[int, int, Verdict, Result | None, Summary | None]


class Driver:
    """Also the core's ``Effects``."""

    def __init__(
        self,
        config: CoreConfig,
        cluster: str,
        coordination: Coordination,
        settings: LinkSettings,
        resolver: Resolver,
    ) -> None:
        self.core = ManagerCore(config, self)
        self.core.on_ownership = _log_ownership
        self.core.promoter.relocations.on_move = _log_move
        self.resolver = resolver
        hello = Hello(PROTOCOL_VERSION, cluster, config.manager, config.life, config.region)
        greeting = Greeting(PROTOCOL_VERSION, cluster, config.manager, config.life, config.region)
        self.node_links = NodeLinks(
            hello,
            self.resolver,
            settings,
            on_up=self._node_up,
            on_messages=self._node_messages,
            on_down=self._node_down,
            at_turn_end=self.at_turn_end,
        )
        self.manager_links = ManagerLinks(
            greeting,
            self.resolver,
            settings,
            on_up=self._manager_up,
            on_messages=self._manager_messages,
            on_down=self._manager_down,
            at_turn_end=self.at_turn_end,
        )
        self.listener = ManagerListener(
            greeting,
            settings,
            on_request=self._manager_asks,
            on_closed=lambda connection: None,
            at_turn_end=self.at_turn_end,
        )
        self._coordination = coordination
        self._loop = asyncio.get_running_loop()
        self._flushing = False
        self._in_turn = False
        """Something has stepped into the core since the last flush."""
        self._after_flush: list[Callable[[], None]] = []
        self._alarm: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._inspections: dict[int, dict[str, Inspected | None]] = {}
        self._inspected: dict[int, asyncio.Event] = {}
        self._inspection = 0
        self.on_fatal: Callable[[], None] = lambda: None
        """Told when heartbeats, or the watch of etcd, have ended by an error: others take over what this manager has,
        and it would only go on to look alive."""
        self._managers: dict[str, str] = {}
        """Addresses of the managers that are dialled, by name."""
        self._introduced: dict[str, str] = {}
        """Addresses of the nodes that this manager introduces, by node name."""

    # --- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        for work in (self._tick(), self._watch()):
            self._start_task(work).add_done_callback(self._vital_ended)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.listener.close()
        await self.node_links.close()
        await self.manager_links.close()
        await self.resolver.close()
        if self._alarm is not None:
            self._alarm.cancel()

    def _start_task(self, work: object) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self._loop.create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _vital_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self.on_fatal()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task of the driver failed", exc_info=task.exception())

    async def _tick(self) -> None:
        while True:
            self.enter()
            self.core.tick()
            await asyncio.sleep(HEARTBEAT_INTERVAL_MS / 1000)

    async def _watch(self) -> None:
        """Keeps the core's directory, and the links to what it names."""
        changes = self._coordination.watch()
        try:
            async for item in changes:
                self.enter()
                if isinstance(item, Snapshot):
                    self.core.directory.snapshot(item)
                    self._link()
                else:
                    self.core.directory.changes(item)
                    if any(_names_a_peer(change) for change in item):
                        self._link()
        finally:
            await changes.aclose()

    def _link(self) -> None:
        """Links to every node and manager of the directory, and to the nodes that are introduced here."""
        directory = self.core.directory
        nodes = {name: record.address for name, record in directory.nodes.items()}
        self.node_links.set_targets({**nodes, **self._introduced})
        registered = {name: record.address for name, record in directory.managers.items()}
        # a manager whose lease ran out, perhaps for etcd's sake, keeps its link for as long as the link itself lives
        linked = {name: address for name, address in self._managers.items() if self.manager_links.is_up(name)}
        self._managers = {**linked, **registered}
        self._managers.pop(self.core.config.manager, None)
        self.manager_links.set_targets(self._managers)

    def introduce(self, node: str, address: str) -> None:
        """A node of this region: dialled whether or not etcd knows it, and put into etcd when it answers."""
        if self._introduced.get(node) != address:
            self._introduced[node] = address
            self._link()
            link = self.core.liveness.nodes.get(node)
            if link is not None:
                self._start_task(self._register(node, link.welcome))

    # --- turns -----------------------------------------------------------------------------------------------------

    def now(self) -> Now:
        return Now(int(self._loop.time() * 1000), time.time_ns() // 1_000_000)

    def enter(self) -> None:
        """Something is about to step into the core: this turn has a time, and will be flushed."""
        if not self._flushing:
            self._flushing = self._in_turn = True
            self._loop.call_soon(self._flush)
        self.core.turn(self.now())

    def at_turn_end(self, action: Callable[[], None]) -> None:
        """Frames of a turn go right after its flush, whose own are among them: the loop need not turn once more."""
        if self._in_turn:
            self._after_flush.append(action)
        else:
            self._loop.call_soon(action)

    def _flush(self) -> None:
        self._flushing = False
        self.core.turn(self.now())
        self.core.flush()
        self._in_turn = False
        self._set_alarm()
        while self._after_flush:
            self._after_flush.pop()()

    def _set_alarm(self) -> None:
        due_ms = self.core.next_alarm_ms()
        if due_ms is None:
            return
        due_s = due_ms / 1000
        if self._alarm is not None:
            if not self._alarm.cancelled() and self._alarm.when() <= due_s:
                return
            self._alarm.cancel()
        self._alarm = self._loop.call_at(due_s, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self.enter()
        self.core.alarm()

    # --- what comes in ---------------------------------------------------------------------------------------------

    def submit(self, shard: str, command: Command | None, wait_ms: int, key: str = "") -> asyncio.Future[Answer]:
        """Carries out a client's command; the future's result is the answer. Cancelled, it waits no longer.

        ``key``: the client's access key id.
        """
        future: asyncio.Future[Answer] = self._loop.create_future()

        def done(session: int, counter: int, verdict: Verdict, result: Result | None, summary: Summary | None) -> None:
            if not future.done():
                future.set_result((session, counter, verdict, result, summary))

        self.enter()
        self.core.submit(shard, command, wait_ms, done, lambda: not future.done(), key=key)
        return future

    def _node_up(self, node: str, welcome: Welcome) -> None:
        self.enter()
        self.core.node_up(node, welcome)
        if node in self._introduced:
            self._start_task(self._register(node, welcome))

    def _node_down(self, node: str) -> None:
        self.enter()
        self.core.node_down(node)

    def _node_messages(self, node: str, messages: list[ToManager]) -> None:
        self.enter()
        self.core.node_messages(node, messages)
        for message in messages:
            if isinstance(message, Inspected):
                self._keep_inspection(node, message)

    def _manager_up(self, manager: str, greeting: Greeting) -> None:
        self.enter()
        self.core.manager_up(greeting)

    def _manager_down(self, manager: str) -> None:
        self.enter()
        self.core.manager_down(manager)

    def _manager_messages(self, manager: str, messages: list[ManagerMessage]) -> None:
        self.enter()
        self.core.manager_messages(manager, messages)

    def _manager_asks(self, connection: int, manager: str, life: int, messages: list[ManagerMessage]) -> None:
        self.enter()
        self.core.manager_asks(connection, messages)

    async def _register(self, node: str, welcome: Welcome) -> None:
        """Puts a node that is introduced here into etcd, where it is not there as it is."""
        record = NodeRecord(
            node=node, region=welcome.region, address=self._introduced[node], incarnation=welcome.incarnation
        )
        while self.core.directory.nodes.get(node) != record:
            try:
                await self._coordination.transact(Transaction([], [Put(node_key(node), encode_record(record))]))
            except (OutcomeUnknownError, RejectedError) as error:
                log.warning("node %s is not registered yet: %s", node, error)
                await asyncio.sleep(1)
            else:
                return

    # --- effects ---------------------------------------------------------------------------------------------------

    def send_to_node(self, node: str, message: ToNode) -> None:
        self.node_links.send(node, message)

    def drop_node(self, node: str) -> None:
        self.node_links.drop(node, "silent")

    def send_to_manager(self, manager: str, message: ManagerMessage) -> None:
        self.manager_links.send(manager, message)

    def reply(self, connection: int, message: ManagerMessage) -> None:
        self.listener.reply(connection, message)

    def random_bits(self) -> int:
        return secrets.randbits(SESSION_BITS)

    def transact(self, transaction: Transaction, done: Callable[[Outcome | None], None]) -> None:
        self._start_task(self._transact(transaction, done))

    async def _transact(self, transaction: Transaction, done: Callable[[Outcome | None], None]) -> None:
        outcome: Outcome | None = None
        try:
            outcome = await self._coordination.transact(transaction)
        except (OutcomeUnknownError, RejectedError) as error:
            log.warning("etcd: %s", error)
        self.enter()
        done(outcome)

    # --- for operators ---------------------------------------------------------------------------------------------

    async def inspect(self, shards: list[str] | None, *, digest: bool = False) -> dict[str, Inspected]:
        """Every linked node's replicas of these shards (None: of all). Nodes that do not answer in time are missing."""
        self._inspection += 1
        number = self._inspection
        answers: dict[str, Inspected | None] = dict.fromkeys(self.core.liveness.nodes)
        self._inspections[number] = answers
        complete = self._inspected[number] = asyncio.Event()
        try:
            for node in answers:
                self.node_links.send(node, Inspect(number, shards, digest))
            if answers:
                async with asyncio.timeout(INSPECT_SECONDS_MAX):
                    await complete.wait()
        except TimeoutError:
            pass
        finally:
            del self._inspections[number], self._inspected[number]
        return {node: answer for node, answer in answers.items() if answer is not None}

    def _keep_inspection(self, node: str, message: Inspected) -> None:
        answers = self._inspections.get(message.request)
        if answers is not None:
            answers[node] = message
            if all(answer is not None for answer in answers.values()):
                self._inspected[message.request].set()


def _log_ownership(event: str, owner: ShardOwner) -> None:
    record = owner.record
    extra = {"shard": owner.shard, "epoch": record.epoch}
    if event == "serving":
        log.info("owns a shard, after %d ms; its primary is %s", owner.took_ms, record.primary, extra=extra)
    elif event == "changed":
        replicas = ", ".join(replica.node for replica in record.replicas)
        learner = f", and {record.learner} learns" if record.learner else ""
        log.info("primary %s, replica set %d: %s%s", record.primary, record.version, replicas, learner, extra=extra)
    elif event == "behind":
        text = (
            "etcd has an older record of the shard than its owner or its replicas know of, as after a restore from a "
            "backup; it is put back, with replica set %d: check what else has changed since the backup"
        )
        log.warning(text, owner.taking.version, extra=extra)
    elif event == "short":
        log.warning("lacks replicas, and no other node in reach can take one", extra=extra)
    else:
        log.info("owns a shard no more", extra=extra)


def _log_move(event: str, move: Move) -> None:
    """With the numbers that led to it."""
    text = "the move of a primary to %s, for %s, has %s: %s"
    level = logging.WARNING if event == "given up" else logging.INFO
    said = {"begun": "begun", "arrived": "come about", "given up": "been given up"}[event]
    log.log(level, text, move.node, move.cause, said, move.why, extra={"shard": move.shard, "cause": move.cause})


def _names_a_peer(change: Change) -> bool:
    return change.key.startswith(("nodes/", "managers/"))
