"""A local cluster whose regions are as far apart as one says: every link between its processes goes through a relay.

Model: a LocalCluster, and a relay process (relay.py) that is started before its managers and ended after them. Clients,
probes and etcd are not relayed: what a client measures at its own region's manager is what the cluster takes.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from distribution_manager.drills import ports
from distribution_manager.drills.commands import Commands
from distribution_manager.drills.local import KILL_TIMEOUT_S, STOP_TIMEOUT_S, LocalCluster
from distribution_manager.drills.processes import POLL_S, spawn
from distribution_manager.drills.relay import REREAD_S, RelayPlan, Target, Way, write_plan
from distribution_manager.drills.state import ClusterError, ClusterState, Member

START_TIMEOUT_S: Final = 20.0
LOG_FILE: Final = "relay.log"


class _RelayedCommands(Commands):
    """Processes are advertised at the relay's ports."""

    def __init__(self, manager_settings: Iterable[str]) -> None:
        super().__init__(manager_settings)
        self.listens: dict[str, int] = {}
        """The relay's port for each process, by name."""

    def node_addresses(self, nodes: Iterable[Member]) -> str:
        return ",".join(f"{ports.LOOPBACK}:{self.listens[node.name]}" for node in nodes)

    def manager(self, state: ClusterState, member: Member, data_dir: Path) -> list[str]:
        advertised = f"{ports.LOOPBACK}:{self.listens[member.name]}"
        return [*super().manager(state, member, data_dir), "--advertise-link", advertised]


class RelayedCluster(LocalCluster):
    """``ways``: how far regions are apart, by ``relay.way_name``; change it with ``set_ways`` while it runs."""

    def __init__(
        self,
        data_dir: Path,
        ways: Mapping[str, Way],
        *,
        regions: Iterable[str],
        port: int | None = 0,
        manager_settings: Iterable[str] = (),
    ) -> None:
        self._relayed = _RelayedCommands(manager_settings)
        self._ways = dict(ways)
        self._targets: list[Target] = []
        self._relay: subprocess.Popen[bytes] | None = None
        super().__init__(data_dir, regions=regions, port=port, commands=self._relayed)

    def set_ways(self, ways: Mapping[str, Way]) -> None:
        """From now on, also for connections that are up; returns when the relay has read it."""
        self._ways = dict(ways)
        write_plan(self.data_dir, RelayPlan(self._targets, self._ways))
        time.sleep(2 * REREAD_S)

    def _prepare(self) -> None:
        super()._prepare()
        members = [member for member in self.state.members.values() if member.kind != "etcd"]
        taken = frozenset(port for member in self.state.members.values() for port in member.ports.values())
        listens = ports.free_ports(len(members), taken)
        self._targets = [
            Target(member.name, member.region, listen, member.ports["link"])
            for member, listen in zip(members, listens, strict=True)
        ]
        self._relayed.listens = {target.name: target.listen for target in self._targets}
        write_plan(self.data_dir, RelayPlan(self._targets, self._ways))
        self._start_relay()

    def _start_relay(self) -> None:
        path = self.data_dir / "logs" / LOG_FILE
        command = [sys.executable, "-m", "distribution_manager.drills.relay", str(self.data_dir)]
        self._relay = spawn(command, path, die_with_parent=True)
        deadline = time.monotonic() + START_TIMEOUT_S
        while any(ports.is_free(target.listen) for target in self._targets):
            if self._relay.poll() is not None or time.monotonic() >= deadline:
                self._stop_relay()
                raise ClusterError(f"the relay does not start: look into {path}")
            time.sleep(POLL_S)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        try:
            super().stop(timeout_s)
        finally:
            self._stop_relay()

    def _stop_relay(self) -> None:
        if self._relay is not None:
            self._relay.send_signal(signal.SIGKILL)
            self._relay.wait(KILL_TIMEOUT_S)
            self._relay = None
