"""The fast machine against the obvious one, over random histories, with and without restarts in between."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import machine_driver
import machine_reference
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shadow_nodes.core.machine import Machine, machine, receiving
from shadow_nodes.protocol.commands import (
    Accept,
    Batch,
    ChangeVisibility,
    Configure,
    Content,
    Delete,
    Entry,
    Letter,
    Move,
    Operation,
    Purge,
    Receive,
    Refused,
    Seal,
    Send,
    Session,
    Settings,
    Settle,
    Tick,
    decode_entry,
    encode,
)

PER_ENTRY = 4
IN_FLIGHT_MAX = 6
RETENTION_MS = 60_000
RECEIVE_TIMEOUTS = [None, None, None, 0, 500, 5_000]
DELAYS = [None, None, None, 0, 500, 2_000]

contents = st.builds(
    Content,
    body=st.sampled_from(["a", "b", "ü"]),
    attributes=st.sampled_from([b"", b"x"]),
    group_id=st.sampled_from(["g", "g", "h", "i", ""]),
    deduplication_id=st.sampled_from(["", "", "d", "e", "f"]),
    sender_id=st.sampled_from(["", "s"]),
    delay_ms=st.sampled_from(DELAYS),
)
picks = st.integers(0, 30)
timeouts = st.sampled_from([0, 300, 5_000, 5_000, 43_200_000])
commands = st.one_of(
    st.builds(Send, st.lists(contents, min_size=1, max_size=4)),
    st.builds(Send, st.lists(contents, min_size=1, max_size=4)),
    st.builds(
        Receive,
        max_messages=st.sampled_from([1, 2, 10]),
        visibility_timeout_ms=st.sampled_from([None, None, 0, 500, 5_000]),
        attempt_id=st.sampled_from(["", "t", "u"]),
    ),
    st.builds(Receive, max_messages=st.sampled_from([1, 3])),
    st.tuples(st.just("delete"), st.lists(picks, min_size=1, max_size=3)),
    st.tuples(st.just("change"), st.lists(st.tuples(picks, timeouts), min_size=1, max_size=3)),
    st.tuples(st.just("accept"), st.integers(-2, 2), st.lists(st.tuples(contents, picks), max_size=3)),
    st.tuples(st.just("settle"), st.integers(0, 3)),
    st.builds(Move, st.just("task"), st.sampled_from([1, 3, 10]), st.sampled_from(["", "", "elsewhere"])),
    st.sampled_from([Tick(), Tick(), Purge()]),
    st.tuples(
        st.just("configure"),
        st.sampled_from([0, 0, 3]),
        st.sampled_from([0, 1_000]),
        st.sampled_from([RETENTION_MS, 400_000]),
        st.booleans(),
        st.booleans(),
    ),
)
operations = st.tuples(st.integers(0, 1), st.sampled_from([0, 0, 0, 0, 0, 0, -2, -3]), commands)
entries = st.tuples(
    st.sampled_from([0, 0, 1, 200, 500, 1_000, 5_000, 29_000, 61_000, 120_000, 300_000]),
    st.lists(operations, min_size=1, max_size=4),
    st.sampled_from([0, 0, 0, 1, 5]),
    st.sampled_from(["", "", "", "checkpoint", "restart", "sweep"]),
)


class Histories:
    """Turns what hypothesis drew into entries, by what has happened so far: handles given out, letters taken."""

    def __init__(self, fifo: bool) -> None:
        self.fifo = fifo
        self.now = machine_driver.START_MS
        self.seq = 0
        self.version = 0
        self.counters = [10, 10]
        self.marks = [0, 0]
        self.handles: list[tuple[int, int]] = [(1, 1), (2**63, -5)]
        self.taken = 0
        self.settled = 0

    def entry(self, dt_ms: int, drawn: list[Any], mark_step: int) -> Entry:
        self.now += dt_ms
        self.seq += 1
        ops = []
        for session, back, drawn_command in drawn:
            self.counters[session] += 2
            counter = self.counters[session] + back
            ops.append(Operation(session, counter, self.command(drawn_command)))
        if mark_step:
            self.marks[0] = self.counters[0] - 2 * mark_step
        sessions = [Session(100 + place, mark) for place, mark in enumerate(self.marks)]
        return decode_entry(encode(Entry(1, self.seq, self.now, sessions, ops)))

    def command(self, drawn: Any) -> Any:
        if not isinstance(drawn, tuple):
            return drawn
        match drawn:
            case ("delete", some):
                return Delete([self.handle(pick) for pick in some])
            case ("change", some):
                return ChangeVisibility([(*self.handle(pick), timeout_ms) for pick, timeout_ms in some])
            case ("accept", offset, some):
                first = max(self.taken + 1 + offset, 1)
                letters = [
                    Letter(first + i, (55, i, 0), content, self.now - pick * 4_000, "here", "s" if pick % 3 else "")
                    for i, (content, pick) in enumerate(some)
                ]
                self.taken = max(self.taken, first + len(letters) - 1)
                return Accept("origin/0", letters)
            case ("settle", step):
                self.settled += step
                return Settle(self.settled)
            case ("configure", dead, delay_ms, retention_ms, content_based, per_group):
                return Configure(self.settings(dead, delay_ms, retention_ms, content_based, per_group))
        raise AssertionError(drawn)

    def settings(self, dead: int, delay_ms: int, retention_ms: int, content_based: bool, per_group: bool) -> Settings:
        self.version += 1
        return Settings(
            self.version,
            self.fifo,
            30_000,
            delay_ms,
            retention_ms,
            dead,
            "dlq" if dead else "",
            content_based,
            per_group,
        )

    def handle(self, pick: int) -> tuple[int, int]:
        return self.handles[-1 - pick % len(self.handles)]

    def learn(self, results: list[Any]) -> None:
        for result in results:
            if isinstance(result, Batch):
                self.handles += [(m.key, m.delivery) for m in result.messages]


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "EXPIRE_PER_ENTRY_MAX", PER_ENTRY)
    monkeypatch.setattr(machine, "IN_FLIGHT_MAX_FIFO", IN_FLIGHT_MAX)
    monkeypatch.setattr(receiving, "IN_FLIGHT_MAX_FIFO", IN_FLIGHT_MAX)
    monkeypatch.setattr(receiving, "IN_FLIGHT_MAX_STANDARD", IN_FLIGHT_MAX)


def check_summary(subject: Machine, model: machine_reference.Reference, now_ms: int) -> None:
    """At the entry's time, or at a later one by which no entry has come yet."""
    entry_now, model.now = model.now, now_ms
    summary = subject.summary(now_ms)
    room = len(model.in_flight()) < IN_FLIGHT_MAX
    if not model.settings.fifo:
        assert summary.ready == len(model.visible())
    elif now_ms == entry_now:
        assert (summary.ready > 0) == bool(model.group_runs() and room)
    else:
        assert summary.ready or not model.group_runs() or not room
    assert summary.in_flight == len(model.in_flight())
    assert summary.delayed == len(model.delayed())
    assert summary.next_ready_ms == model.next_ready_ms()
    assert summary.outbox == len(model.letters)
    assert summary.sealed == model.sealed
    if any(map(model.expired, model.held[:1])) or any(model.expired(m) for m in model.held if m.source is not None):
        assert 0 < summary.next_tick_ms <= now_ms
    assert subject.messages() == len(model.held) + len(model.letters)
    assert subject.outbox(0, 100) == model.letters
    model.now = entry_now


def check_waiting(history: list[Entry], seen: Histories, at_ms: int) -> None:
    """No receive finds anything while ``ready`` is 0."""
    witness = Machine()
    for entry in history:
        witness.apply(entry)
    ready = witness.summary(at_ms).ready
    ops = [Operation(0, 1, Receive(10))]
    result = witness.apply(Entry(1, seen.seq + 1, at_ms, [Session(999, 0)], ops))[0]
    assert ready or isinstance(result, Refused) or result == Batch([])


def run(fifo: bool, steps: list[Any], lazy: bool, seal: bool, release: int) -> None:
    """One machine that never stops, one that is restarted, and the reference: always the same answers."""
    seen = Histories(fifo)
    store = machine_driver.RowStore(lazy)
    steady, restarted = Machine(), Machine(store.read_content)
    model = machine_reference.Reference(PER_ENTRY, IN_FLIGHT_MAX)
    history: list[Entry] = []
    first = [(0, 0, Configure(seen.settings(0, 0, RETENTION_MS, fifo, False)))]
    last: list[Any] = [(0, [(0, 0, Seal()), *steps[-1][1]], 0, "restart")] if seal else []
    for dt_ms, ops, mark_step, event in [(0, first, 0, ""), *steps, *last]:
        entry = seen.entry(dt_ms, ops, mark_step)
        history.append(entry)
        expected = model.apply(entry)
        assert steady.apply(entry) == expected
        assert restarted.apply(entry) == expected
        seen.learn(expected)
        check_summary(steady, model, seen.now)
        check_summary(restarted, model, seen.now)
        check_summary(restarted, model, seen.now + 1_000)
        for op in entry.operations:
            session = 100 + op.session
            assert steady.answer(session, op.counter) == restarted.answer(session, op.counter)
        summary = steady.summary(seen.now)
        if not summary.ready and dt_ms == 0:
            check_waiting(history, seen, seen.now)
            if summary.next_ready_ms:
                check_waiting(history, seen, summary.next_ready_ms - 1)
        if event == "sweep":
            store.sweep()
        elif event:
            digest = steady.digest()
            assert restarted.digest() == digest
            rows = restarted.changed_rows()
            changes = restarted.take_changes()
            assert len(changes.puts) + len(changes.deletes) <= rows + 3 + len(changes.drop)
            assert restarted.changed_rows() == 0
            store.write(restarted.applied, changes)
            restarted.release_contents(release)
            if event == "restart":
                restarted = store.load()
                restarted.release_contents(release)
            assert restarted.digest() == digest
    assert restarted.digest() == steady.digest()


@pytest.mark.parametrize("fifo", [False, True], ids=["standard", "fifo"])
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    steps=st.lists(entries, min_size=1, max_size=25), lazy=st.booleans(), seal=st.booleans(), release=st.integers(0, 9)
)
def test_the_machine_agrees_with_the_reference(
    fifo: bool, steps: list[Any], lazy: bool, seal: bool, release: int
) -> None:
    run(fifo, steps, lazy, seal, release)


def dense_steps(chance: random.Random, length: int) -> list[Any]:
    """Histories in which handles are mostly good and most commands have something to do."""

    def content() -> Content:
        deduplication_id = str(chance.randrange(12)) if chance.random() < 0.9 else ""
        return Content(
            "abc"[chance.randrange(3)], b"", chance.choice("gghi"), deduplication_id, "s", "", chance.choice(DELAYS)
        )

    def pick() -> int:
        return int(chance.expovariate(0.6))

    def some(one: Callable[[], Any]) -> list[Any]:
        return [one() for _ in range(chance.randint(1, 3))]

    makers: list[tuple[int, Callable[[], Any]]] = [
        (6, lambda: Send(some(content))),
        (8, lambda: Receive(chance.choice([1, 2, 3]), chance.choice(RECEIVE_TIMEOUTS), chance.choice(["", "t", "t"]))),
        (5, lambda: ("delete", some(pick))),
        (3, lambda: ("change", some(lambda: (pick(), chance.choice([0, 300, 5_000, 50_000, 43_200_000]))))),
        (2, lambda: ("accept", chance.choice([0, 0, -1, 1]), some(lambda: (content(), chance.randrange(20))))),
        (2, lambda: ("settle", chance.randrange(4))),
        (2, lambda: Move("task", chance.choice([1, 3]), chance.choice(["", "elsewhere"]))),
        (1, lambda: Tick() if chance.random() < 0.8 else Purge()),
        (1, lambda: ("configure", chance.choice([0, 1, 2]), chance.choice([0, 500]), RETENTION_MS, True, True)),
    ]

    def command() -> Any:
        return chance.choices([make for _, make in makers], [weight for weight, _ in makers])[0]()

    return [
        (
            chance.choice([0, 0, 0, 1, 300, 500, 5_000, 20_000, 45_000] + [130_000, 290_000] * (chance.random() < 0.1)),
            [
                (0, chance.choice([-2, -3, -5]) if chance.random() < 0.05 else 0, command())
                for _ in range(chance.randint(1, 3))
            ],
            chance.choice([0, 0, 2]),
            chance.choice(["", "", "checkpoint", "restart", "sweep"]),
        )
        for _ in range(length)
    ]


@pytest.mark.parametrize("fifo", [False, True], ids=["standard", "fifo"])
@pytest.mark.parametrize("seed", range(100))
def test_the_machine_agrees_with_the_reference_on_dense_histories(fifo: bool, seed: int) -> None:
    chance = random.Random(seed)
    run(fifo, dense_steps(chance, 50), chance.random() < 0.5, chance.random() < 0.1, chance.choice([0, 0, 3]))
