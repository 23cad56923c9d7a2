"""The command ``shadowq``.

Model: each module beside this one has a group of commands: it turns arguments into calls and results into lines.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from distribution_manager.cli import geography, keys, local, members, oplog, processes, queues
from distribution_manager.cli.arguments import FAILED, Parser, fail
from distribution_manager.config import ConfigError
from distribution_manager.drills.state import ClusterError
from shadow_nodes.protocol.errors import ShadowQError

GROUPS = (local, members, queues, oplog, geography, keys, processes)
"""In the order of ``shadowq --help``."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status. KeyboardInterrupt is the caller's."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["node"]:
        processes.run_node(arguments[1:])
    options = build_parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (ClusterError, ConfigError, ShadowQError) as error:
        return fail(str(error))
    except BrokenPipeError:
        # whoever read our output (less, head) has gone; Python must not complain about it at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="shadowq", description="A geo-shadowed queue proxy: an SQS endpoint in every region.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for group in GROUPS:
        group.add_commands(commands)
    return parser
