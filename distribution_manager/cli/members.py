"""``shadowq restart|kill|freeze|resume|forget``: what is done to single processes of a local cluster."""

from __future__ import annotations

import argparse
from typing import Any

from distribution_manager.cli.arguments import add_local_command
from distribution_manager.cli.patience import add_patience, tell
from distribution_manager.drills.local import LocalCluster


def add_commands(commands: Any) -> None:
    """``commands``: argparse's, of ``shadowq``."""
    for name, run, text in (
        ("restart", run_restart, "start a process again, having stopped it if it runs"),
        ("kill", run_kill, "kill -9 processes, to see what happens"),
        ("freeze", run_freeze, "stop processes without ending them (SIGSTOP)"),
        ("resume", run_resume, "let frozen processes go on (SIGCONT)"),
    ):
        command = add_local_command(commands, name, run, text)
        command.add_argument("names", metavar="NAME", nargs="+", help="as status shows it, e.g. node-us-east-1")
        if name == "restart":
            add_patience(command)

    forget = add_local_command(commands, "forget", run_forget, "take away a node that is gone for good")
    forget.add_argument("node", metavar="NODE", help="one that is stopped, and holds no replica any more")


def run_restart(options: argparse.Namespace) -> int:
    cluster = LocalCluster.attach(options.data)
    names = [cluster.member(name).name for name in options.names]
    cluster.say = tell
    for name in names:
        cluster.restart(name, options.wait_s)
        print(f"{name} is ready, process {cluster.pids[name]}")
    return 0


def run_kill(options: argparse.Namespace) -> int:
    LocalCluster.attach(options.data).kill(*options.names)
    return 0


def run_freeze(options: argparse.Namespace) -> int:
    LocalCluster.attach(options.data).freeze(*options.names)
    return 0


def run_resume(options: argparse.Namespace) -> int:
    LocalCluster.attach(options.data).resume(*options.names)
    return 0


def run_forget(options: argparse.Namespace) -> int:
    LocalCluster.attach(options.data).forget(options.node)
    print(f"{options.node} is forgotten")
    return 0
