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
    """One row of JSON values for each suite and file, files in their order; the first file is the reference.

    `whole` says that all images of each suite were answered: only then are published values set beside.
    """
    by_suite: dict[str, dict[int, list[PartResult]]] = defaultdict(lambda: defaultdict(list))
    subjects = list(dict.fromkeys(id(result.subject) for result in results))
    for result in results:
        by_suite[result.part.suite][subjects.index(id(result.subject))].append(result)
    rows = []
    for suite, by_file in by_suite.items():
        for number in sorted(by_file):
            found, first = by_file[number], by_file[0]
            row = _of_corruptions(found) if found[0].part.corruption else dict(found[0].scores)
            if found[0].part.corruption and suite == "c":
                clean = by_suite.get(CLEAN_OF_C, {}).get(number)
                row |= _mean_corruption_error(found, clean[0] if clean else None)
            facts = {
                "suite": suite,
                "file": found[0].subject.path,
                "protocol": ", ".join(dict.fromkeys(each.protocol for each in found)),
                "num_skipped": sum(each.num_skipped for each in found),
            }
            if number:
                row["against_first"] = _against(found, first)
            row["published"] = dict(published(found[0].subject.card.architecture, suite)) if whole else {}
            rows.append(facts | row)
    return rows


def _of_corruptions(found: Sequence[PartResult]) -> Row:
    """The mean error over all corruptions and severities, which is never called mCE."""
    wrong = np.stack([~_by_identity(each) for each in found])
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
    ours, theirs = (np.stack([_by_identity(each) for each in each_of]) for each_of in (found, first))
    values = ours.mean(0) - theirs.mean(0)
    interval = bootstrap(values)
    row: Row = {"top1": float(values.mean()), "interval": list(interval), "resolved": not interval.holds_zero}
    if len(found) == 1:
        row["mcnemar_p"] = mcnemar(ours[0], theirs[0])
    return row


def _wrong(found: Sequence[PartResult]) -> dict[str, np.ndarray]:
    by_corruption: dict[str, list[PartResult]] = defaultdict(list)
    for each in found:
        by_corruption[each.part.corruption].append(each)
    return {
        name: np.stack([~_by_identity(each) for each in sorted(parts, key=lambda each: each.part.severity)])
        for name, parts in by_corruption.items()
    }


def _by_identity(result: PartResult) -> np.ndarray:
    """Right or not (bool), by the image's number in the part; an image that could not be decoded counts as wrong."""
    right = np.zeros(len(result.part.identities), bool)
    answers = result.answers
    right[answers.samples] = answers.top1
    return right
