"""FIFO: within a group in the order of sending, and nothing past a member that is still there (P4)."""

from __future__ import annotations

from tests.simulation.checkers.common import cleared, deletes_by_key
from tests.simulation.history import History, Op


def check_order(history: History) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    deletes = deletes_by_key(history)
    for facts in history.queues:
        if facts.fifo:
            found += _check_sends(history, facts.queue)
            found += _check_receives(history, facts.queue, deletes, bool(facts.dead_letter))
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


def _check_receives(
    history: History, queue: str, deletes: dict[tuple[str, int], list[tuple[Op, int, bool]]], dead_letters: bool
) -> list[tuple[str, str]]:
    """A message comes only when every earlier one of its group is deleted, or comes before it in the same answer."""
    known: dict[str, dict[int, int]] = {}
    """Group to keys, with the time by which each was surely there."""
    for op in history.of("send", queue):
        if op.status == "ok":
            for message in op.sent:
                assert op.completed_us is not None
                if message.dedup == message.body or message.key:
                    known.setdefault(message.group, {}).setdefault(message.key, op.completed_us)
    bodies = {m.key: m.group for op in history.of("send", queue) for m in op.sent if m.key and m.dedup == m.body}
    receives = [op for op in history.of("receive", queue) if op.status == "ok" and op.got]
    for op in receives:
        for got in op.got:
            bodies[got.key] = got.group
    received: dict[int, list[Op]] = {}
    for op in receives:
        for got in op.got:
            received.setdefault(got.key, []).append(op)
    purges = cleared(history, queue)
    found = []
    for op in receives:
        keys = [(got.group, got.key) for got in op.got]
        for index, (group, key) in enumerate(keys):
            if any(other == group and earlier > key for other, earlier in keys[:index]):
                found.append(("order", f"receive {op.number} gave group {group} out of order: {keys}"))
            before = {earlier for other, earlier in keys[:index] if other == group}
            for earlier in known.get(group, {}):
                if earlier >= key or earlier in before or bodies.get(earlier) != group:
                    continue
                if not _may_be_gone(earlier, queue, op, deletes, purges, dead_letters):
                    found.append(("order", f"receive {op.number} gave key {key} past key {earlier} of group {group}"))
    return found


def _may_be_gone(
    key: int,
    queue: str,
    op: Op,
    deletes: dict[tuple[str, int], list[tuple[Op, int, bool]]],
    purges: list[Op],
    dead_letters: bool,
) -> bool:
    assert op.completed_us is not None
    if dead_letters:
        return True
    if any(purge.invoked_us < op.completed_us for purge in purges):
        return True
    return any(delete.invoked_us < op.completed_us for delete, _, _ in deletes.get((queue, key), []))
