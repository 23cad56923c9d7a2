"""How long a cluster waits for a member that is not ready."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from distribution_manager.drills import local, probes
from distribution_manager.drills.local import LOADING_BYTES_MIN, LocalCluster
from distribution_manager.drills.processes import identify, read_bytes
from distribution_manager.drills.state import ClusterError, ClusterState, Kind, Member


@pytest.mark.parametrize(("kind", "reads_mib", "rounds"), [("node", 42, 3), ("node", 6, 1), ("manager", 42, 1)])
def test_a_node_that_goes_on_reading_is_given_more_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind, reads_mib: int, rounds: int
) -> None:
    member = Member("one", kind, "r", {"link": 1}, identify(os.getpid()))
    cluster = LocalCluster(tmp_path)
    cluster._state = ClusterState("c", ["r"], {"one": member})
    now_s, checks, read = 0.0, 0, 0

    def ready(_: Member) -> bool:
        """Every check is 10 s after the last; what is read in a timeout of 60 s stops after three."""
        nonlocal now_s, checks, read
        now_s += 10.0
        checks += 1
        if checks <= 12:
            read += reads_mib * 1024 * 1024 // 6
        return False

    monkeypatch.setattr(probes, "ready", ready)
    monkeypatch.setattr(local, "read_bytes", lambda _: read)
    monkeypatch.setattr(local.time, "monotonic", lambda: now_s)
    monkeypatch.setattr(local.time, "sleep", lambda _: None)
    said: list[str] = []
    cluster.say = said.append
    with pytest.raises(ClusterError, match="one: not ready after 60 s in which it loaded nothing either"):
        cluster.wait_ready(timeout_s=60.0)
    assert checks == 6 * rounds
    assert said == [
        f"one: still loading its replicas, {reads_mib * n} MiB so far: waiting on" for n in range(1, rounds)
    ]


def test_what_a_process_reads_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(LOADING_BYTES_MIN))
    before = read_bytes(identify(os.getpid()))
    path.read_bytes()
    assert read_bytes(identify(os.getpid())) - before >= LOADING_BYTES_MIN
    assert read_bytes(None) == 0
