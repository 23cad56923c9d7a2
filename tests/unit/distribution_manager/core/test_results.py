"""Whom an owner asks for results."""

from __future__ import annotations

from review_world import SHARD, World

from shadow_nodes.protocol.commands import Batch, Content, Receive, Send


def test_a_new_primary_is_asked_at_once_though_the_owner_stays() -> None:
    world = World(managers=1)
    world.ask(Send([Content("x")]))
    core = world.managers["m1"].core
    replication = core.owners[SHARD].replication
    assert replication is not None
    assert replication.acting == "a"
    world.managers["m1"].step(lambda: core.handoffs.promote(SHARD, "b", "because"))
    world.run(1_000)
    assert core.owners[SHARD].record.primary == "b"
    assert core.owners[SHARD].replication is replication
    assert replication.acting == "b"
    _, result, _ = world.ask(Receive())
    assert isinstance(result, Batch)
    assert [item.content.body for item in result.messages] == ["x"]


def test_a_new_primary_that_is_far_off_and_dies_is_replaced() -> None:
    """Results went on coming from the one before, so that nothing was missed of it."""
    world = World(managers=1)
    world.ask(Send([Content("x")]))
    manager = world.managers["m1"]
    manager.core.liveness.nodes["c"].round_trip.smoothed_ms = 1_000
    manager.step(lambda: manager.core.handoffs.promote(SHARD, "c", "because"))
    world.run(300)
    assert manager.core.owners[SHARD].record.primary == "c"
    world.nodes["c"].up = False
    world.unlink(manager, world.nodes["c"])
    world.run(3_000)
    assert manager.core.owners[SHARD].record.primary in {"a", "b"}
