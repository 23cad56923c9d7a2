"""Simulated clients: each does one thing after another, through any manager, and writes down what it saw."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shadow_nodes.protocol.commands import (
    Batch,
    ChangeVisibility,
    Content,
    Delete,
    Items,
    Purge,
    Receive,
    Refusal,
    Send,
    Sent,
)
from tests.simulation.backend import Backend
from tests.simulation.history import GotMessage, Op, SentMessage
from tests.simulation.loop import MS
from tests.simulation.manager_process import ManagerProcess

if TYPE_CHECKING:
    from tests.simulation.world import World

VISIBLE_MS = (300, 1_000, 3_000, 8_000)
GROUPS = 3
DEAD = "connection refused"
DEDUPS = 6
Work = Callable[[Backend, Op, Callable[[str, Any], None]], None]


class Client:
    takes: tuple[int, ...] = (1, 1, 3, 10)

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.random = world.random
        self.held: list[tuple[str, str, int, int]] = []
        """(queue name, queue id, key, delivery) of what it has received and not deleted."""
        self._bodies = 0
        self._again: list[tuple[str, list[SentMessage]]] = []
        self._attempt_again: tuple[str, str] | None = None
        self._kinds = [kind for kind, weight in world.plan.weights.items() for _ in range(weight)]

    def start(self) -> None:
        self.world.loop.later(self.random.uniform(0, self.world.plan.think_us), self._next)

    def _think(self) -> None:
        self.world.loop.later(self.random.expovariate(1 / self.world.plan.think_us), self._next)

    def _next(self) -> None:
        if not self.world.working:
            return
        kind = self.random.choice(self._kinds)
        getattr(self, f"_{kind}")(self.random.choice(self.world.names))

    # --- asking ----------------------------------------------------------------------------------------------------

    def ask(self, op: Op, work: Work, ended: Callable[[Op, Any], None], manager: ManagerProcess | None = None) -> None:
        """Has a manager do ``work``; ``ended`` is told the op, with its status, and the answer's value."""
        world, loop = self.world, self.world.loop
        if manager is None:
            manager = self.random.choice(world.manager_list)
        chosen = manager
        op.manager = chosen.name
        world.history.ops.append(op)
        over = False
        number = world.number()

        def complete(status: str, value: Any) -> None:
            nonlocal over
            if over:
                return
            over = True
            chosen.calls.pop(number, None)
            op.status = "unknown" if status == "gone" else status
            op.completed_us = loop.now_us
            ended(op, value)

        def arrive() -> None:
            chosen.enter()
            backend = Backend(chosen, lambda: not over)
            work(backend, op, lambda status, value: loop.later(self._way_us(), complete, status, value))

        if not chosen.alive:
            loop.later(self._way_us(), complete, "refused", DEAD)
            return
        chosen.calls[number] = lambda: complete("unknown", None)
        chosen.input(self._way_us(), arrive)
        loop.later(self.random.choice(world.plan.timeouts_us), complete, "unknown", None)

    def _way_us(self) -> float:
        return self.random.uniform(0.2 * MS, 3 * MS)

    def _op(self, kind: str) -> Op:
        return Op(self.world.number(), self.name, kind, "", self.world.loop.now_us)

    def _done(self, op: Op, value: Any) -> None:
        self._think()

    # --- what clients do -------------------------------------------------------------------------------------------

    def _send(self, name: str) -> None:
        fifo = name.endswith(".fifo")
        if self._again and self.random.random() < 0.7:
            name, messages = self._again.pop()
        else:
            messages = [self._message(fifo) for _ in range(self.random.choice((1, 1, 1, 2, 5)))]
        op = self._op("send")
        op.sent = messages
        contents = [
            Content(m.body, b"", m.group, m.dedup, "", "", m.delay_ms or None if not fifo else None) for m in messages
        ]

        def ended(op: Op, value: Any) -> None:
            if op.status == "ok":
                session, counter, result = value
                op.id = session, counter
                op.sent = [self._acknowledged(m, i, session, counter, result) for i, m in enumerate(messages)]
            elif op.status == "unknown" and self.random.random() < 0.7:
                self._again.append((name, messages))
            self._think()

        self.ask(op, lambda backend, op, answer: backend.execute(name, op, Send(contents), 0, answer), ended)

    def _message(self, fifo: bool) -> SentMessage:
        self._bodies += 1
        body = f"{self.name}.{self._bodies}"
        if not fifo:
            return SentMessage(body, delay_ms=self.random.choice((0, 0, 0, 0, 700)))
        dedup = f"{self.name}.{self._bodies}"
        if self.random.random() < 0.15:
            dedup = f"shared{self.random.randrange(DEDUPS)}"
        return SentMessage(body, f"g{self.random.randrange(GROUPS)}", dedup)

    @staticmethod
    def _acknowledged(message: SentMessage, index: int, session: int, counter: int, result: Any) -> SentMessage:
        key, message_id = 0, (session, counter, index)
        if isinstance(result, Sent):
            item = result.messages[index]
            assert not isinstance(item, Refusal), item
            key, message_id = item
        return SentMessage(message.body, message.group, message.dedup, message.delay_ms, tuple(message_id), key)

    def _receive(self, name: str) -> None:
        attempt = ""
        if name.endswith(".fifo"):
            if self._attempt_again is not None and self._attempt_again[0] == name:
                attempt = self._attempt_again[1]
            elif self.random.random() < 0.3:
                attempt = f"{self.name}.{self.world.number()}"
        self._attempt_again = None
        self.receive(name, self.random.choice(VISIBLE_MS), self.random.choice((0, 0, 500, 2_500)), attempt)

    def receive(self, name: str, visible_ms: int, wait_ms: int, attempt: str) -> None:
        op = self._op("receive")
        op.visible_ms, op.wait_ms, op.attempt = visible_ms, wait_ms, attempt
        command = Receive(self.random.choice(self.takes), visible_ms, attempt)

        def ended(op: Op, value: Any) -> None:
            if op.status == "ok":
                self.got(name, op, value[2])
            if attempt and (op.status == "unknown" or self.random.random() < 0.1):
                self._attempt_again = (name, attempt)
            self._think()

        self.ask(op, lambda backend, op, answer: backend.execute(name, op, command, wait_ms, answer), ended)

    def got(self, name: str, op: Op, result: Any) -> None:
        assert isinstance(result, Batch), result
        op.got = [
            GotMessage(m.content.body, tuple(m.message_id), m.key, m.delivery, m.content.group_id, m.sent_ms)
            for m in result.messages
        ]
        self.held += [(name, op.queue, m.key, m.delivery) for m in op.got]

    def _handles(self) -> tuple[str, str, list[tuple[int, int]]] | None:
        """Some of what it holds, all of one queue."""
        if not self.held:
            return None
        name, queue, _, _ = self.random.choice(self.held)
        mine = [item for item in self.held if item[1] == queue][: self.random.choice((1, 1, 3, 10))]
        return name, queue, [(key, delivery) for _, _, key, delivery in mine]

    def _delete(self, _name: str) -> None:
        chosen = self._handles()
        if chosen is None:
            self._think()
            return
        name, queue, handles = chosen
        self.delete(name, queue, handles, self._think)

    def delete(self, name: str, queue: str, handles: list[tuple[int, int]], then: Callable[[], None]) -> None:
        op = self._op("delete")
        op.handles = handles

        def ended(op: Op, value: Any) -> None:
            if op.status == "ok":
                op.done = _done_each(value[2], len(handles))
            if op.status == "ok" or self.random.random() < 0.5:
                gone = set(handles)
                self.held = [item for item in self.held if item[1] != queue or (item[2], item[3]) not in gone]
            then()

        self.ask(
            op, lambda backend, op, answer: backend.execute(name, op, Delete(handles), 0, answer, queue_id=queue), ended
        )

    def _change(self, _name: str) -> None:
        chosen = self._handles()
        if chosen is None:
            self._think()
            return
        name, queue, handles = chosen
        op = self._op("change")
        op.handles = handles
        op.visible_ms = self.random.choice((0, 500, 4_000))
        command = ChangeVisibility([(key, delivery, op.visible_ms) for key, delivery in handles])

        def ended(op: Op, value: Any) -> None:
            if op.status == "ok":
                op.done = _done_each(value[2], len(handles))
            self._think()

        self.ask(op, lambda backend, op, answer: backend.execute(name, op, command, 0, answer, queue_id=queue), ended)

    def _purge(self, name: str) -> None:
        if self.random.random() < 0.8:
            self._think()
            return
        self.ask(
            self._op("purge"), lambda backend, op, answer: backend.execute(name, op, Purge(), 0, answer), self._done
        )

    # --- queues ----------------------------------------------------------------------------------------------------

    def _configure(self, name: str) -> None:
        value = str(self.random.randint(1, 60))
        self.ask(
            self._op("configure"),
            lambda backend, op, answer: backend.change(name, op, {"VisibilityTimeout": value}, answer),
            self._done,
        )

    def _recreate(self, name: str) -> None:
        queue = next(item for item in self.world.plan.queues if item["name"] == name)
        if name.startswith("d") or self.random.random() < 0.9:
            self._think()
            return

        def dropped(op: Op, value: Any) -> None:
            if op.status == "unknown" or value == DEAD:
                self.world.loop.later(500 * MS, drop)
            else:
                self.create(queue, self._think)

        def drop() -> None:
            self.ask(self._op("drop"), lambda backend, op, answer: backend.drop(name, op, answer), dropped)

        drop()

    def create(self, queue: dict[str, Any], then: Callable[[], None]) -> None:
        """Until it is there."""

        def ended(op: Op, value: Any) -> None:
            if op.status == "ok":
                self.world.created(queue["name"], value)
                then()
            else:
                self.world.loop.later(500 * MS, self.create, queue, then)

        self.ask(self._op("create"), lambda backend, op, answer: backend.create(queue, op, answer), ended)


def _done_each(result: Any, count: int) -> list[bool]:
    if isinstance(result, Items):
        return [outcome is None for outcome in result.outcomes]
    return [True] * count
