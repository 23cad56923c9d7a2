"""Operations that must end, and loops that must not spin, whatever the distances, the load and the order of things."""

from __future__ import annotations

from review_world import SHARD, Node, World

from distribution_manager.core.limits import ENTRIES_UNDER_WAY_MAX
from distribution_manager.core.messages import Verdict
from shadow_nodes.protocol.commands import Batch, Content, Receive, Seal, Send
from shadow_nodes.protocol.limits import MIB, RESULTS_BYTES_MAX
from shadow_nodes.protocol.messages import ToManager, encode_frame

SEND = Send([Content("body")])
EMPTY = Batch([])


def test_it_works_at_all() -> None:
    world = World(managers=2)
    assert world.ask(SEND) == (Verdict.DONE, None, None)
    verdict, result, _ = world.ask(Receive(10), manager="m2")
    assert verdict is Verdict.DONE
    assert isinstance(result, Batch)
    assert [one.content.body for one in result.messages] == ["body"]
    assert world.ask(Receive(10), manager="m2") == (Verdict.DONE, EMPTY, None)
    assert world.ask(None)[2].held == 1


def test_a_far_quorum_confirms_an_empty_answer() -> None:
    """P6: with the near shadow gone, the quorum's other half may be further off than the primary's patience."""
    world = World(delays={("m1", "c"): 170})
    world.ask(SEND)
    world.nodes["b"].up = False
    world.unlink(world.managers["m1"], world.nodes["b"])
    world.ask(Receive(10))
    assert world.ask(Receive(10)) == (Verdict.DONE, EMPTY, None)
    assert world.ask(None)[2].held == 1


def test_confirmations_are_not_forgotten_because_others_are_asked_for_meanwhile() -> None:
    """P6: many shards begin rounds all the time; more than a handful fit into one round trip."""
    world = World(delays={("m1", "b"): 60, ("m1", "c"): 60})
    world.ask(SEND)
    world.ask(Receive(10))
    answers = world.submit(Receive(10))
    for _ in range(1_000):
        world.run(1)
        world.managers["m1"].core.confirm_soon("another/0")
        world.managers["m1"].core.flush()
    assert answers == [(Verdict.DONE, EMPTY, None)]


def test_a_seal_may_be_repeated() -> None:
    """P6: who seals may die, or lose the answer, before the queue is buried; the next one must be able to bury it."""
    world = World(managers=2)
    world.ask(SEND)
    assert world.ask(Seal()) == (Verdict.DONE, None, None)
    assert world.ask(SEND)[0] is Verdict.GONE
    assert world.ask(Seal(), manager="m2") == (Verdict.DONE, None, None)
    world.managers["m1"].core.owners[SHARD].lose()
    world.managers["m1"].core.flush()
    assert world.ask(Seal()) == (Verdict.DONE, None, None)


def _stop_commits(world: World) -> None:
    world.deaf |= {"b", "c"}


def _go_on(world: World) -> None:
    world.deaf.clear()
    for name in "bc":
        world.unlink(world.managers["m1"], world.nodes[name])
        world.link(world.managers["m1"], world.nodes[name])


def test_nothing_spins_while_a_quorum_is_out_of_reach() -> None:
    world = World()
    world.ask(SEND)
    world.ask(Receive(10))
    _stop_commits(world)
    answers = []
    for _ in range(100):
        answers.append(world.submit(SEND))
        world.run(2)
    answers.append(world.submit(Receive(10)))
    world.run(100)
    before = world.managers["m1"].alarms
    world.run(1_000)
    assert world.managers["m1"].alarms - before < 100


def test_receives_that_ran_out_of_time_hold_nothing_back() -> None:
    """P6: receives admitted but never sequenced, because nothing was committed for long, take no messages."""
    world = World()
    for _ in range(3):
        world.ask(SEND)
    _stop_commits(world)
    sends = []
    for _ in range(ENTRIES_UNDER_WAY_MAX + 16):
        sends.append(world.submit(SEND))
        world.run(2)
    receives = [world.submit(Receive(10)) for _ in range(30)]
    world.run(13_000)
    assert all(answer[0][0] is Verdict.EXPIRED for answer in receives)
    _go_on(world)
    world.run(1_000)
    verdict, result, _ = world.ask(Receive(10))
    assert verdict is Verdict.DONE
    assert isinstance(result, Batch)
    assert result.messages


def test_results_come_in_portions_that_a_link_can_carry() -> None:
    """P6: many receives of large messages in one entry; what fits no frame would end the link, again and again."""
    world = World()
    large = Send([Content("x" * 1_000_000)])
    for _ in range(40):
        world.ask(large)
    sizes = []
    link_up = world.to_manager

    def measured(node: Node, link: int, message: ToManager) -> None:
        sizes.append(len(encode_frame([message])))
        link_up(node, link, message)

    world.to_manager = measured  # type: ignore[method-assign]
    answers = [world.submit(Receive(1)) for _ in range(40)]
    world.run(1_000)
    assert all(len(answer) == 1 for answer in answers)
    assert sum(len(answer[0][1].messages) for answer in answers) == 40
    assert max(sizes) < RESULTS_BYTES_MAX + MIB
