"""The command lines in terraform's user data are ones that the programs take."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from distribution_manager.config import ManagerConfig
from shadow_nodes.config import NodeSettings

TEMPLATES = Path(__file__).parents[3] / "terraform" / "modules" / "region" / "templates"


@pytest.mark.parametrize(
    ("template", "command", "settings"),
    [("manager.sh.tftpl", "manager", ManagerConfig), ("node.sh.tftpl", "node", NodeSettings)],
)
def test_options_exist(template: str, command: str, settings: Any) -> None:
    known = {f"--{setting.name.replace('_', '-')}" for setting in fields(settings)}
    line = re.search(rf"ExecStart=\S+/shadowq {command} (.*)", (TEMPLATES / template).read_text())
    assert line is not None
    used = set(re.findall(r"--[a-z][a-z-]*", line[1]))
    assert used
    assert used <= known
