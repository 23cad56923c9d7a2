"""What the simulation sees that no client can: every replica's log, every commit, every store.

Model: the production classes are subclassed, so that whatever they apply and commit is told to the run's ``Watch`` as
it happens. Invariants checked here: an entry that is applied anywhere is the same everywhere and was committed by an
owner before; a promise that was told outlives a crash; two owners never commit different entries at one place; what is
committed is on a quorum's disks, of the set in etcd as well as of those that the owner counts; who joins a set holds
what is committed, and no member is told to retire; no receive is answered empty past messages that stay; machines with
the same log have the same digest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import distribution_manager.core.owner as owner_module
import shadow_nodes.core.node as node_module
from distribution_manager.core.membership import Membership, Wanted
from distribution_manager.core.metadata import Replica as ReplicaName
from distribution_manager.core.metadata import ShardRecord, decode_record, record_key
from distribution_manager.core.replication import Replication, quorum
from shadow_nodes.core.machine import Machine
from shadow_nodes.core.replica import Replica, Results
from shadow_nodes.protocol.audit import LogPage
from shadow_nodes.protocol.commands import (
    Accept,
    Configure,
    Entry,
    Note,
    Open,
    Send,
    Settle,
    ShardKey,
    decode_entry,
)
from shadow_nodes.protocol.messages import NO_TOKEN, Appended, Fenced, Retired, Token, ToManager
from shadow_nodes.storage.memory import MemoryStore

if TYPE_CHECKING:
    from tests.simulation.node_process import NodeProcess
    from tests.simulation.world import World

DIGEST_EVERY = 40
DIGEST_MESSAGES_MAX = 60
"""A digest reads everything: of larger states it is only taken now and then."""
VIOLATIONS_MAX = 20
GROWING = Send | Accept | Open | Configure | Note | Settle
"""Commands that leave ready messages where they are."""


class Watch:
    current: ClassVar[Watch | None] = None

    def __init__(self, world: World) -> None:
        self.world = world
        self.violations: list[tuple[str, str]] = []
        self.applied: dict[ShardKey, dict[int, Entry]] = {}
        self.commits: dict[ShardKey, int] = {}
        self.committed: dict[ShardKey, dict[int, bytes]] = {}
        self.digests: dict[tuple[ShardKey, int], str] = {}
        self.told: dict[tuple[str, ShardKey], Token] = {}
        """The greatest token that each store has promised."""
        self.said: dict[tuple[str, ShardKey, Token], int] = {}
        """How far each store has said that it holds the log of an owner."""
        self.entries = 0
        self.snapshots = 0
        self.digests_checked = 0

    def violation(self, check: str, text: str) -> None:
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append((check, f"{self.world.loop.now_us / 1e6:.6f}s {text}"))

    # --- replicas --------------------------------------------------------------------------------------------------

    def on_applied(self, replica: Replica, entry: Entry) -> None:
        shard, seq = replica.shard, entry.seq
        if self.world.buried(shard):
            return
        entries = self.applied.setdefault(shard, {})
        known = entries.get(seq)
        if known is None:
            entries[seq] = entry
            self.entries += 1
            if seq > self.commits.get(shard, 0):
                self.violation("uncommitted", f"{shard}: entry {seq} applied, commits end at {self.commits.get(shard)}")
        elif known != entry:
            self.violation("agreement", f"{shard}: two entries {seq} applied: epochs {known.epoch} and {entry.epoch}")
        if seq % DIGEST_EVERY == 0 and replica.committed.seq == seq:
            self.check_digest(replica)

    def check_digest(self, replica: Replica) -> None:
        if self.world.buried(replica.shard):
            return
        if replica.quarantined:
            self.violation("quarantine", f"{replica.shard}: {replica.quarantined}")
            return
        if isinstance(replica._store, MemoryStore) and replica._store.damaged:
            return  # to read everything would find what nothing else has come upon yet
        if replica.machine.messages() > DIGEST_MESSAGES_MAX and replica.committed.seq % DIGEST_EVERY:
            return
        self.digests_checked += 1
        key = (replica.shard, replica.committed.seq)
        digest = replica.machine.digest()
        if self.digests.setdefault(key, digest) != digest:
            self.violation("digest", f"{replica.shard}: digests differ at {replica.committed.seq}")

    def page_read(self, shard: ShardKey, page: LogPage) -> None:
        """What the operation log shows has been applied."""
        known = self.applied.get(shard, {})
        for data in page.entries:
            entry = decode_entry(data)
            if known.get(entry.seq) != entry and not self.world.buried(shard):
                self.violation("agreement", f"{shard}: the operation log has another entry {entry.seq}")

    def node_told(self, node: NodeProcess, message: ToManager) -> None:
        """What a node has said of itself must be true of it after any crash."""
        if isinstance(message, Fenced | Appended | Retired):
            name = (node.incarnation, message.shard)
            before = self.told.get(name, message.token)
            self.told[name] = max(message.token, before)
            stale = message.token < before and not isinstance(message, Appended)  # those may be told a little late
            if stale and not self.world.buried(message.shard):
                self.violation("promise", f"{node.name} has promised {before}, and now {message.token}")
            self._told_what_it_holds(node, message)

    def _told_what_it_holds(self, node: NodeProcess, message: Fenced | Appended | Retired) -> None:
        shard, token = message.shard, message.token
        if not isinstance(message, Retired):
            seq = message.seq if isinstance(message, Appended) else message.last.seq
            name = (node.incarnation, shard, token)
            self.said[name] = max(seq, self.said.get(name, 0))
            return
        record = self.record(shard)
        replica = ReplicaName(node=node.name, incarnation=node.incarnation)
        member = record is not None and record.token == token and replica in record.replicas
        if member and not self.world.faults.set_back():
            self.violation("retired", f"{shard}: {node.name} has retired under {token}, and is of the set")

    def record(self, shard: ShardKey) -> ShardRecord | None:
        """As etcd has it."""
        item = self.world.cluster._items.get(record_key(shard))
        return None if item is None else decode_record(ShardRecord, item.key, item.value)

    def node_started(self, node: NodeProcess) -> None:
        assert node.core is not None
        for replica in node.core.replicas.values():
            self.check_digest(replica)
        for (incarnation, shard), told in self.told.items():
            if incarnation == node.incarnation and not self.world.buried(shard):
                replica_held = node.core.replicas.get(shard)
                promised = NO_TOKEN if replica_held is None else replica_held.promised
                if promised < told:
                    self.violation("promise", f"{node.name} has promised {told} and remembers {promised}")

    # --- empty answers ---------------------------------------------------------------------------------------------

    def ready(self, shard: ShardKey) -> tuple[int, int]:
        """(seq, messages that may be received), as of the last entry that any replica has applied."""
        replicas = [node.core.replicas.get(shard) for node in self.world.node_list if node.core is not None]
        applied = [item for item in replicas if item is not None and not (item.installing or item.quarantined)]
        if not applied:
            return 0, 0
        newest = max(applied, key=lambda replica: replica.committed.seq)
        return newest.committed.seq, newest.machine.summary(newest.machine.now_ms).ready

    def empty_answer(self, shard: ShardKey, since: tuple[int, int]) -> None:
        """A receive was answered empty: ``since`` is what was ready when it came."""
        seq, ready = since
        entries = self.applied.get(shard, {})
        after = [entries[number] for number in range(seq + 1, max(entries, default=0) + 1) if number in entries]
        kept = all(isinstance(item.command, GROWING) for entry in after for item in entry.operations)
        if ready and kept and not self.world.history.may_fall_short and not self.world.buried(shard):
            self.violation("empty", f"{shard}: {ready} messages were there since entry {seq}, and nobody took them")

    # --- owners ----------------------------------------------------------------------------------------------------

    def on_commit(self, replication: Replication, before: int) -> None:
        shard, seq = replication.shard, replication.commit_seq
        if self.world.buried(shard):
            return
        committed = self.committed.setdefault(shard, {})
        self.commits[shard] = max(seq, self.commits.get(shard, 0))
        for item in replication.window:
            place = item.position.seq
            if place > seq:
                break
            if place > before:
                known = committed.setdefault(place, item.data)
                if known is not item.data and known != item.data:
                    epochs = decode_entry(known).epoch, item.position.epoch
                    self.violation("owners", f"{shard}: epochs {epochs} both committed an entry {place}")
        record = self.record(shard)
        ours = record is not None and record.token == replication.token and not self.world.faults.set_back()
        in_force = [record.replicas] if record is not None and ours else []
        for voters in {*replication.voter_sets, *in_force}:
            self._check_held(replication, voters)

    def on_change(self, replication: Replication, before: ShardRecord, after: ShardRecord) -> None:
        """An owner asks etcd for another set: who is to join it must hold everything committed, as it is now."""
        shard, seq = replication.shard, replication.commit_seq
        for newcomer in set(after.replicas) - set(before.replicas):
            node = self.world.nodes[newcomer.node]
            if node.corrupted or node.lost or node.incarnation != newcomer.incarnation or self.world.buried(shard):
                continue
            state = node.store._shards.get(shard)
            promised, last_seq = (NO_TOKEN, 0) if state is None else (state.record.promised, state.record.last.seq)
            replica = None if node.core is None else node.core.replicas.get(shard)
            if replica is not None:
                promised, last_seq = max(promised, replica.promised), min(last_seq, replica.last.seq)
            if last_seq < seq and promised <= replication.token:
                self.violation("admission", f"{shard}: {node.name} joins with {last_seq} of {seq} entries")

    def _check_held(self, replication: Replication, voters: tuple[ReplicaName, ...]) -> None:
        shard, seq = replication.shard, replication.commit_seq
        held = 0
        for voter in voters:
            node = self.world.nodes[voter.node]
            if node.corrupted or node.lost or node.incarnation != voter.incarnation:
                held += self.said.get((voter.incarnation, shard, replication.token), 0) >= seq  # what it did hold
                continue
            state = node.store._shards.get(shard)
            if state is not None and state.record.retired and state.record.promised > replication.token:
                held += 1  # it did when it said so; a later owner has let it go, and this one hears of it late
                continue
            if state is None or state.record.last.seq < seq:
                continue
            if seq <= state.record.log_start.seq or state.position_at(seq).epoch == replication.token.epoch:
                held += 1
        if held < quorum(len(voters)):
            self.violation("durability", f"{shard}: entry {seq} is committed, and on {held} of {len(voters)} disks")


class WatchedReplica(Replica):
    def _advance(self, seq: int, results: Results | None) -> None:
        before = self.committed.seq
        if seq <= before:
            return
        entries = [self._tail[number].entry for number in range(before + 1, seq + 1)]
        super()._advance(seq, results)
        watch = Watch.current
        assert watch is not None
        if self.quarantined:
            watch.violation("quarantine", f"{self.shard}: {self.quarantined}")
        for entry in entries[: self.committed.seq - before]:
            watch.on_applied(self, entry)

    def _make_checkpoint(self) -> None:
        super()._make_checkpoint()
        if Watch.current is not None:
            Watch.current.check_digest(self)

    def finish_install(self, machine: Machine) -> None:
        super().finish_install(machine)
        if Watch.current is not None:
            Watch.current.check_digest(self)


class WatchedReplication(Replication):
    def advance(self) -> bool:
        before = self.commit_seq
        window = list(self.window) if Watch.current is not None else []
        advanced = super().advance()
        if advanced and Watch.current is not None:
            # what was trimmed just now has been committed just now
            kept, self.window = self.window, window  # type: ignore[assignment]
            Watch.current.on_commit(self, before)
            self.window = kept
        return advanced


class WatchedMembership(Membership):
    def _begin(self, wanted: Wanted) -> None:
        replication = self._holder.replication
        if not self.busy and replication is not None and Watch.current is not None:
            Watch.current.on_change(replication, self.record, wanted.record)
        super()._begin(wanted)


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    places: list[tuple[Any, str, Any]] = [
        (node_module, "Replica", WatchedReplica),
        (owner_module, "Replication", WatchedReplication),
        (owner_module, "Membership", WatchedMembership),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in places]
    for module, name, value in places:
        setattr(module, name, value)
    Watch.current = watch
    try:
        yield
    finally:
        Watch.current = None
        for module, name, value in before:
            setattr(module, name, value)
