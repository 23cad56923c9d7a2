"""What an owner writes into its log for those who read it later: takeovers and changes of the record, and why."""

from __future__ import annotations

import msgspec
from review_world import SHARD, Node, World
from test_review_takeover import die, replace_store

from distribution_manager.core import causes
from shadow_nodes.protocol.commands import NO_REPLICA_SET, Content, Note, Open, Send, decode_entry

SEND = Send([Content("body")])


def audit(node: Node) -> list[Open | Note]:
    """Committed audit entries of a node's log."""
    entries = node.core.log_for(SHARD, 0) or []
    commands = [operation.command for item in entries for operation in decode_entry(item.data).operations]
    told = [command for command in commands if isinstance(command, Open | Note)]
    assert all(one.replica_set.version == one.version for one in told), "what the replicas are to remember"
    return [msgspec.structs.replace(one, replica_set=NO_REPLICA_SET) for one in told]


def test_a_promotion_by_hand() -> None:
    world = World(managers=2)
    world.ask(SEND)
    core = world.managers["m1"].core
    world.managers["m1"].step(lambda: core.handoffs.promote(SHARD, "b", "because"))
    world.run(1_000)
    world.ask(SEND)
    world.run(100)
    nodes = ["a", "b", "c"]
    assert audit(world.nodes["c"]) == [
        Open("m1", causes.GONE, "a", nodes, 1),
        Note("because", "a", "b", nodes, nodes, 1),
        Open("m2", causes.HANDOFF, "b", nodes, 1),
    ]


def test_a_takeover_and_a_primary_that_died() -> None:
    world = World(managers=2)
    world.ask(SEND)
    die(world, world.managers["m1"])
    world.ask(SEND, manager="m2", within_ms=5_000)
    world.nodes["a"].up = False
    world.unlink(world.managers["m2"], world.nodes["a"])
    world.run(2_000)
    world.ask(SEND, manager="m2")
    world.run(100)
    _, taken, promoted = audit(world.nodes["c"])
    assert taken == Open("m2", causes.GONE, "a", ["a", "b", "c"], 1)
    assert isinstance(promoted, Note)
    assert (promoted.cause, promoted.primary_before) == (causes.FAILURE, "a")
    assert promoted.primary in {"b", "c"}


def test_a_store_that_was_replaced() -> None:
    world = World()
    world.ask(SEND)
    replace_store(world, world.nodes["c"], "c-2")
    world.run(3_000)
    world.ask(SEND)
    world.run(100)
    nodes = ["a", "b", "c"]
    assert audit(world.nodes["a"])[1:] == [Note(causes.NEW_STORE, "a", "a", nodes, nodes, 2)]
