"""Becoming a shard's owner: lock, fence, choose, copy.

Model: a linear procedure; each step begins by asking and ends by an answer. ``step`` says where it is.

    LOCK   -> the transaction that raises the epoch and names us; unknown outcome: read again, a new epoch
    FENCE  -> Fence to every replica; a quorum's answers
    FETCH  -> the greatest log's tail, from the replica that has it
    DONE   -> the caller replicates an opening entry and serves when that is committed

Whenever a replica, or the chosen log, knows of a newer replica set than the record, etcd was restored from a backup:
the record is put right, with the lock taken anew, and the set that it names then is fenced (replica_sets.py).

Invariant: no epoch is used that this process did not see itself win; no log is chosen before a quorum has promised, nor
one that tells of a newer set than the one it was chosen from.
Sources: Lamport, Malkhi & Zhou 2009 (Vertical Paxos); Ongaro & Ousterhout 2014, section 5.4.
"""

from __future__ import annotations

import enum

import msgspec

from distribution_manager.core.clocks import CLOCKS_MIN, View, agreed_offset
from distribution_manager.core.limits import TAKEOVER_RETRY_MS
from distribution_manager.core.metadata import Owner, Replica, ShardRecord, decode_record, encode_record, record_key
from distribution_manager.core.replica_sets import members_of, put_right
from distribution_manager.core.replication import WindowEntry, quorum
from distribution_manager.core.request import Surroundings
from distribution_manager.core.transactions import ABSENT, Compare, KeyValue, Outcome, Put, Transaction
from shadow_nodes.protocol.commands import NO_REPLICA_SET, Note, Open, ReplicaSet, ShardKey, decode_entry
from shadow_nodes.protocol.limits import CLOCK_SKEW_MAX_MS
from shadow_nodes.protocol.messages import LOG_START, Fence, Fenced, Fetch, Log, Position, Stale


class Step(enum.Enum):
    LOCK = "lock"
    FENCE = "fence"
    FETCH = "fetch"
    DONE = "done"
    LOST = "lost"


FETCH_ENTRIES_MAX = 2_000
"""A replica further behind the chosen log's commit than this copies from another node instead."""


class Takeover:
    """``record`` and ``revision``: the shard's record as last read, and the mod_revision to compare with. Its value is
    compared too, as it is in etcd: people and other versions may have written it otherwise than we would."""

    def __init__(
        self, shard: ShardKey, me: Owner, around: Surroundings, record: ShardRecord, revision: int, *, granted: bool
    ) -> None:
        """``granted``: the record's epoch is already ours, by a transaction that this process saw succeed."""
        self.shard = shard
        self.record = record
        self.revision = revision
        self.step = Step.LOCK
        self.fenced: dict[str, Fenced] = {}
        self.base: Position = LOG_START
        self.entries: list[WindowEntry] = []
        self.began_ms = around.now.monotonic_ms
        self._value = encode_record(record)
        self._me = me
        self._around = around
        self._epoch_floor = 0
        self._clock_views: dict[str, View] = {}
        self._fence_asked_ms: dict[str, int] = {}
        """When each replica was first asked to promise the token."""
        self._floor_ms = 0
        self._asked_ms = 0
        self._asking = False
        self._best = ""
        self._logged = NO_REPLICA_SET
        """The newest that the chosen log tells of, as far as it has been read."""
        if granted:
            self._begin_fence()
        else:
            self._begin_lock()

    # --- lock ------------------------------------------------------------------------------------------------------

    def _begin_lock(self) -> None:
        self.step = Step.LOCK
        self._asked_ms = self._around.now.monotonic_ms
        self._asking = True
        wanted = msgspec.structs.replace(
            self.record,
            epoch=max(self.record.epoch, self._epoch_floor) + 1,
            attempt=self._around.random_bits(),
            owner=self._me,
        )
        key = record_key(self.shard)
        self._around.transact(
            Transaction([Compare(key, self.revision, self._value)], [Put(key, encode_record(wanted))], [key]),
            lambda outcome: self._locked(wanted, outcome),
        )

    def _locked(self, wanted: ShardRecord, outcome: Outcome | None) -> None:
        self._asking = False
        if self.step is not Step.LOCK:
            return
        if outcome is not None and outcome.succeeded:
            self.record, self.revision, self._value = wanted, outcome.revision, encode_record(wanted)
            self._fence_asked_ms = {}
            self._begin_fence()
            return
        if outcome is None:
            self._read_again()
            return
        self._refused(outcome.found.get(record_key(self.shard)))

    def _read_again(self) -> None:
        """The outcome is unknown. The record says who has the lock; if it is us, by luck, we still take a new epoch."""
        self._asking = True
        self._asked_ms = self._around.now.monotonic_ms
        self._around.transact(Transaction([], [], [record_key(self.shard)]), self._was_read)

    def _was_read(self, outcome: Outcome | None) -> None:
        self._asking = False
        if self.step is not Step.LOCK or outcome is None:
            return
        self._refused(outcome.found.get(record_key(self.shard)))

    def _refused(self, found: KeyValue | None) -> None:
        """Somebody changed the record. If only the set changed, or it is ours already, go on from what it is now."""
        if found is None or found.mod_revision == ABSENT:
            self.step = Step.LOST
            return
        record = decode_record(ShardRecord, found.key, found.value)
        ours = record.owner in {self.record.owner, self._me}
        self.record, self.revision, self._value = record, found.mod_revision, found.value
        if ours:
            self._begin_lock()
        else:
            self.step = Step.LOST
            self._around.wake(self.shard, self._around.now.monotonic_ms)

    # --- fence -----------------------------------------------------------------------------------------------------

    def _begin_fence(self) -> None:
        self.step = Step.FENCE
        self.fenced = {}
        self._asked_ms = self._around.now.monotonic_ms
        for replica in self.record.replicas:
            self.link_up(replica.node)

    def link_up(self, node: str) -> None:
        if self.step is Step.FENCE and any(replica.node == node for replica in self.record.replicas):
            if self._around.linked(node):
                self._fence_asked_ms.setdefault(node, self._around.now.monotonic_ms)
            self._around.send(node, Fence(self.shard, self.record.token))
        elif self.step is Step.FETCH and node == self._best:
            self._fetch()

    def on_fenced(self, node: str, message: Fenced) -> None:
        """An answer counts where the store is the one in the set: another has forgotten what it promised.

        Nor does a tombstone's count: no record names one in its set, unless etcd was restored from a backup of before
        it left. What was committed since is elsewhere, and the shard stays without an owner until one of the set is
        there that knows of a newer one, or people have put that back.
        """
        if self.step not in {Step.FENCE, Step.FETCH} or message.token != self.record.token:
            return
        if self._put_right(message.replica_set):
            return
        if self.step is Step.FETCH and node == self._best and not _same_log(message, self.fenced[node]):
            self._begin_fence()  # the chosen log is gone with its store
            return
        self.fenced[node] = message
        now_ms = self._around.now.monotonic_ms
        asked_ms = self._fence_asked_ms.get(node, now_ms)
        self._clock_views[node] = self._around.clock_view(node, message.clock_ms, asked_ms)
        if self.step is Step.FENCE and self._has_quorum() and (self._clocks_agree() or not self._awaited()):
            self._choose()

    def _put_right(self, known: ReplicaSet) -> bool:
        """Where the record says less than is known it was set back: goes on from what is known, under a new epoch."""
        record = put_right(self.record, known)
        if record is self.record:
            return False
        self.record = record
        self._around.put_back(self.shard)
        self._begin_lock()
        return True

    @property
    def former(self) -> tuple[Replica, ...]:
        """The set before the record's, where the log does not tell of that yet: whoever changed it died meanwhile."""
        return members_of(self._logged) if self._logged.version < self.record.version else ()

    def _has_quorum(self) -> bool:
        return len(self._votes()) >= quorum(len(self.record.replicas))

    def _awaited(self) -> bool:
        """Whether a replica in reach has not answered."""
        return any(item.node not in self.fenced and self._around.linked(item.node) for item in self.record.replicas)

    def _clocks_agree(self) -> bool:
        """Where they do not, more of them must be heard: ours and that of the nearest node may be wrong alike."""
        own_ms = self._own_offset_ms()
        least = min([greatest for _, greatest in self._clock_views.values()], default=own_ms)
        greatest = max([least for least, _ in self._clock_views.values()], default=own_ms)
        return max(greatest, own_ms) - min(least, own_ms) <= CLOCK_SKEW_MAX_MS

    def _votes(self) -> dict[str, Fenced]:
        incarnations = {replica.node: replica.incarnation for replica in self.record.replicas}
        return {
            node: answer
            for node, answer in self.fenced.items()
            if incarnations.get(node) == answer.incarnation and not answer.retired
        }

    def on_stale(self, message: Stale) -> None:
        """A replica has promised as much or more. Either somebody is after us, as the record will say, or etcd was set
        back and gave an epoch out again. One that has promised less has forgotten what it answered: another is chosen.
        """
        if self.step is Step.LOST or message.token != self.record.token:
            return
        if message.promised.epoch >= self.record.epoch:
            self._epoch_floor = max(self._epoch_floor, message.promised.epoch)
            self.step = Step.LOCK
            if not self._asking:
                self._read_again()
        elif self.step is Step.FETCH:
            self._begin_fence()

    # --- fetch -----------------------------------------------------------------------------------------------------

    def _choose(self) -> None:
        """Any quorum will do. Best one without entries from the future: those can be in no other quorum's logs, and
        what follows them would be refused until that time has come."""
        votes = self._votes()
        latest_ms = self._around.now.monotonic_ms + self.clock_offset_ms() + CLOCK_SKEW_MAX_MS
        timely = {node: vote for node, vote in votes.items() if vote.time_ms <= latest_ms}
        if len(timely) >= quorum(len(self.record.replicas)):
            votes = timely
        self._floor_ms = max(vote.time_ms for vote in votes.values())
        self._best = max(votes, key=lambda node: (votes[node].last, node))
        best = votes[self._best]
        self._logged = best.replica_set
        behind = min(vote.committed.seq for vote in votes.values())
        if best.last.seq - behind > FETCH_ENTRIES_MAX:
            behind = best.committed.seq
        self.base = next(vote.committed for vote in votes.values() if vote.committed.seq == behind)
        self.entries = []
        self.step = Step.FETCH
        self._fetch_or_done()

    @property
    def _fetched(self) -> Position:
        return self.entries[-1].position if self.entries else self.base

    def _fetch_or_done(self) -> None:
        last = self.fenced[self._best].last
        if self._fetched.seq < last.seq:
            self._fetch()
            return
        assert self._fetched == last, f"shard {self.shard}: fetched {self._fetched}, {self._best} said {last}"
        if not self._put_right(self._logged):
            self.step = Step.DONE

    def _fetch(self) -> None:
        self._asked_ms = self._around.now.monotonic_ms
        self._around.send(self._best, Fetch(self.shard, self.record.token, self._fetched.seq))

    def on_log(self, node: str, message: Log) -> None:
        if self.step is not Step.FETCH or node != self._best or message.token != self.record.token:
            return
        if message.after_seq != self._fetched.seq:
            return
        if not message.available:
            self.base, self.entries = self.fenced[self._best].committed, []
        last = self.fenced[self._best].last
        for data in message.entries:
            entry = decode_entry(data)
            if entry.seq <= last.seq:
                self.entries.append(WindowEntry(Position(entry.epoch, entry.seq), data))
                for operation in entry.operations:
                    if isinstance(operation.command, Open | Note) and operation.command.replica_set.version:
                        self._logged = operation.command.replica_set
        self._fetch_or_done()

    # --- time ------------------------------------------------------------------------------------------------------

    def retry(self) -> None:
        """Asks again where an answer has not come in time. With the best replica gone, chooses anew."""
        nodes = [self._best] if self.step is Step.FETCH else [replica.node for replica in self.record.replicas]
        bound_ms = max((self._around.patience_ms(node, TAKEOVER_RETRY_MS) for node in nodes), default=TAKEOVER_RETRY_MS)
        if self._asking or self._around.now.monotonic_ms - self._asked_ms < bound_ms:
            return
        if self.step is Step.LOCK:
            self._read_again()
        elif self.step is Step.FENCE and self._has_quorum():
            self._choose()
        elif self.step is Step.FENCE:
            self._asked_ms = self._around.now.monotonic_ms
            for replica in self.record.replicas:
                self.link_up(replica.node)
        elif self.step is Step.FETCH:
            if self._around.linked(self._best):
                self._fetch()
            else:
                self._begin_fence()

    def clock_offset_ms(self) -> int:
        """What to add to our monotonic clock to have Unix time: what most of the replicas' clocks allow.

        Where those are fewer than three, most of all clocks that we know, our own among them: it may well be wrong
        together with that of our region's node. One that is far behind the log itself is not asked.
        """
        own_ms = self._own_offset_ms()
        views = dict(self._clock_views)
        if len(views) < CLOCKS_MIN:
            views = {**self._around.clock_views(), **views, "": (own_ms, own_ms)}
        least_ms = self._floor_ms - self._around.now.monotonic_ms - CLOCK_SKEW_MAX_MS
        timely = {node: view for node, view in views.items() if view[1] >= least_ms}
        return agreed_offset(list((timely or views).values()), own_ms)

    def _own_offset_ms(self) -> int:
        return self._around.now.clock_ms - self._around.now.monotonic_ms

    def time_floor_ms(self) -> int:
        """No entry may be stamped before this: the newest of the logs that were chosen from."""
        return self._floor_ms


def _same_log(one: Fenced, other: Fenced) -> bool:
    return (one.incarnation, one.last) == (other.incarnation, other.last)
