"""``shadowq promote``: where a queue lives."""

from __future__ import annotations

import argparse
from typing import Any

from distribution_manager.cli.arguments import add_local_command
from distribution_manager.drills.local import LocalCluster


def add_commands(commands: Any) -> None:
    """``commands``: argparse's, of ``shadowq``."""
    promote = add_local_command(commands, "promote", run_promote, "move a queue's primary and owner to another region")
    promote.add_argument("queue", metavar="QUEUE")
    promote.add_argument("--to", metavar="REGION", required=True, help="one that holds a replica of the queue")


def run_promote(options: argparse.Namespace) -> int:
    done = LocalCluster.attach(options.data).promote(options.queue, options.to)
    print(f"{done['primary']} is primary, {done['owner']} owner, in epoch {done['epoch']}, after {done['took_ms']} ms")
    return 0
