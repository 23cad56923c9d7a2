"""A shard's owner: from the taking of its lock to the loss of it.

Model: TAKING (see takeover.py) -> OPENING (its first entry is on the way) -> SERVING -> LOST. While SERVING, a request
is with the desk (a receive that waits), the sequencer, the results or the confirmation; they do the work, this joins.
Invariants: nothing is answered before a quorum holds it under this epoch; no request is forgotten: losing the shard
hands every one back, to be repeated under its id.
"""

from __future__ import annotations

import enum
from math import inf

from distribution_manager.core.attributes import settings_of
from distribution_manager.core.confirmation import Confirmation
from distribution_manager.core.demand import Demand
from distribution_manager.core.desk import ReceiveDesk
from distribution_manager.core.limits import (
    CLOCK_PATIENCE_MS,
    COMMIT_NOTICE_MS,
    ENTRY_PACE_MS,
    LETTERS_PAUSE_MS,
    LETTERS_PER_ACCEPT_MAX,
    LETTERS_RETRY_MS,
    OPERATIONS_WAITING_MAX,
    PROMOTE_AFTER_MS,
    RESULT_BOUND_MS,
    TAKEOVER_RETRY_MS,
)
from distribution_manager.core.load import AckLatencies
from distribution_manager.core.membership import Membership
from distribution_manager.core.messages import Verdict
from distribution_manager.core.metadata import Owner, ShardRecord
from distribution_manager.core.replica_sets import told
from distribution_manager.core.replication import Replication, quorum
from distribution_manager.core.request import Request, Surroundings
from distribution_manager.core.results import Results
from distribution_manager.core.sequencer import Sequencer, UnderWay
from distribution_manager.core.takeover import Step, Takeover
from shadow_nodes.protocol.commands import (
    Accept,
    Batch,
    Command,
    Configure,
    Delete,
    Note,
    Open,
    Purge,
    Receive,
    Refusal,
    Refused,
    Seal,
    Send,
    Settings,
    Settle,
    ShardKey,
    Summary,
    Tick,
)
from shadow_nodes.protocol.messages import (
    Answered,
    Appended,
    Applied,
    ClockRefused,
    Fenced,
    Gap,
    Log,
    NoRoom,
    Quarantined,
    Retired,
    Stale,
)


class Phase(enum.Enum):
    TAKING = "taking"
    OPENING = "opening"
    SERVING = "serving"
    LOST = "lost"


class ShardOwner:
    """``record`` is the shard's as this owner last knew it. ``took_ms``: how long it took to serve. ``demand``: by whom
    it is used."""

    def __init__(
        self,
        shard: ShardKey,
        me: Owner,
        around: Surroundings,
        record: ShardRecord,
        revision: int,
        *,
        granted: bool,
        cause: str = "",
    ) -> None:
        self.shard = shard
        self.phase = Phase.TAKING
        self.record = record
        self.took_ms = 0
        self.demand = Demand(around.now.monotonic_ms)
        self.ack_latencies: AckLatencies | None = None
        """Of whoever wants to know them: see load.py."""
        self._me = me
        self._cause = cause
        self._around = around
        self._takeover: Takeover | None = Takeover(shard, me, around, record, revision, granted=granted)
        self._replication: Replication | None = None
        self._results: Results | None = None
        self._membership: Membership | None = None
        self._sequencer = Sequencer(around)
        self._desk = ReceiveDesk()
        self._confirmation = Confirmation(around)
        self._settings = Settings()
        self._began_ms = around.now.monotonic_ms
        self._committed_ms = 0
        self._tick_asked_ms = 0
        self._letters_asked_ms = -LETTERS_RETRY_MS
        self._clock_doubts: set[str] = set()
        around.wake(shard, self._began_ms + TAKEOVER_RETRY_MS)

    @property
    def replication(self) -> Replication | None:
        return self._replication

    @property
    def sealed(self) -> bool:
        """The queue is being deleted."""
        return self._sequencer.sealed

    # --- requests --------------------------------------------------------------------------------------------------

    def submit(self, request: Request) -> None:
        """Takes a request on; it will be finished. Flushes at the end of this turn."""
        if self.phase is Phase.LOST or (self._sequencer.sealed and not isinstance(request.command, Seal)):
            request.finish(request, Verdict.GONE if self._sequencer.sealed else Verdict.RETRY, None, None)
            return
        if len(self._sequencer.waiting) + len(self._desk) >= OPERATIONS_WAITING_MAX:
            request.finish(request, Verdict.EXPIRED, None, None)
            return
        sent = len(request.command.messages) if type(request.command) is Send else 0
        self.demand.count(request.region, sent, self._around.now.monotonic_ms)
        if self._would_grow(request) and not self._around.grows(self.record):
            request.finish(request, Verdict.DONE, Refused(Refusal.NO_ROOM), None)
            return
        if request.command is None:
            self._confirmation.waiting.append(request)
        elif isinstance(request.command, Receive) and not (request.is_first_attempt or request.repeated):
            last_seq = self._replication.last.seq if self._replication is not None else 0
            self._desk.park(request, last_seq)
        else:
            self._sequencer.offer(request)
        self._around.flush_soon(self.shard)

    @staticmethod
    def _would_grow(request: Request) -> bool:
        """What an owner has had before may be in the log: only the log can tell what became of it."""
        return isinstance(request.command, Send | Accept) and not request.repeated

    def configure(self) -> None:
        """The queue's metadata has changed: puts newer settings into the log."""
        metadata = self._around.metadata(self.shard)
        if metadata is not None and self.phase is Phase.SERVING:
            settings = settings_of(metadata)
            if settings.version > self._settings.version:
                self._settings = settings
                self._sequencer.add(Configure(settings))
                self._around.flush_soon(self.shard)

    # --- links -----------------------------------------------------------------------------------------------------

    def link_up(self, node: str) -> None:
        if self._takeover is not None:
            self._takeover.link_up(node)
        elif self._replication is not None:
            self._replication.link_up(node)

    def link_down(self, node: str) -> None:
        if self._membership is not None:
            self._membership.outsiders.link_down(node)
        if self._replication is not None:
            self._replication.link_down(node)
            if self._results is not None and node == self._replication.acting:
                self._results.choose()
            self._around.flush_soon(self.shard)

    # --- messages from nodes, during a takeover --------------------------------------------------------------------

    def on_fenced(self, node: str, message: Fenced) -> None:
        if self._takeover is not None:
            self._takeover.on_fenced(node, message)
            self._takeover_moved()
        elif self._replication is not None and message.token == self._replication.token:
            if self._replication.has_forgotten(node, message):
                self.lose()
                return
            if self._replication.fenced(node, message) and self._results is not None:
                self._commit(self._replication, self._results)
            if self._results is not None and not self._replication.keeps_up(self._replication.acting):
                self._results.choose()
            self._around.wake(self.shard, self._around.now.monotonic_ms)
            self._around.flush_soon(self.shard)

    def on_log(self, node: str, message: Log) -> None:
        if self._takeover is not None:
            self._takeover.on_log(node, message)
            self._takeover_moved()

    def on_stale(self, node: str, message: Stale) -> None:
        """A greater promise means that another owner has been elected: hand everything back."""
        if self._takeover is not None:
            self._takeover.on_stale(message)
            self._takeover_moved()
            return
        replication = self._replication
        if replication is None or message.token != replication.token:
            return
        if message.promised.epoch >= message.token.epoch:
            self.lose()
        else:
            replication.link_up(node)

    def _takeover_moved(self) -> None:
        takeover = self._takeover
        if takeover is None:
            return
        if takeover.step is Step.LOST or (takeover.step is Step.DONE and self._around.metadata(self.shard) is None):
            self.record = takeover.record
            self.lose()
        elif takeover.step is Step.DONE:
            self._open(takeover)

    def _open(self, takeover: Takeover) -> None:
        """The log is chosen: replicates it, and an opening entry of our own epoch."""
        self._takeover = None
        self.phase = Phase.OPENING
        self.record = takeover.record
        self._sequencer.anchor(takeover.clock_offset_ms(), takeover.time_floor_ms())
        replication = Replication(self.shard, self.record.token, self._around, takeover.base, takeover.entries)
        self._replication = replication
        self._results = Results(self._around, replication, self.record.primary)
        self._membership = Membership(self, self._around, takeover.record, takeover.revision)
        metadata = self._around.metadata(self.shard)
        assert metadata is not None, "checked before"
        self._settings = settings_of(metadata)
        record = self.record
        opening = Open(
            self._me.manager, self._cause, record.primary, _nodes(record), record.version, replica_set=told(record)
        )
        self._sequencer.add(opening)
        self._sequencer.add(Configure(self._settings))
        seq, commands = self._sequencer.append(replication, [])
        self._desk.sequenced(seq, commands)
        self._membership.tell(seq, takeover.former)
        for node, answer in takeover.fenced.items():
            replication.fenced(node, answer)
        self._results.choose()
        self._around.flush_soon(self.shard)

    # --- messages from nodes, as an owner --------------------------------------------------------------------------

    def on_appended(self, node: str, message: Appended) -> None:
        replication, results = self._replication, self._results
        if replication is None or results is None or message.token != replication.token:
            return
        results.heard(node)
        kept_up = replication.keeps_up(node)
        committed = replication.appended(node, message)
        if committed:
            self._commit(replication, results)
        if replication.acting == "" or (
            self.phase is Phase.OPENING and results.passed_over and node == results.primary
        ):
            results.choose()
        if not kept_up:
            # one that has caught up may be a newcomer that is waited for: see membership.py
            self._around.wake(self.shard, self._around.now.monotonic_ms)
        if committed or not kept_up or self.phase is not Phase.SERVING:
            # another replica's word for what is committed already, or not yet, leaves nothing to be done
            self._around.flush_soon(self.shard)

    def on_gap(self, node: str, message: Gap) -> None:
        if self._replication is not None and message.token == self._replication.token:
            self._replication.gap(node, message)

    def on_clock_refused(self, node: str, message: ClockRefused) -> None:
        """Our time is too far ahead of a node's clock. Under a new epoch it is anchored anew, to the median."""
        if self._replication is not None and message.token == self._replication.token:
            self._clock_doubts.add(node)
            self._replication.refused(node)
            self._around.flush_soon(self.shard)
            self._resign_if_doubted()

    def _resign_if_doubted(self) -> None:
        """Not at once: where no clock has come as far as the log has, another epoch's time is refused as well."""
        if len(self._clock_doubts) >= quorum(len(self.record.replicas)):
            until_ms = self._began_ms + CLOCK_PATIENCE_MS
            if self._around.now.monotonic_ms >= until_ms:
                self.lose()
            else:
                self._around.wake(self.shard, until_ms)

    def on_quarantined(self, node: str, message: Quarantined) -> None:
        """The replica takes part in nothing any more; its link is as good as down, for this shard."""
        self.link_down(node)
        self._around.unusable(self.shard, node)

    def on_no_room(self, node: str, message: NoRoom) -> None:
        """The node's disk is full. It is out of reach, as far as this shard goes, until it has promised again."""
        if self._replication is not None and message.token == self._replication.token:
            self._replication.postpone(node)
            if self._results is not None and node == self._replication.acting:
                self._results.choose()
            self._around.flush_soon(self.shard)

    def on_retired(self, node: str, message: Retired) -> None:
        """A node outside the set holds nothing any more: it may learn again."""
        if self._membership is not None and message.token == self.record.token:
            self._membership.outsiders.retired(node)

    def on_applied(self, node: str, message: Applied) -> None:
        if self._results is None or self._replication is None or message.token != self._replication.token:
            return
        self._desk.learn(message.summary)
        self._results.on_applied(message)
        self._summarized(message.summary)

    def on_answered(self, node: str, message: Answered) -> None:
        if self._results is None or self._replication is None or message.token != self._replication.token:
            return
        self._desk.learn(message.summary)
        self._results.on_answered(message)
        if message.letters:
            self._around.carry(self.shard, message.letters)
        self._summarized(message.summary)

    def _summarized(self, summary: Summary) -> None:
        replication = self._replication
        assert replication is not None
        if self.phase is Phase.OPENING and summary.seq >= replication.commit_seq > 0:
            self.phase = Phase.SERVING
            self.took_ms = self._around.now.monotonic_ms - self._began_ms
            self._around.serving(self.shard)
            self.configure()
        if summary.sealed and not self._sequencer.sealed:
            self._sequencer.seal()
        self._around.flush_soon(self.shard)

    def _commit(self, replication: Replication, results: Results) -> None:
        """Entries are committed: acknowledges what has no result, and waits for the results of the rest."""
        self._committed_ms = self._around.now.monotonic_ms
        if self._membership is not None and self._membership.awaits(replication.commit_seq):
            self._around.wake(self.shard, self._committed_ms)
        for item in self._sequencer.committed(replication.commit_seq):
            self._around.committed(len(item.requests), self._committed_ms - item.since_ms)
            if self.ack_latencies is not None:
                self._time(self.ack_latencies, item)
            awaited = []
            for index, request in enumerate(item.requests):
                if self._has_result(request.command):
                    awaited.append((index, request))
                else:
                    request.finish(request, Verdict.DONE, None, None)
            if awaited:
                results.expect(item.seq, awaited)

    def _time(self, latencies: AckLatencies, item: UnderWay) -> None:
        """An entry's operations have waited about as long as its first; but a receive waits for messages, too."""
        timed = (request.arrived_ms for request in item.requests if not isinstance(request.command, Receive))
        since_ms = next(timed, item.since_ms)
        latencies.add(self._committed_ms - since_ms, len(item.requests), self._committed_ms)

    def _has_result(self, command: Command | None) -> bool:
        """A standard queue's sends and deletes cannot fail once sequenced: a sealed shard's owner sequences none."""
        if isinstance(command, Send | Delete):
            return self._settings.fifo
        return not isinstance(command, Purge | Seal | Settle | Tick | Configure | Open | Note)

    # --- confirmation ----------------------------------------------------------------------------------------------

    def begin_confirmation(self, number: int) -> None:
        self._confirmation.begin(number)

    def on_refused(self, node: str) -> None:
        """A node has promised another token than ours: its answer to our Fence says whether we were replaced."""
        if self._replication is not None:
            self._replication.link_up(node)

    def on_confirmed(self, number: int, node: str) -> None:
        """A node has confirmed our token in this round."""
        if self._replication is None or self._results is None:
            return
        confirmed = self._confirmation.vote(number, node, self._replication)
        if not confirmed:
            return
        for request in confirmed:
            if request.command is not None:
                request.finish(request, Verdict.DONE, Batch([]), None)
        counting = [request for request in confirmed if request.command is None]
        if counting:
            self._results.count(counting)
        self._around.flush_soon(self.shard)

    # --- turns and time --------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """At the end of a turn: sequences what waits, as far as the bounds allow, and sends what is to be sent."""
        replication, results = self._replication, self._results
        if replication is None or results is None:
            return
        if self.phase is Phase.SERVING:
            self._attend_receives()
            for seq, commands in self._sequencer.sequence(replication):
                self._desk.sequenced(seq, commands)
            if self._confirmation.wanted:
                self._around.confirm_soon(self.shard)
        replication.stream()
        if results.waiting or len(self._desk) or self.phase is Phase.OPENING:
            replication.tell_commit(replication.acting)
        self._set_alarm(replication, results)

    def _attend_receives(self) -> None:
        if not len(self._desk):
            return
        now_ms = self._sequencer.now_ms()
        for request in self._desk.admit(now_ms, self._sequencer.promised_messages):
            self._sequencer.offer(request)
        self._confirmation.waiting += self._desk.give_up(self._around.now.monotonic_ms, now_ms)

    def due(self) -> None:
        """Called at the time asked for with ``wake``."""
        now_ms = self._around.now.monotonic_ms
        if self._takeover is not None or self._sequencer.held:
            self._sequencer.drop_finished()
            self._desk.drop_finished()
        if self._takeover is not None:
            self._takeover.retry()
            self._takeover_moved()
            self._around.wake(self.shard, now_ms + TAKEOVER_RETRY_MS)
        self._resign_if_doubted()
        replication, results = self._replication, self._results
        if self.phase is Phase.LOST or replication is None or results is None:
            return
        replication.retry()
        if self._membership is not None:
            self._membership.go_on()
        if now_ms - self._committed_ms >= COMMIT_NOTICE_MS:
            replication.tell_commit_to_all()
        results.chase(opening=self.phase is Phase.OPENING)
        if self._confirmation.under_way:
            farthest = (self._around.patience_ms(node, RESULT_BOUND_MS) for node in replication.followers)
            self._confirmation.chase(max(farthest, default=RESULT_BOUND_MS))
        if self.phase is Phase.SERVING:
            results.return_to_primary()
            self._look_after(results)
        self._around.flush_soon(self.shard)

    def _look_after(self, results: Results) -> None:
        """What a healthy owner sees to: dead letters, expiry, its record."""
        now_ms = self._around.now.monotonic_ms
        summary = self._desk.summary
        if summary is not None and summary.outbox and now_ms - self._letters_asked_ms >= LETTERS_RETRY_MS:
            self._letters_asked_ms = now_ms
            results.ask(LETTERS_PER_ACCEPT_MAX)
        tick_due = summary is not None and 0 < summary.next_tick_ms <= self._sequencer.now_ms()
        if tick_due and now_ms - self._tick_asked_ms >= RESULT_BOUND_MS:
            self._tick_asked_ms = now_ms
            self._sequencer.add(Tick())
        if self._membership is not None:
            self._membership.attend()

    def letters_carried(self, through: int | None) -> None:
        """The letters up to this number are committed in their queues; None: they could not be delivered now."""
        if through is not None and self.phase is Phase.SERVING:
            self._sequencer.add(Settle(through))
            self._letters_asked_ms = self._around.now.monotonic_ms - LETTERS_RETRY_MS + LETTERS_PAUSE_MS
            self._around.flush_soon(self.shard)

    def _set_alarm(self, replication: Replication, results: Results) -> None:
        """Asks to be woken for the first thing that time alone brings. Written for speed: it ends every flush."""
        now_ms = self._around.now.monotonic_ms
        alarm_ms = self._queue_alarm(now_ms)
        if replication.commit_untold:
            alarm_ms = min(alarm_ms, self._committed_ms + COMMIT_NOTICE_MS)
        if results.waiting or self._confirmation.under_way or self.phase is Phase.OPENING:
            alarm_ms = min(alarm_ms, now_ms + RESULT_BOUND_MS)
        if not replication.all_keep_up:
            alarm_ms = min(alarm_ms, now_ms + TAKEOVER_RETRY_MS)
        if results.passed_over or (self._membership is not None and self._membership.busy):
            alarm_ms = min(alarm_ms, now_ms + PROMOTE_AFTER_MS)
        if alarm_ms < inf:
            self._around.wake(self.shard, max(int(alarm_ms), now_ms + 1))

    def _queue_alarm(self, now_ms: int) -> float:
        """When the queue itself needs attention, on the monotonic clock; infinite where it needs none."""
        next_entry_ms = self._sequencer.next_ms()
        alarm_ms = inf if next_entry_ms is None else next_entry_ms
        summary = self._desk.summary
        if summary is None:
            return alarm_ms
        offset_ms = self._sequencer.clock_offset_ms
        if len(self._desk):
            give_up_ms = self._desk.next_give_up_ms(now_ms)
            if give_up_ms is not None:
                alarm_ms = min(alarm_ms, give_up_ms)
            if summary.next_ready_ms - offset_ms > now_ms:
                alarm_ms = min(alarm_ms, max(summary.next_ready_ms - offset_ms, now_ms + 5 * ENTRY_PACE_MS))
        if summary.next_tick_ms:
            alarm_ms = min(alarm_ms, max(summary.next_tick_ms - offset_ms, now_ms + RESULT_BOUND_MS))
        if summary.outbox:
            alarm_ms = min(alarm_ms, self._letters_asked_ms + LETTERS_RETRY_MS)
        return alarm_ms

    # --- the record ------------------------------------------------------------------------------------------------

    def promotion_wanted(self) -> tuple[str, str] | None:
        """The node that should be primary instead of the one that is, and why."""
        wanted = None if self._results is None else self._results.successor()
        return None if wanted is None else self._around.succession(self.shard, *wanted)

    def want_primary(self, node: str, until_ms: int, cause: str) -> None:
        """Makes a node of the set primary as soon as it keeps up; given up at ``until_ms``."""
        if self._membership is not None:
            self._membership.want_primary(node, until_ms, cause)
            self._around.wake(self.shard, self._around.now.monotonic_ms)

    def record_changed(self, record: ShardRecord, cause: str) -> None:
        """Our own change to the record has happened. It is written to the log, for audit."""
        if self.phase is Phase.LOST:
            return
        before, self.record = self.record, record
        nodes_before, nodes = _nodes(before), _nodes(record)
        self._sequencer.add(
            Note(cause, before.primary, record.primary, nodes_before, nodes, record.version, replica_set=told(record))
        )
        self._around.record_changed(self.shard, record)
        if self._results is not None:
            self._results.promoted(record.primary)
        self.set_changed()

    def tick(self) -> None:
        """One more entry, whatever it says: replicas are told with it what is committed before."""
        self._sequencer.add(Tick())
        self._around.flush_soon(self.shard)

    def set_changed(self) -> None:
        """Other replicas count, or follow, than before."""
        if self.phase is Phase.LOST or self._results is None or self._replication is None:
            return
        if self._replication.acting not in self._replication.followers:
            self._results.choose()
        if self._replication.advance():
            self._commit(self._replication, self._results)
        self._around.flush_soon(self.shard)

    @property
    def taking(self) -> ShardRecord:
        """The record as the takeover that is under way has it; as this owner knows it, otherwise."""
        return self.record if self._takeover is None else self._takeover.record

    def lose(self) -> None:
        """The shard is not ours any more, or was never. Every request goes back, to be repeated under its id."""
        if self.phase is Phase.LOST:
            return
        self.phase = Phase.LOST
        if self._membership is not None:
            self._membership.give_up()
        self._around.lost(self.shard)
        requests = [*self._sequencer.drain(), *self._desk.drain(), *self._confirmation.drain()]
        if self._results is not None:
            requests += self._results.drain()
        for request in requests:
            if not request.finished:
                request.finish(request, Verdict.RETRY, None, None)


def _nodes(record: ShardRecord) -> list[str]:
    return [replica.node for replica in record.replicas]
