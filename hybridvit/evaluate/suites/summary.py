"""Results of parts as one row for each suite and file: with intervals, against the first file and the published."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from hybridvit.evaluate.suites.measures import (
    bootstrap,
    corruption_error,
    corruption_values,
    mcnemar,
    mean_corruption_error,
    relative_corruption_error,
)
from hybridvit.evaluate.suites.protocol import CLEAN_OF_C
from hybridvit.evaluate.suites.run import PartResult
from hybridvit.peers.robustness import ALEXNET_CLEAN_ERROR, ALEXNET_ERRORS, published

Row = dict[str, Any]


def summary(results: Sequence[PartResult], *, whole: bool) -> list[Row]:
    """One row of JSON values for each suite, protocol and file, files in their order; the first file is the reference.

    `whole` says that all images of each suite were answered: only then are published values set beside.
    """
    groups: dict[tuple[str, str], dict[int, list[PartResult]]] = defaultdict(lambda: defaultdict(list))
    subjects = list(dict.fromkeys(id(result.subject) for result in results))
    for result in results:
        groups[result.part.suite, result.protocol][subjects.index(id(result.subject))].append(result)
    rows = []
    for (suite, protocol), by_file in groups.items():
        alike = [by_file, *(others for (name, _), others in groups.items() if name == suite)]
        first = next(found[0] for found in alike if 0 in found)  # in the same protocol, if it was shown it so
        for number in sorted(by_file):
            found = by_file[number]
            row = _of_corruptions(found) if found[0].part.corruption else dict(found[0].scores)
            if found[0].part.corruption and suite == "c":
                clean = groups.get((CLEAN_OF_C, protocol), {}).get(number)
                row |= _mean_corruption_error(found, clean[0] if clean else None)
            facts = {
                "suite": suite,
                "file": found[0].subject.path,
                "protocol": ", ".join(filter(None, (protocol, found[0].part.made))),
                "num_skipped": sum(each.num_skipped for each in found),
            }
            if number:
                row["against_first"] = _against(found, first)
            comparable = whole and (suite != "c" or "mce" in row)  # of C an mCE was published
            row["published"] = dict(published(found[0].subject.card.architecture, suite)) if comparable else {}
            rows.append(facts | row)
    return rows


def verdict(against: Row) -> str:
    """What the difference to the first file comes to, in words."""
    if not against["num_differing"]:
        return "none differs"
    return "resolved" if against["resolved"] else "not resolved"


def _of_corruptions(found: Sequence[PartResult]) -> Row:
    """The mean error over all corruptions and severities, which is never called mCE."""
    wrong = ~_right(found)
    errors: dict[str, dict[str, float]] = defaultdict(dict)
    for each in found:
        errors[each.part.corruption][str(each.part.severity)] = 1 - each.scores["top1"]
    names = ("top1", "top5", "ece", "ece_equal_mass", "rms_calibration", "nll", "brier")
    means = {name: float(np.mean([each.scores[name] for each in found])) for name in names}
    interval = bootstrap(1 - wrong.mean(0))
    return {
        "num_images": wrong.shape[1],
        "num_parts": len(found),
        **means,
        "top1_interval": list(interval),
        "mean_error": 1 - means["top1"],
        "mean_error_interval": [1 - interval.high, 1 - interval.low],
        "errors": dict(errors),
    }


def _mean_corruption_error(found: Sequence[PartResult], clean: PartResult | None) -> Row:
    """mCE and the mean relative CE in %, where all severities of its corruptions are there; else nothing."""
    wrong = _wrong(found)
    errors = {name: each.mean(1).tolist() for name, each in wrong.items()}
    if any(len(errors.get(name, ())) != len(values) for name, values in ALEXNET_ERRORS.items()):
        return {}
    row: Row = {
        "mce": mean_corruption_error(errors, ALEXNET_ERRORS),
        "mce_interval": list(bootstrap(corruption_values(wrong, ALEXNET_ERRORS))),
        "ce": {name: corruption_error(errors[name], values) for name, values in ALEXNET_ERRORS.items()},
    }
    if clean is not None:
        error = 1 - clean.scores["top1"]
        relative = [
            relative_corruption_error(errors[name], error, values, ALEXNET_CLEAN_ERROR)
            for name, values in ALEXNET_ERRORS.items()
        ]
        row |= {"clean_error": error, "relative_mce": float(np.mean(relative))}
    return row


def _against(found: Sequence[PartResult], first: Sequence[PartResult]) -> Row:
    """The paired difference to the first file, over the images that both answered."""
    ours, theirs = np.split(_right([*found, *first]), 2)
    values = ours.mean(0) - theirs.mean(0)
    interval = bootstrap(values)
    row: Row = {
        "top1": float(values.mean()),
        "interval": list(interval),
        "resolved": not interval.holds_zero,
        "num_differing": int((ours != theirs).sum()),  # answers of which one alone is right
    }
    if len(found) == 1:
        row["mcnemar_p"] = mcnemar(ours[0], theirs[0])
    return row


def _wrong(found: Sequence[PartResult]) -> dict[str, np.ndarray]:
    by_corruption: dict[str, list[np.ndarray]] = defaultdict(list)
    in_order = sorted(found, key=lambda each: each.part.severity)
    for each, right in zip(in_order, _right(in_order), strict=True):
        by_corruption[each.part.corruption].append(~right)
    return {name: np.stack(rows) for name, rows in by_corruption.items()}


def _right(results: Sequence[PartResult]) -> np.ndarray:
    """Right or not (bool), results × images, of the images that all of the results are about."""
    number = len(results[0].part.identities)
    answered, right = np.ones(number, bool), np.zeros((len(results), number), bool)
    for row, result in enumerate(results):
        answers = result.answers()
        seen = np.zeros(number, bool)
        seen[answers.samples] = True
        answered &= seen
        right[row, answers.samples] = answers.top1
    return right[:, answered]
