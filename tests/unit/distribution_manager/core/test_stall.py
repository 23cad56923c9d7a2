"""Owners whose quorum is gone: what comes waits outside the log, and has happened to nobody when it is given up."""

from __future__ import annotations

from review_world import SHARD, Answer, World

from distribution_manager.core.limits import STALL_MS, SWEEP_INTERVAL_MS
from distribution_manager.core.messages import Verdict
from distribution_manager.core.owner import ShardOwner
from shadow_nodes.protocol.commands import Batch, Content, Receive, Send
from shadow_nodes.protocol.limits import HEARTBEAT_INTERVAL_MS, OPERATION_HOLD_MS, SILENCE_BOUND_MS

MESSAGES = 30
VISIBILITY_MS = 600_000


def filled() -> World:
    world = World()
    world.run(2_000)
    for number in range(MESSAGES):
        assert world.ask(Send([Content(f"{number}")]))[0] is Verdict.DONE
    return world


def owner_of(world: World) -> ShardOwner:
    return world.managers["m1"].core.owners[SHARD]


def without_quorum(world: World) -> None:
    for name in "bc":
        world.lose(name)


def receive(world: World) -> list[Answer]:
    return world.submit(Receive(10, VISIBILITY_MS))


def received(answers: list[Answer]) -> int:
    ((verdict, result, _),) = answers
    assert verdict is Verdict.DONE
    assert isinstance(result, Batch)
    return len(result.messages)


def test_receives_of_which_nobody_hears_hide_nothing() -> None:
    """Consumers ask, are given no answer, and ask again, for as long as the outage lasts: an hour, or 40 s here."""
    world = filled()
    without_quorum(world)
    first = receive(world)
    world.run(STALL_MS)
    lost = []
    for _ in range(4):
        lost += [receive(world) for _ in range(3)]
        world.run(OPERATION_HOLD_MS + SWEEP_INTERVAL_MS + HEARTBEAT_INTERVAL_MS)
    for answers in [first, *lost]:
        assert [verdict for verdict, _, _ in answers] == [Verdict.EXPIRED]
    for name in "bc":
        world.find(name)
    world.run(1_000)
    given = [receive(world) for _ in range(MESSAGES // 10)]
    world.run(1_000)
    assert sum(received(answers) for answers in given) == MESSAGES - 10, "the first was on its way before it was known"


def test_what_waits_is_carried_out_when_the_quorum_is_back_in_time() -> None:
    world = filled()
    without_quorum(world)
    world.submit(Send([Content("under way")]))
    world.run(STALL_MS)
    sent, asked = world.submit(Send([Content("late")])), receive(world)
    world.run(OPERATION_HOLD_MS // 2)
    assert not sent
    for name in "bc":
        world.find(name)
    world.run(1_000)
    assert [verdict for verdict, _, _ in sent] == [Verdict.DONE]
    assert received(asked) == 10


def test_a_send_that_was_refused_is_not_sent_all_the_same() -> None:
    world = filled()
    without_quorum(world)
    world.submit(Send([Content("under way")]))
    world.run(STALL_MS)
    refused = [world.submit(Send([Content("refused")])) for _ in range(100)]
    world.run(OPERATION_HOLD_MS + 2 * SILENCE_BOUND_MS)
    assert {verdict for answers in refused for verdict, _, _ in answers} == {Verdict.EXPIRED}
    owner = owner_of(world)
    assert not owner._sequencer.waiting, "what is given up is not kept"
    for name in "bc":
        world.find(name)
    world.run(1_000)
    _, _, summary = world.ask(None)
    assert summary is not None
    assert summary.ready == MESSAGES + 1


def test_what_is_given_up_while_a_shard_is_taken_is_not_kept_either() -> None:
    world = World()
    for name in "bc":
        world.lose(name)
    world.run(100)
    answers = [world.submit(Send([Content("x")])) for _ in range(10)] + [receive(world) for _ in range(10)]
    world.run(OPERATION_HOLD_MS + 1_000)
    assert {verdict for one in answers for verdict, _, _ in one} == {Verdict.EXPIRED}
    owner = owner_of(world)
    assert not owner._sequencer.waiting
    assert not len(owner._desk)


def test_an_owner_that_is_held_up_is_not_woken_all_the_time() -> None:
    """Nodes that answer heartbeats and write nothing: their disks hang."""
    world = filled()
    for name in "bc":
        world.nodes[name].pump = lambda: None  # type: ignore[method-assign]
    world.submit(Send([Content("under way")]))
    world.run(STALL_MS)
    world.submit(Send([Content("waits")]))
    alarms = world.managers["m1"].alarms
    world.run(1_000)
    assert world.managers["m1"].alarms - alarms < 20
