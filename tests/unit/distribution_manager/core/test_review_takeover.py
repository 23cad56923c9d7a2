"""Takeovers and replicas that come back, in the orders that nobody plans for."""

from __future__ import annotations

from typing import Any

import pytest
from review_world import EPOCH_MS, SHARD, Manager, Node, World

from distribution_manager.core import causes
from distribution_manager.core.messages import Verdict
from distribution_manager.core.replication import FollowerState, Replication
from distribution_manager.core.request import Now, Request
from distribution_manager.core.results import Results
from shadow_nodes.protocol.commands import Batch, Content, Receive, Send, Summary
from shadow_nodes.protocol.messages import LOG_START, Answered, AnswerState, Fetch, Token
from shadow_nodes.storage.memory import MemoryStore

SEND = Send([Content("body")])
EMPTY = Batch([])
HOUR_MS = 3_600_000


def die(world: World, manager: Manager) -> None:
    manager.up = False
    for node in world.nodes.values():
        node.core.disconnected(manager.number)
        node.pump()


def replace_store(world: World, node: Node, incarnation: str) -> None:
    """The node comes back with an empty store."""
    node.open_with(MemoryStore(incarnation))
    for manager in world.managers.values():
        manager.step(lambda manager=manager: manager.core.node_down(node.name))
        if manager.up:
            world.link(manager, node)


def test_an_etcd_that_was_set_back_gives_an_epoch_out_again() -> None:
    """P6: the replicas have promised that very epoch to another attempt; the taker must go past it, not wait."""
    world = World(managers=2)
    world.run(10)
    backup = world.etcd.backup()
    assert world.ask(SEND)[0] is Verdict.DONE
    world.run(50)
    die(world, world.managers["m1"])
    world.etcd.restore(backup)
    verdict, result, _ = world.ask(Receive(10), manager="m2", within_ms=5_000)
    assert verdict is Verdict.DONE
    assert isinstance(result, Batch)
    assert len(result.messages) == 1, "P1"


def test_an_etcd_that_was_set_back_past_several_owners() -> None:
    """P6: what managers remember of the store that is gone must not keep them from believing the one that is there."""
    world = World(managers=3)
    world.ask(SEND)
    world.run(50)
    backup = world.etcd.backup()
    die(world, world.managers["m1"])
    assert world.ask(SEND, manager="m2", within_ms=5_000)[0] is Verdict.DONE
    assert world.ask(SEND, manager="m3", within_ms=5_000)[0] is Verdict.DONE
    world.run(50)
    owner = next(one for one in world.managers.values() if one.up and SHARD in one.core.owners)
    other = next(one for one in world.managers.values() if one.up and one is not owner)
    world.etcd.restore(backup)
    world.run(50)
    assert world.ask(SEND, manager=other.name, within_ms=5_000)[0] is Verdict.DONE, "the owner is alive"
    die(world, owner)
    other.step(lambda: other.core.manager_down(owner.name))
    before = other.transactions
    verdict, result, _ = world.ask(Receive(10), manager=other.name, within_ms=9_000)
    assert verdict is Verdict.DONE
    assert isinstance(result, Batch)
    assert len(result.messages) == 4, "P1"
    assert other.transactions - before < 20


def test_the_replica_with_the_greatest_log_loses_its_store_while_that_is_fetched() -> None:
    """P6: the others are a quorum; the takeover must not go on asking the one that has forgotten everything."""
    world = World(managers=2)
    for _ in range(3):
        world.ask(SEND)
    die(world, world.managers["m1"])
    taker = world.managers["m2"]
    answers = taker.world.submit(SEND, manager="m2")
    for _ in range(5_000):
        fetched = [node for node, message in taker.sent if isinstance(message, Fetch)]
        if fetched:
            break
        world.run(1)
    replace_store(world, world.nodes[fetched[0]], f"{fetched[0]}-2")
    world.run(5_000)
    assert answers == [(Verdict.DONE, None, None)]


def test_a_replica_catches_up_under_steady_load() -> None:
    """P6: a replica that learns must meet the owner's window somewhere, however fast that moves on."""
    world = World(delays={("m1", "c"): 20})
    large = Send([Content("x" * 200_000)])
    for _ in range(20):
        world.ask(large)
    replace_store(world, world.nodes["c"], "c-2")
    owner = world.managers["m1"].core.owners[SHARD]
    for _ in range(1_500):
        world.submit(SEND)
        world.run(2)
        assert owner.replication is not None
        if owner.replication.followers["c"].state is FollowerState.STREAMING:
            break
    else:
        raise AssertionError("it never keeps up")
    world.run(2_000)
    assert {one.incarnation for one in owner.record.replicas} == {"a-1", "b-1", "c-2"}


def test_an_owner_that_was_replaced_learns_it_from_a_refused_confirmation() -> None:
    """P6, P8: it sends nothing but Confirms, and hears nothing from etcd: its clients must not wait in vain."""
    world = World(managers=2)
    world.ask(SEND)
    world.ask(Receive(10))
    world.run(100)
    old, new = world.managers["m1"], world.managers["m2"]
    old.watch.interrupted = True
    record, revision = new.core.directory.shards[SHARD]
    new.step(lambda: new.core._take(SHARD, record, revision, granted=False, cause=causes.GONE))
    world.run(500)
    assert world.ask(Receive(10), within_ms=3_000) == (Verdict.DONE, EMPTY, None)


def test_results_that_nobody_waits_for_are_asked_for_no_more() -> None:
    """Memory, and a question every 150 ms for ever: its session's mark has passed it, no replica will ever answer."""
    world = World()
    core = world.managers["m1"].core

    def finish(request: Request, *_: Any) -> None:
        request.finished = True

    request = Request(
        SHARD, 1, 1, 0, Receive(1), now=Now(0, 0), deadline_ms=1, wait_ms=0, hops=0, region="a", finish=finish
    )
    replication = Replication(SHARD, Token(1, 1), core, LOG_START, [])
    results = Results(core, replication, "a")
    results.expect(1, [(0, request)])
    request.finish(request, Verdict.EXPIRED, None, None)
    summary = Summary(9, 0, 0, 0, 0, 0, 0, 0, sealed=False)
    results.on_answered(Answered(SHARD, Token(1, 1), [(1, 1, AnswerState.PENDING, None)], summary))
    assert not results.waiting


def test_who_loses_the_race_for_a_lock_passes_its_requests_on_at_once() -> None:
    world = World(managers=3)
    world.run(20)
    answers = [world.submit(SEND, manager=name) for name in world.managers]
    world.run(100)
    assert answers == [[(Verdict.DONE, None, None)]] * 3


@pytest.mark.parametrize("error_ms", [-HOUR_MS, HOUR_MS])
def test_a_region_with_a_wrong_clock_does_not_set_a_shards_clock(error_ms: int) -> None:
    """P2, P6: the owner and its own region's node are the first to answer, and agree on a time that nobody else has."""
    world = World(delays={("m1", "b"): 20, ("m1", "c"): 40})
    world.managers["m1"].clock_error_ms = world.nodes["a"].clock_error_ms = error_ms
    answers = world.submit(Send([Content("body")]))
    world.run(3_000)
    time_ms = world.nodes["b"].core.replicas[SHARD].machine.now_ms
    assert abs(time_ms - world.ms - EPOCH_MS) < 10_000
    assert error_ms < 0 or answers == [(Verdict.DONE, None, None)]


def test_an_entry_from_the_future_that_nobody_else_took_is_left_behind() -> None:
    """P6: no later entry may be earlier than the chosen log's newest; that must not be one that a quorum refused."""
    world = World(delays={("m1", "b"): 20})
    first = world.managers["m1"]
    first.clock_error_ms = world.nodes["a"].clock_error_ms = HOUR_MS
    world.run(20)
    world.unlink(first, world.nodes["c"])
    world.submit(SEND)
    world.run(1_000)
    assert world.nodes["a"].core.replicas[SHARD].time_ms > world.ms + EPOCH_MS + HOUR_MS // 2
    world.link(first, world.nodes["c"])
    assert world.ask(SEND, within_ms=5_000) == (Verdict.DONE, None, None)
    world.run(200)
    assert abs(world.nodes["b"].core.replicas[SHARD].machine.now_ms - world.ms - EPOCH_MS) < 10_000


def test_an_owner_out_of_reach_is_reached_through_whichever_manager_can() -> None:
    """P6: the first that might pass it on may have no link to the owner either."""
    world = World(managers=4)
    world.ask(SEND, manager="m4")
    world.run(50)
    for name in ("m1", "m2"):
        manager = world.managers[name]
        manager.step(lambda manager=manager: manager.core.manager_down("m4"))
    assert world.ask(SEND, within_ms=1_000) == (Verdict.DONE, None, None)


def test_a_shard_ahead_of_every_clock_is_not_taken_over_and_over() -> None:
    """All clocks were set back: nothing can be appended before that time has come, and etcd need not hear of it."""
    world = World()
    world.ask(SEND)
    world.run(100)
    manager = world.managers["m1"]
    manager.clock_error_ms = -60_000
    for node in world.nodes.values():
        node.clock_error_ms = -60_000
    before = manager.transactions
    for _ in range(10):
        world.submit(SEND)
        world.run(500)
    assert manager.transactions - before <= 6


@pytest.mark.parametrize("error_ms", [-30_000, 30_000, HOUR_MS])
def test_one_managers_wrong_clock_makes_no_operation_late(error_ms: int) -> None:
    """P6: an owner's clock that is ahead must not end what others forward; one that is behind must not end its own."""
    world = World(managers=2)
    world.ask(SEND)
    world.run(100)
    world.managers["m1"].clock_error_ms = error_ms
    assert world.ask(SEND) == (Verdict.DONE, None, None)
    assert world.ask(SEND, manager="m2") == (Verdict.DONE, None, None)
