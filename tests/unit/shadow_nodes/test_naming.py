"""A node's name stays with its data."""

from __future__ import annotations

from pathlib import Path

import pytest

from shadow_nodes.config import ConfigError, NodeSettings
from shadow_nodes.naming import NAME_FILE, settle_name


def settings(data: Path, node: str = "") -> NodeSettings:
    return NodeSettings(region="r1", data=data, node=node)


def test_a_new_node_gets_a_name_and_keeps_it(tmp_path: Path) -> None:
    name = settle_name(settings(tmp_path / "new")).node
    assert name.startswith("node-r1-")
    assert settle_name(settings(tmp_path / "new")).node == name
    assert settle_name(settings(tmp_path / "new", name)).node == name
    assert settle_name(settings(tmp_path / "other")).node != name


def test_a_name_given_once_need_not_be_given_again(tmp_path: Path) -> None:
    assert settle_name(settings(tmp_path, "n1")).node == "n1"
    assert settle_name(settings(tmp_path)).node == "n1"


def test_data_of_another_node_are_refused(tmp_path: Path) -> None:
    settle_name(settings(tmp_path, "n1"))
    with pytest.raises(ConfigError, match=r"^node: .* is the data of node n1, not of n2"):
        settle_name(settings(tmp_path, "n2"))


def test_a_long_region_leaves_the_name_a_name(tmp_path: Path) -> None:
    region = "r" * 63
    first = settle_name(NodeSettings(region=region, data=tmp_path / "a")).node
    assert first != settle_name(NodeSettings(region=region, data=tmp_path / "b")).node


@pytest.mark.parametrize("content", [b"", b"a b\n", b"\xff"])
def test_a_spoilt_name_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME_FILE).write_bytes(content)
    with pytest.raises(ConfigError, match=r"^data: "):
        settle_name(settings(tmp_path))
