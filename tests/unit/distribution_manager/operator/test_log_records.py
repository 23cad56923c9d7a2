"""Records for people, and what a replay takes of a log."""

from __future__ import annotations

import pytest

from distribution_manager.operator.log_reader import LoggedEntry
from distribution_manager.operator.log_records import Record, records
from distribution_manager.operator.replay import Counts, arrivals
from shadow_nodes.protocol.audit import Given, Outcome, Repeated, Taken
from shadow_nodes.protocol.commands import (
    Accept,
    Caller,
    ChangeVisibility,
    Command,
    Configure,
    Content,
    Delete,
    Entry,
    Items,
    Letter,
    Move,
    Moved,
    Note,
    Open,
    Operation,
    Purge,
    Receive,
    Refusal,
    Refused,
    Seal,
    Send,
    Sent,
    Session,
    Settings,
    Settle,
    Tick,
)
from shadow_nodes.protocol.handles import message_id

LIFE = 77
LETTERS = [Letter(number, (9, number, 0), Content(f"letter {number}"), 1, "q", "source") for number in (1, 2)]
COMMANDS: list[Command] = [
    Open("m"),
    Configure(Settings(version=3)),
    Send([Content("a", group_id="g"), Content("b")]),
    Receive(2),
    Delete([(1, 1), (2, 2)]),
    ChangeVisibility([(1, 1, 500)]),
    Purge(),
    Tick(),
    Seal(),
    Accept("00/0", LETTERS),
    Settle(4),
    Move("task", 10),
    Note("load", "a", "b", ["a", "b"], ["a", "b"], 1),
    Note("healing", "a", "a", ["a", "b"], ["a", "c"], 2),
]


def logged(*commands: Command, outcomes: dict[int, Outcome] | None = None, caller: int = 1) -> LoggedEntry:
    operations = [Operation(0, 100 + place, command, caller) for place, command in enumerate(commands)]
    callers = {1: Caller(1, "KEY", "here")}
    return LoggedEntry(Entry(4, 12, 1_700_000_000_123, [Session(LIFE, 0)], operations), outcomes or {}, callers)


def told(command: Command, outcome: Outcome | None = None, *, fifo: bool = False, bodies: bool = False) -> Record:
    entry = logged(command, outcomes={} if outcome is None else {0: outcome})
    (record,) = records(entry, fifo=fifo, bodies=bodies)
    return record


def test_who_when_where_and_under_which_epoch() -> None:
    record = told(Purge())
    assert (record["key"], record["region"], record["epoch"], record["seq"]) == ("KEY", "here", 4, 12)
    assert (record["time"], record["result"]) == ("2023-11-14T22:13:20.123Z", "ok")


def test_every_command_has_its_word() -> None:
    assert {type(command) for command in COMMANDS} == set(Command.__args__)  # type: ignore[attr-defined]
    words = [record["operation"] for record in records(logged(*COMMANDS), fifo=False, bodies=False)]
    assert words == [
        "takeover",
        "configure",
        "send",
        "receive",
        "delete",
        "change-visibility",
        "purge",
        "tick",
        "seal",
        "accept",
        "settle",
        "move",
        "promotion",
        "replica-set",
    ]


def test_nobody_asked_for_what_managers_do() -> None:
    assert told(Tick())["key"] is None
    assert next(records(logged(Configure(Settings()), caller=0), fifo=False, bodies=False))["key"] is None
    assert next(records(logged(Purge(), caller=2), fifo=False, bodies=False))["key"] == "?"


def test_bodies_only_where_asked_for() -> None:
    assert "body" not in told(Send([Content("secret")]))["messages"][0]
    assert "secret" not in str(told(Send([Content("secret")])))
    assert told(Send([Content("secret")]), bodies=True)["messages"][0]["body"] == "secret"


@pytest.mark.parametrize(
    ("command", "outcome", "fifo", "result"),
    [
        (Send([Content("a")]), None, False, "ok"),
        (Send([Content("a")]), None, True, "unknown"),
        (Receive(1), None, False, "unknown"),
        (Receive(1), Given([]), False, "ok"),
        (Receive(1), Refused(Refusal.OVER_LIMIT), False, "refused"),
        (Send([Content("a")]), Repeated(), False, "repeated"),
        (Delete([(1, 1), (2, 1)]), Items([None, Refusal.HANDLE_EXPIRED]), True, "partly refused"),
        (Delete([(1, 1)]), Items([Refusal.HANDLE_EXPIRED]), True, "refused"),
        (Move("t", 5), Moved(5, 1), False, "ok"),
        (Accept("00/0", LETTERS), Taken(1), False, "ok"),
    ],
)
def test_results(command: Command, outcome: Outcome | None, fifo: bool, result: str) -> None:
    assert told(command, outcome, fifo=fifo)["result"] == result


def test_what_a_receive_gave() -> None:
    record = told(Receive(2), Given([(5, 2, (LIFE, 9, 0))]))
    assert record["given"] == [{"id": message_id(LIFE, 9, 0), "number": 5, "delivery": 2}]


def test_duplicates_say_of_what() -> None:
    record = told(Send([Content("a"), Content("b")]), Sent([(5, (LIFE, 100, 0)), (4, (LIFE, 8, 0))]), fifo=True)
    first, second = record["messages"]
    assert "duplicate_of" not in first
    assert second["duplicate_of"] == message_id(LIFE, 8, 0)


def taken(*commands: Command, outcomes: dict[int, Outcome] | None = None) -> tuple[list[tuple[str, str]], int]:
    """(message id, body) of what a replay takes, and how many sends it leaves out."""
    counts = Counts()
    found = list(arrivals(logged(*commands, outcomes=outcomes), counts))
    numbers = [number for number, _, _ in found]
    assert numbers == sorted(set(numbers)), "a target takes rising numbers only"
    return [(message_id(*identity), content.body) for _, identity, content in found], counts.left_out


def test_a_replay_takes_what_came_in_and_nothing_twice() -> None:
    send = Send([Content("a"), Content("b")])
    ids = [message_id(LIFE, 100, place) for place in range(2)]
    assert taken(send, Receive(1), Delete([(1, 1)])) == ([(ids[0], "a"), (ids[1], "b")], 0)
    assert taken(send, outcomes={0: Repeated()}) == ([], 2)
    assert taken(send, outcomes={0: Refused(Refusal.SEALED)}) == ([], 2)
    sent = Sent([Refusal.GROUP_ID_MISSING, (7, (LIFE, 100, 1))])
    assert taken(send, outcomes={0: sent}) == ([(ids[1], "b")], 1)
    assert taken(send, outcomes={0: Sent([(1, (1, 1, 1)), (7, (LIFE, 100, 1))])}) == ([(ids[1], "b")], 1)
    letters = [(message_id(9, number, 0), f"letter {number}") for number in (1, 2)]
    assert taken(Accept("00/0", LETTERS)) == (letters, 0)
    assert taken(Accept("00/0", LETTERS), outcomes={0: Taken(1)}) == (letters[1:], 1)
    assert taken(Accept("00/0", LETTERS), outcomes={0: Repeated()}) == ([], 2)
