"""The command ``shadowq``.

Model: this file turns arguments into calls and results into lines; what a local cluster is and does is in
drills/local.py.
Invariant: an error is one line on standard error that says what to do, and a status other than 0; never a traceback.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

import msgspec

from distribution_manager import keys
from distribution_manager.config import ConfigError, ManagerConfig
from distribution_manager.drills import status
from distribution_manager.drills.local import LocalCluster
from distribution_manager.drills.plan import PORT_DEFAULT, REGIONS_DEFAULT
from distribution_manager.drills.processes import ProcessState
from distribution_manager.drills.state import ClusterError
from shadow_nodes.protocol.errors import ShadowQError

DATA_DEFAULT: Final = Path(".shadowq")
WATCH_INTERVAL_S: Final = 0.1
ETCD_WAIT_S: Final = 5.0
FAILED: Final = 1
MISUSED: Final = 2

SNIPPET: Final = """\
import boto3

def client(endpoint):
    return boto3.client("sqs", endpoint_url=endpoint, region_name="{region}",
                        aws_access_key_id="local", aws_secret_access_key="local")

here, there = client("{here}"), client("{there}")
queue = here.create_queue(QueueName="hello")["QueueUrl"]
here.send_message(QueueUrl=queue, MessageBody="sent in {here_region}")
queue = there.get_queue_url(QueueName="hello")["QueueUrl"]
for message in there.receive_message(QueueUrl=queue, WaitTimeSeconds=5)["Messages"]:
    print(message["Body"], "- received in {there_region}")
    there.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["node"]:
        run_node(arguments[1:])
    options = build_parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (ClusterError, ConfigError, ShadowQError) as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("interrupted")
    except BrokenPipeError:
        # whoever read our output (less, head) has gone; Python must not complain about it at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="shadowq", description="A geo-shadowed queue proxy: an SQS endpoint in every region.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    up = _command(commands, "up", run_up, "start etcd, and a node and a manager per region, on this machine")
    up.add_argument("--port", type=int, help=f"the first manager's port; the others' follow (default: {PORT_DEFAULT})")
    up.add_argument("--regions", type=_names, help=f"comma-separated (default: {','.join(REGIONS_DEFAULT)})")
    up.add_argument("--detach", action="store_true", help="return when it is ready; stop it with: shadowq down")

    _command(commands, "down", run_down, "stop what up started; the data stays")

    show = _command(commands, "status", run_status, "show processes and queues")
    show.add_argument("--json", action="store_true", help="as one JSON object")

    for name, run, text in (
        ("restart", run_restart, "start a process again, having stopped it if it runs"),
        ("kill", run_kill, "kill -9 processes, to see what happens"),
        ("freeze", run_freeze, "stop processes without ending them (SIGSTOP)"),
        ("resume", run_resume, "let frozen processes go on (SIGCONT)"),
    ):
        command = _command(commands, name, run, text)
        command.add_argument("names", metavar="NAME", nargs="+", help="as status shows it, e.g. node-us-east-1")

    promote = _command(commands, "promote", run_promote, "move a queue's primary and owner to another region")
    promote.add_argument("queue", metavar="QUEUE")
    promote.add_argument("--to", metavar="REGION", required=True, help="one that holds a replica of the queue")

    keys.add_commands(commands)

    commands.add_parser("node", help="run one shadow node: see shadowq node --help", add_help=False)
    manager = commands.add_parser(
        "manager", help="run one Distribution Manager", description="One Distribution Manager."
    )
    manager.set_defaults(run=run_manager_process)
    _add_settings(manager)
    return parser


def run_up(options: argparse.Namespace) -> int:
    began = time.monotonic()
    cluster = LocalCluster(options.data, regions=options.regions, port=options.port, detached=options.detach)
    stopping = _Stopping()
    cluster.start()
    stopping.from_now_on()
    for region, endpoint in cluster.endpoints.items():
        print(f"{region:<16} {endpoint}")
    ending = f"stop it with: shadowq down --data {options.data}" if options.detach else "Ctrl-C stops it"
    print(f"ready after {time.monotonic() - began:.1f} s; data and logs are in {options.data}; {ending}\n")
    print(snippet(cluster.endpoints), flush=True)
    return 0 if options.detach else _watch(cluster, stopping)


def run_down(options: argparse.Namespace) -> int:
    cluster = LocalCluster.attach(options.data)
    if not cluster.stop_supervised():
        if not any(cluster.pids.values()):
            raise ClusterError(f"{options.data} is not running: start it with: shadowq up --data {options.data}")
        cluster.stop()
    print("stopped")
    return 0


def run_status(options: argparse.Namespace) -> int:
    report = status.collect(LocalCluster.attach(options.data))
    print(
        msgspec.json.format(msgspec.json.encode(report), indent=2).decode() if options.json else status.render(report)
    )
    if status.is_running(report):
        return 0
    return _fail(f"{options.data} is not running: start it with: shadowq up --data {options.data}")


def run_restart(options: argparse.Namespace) -> int:
    cluster = LocalCluster.attach(options.data)
    for name in options.names:
        cluster.restart(name)
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


def run_promote(options: argparse.Namespace) -> int:
    done = LocalCluster.attach(options.data).promote(options.queue, options.to)
    print(f"{done['primary']} is primary, {done['owner']} owner, in epoch {done['epoch']}, after {done['took_ms']} ms")
    return 0


def run_node(arguments: Sequence[str]) -> NoReturn:
    """Becomes the node's process: its pid, its signals and its exit status are the node's own."""
    os.execv(sys.executable, [sys.executable, "-m", "shadow_nodes", *arguments])


def run_manager_process(options: argparse.Namespace) -> int:
    config = ManagerConfig.from_text(vars(options))
    _reach_etcd(config)
    from distribution_manager.runtime import run_manager  # noqa: PLC0415 - the other commands need none of it

    try:
        _event_loop_runner()(run_manager(config))
    except OSError as error:
        return _fail(f"{error.strerror or error}: choose other addresses with --listen and --link-listen")
    return 0


def snippet(endpoints: dict[str, str]) -> str:
    """Python that sends through the first endpoint and receives through the second (or the only one)."""
    regions = list(endpoints)
    here_region, there_region = regions[0], regions[1 % len(regions)]
    return SNIPPET.format(
        region=here_region,
        here=endpoints[here_region],
        there=endpoints[there_region],
        here_region=here_region,
        there_region=there_region,
    )


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, where argparse would print the usage too."""

    def error(self, message: str) -> NoReturn:
        self.exit(MISUSED, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.set_defaults(run=run)
    command.add_argument(
        "--data", type=Path, default=DATA_DEFAULT, metavar="DIR", help=f"data directory (default: {DATA_DEFAULT})"
    )
    return command


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """An option for each field of ManagerConfig; reading and checking them is left to ManagerConfig.from_text."""
    for setting in fields(ManagerConfig):
        option = f"--{setting.name.replace('_', '-')}"
        text = setting.metadata["doc"]
        if setting.default is False:
            parser.add_argument(option, dest=setting.name, action="store_true", help=text)
            continue
        if setting.default is not MISSING and setting.default not in (None, ()):
            text = f"{text} (default: {setting.default})"
        parser.add_argument(option, dest=setting.name, metavar="X", help=text.replace("%", "%%"))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _watch(cluster: LocalCluster, stopping: _Stopping) -> int:
    """Until told to stop: says which members have ended, and carries out restarts that other commands ask for."""
    running = set(cluster.names)
    while not stopping.wait(WATCH_INTERVAL_S):
        for name in sorted(running):
            if cluster.state_of(name) is ProcessState.STOPPED:
                running.discard(name)
                how = _how_it_ended(cluster.exit_status(name))
                print(
                    f"{name} {how}; start it again with: shadowq restart {name} --data {cluster.data_dir}", flush=True
                )
        for name in cluster.serve_requests():
            running.add(name)
            print(f"{name} was started again", flush=True)
    print("stopping", flush=True)
    cluster.stop()
    return 0


def _how_it_ended(exit_status: int | None) -> str:
    if exit_status is None:
        return "ended"
    if exit_status < 0:
        return f"was ended by {signal.Signals(-exit_status).name}"
    return f"ended with status {exit_status}"


class _Stopping:
    """Ctrl-C, SIGTERM, SIGHUP: interrupt our work; ``from_now_on`` the first of them only ends the wait."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._waiting = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def from_now_on(self) -> None:
        """There is something to be stopped in order now."""
        self._waiting = True

    def wait(self, timeout_s: float) -> bool:
        """Whether a signal has come."""
        return self._event.wait(timeout_s)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self._waiting or self._event.is_set():
            raise KeyboardInterrupt
        self._event.set()


def _reach_etcd(config: ManagerConfig) -> None:
    """A manager that runs waits for an etcd that went away; one that starts should say that it sees none."""
    deadline = time.monotonic() + ETCD_WAIT_S
    while time.monotonic() < deadline:
        for address in config.etcd:
            with contextlib.suppress(OSError), socket.create_connection(address, timeout=ETCD_WAIT_S / 2):
                return
        time.sleep(WATCH_INTERVAL_S)
    where = ", ".join(str(address) for address in config.etcd)
    raise ConfigError(f"etcd: cannot be reached at {where}: start it, or name its endpoints with --etcd")


def _event_loop_runner() -> Any:
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return asyncio.run
    return uvloop.run


def _fail(message: str) -> int:
    print(f"shadowq: {message}", file=sys.stderr)
    return FAILED
