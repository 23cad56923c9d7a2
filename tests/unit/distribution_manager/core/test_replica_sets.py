"""A shard's log knows its replica set; an etcd restored to before a change of it says less, and is put right."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from review_world import SHARD, World
from test_review_takeover import die

from distribution_manager.coordination.memory import Backup
from distribution_manager.core.limits import SET_TOLD_PATIENCE_MS
from distribution_manager.core.messages import Verdict
from distribution_manager.core.metadata import Owner, Replica, ShardRecord, encode_record, record_key
from distribution_manager.core.replica_sets import always_meet, put_right, told
from distribution_manager.core.transactions import Put, Transaction
from shadow_nodes.protocol.commands import NO_REPLICA_SET, Batch, Content, Note, Receive, Send

SEND = Send([Content("body")])


def replicas(names: str) -> tuple[Replica, ...]:
    return tuple(Replica(node=name, incarnation=f"{name}-1") for name in names)


def record(names: str, version: int, **more: Any) -> ShardRecord:
    return ShardRecord(primary=names[0], replicas=replicas(names), version=version, **more)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (NO_REPLICA_SET, None),
        (told(record("a", 1)), None),
        (told(record("ab", 2, outside=("d",))), None),
        (told(record("ab", 2, outside=("c",))), record("ab", 2, outside=("c", "d"))),
        (told(record("abc", 3)), record("abc", 3, outside=("d",))),
        (told(record("bcd", 5)), record("bcd", 5, outside=("a",))),
    ],
)
def test_a_record_that_says_less_than_is_known_is_put_right(known: Any, expected: ShardRecord | None) -> None:
    said = record("ab", 2, outside=("d",))
    assert put_right(said, known) == (said if expected is None else expected)


def test_a_learner_that_has_joined_since_learns_no_more() -> None:
    said = record("ab", 2, outside=("c",), learner="c")
    assert put_right(said, told(record("abc", 3))) == record("abc", 3)


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("a", "ab", True),
        ("ab", "abc", True),
        ("abcd", "abc", True),
        ("abx", "aby", False),
        ("abcx", "abcy", True),
        ("abcdx", "abcdy", False),
    ],
)
def test_quorums_of_sets_that_follow_each_other_meet(one: str, other: str, meet: bool) -> None:
    """All but where one of an odd number is replaced."""
    assert always_meet(replicas(one), replicas(other)) is meet


def test_an_owner_that_lives_puts_its_record_back() -> None:
    world = World(spares="de")
    world.ask(SEND)
    world.run(50)
    backup = world.etcd.backup()
    world.set_factor(4)
    world.run(5_000)
    assert (world.members, world.record.version) == ("abcde", 3)
    newest = world.record
    world.etcd.restore(backup)
    world.set_factor(4)
    world.run(1_000)
    assert world.record == newest
    assert world.managers["m1"].core.records_put_back == 1


def test_a_taker_goes_on_from_the_set_that_its_replicas_know() -> None:
    """P1: what was acknowledged by three of five, a quorum of the three before may lack."""
    world = World(managers=2, spares="de")
    world.run(50)
    backup = world.etcd.backup()
    world.ask(SEND)
    world.set_factor(4)
    world.run(5_000)
    assert world.members == "abcde"
    world.deaf |= {"a", "b"}
    assert world.ask(SEND)[0] is Verdict.DONE
    world.deaf.clear()
    world.nodes["c"].up = False
    die(world, world.managers["m1"])
    world.etcd.restore(backup)
    world.set_factor(4)
    verdict, result, _ = world.ask(Receive(10), manager="m2", within_ms=9_000)
    assert verdict is Verdict.DONE
    assert isinstance(result, Batch)
    assert len(result.messages) == 2
    assert world.managers["m2"].core.records_put_back == 1


def _tails_tell_of(world: World, nodes: str, version: int) -> bool:
    """Whether these have the entry that tells of the set, and do not know that it is committed."""
    tails = [world.nodes[node].core.replicas[SHARD]._tail.values() for node in nodes]
    commands = [[one.command for item in tail for one in item.entry.operations] for tail in tails]
    return all(any(isinstance(one, Note) and one.version == version for one in tail) for tail in commands)


def test_a_taker_asks_the_log_that_it_has_chosen() -> None:
    """The owner knew that the entry was committed, and died before it said so."""
    world = World(managers=2, spares="de")
    world.ask(SEND)
    world.run(50)
    backup = world.etcd.backup()
    world.set_factor(4)
    for _ in range(5_000):
        if _tails_tell_of(world, "abc", 2):
            break
        world.run(1)
    die(world, world.managers["m1"])
    world.etcd.restore(backup)
    assert world.record.version == 1
    world.set_factor(3)
    assert world.ask(SEND, manager="m2", within_ms=9_000)[0] is Verdict.DONE
    assert (world.members, world.record.version) == ("abcd", 2)
    assert world.managers["m2"].core.records_put_back == 2, "first d, outside, of which replicas knew; then the set"


def test_a_set_changes_again_only_when_the_log_tells_of_it() -> None:
    """Else a quorum of the first of three sets might meet none that knows of the second."""
    world = World(spares="de")
    world.ask(SEND)
    world.set_factor(4)
    for _ in range(5_000):
        if world.record.version == 2:
            break
        world.run(1)
    world.deaf |= {"b", "c"}
    world.run(1_000)
    assert (world.members, world.record.learner) == ("abcd", "")
    world.deaf.clear()
    world.run(10_000)
    assert world.members == "abcde"


def _replaced_by_an_owner_that_died() -> World:
    """c has been replaced by d in the record, of which no log tells yet; m2 takes it over, and reaches a and d only."""
    world = World(managers=2, spares="d")
    world.ask(SEND)
    world.run(50)
    die(world, world.managers["m1"])
    changed = msgspec.structs.replace(world.record, replicas=replicas("abd"), version=2, outside=("c",))
    world.etcd.transact(Transaction([], [Put(record_key(SHARD), encode_record(changed))]))
    world.deaf |= {"b", "c"}
    return world


def test_nothing_is_committed_past_the_set_before_while_no_log_tells_of_the_new_one() -> None:
    """Else b and c, which know of no other set than their own, could lose it to an etcd that is restored."""
    world = _replaced_by_an_owner_that_died()
    answers = world.submit(SEND, manager="m2")
    world.run(SET_TOLD_PATIENCE_MS // 2)
    assert answers == []
    world.deaf.clear()
    world.run(SET_TOLD_PATIENCE_MS // 2 - 200)
    assert answers == [(Verdict.DONE, None, None)]
    assert world.nodes["b"].core.replicas[SHARD].machine.replica_set == told(world.record)


def test_too_few_of_the_set_before_are_not_waited_for_for_ever() -> None:
    """P6: the new set has a quorum, and operations do not wait for longer than they may."""
    world = _replaced_by_an_owner_that_died()
    assert world.ask(SEND, manager="m2", within_ms=9_000)[0] is Verdict.DONE


def test_none_retires_before_those_who_stay_know_that_it_has_left() -> None:
    """Of a and b, a stays; were b to forget before a knows, an etcd restored to both would name no quorum."""
    world = World(managers=2, delays={("m1", "a"): 30})
    world.set_factor(1)
    world.ask(SEND)
    world.run(5_000)
    assert (world.members, world.record.version) == ("ab", 2)
    backup = world.etcd.backup()
    world.set_factor(0)
    b = world.nodes["b"].core
    for _ in range(5_000):
        if b.replicas[SHARD].blank:
            break
        world.run(1)
    assert (world.members, b.replicas[SHARD].blank) == ("a", True)
    die(world, world.managers["m1"])
    world.lose("a")
    world.run(50)
    world.nodes["a"].open_with(world.nodes["a"].store)
    world.find("a")
    world.etcd.restore(backup)
    world.set_factor(0)
    verdict, result, _ = world.ask(Receive(10), manager="m2", within_ms=9_000)
    assert verdict is Verdict.DONE
    assert isinstance(result, Batch)
    assert len(result.messages) == 1


def _another_record_with_the_same_revision(world: World, backup: Backup) -> ShardRecord:
    """An etcd set back goes on from the backup's revision: the record's number is given to another record of it."""
    key = record_key(SHARD)
    revision = world.etcd.transact(Transaction([], [], [key])).found[key].mod_revision
    world.etcd.restore(backup)
    while world.etcd.revision < revision - 1:
        world.etcd.transact(Transaction([], [Put("drains/region/nowhere", b"{}")]))
    other = msgspec.structs.replace(world.record, epoch=9, attempt=99, owner=Owner(manager="m9", life=9))
    assert world.etcd.transact(Transaction([], [Put(key, encode_record(other))])).revision == revision
    return other


def test_an_owner_does_not_take_another_record_for_its_own_by_the_revision() -> None:
    world = World()
    world.ask(SEND)
    world.run(50)
    backup = world.etcd.backup()
    m1 = world.managers["m1"]
    for primary in "bc":
        owner = m1.core.owners[SHARD]
        m1.step(lambda owner=owner, primary=primary: owner.want_primary(primary, world.ms + 9_000, "asked"))
        begun = m1.transactions
        while m1.transactions == begun:
            world.run(1)
        if primary == "b":
            world.run(3_000)
    assert world.record.primary == "b"
    other = _another_record_with_the_same_revision(world, backup)
    world.run(20)
    assert world.record == other


def test_a_taker_does_not_take_another_record_for_the_one_that_it_knows_by_the_revision() -> None:
    world = World(managers=2)
    backup = world.etcd.backup()
    world.ask(SEND)
    world.run(50)
    m2 = world.managers["m2"]
    die(world, world.managers["m1"])
    begun = m2.transactions
    world.submit(SEND, manager="m2")
    while m2.transactions == begun:
        world.run(1)
    other = _another_record_with_the_same_revision(world, backup)
    world.run(20)
    assert world.record == other


def test_a_record_may_be_written_otherwise_than_managers_write_it() -> None:
    """People write it with tools of their own, and other versions with other fields."""
    world = World(spares="d")
    written = b'{"later": 1, ' + encode_record(world.record)[1:].replace(b",", b" ,\n")
    world.etcd.transact(Transaction([], [Put(record_key(SHARD), written)]))
    assert world.ask(SEND)[0] is Verdict.DONE
    written = b'{"later": 1, ' + encode_record(world.record)[1:].replace(b",", b" ,\n")
    world.etcd.transact(Transaction([], [Put(record_key(SHARD), written)]))
    world.set_factor(3)
    world.run(5_000)
    assert world.members == "abcd"
