"""Results of committed operations: who tells them, and what waits for them.

Model: the acting replica is asked: the primary, while it is well; the next nearest voter while it is not. Results come
unasked with each commit (Applied), or by operation id where they were missed (Ask, Answered).
Invariant: any replica's results are as good: they follow from the log. Which one is asked is a matter of speed only.
"""

from __future__ import annotations

from collections import deque

import msgspec

from distribution_manager.core import causes
from distribution_manager.core.limits import (
    PRIMARY_DISTANCE_MARGIN_MS,
    PRIMARY_SILENT_MS,
    PROMOTE_AFTER_MS,
    RESULT_BOUND_MS,
)
from distribution_manager.core.messages import Verdict
from distribution_manager.core.replication import Replication
from distribution_manager.core.request import Request, Surroundings
from shadow_nodes.protocol.messages import Answered, AnswerState, Applied, Ask


class Awaited(msgspec.Struct, gc=False):
    """Requests of a committed entry whose results have not come: (index in the entry, request)."""

    seq: int
    since_ms: int
    requests: list[tuple[int, Request]]


class Results:
    def __init__(self, around: Surroundings, replication: Replication, primary: str) -> None:
        self.primary = primary
        self._around = around
        self._replication = replication
        self._awaited: deque[Awaited] = deque()
        self._counted: list[Request] = []
        """Questions for counts whose token is confirmed: the next summary answers them."""
        self._asking = False
        """An answer is on its way, or was lost: ``chase`` sees to that."""
        self._asked_ms = around.now.monotonic_ms
        self._heard_ms = around.now.monotonic_ms
        self._passed_over_ms: int | None = None
        """Since when another than the primary is asked."""

    @property
    def waiting(self) -> bool:
        return bool(self._awaited or self._counted)

    @property
    def passed_over(self) -> bool:
        return self._passed_over_ms is not None

    # --- waiting ---------------------------------------------------------------------------------------------------

    def expect(self, seq: int, requests: list[tuple[int, Request]]) -> None:
        """These operations of a committed entry have results."""
        self._awaited.append(Awaited(seq, self._around.now.monotonic_ms, requests))

    def count(self, requests: list[Request]) -> None:
        """These questions for counts may be answered from any state from now on."""
        self._counted += requests
        self.ask()

    def drain(self) -> list[Request]:
        requests = [request for item in self._awaited for _, request in item.requests] + self._counted
        self._awaited.clear()
        self._counted = []
        return requests

    # --- answers ---------------------------------------------------------------------------------------------------

    def on_applied(self, message: Applied) -> None:
        """Finishes what these results are for. What was applied before them was missed, or too large: asks for it."""
        awaited = self._awaited
        if not awaited or awaited[0].seq > message.seq:
            return
        results = {(seq, index): result for seq, index, result in message.results}
        missed: list[Awaited] = []
        while awaited and awaited[0].seq <= message.seq:
            item = awaited.popleft()
            if item.seq <= message.after_seq:
                missed.append(item)
                continue
            for index, request in item.requests:
                request.finish(request, Verdict.DONE, results.get((item.seq, index)), None)
        awaited.extendleft(reversed(missed))
        if missed and not self._asking:
            self.ask()

    def on_answered(self, message: Answered) -> None:
        done = {
            (session, counter): result
            for session, counter, state, result in message.answers
            if state is AnswerState.DONE
        }
        self._asking = False
        left: deque[Awaited] = deque()
        for item in self._awaited:
            kept = []
            for index, request in item.requests:
                if (request.session, request.counter) in done:
                    request.finish(request, Verdict.DONE, done[request.session, request.counter], None)
                elif not request.finished:
                    kept.append((index, request))
            if kept:
                item.requests = kept
                left.append(item)
        self._awaited = left
        if left and done:
            self.ask()
        if message.summary.seq >= self._replication.commit_seq:
            counted, self._counted = self._counted, []
            for request in counted:
                request.finish(request, Verdict.DONE, None, message.summary)

    def heard(self, node: str) -> None:
        if node == self.primary:
            self._heard_ms = self._around.now.monotonic_ms

    # --- asking ----------------------------------------------------------------------------------------------------

    def choose(self) -> None:
        """Asks the primary; where that is being asked or out of reach, the nearest other voter that keeps up."""
        replication = self._replication
        candidates = [follower.node for follower in replication.current_voters()]
        before = replication.acting
        if self.primary in candidates and before != self.primary and self._near_enough(candidates[0]):
            replication.acting = self.primary
            self._passed_over_ms = None
        else:
            others = [node for node in candidates if node != before] or candidates
            replication.acting = others[0] if others else ""
        if replication.acting != self.primary and self._passed_over_ms is None:
            self._passed_over_ms = self._around.now.monotonic_ms
        if replication.acting not in {"", before}:
            self.ask()

    def _near_enough(self, nearest: str) -> bool:
        """Whether the primary may stay where it is: an owner far from it would pay its distance for every result."""
        around = self._around
        return around.distance_ms(self.primary) - around.distance_ms(nearest) <= PRIMARY_DISTANCE_MARGIN_MS

    def ask(self, letters_max: int = 0) -> None:
        """Asks the acting replica for what is due, by operation id, and for a summary."""
        replication = self._replication
        replication.tell_commit(replication.acting)
        operations = [
            (request.session, request.counter)
            for item in self._awaited
            if item.seq <= replication.commit_seq
            for _, request in item.requests
        ]
        self._asked_ms = self._around.now.monotonic_ms
        self._asking = True
        self._around.send(replication.acting, Ask(replication.shard, replication.token, operations, letters_max))

    def chase(self, *, opening: bool) -> None:
        """What has not been answered in time is asked of another. ``opening``: a summary is waited for, at least."""
        now_ms = self._around.now.monotonic_ms
        if opening or self._counted:
            since_ms = self._asked_ms
        elif self._awaited:
            since_ms = max(self._awaited[0].since_ms, self._asked_ms)
        else:
            return
        if now_ms - since_ms >= self._around.patience_ms(self._replication.acting, RESULT_BOUND_MS):
            self._asked_ms = now_ms
            self.choose()
            if self._replication.acting:
                self.ask()

    # --- the primary -----------------------------------------------------------------------------------------------

    def successor(self) -> tuple[str, str] | None:
        """The node that should be primary instead of one out of reach, silent or too far from the owner; and why."""
        replication = self._replication
        if self._passed_over_ms is None or replication.acting in {"", self.primary}:
            return None
        well = self._primary_well()
        if well and self._near_enough(replication.acting):
            return None
        if self._around.now.monotonic_ms - self._passed_over_ms < PROMOTE_AFTER_MS:
            return None
        return replication.acting, causes.DISTANCE if well else causes.FAILURE

    def _primary_well(self) -> bool:
        """Whether the primary keeps up and has not been silent: one that is only slow keeps its place."""
        silent_ms = self._around.now.monotonic_ms - self._heard_ms
        return self._replication.keeps_up(self.primary) and silent_ms < PRIMARY_SILENT_MS

    def return_to_primary(self) -> None:
        """Results come from the primary again where it was passed over and has been heard since.

        One that was named while it was too far off to be turned to has not been passed over, until it is away as well.
        """
        if self._passed_over_ms is None:
            replication = self._replication
            if replication.acting not in {"", self.primary} and not replication.keeps_up(self.primary):
                self._passed_over_ms = self._around.now.monotonic_ms
        elif self._heard_ms > self._passed_over_ms:
            self._turn_to_primary()

    def promoted(self, primary: str) -> None:
        """The metadata names another primary, of which nothing bad is known yet."""
        self.primary = primary
        if self._replication.acting == primary:
            self._passed_over_ms = None
            return
        self._heard_ms = self._around.now.monotonic_ms
        self._turn_to_primary()

    def _turn_to_primary(self) -> None:
        replication = self._replication
        if self._primary_well() and self._near_enough(replication.acting):
            replication.acting = self.primary
            self._passed_over_ms = None
            self.ask()
