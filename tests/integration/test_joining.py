"""Nodes and regions that join a running cluster: real processes, real DNS, clients that go on meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from distribution_manager.drills.commands import Commands
from distribution_manager.drills.local import LocalCluster
from distribution_manager.drills.ports import free_ports, free_run
from distribution_manager.drills.state import SECRET_FILE, ClusterError
from distribution_manager.drills.workload import make_client
from tests.dns_server import DnsThread
from tests.waiting import wait_for

pytestmark = pytest.mark.cluster

WAIT_S = 60.0
until = partial(wait_for, within_s=WAIT_S)
REGIONS = ["r1", "r2", "r3"]
MANAGERS = "_shadowq-link._tcp.example.org"


class Load:
    """A client that sends and receives until it is told to end; what it was refused is kept."""

    def __init__(self, endpoint: str, queue: str) -> None:
        self._client = make_client(endpoint)
        self._url = self._client.create_queue(QueueName=queue)["QueueUrl"]
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.done = 0
        self.errors: list[str] = []

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        self._client.close()

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                self._client.send_message(QueueUrl=self._url, MessageBody=str(self.done))
                for message in self._client.receive_message(QueueUrl=self._url).get("Messages", []):
                    self._client.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
            except Exception as error:
                self.errors.append(repr(error))
            else:
                self.done += 1


def run(cluster: LocalCluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, while this one, which runs the cluster, carries out what it asks for."""
    command = [sys.executable, "-m", "distribution_manager", *arguments, "--data", str(cluster.data_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            cluster.serve_requests()
            time.sleep(0.05)
        assert process.stdout is not None
        assert process.stderr is not None
        return subprocess.CompletedProcess(command, process.returncode, process.stdout.read(), process.stderr.read())


def nodes(cluster: LocalCluster) -> dict[str, dict[str, Any]]:
    """What each of the managers says of nodes, where all say the same; empty while they do not."""
    reports = [cluster.ask(name, "/admin/status") for name in cluster.names if cluster.member(name).kind == "manager"]
    seen = [{row["name"]: (row["address"], row["state"]) for row in report["nodes"]} for report in reports if report]
    if any(each != seen[0] for each in seen):
        return {}
    return {row["name"]: row for row in reports[0]["nodes"]}


def test_a_region_joins_under_load_and_takes_replicas(tmp_path: Path) -> None:
    with LocalCluster(tmp_path / "data", regions=REGIONS, port=0) as cluster:
        with Load(cluster.endpoints["r1"], "before") as load:
            until(lambda: load.done > 20)
            added = run(cluster, "add", "r4")
            assert added.returncode == 0, added.stderr
            assert cluster.endpoints["r4"] in added.stdout
            until(lambda: nodes(cluster).get("node-r4", {}).get("state") == "up")

            client = make_client(cluster.endpoints["r4"])
            url = client.create_queue(QueueName="after", Attributes={"ShadowFactor": "3"})["QueueUrl"]
            client.send_message(QueueUrl=url, MessageBody="kept in four regions")
            report = cluster.ask("manager-r4", "/admin/status?queue=after")
            replicas = {replica["node"] for replica in report["queues"][0]["replicas"]}
            assert replicas == {"node-r1", "node-r2", "node-r3", "node-r4"}
            after = load.done
            until(lambda: load.done > after + 20)
        assert load.errors == []

        again = run(cluster, "add", "r4")
        assert again.returncode == 1
        assert len(again.stderr.strip().splitlines()) == 1

        refused = run(cluster, "forget", "node-r4")
        assert "node node-r4 is running: stop it first" in refused.stderr
        run(cluster, "kill", "node-r4")
        until(lambda: nodes(cluster).get("node-r4", {}).get("state") == "unreachable")
        refused = run(cluster, "forget", "node-r4")
        assert "holds replicas of 1 queues (after)" in refused.stderr
        assert "node-r4 is ready" in run(cluster, "restart", "node-r4").stdout
        until(lambda: nodes(cluster).get("node-r4", {}).get("state") == "up")
        client.delete_queue(QueueUrl=url)
        client.close()
        run(cluster, "kill", "node-r4")
        until(lambda: nodes(cluster).get("node-r4", {}).get("state") == "unreachable")
        forgotten = run(cluster, "forget", "node-r4")
        assert forgotten.returncode == 0, forgotten.stderr
        until(lambda: (found := nodes(cluster)) and "node-r4" not in found)


def test_a_killed_node_s_replica_moves_to_the_region_that_joined(tmp_path: Path) -> None:
    def replicas() -> dict[str, Any]:
        report = cluster.ask("manager-r1", "/admin/status?queue=before")
        rows = report["queues"][0]["replicas"] if report else []
        return {row["node"]: (row["state"], row["lag"]) for row in rows}

    with LocalCluster(
        tmp_path / "data", regions=REGIONS, port=0, commands=Commands(["--heal-after-s", "1"])
    ) as cluster:
        with Load(cluster.endpoints["r1"], "before") as load:
            assert run(cluster, "add", "r4").returncode == 0
            until(lambda: nodes(cluster).get("node-r4", {}).get("state") == "up")
            assert "node-r4" not in replicas()
            cluster.kill("node-r3")
            until(lambda: set(replicas()) == {"node-r1", "node-r2", "node-r4"})
            after = load.done
            until(lambda: load.done > after + 20)
        assert load.errors == []
        until(lambda: set(replicas().values()) == {("up", 0)})
        # the new replica is a whole one: with another of the old ones gone, it makes up the majority
        cluster.kill("node-r2")
        with Load(cluster.endpoints["r1"], "before") as load:
            until(lambda: load.done > 5)
        assert load.errors == []


def shadowq(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "distribution_manager", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)


def test_an_added_region_is_part_of_a_detached_cluster(tmp_path: Path) -> None:
    data = ("--data", tmp_path / "data")
    try:
        assert shadowq("up", *data, "--regions", "r1", "--port", str(free_run(2)), "--detach").returncode == 0
        assert shadowq("add", "r2", *data).returncode == 0
        attached = LocalCluster.attach(tmp_path / "data")
        assert attached.regions == ["r1", "r2"]
        assert all(attached.pids.values())
        assert shadowq("kill", "manager-r2", *data).returncode == 0
        assert shadowq("restart", "manager-r2", *data).returncode == 0
    finally:
        assert shadowq("down", *data).returncode == 0
    assert not any(LocalCluster.attach(tmp_path / "data").pids.values())
    with pytest.raises(ClusterError, match="is not running"):
        LocalCluster.attach(tmp_path / "data").add("r3")
    with LocalCluster(tmp_path / "data") as again:
        assert set(again.endpoints) == {"r1", "r2"}
        until(lambda: [row["state"] for row in nodes(again).values()] == ["up", "up"])


@pytest.fixture
def dns() -> Iterator[DnsThread]:
    with DnsThread() as dns:
        yield dns


class Node:
    """``shadowq node`` in a region that has no manager, with log lines to look at."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "distribution_manager", "node", "--region", "r9", *options]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        assert self._process.wait(WAIT_S) == 0
        assert self._process.stderr is not None
        self._process.stderr.close()

    def until(self, text: str) -> str:
        """The log line that contains the text."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if text in line:
                return str(json.loads(line)["msg"])
        raise AssertionError(f"ended without saying {text!r}")


def test_a_node_joins_by_name_and_moves(tmp_path: Path, dns: DnsThread) -> None:
    """Managers found by SRV, the node by the name that it advertises; then it starts again in another place."""
    commands = Commands(["--dns-server", dns.address])
    first, second, nobody = free_ports(3)
    with LocalCluster(tmp_path / "data", regions=["r1", "r2"], port=0, commands=commands) as cluster:
        dns.server.srv(MANAGERS, 1, nobody, "manager-0.example.org")
        dns.server.srv(MANAGERS, 2, cluster.member("manager-r1").ports["link"], "manager-1.example.org")
        dns.server.a("manager-0.example.org", "127.0.0.1")
        dns.server.a("manager-1.example.org", "127.0.0.1")
        dns.server.a("node-9.example.org", "127.0.0.1")
        secret = str(tmp_path / "data" / SECRET_FILE)
        wrong = tmp_path / "wrong"
        wrong.write_text("another secret than the cluster's")
        data = ["--data", str(tmp_path / "node"), "--dns-server", dns.address, "--join", MANAGERS]
        here = [*data, "--listen", f"127.0.0.1:{first}", "--advertise", f"node-9.example.org:{first}"]
        member = ["--cluster", cluster.state.cluster, "--secret-file", secret]

        with Node(*here, "--cluster", cluster.state.cluster, "--secret-file", str(wrong)) as node:
            assert "give the cluster's with --secret-file" in node.until("not joined")
        with Node(*here, "--cluster", "another", "--secret-file", secret) as node:
            assert f"this is cluster {cluster.state.cluster}, not another" in node.until("not joined")
        elsewhere = [*data, "--listen", f"127.0.0.1:{first}", "--advertise", f"node-9.example.org:{nobody}"]
        with Node(*elsewhere, *member) as node:
            assert f"cannot reach the node at node-9.example.org:{nobody}" in node.until("not joined")
        assert not [name for name in nodes(cluster) if "r9" in name]

        with Node(*here, *member) as node:
            node.until("joined cluster")
            name, row = until(lambda: [each for each in nodes(cluster).items() if each[1]["state"] == "up"][2:])[0]
            assert (row["region"], row["address"]) == ("r9", f"node-9.example.org:{first}")
            with Node(
                "--node", name, "--data", str(tmp_path / "thief"), *data[2:], *member, "--listen", "127.0.0.1:0"
            ) as thief:
                assert f"has the name {name}: give another with --node" in thief.until("not joined")
        there = [*data, "--listen", f"127.0.0.1:{second}", "--advertise", f"node-9.example.org:{second}"]
        with Node(*there, *member) as node:
            node.until("joined cluster")
            until(
                lambda: (
                    (row := nodes(cluster).get(name, {}))
                    and (row["address"], row["state"]) == (f"node-9.example.org:{second}", "up")
                )
            )
