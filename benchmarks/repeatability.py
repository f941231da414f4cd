"""Whether two runs of `hybridvit bench` say the same: the same times within their intervals, in the same order.

    hybridvit bench fastvit_t8 fastvit_sa12 ... --json first.json     # and once more: second.json
    python benchmarks/repeatability.py first.json second.json

A candidate whose intervals lie apart in the two runs differs by more than its intervals hold: what its processes were
given, or the machine's minute. Pairs of candidates that change places are listed too; they may where their intervals
overlap in one of the runs. Beside them stand what the processes of one candidate differ by within a run, and the page
faults of a call.
"""

import argparse
import json
import statistics
from collections.abc import Mapping
from itertools import combinations
from typing import Any

from hybridvit.measure.result import key, read_result

Records = Mapping[tuple[Any, ...], Mapping[str, Any]]


def repeated(first: str, second: str) -> dict[str, object]:
    """What two results of one machine agree in and what not, of the candidates that are in both."""
    runs: list[Records] = [{key(record): record for record in read_result(path)["bench"]} for path in (first, second)]
    both = sorted(runs[0].keys() & runs[1].keys())
    if not both:
        raise SystemExit(f"{first} and {second} have no candidate in common. Give two runs of the same command.")
    ratios = [runs[1][name]["median_ms"] / runs[0][name]["median_ms"] for name in both]
    apart = [
        f"{name[0]} in {name[2]}: {' and '.join(_interval(run[name]) for run in runs)}"
        for name in both
        if not _overlap(runs[0][name], runs[1][name])
    ]
    return {
        "candidates": len(both),
        "second_over_first": [round(value, 3) for value in (min(ratios), statistics.median(ratios), max(ratios))],
        "intervals_apart": apart,
        **swapped(runs, both),
        "processes": [_largest(run, both, "processes") for run in runs],
        "largest_process_spread": [_largest(run, both, "process_spread") for run in runs],
        "most_faults_per_call": [_largest(run, both, "faults_per_call") for run in runs],
    }


def swapped(runs: list[Records], both: list[tuple[Any, ...]]) -> dict[str, list[str]]:
    """Which pairs change places, and which of them although their intervals lie apart in both runs."""
    overlapping: list[str] = []
    apart: list[str] = []
    for one, other in combinations(both, 2):
        if one[2:6] != other[2:6]:
            continue  # another runtime, precision or batch
        orders = [run[one]["median_ms"] < run[other]["median_ms"] for run in runs]
        if orders[0] != orders[1]:
            overlaps = any(_overlap(run[one], run[other]) for run in runs)
            (overlapping if overlaps else apart).append(f"{one[0]} and {other[0]} in {one[2]}")
    return {"changed_places_overlapping": overlapping, "changed_places_although_apart": apart}


def _overlap(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one["low_ms"] <= other["high_ms"] and other["low_ms"] <= one["high_ms"]


def _interval(record: Mapping[str, Any]) -> str:
    return f"{record['median_ms']:.2f} ({record['low_ms']:.2f} to {record['high_ms']:.2f}) ms"


def _largest(run: Records, names: list[tuple[Any, ...]], column: str) -> float | None:
    """Of all candidates; None where no record has it, as in results of earlier versions."""
    return max((run[name][column] for name in names if run[name].get(column) is not None), default=None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first")
    parser.add_argument("second")
    given = parser.parse_args()
    print(json.dumps(repeated(given.first, given.second), indent=1))
