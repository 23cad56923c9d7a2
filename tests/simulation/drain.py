"""After the faults: reads a queue to its end, as clients do, and notes when the cluster does not answer in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.simulation.clients import Client
from tests.simulation.history import Op
from tests.simulation.loop import MS, SECOND

if TYPE_CHECKING:
    from tests.simulation.world import World

VISIBLE_MS = 20_000
ANSWER_US = 8 * SECOND
"""In a whole cluster no answer takes longer."""


class Drainer(Client):
    takes = (10,)

    def __init__(self, world: World, name: str, live_us: int) -> None:
        super().__init__(world, f"drain.{name}")
        self._queue_name = name
        self._live_us = live_us
        self._stopped = False
        self.sent_us = 0
        self.answered_us = 0
        """When the last operation that was answered well had been asked."""

    def stop(self) -> None:
        self._stopped = True

    def _next(self) -> None:
        if not self._stopped:
            if self.held:
                name, queue, _, _ = self.held[0]
                self.delete(name, queue, [(key, delivery) for _, _, key, delivery in self.held], self._think)
            else:
                self._probe()

    def _probe(self) -> None:
        if self.random.random() < 0.03 and self.world.loop.now_us < self._live_us:
            self.sent_us = self.world.loop.now_us
            self._send(self._queue_name)
        else:
            self.receive(self._queue_name, VISIBLE_MS, 0, "")

    def _think(self) -> None:
        empty = not self.held
        self.world.loop.later(self.random.uniform(100, 300) * MS if empty else 1, self._next)

    def ask(self, op: Op, work: Any, ended: Any, manager: Any = None) -> None:
        def checked(op: Op, value: Any) -> None:
            if op.invoked_us >= self._live_us:
                assert op.completed_us is not None
                late = op.completed_us - op.invoked_us > ANSWER_US
                if op.status == "unknown" or late:
                    took_ms = (op.completed_us - op.invoked_us) // MS
                    self.world.watch.violation("liveness", f"{op.kind} of {self.name}: {op.status} after {took_ms} ms")
            if op.status == "ok":
                self.answered_us = op.invoked_us
            if op.status == "refused" and op.kind == "receive":
                # a deletion of the queue that had been given up has happened after all
                self.create(
                    next(item for item in self.world.plan.queues if item["name"] == self._queue_name), self._think
                )
            else:
                ended(op, value)

        super().ask(op, work, checked, manager)
