"""Which processes a local cluster has, and on which ports.

Model: names and ports are decided at the first start and kept. Clients were told the managers' ports, so those must be
free; the others are ours to choose again when something else has taken one meanwhile.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

from distribution_manager.config import NAME_PATTERN
from distribution_manager.drills import ports
from distribution_manager.drills.state import ClusterError, ClusterState, Member
from shadow_nodes.protocol.addresses import PORT_MAX

REGIONS_DEFAULT: Final = ("us-east-1", "eu-west-1", "ap-southeast-1")
REGIONS_MAX: Final = 32
PORT_DEFAULT: Final = 9324


def plan(stored: ClusterState | None, regions: Sequence[str] | None, port: int | None) -> ClusterState:
    """The state to start with. ``port`` 0: free ones. None: as stored, else the default. Raises ClusterError."""
    if stored is None:
        return _new(list(regions or REGIONS_DEFAULT), PORT_DEFAULT if port is None else port)
    if regions is not None and list(regions) != stored.regions:
        raise ClusterError(
            f"this data directory's cluster has the regions {','.join(stored.regions)}: "
            "leave --regions out, or use another --data"
        )
    if port:
        _set_client_ports(stored, port)
    return stored


def add_region(state: ClusterState, region: str) -> list[str]:
    """Adds a node and a manager in a new region; their names. Raises ClusterError."""
    if region in state.regions:
        raise ClusterError(f"{region} is in this cluster already: choose another name")
    _check_regions([*state.regions, region])
    taken = frozenset(port for member in state.members.values() for port in member.ports.values())
    next_port = max(member.ports["client"] for member in state.members.values() if member.kind == "manager") + 1
    free = ports.free_ports(3, taken)
    client = next_port if next_port not in taken and ports.is_free(next_port) else free[0]
    node = Member(f"node-{region}", "node", region, {"link": free[1]}, joins=True)
    manager = Member(f"manager-{region}", "manager", region, {"client": client, "link": free[2]})
    state.regions.append(region)
    state.members.update({member.name: member for member in (node, manager)})
    return [node.name, manager.name]


def claim_ports(state: ClusterState) -> None:
    """Sees that every member's ports are free. Raises ClusterError when a client port is not."""
    members = list(state.members.values())
    clients = [member.ports["client"] for member in members if member.kind == "manager"]
    for port in clients:
        if not ports.is_free(port):
            raise ClusterError(f"port {port} is taken: choose {len(clients)} free ones in a row with --port")
    for member in members:
        for name, port in member.ports.items():
            if port in clients or (port and ports.is_free(port)):
                continue
            taken = frozenset(other for each in members for other in each.ports.values())
            member.ports[name] = ports.free_ports(1, taken)[0]


def _new(regions: list[str], port: int) -> ClusterState:
    _check_regions(regions)
    members = [Member("etcd", "etcd", "", {"client": 0, "peer": 0})]
    members += [Member(f"node-{region}", "node", region, {"link": 0}) for region in regions]
    members += [Member(f"manager-{region}", "manager", region, {"client": 0, "link": 0}) for region in regions]
    # a name of its own, so that two clusters on one machine never take each other's processes for their own
    state = ClusterState(f"local-{secrets.token_hex(4)}", regions, {member.name: member for member in members})
    _set_client_ports(state, port or ports.free_run(len(regions)))
    return state


def _check_regions(regions: list[str]) -> None:
    for region in regions:
        if not NAME_PATTERN.fullmatch(region):
            raise ClusterError(f"{region!r} is not a region's name: use letters, digits, '.', '_' and '-'")
    if len(set(regions)) != len(regions) or not 1 <= len(regions) <= REGIONS_MAX:
        raise ClusterError(f"a cluster has 1 to {REGIONS_MAX} regions of different names, not {','.join(regions)}")


def _set_client_ports(state: ClusterState, port: int) -> None:
    managers = [member for member in state.members.values() if member.kind == "manager"]
    if not 1 <= port <= PORT_MAX + 1 - len(managers):
        raise ClusterError(f"--port {port} leaves no room for {len(managers)} ports: choose one of 1024 to 65000")
    for offset, member in enumerate(managers):
        member.ports["client"] = port + offset
