"""How a local cluster handles its processes, with stand-ins for them: quick, and true whatever the real ones do."""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distribution_manager.drills.commands import Commands
from distribution_manager.drills.local import LocalCluster
from distribution_manager.drills.plan import claim_ports, plan
from distribution_manager.drills.processes import ProcessId, ProcessState, identify, send_signal, state_of
from distribution_manager.drills.state import ClusterError, ClusterState, Member, load_state, save_state

pytestmark = pytest.mark.cluster

FAKE_UP = Path(__file__).with_name("fake_up.py")
FakeCommands = runpy.run_path(str(FAKE_UP))["FakeCommands"]
WAIT_S = 20.0


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def shadowq(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, FAKE_UP, *arguments], capture_output=True, text=True, timeout=WAIT_S, check=False
    )


class Foreground:
    """A ``shadowq up`` in the foreground, of one region."""

    def __init__(self, data: Path) -> None:
        command = [
            sys.executable,
            str(FAKE_UP),
            "up",
            "--data",
            str(data),
            "--regions",
            "r1",
            "--port",
            str(free_port()),
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines: list[str] = []
        self.read_to("there.delete_message")
        self.cluster = LocalCluster.attach(data)

    def read_to(self, text: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if text in line:
                return
        pytest.fail(f"{text!r} is not in {self.lines}")

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def foreground(tmp_path: Path) -> Iterator[Foreground]:
    up = Foreground(tmp_path / "data")
    yield up
    up.end()


@pytest.fixture
def detached(tmp_path: Path) -> Iterator[Path]:
    data = tmp_path / "data"
    done = shadowq("up", "--data", data, "--regions", "r1,r2", "--port", str(free_port()), "--detach")
    assert done.returncode == 0, done.stderr
    yield data
    cluster = LocalCluster.attach(data)
    for name in cluster.names:
        send_signal(cluster.member(name).process, signal.SIGKILL)


def free_port() -> int:
    state = plan(None, ["r1", "r2"], 0)
    return state.members["manager-r1"].ports["client"]


def assert_one_line(done: subprocess.CompletedProcess[str], *texts: str) -> None:
    assert done.returncode != 0
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for text in texts:
        assert text in done.stderr


def test_ctrl_c_ends_everything(foreground: Foreground) -> None:
    assert all(foreground.cluster.pids.values())
    assert any(line.startswith("ready") for line in foreground.lines)
    foreground.process.send_signal(signal.SIGINT)
    assert foreground.process.wait(WAIT_S) == 0
    assert not any(foreground.cluster.pids.values())
    assert LocalCluster.attach(foreground.cluster.data_dir).state.supervisor is None


def test_kill_9_of_up_ends_its_children(foreground: Foreground) -> None:
    foreground.process.kill()
    wait_until(lambda: not any(foreground.cluster.pids.values()))


def test_a_dead_child_is_reported_and_restarted_on_request_only(foreground: Foreground) -> None:
    data = foreground.cluster.data_dir
    before = foreground.cluster.pids
    assert shadowq("kill", "node-r1", "--data", data).returncode == 0
    foreground.read_to("node-r1 was ended by SIGKILL; start it again with: shadowq restart node-r1")
    assert foreground.cluster.pids == before | {"node-r1": None}
    done = shadowq("restart", "node-r1", "--data", data)
    assert done.returncode == 0, done.stderr
    foreground.read_to("node-r1 was started again")
    after = LocalCluster.attach(data).pids
    assert after["node-r1"] not in (None, before["node-r1"])
    assert f"process {after['node-r1']}" in done.stdout
    # it is the supervisor's child, and ends with it, like the others
    foreground.process.kill()
    wait_until(lambda: not any(LocalCluster.attach(data).pids.values()))


def test_down_ends_a_foreground_up(foreground: Foreground) -> None:
    done = shadowq("down", "--data", foreground.cluster.data_dir)
    assert done.returncode == 0, done.stderr
    assert foreground.process.wait(WAIT_S) == 0
    assert not any(foreground.cluster.pids.values())


def test_data_directory_in_use(foreground: Foreground) -> None:
    data = foreground.cluster.data_dir
    again = shadowq("up", "--data", data)
    assert_one_line(again, "is in use by process", f"shadowq down --data {data}")
    assert all(foreground.cluster.pids.values())


def test_detached_life(detached: Path) -> None:
    cluster = LocalCluster.attach(detached)
    pids = cluster.pids
    assert all(pids.values())
    assert_one_line(shadowq("up", "--data", detached), "is already running (5 of 5 processes)")
    for command in ("restart", "kill"):
        slip = shadowq(command, "manager-r1", "nobody", "--data", detached)
        assert_one_line(slip, "'nobody' is none of this cluster's processes")
        assert LocalCluster.attach(detached).pids == pids, "nothing is done to the others either"

    assert shadowq("kill", "manager-r2", "etcd", "--data", detached).returncode == 0
    report = json.loads(shadowq("status", "--json", "--data", detached).stdout)
    assert [manager["state"] for manager in report["managers"]] == ["up", "stopped"]
    assert report["etcd"]["state"] == "stopped"
    assert report["etcd"]["pid"] is None
    assert_one_line(shadowq("kill", "etcd", "--data", detached), "etcd is not running", "shadowq restart etcd")

    assert shadowq("restart", "etcd", "manager-r2", "--data", detached).returncode == 0
    after = LocalCluster.attach(detached).pids
    assert all(after.values())
    assert {name for name in pids if pids[name] != after[name]} == {"etcd", "manager-r2"}

    assert shadowq("freeze", "node-r1", "--data", detached).returncode == 0
    assert "frozen" in shadowq("status", "--data", detached).stdout
    assert cluster.state_of("node-r1") is ProcessState.FROZEN

    # a frozen member is stopped as well
    assert shadowq("down", "--data", detached).returncode == 0
    assert not any(LocalCluster.attach(detached).pids.values())
    assert_one_line(shadowq("down", "--data", detached), "is not running")
    assert_one_line(shadowq("status", "--data", detached), "is not running")


def test_two_restarts_at_once(detached: Path) -> None:
    before = LocalCluster.attach(detached).pids
    names = ["node-r1", "node-r2"]
    commands = [[sys.executable, str(FAKE_UP), "restart", name, "--data", str(detached)] for name in names]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for command in commands]
    for process in running:
        _, errors = process.communicate(timeout=WAIT_S)
        assert process.returncode == 0, errors
    after = LocalCluster.attach(detached).pids
    assert all(after.values())
    assert {name for name in before if before[name] != after[name]} == set(names)


def test_started_again_it_is_the_same_cluster(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with LocalCluster(data, regions=["r1"], port=0, commands=FakeCommands()) as first:
        before = first.state
    with LocalCluster(data, commands=FakeCommands()) as second:
        assert second.state.cluster == before.cluster
        assert {name: member.ports for name, member in second.state.members.items()} == {
            name: member.ports for name, member in before.members.items()
        }
    with pytest.raises(ClusterError, match="leave --regions out"):
        LocalCluster(data, regions=["r2"], commands=FakeCommands()).start()


def test_not_running(tmp_path: Path) -> None:
    for command in (["status"], ["down"], ["restart", "etcd"], ["kill", "etcd"]):
        assert_one_line(shadowq(*command, "--data", tmp_path), "holds no cluster", "shadowq up --data")


def test_port_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = shadowq("up", "--data", tmp_path / "data", "--port", str(port))
    assert_one_line(done, f"port {port} is taken", "--port")


def test_unusable_data_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_one_line(shadowq("up", "--data", tmp_path / "file"), "cannot be used", "--data")
    (tmp_path / "cluster.json").write_text("{")
    assert_one_line(shadowq("up", "--data", tmp_path), "cluster.json cannot be read")


def test_a_taken_inner_port_is_chosen_anew(tmp_path: Path) -> None:
    state = plan(None, ["r1"], 0)
    claim_ports(state)
    node = state.members["node-r1"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", node.ports["link"]))
        before = node.ports["link"]
        claim_ports(state)
        assert node.ports["link"] != before


def test_no_signal_goes_to_a_pid_used_again(tmp_path: Path) -> None:
    """What cluster.json says of a process that has ended must not hit whoever has its pid now: here, this test."""
    me = identify(os.getpid())
    assert me is not None
    assert state_of(me) is ProcessState.UP
    impostor = ProcessId(me.pid, "0")
    assert state_of(impostor) is ProcessState.STOPPED
    assert not send_signal(impostor, signal.SIGKILL)
    state = plan(None, ["r1"], 0)
    state.members["etcd"].process = impostor
    state.supervisor = impostor
    save_state(tmp_path, state)
    assert load_state(tmp_path) == state
    assert_one_line(shadowq("down", "--data", tmp_path), "is not running")


def test_a_member_that_does_not_start_says_why(tmp_path: Path) -> None:
    class Broken(Commands):
        def command(self, state: ClusterState, member: Member, data_dir: Path) -> list[str]:
            return [sys.executable, "-c", "import sys; sys.exit('no disk')"]

    cluster = LocalCluster(tmp_path, regions=["r1"], port=0, commands=Broken())
    with pytest.raises(ClusterError, match=r"etcd ended: no disk \(log: .*etcd.log\)"):
        cluster.start()
    assert not any(LocalCluster.attach(tmp_path).pids.values())
