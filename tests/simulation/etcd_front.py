"""A manager's way to the simulated etcd: delays, lost requests and answers, a session, a watch.

Model: what etcd does is the MemoryCluster's business; here is what may happen between it and a manager. A request that
was given up may still be carried out later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from distribution_manager.coordination.interface import CoordinationUnavailable
from distribution_manager.coordination.memory import MemoryWatch
from distribution_manager.core.transactions import Outcome, Put, Transaction
from shadow_nodes.protocol.errors import OutcomeUnknownError
from tests.simulation.loop import MS, SECOND

if TYPE_CHECKING:
    from tests.simulation.manager_process import ManagerProcess

ETCD = "etcd"
CALL_US = 2 * SECOND
"""A call without an answer is given up after this."""
RETRY_US = 300 * MS


class EtcdFront:
    """For one life of a manager."""

    def __init__(self, process: ManagerProcess) -> None:
        self.process = process
        self.world = process.world
        self.cluster = process.world.cluster
        self.lease: int | None = None
        self.watch = MemoryWatch(self.cluster)
        self._polling = False
        self._call_number = 0
        self._calling_until_us = 0
        """Until when the session waits for an answer; what comes later is not believed."""
        self.cluster.listeners.append(self._look)
        self._look()
        self._keep_session()

    def close(self) -> None:
        self.cluster.listeners.remove(self._look)

    def _cut(self) -> bool:
        cuts = self.world.network._cuts
        return (self.process.name, ETCD) in cuts or (ETCD, self.process.name) in cuts

    def _delay_us(self) -> float:
        return self.world.random.uniform(0.5, 2.0) * self.world.plan.etcd_us * self.world.etcd_factor

    # --- transactions ----------------------------------------------------------------------------------------------

    def transact(self, transaction: Transaction, done: Callable[[Outcome | None], None]) -> None:
        """``done`` is an input of the process: the outcome, or None where it is not known."""
        over = False
        process, loop, random = self.process, self.world.loop, self.world.random
        lease, generation = self.lease, self.cluster.generation
        leased = any(isinstance(change, Put) and change.leased for change in transaction.changes)

        def answer(outcome: Outcome | None) -> None:
            nonlocal over
            if not over:
                over = True
                process.enter()
                done(outcome)

        def tell(outcome: Outcome, generation: int) -> None:
            """Whoever puts a backup back stops all members before: what they had on the way is lost."""
            if generation == self.cluster.generation:
                answer(outcome)

        def execute() -> None:
            if self._cut():
                return
            if random.random() < self.world.etcd_loss or generation != self.cluster.generation:
                # what was under way to an etcd that has been restored meanwhile is lost with its connections
                return
            if leased and lease != self.lease:
                # a session's calls go one after the other: none is overtaken by one of the next session
                return
            try:
                outcome = self.cluster.transact(transaction, lease)
            except CoordinationUnavailable:
                process.input(self._delay_us(), answer, None)
                return
            except OutcomeUnknownError:
                return
            if random.random() >= self.world.etcd_loss:
                process.input(self._delay_us(), tell, outcome, self.cluster.generation)

        loop.later(self._delay_us(), execute)
        process.timer(CALL_US, answer, None)

    # --- session ---------------------------------------------------------------------------------------------------

    def _keep_session(self) -> None:
        """Every third of the lease's time: prolongs it, or begins a new one. One call at a time, as a session makes."""
        process, now_us = self.process, self.world.loop.now_us
        ttl_ms = self.world.plan.lease_ms
        process.timer(ttl_ms * MS / 3, self._keep_session)
        if now_us < self._calling_until_us:
            return
        self._calling_until_us = now_us + CALL_US
        self._call_number += 1
        number = self._call_number

        def call() -> None:
            if self._cut():
                return
            now_ms = self.world.loop.now_us // MS
            try:
                lease = self.lease
                if lease is None or not self.cluster.keep_alive(lease, now_ms):
                    lease = self.cluster.grant(ttl_ms, now_ms)
            except CoordinationUnavailable:
                return
            process.input(self._delay_us(), self._answered, lease, number)

        self.world.loop.later(self._delay_us(), call)

    def _answered(self, lease: int, number: int) -> None:
        if number != self._call_number or self.world.loop.now_us >= self._calling_until_us:
            return
        self._calling_until_us = 0
        if lease != self.lease:
            self.lease = lease
            self.process.register(lease)

    # --- watch -----------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        if not self._polling:
            self._polling = True
            # one that takes longer is given up, and asked for again
            self.process.input(min(self._delay_us(), CALL_US), self._poll)

    def _poll(self) -> None:
        self._polling = False
        if self._cut() or not self.cluster.available or self.watch.interrupted:
            self._polling = True
            self.process.timer(RETRY_US, self._poll)
            return
        item = self.watch.step()
        if item is not None:
            self.process.etcd_says(item)
            self._look()
