"""A shard's owner: from the taking of its lock to the loss of it.

Model: TAKING (see takeover.py) -> OPENING (its first entry is on the way) -> SERVING -> LOST. While SERVING, requests
wait to be sequenced, are under way until committed, and then, where they have a result, wait for a replica to tell it.
Invariants: nothing is answered before a quorum holds it under this epoch; no request is forgotten: losing the shard
hands every one back, to be repeated under its id.
"""

from __future__ import annotations

import enum
from collections import deque

import msgspec

from distribution_manager.core.attributes import settings_of
from distribution_manager.core.desk import ReceiveDesk
from distribution_manager.core.limits import (
    BYTES_UNDER_WAY_MAX,
    COMMIT_NOTICE_MS,
    ENTRIES_UNDER_WAY_MAX,
    ENTRY_FULL_OPERATIONS,
    ENTRY_PACE_MS,
    LETTERS_PER_ACCEPT_MAX,
    LETTERS_RETRY_MS,
    OPERATIONS_WAITING_MAX,
    PRIMARY_DISTANCE_MARGIN_MS,
    PRIMARY_SILENT_MS,
    PROMOTE_AFTER_MS,
    RESULT_BOUND_MS,
    TAKEOVER_RETRY_MS,
)
from distribution_manager.core.membership import Membership
from distribution_manager.core.messages import Verdict
from distribution_manager.core.metadata import Owner, ShardRecord
from distribution_manager.core.replication import Replication, quorum
from distribution_manager.core.request import Request, Surroundings
from distribution_manager.core.takeover import Step, Takeover
from shadow_nodes.protocol.commands import (
    Batch,
    Command,
    Configure,
    Delete,
    Entry,
    Open,
    Operation,
    Purge,
    Receive,
    Seal,
    Send,
    Session,
    Settings,
    Settle,
    ShardKey,
    Summary,
    Tick,
    encode,
)
from shadow_nodes.protocol.limits import ENTRY_BYTES_MAX, ENTRY_OPERATIONS_MAX
from shadow_nodes.protocol.messages import (
    Answered,
    AnswerState,
    Appended,
    Applied,
    Ask,
    ClockRefused,
    Fenced,
    Gap,
    Log,
    Quarantined,
    Stale,
)


class Phase(enum.Enum):
    TAKING = "taking"
    OPENING = "opening"
    SERVING = "serving"
    LOST = "lost"


class _UnderWay(msgspec.Struct, gc=False):
    seq: int
    requests: list[Request]
    size_bytes: int
    since_ms: int


class _Awaited(msgspec.Struct, gc=False):
    """Requests of a committed entry whose results have not come: (index in the entry, request)."""

    seq: int
    since_ms: int
    requests: list[tuple[int, Request]]


class ShardOwner:
    def __init__(
        self, shard: ShardKey, me: Owner, around: Surroundings, record: ShardRecord, revision: int, *, granted: bool
    ) -> None:
        self.shard = shard
        self.phase = Phase.TAKING
        self.record = record
        self.took_ms = 0
        """How long the takeover took, from its begin to serving."""
        self._me = me
        self._around = around
        self._takeover: Takeover | None = Takeover(shard, me, around, record, revision, granted=granted)
        self._replication: Replication | None = None
        self._membership: Membership | None = None
        self._desk = ReceiveDesk()
        self._settings = Settings()
        self._waiting: deque[Request] = deque()
        self._internal: list[Command] = []
        self._internal_counter = 0
        self._under_way: deque[_UnderWay] = deque()
        self._under_way_bytes = 0
        self._awaited: deque[_Awaited] = deque()
        self._empty: list[Request] = []
        self._counting: list[Request] = []
        self._counted: list[Request] = []
        self._confirming: list[Request] = []
        self._confirm_votes: set[str] = set()
        self._confirm_round = 0
        self._confirm_asked_ms = 0
        self._sequenced_ms = 0
        self._committed_ms = 0
        self._asked_ms = 0
        self._tick_asked_ms = 0
        self._acting_lost_ms: int | None = None
        self._primary_heard_ms = around.now.monotonic_ms
        self._letters_asked_ms = -LETTERS_RETRY_MS
        self._began_ms = around.now.monotonic_ms
        self._clock_doubts: set[str] = set()
        self._sealed = False
        self._clock_offset_ms = 0
        self._time_ms = 0
        around.wake(shard, around.now.monotonic_ms + TAKEOVER_RETRY_MS)

    # --- requests --------------------------------------------------------------------------------------------------

    def submit(self, request: Request) -> None:
        """Takes a request on; it will be finished. Flushes at the end of this turn."""
        if self.phase is Phase.LOST or self._sealed:
            request.finish(request, Verdict.GONE if self._sealed else Verdict.RETRY, None, None)
            return
        if len(self._waiting) + len(self._desk) >= OPERATIONS_WAITING_MAX:
            request.finish(request, Verdict.EXPIRED, None, None)
            return
        command = request.command
        if command is None:
            self._counting.append(request)
        elif isinstance(command, Receive):
            last_seq = self._replication.last.seq if self._replication is not None else 0
            self._desk.park(request, last_seq)
        else:
            if isinstance(command, Send):
                request.size_bytes = sum(len(item.body) + len(item.attributes) for item in command.messages)
            self._waiting.append(request)
        self._around.flush_soon(self.shard)

    def configure(self) -> None:
        """The queue's metadata has changed: puts newer settings into the log."""
        metadata = self._around.metadata(self.shard)
        if metadata is not None and self.phase is Phase.SERVING:
            settings = settings_of(metadata)
            if settings.version > self._settings.version:
                self._settings = settings
                self._internal.append(Configure(settings))
                self._around.flush_soon(self.shard)

    # --- messages from nodes ---------------------------------------------------------------------------------------

    def on_fenced(self, node: str, message: Fenced) -> None:
        if self._takeover is not None:
            self._takeover.on_fenced(node, message)
            self._takeover_moved()
        elif self._replication is not None and message.token == self._replication.token:
            self._replication.fenced(node, message)
            self._progress()

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

    def on_appended(self, node: str, message: Appended) -> None:
        replication = self._replication
        if replication is None or message.token != replication.token:
            return
        if node == self.record.primary:
            self._primary_heard_ms = self._around.now.monotonic_ms
        if replication.appended(node, message):
            self._commit()
        if replication.acting == "" or (self.phase is Phase.OPENING and node == self.record.primary):
            self._choose_acting()
        self._around.flush_soon(self.shard)

    def on_gap(self, node: str, message: Gap) -> None:
        if self._replication is not None and message.token == self._replication.token:
            self._replication.gap(node, message)

    def on_clock_refused(self, node: str, message: ClockRefused) -> None:
        """Our time is too far ahead of a node's clock. Under a new epoch it is anchored anew, to the median."""
        if self._replication is not None and message.token == self._replication.token:
            self._clock_doubts.add(node)
            if len(self._clock_doubts) >= quorum(len(self.record.replicas)):
                self.lose()

    def on_quarantined(self, node: str, message: Quarantined) -> None:
        """The replica takes part in nothing any more; its link is as good as down, for this shard."""
        if self._replication is not None:
            self._replication.link_down(node)
            if node == self._replication.acting:
                self._choose_acting()

    def on_applied(self, node: str, message: Applied) -> None:
        replication = self._replication
        if replication is None or message.token != replication.token:
            return
        self._desk.learn(message.summary)
        awaited = self._awaited
        if awaited and awaited[0].seq <= message.seq:
            results = {(seq, index): result for seq, index, result in message.results}
            behind: list[_Awaited] = []
            while awaited and awaited[0].seq <= message.seq:
                item = awaited.popleft()
                if item.seq <= message.after_seq:
                    behind.append(item)
                    continue
                for index, request in item.requests:
                    request.finish(request, Verdict.DONE, results.get((item.seq, index)), None)
            awaited.extendleft(reversed(behind))
        self._summarized(message.summary)

    def on_answered(self, node: str, message: Answered) -> None:
        replication = self._replication
        if replication is None or message.token != replication.token:
            return
        self._desk.learn(message.summary)
        done = {
            (session, counter): result
            for session, counter, state, result in message.answers
            if state is AnswerState.DONE
        }
        for item in list(self._awaited):
            left = []
            for index, request in item.requests:
                if (request.session, request.counter) in done:
                    result = done[request.session, request.counter]
                    request.finish(request, Verdict.DONE, result, None)
                else:
                    left.append((index, request))
            item.requests = left
            if not left:
                self._awaited.remove(item)
        if message.summary.seq >= replication.commit_seq:
            counted, self._counted = self._counted, []
            for request in counted:
                request.finish(request, Verdict.DONE, None, message.summary)
        if message.letters:
            self._around.carry(self.shard, message.letters)
        self._summarized(message.summary)

    def link_up(self, node: str) -> None:
        if self._takeover is not None:
            self._takeover.link_up(node)
        elif self._replication is not None:
            self._replication.link_up(node)
            if self._membership is not None:
                self._around.wake(self.shard, self._around.now.monotonic_ms)

    def link_down(self, node: str) -> None:
        if self._replication is not None:
            self._replication.link_down(node)
            if node == self._replication.acting:
                self._choose_acting()

    # --- takeover --------------------------------------------------------------------------------------------------

    def _takeover_moved(self) -> None:
        takeover = self._takeover
        if takeover is None:
            return
        if takeover.step is Step.LOST:
            self.record = takeover.record
            self.lose()
        elif takeover.step is Step.DONE:
            self._open(takeover)

    def _open(self, takeover: Takeover) -> None:
        """The log is chosen: replicate it, and an opening entry of our own epoch."""
        if self._around.metadata(self.shard) is None:
            self.lose()
            return
        self._takeover = None
        self.phase = Phase.OPENING
        self._began_ms = takeover.began_ms
        self._asked_ms = self._around.now.monotonic_ms
        self.record = takeover.record
        self._clock_offset_ms = takeover.clock_offset_ms()
        self._time_ms = takeover.time_floor_ms()
        replication = Replication(self.shard, self.record.token, self._around, takeover.base, takeover.entries)
        self._replication = replication
        self._membership = Membership(self, self._around, takeover.record, takeover.revision)
        replication.set_voters(self.record.replicas)
        self._append_entry([], [Open(self._me.manager), *self._newest_settings()])
        for node, answer in takeover.fenced.items():
            replication.fenced(node, answer)
        self._choose_acting()
        self._around.flush_soon(self.shard)
        self._around.wake(self.shard, self._around.now.monotonic_ms + TAKEOVER_RETRY_MS)

    def _newest_settings(self) -> list[Command]:
        metadata = self._around.metadata(self.shard)
        if metadata is not None:
            self._settings = settings_of(metadata)
        return [Configure(self._settings)]

    def lose(self) -> None:
        """The shard is not ours any more, or was never. Every request goes back, to be repeated under its id."""
        if self.phase is Phase.LOST:
            return
        self.phase = Phase.LOST
        self._around.lost(self.shard)
        requests = [*self._waiting, *self._desk.drain(), *self._empty, *self._counting, *self._counted]
        requests += self._confirming
        requests += [request for item in self._under_way for request in item.requests]
        requests += [request for item in self._awaited for _, request in item.requests]
        self._waiting.clear()
        self._under_way.clear()
        self._awaited.clear()
        self._empty, self._counting, self._confirming, self._counted = [], [], [], []
        for request in requests:
            if not request.finished:
                request.finish(request, Verdict.RETRY, None, None)

    # --- sequencing ------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """At the end of a turn: sequences what waits, as far as the bounds allow, and sends what is to be sent."""
        replication = self._replication
        if replication is None:
            return
        if self.phase is Phase.SERVING:
            self._attend_receives()
            while (self._waiting or self._internal) and self._may_sequence():
                self._sequence()
        replication.stream()
        if self._awaited or len(self._desk) or self.phase is Phase.OPENING or self._counted:
            replication.tell_commit(replication.acting)
        if (self._empty or self._counting) and not self._confirming and self.phase is Phase.SERVING:
            self._around.confirm_soon(self.shard)
        self._set_alarm()

    def _may_sequence(self) -> bool:
        if not self._under_way:
            return True
        if len(self._under_way) >= ENTRIES_UNDER_WAY_MAX or self._under_way_bytes >= BYTES_UNDER_WAY_MAX:
            return False
        if len(self._waiting) >= ENTRY_FULL_OPERATIONS:
            return True
        return self._around.now.monotonic_ms - self._sequenced_ms >= ENTRY_PACE_MS

    def _sequence(self) -> None:
        requests: list[Request] = []
        size_bytes = 0
        clock_ms = self._around.now.monotonic_ms + self._clock_offset_ms
        waiting = self._waiting
        while waiting and len(requests) < ENTRY_OPERATIONS_MAX and size_bytes < ENTRY_BYTES_MAX:
            request = waiting.popleft()
            if request.finished:
                continue
            if request.deadline_ms <= clock_ms:
                request.finish(request, Verdict.EXPIRED, None, None)
                continue
            requests.append(request)
            size_bytes += request.size_bytes
            if isinstance(request.command, Seal):
                self._refuse_sealed()
        internal, self._internal = self._internal, []
        if requests or internal:
            self._append_entry(requests, internal)

    def _append_entry(self, requests: list[Request], internal: list[Command]) -> None:
        replication = self._replication
        assert replication is not None
        now_ms = self._around.now.monotonic_ms
        self._time_ms = max(self._time_ms, now_ms + self._clock_offset_ms)
        sessions: dict[int, int] = {}
        marks: list[int] = []
        operations = []
        for request in requests:
            index = sessions.get(request.session)
            if index is None:
                index = sessions[request.session] = len(sessions)
                marks.append(request.answered_below)
            elif request.answered_below > marks[index]:
                marks[index] = request.answered_below
            assert request.command is not None
            operations.append(Operation(index, request.counter, request.command))
        for command in internal:
            index = sessions.setdefault(replication.token.attempt, len(sessions))
            if index == len(marks):
                marks.append(self._internal_counter)
            self._internal_counter += 1
            operations.append(Operation(index, self._internal_counter, command))
        entry = Entry(
            replication.token.epoch,
            replication.last.seq + 1,
            self._time_ms,
            [Session(session, marks[index]) for session, index in sessions.items()],
            operations,
        )
        data = encode(entry)
        seq = replication.append(data)
        self._under_way.append(_UnderWay(seq, requests, len(data), now_ms))
        self._under_way_bytes += len(data)
        self._sequenced_ms = now_ms
        self._desk.sequenced(seq, [operation.command for operation in operations])

    def _commit(self) -> None:
        """Entries are committed: acknowledges what has no result, and waits for the results of the rest."""
        replication = self._replication
        assert replication is not None
        now_ms = self._around.now.monotonic_ms
        self._committed_ms = now_ms
        while self._under_way and self._under_way[0].seq <= replication.commit_seq:
            item = self._under_way.popleft()
            self._under_way_bytes -= item.size_bytes
            self._around.committed(len(item.requests), now_ms - item.since_ms)
            awaited: list[tuple[int, Request]] = []
            for index, request in enumerate(item.requests):
                if self._has_result(request.command):
                    awaited.append((index, request))
                else:
                    request.finish(request, Verdict.DONE, None, None)
            if awaited:
                self._awaited.append(_Awaited(item.seq, now_ms, awaited))

    def _has_result(self, command: Command | None) -> bool:
        """A standard queue's sends and deletes cannot fail once sequenced: a sealed shard's owner sequences none."""
        if isinstance(command, Send | Delete):
            return self._settings.fifo
        return not isinstance(command, Purge | Seal | Settle | Tick | Configure | Open)

    def _progress(self) -> None:
        """Something about the followers has changed: perhaps a commit, perhaps a better place to ask."""
        replication = self._replication
        assert replication is not None
        if not replication.keeps_up(replication.acting):
            self._choose_acting()
        self._around.flush_soon(self.shard)

    # --- results ---------------------------------------------------------------------------------------------------

    def _summarized(self, summary: Summary) -> None:
        replication = self._replication
        assert replication is not None
        if self.phase is Phase.OPENING and summary.seq >= replication.commit_seq > 0:
            self.phase = Phase.SERVING
            self.took_ms = self._around.now.monotonic_ms - self._began_ms
            self.configure()
        if summary.sealed and not self._sealed:
            self._refuse_sealed()
        self._around.flush_soon(self.shard)

    def _refuse_sealed(self) -> None:
        """A Seal is in the log: what is not sequenced yet comes too late."""
        self._sealed = True
        requests = [*self._waiting, *self._desk.drain()]
        self._waiting.clear()
        for request in requests:
            request.finish(request, Verdict.GONE, None, None)

    def _choose_acting(self) -> None:
        """Asks the primary for results; where it is out of reach, the nearest voter that keeps up."""
        replication = self._replication
        if replication is None:
            return
        candidates = [follower.node for follower in replication.current_voters()]
        before = replication.acting
        primary = self.record.primary
        if primary in candidates and before != primary and self._near_enough(primary, candidates[0]):
            replication.acting = primary
            self._acting_lost_ms = None
        else:
            others = [node for node in candidates if node != before] or candidates
            replication.acting = others[0] if others else ""
        if replication.acting != primary and self._acting_lost_ms is None:
            self._acting_lost_ms = self._around.now.monotonic_ms
        if replication.acting not in {"", before}:
            self._ask()
        self._set_alarm()

    def _near_enough(self, primary: str, nearest: str) -> bool:
        """Whether the primary may stay where it is: an owner far from it would pay its distance for every result."""
        return self._around.distance_ms(primary) - self._around.distance_ms(nearest) <= PRIMARY_DISTANCE_MARGIN_MS

    def _ask(self, letters_max: int = 0) -> None:
        """Asks the acting primary for the results that are due, by operation id, and for a summary."""
        replication = self._replication
        assert replication is not None
        replication.tell_commit(replication.acting)
        operations = [
            (request.session, request.counter)
            for item in self._awaited
            for _, request in item.requests
            if item.seq <= replication.commit_seq
        ]
        self._asked_ms = self._around.now.monotonic_ms
        self._around.send(replication.acting, Ask(self.shard, replication.token, operations, letters_max))

    def _attend_receives(self) -> None:
        desk = self._desk
        if len(desk):
            now = self._around.now
            self._waiting.extend(desk.admit(now.monotonic_ms + self._clock_offset_ms))
            self._empty += desk.give_up(now.monotonic_ms, now.monotonic_ms + self._clock_offset_ms)

    # --- confirmation ----------------------------------------------------------------------------------------------

    def begin_confirmation(self, number: int) -> None:
        """A round begins: it will serve what waits for one now."""
        self._confirming += self._empty + self._counting
        self._empty, self._counting = [], []
        self._confirm_round = number
        self._confirm_votes = set()
        self._confirm_asked_ms = self._around.now.monotonic_ms

    def on_confirmed(self, number: int, node: str) -> None:
        """A node has confirmed our token in this round."""
        replication = self._replication
        if number != self._confirm_round or replication is None or not self._confirming:
            return
        self._confirm_votes.add(node)
        for voters in replication.voter_sets:
            votes = sum(1 for replica in voters if self._counts(replica.node, replica.incarnation))
            if votes < quorum(len(voters)):
                return
        confirmed, self._confirming = self._confirming, []
        for request in confirmed:
            if request.finished:
                continue
            if request.command is None:
                self._counted = [*self._counted, request]
            else:
                request.finish(request, Verdict.DONE, Batch([]), None)
        if self._counted:
            self._ask()
        self._around.flush_soon(self.shard)

    def _counts(self, node: str, incarnation: str) -> bool:
        return node in self._confirm_votes and self._around.incarnation(node) == incarnation

    # --- time ------------------------------------------------------------------------------------------------------

    def due(self) -> None:
        """Called at the time asked for with ``wake``, or when something around has changed."""
        if self.phase is Phase.LOST:
            return
        now_ms = self._around.now.monotonic_ms
        if self._takeover is not None:
            self._takeover.retry()
            self._takeover_moved()
            if self._takeover is not None:
                self._around.wake(self.shard, now_ms + TAKEOVER_RETRY_MS)
            return
        replication = self._replication
        assert replication is not None
        replication.retry()
        if now_ms - self._committed_ms >= COMMIT_NOTICE_MS:
            replication.tell_commit_to_all()
        self._chase_results(now_ms)
        self._chase_confirmation(now_ms)
        if self.phase is Phase.SERVING:
            self._look_after(now_ms)
        self._around.flush_soon(self.shard)

    def _chase_results(self, now_ms: int) -> None:
        since_ms = self._awaited[0].since_ms if self._awaited else None
        if self.phase is Phase.OPENING:
            since_ms = self._asked_ms
        replication = self._replication
        assert replication is not None
        bound_ms = self._around.patience_ms(replication.acting, RESULT_BOUND_MS)
        if since_ms is not None and now_ms - max(since_ms, self._asked_ms) >= bound_ms:
            self._asked_ms = now_ms
            self._choose_acting()
            if replication.acting:
                self._ask()

    def _chase_confirmation(self, now_ms: int) -> None:
        if self._confirming and now_ms - self._confirm_asked_ms >= RESULT_BOUND_MS:
            self._empty += [request for request in self._confirming if request.command is not None]
            self._counting += [request for request in self._confirming if request.command is None]
            self._confirming = []
        elif self._counted and now_ms - self._confirm_asked_ms >= RESULT_BOUND_MS:
            self._counting += self._counted
            self._counted = []

    def _look_after(self, now_ms: int) -> None:
        """What a healthy owner sees to: dead letters, expiry, a lost primary, replicas with a new store."""
        summary = self._desk.summary
        if summary is not None:
            if summary.outbox and now_ms - self._letters_asked_ms >= LETTERS_RETRY_MS:
                self._letters_asked_ms = now_ms
                self._ask(LETTERS_PER_ACCEPT_MAX)
            due = 0 < summary.next_tick_ms <= now_ms + self._clock_offset_ms
            if due and now_ms - self._tick_asked_ms >= RESULT_BOUND_MS:
                self._tick_asked_ms = now_ms
                self._internal.append(Tick())
        self._return_to_primary()
        if self._membership is not None:
            self._membership.attend()

    def promotion_wanted(self) -> str | None:
        """The node that should be primary instead of one that has been out of reach for a while."""
        replication = self._replication
        if replication is None or self._acting_lost_ms is None or replication.acting in {"", self.record.primary}:
            return None
        if self._primary_well() and self._near_enough(self.record.primary, replication.acting):
            return None
        waited_ms = self._around.now.monotonic_ms - self._acting_lost_ms
        return replication.acting if waited_ms >= PROMOTE_AFTER_MS else None

    def _primary_well(self) -> bool:
        """Whether the primary keeps up and has not been silent: one that is only slow keeps its place."""
        replication = self._replication
        assert replication is not None
        silent_ms = self._around.now.monotonic_ms - self._primary_heard_ms
        return replication.keeps_up(self.record.primary) and silent_ms < PRIMARY_SILENT_MS

    def _return_to_primary(self) -> None:
        """Results come from the primary again where it was passed over and has been heard since."""
        replication = self._replication
        assert replication is not None
        lost_ms = self._acting_lost_ms
        if lost_ms is None or self._primary_heard_ms <= lost_ms or not self._primary_well():
            return
        if self._near_enough(self.record.primary, replication.acting):
            replication.acting = self.record.primary
            self._acting_lost_ms = None
            self._ask()

    def letters_carried(self, through: int | None) -> None:
        """The letters up to this number are committed in their queues; None: they could not be delivered now."""
        if through is not None and self.phase is Phase.SERVING:
            self._internal.append(Settle(through))
            self._letters_asked_ms = self._around.now.monotonic_ms - LETTERS_RETRY_MS + COMMIT_NOTICE_MS
            self._around.flush_soon(self.shard)

    def record_changed(self, record: ShardRecord) -> None:
        """Our own change to the record has happened."""
        self.record = record
        if self._replication is not None and self._replication.acting == record.primary:
            self._acting_lost_ms = None

    @property
    def replication(self) -> Replication | None:
        return self._replication

    def _set_alarm(self) -> None:
        """Asks to be woken for the first thing that time alone brings."""
        replication = self._replication
        if replication is None:
            return
        now_ms = self._around.now.monotonic_ms
        alarms: list[int] = []
        if self._waiting and self._under_way:
            alarms.append(self._sequenced_ms + ENTRY_PACE_MS)
        if replication.commit_untold:
            alarms.append(now_ms + COMMIT_NOTICE_MS)
        if self._awaited or self._confirming or self._counted or self.phase is Phase.OPENING:
            alarms.append(now_ms + RESULT_BOUND_MS)
        if not all(replication.keeps_up(node) for node in replication.followers):
            alarms.append(now_ms + TAKEOVER_RETRY_MS)
        if self._acting_lost_ms is not None:
            alarms.append(now_ms + PROMOTE_AFTER_MS)
        summary = self._desk.summary
        if summary is not None:
            if len(self._desk):
                give_up_ms = self._desk.next_give_up_ms()
                if give_up_ms is not None:
                    alarms.append(max(give_up_ms, now_ms + 1))
                if summary.next_ready_ms:
                    alarms.append(max(summary.next_ready_ms - self._clock_offset_ms, now_ms + 5 * ENTRY_PACE_MS))
            if summary.next_tick_ms:
                alarms.append(max(summary.next_tick_ms - self._clock_offset_ms, now_ms + RESULT_BOUND_MS))
            if summary.outbox:
                alarms.append(max(self._letters_asked_ms + LETTERS_RETRY_MS, now_ms + 1))
        if alarms:
            self._around.wake(self.shard, max(min(alarms), now_ms + 1))
