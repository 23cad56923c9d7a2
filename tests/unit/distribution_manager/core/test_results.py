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
