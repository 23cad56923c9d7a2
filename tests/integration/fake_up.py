"""The command ``shadowq`` with stand-ins for etcd, nodes and managers: ``fake_up.py up --data DIR ...``."""

from __future__ import annotations

import sys
from pathlib import Path

from distribution_manager import cli
from distribution_manager.drills import local
from distribution_manager.drills.commands import Commands
from distribution_manager.drills.state import ClusterState, Member


class FakeCommands(Commands):
    def command(self, state: ClusterState, member: Member, data_dir: Path) -> list[str]:
        fake = Path(__file__).with_name("fake_member.py")
        return [sys.executable, "-I", "-S", str(fake), *(str(port) for port in member.ports.values())]


if __name__ == "__main__":
    setattr(local, "Commands", FakeCommands)  # noqa: B010 - mypy would rather not have a class replaced
    sys.exit(cli.main())
