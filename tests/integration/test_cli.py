"""``shadowq`` as people use it: a cluster of real processes, looked at, broken, put right, ended, begun again."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distribution_manager.drills.local import LocalCluster
from distribution_manager.drills.ports import free_run
from distribution_manager.drills.workload import make_client
from tests.waiting import wait_for

pytestmark = pytest.mark.cluster

REGIONS = ["us-east-1", "eu-west-1", "ap-southeast-1"]
WAIT_S = 90.0


def shadowq(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "distribution_manager", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)


def succeed(*arguments: str | Path) -> str:
    done = shadowq(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "data"
    if (tmp_path / "data" / "cluster.json").exists():
        LocalCluster.attach(tmp_path / "data").stop()


def status(data: Path) -> dict[str, Any]:
    report = json.loads(succeed("status", "--data", data, "--json"))
    assert isinstance(report, dict)
    return report


def test_a_cluster_s_life(data: Path) -> None:
    printed = succeed("up", "--data", data, "--port", str(free_run(3)), "--detach")
    assert [line.split()[0] for line in printed.splitlines()[:3]] == REGIONS
    assert re.search(r"^ready after", printed, re.MULTILINE)

    # the snippet works as pasted
    pasted = subprocess.run(
        [sys.executable, "-c", printed[printed.index("import boto3") :]],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert pasted.stdout == "sent in us-east-1 - received in eu-west-1\n", pasted.stderr

    cluster = LocalCluster.attach(data)
    client = make_client(cluster.endpoints["eu-west-1"])
    url = client.get_queue_url(QueueName="hello")["QueueUrl"]
    client.send_message(QueueUrl=url, MessageBody="there again after a restart")
    client.close()

    report = status(data)
    assert [manager["name"] for manager in report["managers"]] == [f"manager-{region}" for region in REGIONS]
    assert [node["name"] for node in report["nodes"]] == [f"node-{region}" for region in REGIONS]
    assert {each["state"] for each in [*report["managers"], *report["nodes"], report["etcd"]]} == {"up"}
    assert all(manager["endpoint"].startswith("http://127.0.0.1:") for manager in report["managers"])
    (queue,) = report["queues"]
    assert (queue["name"], len(queue["shadows"]), queue["epoch"]) == ("hello", 2, 1)
    assert (queue["owner"], queue["primary"]) == ("manager-us-east-1", "node-us-east-1"), "its creator's region's"
    assert all({"node", "applied_seq", "lag"} <= set(replica) for replica in queue["shards"][0]["replicas"])
    assert "hello" in succeed("status", "--data", data)

    succeed("kill", "node-eu-west-1", "--data", data)
    assert status(data)["nodes"][1] | {"pid": None, "state": "stopped"} == status(data)["nodes"][1]
    assert "node-eu-west-1 is ready" in succeed("restart", "node-eu-west-1", "--data", data)
    wait_for(lambda: status(data)["nodes"][1]["state"] == "up", WAIT_S, "a manager that has dialled it again")

    assert succeed("down", "--data", data) == "stopped\n"
    assert not any(LocalCluster.attach(data).pids.values())
    again = shadowq("status", "--data", data)
    assert again.returncode == 1
    assert "is not running" in again.stderr

    succeed("up", "--data", data, "--detach")
    client = make_client(cluster.endpoints["ap-southeast-1"])
    url = client.get_queue_url(QueueName="hello")["QueueUrl"]
    messages = client.receive_message(QueueUrl=url, WaitTimeSeconds=5).get("Messages", [])
    client.close()
    assert [message["Body"] for message in messages] == ["there again after a restart"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["node", "--node", "n"],
        ["node", "--node", "n", "--region", "r", "--cluster", "c", "--data", "/proc/nowhere"],
        ["manager", "--name", "m", "--region", "r", "--etcd", "127.0.0.1:1", "--listen", "nowhere"],
    ],
)
def test_processes_that_cannot_start_say_so_in_one_line(arguments: list[str]) -> None:
    done = shadowq(*arguments)
    assert done.returncode != 0
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_a_manager_s_port_taken(data: Path) -> None:
    with LocalCluster(data, regions=["r1"], port=0) as cluster:
        etcd = cluster.member("etcd").ports["client"]
        taken = cluster.member("manager-r1").ports["client"]
        common = ["manager", "--name", "m", "--region", "r", "--etcd", f"127.0.0.1:{etcd}", "--cluster", "other"]
        done = shadowq(*common, "--listen", f"127.0.0.1:{taken}", "--link-listen", f"127.0.0.1:{free_run(1)}")
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(lines) == 1, done.stderr
    assert f"cannot listen on 127.0.0.1:{taken}" in lines[0]
    assert "--listen" in lines[0]
