"""A comparison's results for people: the table, and the plot.

Model: results are grouped by kind and work; a figure is the median over rounds, a ratio is taken within each round.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarks.measuring import table

Result = dict[str, Any]
Group = tuple[str, str]
"""(kind, work)"""

COLUMNS = {
    "messages/s": "per_second",
    "p50 ms": "p50_ms",
    "p99 ms": "p99_ms",
    "p99.9 ms": "p999_ms",
    "CPU s/million": "cpu_seconds_per_million",
    "B to disk/body B": "written_per_body_byte",
    "B between/body B": "between_regions_per_body_byte",
    "peak MiB": "peak_bytes",
}
_DIGITS = {"per_second": 0, "cpu_seconds_per_million": 0, "peak_bytes": 0}
_DIGITS_DEFAULT = 2


def grouped(report: Result) -> dict[Group, dict[str, list[Result]]]:
    """By kind and work, then by system."""
    groups: dict[Group, dict[str, list[Result]]] = {}
    for item in report["results"]:
        groups.setdefault((item["kind"], item["work"]), {}).setdefault(item["system"], []).append(item)
    return groups


def text_of(report: Result, ours: str) -> str:
    """``ours``: the system whose ratio to each other one is given."""
    lines = [
        f"{report['began']}, {report['machine']}, load {report['load_before'][0]:.1f} to {report['load_after'][0]:.1f},"
        f" {report['rounds']} rounds of {report['seconds']} s",
        *(f"  {name}: {note}" for name, note in report["notes"].items()),
        *(f"  {name}: ABSENT: {reason}" for name, reason in report["absent"].items()),
        *(f"  LEFT OUT: {line}" for line in report["left_out"]),
        *(f"  FAILED: {failure}" for failure in report["failures"]),
        "  " + ", ".join(f"{name} {value:.1f}" for name, value in report["floors"].items()),
        "",
    ]
    for (kind, work), by_system in grouped(report).items():
        lines.append(f"{kind}, {work}")
        rows = [_row(name, items, by_system.get(ours, []), name == ours) for name, items in by_system.items()]
        lines += [table(["system", *COLUMNS, f"{ours} is (min-max)"], rows), ""]
    return "\n".join(lines)


def _row(name: str, items: list[Result], ours: list[Result], is_ours: bool) -> list[str]:
    cells = [name]
    for field in COLUMNS.values():
        values = [item[field] for item in items if field in item]
        scale = 2**20 if field == "peak_bytes" else 1
        digits = _DIGITS.get(field, _DIGITS_DEFAULT)
        cells.append(f"{statistics.median(values) / scale:,.{digits}f}" if values else "")
    rates = {item["round"]: item["per_second"] for item in items}
    ratios = [item["per_second"] / rates[item["round"]] for item in ours if rates.get(item["round"])]
    if ratios and not is_ours:
        cells.append(f"{statistics.median(ratios):.2f} x ({min(ratios):.2f}-{max(ratios):.2f})")
    else:
        cells.append(f"{min(rates.values()):,.0f}-{max(rates.values()):,.0f}/s")
    return cells


def plot(report: Result, path: Path) -> bool:
    """Throughput of every work and system, median with minimum and maximum; False where matplotlib is absent."""
    try:
        from matplotlib import pyplot  # noqa: PLC0415 - optional
    except ImportError:
        return False
    groups = grouped(report)
    names = list(report["notes"])
    height = 0.8 / max(1, len(names))
    figure, axes = pyplot.subplots(figsize=(11, 1 + 0.6 * len(groups)))
    for place, name in enumerate(names):
        found = [
            (index, [item["per_second"] for item in by_system[name]])
            for index, by_system in enumerate(groups.values())
            if name in by_system
        ]
        medians = [statistics.median(values) for _, values in found]
        below = [median - min(values) for median, (_, values) in zip(medians, found, strict=True)]
        above = [max(values) - median for median, (_, values) in zip(medians, found, strict=True)]
        places = [index + place * height for index, _ in found]
        axes.barh(places, medians, height=height, label=name, xerr=[below, above], error_kw={"linewidth": 0.7})
    axes.set_yticks([index + 0.4 for index in range(len(groups))])
    axes.set_yticklabels([f"{kind}, {work}" for kind, work in groups], fontsize=7)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("messages per second: median, minimum, maximum over rounds")
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
    return True
