"""Whether two runs of `hybridvit bench` put the same candidates in the same order.

    python benchmarks/repeatability.py first.json second.json

Pairs that change places are listed; they may where their intervals overlap in one of the runs.
"""

import argparse
import json
from itertools import combinations

from hybridvit.measure.result import key, read_result


def swapped(first: str, second: str) -> dict[str, object]:
    """How many pairs change places, and which of them although their intervals lie apart in both runs."""
    runs = [{key(record): record for record in read_result(path)["bench"]} for path in (first, second)]
    both = sorted(runs[0].keys() & runs[1].keys())
    overlapping: list[str] = []
    apart: list[str] = []
    for one, other in combinations(both, 2):
        if one[2:6] != other[2:6]:
            continue  # another runtime, precision or batch
        orders = [run[one]["median_ms"] < run[other]["median_ms"] for run in runs]
        if orders[0] != orders[1]:
            overlaps = any(
                run[one]["low_ms"] <= run[other]["high_ms"] and run[other]["low_ms"] <= run[one]["high_ms"]
                for run in runs
            )
            (overlapping if overlaps else apart).append(f"{one[0]} and {other[0]} in {one[2]}")
    ratios = sorted(runs[1][name]["median_ms"] / runs[0][name]["median_ms"] for name in both)
    return {
        "candidates": len(both),
        "second_over_first": [round(ratio, 3) for ratio in (ratios[0], ratios[len(ratios) // 2], ratios[-1])],
        "changed_places_overlapping": overlapping,
        "changed_places_although_apart": apart,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first")
    parser.add_argument("second")
    given = parser.parse_args()
    print(json.dumps(swapped(given.first, given.second), indent=1))
