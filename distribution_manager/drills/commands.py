"""The command lines of a local cluster's processes. Tests put others in their place."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from distribution_manager.coordination.embedded import ELECTION_MS, HEARTBEAT_MS, EmbeddedEtcdError, find_etcd
from distribution_manager.drills.ports import LOOPBACK
from distribution_manager.drills.state import SECRET_FILE, ClusterError, ClusterState, Member

PEER_NAME = "etcd"


class Commands:
    """Programs and arguments, the program as a path. ``manager_settings``: arguments for every manager as well."""

    def __init__(self, manager_settings: Iterable[str] = ()) -> None:
        self._manager_settings = tuple(manager_settings)

    def command(self, state: ClusterState, member: Member, data_dir: Path) -> list[str]:
        """Raises ClusterError."""
        match member.kind:
            case "etcd":
                return self.etcd(member, data_dir / "etcd")
            case "node":
                return self.node(state, member, data_dir)
            case "manager":
                return self.manager(state, member, data_dir)

    def etcd(self, member: Member, data_dir: Path) -> list[str]:
        try:
            program = find_etcd()
        except EmbeddedEtcdError as error:
            raise ClusterError(str(error)) from error
        client, peer = (f"http://{LOOPBACK}:{member.ports[name]}" for name in ("client", "peer"))
        options = {
            "name": PEER_NAME,
            "data-dir": str(data_dir),
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"{PEER_NAME}={peer}",
            "heartbeat-interval": str(HEARTBEAT_MS),
            "election-timeout": str(ELECTION_MS),
            "log-level": "warn",
        }
        return [str(program), *(f"--{key}={value}" for key, value in options.items())]

    def node(self, state: ClusterState, member: Member, data_dir: Path) -> list[str]:
        options = {
            "node": member.name,
            "region": member.region,
            "cluster": state.cluster,
            "listen": f"{LOOPBACK}:{member.ports['link']}",
            "data": str(data_dir / member.name),
            "secret-file": str(data_dir / SECRET_FILE),
        }
        if member.joins:
            managers = (other for other in state.members.values() if other.kind == "manager")
            options["join"] = ",".join(f"{LOOPBACK}:{manager.ports['link']}" for manager in managers)
        return [sys.executable, "-m", "shadow_nodes", *_arguments(options)]

    def manager(self, state: ClusterState, member: Member, data_dir: Path) -> list[str]:
        etcd = state.members["etcd"]
        nodes = [
            other
            for other in state.members.values()
            if other.kind == "node" and other.region == member.region and not other.joins
        ]
        options = {
            "name": member.name,
            "region": member.region,
            "cluster": state.cluster,
            "listen": f"{LOOPBACK}:{member.ports['client']}",
            "link-listen": f"{LOOPBACK}:{member.ports['link']}",
            "etcd": f"{LOOPBACK}:{etcd.ports['client']}",
            "nodes": self.node_addresses(nodes),
            "secret-file": str(data_dir / SECRET_FILE),
        }
        settings = [*_arguments(options), *self._manager_settings]
        return [sys.executable, "-m", "distribution_manager", "manager", *settings]

    def node_addresses(self, nodes: Iterable[Member]) -> str:
        """Where managers find these nodes."""
        return ",".join(f"{LOOPBACK}:{node.ports['link']}" for node in nodes)


def _arguments(options: dict[str, str]) -> list[str]:
    return [part for name, value in options.items() for part in (f"--{name}", value)]
