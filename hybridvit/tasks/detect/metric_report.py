"""What a report says of detections: tables, and precision over recall."""

from collections.abc import Mapping, Sequence

import numpy as np

from hybridvit.report.content import Curve, Table
from hybridvit.tasks.detect.average_precision import ClassAP, Judged
from hybridvit.tasks.detect.data_lists import Category

NAMES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large",
         "ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large")  # fmt: skip
"""COCO's twelve numbers, in their order."""
TITLES = ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large",
          "AR1", "AR10", "AR100", "AR small", "AR medium", "AR large")  # fmt: skip
KINDS = {"bbox": "box", "segm": "mask"}
MOST_LINES = 3  # classes that are drawn beside the mean


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def summary(values: Mapping[str, float], kinds: Sequence[str]) -> Table:
    rows = [
        [title, *(_text(values.get(f"{KINDS[kind]}_{name}")) for kind in kinds)]
        for name, title in zip(NAMES, TITLES, strict=True)
    ]
    return Table(
        title="Average precision and recall, in %",
        head=["", *(KINDS[kind].capitalize() for kind in kinds)],
        rows=rows,
        note="COCO's rules; – where there is nothing of that size to find.",
    )


def classes(by_class: Mapping[str, Sequence[ClassAP]], categories: Sequence[Category], judged: Judged) -> Table:
    """The lowest AP first."""
    found = [each["category_id"] - 1 for each in judged.truths if not each["iscrowd"]]
    counts = np.bincount(found, minlength=len(categories))
    known = [each.ap for each in by_class["bbox"]]
    order = sorted(range(len(categories)), key=lambda label: (known[label] is None, known[label] or 0))
    titles = [f"{KINDS[kind].capitalize()} {title}" for kind in by_class for title in ("AP", "AP50")]
    rows = [
        [categories[label].name]
        + [_text(value) for kind in by_class for value in by_class[kind][label]]
        + [f"{counts[label]:,}"]
        for label in order
    ]
    return Table(title="Classes, the lowest box AP first, in %", head=["Class", *titles, "Objects"], rows=rows)


def precision_over_recall(
    word: str, curves: Sequence[Sequence[float]], by_class: Sequence[ClassAP], categories: Sequence[Category]
) -> Curve:
    """Of all classes in the mean, and of the few with the lowest AP; `curves` are precisions at recalls from 0 to 1."""
    known = [label for label, curve in enumerate(curves) if curve]
    lowest = sorted(known, key=lambda label: by_class[label].ap or 0.0)[:MOST_LINES]
    lines = {"all classes": np.mean([curves[label] for label in known], axis=0).tolist()}
    lines |= {categories[label].name: curves[label] for label in lowest if len(known) > 1}
    return Curve(
        title=f"Precision over recall of {word} detections at an IoU of 0.50",
        x_label="recall, %",
        y_label="precision, %",
        lines={
            name: [(100 * place / (len(line) - 1), 100 * value) for place, value in enumerate(line)]
            for name, line in lines.items()
        },
        from_zero=True,
        shows_last=False,
    )
