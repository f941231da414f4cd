"""COCO's average precision, by faster-coco-eval."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from hybridvit.tasks.detect.data_masks import coco_package

ABSENT = -1.0  # what COCO's rules give where there is nothing to find


class Judged(NamedTuple):
    """What one process knows, as COCO's lists have it; pictures are known by their number from 1."""

    images: list[dict[str, Any]]
    truths: list[dict[str, Any]]
    found: dict[str, list[dict[str, Any]]]  # by kind


class ClassAP(NamedTuple):
    """AP and AP50 of one class, in %; None where there is nothing to find."""

    ap: float | None
    ap50: float | None


def average_precision(
    judged: Judged, kind: str, num_categories: int
) -> tuple[list[float], list[ClassAP], list[list[float]]]:
    """COCO's twelve numbers (-1 where there is nothing to find), AP by class, and precision at IoU 0.5 over recall.

    `kind` is "bbox" or "segm". A curve is of each class, at recalls 0, 0.1, ... 1; empty where nothing is to be found.
    Raises UsageError without faster-coco-eval.
    """
    package = coco_package()
    truths = [{**each, "id": number} for number, each in enumerate(judged.truths, start=1)]
    categories = [{"id": label + 1, "name": str(label)} for label in range(num_categories)]
    truth = package.COCO({"info": {}, "images": judged.images, "annotations": truths, "categories": categories})
    found = truth.loadRes([dict(each) for each in judged.found.get(kind, [])])
    evaluation = package.COCOeval_faster(truth, found, iouType=kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    precision = np.asarray(evaluation.eval["precision"])  # iou recall class area most
    of_class = precision[:, :, :, 0, -1]
    by_class, curves = [], []
    for label in range(num_categories):
        values = of_class[:, :, label]
        known = (values > ABSENT).any()
        by_class.append(
            ClassAP(round(100 * float(values.mean()), 4), round(100 * float(values[0].mean()), 4))
            if known
            else ClassAP(None, None)
        )
        curves.append([round(float(value), 4) for value in values[0][::10]] if known else [])
    return [float(value) for value in evaluation.stats[:12]], by_class, curves


def joined(shares: Sequence[Judged]) -> Judged:
    """All of it, in the order of the pictures, whichever process judged them."""
    found: dict[str, list[dict[str, Any]]] = {}
    for share in shares:
        for kind, entries in share.found.items():
            found.setdefault(kind, []).extend(entries)
    in_order = {kind: sorted(entries, key=lambda each: each["image_id"]) for kind, entries in found.items()}
    return Judged(
        sorted((each for share in shares for each in share.images), key=lambda each: each["id"]),
        sorted((each for share in shares for each in share.truths), key=lambda each: each["image_id"]),
        in_order,
    )
