"""The checkers, on histories written by hand: each good one valid, each bad one found, and for the right reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distribution_manager.drills.checkers import check
from distribution_manager.drills.history import (
    DRAINED,
    Delivery,
    History,
    Mark,
    Operation,
    Outcome,
    Record,
    Recorder,
    read_history,
)

VISIBILITY_S = 30.0


def send(at: float, name: str, outcome: Outcome = "ok", **more: Any) -> Operation:
    given: dict[str, Any] = {"message_id": f"id-{name}" if outcome == "ok" else "", "body": name}
    return operation("send", at, outcome, **(given | more))


def receive(at: float, *names: str, **more: Any) -> Operation:
    deliveries = tuple(Delivery(f"id-{name}", name.partition("/")[0]) for name in names)
    return operation("receive", at, "ok", **({"deliveries": deliveries, "visibility_s": VISIBILITY_S} | more))


def delete(at: float, name: str, outcome: Outcome = "ok", **more: Any) -> Operation:
    return operation("delete", at, outcome, **({"message_id": f"id-{name}", "body": name} | more))


def operation(kind: Any, at: float, outcome: Outcome, **more: Any) -> Operation:
    """Takes a tenth of a second, unless told otherwise."""
    given: dict[str, Any] = {"worker": "w", "endpoint": "a", "queue": "q", "begin_s": at, "end_s": at + 0.1}
    return Operation(kind=kind, outcome=outcome, **(given | more))


def drained(at: float = 1000.0) -> Mark:
    return Mark(DRAINED, at, at)


def fifo(at: float, name: str, sequence: int, **more: Any) -> Operation:
    given: dict[str, Any] = {"group": "g", "sequence": sequence}
    return send(at, name, **(given | more))


LIFE: History = [send(1, "m"), receive(2, "m"), delete(3, "m")]
LATER = VISIBILITY_S + 3

GOOD: dict[str, History] = {
    "one life": LIFE,
    "redelivered after its timeout": [send(1, "m"), receive(2, "m"), receive(LATER, "m"), delete(LATER + 1, "m")],
    "redelivered as soon as may be": [
        send(1, "m"),
        receive(2, "m"),
        receive(2 + VISIBILITY_S - 0.1, "m"),
        delete(LATER, "m"),
    ],
    "received while the delete was under way": [*LIFE[:2], delete(3, "m", end_s=40), receive(39, "m")],
    "delete of unknown outcome took effect": [*LIFE[:2], delete(3, "m", "unknown", endpoint="dead")],
    "delete of unknown outcome did not": [
        *LIFE[:2],
        delete(3, "m", "unknown", endpoint="dead"),
        receive(LATER, "m"),
        delete(LATER + 1, "m"),
    ],
    "send of unknown outcome took effect": [
        *LIFE,
        send(4, "n", "unknown", endpoint="dead"),
        receive(5, "n"),
        delete(6, "n"),
    ],
    "send of unknown outcome did not": [*LIFE, send(4, "n", "unknown", endpoint="dead")],
    "the SDK repeated a send": [
        send(1, "m", retries=1),
        receive(2, "m", "m/2"),
        delete(3, "m"),
        delete(3, "m/2", body="m"),
    ],
    "a group in order": [
        fifo(1, "m", 1),
        fifo(2, "n", 2),
        receive(3, "m"),
        delete(4, "m"),
        receive(5, "n"),
        delete(6, "n"),
    ],
    "a group in order in one receive": [
        fifo(1, "m", 1),
        fifo(2, "n", 2),
        receive(3, "m", "n"),
        delete(4, "m"),
        delete(5, "n"),
    ],
    "sends at once may come in any order": [
        fifo(1, "m", 2, end_s=3),
        fifo(2, "n", 1, end_s=4),
        receive(5, "n", "m"),
        delete(6, "n"),
        delete(7, "m"),
    ],
}

BAD: dict[str, tuple[History, str]] = {
    "an acknowledged send vanished": ([*LIFE, send(4, "n")], "lost: n"),
    "a refused delete removed it": ([*LIFE[:2], delete(3, "m", "failed", endpoint="dead")], "lost: m"),
    "a body from nowhere": ([*LIFE, receive(4, "ghost"), delete(5, "ghost")], "unexpected: id-ghost"),
    "a refused send came through": (
        [*LIFE, send(4, "n", "failed", endpoint="dead"), receive(5, "n"), delete(6, "n")],
        "unexpected: n",
    ),
    "deleted and back": ([*LIFE, receive(LATER, "m")], "resurrected: m"),
    "two holders": ([*LIFE[:2], receive(10, "m", worker="other"), delete(11, "m")], "two holders: id-m"),
    "twice in one receive": ([send(1, "m"), receive(2, "m", "m"), delete(3, "m")], "two holders: id-m"),
    "a send became two": (
        [*LIFE, receive(4, "m/2"), delete(5, "m/2", body="m")],
        "duplicate: m became 2 messages",
    ),
    "a repeated FIFO send became two": (
        [
            fifo(1, "m", 1, retries=1),
            receive(2, "m"),
            delete(3, "m"),
            receive(4, "m/2"),
            delete(5, "m/2"),
        ],
        "duplicate: m became 2 messages",
    ),
    "numbers going back": (
        [fifo(1, "m", 2), fifo(2, "n", 1), receive(3, "m", "n"), delete(4, "m"), delete(5, "n")],
        "order: n",
    ),
    "the later first": (
        [fifo(1, "m", 1), fifo(2, "n", 2), receive(3, "n"), delete(4, "n"), receive(5, "m"), delete(6, "m")],
        "order: n",
    ),
    "past one in flight": (
        [fifo(1, "m", 1), fifo(2, "n", 2), receive(3, "m"), receive(4, "n"), delete(5, "m"), delete(6, "n")],
        "order: n",
    ),
    "out of order in one receive": (
        [fifo(1, "m", 1), fifo(2, "n", 2), receive(3, "n", "m"), delete(4, "n"), delete(5, "m")],
        "order: n",
    ),
    "a failure where there should be none": ([*LIFE, send(4, "n", "unknown", error="503")], "unknown send at a"),
}


@pytest.mark.parametrize("history", GOOD.values(), ids=GOOD.keys())
def test_good(history: History) -> None:
    verdict = check([*history, drained()], failing_endpoints={"dead"})
    assert verdict.verdict == "valid", str(verdict)


@pytest.mark.parametrize(("history", "problem"), BAD.values(), ids=BAD.keys())
def test_bad(history: History, problem: str) -> None:
    verdict = check([*history, drained()], failing_endpoints={"dead"})
    assert verdict.verdict == "invalid"
    assert len(verdict.problems) == 1, verdict.problems
    assert verdict.problems[0].startswith(problem)
    assert problem in str(verdict)


@pytest.mark.parametrize(
    ("history", "doubt"),
    [
        ([], "nothing was done"),
        (LIFE, "q was not drained"),
        ([*LIFE, drained(2), send(2.5, "n"), receive(3, "n"), delete(4, "n")], "q was not drained"),
        ([*LIFE, Mark(DRAINED, 1000, 1000, "other")], "q was not drained"),
        ([receive(1), drained()], "q: no send was acknowledged"),
    ],
)
def test_unknown(history: list[Record], doubt: str) -> None:
    verdict = check(history)
    assert verdict.verdict == "unknown", str(verdict)
    assert verdict.doubts[0].startswith(doubt)


def test_queues_are_judged_apart() -> None:
    other = [operation("send", 1, "ok", queue="r", body="m", message_id="id-m")]
    verdict = check([*LIFE, *other, drained()])
    assert verdict.problems == ["lost: m (id-m), acknowledged at a after 1.100 s"]


def test_a_history_survives_its_file(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "history.jsonl")
    for record in LIFE:
        recorder.add(record)
    recorder.mark("kill node-a")
    recorder.close()
    history = read_history(tmp_path / "history.jsonl")
    assert history == recorder.history()
    assert isinstance(history[-1], Mark)
    assert check(history).counts == {
        "sends": 1,
        "receives": 1,
        "deliveries": 1,
        "deletes": 1,
        "failed": 0,
        "unknown": 0,
    }
