"""Judges a history of what clients saw.

Model: an operation took effect at one unknown moment between its begin and its end. A checker reports only what no
choice of such moments explains, so that whatever it reports is a fault of the system and not of the observation.
Invariant: ``valid`` is said only of a history that proves it: one that was not drained, or in which nothing was
acknowledged, is ``unknown`` at best.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final, Literal

import msgspec

from distribution_manager.drills.history import DRAINED, Delivery, History, Mark, Operation, operations

SLACK_S: Final = 0.05
"""How much earlier than its visibility timeout a message may return: clocks are read in milliseconds."""
PROBLEMS_SHOWN: Final = 10

Problems = Iterator[str]


class Verdict(msgspec.Struct, frozen=True):
    """``problems``: what makes it invalid. ``doubts``: what keeps a history without problems from being valid."""

    verdict: Literal["valid", "invalid", "unknown"]
    problems: list[str]
    doubts: list[str]
    counts: dict[str, int]

    def __str__(self) -> str:
        reasons = self.problems or self.doubts
        more = [f"... and {len(reasons) - PROBLEMS_SHOWN} more"] if len(reasons) > PROBLEMS_SHOWN else []
        counts = ", ".join(f"{count} {name}" for name, count in self.counts.items())
        return "\n  ".join([f"{self.verdict}: {counts}", *reasons[:PROBLEMS_SHOWN], *more])


def check(history: History, *, failing_endpoints: Collection[str] | None = ()) -> Verdict:
    """Every checker over every queue. Calls may have failed only at ``failing_endpoints`` (None: anywhere)."""
    calls = operations(history)
    problems = [problem for checker in CHECKERS for queue in _by_queue(calls).values() for problem in checker(queue)]
    if failing_endpoints is not None:
        problems += failures(calls, failing_endpoints)
    doubts = list(_doubts(history, calls))
    verdict: Literal["valid", "invalid", "unknown"] = "invalid" if problems else "unknown" if doubts else "valid"
    return Verdict(verdict, problems, doubts, count(calls))


def nothing_lost(calls: list[Operation]) -> Problems:
    """Every acknowledged send was deleted by somebody: in a drained history, nothing else may become of it."""
    removed = {call.message_id for call in calls if call.kind == "delete" and call.outcome != "failed"}
    for send in _sends(calls, "ok"):
        if send.message_id not in removed:
            yield f"lost: {_name(send)}, acknowledged at {send.endpoint} after {send.end_s:.3f} s"


def nothing_unexpected(calls: list[Operation]) -> Problems:
    """Every message delivered was sent, with this body, and not refused."""
    sent = {call.body: call for call in calls if call.kind == "send"}
    for receive, delivery in _deliveries(calls):
        send = sent.get(delivery.body)
        if send is None:
            yield f"unexpected: {delivery.message_id} with a body that nobody sent, received at {receive.end_s:.3f} s"
        elif send.outcome == "failed":
            yield f"unexpected: {_name(send)} was refused ({send.error}), but received at {receive.end_s:.3f} s"


def no_duplicates(calls: list[Operation]) -> Problems:
    """A body has one message, unless its sender (or the SDK for it) repeated a send that was never acknowledged."""
    messages: dict[str, set[str]] = defaultdict(set)
    for _, delivery in _deliveries(calls):
        messages[delivery.body].add(delivery.message_id)
    for send in _sends(calls, "ok"):
        messages[send.body].add(send.message_id)
    repeated = {call.body for call in calls if call.kind == "send" and (call.retries or call.outcome == "unknown")}
    fifo = {call.body for call in calls if call.kind == "send" and call.group}
    for body, message_ids in messages.items():
        if len(message_ids) > 1 and (body not in repeated or body in fifo):
            yield f"duplicate: {body} became {len(message_ids)} messages: {', '.join(sorted(message_ids))}"


def no_resurrection(calls: list[Operation]) -> Problems:
    """No receive that began after a delete was acknowledged brings the message."""
    deleted: dict[str, Operation] = {}
    for call in calls:
        if call.kind == "delete" and call.outcome == "ok":
            first = deleted.get(call.message_id)
            deleted[call.message_id] = call if first is None or call.end_s < first.end_s else first
    for receive, delivery in _deliveries(calls):
        delete = deleted.get(delivery.message_id)
        if delete is not None and receive.begin_s > delete.end_s:
            yield (
                f"resurrected: {delivery.body} ({delivery.message_id}), deleted at {delete.end_s:.3f} s, "
                f"received again at {receive.end_s:.3f} s from {receive.endpoint}"
            )


def one_holder(calls: list[Operation]) -> Problems:
    """Two deliveries of a message are a visibility timeout apart, in one order or the other."""
    receives: dict[str, list[Operation]] = defaultdict(list)
    for receive, delivery in _deliveries(calls):
        receives[delivery.message_id].append(receive)
    for message_id, holders in receives.items():
        holders.sort(key=lambda holder: holder.end_s)
        for first, second in itertools.pairwise(holders):
            apart = second.end_s + SLACK_S >= first.begin_s + first.visibility_s
            other_order = first.end_s + SLACK_S >= second.begin_s + second.visibility_s
            if not (apart or other_order):
                yield (
                    f"two holders: {message_id}: {first.worker} at {first.end_s:.3f} s, for {first.visibility_s:g} s, "
                    f"and {second.worker} at {second.end_s:.3f} s"
                )


def group_order(calls: list[Operation]) -> Problems:
    """In a message group, what was sent later has the higher number, and comes only after the earlier is deleted.

    Later: its send began after the other's was acknowledged. Two in one receive come in order.
    """
    deleted = _earliest_delete(calls)
    receives: dict[str, list[Operation]] = defaultdict(list)
    for receive, delivery in _deliveries(calls):
        receives[delivery.message_id].append(receive)
    for group in _groups(calls).values():
        for earlier, later in itertools.pairwise(group):
            if earlier.end_s > later.begin_s:
                continue
            if earlier.sequence >= later.sequence:
                yield f"order: {_name(later)} has number {later.sequence}, {_name(earlier)} {earlier.sequence}"
            for receive in receives[later.message_id]:
                gone = deleted.get(earlier.message_id, float("inf")) <= receive.end_s
                if not gone and not _comes_before(receive, earlier.message_id, later.message_id):
                    yield f"order: {_name(later)} came at {receive.end_s:.3f} s, before {_name(earlier)} was gone"


CHECKERS: Final[tuple[Callable[[list[Operation]], Problems], ...]] = (
    nothing_lost,
    nothing_unexpected,
    no_duplicates,
    no_resurrection,
    one_holder,
    group_order,
)


def failures(calls: Iterable[Operation], allowed: Collection[str]) -> Problems:
    """Calls that their client saw fail, at endpoints where none should."""
    for call in calls:
        if call.outcome != "ok" and call.endpoint not in allowed:
            when = f"{call.begin_s:.3f} to {call.end_s:.3f} s"
            yield f"{call.outcome} {call.kind} at {call.endpoint}, {when}: {call.error}"


def count(calls: Iterable[Operation]) -> dict[str, int]:
    """How many calls of each kind were answered, and how many were not."""
    counts = {"sends": 0, "receives": 0, "deliveries": 0, "deletes": 0, "failed": 0, "unknown": 0}
    for call in calls:
        counts[f"{call.kind}s" if call.outcome == "ok" else call.outcome] += 1
        counts["deliveries"] += len(call.deliveries)
    return counts


def _doubts(history: History, calls: list[Operation]) -> Iterator[str]:
    marks = [record for record in history if isinstance(record, Mark) and record.name == DRAINED]
    for queue, queue_calls in _by_queue(calls).items():
        drains = [mark for mark in marks if mark.queue in ("", queue)]
        sent = [call.end_s for call in queue_calls if call.kind == "send"]
        if not any(mark.end_s >= max(sent, default=0.0) for mark in drains):
            yield f"{queue} was not drained after the last send: what is missing may still be there"
        if not any(call.outcome == "ok" for call in queue_calls if call.kind == "send"):
            yield f"{queue}: no send was acknowledged"
    if not calls:
        yield "nothing was done"


def _by_queue(calls: Iterable[Operation]) -> dict[str, list[Operation]]:
    queues: dict[str, list[Operation]] = defaultdict(list)
    for call in calls:
        queues[call.queue].append(call)
    return queues


def _sends(calls: Iterable[Operation], outcome: str) -> Iterator[Operation]:
    return (call for call in calls if call.kind == "send" and call.outcome == outcome)


def _deliveries(calls: Iterable[Operation]) -> Iterator[tuple[Operation, Delivery]]:
    return ((call, delivery) for call in calls for delivery in call.deliveries)


def _groups(calls: Iterable[Operation]) -> dict[str, list[Operation]]:
    """Group -> its acknowledged sends, in order of their begin."""
    groups: dict[str, list[Operation]] = defaultdict(list)
    for send in _sends(calls, "ok"):
        if send.group:
            groups[send.group].append(send)
    for sends in groups.values():
        sends.sort(key=lambda send: send.begin_s)
    return groups


def _earliest_delete(calls: Iterable[Operation]) -> dict[str, float]:
    """Message id -> the earliest moment at which a delete may have removed it."""
    earliest: dict[str, float] = {}
    for call in calls:
        if call.kind == "delete" and call.outcome != "failed":
            earliest[call.message_id] = min(call.begin_s, earliest.get(call.message_id, call.begin_s))
    return earliest


def _comes_before(receive: Operation, earlier: str, later: str) -> bool:
    ids = [delivery.message_id for delivery in receive.deliveries]
    return earlier in ids and ids.index(earlier) < ids.index(later)


def _name(send: Operation) -> str:
    return f"{send.body} ({send.message_id or 'no message id'})"
