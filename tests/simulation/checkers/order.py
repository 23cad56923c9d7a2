"""FIFO: within a group in the order of sending, and nothing past a member that is still there (P4)."""

from __future__ import annotations

from tests.simulation.checkers.common import cleared, deletes_by_key
from tests.simulation.history import History, Op, QueueFacts


def check_order(history: History) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    deletes = deletes_by_key(history)
    for facts in history.queues:
        if facts.fifo:
            found += _check_sends(history, facts.queue)
            found += _check_receives(history, facts, deletes)
    return found


def _check_sends(history: History, queue: str) -> list[tuple[str, str]]:
    """Of two sends one after the other, the later has the greater sequence numbers; so have messages of one send."""
    found: list[tuple[str, str]] = []
    done: list[tuple[int, int, Op]] = []
    for op in history.of("send", queue):
        if op.status == "ok" and op.completed_us is not None:
            fresh = [m.key for m in op.sent if m.dedup == m.body]
            if fresh != sorted(fresh):
                found.append(("order", f"send {op.number} has the sequence numbers {fresh}"))
            if fresh and not _repeated(history, op):
                done.append((min(fresh), max(fresh), op))
    for least, _, op in done:
        for _, greatest, before in done:
            assert before.completed_us is not None
            if before.completed_us < op.invoked_us and greatest > least:
                found.append(("order", f"send {op.number} came before the earlier send {before.number}"))
    return found


def _repeated(history: History, op: Op) -> bool:
    """Whether another send carried the same messages: then either may be the one that made them."""
    bodies = {message.body for message in op.sent}
    return any(
        other is not op and any(message.body in bodies for message in other.sent)
        for other in history.of("send", op.queue)
    )


Deletes = dict[tuple[str, int], list[tuple[Op, int, bool]]]


class _Queue:
    """What a queue's members could have become of, by key."""

    def __init__(self, history: History, facts: QueueFacts, deletes: Deletes) -> None:
        self.facts = facts
        self.deletes = deletes
        self.clears = cleared(history, facts.queue)
        self.receives = [op for op in history.of("receive", facts.queue) if op.status == "ok" and op.got]
        self.lost = [op for op in history.of("receive", facts.queue) if op.status == "unknown"]
        self.groups: dict[str, set[int]] = {}
        """The keys that are known, by group: acknowledged, or received."""
        for op in history.of("send", facts.queue):
            for index, message in enumerate(op.sent):
                if message.key and message.message_id == (*op.id, index):
                    self.groups.setdefault(message.group, set()).add(message.key)
        self.deliveries: dict[int, list[tuple[int, int]]] = {}
        """By key: (when its receive was asked, its number) of each delivery."""
        for op in self.receives:
            for got in op.got:
                self.groups.setdefault(got.group, set()).add(got.key)
                self.deliveries.setdefault(got.key, []).append((op.invoked_us, got.delivery))

    def may_be_gone(self, key: int, op: Op) -> bool:
        """Whether a message may have left the queue before a receive ended."""
        assert op.completed_us is not None
        end_us = op.completed_us
        if any(clear.invoked_us < end_us for clear in self.clears):
            return True
        if any(delete.invoked_us < end_us for delete, _, _ in self.deletes.get((self.facts.queue, key), [])):
            return True
        if not self.facts.dead_letter:
            return False
        seen = [number for asked_us, number in self.deliveries.get(key, []) if asked_us < end_us]
        unseen = sum(lost.invoked_us < end_us for lost in self.lost)
        return max(seen, default=0) + unseen >= self.facts.max_receives


def _check_receives(history: History, facts: QueueFacts, deletes: Deletes) -> list[tuple[str, str]]:
    """A message comes only when every earlier one of its group is gone, or comes before it in the same answer."""
    queue = _Queue(history, facts, deletes)
    found = []
    for op in queue.receives:
        before: dict[str, set[int]] = {}
        for got in op.got:
            same = before.setdefault(got.group, set())
            if any(key > got.key for key in same):
                found.append(("order", f"receive {op.number} gave group {got.group} out of order: {got.key}"))
            found += [
                ("order", f"receive {op.number} gave key {got.key} past key {key} of group {got.group}")
                for key in sorted(queue.groups[got.group])
                if key < got.key and key not in same and not queue.may_be_gone(key, op)
            ]
            same.add(got.key)
    return found
