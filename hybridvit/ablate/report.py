"""A comparison as text, as JSON values, and as a page."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hybridvit
from hybridvit.ablate.compare import Comparison, RowResult
from hybridvit.ablate.tables import AblationTable
from hybridvit.report.content import Report, Table
from hybridvit.report.html import write_report

HEAD = ("row", "mean ± sd", "seeds", "difference", "95 % interval", "verdict", "published change")
COSTS = ("row", "parameters", "multiply-adds M", "core-seconds", "peak MiB", "images until 90 %")
PRINTED = ("row", "top-1 or its change", "beside it")
PAGE = "report.html"


def text_of(comparison: Comparison) -> str:
    """A table for a terminal, in Markdown, and what it can tell."""
    lines = [comparison.title, "", _line(HEAD), _line(["---"] * len(HEAD))]
    lines += [_line(_result(row)) for row in comparison.rows]
    return "\n".join([*lines, "", conclusion(comparison), *troubles(comparison)])


def conclusion(comparison: Comparison) -> str:
    """Which differences are resolved, which are not, and what could be."""
    names: dict[str, list[str]] = {"better": [], "worse": [], "not resolved": []}
    for row in comparison.rows:
        if row.difference is not None:
            names[row.difference.verdict].append(row.name)
    said = [f"{verdict}: {', '.join(rows) or 'none'}" for verdict, rows in names.items()]
    if comparison.resolvable is not None:
        said.append(f"smallest difference that this grid can resolve: {comparison.resolvable:.2f} points")
        printed = [row for row in comparison.rows if row.published_change]
        below = [row.name for row in printed if abs(row.published_change or 0) < comparison.resolvable]
        said.append(f"published differences below it: {', '.join(below) or 'none'}")
    return ". ".join(f"{each[0].upper()}{each[1:]}" for each in said) + "."


def troubles(comparison: Comparison) -> list[str]:
    """A line for each cell that failed, and for each row that lacks seeds."""
    lines = [
        f"{row.name}, seed {seed}: failed: {text}" for row in comparison.rows for seed, text in row.failures.items()
    ]
    lines += [f"{row.name}: not run: seed {', '.join(map(str, row.missing))}" for row in comparison.rows if row.missing]
    return lines


def to_dict(comparison: Comparison, *, base: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    """JSON values."""
    values = asdict(comparison)
    for row, mine in zip(comparison.rows, values["rows"], strict=True):
        if row.difference is not None:
            mine["difference"]["verdict"] = row.difference.verdict
    return {
        **values,
        "conclusion": conclusion(comparison),
        "base": base,
        "keys": dict(keys),
        "version": hybridvit.__version__,
    }


def write_page(
    comparison: Comparison, table: AblationTable, folder: Path, *, base: str, keys: Mapping[str, Any]
) -> Path:
    """Write the page into the table's folder, and say where it is."""
    path = folder / PAGE
    path.parent.mkdir(parents=True, exist_ok=True)
    printed = Table(
        title="What the paper prints",
        head=PRINTED,
        rows=[_printed(row) for row in comparison.rows],
    )
    trouble = Table(title="Not finished", head=("what",), rows=[(line,) for line in troubles(comparison)])
    costs = Table(
        title="Costs",
        head=COSTS,
        rows=[_cost(row) for row in comparison.rows],
        note="Parameters and multiply-adds are of the folded model. Core-seconds are process time.",
    )
    note = (
        f"Differences are of {comparison.metric}, in points, paired by seed, from the row that the "
        f"verdict names, '{table.baseline}' where it names none. The interval is a two-level bootstrap over "
        "seeds and test images. A verdict needs p < 5 % after Holm, where p is the larger "
        "of the bootstrap's and the paired t-test's over seeds."
    )
    rows = [_result(row) for row in comparison.rows]
    report = Report(
        title=table.title,
        lead=conclusion(comparison),
        results=Table(title="Rows", head=HEAD, rows=rows, note=note),
        tables=[costs, printed, *([trouble] if trouble.rows else [])],
        facts=[("Base", base), *((key, str(value)) for key, value in keys.items())],
    )
    write_report(report, path)
    return path


def _result(row: RowResult) -> tuple[str, ...]:
    mean = "–" if row.mean is None else f"{row.mean:.2f}"
    spread = mean if row.sd is None else f"{mean} ± {row.sd:.2f}"
    change = "–" if row.published_change is None else f"{row.published_change:+.2f}"
    found = row.difference
    if found is None:
        return row.name, spread, str(len(row.values)), "–", "–", "–", change
    interval = f"{found.low:+.2f} to {found.high:+.2f}"
    if found.t_low is not None:
        interval += f" (t: {found.t_low:+.2f} to {found.t_high:+.2f})"
    verdict = f"{found.verdict} than {found.against}" if found.verdict != "not resolved" else found.verdict
    return row.name, spread, str(len(row.values)), f"{found.mean:+.2f}", interval, verdict, change


def _cost(row: RowResult) -> tuple[str, ...]:
    costs = row.costs
    adds = costs["multiply_adds"]
    return (
        row.name,
        _whole(costs["parameters"]),
        "–" if adds is None else f"{adds / 1e6:.2f}",
        _whole(costs["core_seconds"]),
        _whole(costs["peak_memory_mib"]),
        _whole(costs["images_until_90"]),
    )


def _printed(row: RowResult) -> tuple[str, ...]:
    return row.name, "–" if row.published is None else f"{row.published:g}", row.published_note or "–"


def _whole(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _line(cells: "tuple[str, ...] | list[str]") -> str:
    return f"| {' | '.join(cells)} |"
