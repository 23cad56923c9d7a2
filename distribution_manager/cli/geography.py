"""``shadowq latency|explain``: how far regions are apart, and why a queue is where it is."""

from __future__ import annotations

import argparse
from typing import Any
from urllib.parse import urlencode

import msgspec

from distribution_manager.cli.arguments import add_local_command
from distribution_manager.core.placement import FAILOVER_SHARE
from distribution_manager.drills.local import LocalCluster
from distribution_manager.drills.status import table

Row = dict[str, Any]


def add_commands(commands: Any) -> None:
    """``commands``: argparse's, of ``shadowq``."""
    latency = add_local_command(commands, "latency", run_latency, "show how far regions are apart, as measured")
    latency.add_argument("--all", action="store_true", help="and every way between two processes")
    latency.add_argument("--json", action="store_true", help="as one JSON object")

    explain = add_local_command(commands, "explain", run_explain, "show why a queue's replicas are where they are")
    explain.add_argument("queue", metavar="QUEUE")
    explain.add_argument("--json", action="store_true", help="as one JSON object")


def run_latency(options: argparse.Namespace) -> int:
    return _show(
        LocalCluster.attach(options.data).ask_any("/admin/latency"),
        options,
        lambda report: latency_text(report, all_=options.all),
    )


def run_explain(options: argparse.Namespace) -> int:
    path = f"/admin/explain?{urlencode({'queue': options.queue})}"
    return _show(LocalCluster.attach(options.data).ask_any(path), options, explain_text)


def _show(report: Row, options: argparse.Namespace, render: Any) -> int:
    print(msgspec.json.format(msgspec.json.encode(report), indent=2).decode() if options.json else render(report))
    return 0


# --- latency -------------------------------------------------------------------------------------------------------


def latency_text(report: Row, *, all_: bool) -> str:
    regions = report["regions"]
    pairs = {tuple(pair["regions"]): pair for pair in report["pairs"]}
    cells = {
        (one, other): _ms(pair.get("round_trip_ms"))
        for names, pair in pairs.items()
        for one, other in (names, names[::-1])
    }
    matrix = [[region, *(cells.get((region, other), "-") for other in regions)] for region in regions]
    details = [[*pair["regions"], *_terms(pair), pair["links"]] for pair in report["pairs"]]
    blocks = [
        f"round trips in ms, as {report['manager']} knows them",
        table(["", *regions], matrix),
        table(["REGION", "REGION", "ROUND TRIP", "JITTER", "LOSS", "COUNTS AS", "AGE", "LINKS"], details),
    ]
    if all_:
        ways = [
            [way["manager"], f"{way['peer_kind']} {way['peer']}", *_terms(way)]
            for way in sorted(report["ways"], key=lambda way: (way["manager"], way["peer_kind"], way["peer"]))
        ]
        blocks.append(table(["FROM", "TO", "ROUND TRIP", "JITTER", "LOSS", "COUNTS AS", "AGE"], ways))
    return "\n\n".join(blocks)


def _terms(row: Row) -> list[str]:
    if "round_trip_ms" not in row:
        return ["not measured", "", "", "", ""]
    times = [_ms(row["round_trip_ms"]), _ms(row["jitter_ms"])]
    return [*times, f"{row['loss'] * 100:.1f} %", _ms(row["counts_ms"]), f"{row['age_s']:.0f} s"]


def _ms(value: float | None) -> str:
    return "?" if value is None else f"{value:.1f}"


# --- explain -------------------------------------------------------------------------------------------------------


def explain_text(report: Row) -> str:
    clients = ", ".join(f"{region} {share:.0%}" for region, share in sorted(report["clients"].items()))
    lines = [f"clients, by {report['clients_from']}: {clients}"]
    if report["allowed_regions"]:
        lines.append(f"AllowedRegions: {', '.join(report['allowed_regions'])}")
    if report["preferred_primary_region"]:
        lines.append(f"PreferredPrimaryRegion: {report['preferred_primary_region']}")
    if report["problem"]:
        lines.append(report["problem"])
    header = ["", "RANK", "PRIMARY", "SHADOWS", "CLIENTS", "QUORUM", "FAILOVER", "LOAD", "SCORE", ""]
    blocks = ["\n".join(lines), table(header, [_candidate(row) for row in report["candidates"]])]
    blocks.append(
        f"{report['candidates_in_all']} sets and primaries in all; * is where the queue is; times in ms, the least "
        f"score is best: CLIENTS + QUORUM + {FAILOVER_SHARE:.0%} of FAILOVER + LOAD"
    )
    if report["not_candidates"]:
        rows = [[item["node"], item["region"], item["why"]] for item in report["not_candidates"]]
        blocks.append(table(["NOT CHOSEN", "REGION", "WHY"], rows))
    return "\n\n".join(blocks)


def _candidate(row: Row) -> list[str]:
    notes = [f"{node}: {why}" for node, why in row["unfit"].items()]
    if not row["preferred"]:
        notes.append("not the preferred region")
    return [
        "*" if row["current"] else "",
        str(row["rank"] or "-"),
        row["primary"],
        ",".join(row["shadows"]) or "-",
        *(_ms(row[name]) for name in ("clients_ms", "quorum_ms", "failover_ms", "load_ms", "score_ms")),
        "; ".join(notes),
    ]
