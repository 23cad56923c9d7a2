"""The manager, without its sockets: what comes in steps in, what is to be done goes out through ``Effects``.

Model: one object per process. The driver sets the time with ``turn``, steps in what has come, and calls ``flush`` at
the end of its loop turn: everything that came in one turn shares entries, frames and confirmation rounds.
Invariant: nothing here waits, reads a clock or draws a random number; the same inputs give the same effects.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from distribution_manager.core import causes
from distribution_manager.core.atlas import Atlas
from distribution_manager.core.clocks import ClockWatch, View
from distribution_manager.core.directory import Directory
from distribution_manager.core.handoff import Handoffs
from distribution_manager.core.healer import Healer
from distribution_manager.core.healing import Step
from distribution_manager.core.latency import LatencyReport
from distribution_manager.core.letters import carry
from distribution_manager.core.limits import (
    HEAL_AFTER_MS_DEFAULT,
    ORPHANS_LOOKED_AT_PER_TICK,
    PATIENCE_ROUND_TRIPS,
    SWEEP_INTERVAL_MS,
    TAKEOVER_STAGGER_MS,
)
from distribution_manager.core.liveness import Liveness, NodeLink
from distribution_manager.core.messages import (
    Forward,
    Greeting,
    Handoff,
    ManagerMessage,
    ManagerPing,
    ManagerPong,
    Reply,
)
from distribution_manager.core.metadata import Owner, QueueMetadata, ShardRecord
from distribution_manager.core.owner import Phase, ShardOwner
from distribution_manager.core.promotion import Promoter, PromotionConfig
from distribution_manager.core.request import Now, Request
from distribution_manager.core.rounds import ConfirmationRounds
from distribution_manager.core.router import ConnectionId, Done, Router
from distribution_manager.core.timers import Timers
from distribution_manager.core.transactions import Outcome, Transaction
from shadow_nodes.protocol.commands import Command, Letter, ShardKey, shard_key
from shadow_nodes.protocol.limits import HEARTBEAT_INTERVAL_MS, SILENCE_BOUND_MS
from shadow_nodes.protocol.messages import (
    Answered,
    Appended,
    Applied,
    ClockRefused,
    Confirmed,
    Erase,
    Fenced,
    Gap,
    Log,
    NoRoom,
    Ping,
    Pong,
    Quarantined,
    Retired,
    Sightings,
    Stale,
    Token,
    ToManager,
    ToNode,
    Welcome,
)


class CoreConfig(msgspec.Struct, frozen=True):
    manager: str
    life: int
    region: str
    promotion: PromotionConfig = PromotionConfig()
    heal_after_ms: int = HEAL_AFTER_MS_DEFAULT
    """How long a replica's node is waited for before another takes its place; 0: for ever."""


class Effects(Protocol):
    """What the core wants done. None of these call back before returning."""

    def send_to_node(self, node: str, message: ToNode) -> None: ...

    def drop_node(self, node: str) -> None:
        """The link is silent: close it and dial again."""

    def send_to_manager(self, manager: str, message: ManagerMessage) -> None: ...

    def reply(self, connection: ConnectionId, message: ManagerMessage) -> None: ...

    def transact(self, transaction: Transaction, done: Callable[[Outcome | None], None]) -> None: ...

    def random_bits(self) -> int: ...


class ManagerCore:
    """Also the ``Surroundings`` of its owners and the ``Switch`` of its router."""

    def __init__(self, config: CoreConfig, effects: Effects) -> None:
        self.config = config
        self.life = config.life
        self.region = config.region
        self.me = Owner(manager=config.manager, life=config.life)
        self.now = Now(0, 0)
        self.owners: dict[ShardKey, ShardOwner] = {}
        self.liveness = Liveness()
        self.managers = self.liveness.managers
        self.directory = Directory(
            on_shard=self._shard_changed,
            on_grave=self._bury,
            on_queue=self._queue_changed,
            on_manager=self._manager_changed,
        )
        self.atlas = Atlas(config.manager, config.region, self.directory, self.liveness)
        self._latency_report = LatencyReport(config.manager, config.region, self.directory, self.liveness)
        self.router = Router(self)
        self.handoffs = Handoffs(self)
        self.promoter = Promoter(self, config.promotion)
        self.healer = Healer(self, config.heal_after_ms)
        self.on_commit: Callable[[int, int], None] = lambda operations, wait_ms: None
        """Told of every committed entry: how many operations, and how long its quorum took."""
        self.on_ownership: Callable[[str, ShardOwner], None] = lambda event, owner: None
        """Told, for the log, when an owner is ``serving``, is ``lost``, has ``changed`` its record, is ``short`` of
        nodes, or has found that etcd is ``behind`` what it or its replicas know."""
        self.records_put_back = 0
        self.takeovers = 0
        self.losses = 0
        self._effects = effects
        self._granted: dict[ShardKey, Token] = {}
        self._candidate_since: dict[ShardKey, tuple[int, int]] = {}
        """Since when a shard has been seen without its owner, and that owner's epoch."""
        self._dirty: dict[ShardKey, None] = {}
        self._lost: list[ShardKey] = []
        self._orphan_scan: list[ShardKey] = []
        self._relayed = 0
        """Chooses another manager each time: one may be as cut off from an owner as we are."""
        self._rounds = ConfirmationRounds(self)
        self._timers = Timers()
        self._clocks: dict[str, ClockWatch] = {}
        """The nodes' clocks, over all links to them."""
        self._swept_ms = 0
        self._ticked_ms: int | None = None

    # --- the driver's turn -----------------------------------------------------------------------------------------

    def turn(self, now: Now) -> None:
        """A turn begins: this is the time until the next one."""
        self.now = now

    def flush(self) -> None:
        """The turn ends: sequences, sends and asks for confirmation, for every shard that something happened to."""
        while self._dirty or self._lost:
            self._dismiss_lost()
            shards, self._dirty = self._dirty, {}
            for shard in shards:
                owner = self.owners.get(shard)
                if owner is not None:
                    owner.flush()
        self._rounds.begin()

    def next_alarm_ms(self) -> int | None:
        """When ``alarm`` wants to be called, on the monotonic clock."""
        return self._timers.next_ms()

    def alarm(self) -> None:
        """Does what is due."""
        for target in self._timers.take_due(self.now.monotonic_ms):
            if not isinstance(target, str):
                target()
            elif (owner := self.owners.get(target)) is not None:
                owner.due()

    def tick(self) -> None:
        """Heartbeats, silence and deadlines. To be called about every HEARTBEAT_INTERVAL_MS."""
        now_ms = self.now.monotonic_ms
        late = self._ticked_ms is not None and now_ms - self._ticked_ms > 2 * HEARTBEAT_INTERVAL_MS
        self._ticked_ms = now_ms
        for node, link in list(self.liveness.nodes.items()):
            if late:
                link.heard_ms = max(link.heard_ms, now_ms - SILENCE_BOUND_MS // 2)
            elif now_ms - link.heard_ms > SILENCE_BOUND_MS:
                self.node_down(node)
                self._effects.drop_node(node)
                continue
            link.round_trip.under_way += 1
            self._effects.send_to_node(node, Ping(now_ms))
        for manager, other in self.managers.items():
            other.round_trip.under_way += 1
            self._effects.send_to_manager(manager, ManagerPing(now_ms))
        self._report_latencies()
        self._adopt_orphans()
        self.promoter.tick()
        self.healer.look()
        if now_ms - self._swept_ms >= SWEEP_INTERVAL_MS:
            self._swept_ms = now_ms
            self.router.sweep()

    @property
    def registered(self) -> bool:
        """Whether the directory names this very process. It may not: a put of the process that had our name before may
        have been carried out after ours, and have gone with its lease."""
        record = self.directory.managers.get(self.config.manager)
        return record is not None and record.life == self.life

    def _report_latencies(self) -> None:
        self.atlas.refresh()
        transaction = self._latency_report.due(self.now)
        if transaction is not None:
            self.transact(transaction, lambda outcome: self._latency_report.told(self.now, known=outcome is not None))

    # --- nodes -----------------------------------------------------------------------------------------------------

    def node_up(self, node: str, welcome: Welcome) -> None:
        self.liveness.node_up(node, welcome, self.now.monotonic_ms)
        for owner in list(self.owners.values()):
            owner.link_up(node)
        for queue_id, grave in self.directory.graves.items():
            if node in grave.replicas:
                self._erase(node, queue_id, grave.shards)

    def node_down(self, node: str) -> None:
        if self.liveness.node_down(node):
            for owner in list(self.owners.values()):
                owner.link_down(node)

    def node_messages(self, node: str, messages: list[ToManager]) -> None:
        link = self.liveness.nodes.get(node)
        if link is None:
            return
        link.heard_ms = self.now.monotonic_ms
        for message in messages:
            handler = _OWNER_HANDLERS.get(type(message))
            if handler is not None:
                owner = self.owners.get(message.shard)  # type: ignore[union-attr]
                if owner is not None:
                    handler(owner, node, message)
            elif isinstance(message, Pong):
                link.round_trip.add(self.now.monotonic_ms - message.sent_at)
                self.clock_view(node, message.clock_ms, message.sent_at)
                link.load = message.load
            elif isinstance(message, Confirmed):
                self._rounds.confirmed(node, message)
            elif isinstance(message, Sightings):
                self._sighted(link, message)

    def _sighted(self, link: NodeLink, message: Sightings) -> None:
        for sighting in message.sightings:
            link.sightings[sighting.manager] = sighting
            for shard in self.router.shards_waiting_for(sighting.manager):
                self._reconsider(shard)

    # --- managers --------------------------------------------------------------------------------------------------

    def manager_up(self, greeting: Greeting) -> None:
        """A manager that we have dialled has answered."""
        self.liveness.manager_up(greeting.manager, greeting.life, greeting.region, self.now.monotonic_ms)
        self.router.recall(greeting.manager)

    def manager_down(self, manager: str) -> None:
        if self.liveness.manager_down(manager):
            self.router.recall(manager)

    def manager_messages(self, manager: str, messages: list[ManagerMessage]) -> None:
        """Answers of a manager that we have dialled."""
        link = self.managers.get(manager)
        if link is None:
            return
        link.heard_ms = self.now.monotonic_ms
        for message in messages:
            if isinstance(message, Reply):
                self.router.replied(message)
            elif isinstance(message, ManagerPong):
                link.round_trip.add(self.now.monotonic_ms - message.sent_at)

    def manager_asks(self, connection: ConnectionId, messages: list[ManagerMessage]) -> None:
        """Questions of a manager that has dialled us."""
        for message in messages:
            if isinstance(message, Forward):
                self.router.asked(connection, message)
            elif isinstance(message, Handoff):
                self.handoffs.offered(message)
            elif isinstance(message, ManagerPing):
                self._effects.reply(connection, ManagerPong(message.sent_at))

    # --- clients ---------------------------------------------------------------------------------------------------

    def submit(
        self,
        shard: ShardKey,
        command: Command | None,
        wait_ms: int,
        done: Done,
        wanted: Callable[[], bool] = lambda: True,
        *,
        key: str = "",
    ) -> None:
        """Carries out a client's command, exactly once; ``done`` is called when its outcome is known or given up.

        A waiting receive goes on waiting only while it is ``wanted``. ``key``: the client's access key id.
        """
        self.router.submit(shard, command, wait_ms, done, wanted, key=key)

    # --- ownership -------------------------------------------------------------------------------------------------

    def own(self, request: Request) -> bool:
        owner = self.owners.get(request.shard)
        if owner is None:
            owner = self._take_if_due(request.shard)
        if owner is None or owner.phase is Phase.LOST:
            return False
        owner.submit(request)
        return True

    def _take_if_due(self, shard: ShardKey) -> ShardOwner | None:
        known = self.directory.shards.get(shard)
        if known is None or self.directory.metadata(shard) is None:
            return None
        record, revision = known
        epoch, holder = self.directory.epoch_and_owner(shard)
        if epoch > record.epoch:
            return None
        if holder is not None and holder.manager != self.config.manager:
            if not self.liveness.owner_gone(record, holder, self.now.monotonic_ms):
                self._candidate_since.pop(shard, None)
                return None
            if not self._my_turn(shard, record, holder):
                return None
        granted = self._granted.pop(shard, None) == record.token and holder == self.me
        if granted:
            cause = causes.CREATED
        elif holder is not None and holder.manager == self.config.manager:
            cause = causes.RESTARTED
        else:
            cause = causes.GONE
        return self._take(shard, record, revision, granted=granted, cause=cause)

    def take(self, shard: ShardKey) -> None:
        """Takes a shard over from an owner that lives, and has asked for it."""
        known = self.directory.shards.get(shard)
        if known is not None and self.directory.metadata(shard) is not None and shard not in self.owners:
            self._take(shard, *known, granted=False, cause=causes.HANDOFF)

    def record(self, shard: ShardKey) -> tuple[ShardRecord, int] | None:
        return self.directory.shards.get(shard)

    def put_back(self, shard: ShardKey) -> None:
        self.records_put_back += 1
        self.on_ownership("behind", self.owners[shard])

    def keeps_up(self, shard: ShardKey, node: str) -> bool:
        owner = self.owners.get(shard)
        replication = None if owner is None else owner.replication
        return replication is not None and any(item.node == node for item in replication.current_voters())

    def serving(self, shard: ShardKey) -> None:
        self.on_ownership("serving", self.owners[shard])
        self.healer.serving(shard, self.owners[shard].record)
        self.wake(shard, self.now.monotonic_ms)

    def succession(self, shard: ShardKey, node: str, cause: str) -> tuple[str, str] | None:
        owner = self.owners.get(shard)
        return (node, cause) if owner is None else self.promoter.succession(owner, node, cause)

    def record_changed(self, shard: ShardKey, record: ShardRecord) -> None:
        self.on_ownership("changed", self.owners[shard])
        self.healer.record_changed(shard, record)
        self.handoffs.record_changed(shard, record)

    def _adopt_orphans(self) -> None:
        """Looks at a few shards for ones whose owner is gone and that nobody has asked for since.

        Without an owner their replicas would not be levelled or replaced, their dead letters not carried, nothing
        expired. One that is ours, and has not been used since, has time until its set is to be changed.
        """
        if not self._orphan_scan:
            self._orphan_scan = list(self.directory.shards)
        for _ in range(min(len(self._orphan_scan), ORPHANS_LOOKED_AT_PER_TICK)):
            shard = self._orphan_scan.pop()
            known = self.directory.shards.get(shard)
            if known is None or shard in self.owners or known[0].owner is None:
                continue
            if known[0].owner != self.me or self.healer.wanted(shard, known[0]):
                self._take_if_due(shard)

    def _take(self, shard: ShardKey, record: ShardRecord, revision: int, *, granted: bool, cause: str) -> ShardOwner:
        self._candidate_since.pop(shard, None)
        self.takeovers += 1
        owner = ShardOwner(shard, self.me, self, record, revision, granted=granted, cause=cause)
        self.owners[shard] = owner
        return owner

    def _my_turn(self, shard: ShardKey, record: ShardRecord, holder: Owner) -> bool:
        """Competing takers try one after the other, the nearest to the primary first."""
        now_ms = self.now.monotonic_ms
        epoch, since_ms = self._candidate_since.get(shard, (0, now_ms))
        if epoch != record.epoch:
            since_ms = now_ms
            self._candidate_since[shard] = record.epoch, now_ms
        wait_ms = self._rank(record, holder) * TAKEOVER_STAGGER_MS - (now_ms - since_ms)
        if wait_ms > 0:
            self.later(wait_ms, lambda: self.router.reconsider(shard))
        return wait_ms <= 0

    def _rank(self, record: ShardRecord, holder: Owner) -> int:
        """How many living managers come before us: of the primary's region first, then the shadows', then by name.

        Those of a region that is drained come last: they take over what nobody else can.
        """
        regions = [self._region_of(record.primary), *(self._region_of(node) for node in record.shadows)]

        def place(manager: str, region: str) -> tuple[bool, int, str]:
            distance = regions.index(region) if region in regions else len(regions)
            return (self.directory.region_draining(region), distance, manager)

        mine = place(self.config.manager, self.region)
        return sum(
            1
            for name, item in self.directory.managers.items()
            if name in self.managers and name != holder.manager and place(name, item.region) < mine
        )

    def _region_of(self, node: str) -> str:
        record = self.directory.nodes.get(node)
        return "" if record is None else record.region

    def unusable(self, shard: ShardKey, node: str) -> None:
        self.healer.unusable(shard, node)

    def granted(self, shard: ShardKey, token: Token) -> None:
        """A transaction of ours has created the shard with us as its owner: the lock need not be taken again."""
        self._granted[shard] = token

    def lost(self, shard: ShardKey) -> None:
        self._lost.append(shard)

    def _dismiss_lost(self) -> None:
        """Lets go of owners that have lost their shards; what they handed back looks for the new ones."""
        shards, self._lost = self._lost, []
        for shard in shards:
            owner = self.owners.get(shard)
            if owner is not None and owner.phase is Phase.LOST:
                self.on_ownership("lost", owner)
                self.healer.lost(shard)
                del self.owners[shard]
                self._timers.forget(shard)
                self.losses += 1
            self._reconsider(shard)

    def _reconsider(self, shard: ShardKey) -> None:
        """The owner may be gone, or another: looks at everything that waits for it."""
        known = self.directory.shards.get(shard)
        _, holder = self.directory.epoch_and_owner(shard)
        ours = holder is None or holder.manager == self.config.manager
        if known is not None and holder is not None and not ours:
            gone = self.liveness.owner_gone(known[0], holder, self.now.monotonic_ms)
            if gone:
                self.router.recall_from(shard, None)
        self.router.reconsider(shard)

    # --- what etcd says --------------------------------------------------------------------------------------------

    def _shard_changed(self, shard: ShardKey) -> None:
        owner = self.owners.get(shard)
        known = self.directory.shards.get(shard)
        if owner is not None and owner.phase is not Phase.TAKING:
            epoch = -1 if known is None else known[0].epoch
            if known is None or epoch > owner.record.epoch:
                owner.lose()
            self.wake(shard, self.now.monotonic_ms)
        if known is not None:
            self.router.recall_from(shard, known[0].owner)
        self.router.reconsider(shard)

    def _queue_changed(self, metadata: QueueMetadata) -> None:
        for number in range(metadata.shards):
            owner = self.owners.get(metadata.shard(number))
            if owner is not None:
                owner.configure()
                self.wake(metadata.shard(number), self.now.monotonic_ms)

    def _manager_changed(self, manager: str) -> None:
        for shard in self.router.shards_waiting_for(manager):
            self._reconsider(shard)

    def _bury(self, queue_id: str) -> None:
        grave = self.directory.graves[queue_id]
        for number in range(grave.shards):
            shard = shard_key(int(queue_id, 16), number)
            owner = self.owners.get(shard)
            if owner is not None:
                owner.lose()
            self._candidate_since.pop(shard, None)
            self._granted.pop(shard, None)
            self.router.reconsider(shard)
        for node in grave.replicas:
            self._erase(node, queue_id, grave.shards)

    def _erase(self, node: str, queue_id: str, shards: int) -> None:
        for number in range(shards):
            self.send(node, Erase(shard_key(int(queue_id, 16), number)))

    # --- surroundings of owners ------------------------------------------------------------------------------------

    def send(self, node: str, message: ToNode) -> None:
        if node in self.liveness.nodes:
            self._effects.send_to_node(node, message)

    def linked(self, node: str) -> bool:
        return node in self.liveness.nodes

    def incarnation(self, node: str) -> str | None:
        link = self.liveness.nodes.get(node)
        return None if link is None else link.welcome.incarnation

    def address(self, node: str) -> str | None:
        record = self.directory.nodes.get(node)
        return None if record is None else record.address

    def distance_ms(self, node: str) -> float:
        link = self.liveness.nodes.get(node)
        if link is None:
            return float("inf")
        return 0.0 if link.welcome.region == self.region else link.round_trip.smoothed_ms

    def clock_view(self, node: str, clock_ms: int, asked_ms: int) -> View:
        return self._clocks.setdefault(node, ClockWatch()).heard(clock_ms, asked_ms, self.now.monotonic_ms)

    def clock_views(self) -> dict[str, View]:
        linked = {node: self._clocks[node] for node in self.liveness.nodes if node in self._clocks}
        views = ((node, clock.view(self.now.monotonic_ms)) for node, clock in linked.items())
        return {node: view for node, view in views if view is not None}

    def patience_ms(self, node: str, base_ms: int) -> int:
        link = self.liveness.nodes.get(node)
        return base_ms if link is None else base_ms + int(PATIENCE_ROUND_TRIPS * link.round_trip.smoothed_ms)

    def grows(self, record: ShardRecord) -> bool:
        return self.liveness.grows(record)

    def next_step(
        self, shard: ShardKey, record: ShardRecord, well: frozenset[str], retiring: frozenset[str]
    ) -> Step | None:
        return self.healer.next_step(shard, record, well, retiring)

    def transact(self, transaction: Transaction, done: Callable[[Outcome | None], None]) -> None:
        def learn(outcome: Outcome | None) -> None:
            done(outcome)
            if outcome is not None:
                self.directory.outcome(outcome)

        self._effects.transact(transaction, learn)

    def wake(self, shard: ShardKey, at_ms: int) -> None:
        self._timers.wake(shard, at_ms)

    def later(self, delay_ms: int, action: Callable[[], None]) -> None:
        self._timers.at(self.now.monotonic_ms + delay_ms, action)

    def flush_soon(self, shard: ShardKey) -> None:
        self._dirty[shard] = None

    def confirm_soon(self, shard: ShardKey) -> None:
        self._rounds.want(shard)

    def committed(self, operations: int, wait_ms: int) -> None:
        self.on_commit(operations, wait_ms)

    def random_bits(self) -> int:
        return self._effects.random_bits()

    def metadata(self, shard: ShardKey) -> QueueMetadata | None:
        return self.directory.metadata(shard)

    def carry(self, shard: ShardKey, letters: list[Letter]) -> None:
        carry(self, shard, letters)

    # --- the router's switch ---------------------------------------------------------------------------------------

    def owner_of(self, shard: ShardKey) -> tuple[int, Owner | None]:
        return self.directory.epoch_and_owner(shard)

    def reachable(self, owner: Owner) -> bool:
        link = self.managers.get(owner.manager)
        return link is not None and link.life == owner.life

    def relay_for(self, owner: Owner) -> str | None:
        names = sorted(name for name in self.managers if name != owner.manager)
        self._relayed += 1
        return names[self._relayed % len(names)] if names else None

    def buried(self, shard: ShardKey) -> bool:
        return self.directory.buried(shard)

    def hint(self, shard: ShardKey, epoch: int, owner: Owner | None) -> None:
        self.directory.hint(shard, epoch, owner)

    def send_to_manager(self, manager: str, message: ManagerMessage) -> None:
        self._effects.send_to_manager(manager, message)

    def reply(self, connection: ConnectionId, message: ManagerMessage) -> None:
        self._effects.reply(connection, message)


_OWNER_HANDLERS: dict[type, Callable[..., None]] = {
    Appended: ShardOwner.on_appended,
    Applied: ShardOwner.on_applied,
    Fenced: ShardOwner.on_fenced,
    Stale: ShardOwner.on_stale,
    Gap: ShardOwner.on_gap,
    Log: ShardOwner.on_log,
    Answered: ShardOwner.on_answered,
    ClockRefused: ShardOwner.on_clock_refused,
    Quarantined: ShardOwner.on_quarantined,
    NoRoom: ShardOwner.on_no_room,
    Retired: ShardOwner.on_retired,
}
