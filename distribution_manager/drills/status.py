"""What a local cluster looks like, as one JSON object and as a table.

Model: whether a local process runs is known best from the kernel; what the processes do is known best by any live
manager. The report is the second, corrected by the first, and the first alone where no manager answers (``source``
null).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from distribution_manager.drills import ports
from distribution_manager.drills.local import LocalCluster
from distribution_manager.drills.processes import ProcessState
from distribution_manager.drills.state import Member

STATUS_PATH: Final = "/admin/status"
STATUS_TIMEOUT_S: Final = 5.0

Report = dict[str, Any]


def collect(cluster: LocalCluster) -> Report:
    """``managers``, ``nodes``, ``etcd``, ``queues`` and ``source`` (the manager that answered, or None)."""
    members = list(cluster.state.members.values())
    source, report = _ask(cluster, [member for member in members if member.kind == "manager"])
    local = {member.name: _local(cluster, member) for member in members}
    return {
        "managers": _merge(
            report.get("managers", []), [local[each.name] for each in members if each.kind == "manager"]
        ),
        "nodes": _merge(report.get("nodes", []), [local[each.name] for each in members if each.kind == "node"]),
        "etcd": report.get("etcd", {}) | local["etcd"],
        "queues": report.get("queues", []),
        "source": source,
    }


def is_running(report: Report) -> bool:
    """Whether any process of the cluster runs."""
    parts = [*report["managers"], *report["nodes"], report["etcd"]]
    return any(part["state"] != ProcessState.STOPPED for part in parts)


def render(report: Report) -> str:
    """The report as text for people."""
    parts = [("etcd", "", report["etcd"].get("endpoint", ""), report["etcd"])]
    parts += [(each["name"], each["region"], each.get("address", ""), each) for each in report["nodes"]]
    parts += [(each["name"], each["region"], each.get("endpoint", ""), each) for each in report["managers"]]
    rows = [(name, region, address, each["pid"] or "-", _state(each)) for name, region, address, each in parts]
    blocks = [table(("PROCESS", "REGION", "ADDRESS", "PID", "STATE"), rows)]
    if report["source"] is None:
        blocks.append("no manager answers: what queues there are is not known")
    elif not report["queues"]:
        blocks.append("no queues")
    else:
        blocks.append(
            table(("QUEUE", "PRIMARY", "SHADOWS", "OWNER", "EPOCH", "APPLIED (LAG)"), _queues(report["queues"]))
        )
    return "\n\n".join(blocks)


def _state(part: Report) -> str:
    return f"{part['state']}, draining" if part.get("draining") else str(part["state"])


def _ask(cluster: LocalCluster, managers: Iterable[Member]) -> tuple[str | None, Report]:
    for member in managers:
        if cluster.state_of(member.name) is not ProcessState.UP:
            continue
        report = cluster.ask(member.name, STATUS_PATH, STATUS_TIMEOUT_S)
        if isinstance(report, dict):
            return member.name, report
    return None, {}


def _local(cluster: LocalCluster, member: Member) -> Report:
    entry: Report = {"name": member.name, "region": member.region}
    client, link = (f"{ports.LOOPBACK}:{member.ports.get(name)}" for name in ("client", "link"))
    match member.kind:
        case "etcd":
            entry = {"endpoint": f"http://{client}"}
        case "node":
            entry["address"] = link
        case "manager":
            entry["endpoint"] = f"http://{client}"
    return entry | {"pid": cluster.pids[member.name], "state": str(cluster.state_of(member.name))}


def _merge(reported: Sequence[Report], local: Sequence[Report]) -> list[Report]:
    """The kernel's word on a local process's pid, and on its state unless it runs; the manager's on the rest."""
    known = {entry["name"]: entry for entry in reported}
    merged = []
    for entry in local:
        other = known.pop(entry["name"], entry)
        state = other["state"] if entry["state"] == ProcessState.UP else entry["state"]
        merged.append(other | entry | {"state": state})
    return [*merged, *known.values()]


def _queues(queues: Sequence[Report]) -> list[tuple[str, ...]]:
    return [
        (
            queue["name"],
            queue["primary"],
            _shadows(queue),
            str(queue["owner"] or "-"),
            str(queue["epoch"]),
            " ".join(
                f"{replica['node']}={replica['applied_seq']}({replica['lag']})"
                for shard in queue["shards"]
                for replica in shard["replicas"]
            ),
        )
        for queue in queues
    ]


def _shadows(queue: Report) -> str:
    text = ",".join(queue["shadows"])
    for shard in queue["shards"]:
        if shard.get("learner"):
            text += f" +{shard['learner']}"
        if shard.get("missing"):
            text += f" ({shard['missing']} missing)"
    return text


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns side by side, for people."""
    lines = [header, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
