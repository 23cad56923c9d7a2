"""Operations into entries: what waits, what is under way, and the shard's time.

Model: ``waiting`` requests go, in order, into the next entry; an entry is ``under way`` until it is committed. While
nothing is committed (a quorum is gone) nothing more goes: what was never in the log has happened to nobody.
Invariant: entries' times never go back; every request that was taken on is in exactly one of waiting, under way, and
what ``committed`` and ``drain`` have given back.
"""

from __future__ import annotations

from collections import deque

import msgspec

from distribution_manager.core.callers import Callers
from distribution_manager.core.limits import (
    BYTES_UNDER_WAY_MAX,
    DEADLINE_SLACK_MS,
    ENTRIES_UNDER_WAY_MAX,
    ENTRY_FULL_OPERATIONS,
    ENTRY_PACE_MS,
    STALL_MS,
    SWEEP_INTERVAL_MS,
)
from distribution_manager.core.messages import Verdict
from distribution_manager.core.replication import Replication
from distribution_manager.core.request import Request, Surroundings
from shadow_nodes.protocol.commands import Accept, Command, Entry, Operation, Receive, Seal, Send, Session, encode
from shadow_nodes.protocol.limits import ENTRY_BYTES_MAX, ENTRY_OPERATIONS_MAX


class UnderWay(msgspec.Struct, gc=False):
    seq: int
    requests: list[Request]
    size_bytes: int
    since_ms: int


class Sequencer:
    def __init__(self, around: Surroundings) -> None:
        self.waiting: deque[Request] = deque()
        self.promised_messages = 0
        """How many messages the waiting receives may take."""
        self.sealed = False
        """A Seal is in the log, or on its way into it: later requests are refused."""
        self.clock_offset_ms = 0
        """What to add to the monotonic clock to have Unix time, by the shard's clock."""
        self._around = around
        self._internal: list[Command] = []
        self._internal_counter = 0
        self._callers = Callers()
        self._under_way: deque[UnderWay] = deque()
        self._under_way_bytes = 0
        self._time_ms = 0
        self._sequenced_ms = 0
        self._progress_ms = 0
        """When the oldest entry under way came to be that: it was made, or the one before it was committed."""

    def anchor(self, offset_ms: int, floor_ms: int) -> None:
        """Sets the shard's clock; no entry will be stamped before ``floor_ms``."""
        self.clock_offset_ms = offset_ms
        self._time_ms = floor_ms

    def now_ms(self) -> int:
        """The shard's time."""
        return self._around.now.monotonic_ms + self.clock_offset_ms

    # --- taking on -------------------------------------------------------------------------------------------------

    def offer(self, request: Request) -> None:
        command = request.command
        if isinstance(command, Send):
            request.size_bytes = sum(len(item.body) + len(item.attributes) for item in command.messages)
        elif isinstance(command, Accept):
            request.size_bytes = sum(len(item.content.body) + len(item.content.attributes) for item in command.letters)
        elif isinstance(command, Receive):
            self.promised_messages += command.max_messages
        self.waiting.append(request)

    def add(self, command: Command) -> None:
        """A command of the owner's own, under the session of its token; it is not repeated if the shard is lost."""
        if command not in self._internal:
            self._internal.append(command)

    def seal(self) -> None:
        """What is not sequenced by now comes too late, but another Seal: who sealed first may not live to bury it."""
        self.sealed = True
        waiting, self.waiting = self.waiting, deque()
        self.promised_messages = 0
        for request in waiting:
            if isinstance(request.command, Seal):
                self.waiting.append(request)
            else:
                request.finish(request, Verdict.GONE, None, None)

    def drop_finished(self) -> None:
        """Lets go of what waited until its deadline."""
        if any(request.finished for request in self.waiting):
            self.waiting = deque(request for request in self.waiting if not request.finished)
            commands = (request.command for request in self.waiting)
            self.promised_messages = sum(command.max_messages for command in commands if isinstance(command, Receive))

    def drain(self) -> list[Request]:
        """Everything, to be handed back, in the order in which it came."""
        requests = [*(request for item in self._under_way for request in item.requests), *self.waiting]
        self.waiting.clear()
        self.promised_messages = 0
        self._under_way.clear()
        return requests

    # --- entries ---------------------------------------------------------------------------------------------------

    def sequence(self, replication: Replication) -> list[tuple[int, list[Command]]]:
        """Makes as many entries of what waits as the bounds allow. Returns their seqs and commands."""
        made = []
        while (self.waiting or self._internal) and self._may():
            requests = self._take()
            if requests or self._internal:
                made.append(self.append(replication, requests))
        return made

    def _may(self) -> bool:
        """While entries are under way the next one gathers: group commit, without delay when idle."""
        if not self._under_way:
            return True
        if self.held:
            return False
        if len(self.waiting) >= ENTRY_FULL_OPERATIONS:
            return True
        return self._around.now.monotonic_ms - self._sequenced_ms >= ENTRY_PACE_MS

    @property
    def held(self) -> bool:
        """The next entry waits for a commit: so much is under way, or for so long."""
        under_way = len(self._under_way)
        return (
            under_way >= ENTRIES_UNDER_WAY_MAX
            or self._under_way_bytes >= BYTES_UNDER_WAY_MAX
            or (under_way > 0 and self._around.now.monotonic_ms - self._progress_ms >= STALL_MS)
        )

    def next_ms(self) -> int | None:
        """When what waits may go, or is to be looked at; None where nothing waits for time alone."""
        if not self.waiting or not self._under_way:
            return None
        return self._around.now.monotonic_ms + SWEEP_INTERVAL_MS if self.held else self._sequenced_ms + ENTRY_PACE_MS

    def _take(self) -> list[Request]:
        requests: list[Request] = []
        size_bytes = 0
        now_ms = self.now_ms()
        while self.waiting and len(requests) < ENTRY_OPERATIONS_MAX and size_bytes < ENTRY_BYTES_MAX:
            request = self.waiting.popleft()
            if isinstance(request.command, Receive):
                self.promised_messages -= request.command.max_messages
            if request.finished:
                continue
            late = request.expires_ms <= self._around.now.monotonic_ms
            if late or request.deadline_ms + DEADLINE_SLACK_MS <= now_ms:
                request.finish(request, Verdict.EXPIRED, None, None)
                continue
            requests.append(request)
            size_bytes += request.size_bytes
            if isinstance(request.command, Seal):
                self.seal()
        return requests

    def append(self, replication: Replication, requests: list[Request]) -> tuple[int, list[Command]]:
        """Makes one entry, of these requests and of the owner's own commands."""
        now_ms = self._around.now.monotonic_ms
        self._time_ms = max(self._time_ms, now_ms + self.clock_offset_ms)
        seq = replication.last.seq + 1
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
            caller = self._callers.number(request.key, request.region, seq)
            operations.append(Operation(index, request.counter, request.command, caller))
        internal, self._internal = self._internal, []
        for command in internal:
            index = sessions.setdefault(replication.token.attempt, len(sessions))
            if index == len(marks):
                marks.append(self._internal_counter)
            self._internal_counter += 1
            operations.append(Operation(index, self._internal_counter, command))
        entry = Entry(
            replication.token.epoch,
            seq,
            self._time_ms,
            [Session(session, marks[index]) for session, index in sessions.items()],
            operations,
            self._callers.take(),
        )
        data = encode(entry)
        replication.append(data)
        if not self._under_way:
            self._progress_ms = now_ms
        self._under_way.append(UnderWay(seq, requests, len(data), now_ms))
        self._under_way_bytes += len(data)
        self._sequenced_ms = now_ms
        return seq, [operation.command for operation in operations]

    def committed(self, commit_seq: int) -> list[UnderWay]:
        """Entries that are committed now, in order; they are not under way any more."""
        done = []
        while self._under_way and self._under_way[0].seq <= commit_seq:
            item = self._under_way.popleft()
            self._under_way_bytes -= item.size_bytes
            done.append(item)
        if done:
            self._progress_ms = self._around.now.monotonic_ms
        return done
