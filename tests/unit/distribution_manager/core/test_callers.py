"""Who asked: what entries tell is enough for a reader who begins CALLERS_REPEATED_ENTRIES before what it shows."""

from __future__ import annotations

import msgspec
import pytest
from review_world import SHARD, World

from distribution_manager.core import callers
from distribution_manager.core.callers import Callers
from distribution_manager.core.limits import COMMIT_NOTICE_MS
from distribution_manager.core.manager import ManagerCore
from shadow_nodes.protocol.commands import Content, Open, Send, decode_entry
from shadow_nodes.protocol.limits import CALLERS_REPEATED_ENTRIES

SEND = Send([Content("body")])


def told(world: World) -> list[tuple[str, str]]:
    """(access key id, region) of every send in the log, as a reader finds them."""
    known: dict[tuple[int, int], tuple[str, str]] = {}
    found = []
    for item in world.nodes["c"].core.log_for(SHARD, 0) or []:
        entry = decode_entry(item.data)
        known |= {(entry.epoch, caller.number): (caller.key, caller.region) for caller in entry.callers}
        for operation in entry.operations:
            if isinstance(operation.command, Send):
                found.append(known[entry.epoch, operation.caller])
            elif operation.caller:
                raise AssertionError(f"{operation} is the owner's own")
    return found


def test_key_and_region_travel_to_the_owner_and_into_the_log() -> None:
    world = World(managers=2)
    asked = [("m1", "KEYONE"), ("m2", "KEYTWO"), ("m2", ""), ("m1", "KEYONE")]
    for manager, key in asked:
        answers: list[object] = []
        core = world.managers[manager].core

        def ask(core: ManagerCore = core, key: str = key, answers: list[object] = answers) -> None:
            core.submit(SHARD, SEND, 0, lambda *answer: answers.append(answer), key=key)

        world.managers[manager].step(ask)
        world.run(50)
        assert len(answers) == 1
    world.run(COMMIT_NOTICE_MS + 100)
    regions = {"m1": "a", "m2": "b"}
    assert told(world) == [(key, regions[manager]) for manager, key in asked]


def test_a_caller_is_told_again_after_a_while() -> None:
    some = Callers()
    tells = [seq for seq in range(1, 200) if some.number("k", "r", seq) == 1 and some.take()]
    assert tells == [1 + again * CALLERS_REPEATED_ENTRIES for again in range(4)]


def test_a_number_never_means_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "CALLERS_MAX", 3)
    some = Callers()
    meaning: dict[int, str] = {}
    for seq in range(1, 500):
        key = f"key {seq % 5}"
        number = some.number(key, "r", seq)
        meaning |= {caller.number: caller.key for caller in some.take()}
        assert meaning[number] == key


def test_entries_of_before_can_be_read() -> None:
    """A log outlives the version that wrote it: fields that it lacks have their defaults."""
    old = msgspec.msgpack.encode([7, 1, 1_000, [[5, 1]], [[0, 1, [1, "m1"]], [0, 2, [3, [["body"]]]]]])
    entry = decode_entry(old)
    assert entry.callers == []
    assert [operation.caller for operation in entry.operations] == [0, 0]
    assert entry.operations[0].command == Open("m1")
