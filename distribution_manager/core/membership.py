"""Changes to a shard's record by its owner: a primary out of reach, a replica whose store is new, a set to be healed.

Model: at most one change is under way. A change of the set goes: the newcomer is written down as learner, follows and
catches up; then commits need the quorums of both sets; then the transaction; when its outcome is known, an entry tells
the log of it; when that is committed, the next change may begin, and when a quorum knows that it is, nodes that are not
in the set are told.
Invariants: the transaction compares the record, its mod_revision and its value, which holds the lock as well: who lost
one loses both. A set comes into force only when a quorum of it holds everything committed. Nothing is committed by a
quorum that does not meet every quorum of the set before, unless a quorum of that set has an entry that tells of its
successor; but while too few are in reach for that, it is waited for no longer than SET_TOLD_PATIENCE_MS.
Sources: Ongaro & Ousterhout 2014, section 6; Lamport, Malkhi & Zhou 2009.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import msgspec

from distribution_manager.core import causes
from distribution_manager.core.healing import after, cause_of
from distribution_manager.core.limits import MEMBERSHIP_RETRY_MS, SET_TOLD_PATIENCE_MS
from distribution_manager.core.metadata import Replica, ShardRecord, decode_record, encode_record, record_key
from distribution_manager.core.outsiders import Outsiders
from distribution_manager.core.replica_sets import always_meet
from distribution_manager.core.replication import Replication
from distribution_manager.core.request import Surroundings
from distribution_manager.core.transactions import Compare, KeyValue, Outcome, Put, Transaction
from shadow_nodes.protocol.commands import ShardKey


class Wanted(NamedTuple):
    """A change: the record as it is to be, and why (see causes.py)."""

    record: ShardRecord
    cause: str


class Holder(Protocol):
    """What a change needs of the owner that makes it."""

    shard: ShardKey

    @property
    def replication(self) -> Replication | None: ...

    def promotion_wanted(self) -> tuple[str, str] | None: ...

    def record_changed(self, record: ShardRecord, cause: str) -> None: ...

    def set_changed(self) -> None: ...

    def tick(self) -> None: ...

    def lose(self) -> None: ...


class Membership:
    def __init__(self, holder: Holder, around: Surroundings, record: ShardRecord, revision: int) -> None:
        self.record = record
        self.revision = revision
        self._value = encode_record(record)
        """Of the record as etcd had it last, with this revision."""
        self._holder = holder
        self._around = around
        self._wanted: Wanted | None = None
        self._planned: tuple[str, int, str] | None = None
        self._asked_ms = -MEMBERSHIP_RETRY_MS
        self._asking = False
        self._telling_seq = 0
        """The entry that tells the log of the record, while that is waited for; 0: nothing is."""
        self._told_until_ms = 0
        self._told_seq = 0
        """The entry that tells the log of the record, or told it."""
        self._known_seq = 0
        """Whoever holds this entry knows, also after a restart, that the log tells of the record; 0: not chosen yet."""
        self._awaited_seq = 0
        """There is something to be done when this entry is committed; 0: nothing."""
        self._former: tuple[Replica, ...] = ()
        """The set before, while commits need its quorum as well."""
        self.outsiders = Outsiders(holder.shard, around)

    @property
    def busy(self) -> bool:
        return self._wanted is not None or self._telling_seq > 0

    def give_up(self) -> None:
        """The shard is lost: whatever is under way changes nothing here any more."""
        self._wanted = None

    # --- telling the log -------------------------------------------------------------------------------------------

    def tell(self, seq: int, former: tuple[Replica, ...]) -> None:
        """The entry ``seq`` will tell the log of the record. ``former``: the set before it; () where that is not known.

        The record's set counts from now on; where a quorum of it might pass one of the former by, both do until then.
        """
        replication = self._holder.replication
        assert replication is not None
        self._telling_seq = self._told_seq = self._awaited_seq = seq
        self._known_seq = 0
        self._told_until_ms = self._around.now.monotonic_ms + SET_TOLD_PATIENCE_MS
        self._former = () if always_meet(former, self.record.replicas) else former
        replication.set_voters(*([self._former] if self._former else []), self.record.replicas)

    def awaits(self, commit_seq: int) -> bool:
        """Whether there is something to be done now that this is committed."""
        return 0 < self._awaited_seq <= commit_seq

    def go_on(self) -> None:
        """Once the log tells of the record, its set alone counts."""
        replication = self._holder.replication
        assert replication is not None
        if self.awaits(replication.commit_seq):
            self._awaited_seq = 0
        if not self._telling_seq:
            return
        if replication.commit_seq < self._telling_seq and self._around.now.monotonic_ms < self._told_until_ms:
            self._around.wake(self._holder.shard, self._told_until_ms)
            return
        self._telling_seq = 0
        replication.tell_commit_to_all()  # soon, so that few can die without knowing their set
        if self._former:
            self._former = ()
            replication.set_voters(self.record.replicas)
        self.outsiders.see_to(self.record, replication)
        self._holder.set_changed()

    def _is_known(self, replication: Replication) -> bool:
        """Whether a quorum knows, and has on disk, that the log tells of the record. That the entry is committed only
        we may know so far; with the next one replicas are told, and write it down."""
        if not self._known_seq and replication.commit_seq >= self._told_seq:
            self._known_seq = self._awaited_seq = replication.last.seq + 1
            self._holder.tick()
        return 0 < self._known_seq <= replication.commit_seq

    # --- changes ---------------------------------------------------------------------------------------------------

    def attend(self) -> None:
        """Begins a change if one is due, or asks again about one whose outcome is unknown."""
        now_ms = self._around.now.monotonic_ms
        if self._asking or self._telling_seq:
            return
        if self._wanted is not None:
            if now_ms - self._asked_ms >= MEMBERSHIP_RETRY_MS:
                self._read_again()
            return
        assert self._holder.replication is not None
        self.outsiders.see_to(self.record, self._holder.replication)
        outsiders = self.outsiders.to_retire(self.record)
        if outsiders and self._is_known(self._holder.replication):
            self.outsiders.retire(outsiders, self.record)
        older = self._older_record()
        wanted = (
            (Wanted(self.record, causes.RESTORED) if older else None)
            or self._with_new_stores()
            or self._with_new_primary()
            or self._with_next_step()
        )
        if wanted is None:
            return
        if now_ms - self._asked_ms >= MEMBERSHIP_RETRY_MS:
            if older is not None:
                self.revision, self._value = older[1], encode_record(older[0])
            self._begin(wanted)
        else:
            self._around.wake(self._holder.shard, self._asked_ms + MEMBERSHIP_RETRY_MS)

    def _older_record(self) -> tuple[ShardRecord, int] | None:
        """Another record that etcd has, of ours or of an owner before us, with its mod_revision: a later one has a
        greater epoch. So etcd was restored from a backup, and our record is to be put over it."""
        record, revision = self._around.record(self._holder.shard) or (self.record, self.revision)
        return None if record == self.record or record.epoch > self.record.epoch else (record, revision)

    # --- the set ---------------------------------------------------------------------------------------------------

    def _with_new_stores(self) -> Wanted | None:
        """A replica whose node has a store of another incarnation is replaced by that, once it has caught up."""
        replication = self._holder.replication
        assert replication is not None
        for replica in self.record.replicas:
            incarnation = self._around.incarnation(replica.node)
            if incarnation is None or incarnation == replica.incarnation:
                continue
            follower = replication.followers[replica.node]
            caught_up = replication.keeps_up(replica.node) and follower.matched >= replication.commit_seq
            if follower.incarnation == incarnation and caught_up:
                newcomer = Replica(node=replica.node, incarnation=incarnation)
                replicas = tuple(newcomer if item == replica else item for item in self.record.replicas)
                record = msgspec.structs.replace(self.record, replicas=replicas, version=self.record.version + 1)
                return Wanted(record, causes.NEW_STORE)
            self._around.wake(self._holder.shard, self._around.now.monotonic_ms + MEMBERSHIP_RETRY_MS)
        return None

    def _with_next_step(self) -> Wanted | None:
        replication = self._holder.replication
        assert replication is not None
        well = frozenset(
            node
            for node, follower in replication.followers.items()
            if replication.keeps_up(node)
            and follower.matched >= replication.commit_seq
            and follower.incarnation == self._around.incarnation(node)
        )
        step = self._around.next_step(self._holder.shard, self.record, well, self.outsiders.retiring)
        if step is None:
            return None
        record = after(step, self.record, self._around.incarnation(self.record.learner) or "")
        if replication.holds(record.replicas):
            return Wanted(record, cause_of(step))
        self._around.wake(self._holder.shard, self._around.now.monotonic_ms + MEMBERSHIP_RETRY_MS)
        return None

    # --- the primary -----------------------------------------------------------------------------------------------

    def want_primary(self, node: str, until_ms: int, cause: str) -> None:
        """A planned promotion, of a node of the set."""
        self._planned = (node, until_ms, cause)

    def _with_new_primary(self) -> Wanted | None:
        found = self._planned_primary() or self._holder.promotion_wanted()
        if found is None:
            return None
        node, cause = found
        promoted_ms = self._around.now.clock_ms
        return Wanted(
            msgspec.structs.replace(self.record, primary=node, promoted_ms=promoted_ms, promoted_for=cause), cause
        )

    def _planned_primary(self) -> tuple[str, str] | None:
        """No promotion to a replica that lags: it is waited for, for a while."""
        if self._planned is None:
            return None
        node, until_ms, cause = self._planned
        now_ms = self._around.now.monotonic_ms
        if now_ms >= until_ms or node == self.record.primary:
            self._planned = None
            return None
        replication = self._holder.replication
        assert replication is not None
        if any(follower.node == node for follower in replication.current_voters()):
            return node, cause
        self._around.wake(self._holder.shard, now_ms + MEMBERSHIP_RETRY_MS)
        return None

    # --- the transaction -------------------------------------------------------------------------------------------

    def _begin(self, wanted: Wanted) -> None:
        replication = self._holder.replication
        assert replication is not None
        self._wanted = wanted
        if wanted.record.replicas != self.record.replicas:
            replication.set_voters(self.record.replicas, wanted.record.replicas)
        self._asked_ms = self._around.now.monotonic_ms
        self._asking = True
        key = record_key(self._holder.shard)
        self._around.transact(
            Transaction([Compare(key, self.revision, self._value)], [Put(key, encode_record(wanted.record))], [key]),
            self._answered,
        )

    def _read_again(self) -> None:
        self._asking = True
        self._asked_ms = self._around.now.monotonic_ms
        self._around.transact(Transaction([], [], [record_key(self._holder.shard)]), self._answered)

    def _answered(self, outcome: Outcome | None) -> None:
        """Whatever was asked, the record as found says what is so. Unknown: both sets' quorums stay needed."""
        self._asking = False
        if outcome is None or self._wanted is None:
            self._around.wake(self._holder.shard, self._around.now.monotonic_ms + MEMBERSHIP_RETRY_MS)
            return
        found = outcome.found.get(record_key(self._holder.shard))
        if found is None:
            self._holder.lose()
            return
        record = decode_record(ShardRecord, found.key, found.value)
        if found.mod_revision == self.revision and (found.value == self._value or record == self.record):
            # an unchanged record after an unknown outcome may still be changed by the transaction on its way: it is
            # asked for again, with the same comparison, until the record has changed
            self._value = found.value
            self._begin(self._wanted)
        elif record in (self.record, self._wanted.record):
            self._settle(record, found, succeeded=outcome.succeeded)
        elif record.epoch > self.record.epoch:
            self._holder.lose()
        else:
            self.revision, self._value = found.mod_revision, found.value
            self._begin(Wanted(self.record, causes.RESTORED))

    def _settle(self, record: ShardRecord, found: KeyValue, *, succeeded: bool) -> None:
        """The record is what it is, and ours. The next entry tells the log of it."""
        replication = self._holder.replication
        assert replication is not None
        cause = "" if self._wanted is None else self._wanted.cause
        former = self.record.replicas
        if cause == causes.RESTORED and succeeded:
            self._around.put_back(self._holder.shard)
        self.record, self.revision, self._value, self._wanted = record, found.mod_revision, found.value, None
        self.tell(replication.last.seq + 1, former)
        self._holder.record_changed(record, cause)
