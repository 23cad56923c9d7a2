"""Replica sets that heal, grow and shrink, on managers' and nodes' cores with virtual time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from distribution_manager.core import procedures
from distribution_manager.core.healing import Admit, Learn, Remove, Situation, Step, StopLearning, next_step
from distribution_manager.core.messages import Verdict
from distribution_manager.core.metadata import Replica, ShardRecord
from distribution_manager.core.placement import Site, Wishes
from shadow_nodes.protocol.commands import Content, Send
from shadow_nodes.protocol.limits import PROTOCOL_VERSION
from shadow_nodes.protocol.messages import (
    Append,
    Fence,
    Fenced,
    Hello,
    Position,
    Retire,
    Retired,
    Stale,
    Token,
    ToManager,
    ToNode,
)
from shadow_nodes.protocol.messages import Learn as LearnMessage
from tests.unit.distribution_manager.core.review_world import QUEUE_ID, SHARD, World

HEAL_AFTER_MS = 3_000


class Near:
    """Regions are as far apart as their letters."""

    def round_trip_ms(self, region: str, other: str) -> float:
        return 10.0 * abs(ord(region) - ord(other))


def situation(
    members: str,
    count: int,
    *,
    gone: str = "",
    well: str = "",
    learner: str = "",
    retiring: str = "",
    nodes: str = "abcdef",
    unfit: str = "",
) -> Situation:
    record = ShardRecord(
        primary=members[0], replicas=tuple(Replica(node=node, incarnation="1") for node in members), learner=learner
    )
    sites = [
        Site(node, node, "1", reachable=node not in gone, disk_free=0.0 if node in unfit else 1.0) for node in nodes
    ]
    return Situation(record, count, frozenset(gone), frozenset(well), frozenset(retiring), sites)


@pytest.mark.parametrize(
    ("given", "step"),
    [
        (situation("abc", 3), None),
        (situation("abc", 3, gone="c"), Learn("d")),
        (situation("abc", 3, gone="bc"), Learn("d")),
        (situation("abc", 3, gone="a"), None),  # the primary is moved first
        (situation("abc", 3, gone="c", retiring="d"), Learn("e")),
        (situation("abc", 3, gone="c", unfit="de"), Learn("f")),
        (situation("abc", 3, gone="c", nodes="abc"), None),
        (situation("abc", 3, gone="cd", learner="d"), Learn("e")),
        (situation("abc", 3, gone="cd", learner="d", nodes="abcd"), StopLearning()),
        (situation("abc", 3, gone="c", learner="d"), None),
        (situation("abc", 3, gone="c", learner="d", unfit="d"), Learn("e")),
        (situation("abc", 3, gone="c", learner="d", well="abd"), Admit("c")),
        (situation("abc", 3, well="abc", learner="d"), StopLearning()),
        (situation("abc", 5), Learn("d")),
        (situation("abc", 5, learner="d", well="abcd"), Admit("")),
        (situation("abcd", 5, gone="b", nodes="abcde"), Learn("e")),
        (situation("abc", 7, nodes="abcd"), Learn("d")),
        (situation("abcde", 3, well="abcde"), Remove("d")),
        (situation("abcde", 3, well="acde"), Remove("b")),
        (situation("abc", 1, well="abc"), Remove("b")),
        (situation("cab", 1, well="abc"), Remove("a")),
        (situation("abc", 2, gone="c", well="ab"), Remove("c")),
        (situation("abc", 2, learner="d"), StopLearning()),
    ],
)
def test_the_next_step(given: Situation, step: Step | None) -> None:
    assert next_step(given, Near(), {"a": 1.0}) == step


def test_newcomers_come_from_where_the_queue_may_be() -> None:
    wishes = Wishes(allowed_regions=frozenset("abce"))
    assert next_step(situation("abc", 4), Near(), {}, wishes) == Learn("e")
    assert next_step(situation("abc", 5, learner="e", well="abce"), Near(), {}, wishes) == Admit("")
    assert next_step(situation("abce", 5), Near(), {}, wishes) is None
    assert next_step(situation("abcd", 3, well="abcd"), Near(), {}, wishes) == Remove("d")


def send(world: World, body: str) -> None:
    verdict, _, _ = world.ask(Send([Content(body)]))
    assert verdict is Verdict.DONE


def stuck_with_learner(world: World) -> None:
    """c is gone, and d is to take its place, but hears nothing: its link will be given up before long."""
    world.lose("c")
    world.run(HEAL_AFTER_MS - 300)
    world.deaf.add("d")
    world.run(1_000)
    assert (world.members, world.record.learner) == ("abc", "d")


def grown(spares: str = "de", heal_after_ms: int = HEAL_AFTER_MS) -> World:
    world = World(spares=spares, heal_after_ms=heal_after_ms)
    world.run(500)
    send(world, "before")
    return world


def blank(world: World, name: str) -> bool:
    held = world.nodes[name].core.replicas.get(SHARD)
    return held is not None and held.blank


def test_a_node_that_stays_away_is_replaced_and_one_that_comes_back_in_time_is_not() -> None:
    world = grown()
    world.lose("c")
    world.run(HEAL_AFTER_MS - 1_000)
    world.find("c")
    world.run(HEAL_AFTER_MS)
    assert world.members == "abc"
    assert world.record.outside == ()
    world.lose("c")
    world.run(HEAL_AFTER_MS + 3_000)
    assert world.members == "abd"
    assert world.record.outside == ("c",)
    assert world.managers["m1"].core.healer.finished == 1
    send(world, "after")
    world.run(500)
    digests = {world.nodes[name].core.replicas[SHARD].machine.digest() for name in "abd"}
    assert len(digests) == 1


def test_the_primary_too() -> None:
    world = grown()
    world.lose("a")
    world.run(HEAL_AFTER_MS + 3_000)
    assert world.members in {"bcd", "bce"}
    assert world.record.primary in "bc"


def test_never_where_that_is_wished_or_nobody_is_there() -> None:
    for world in (grown(heal_after_ms=0), grown(spares="")):
        world.lose("c")
        world.run(10 * HEAL_AFTER_MS)
        assert world.members == "abc"
        assert world.managers["m1"].core.healer.missing() == {SHARD: 1}


def test_another_newcomer_where_the_first_dies() -> None:
    world = grown()
    stuck_with_learner(world)
    world.lose("d")
    world.run(13_000)
    assert world.members == "abe"
    assert world.record.outside == ("c", "d")


def test_a_replica_that_comes_back_before_its_successor_is_ready_stays() -> None:
    world = grown()
    stuck_with_learner(world)
    world.find("c")
    world.run(1_500)
    assert (world.members, world.record.learner) == ("abc", "")
    world.deaf.clear()
    world.lose("d")
    world.find("d")
    world.run(1_500)
    assert world.record.outside == ("d",)
    assert blank(world, "d")


def test_the_factor_goes_up_and_down() -> None:
    world = grown()
    for factor, members in ((4, "abcde"), (0, "a"), (2, "abc"), (1, "ab"), (4, "abcde")):
        world.set_factor(factor)
        world.run(6_000)
        assert world.members == members
        send(world, f"at {factor}")
        assert all(blank(world, name) for name in "abcde" if name not in members)
    assert world.record.outside == ()


def test_what_a_removed_replica_has_promised_it_keeps_through_a_restart() -> None:
    """P8: a quorum of the old set must not be had any more, whoever asks."""
    world = grown()
    world.set_factor(1)
    world.run(2_000)
    assert world.members == "ab"
    node = world.nodes["c"]
    promised = node.core.replicas[SHARD].promised
    assert blank(world, "c")
    assert promised == world.record.token
    node.open_with(node.store.crash(0))
    assert node.core.replicas[SHARD].promised == promised
    assert node.core.replicas[SHARD].refuses(Token(promised.epoch - 1, 1))


def test_an_owner_of_an_older_set_finds_no_quorum_of_it() -> None:
    """P8: {a, b, c} becomes {a, b, d}, then {a, d, e}; b and c, a quorum of the first set, are asked by its owner."""
    world = World(managers=2, spares="de", heal_after_ms=HEAL_AFTER_MS)
    world.run(500)
    send(world, "before")
    paused, old = world.managers["m1"], world.record.token
    world.lose("c")
    paused.up = False
    for node in world.nodes.values():
        node.core.disconnected(paused.number)
        node.pump()
    assert world.ask(Send([Content("after")]), manager="m2")[0] is Verdict.DONE
    world.run(HEAL_AFTER_MS + 3_000)
    world.lose("b")
    world.run(HEAL_AFTER_MS + 3_000)
    assert world.members == "ade"
    world.find("b")
    world.run(1_500)
    assert blank(world, "b")

    def fenced_by_the_old_owner(name: str) -> ToManager:
        node = world.nodes[name]
        node.core.connected(99, Hello(PROTOCOL_VERSION, "test", "m1", paused.core.life, "a"), node.now())
        node.core.receive(99, [Fence(SHARD, old)], node.now())
        batch = node.core.take_batch()
        return next(message for _, message in batch.sends if isinstance(message, Fenced | Stale))

    assert isinstance(fenced_by_the_old_owner("c"), Fenced)  # it was away all the time, and knows of nothing newer
    assert isinstance(fenced_by_the_old_owner("b"), Stale)


def test_one_that_was_away_when_it_was_removed_is_told_when_it_comes_back() -> None:
    world = grown()
    world.lose("c")
    world.run(HEAL_AFTER_MS + 3_000)
    assert world.members == "abd"
    assert not world.nodes["c"].core.replicas[SHARD].blank
    world.find("c")
    world.run(1_500)
    assert blank(world, "c")
    told = [message for message in world.nodes["c"].seen if isinstance(message, Retire)]
    world.run(5_000)
    assert [message for message in world.nodes["c"].seen if isinstance(message, Retire)] == told


def test_a_new_owner_goes_on_with_the_learner_that_it_finds() -> None:
    world = World(managers=2, spares="d", heal_after_ms=HEAL_AFTER_MS)
    world.run(500)
    send(world, "before")
    stuck_with_learner(world)
    world.managers["m1"].up = False
    for node in world.nodes.values():
        node.core.disconnected(world.managers["m1"].number)
        node.pump()
    world.deaf.clear()
    verdict, _, _ = world.ask(Send([Content("to the next")]), manager="m2")
    assert verdict is Verdict.DONE
    world.run(3_000)
    assert world.members == "abd"
    assert world.record.owner is not None
    assert world.record.owner.manager == "m2"


def test_a_change_of_unknown_outcome_ends_though_the_newcomer_died() -> None:
    world = grown(spares="d")
    world.deaf.add("d")
    world.set_factor(3)
    world.run(1_000)
    assert world.record.learner == "d"
    world.deaf.clear()
    manager = world.managers["m1"]
    world.lose("d")
    world.find("d")
    while manager.core.owners[SHARD]._membership._wanted is None:  # type: ignore[union-attr]
        world.run(1)
    world.etcd.set_available(False)
    world.lose("d")
    world.run(1_000)
    world.etcd.set_available(True, world.ms)
    send(world, "meanwhile")
    world.run(3_000)
    assert world.members == "abcd"
    send(world, "after")


def test_a_deleted_queue_leaves_nothing_on_former_replicas() -> None:
    world = grown()
    world.set_factor(0)
    world.run(3_000)
    procedure = procedures.delete_queue(world.queue, 1)
    found = world.etcd.transact(next(procedure))
    buried = world.etcd.transact(procedure.send(found))
    assert buried.succeeded
    world.run(500)
    assert [name for name, node in world.nodes.items() if SHARD in node.core.replicas] == []
    assert QUEUE_ID in world.managers["m1"].core.directory.graves


def test_no_more_than_a_few_learn_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distribution_manager.core.healer.LEARNERS_MAX", 0)
    world = grown()
    world.set_factor(3)
    world.run(2_000)
    assert world.record.learner == ""
    monkeypatch.setattr("distribution_manager.core.healer.LEARNERS_MAX", 1)
    world.run(2_000)
    assert world.members == "abcd"


def test_a_learner_that_is_stuck_does_not_keep_others_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another shard's has the only place, and goes on learning for ever."""
    monkeypatch.setattr("distribution_manager.core.healer.LEARNERS_MAX", 1)
    monkeypatch.setattr("distribution_manager.core.healer.LEARNER_SLOT_MS", 8_000)
    world = grown()
    healer = world.managers["m1"].core.healer
    healer.record_changed("other/0", ShardRecord(learner="e"))
    world.set_factor(3)
    world.run(6_000)
    assert world.record.learner == ""
    world.run(5_000)
    assert world.members == "abcd"
    assert healer.learners == {"other/0": "e"}


def quarantine(world: World, name: str) -> None:
    """Its state machine fails as soon as it is asked to learn."""
    core = world.nodes[name].core
    make = core._new_replica

    def made(shard: str) -> Any:
        replica = make(shard)
        replica.quarantined = "for the test"
        return replica

    core._new_replica = made  # type: ignore[method-assign]


def test_a_learner_that_is_quarantined_is_let_go_for_another() -> None:
    world = grown()
    quarantine(world, "d")
    world.set_factor(3)
    world.run(6_000)
    assert world.members == "abce"
    told = [message for message in world.nodes["d"].seen if isinstance(message, LearnMessage)]
    assert len(told) < 5, "to copy what it cannot take, again and again"


def test_where_there_is_no_other_it_is_asked_again_later_and_not_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distribution_manager.core.healer.LEARNER_SLOT_MS", 20_000)
    world = grown(spares="d")
    quarantine(world, "d")
    world.set_factor(3)
    world.run(10_000)
    assert (world.members, world.record.learner) == ("abc", "")
    transactions = world.managers["m1"].transactions
    world.run(5_000)
    assert world.managers["m1"].transactions - transactions < 3
    del world.nodes["d"].core._new_replica
    world.nodes["d"].core.replicas[SHARD].quarantined = ""
    world.run(20_000)
    assert world.members == "abcd"


# --- the node's part -----------------------------------------------------------------------------------------------


def test_only_the_newest_link_of_a_process_is_heard() -> None:
    """A Retire that was sent before the node was asked to learn again must not come after."""
    world = grown()
    node, manager = world.nodes["b"], world.managers["m1"]
    token = world.record.token
    late = manager.number
    core = manager.core
    node.core.connected(99, Hello(PROTOCOL_VERSION, "test", "m1", core.life, core.region), node.now())
    node.core.receive(late, [Retire(SHARD, token)], node.now())
    assert not blank(world, "b")
    node.core.receive(99, [Retire(SHARD, token)], node.now())
    assert blank(world, "b")


def test_retiring_is_a_promise() -> None:
    world = grown()
    node, token = world.nodes["b"], world.record.token
    number = world.managers["m1"].number

    def told(*messages: ToNode) -> list[object]:
        node.core.receive(number, list(messages), node.now())
        batch = node.core.take_batch()
        node.store.write(batch.writes)
        node.core.written(batch)
        return [message for _, message in [*node.core.take_sends(), *batch.sends]]

    older = Token(token.epoch - 1, 5)
    (stale,) = told(Retire(SHARD, older))
    assert not isinstance(stale, Retired)
    assert not blank(world, "b")
    newer = Token(token.epoch + 1, 5)
    assert told(Retire(SHARD, newer)) == [Retired(SHARD, newer)]
    assert blank(world, "b")
    (answer,) = told(Append(SHARD, token, Position(0, 0), [], 0, want_results=False))
    assert msgspec.structs.asdict(answer)["promised"] == newer  # type: ignore[call-overload]
    assert node.store.recover()[0].promised == newer
