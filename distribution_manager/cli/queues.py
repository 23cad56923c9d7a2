"""``shadowq promote|drain|rebalance``: where queues live."""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from distribution_manager.cli.arguments import add_local_command, fail
from distribution_manager.drills.local import LocalCluster
from distribution_manager.drills.state import ClusterError

DRAIN_POLL_S: Final = 0.5
DRAIN_LOOKS: Final = 2
"""So many looks in a row must find nothing left: what was on its way when the mark was set has come by then."""
DRAIN_STALLED_S: Final = 60.0
"""Without progress for this long, the command says what is left, and ends; the mark stays."""
REBALANCE_AT_ONCE: Final = 4
QUEUES_NAMED_MAX: Final = 5


def add_commands(commands: Any) -> None:
    """``commands``: argparse's, of ``shadowq``."""
    promote = add_local_command(commands, "promote", run_promote, "move a queue's primary and owner to another region")
    promote.add_argument("queue", metavar="QUEUE")
    promote.add_argument("--to", metavar="REGION", required=True, help="one that holds a replica of the queue")

    drain = add_local_command(commands, "drain", run_drain, "move every primary and owner away from a node or region")
    drain.add_argument("name", metavar="NODE|REGION", help="a region where there is one of that name, else a node")
    drain.add_argument("--undo", action="store_true", help="let primaries and owners come again")

    rebalance = add_local_command(commands, "rebalance", run_rebalance, "spread primaries and owners over the regions")
    rebalance.add_argument("--dry-run", action="store_true", help="only say what would be moved")


def run_promote(options: argparse.Namespace) -> int:
    done = LocalCluster.attach(options.data).promote(options.queue, options.to)
    print(f"{done['primary']} is primary, {done['owner']} owner, in epoch {done['epoch']}, after {done['took_ms']} ms")
    return 0


def run_drain(options: argparse.Namespace) -> int:
    cluster = LocalCluster.attach(options.data)
    state = cluster.drain(options.name, undo=options.undo)
    if options.undo:
        print(f"{options.name} is not drained any more: shadowq rebalance spreads primaries over it again")
        return 0
    seen: list[Any] = []
    empty, changed = 0, time.monotonic()
    while empty < DRAIN_LOOKS:
        left = [state["primaries"], state["owners"]]
        if left != seen:
            seen, changed = left, time.monotonic()
            print(f"{options.name}: primaries to move: {len(left[0])}, owners to move: {len(left[1])}", flush=True)
        if time.monotonic() - changed > DRAIN_STALLED_S:
            names = _named(sorted({*left[0], *left[1]}))
            return fail(f"{options.name} is not drained: {names} can be moved nowhere; nothing else will come to it")
        empty = empty + 1 if state["drained"] else 0
        time.sleep(DRAIN_POLL_S)
        state = cluster.look_at_drain(options.name)
    return _say_whether_safe(options.name, state)


def _say_whether_safe(name: str, state: dict[str, Any]) -> int:
    if state["safe"]:
        print(f"{name} is drained, and safe to stop: replicas that stay there as shadows: {state['replicas']}")
        return 0
    queues = state["without_quorum"]
    return fail(
        f"{name} is drained, but not safe to stop: queues that would have no quorum without it: {len(queues)} "
        f"({_named(queues)}); start the nodes that are down first"
    )


def run_rebalance(options: argparse.Namespace) -> int:
    cluster = LocalCluster.attach(options.data)
    steps = cluster.rebalancing()
    if not steps:
        print("primaries and owners are spread already")
        return 0
    if options.dry_run:
        for step in steps:
            print(f"{step['queue']}: from {step['node']} to {step['to']}: {step['why']}")
        print(f"queues that would be moved: {len(steps)}")
        return 0

    def move(step: dict[str, str]) -> str:
        try:
            done = cluster.promote(step["queue"], step["region"], cause="balance")
        except ClusterError as error:
            return str(error)
        print(f"{step['queue']}: {done['primary']} is primary, {done['owner']} owner: {step['why']}", flush=True)
        return ""

    with ThreadPoolExecutor(REBALANCE_AT_ONCE) as pool:
        errors = [error for error in pool.map(move, steps) if error]
    print(f"queues moved: {len(steps) - len(errors)} of {len(steps)}")
    return fail(errors[0]) if errors else 0


def _named(queues: list[str]) -> str:
    return ", ".join(queues[:QUEUES_NAMED_MAX]) + (", ..." if len(queues) > QUEUES_NAMED_MAX else "")
