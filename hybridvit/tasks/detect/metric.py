"""COCO's average precision, of boxes and masks, exact on any number of processes."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hybridvit.batch import Batch, Frame
from hybridvit.card import ModelCard
from hybridvit.errors import DatasetError, UsageError
from hybridvit.evaluate.agreement import arrays
from hybridvit.evaluate.run import of_all_ranks
from hybridvit.report.content import Confusion, Curve, Table
from hybridvit.scores import Example, Scores, first_of_groups
from hybridvit.task import Metric, Outputs
from hybridvit.tasks.detect.average_precision import ABSENT, ClassAP, Judged, average_precision, joined
from hybridvit.tasks.detect.categories import categories_of
from hybridvit.tasks.detect.data import Truth
from hybridvit.tasks.detect.data_masks import RLE
from hybridvit.tasks.detect.metric_report import KINDS, NAMES, classes, precision_over_recall, summary
from hybridvit.tasks.detect.overlap import areas, overlap, shared
from hybridvit.tasks.detect.result import BOXES, LABELS, MASKS, SCORES, SHOWN, DetectResult, in_picture, pasted

MOST = 100  # detections of a picture that count, in COCO's rules
FOUND_AT = 0.5  # IoU from which a detection finds an object, in examples and in the confusion
WORST, BEST = "Worst: most missed and wrongly found", "Best: most found"


class Found(NamedTuple):
    """The detections of a picture, in its pixels, the surest first."""

    boxes: np.ndarray  # n 4
    scores: np.ndarray  # n
    labels: np.ndarray  # n
    masks: list[RLE] | None  # of the first MOST


class DetectMetric(Metric):
    """AP of boxes, and of masks where there are true ones and the model gives some."""

    def __init__(self, card: ModelCard, *, num_examples: int) -> None:
        self._categories, self._num_examples = categories_of(card), num_examples
        self._judged = Judged([], [], {})
        self._confusion = np.zeros((len(self._categories) + 1,) * 2, np.int64)
        self._examples: list[Example] = []
        self._all_masks = True

    def update(self, outputs: Outputs, batch: Batch) -> None:
        if any(name not in outputs for name in (BOXES, SCORES, LABELS)):
            raise UsageError(
                f"The file gives {' and '.join(outputs)}, but what a detector is worth is computed from its boxes. "
                "Export the model again without --returns."
            )
        given = arrays(outputs)
        rows = zip(batch.targets, batch.frames, batch.samples.tolist(), strict=True)
        for place, (target, frame, number) in enumerate(rows):
            assert frame is not None, "detections are judged in their pictures"
            truth: Truth = target["truth"]
            found = _found({name: np.asarray(values[place]) for name, values in given.items()}, truth, frame)
            self._take(number, truth, found)
            self._look(number, truth, found)

    def _take(self, number: int, truth: Truth, found: Found) -> None:
        """Truth and detections of a picture as COCO's lists have them."""
        self._judged.images.append({"id": number + 1, "height": truth.size[0], "width": truth.size[1]})
        for place, box in enumerate(truth.boxes.tolist()):
            entry = {
                "image_id": number + 1,
                "category_id": int(truth.labels[place]) + 1,
                "bbox": _xywh(box),
                "area": float(truth.areas[place]),
                "iscrowd": int(truth.crowd[place]),
            }
            self._judged.truths.append(entry if truth.masks is None else entry | {"segmentation": truth.masks[place]})
        self._all_masks &= truth.masks is not None or not len(truth.boxes)
        scored = [
            {"image_id": number + 1, "category_id": int(label) + 1, "score": float(score)}
            for label, score in zip(found.labels, found.scores, strict=True)
        ]
        of_boxes = self._judged.found.setdefault("bbox", [])
        of_boxes += [each | {"bbox": _xywh(box)} for each, box in zip(scored, found.boxes.tolist(), strict=True)]
        if found.masks is not None:
            of_masks = self._judged.found.setdefault("segm", [])
            of_masks += [each | {"segmentation": mask} for each, mask in zip(scored, found.masks, strict=False)]

    def _look(self, number: int, truth: Truth, found: Found) -> None:
        """Count what was taken for what, and keep the picture if it is among the best or the worst."""
        sure = found.scores >= SHOWN
        pairs = matched(found.boxes[sure], truth.boxes[~truth.crowd])
        named, true = found.labels[sure].astype(int), truth.labels[~truth.crowd]
        free = _in_crowds(found.boxes[sure], truth.boxes[truth.crowd])
        right = 0
        for said, is_true in pairs:
            self._confusion[true[is_true], named[said]] += 1
            right += int(true[is_true] == named[said])
        wrong = [place for place in range(len(named)) if place not in dict(pairs) and not free[place]]
        missed = [place for place in range(len(true)) if place not in {is_true for _, is_true in pairs}]
        for label in named[wrong]:
            self._confusion[-1, label] += 1
        for label in true[missed]:
            self._confusion[label, -1] += 1
        if not self._num_examples:
            return
        faults = len(wrong) + len(missed) + len(pairs) - right
        result = DetectResult(
            categories=self._categories,
            boxes=found.boxes[:MOST],
            scores=found.scores[:MOST],
            labels=found.labels[:MOST],
            masks=found.masks,
        )
        example = Example(
            group=WORST if faults else BEST,
            order=float(faults if faults else right),
            sample=number,
            result=result,
            said=f"found {right} of {len(true)}",
            truth=f"{len(wrong) + len(pairs) - right} wrong" if faults else "",
            right=not faults,
        )
        self._examples = first_of_groups([*self._examples, example], (WORST, BEST), self._num_examples)

    def compute(self) -> Scores:
        """Raises DatasetError where no picture has an object to find."""
        shares = of_all_ranks((self._judged, self._confusion, self._examples, self._all_masks))
        judged = joined([share[0] for share in shares])
        if not any(not each["iscrowd"] for each in judged.truths):
            raise DatasetError(f"None of the {len(judged.images):,} pictures has an object to find. Add some.")
        kinds = ["bbox"]
        if "segm" in judged.found and all(share[3] for share in shares):
            kinds.append("segm")
        values, details = dict[str, float](), dict[str, Any]()
        by_class: dict[str, list[ClassAP]] = {}
        drawn: list[Curve] = []
        for kind in kinds:
            numbers, by_class[kind], curves = average_precision(judged, kind, len(self._categories))
            word = KINDS[kind]
            named = {f"{word}_{name}": number for name, number in zip(NAMES, numbers, strict=True)}
            values |= {name: round(100 * number, 4) for name, number in named.items() if number != ABSENT}
            details |= {name: None for name, number in named.items() if number == ABSENT}
            details[f"{word}_precision_recall"] = curves
            drawn.append(precision_over_recall(word, curves, by_class[kind], self._categories))
        parts: list[Table | Confusion | Curve] = [summary(values, kinds), classes(by_class, self._categories, judged)]
        confusion = np.sum([share[1] for share in shares], axis=0)
        if len(self._categories) > 1:
            parts.append(
                Confusion(
                    class_names=[*(category.name for category in self._categories), "nothing"],
                    counts=confusion.tolist(),
                )
            )
        details["classes"] = [
            {"category_id": category.id, "name": category.name, **_of_class(by_class, label)}
            for label, category in enumerate(self._categories)
        ]
        examples = [example for share in shares for example in share[2]]
        return Scores(
            values=values,
            parts=(*parts, *drawn),
            details=details,
            examples=tuple(first_of_groups(examples, (WORST, BEST), self._num_examples)),
        )


def _found(rows: Mapping[str, np.ndarray], truth: Truth, frame: Frame) -> Found:
    """What a model's rows for one input find in its picture; masks where there are true ones."""
    scores = rows[SCORES].astype(np.float64)
    kept = np.argsort(-scores, kind="stable")
    kept = kept[scores[kept] > 0]
    boxes, masks = in_picture(rows[BOXES].astype(np.float64)[kept], frame), None
    if MASKS in rows and truth.masks is not None:
        pairs = zip(rows[MASKS][kept[:MOST]], boxes[:MOST], strict=True)
        masks = [pasted(mask, box, truth.size) for mask, box in pairs]
    return Found(boxes, scores[kept], rows[LABELS][kept], masks)


def matched(boxes: np.ndarray, truths: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of a box and a true one, each used once; the surest boxes choose first, whatever the class."""
    pairs, taken = [], set[int]()
    overlaps = overlap(boxes, truths)
    for place, row in enumerate(overlaps):
        free = [(value, -true) for true, value in enumerate(row) if true not in taken and value >= FOUND_AT]
        if free:
            best = -max(free)[1]
            taken.add(best)
            pairs.append((place, best))
    return pairs


def _in_crowds(boxes: np.ndarray, crowds: np.ndarray) -> np.ndarray:
    """Of which boxes more than half lies in a crowd, so that they are neither right nor wrong."""
    return shared(boxes, crowds).max(1, initial=0) > 0.5 * areas(boxes)


def _xywh(box: Sequence[float]) -> list[float]:
    left, top, right, bottom = box
    return [left, top, right - left, bottom - top]


def _of_class(by_class: Mapping[str, Sequence[ClassAP]], label: int) -> dict[str, float | None]:
    return {
        f"{KINDS[kind]}_{name}": value
        for kind, classes in by_class.items()
        for name, value in classes[label]._asdict().items()
    }
