"""``shadowq up|add|down|status``: a whole cluster on this machine; what that is and does is in drills/local.py."""

from __future__ import annotations

import argparse
import os
import select
import signal
import time
from types import FrameType
from typing import Any, Final

import msgspec

from distribution_manager.cli.arguments import add_local_command, fail
from distribution_manager.cli.patience import add_patience, tell
from distribution_manager.drills import status
from distribution_manager.drills.local import LocalCluster
from distribution_manager.drills.plan import PORT_DEFAULT, REGIONS_DEFAULT
from distribution_manager.drills.processes import ProcessState
from distribution_manager.drills.state import ClusterError

WATCH_INTERVAL_S: Final = 0.1
AGAIN_SECONDS: Final = 0.5
"""A signal that comes sooner after another is that one once more: make and timeout pass theirs on to processes that
have had it from the terminal, or from whoever signalled the group. A later one interrupts the stopping."""

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


def add_commands(commands: Any) -> None:
    """``commands``: argparse's, of ``shadowq``."""
    up = add_local_command(commands, "up", run_up, "start etcd, and a node and a manager per region, on this machine")
    up.add_argument("--port", type=int, help=f"the first manager's port; the others' follow (default: {PORT_DEFAULT})")
    up.add_argument("--regions", type=_names, help=f"comma-separated (default: {','.join(REGIONS_DEFAULT)})")
    up.add_argument("--detach", action="store_true", help="return when it is ready; stop it with: shadowq down")

    add_patience(up)

    add = add_local_command(commands, "add", run_add, "start a node and a manager of a new region in a running cluster")
    add.add_argument("region", metavar="REGION")
    add_patience(add)

    add_local_command(commands, "down", run_down, "stop what up started; the data stays")

    show = add_local_command(commands, "status", run_status, "show processes and queues")
    show.add_argument("--json", action="store_true", help="as one JSON object")


def run_up(options: argparse.Namespace) -> int:
    began = time.monotonic()
    cluster = LocalCluster(options.data, regions=options.regions, port=options.port, detached=options.detach)
    stopping = Stopping()
    cluster.say = tell
    cluster.start(options.wait_s)
    stopping.from_now_on()
    for region, endpoint in cluster.endpoints.items():
        print(f"{region:<16} {endpoint}")
    ending = f"stop it with: shadowq down --data {options.data}" if options.detach else "Ctrl-C stops it"
    print(f"ready after {time.monotonic() - began:.1f} s; data and logs are in {options.data}; {ending}\n")
    print(snippet(cluster.endpoints), flush=True)
    return 0 if options.detach else _watch(cluster, stopping)


def run_add(options: argparse.Namespace) -> int:
    began = time.monotonic()
    cluster = LocalCluster.attach(options.data)
    cluster.say = tell
    cluster.add(options.region, options.wait_s)
    print(f"{options.region:<16} {cluster.endpoints[options.region]}")
    print(f"node-{options.region} and manager-{options.region} are ready after {time.monotonic() - began:.1f} s")
    return 0


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
    return fail(f"{options.data} is not running: start it with: shadowq up --data {options.data}")


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


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _watch(cluster: LocalCluster, stopping: Stopping) -> int:
    """Until told to stop: says which members have ended, and carries out what other commands ask for."""
    running = set(cluster.names)
    known = set(running)
    while not stopping.wait(WATCH_INTERVAL_S):
        for name in sorted(running):
            if cluster.state_of(name) is ProcessState.STOPPED:
                running.discard(name)
                how = _how_it_ended(cluster.exit_status(name))
                print(
                    f"{name} {how}; start it again with: shadowq restart {name} --data {cluster.data_dir}", flush=True
                )
        for name in cluster.serve_requests():
            print(f"{name} was started{' again' if name in known else ''}", flush=True)
            running.add(name)
            known.add(name)
    print("stopping", flush=True)
    cluster.stop()
    return 0


def _how_it_ended(exit_status: int | None) -> str:
    if exit_status is None:
        return "ended"
    if exit_status < 0:
        return f"was ended by {signal.Signals(-exit_status).name}"
    return f"ended with status {exit_status}"


class Stopping:
    """Ctrl-C, SIGTERM, SIGHUP: interrupt our work; ``from_now_on`` the first of them only ends the wait.

    Model: the handler writes to a pipe that ``wait`` reads. It runs between any two steps of what it interrupts, which
    may be another handler, so it may touch nothing that has a lock.
    """

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        self._waiting = False
        self._told_s: float | None = None
        """When a signal came last."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def from_now_on(self) -> None:
        """There is something to be stopped in order now."""
        self._waiting = True

    def wait(self, timeout_s: float) -> bool:
        """Whether a signal has come."""
        readable, _, _ = select.select([self._reading], [], [], timeout_s)
        return bool(readable)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        told_s, self._told_s = self._told_s, time.monotonic()
        if told_s is not None and self._told_s - told_s < AGAIN_SECONDS:
            return
        if told_s is not None or not self._waiting:
            raise KeyboardInterrupt
        os.write(self._writing, b"!")
