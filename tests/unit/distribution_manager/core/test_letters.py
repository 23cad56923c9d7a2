"""Letters whose queue is not there: they do not keep others waiting, nor upset an order."""

from __future__ import annotations

import msgspec
from review_world import QUEUE_ID, World

from distribution_manager.core.messages import Verdict
from distribution_manager.core.metadata import encode_record, meta_key
from distribution_manager.core.transactions import Put, Transaction
from shadow_nodes.protocol.commands import Batch, Content, Receive, Send

POLICY = '{"deadLetterTargetArn": "arn:aws:sqs:us-east-1:000000000000:gone%s", "maxReceiveCount": 1}'


def world_without_target(name: str) -> World:
    world = World(name=name)
    suffix = ".fifo" if name.endswith(".fifo") else ""
    changed = msgspec.structs.replace(world.queue, attributes={"RedrivePolicy": POLICY % suffix}, version=2)
    world.etcd.transact(Transaction([], [Put(meta_key(QUEUE_ID), encode_record(changed))]))
    world.run(10)
    return world


def bodies(world: World) -> list[str]:
    verdict, batch, _ = world.ask(Receive(10, visibility_timeout_ms=100))
    assert verdict is Verdict.DONE
    assert isinstance(batch, Batch)
    return [message.content.body for message in batch.messages]


def test_a_letter_without_a_queue_to_go_to_comes_back() -> None:
    world = world_without_target("q")
    world.ask(Send([Content("a")]))
    assert bodies(world) == ["a"]
    world.run(200)
    assert bodies(world) == [], "it has been received as often as it may, and is in the outbox"
    world.run(10_000)
    assert bodies(world) == ["a"]
    summary = world.ask(None)[2]
    assert summary is not None
    assert (summary.held, summary.outbox) == (1, 0)


def test_one_of_a_fifo_queue_waits_and_blocks_its_group_only() -> None:
    world = world_without_target("q.fifo")
    world.ask(
        Send([Content("a", group_id="1", deduplication_id="a"), Content("b", group_id="1", deduplication_id="b")])
    )
    world.ask(Send([Content("c", group_id="2", deduplication_id="c")]))
    assert bodies(world) == ["a", "b", "c"]
    world.run(200)
    world.ask(Send([Content("d", group_id="3", deduplication_id="d")]))
    assert bodies(world) == ["d"]
    world.run(10_000)
    summary = world.ask(None)[2]
    assert summary is not None
    assert summary.outbox >= 1
