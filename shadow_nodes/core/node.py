"""The node: its replicas, its links to managers, and what it has seen of them.

Model: messages step in with the time; ``take_sends`` gives what may be sent at once, ``take_batch`` what must be
written, with the answers that may be sent only after it is written. One batch carries all shards' writes: one fsync.
Invariant: no promise and no Appended leaves before the write that makes it true has returned.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from shadow_nodes.core.machine import Machine
from shadow_nodes.core.replica import Replica, Results
from shadow_nodes.core.store import LogEntry, ReplicaRecord, ShardWrite, Store
from shadow_nodes.protocol.audit import LogPage
from shadow_nodes.protocol.commands import ShardKey
from shadow_nodes.protocol.errors import ProtocolError
from shadow_nodes.protocol.limits import (
    CHECKPOINT_LOG_BYTES_MAX,
    HEARTBEAT_INTERVAL_MS,
    KIB,
    PROTOCOL_VERSION,
    SILENCE_BOUND_MS,
)
from shadow_nodes.protocol.messages import (
    NO_TOKEN,
    Append,
    Appended,
    Ask,
    Confirm,
    Confirmed,
    Erase,
    Fence,
    Fetch,
    Hello,
    Inspect,
    Inspected,
    Learn,
    LinkState,
    Load,
    Log,
    NoRoom,
    Ping,
    Pong,
    Position,
    Quarantined,
    Retire,
    Retired,
    Sighting,
    Sightings,
    Stale,
    Token,
    ToManager,
    ToNode,
    Welcome,
)

SPARING_CHECKPOINT_BYTES = 256 * KIB
"""While the disk is nearly full, a shard that is written to is checkpointed when so much was applied since then, and
its log erased up to there: so what clients delete soon makes room."""

LinkId = int
Send = tuple[LinkId, ToManager]


class NodeConfig(msgspec.Struct, frozen=True):
    node: str
    region: str
    cluster: str
    log_retained_bytes: int


class Now(msgspec.Struct, frozen=True, gc=False):
    """``monotonic_ms`` orders and measures; ``clock_ms`` is Unix time."""

    monotonic_ms: int
    clock_ms: int


class NodeBatch(msgspec.Struct):
    """Write ``writes``, then send ``sends``, then tell ``NodeCore.written``."""

    writes: list[ShardWrite]
    sends: list[Send]

    def __bool__(self) -> bool:
        return bool(self.writes or self.sends)


class Pull(msgspec.Struct, frozen=True):
    """For the driver: get the shard's committed log after ``after_seq``, or a snapshot, from the node at ``source``.

    It ends in ``NodeCore.pulled``, ``install`` or ``pull_failed``. What comes of it counts only while the node learns
    the shard for the same ``learning``: a copy that it was told to drop meanwhile has lost its beginning.
    """

    shard: ShardKey
    source: str
    after_seq: int
    learning: int = 0


class Reading(msgspec.Struct, frozen=True):
    """For the driver: read what an installed snapshot makes (``read``, in any thread), and tell ``NodeCore.loaded``."""

    replica: Replica
    number: int
    position: Position

    def read(self) -> Machine:
        """Takes long for a deep queue. Raises CorruptError, OSError."""
        return self.replica.read_machine(self.position)


class _Pulling(msgspec.Struct):
    """Who asked this node to learn a shard, under which token, and from whom."""

    link: LinkId
    token: Token
    source: str
    learning: int


class _Link:
    def __init__(self, hello: Hello, now: Now) -> None:
        self.manager = hello.manager
        self.life = hello.life
        self.heard_ms = now.monotonic_ms
        self.superseded = False
        """The same process has dialled again: what is still to come over this link was sent before, and is too late."""


class NodeCore:
    def __init__(self, config: NodeConfig, store: Store) -> None:
        """Loads every replica of the store. Raises CorruptError, OSError."""
        self.config = config
        self.load = Load()
        self.out_of_room = False
        """The disk is full: a batch waits to be written. Whatever would need another write is refused meanwhile."""
        self._store = store
        self.replicas = {record.shard: Replica(record, store, config.log_retained_bytes) for record in store.recover()}
        self._links: dict[LinkId, _Link] = {}
        self._sightings: dict[str, Sighting] = {}
        self._sends: list[Send] = []
        self._sends_after_write: list[Send] = []
        self._appended: dict[tuple[LinkId, ShardKey], Appended] = {}
        self._dirty: dict[ShardKey, Replica] = {}
        self._erased: list[ShardKey] = []
        self._pulls: list[Pull] = []
        self._pulling: dict[ShardKey, _Pulling] = {}
        self._learnings = 0
        self._readings: list[Reading] = []
        self._ticked_ms: int | None = None

    # --- links -----------------------------------------------------------------------------------------------------

    def connected(self, link: LinkId, hello: Hello, now: Now) -> None:
        """A manager has said Hello. Raises ProtocolError where it may not stay."""
        if hello.version != PROTOCOL_VERSION:
            raise ProtocolError(f"manager {hello.manager} speaks version {hello.version}, this node {PROTOCOL_VERSION}")
        if hello.cluster != self.config.cluster:
            raise ProtocolError(f"manager {hello.manager} is of cluster {hello.cluster}, not {self.config.cluster}")
        for other in self._links.values():
            other.superseded |= other.manager == hello.manager and other.life == hello.life
        self._links[link] = _Link(hello, now)
        self._sends.append(
            (
                link,
                Welcome(
                    PROTOCOL_VERSION,
                    self.config.cluster,
                    self.config.node,
                    self.config.region,
                    self._store.incarnation,
                    now.clock_ms,
                ),
            )
        )
        self._see(Sighting(hello.manager, hello.life, LinkState.UP))
        self._sends.append((link, Sightings(list(self._sightings.values()))))

    def disconnected(self, link: LinkId) -> None:
        """The link is closed. Whether the process behind it is gone is for managers to conclude, from a quorum."""
        gone = self._links.pop(link, None)
        if gone is None:
            return
        twin = any(other.manager == gone.manager and other.life == gone.life for other in self._links.values())
        seen = self._sightings.get(gone.manager)
        if not twin and seen is not None and seen.life == gone.life:
            self._see(Sighting(gone.manager, gone.life, LinkState.CLOSED))

    def _see(self, sighting: Sighting) -> None:
        if self._sightings.get(sighting.manager) != sighting:
            self._sightings[sighting.manager] = sighting
            self._sends += [(link, Sightings([sighting])) for link in self._links]

    def tick(self, now: Now) -> None:
        """Notices silence. To be called every HEARTBEAT_INTERVAL_MS; after a pause of its own it accuses nobody."""
        late = self._ticked_ms is not None and now.monotonic_ms - self._ticked_ms > 2 * HEARTBEAT_INTERVAL_MS
        self._ticked_ms = now.monotonic_ms
        for item in self._links.values():
            if late:
                item.heard_ms = max(item.heard_ms, now.monotonic_ms - SILENCE_BOUND_MS // 2)
            elif now.monotonic_ms - item.heard_ms > SILENCE_BOUND_MS and not item.superseded:
                seen = self._sightings.get(item.manager)
                if seen is not None and seen.life == item.life and seen.state == LinkState.UP:
                    self._see(Sighting(item.manager, item.life, LinkState.SILENT))

    # --- messages --------------------------------------------------------------------------------------------------

    def receive(self, link: LinkId, messages: list[ToNode], now: Now) -> None:
        """Steps the messages of a frame in. Raises ProtocolError: close the link.

        A process's messages are stepped in in the order it sent them, over however many links: see ``superseded``.
        """
        item = self._links[link]
        if item.superseded:
            return
        item.heard_ms = now.monotonic_ms
        seen = self._sightings[item.manager]
        if seen.state != LinkState.UP and seen.life == item.life:
            self._see(Sighting(item.manager, item.life, LinkState.UP))
        for message in messages:
            if isinstance(message, Append):
                self._append(link, message, now)
            else:
                self._handlers[type(message)](self, link, message, now)

    def _append(self, link: LinkId, message: Append, now: Now) -> None:
        replica = self.replicas.get(message.shard)
        if replica is None:
            self._sends.append((link, Stale(message.shard, message.token, NO_TOKEN)))
            return
        if self.out_of_room:
            self._refuse(link, message)
            return
        results: Results | None = [] if message.want_results else None
        before = replica.committed.seq
        answer = replica.append(message, now.clock_ms, results)
        if replica.dirty:
            self._dirty[message.shard] = replica
        if isinstance(answer, int):
            if message.entries:
                self._appended[link, message.shard] = Appended(message.shard, message.token, answer)
            if results is not None and replica.committed.seq > before:
                self._sends.append((link, replica.applied(before, results, now.clock_ms)))
        else:
            self._sends_after_write.append((link, answer))

    def _refuse(self, link: LinkId, message: Append | Fence | Learn) -> None:
        """For want of room on the disk."""
        self._sends.append((link, NoRoom(message.shard, message.token)))

    def _ping(self, link: LinkId, message: Ping, now: Now) -> None:
        self._sends.append((link, Pong(message.sent_at, now.clock_ms, self.load)))

    def _fence(self, link: LinkId, message: Fence, now: Now) -> None:
        replica = self.replicas.get(message.shard)
        if self.out_of_room:
            self._refuse(link, message)
            return
        if replica is None:
            replica = self._new_replica(message.shard)
        if replica.installing:
            return  # its log is about to be another: the taker asks again
        answer = replica.fence(message, self._store.incarnation, now.clock_ms)
        if replica.dirty:
            self._dirty[message.shard] = replica
        self._sends_after_write.append((link, answer))

    def _new_replica(self, shard: ShardKey) -> Replica:
        replica = Replica(ReplicaRecord(shard), self._store, self.config.log_retained_bytes)
        self.replicas[shard] = replica
        return replica

    def _ask(self, link: LinkId, message: Ask, now: Now) -> None:
        replica = self.replicas.get(message.shard)
        answer = (
            Stale(message.shard, message.token, NO_TOKEN) if replica is None else replica.answer(message, now.clock_ms)
        )
        self._sends.append((link, answer))

    def _confirm(self, link: LinkId, message: Confirm, now: Now) -> None:
        refused = [
            shard
            for shard, token in message.shards
            if (replica := self.replicas.get(shard)) is None or replica.promised != token
        ]
        self._sends.append((link, Confirmed(message.round, refused)))

    def _fetch(self, link: LinkId, message: Fetch, now: Now) -> None:
        replica = self.replicas.get(message.shard)
        if replica is not None and replica.installing:
            return
        answer: Stale | Log = (
            Stale(message.shard, message.token, NO_TOKEN) if replica is None else replica.fetch(message)
        )
        self._sends.append((link, answer))

    def _learn(self, link: LinkId, message: Learn, now: Now) -> None:
        replica = self.replicas.get(message.shard)
        if replica is None or replica.promised != message.token:
            promised = NO_TOKEN if replica is None else replica.promised
            self._sends.append((link, Stale(message.shard, message.token, promised)))
            return
        if self.out_of_room:
            self._refuse(link, message)
            return
        known = self._pulling.get(message.shard)
        if known is None:
            self._learnings += 1
            self._pulls.append(Pull(message.shard, message.source, replica.committed.seq, self._learnings))
        learning = self._learnings if known is None else known.learning
        self._pulling[message.shard] = _Pulling(link, message.token, message.source, learning)

    def _inspect(self, link: LinkId, message: Inspect, now: Now) -> None:
        wanted = self.replicas if message.shards is None else message.shards
        shards = [self.replicas[shard].inspect(message.digest) for shard in wanted if shard in self.replicas]
        self._sends.append((link, Inspected(message.request, self._store.incarnation, shards)))

    def _erase(self, link: LinkId, message: Erase, now: Now) -> None:
        if self.replicas.pop(message.shard, None) is not None:
            self._dirty.pop(message.shard, None)
            self._pulling.pop(message.shard, None)
            self._erased.append(message.shard)

    def _retire(self, link: LinkId, message: Retire, now: Now) -> None:
        """What is left is the tombstone: a replica with an empty log, which refuses whom it refused before."""
        shard, token = message.shard, message.token
        replica = self.replicas.get(shard)
        if replica is not None and replica.refuses(token):
            self._sends_after_write.append((link, Stale(shard, token, replica.promised)))
            return
        if replica is None or not replica.blank:
            self._erase(link, Erase(shard), now)
            self._appended = {key: item for key, item in self._appended.items() if key[1] != shard}
            replica = self._new_replica(shard)
        self._pulling.pop(shard, None)
        replica.fence(Fence(shard, token), self._store.incarnation, now.clock_ms)
        replica.retire()
        if replica.dirty:
            self._dirty[shard] = replica
        self._sends_after_write.append((link, Retired(shard, token)))

    def _hello(self, link: LinkId, message: Hello, now: Now) -> None:
        raise ProtocolError("Hello is only ever the first message")

    _handlers: dict[type, Callable[..., None]] = {
        Ping: _ping,
        Fence: _fence,
        Ask: _ask,
        Confirm: _confirm,
        Fetch: _fetch,
        Learn: _learn,
        Inspect: _inspect,
        Erase: _erase,
        Retire: _retire,
        Hello: _hello,
    }

    # --- copying from another node ---------------------------------------------------------------------------------

    def take_pulls(self) -> list[Pull]:
        pulls, self._pulls = self._pulls, []
        return pulls

    def log_for(self, shard: ShardKey, after_seq: int) -> list[LogEntry] | None:
        """For another node's Pull: committed entries; [] where there are no more, None where it needs a snapshot."""
        replica = self.replicas.get(shard)
        return None if replica is None else replica.committed_log(after_seq)

    def page_for(self, shard: ShardKey, after_seq: int, since_ms: int | None) -> LogPage | None:
        """For whoever reads the operation log; None where the shard is not here, or its log is being replaced."""
        replica = self.replicas.get(shard)
        return None if replica is None or replica.installing else replica.read_page(after_seq, since_ms)

    def _waiting_for(self, pull: Pull) -> _Pulling | None:
        waiting = self._pulling.get(pull.shard)
        return waiting if waiting is not None and waiting.learning == pull.learning else None

    def pulled(self, pull: Pull, entries: list[LogEntry]) -> None:
        """More of the committed log has come; with none the pull is over. Each time the owner is told how far it got:
        under load there is always more, and the owner alone can say when appends may take over."""
        replica = self.replicas.get(pull.shard)
        waiting = self._waiting_for(pull)
        if replica is None or waiting is None:
            return
        seq = replica.adopt(entries)
        if replica.dirty:
            self._dirty[pull.shard] = replica
        if entries and replica.committed.seq >= entries[-1].seq:
            self._pulls.append(Pull(pull.shard, pull.source, replica.committed.seq, pull.learning))
        else:
            del self._pulling[pull.shard]
        if waiting.token != replica.promised or waiting.link not in self._links:
            return
        if replica.quarantined:
            # it took nothing: told how far it got, the owner would only have it copy the same again, at once
            self._sends.append((waiting.link, Quarantined(pull.shard, waiting.token, replica.quarantined)))
        else:
            self._appended[waiting.link, pull.shard] = Appended(pull.shard, waiting.token, seq)

    def pull_failed(self, pull: Pull) -> None:
        """The source could not be read; the owner will ask again when it sees that nothing comes."""
        if self._waiting_for(pull) is not None:
            del self._pulling[pull.shard]

    def snapshot_wanted(self, pull: Pull, position: Position) -> bool:
        """Whether to copy a snapshot of this position; where the log itself reaches it, the pull goes on from there."""
        replica = self.replicas.get(pull.shard)
        if replica is None or self._waiting_for(pull) is None:
            return False
        if not replica.commit_held(position):
            wanted = not replica.would_lose(position)
            if not wanted:
                del self._pulling[pull.shard]
            return wanted
        if replica.dirty:
            self._dirty[pull.shard] = replica
        self._pulls.append(Pull(pull.shard, pull.source, replica.committed.seq, pull.learning))
        return False

    def install(self, pull: Pull, number: int, position: Position) -> bool:
        """A whole snapshot is staged under ``number``: put it in place. False where it is not wanted any more."""
        if not self.snapshot_wanted(pull, position):
            return False
        replica = self.replicas[pull.shard]
        replica.begin_install(number, position)
        self._dirty[pull.shard] = replica
        return True

    # --- room on the disk ------------------------------------------------------------------------------------------

    def measured(self, load: Load) -> None:
        """What the node reports of itself. While its disk is nearly full it keeps no more log than it must."""
        if load.has_room != self.load.has_room:
            for replica in self.replicas.values():
                if load.has_room:
                    replica.retain_log(self.config.log_retained_bytes, CHECKPOINT_LOG_BYTES_MAX)
                else:
                    replica.retain_log(0, SPARING_CHECKPOINT_BYTES)
                if replica.trimming:
                    self._dirty[replica.shard] = replica
        self.load = load

    # --- output ----------------------------------------------------------------------------------------------------

    def take_sends(self) -> list[Send]:
        """What may be sent at once."""
        sends, self._sends = self._sends, []
        return sends

    def take_batch(self) -> NodeBatch:
        """What must be written, and what may be sent after that. One batch is written at a time, in order."""
        writes = [ShardWrite(shard, erase=True) for shard in self._erased]
        self._erased = []
        for replica in self._dirty.values():
            write = replica.take_write()
            if write is not None:
                writes.append(write)
        self._dirty = {}
        sends, self._sends_after_write = self._sends_after_write, []
        sends += [(link, message) for (link, _), message in self._appended.items()]
        self._appended = {}
        return NodeBatch(writes, sends)

    def written(self, batch: NodeBatch) -> None:
        """The batch is on disk."""
        for write in batch.writes:
            replica = self.replicas.get(write.shard)
            if replica is None:
                continue
            replica.written()
            if write.checkpoint is not None:
                replica.checkpoint_written()
            if write.install is not None and replica.installing and write.install == replica.install_number:
                self._readings.append(Reading(replica, write.install, replica.install_position))

    def take_readings(self) -> list[Reading]:
        readings, self._readings = self._readings, []
        return readings

    def awaited(self, reading: Reading) -> bool:
        """Whether the replica still waits for it: it may have been erased, or be installing another, meanwhile."""
        replica = reading.replica
        current = self.replicas.get(replica.shard) is replica
        return current and replica.installing and replica.install_number == reading.number

    def loaded(self, reading: Reading, machine: Machine) -> None:
        """The snapshot that is in place has been read: the replica goes on from there."""
        if not self.awaited(reading):
            return
        replica = reading.replica
        replica.finish_install(machine)
        waiting = self._pulling.get(replica.shard)
        if waiting is not None:
            self._pulls.append(Pull(replica.shard, waiting.source, replica.committed.seq, waiting.learning))
