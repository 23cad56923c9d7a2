"""A manager whose key has gone from the registry, for whatever reason, comes back into it."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from distribution_manager.coordination.embedded import find_etcd
from distribution_manager.drills.local import LocalCluster

pytestmark = pytest.mark.cluster
WAIT_S = 30.0


def test_a_manager_that_the_registry_does_not_name_registers_again(tmp_path: Path) -> None:
    with LocalCluster(tmp_path, regions=["near", "far"], port=0) as cluster:
        endpoint = f"127.0.0.1:{cluster.member('etcd').ports['client']}"
        etcdctl = [str(find_etcd().with_name("etcdctl")), "--endpoints", endpoint]
        keys = subprocess.run(
            [*etcdctl, "get", "", "--prefix", "--keys-only"], capture_output=True, text=True, check=True
        )
        key = next(line for line in keys.stdout.split() if "/managers/" in line)

        def revision() -> str:
            command = [*etcdctl, "get", key, "-w", "fields"]
            fields = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            return "".join(line for line in fields.splitlines() if line.startswith('"CreateRevision"'))

        before = revision()
        subprocess.run([*etcdctl, "del", key], capture_output=True, check=True)
        deadline = time.monotonic() + WAIT_S
        while revision() in {"", before}:
            assert time.monotonic() < deadline, "it did not come back"
            time.sleep(0.1)
