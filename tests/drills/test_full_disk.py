"""Real nodes on disks of 128 MiB, filled by what clients send: what was acknowledged is there, and no process ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from distribution_manager.drills import faults
from distribution_manager.drills.local import LocalCluster
from distribution_manager.drills.plan import REGIONS_DEFAULT
from distribution_manager.drills.workload import make_client
from shadow_nodes.protocol.limits import KIB, MIB

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

DISK_BYTES = 128 * MIB
BODY_BYTES = 200 * KIB
SENDS_MAX = DISK_BYTES // BODY_BYTES
ROOM_TIMEOUT_S = 90.0
PAGE_BYTES = 4 * KIB


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[dict[str, Path]]:
    """A small disk under each node's data."""
    found = {f"node-{region}": tmp_path / "cluster" / f"node-{region}" for region in REGIONS_DEFAULT}
    with contextlib.ExitStack() as stack:
        for path in found.values():
            path.mkdir(parents=True)
            command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(path)]
            if os.getuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
                pytest.skip("may not mount a tmpfs")
            stack.callback(subprocess.run, ["umount", "--lazy", str(path)], check=True)
        yield found


def body(number: int) -> str:
    return f"{number}:".ljust(BODY_BYTES, "x")


def number_of(message: dict[str, Any]) -> int:
    return int(message["Body"].partition(":")[0])


def send_until_refused(client: Any, url: str, first: int) -> tuple[list[int], str]:
    """The numbers of the messages that were acknowledged, and why the next was not."""
    sent: list[int] = []
    for number in range(first, first + SENDS_MAX):
        try:
            client.send_message(QueueUrl=url, MessageBody=body(number))
        except ClientError as error:
            return sent, f"{error.response['Error']['Code']}: {error.response['Error']['Message']}"
        sent.append(number)
    raise AssertionError("the disks hold more than they have room for")


def take(client: Any, url: str, count: int) -> list[int]:
    """Receives and deletes so many, or as many as there are."""
    taken: list[int] = []
    while len(taken) < count:
        found = client.receive_message(QueueUrl=url, MaxNumberOfMessages=min(3, count - len(taken))).get("Messages", [])
        if not found:
            break
        for message in found:
            client.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            taken.append(number_of(message))
    return taken


def test_disks_filled_by_sends(disks: dict[str, Path], tmp_path: Path) -> None:
    with LocalCluster(tmp_path / "cluster", port=0) as cluster:
        client = make_client(cluster.endpoints["eu-west-1"], retries={"total_max_attempts": 1})
        url = client.create_queue(QueueName="full")["QueueUrl"]
        before = cluster.pids

        sent, why = send_until_refused(client, url, 0)
        assert why.startswith("ServiceUnavailable: The queue cannot grow now"), why
        assert len(sent) > 30, "the disks were hardly used"

        # nearly full: receives and deletes go on; so they do when others take the rest, by the reserve
        deleted = take(client, url, 10)
        ballasts = [path / "ballast" for path in list(disks.values())[:2]]
        for ballast in ballasts:
            ballast.touch()
            if (free_bytes := shutil.disk_usage(ballast.parent).free // PAGE_BYTES * PAGE_BYTES) > 0:
                with ballast.open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, free_bytes)
        deleted += take(client, url, 10)
        assert len(deleted) == 20
        with pytest.raises(ClientError, match="cannot grow"):
            client.send_message(QueueUrl=url, MessageBody=body(1_000_000))

        # room comes back: what was deleted makes it, and what others had taken
        for ballast in ballasts:
            ballast.unlink()
        deleted += take(client, url, 20)
        deadline = time.monotonic() + ROOM_TIMEOUT_S
        more: list[int] = []
        while not more and time.monotonic() < deadline:
            with contextlib.suppress(ClientError):
                client.send_message(QueueUrl=url, MessageBody=body(2_000_000))
                more = [2_000_000]
            deleted += [] if more else take(client, url, 1)
        assert more, "no room came back"

        assert cluster.pids == before, "a process has ended"
        rest = take(client, url, SENDS_MAX)
        assert sorted(deleted + rest) == sorted(sent + more)
        assert not faults.differing(faults.settled_digests(cluster, 3), 3)
        for name, path in disks.items():
            assert (path / "reserve").exists(), f"{name} has no reserve again"
        client.close()
