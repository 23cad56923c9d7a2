"""When a manager says that it is ready."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import pytest

from distribution_manager.drills.local import LocalCluster

pytestmark = pytest.mark.cluster


def test_a_manager_that_starts_waits_for_its_own_region_s_node_but_not_for_ever(tmp_path: Path) -> None:
    """A queue that was created before could not have its primary where its creator is."""
    with LocalCluster(tmp_path, regions=["near", "far", "farther"], port=0) as cluster:
        url = f"http://127.0.0.1:{cluster.member('manager-near').ports['link']}/readyz"
        cluster.kill("manager-near")
        cluster.freeze("node-near")
        cluster.launch("manager-near")
        said = set()
        while True:
            try:
                with urllib.request.urlopen(url) as answer:
                    assert answer.read() == b"ready\n"
                break
            except urllib.error.HTTPError as error:
                said.add(error.read().decode())
            except urllib.error.URLError:
                pass  # it does not listen yet
        assert "not ready: etcd seen, 2 of 3 nodes linked, 0 of this region's 1\n" in said
