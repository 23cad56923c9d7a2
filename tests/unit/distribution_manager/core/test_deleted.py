"""P8: an owner that slept through its queue's deletion gets nothing acknowledged any more."""

from __future__ import annotations

import pytest
from review_world import QUEUE_ID, SHARD, Manager, World

from distribution_manager.core.messages import Verdict
from distribution_manager.core.metadata import meta_key, record_key
from distribution_manager.core.transactions import Remove, Transaction
from shadow_nodes.protocol.commands import Content, Send
from shadow_nodes.protocol.messages import Erase


def test_replicas_that_were_erased_are_not_filled_again_by_an_owner_that_does_not_know(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The third replica is away, so that the owner still has every entry and could fill the others."""
    world = World()
    world.nodes["c"].up = False
    world.unlink(world.managers["m1"], world.nodes["c"])
    assert world.ask(Send([Content("a")]))[0] is Verdict.DONE
    monkeypatch.setattr(Manager, "look", lambda manager: None)
    world.etcd.transact(Transaction([], [Remove(record_key(SHARD)), Remove(meta_key(QUEUE_ID))]))
    for node in (world.nodes["a"], world.nodes["b"]):
        node.core.receive(1, [Erase(SHARD)], node.now())
        node.pump()
    answers = world.submit(Send([Content("b")]))
    world.run(9_000)
    assert answers == []
