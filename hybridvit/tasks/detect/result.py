"""What is found on a picture, as a model says."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from hybridvit.batch import Frame
from hybridvit.card import ModelCard
from hybridvit.errors import UsageError
from hybridvit.scores import Columns, Result
from hybridvit.task import Outputs
from hybridvit.tasks.detect.data_lists import Category
from hybridvit.tasks.detect.data_masks import RLE, decode, encode
from hybridvit.tasks.detect.overlap import overlap

BOXES, SCORES, LABELS, MASKS = "boxes", "scores", "labels", "masks"  # what a model answers with
SHOWN = 0.5  # the score from which a detection is drawn and said
NAMED = 0.05  # the score from which one is in the JSON, and is compared
SAME_IOU, SAME_SCORE = 0.99, 0.01  # of a box and of its score, to be the same to a person
MASK_AT = 0.5  # the probability from which a pixel belongs to the object


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectResult(Result):
    """The detections of one picture, in its pixels, the surest first."""

    categories: Sequence[Category]
    boxes: np.ndarray  # n 4: left, top, right, bottom
    scores: np.ndarray  # n
    labels: np.ndarray  # n
    masks: Sequence[RLE] | None = None
    most: int | None = None  # detections to show, whatever their scores; None: those from SHOWN on

    @property
    def num_shown(self) -> int:
        """How many of the first are drawn and said."""
        return int((self.scores >= SHOWN).sum()) if self.most is None else min(self.most, len(self.scores))

    def to_dict(self) -> dict[str, Any]:
        """Boxes as left, top, width, height; masks as COCO has them; categories as the data set numbers them."""
        count = len(self.scores) if self.most is None else self.num_shown
        return {"predictions": [self._object(place) for place in range(count)]}

    @property
    def columns(self) -> Columns:
        number = type(self.categories[0].id)
        known: dict[str, Any] = {"class": str, "category_id": number, "score": float, "bbox": [float]}
        masks: dict[str, Any] = {} if self.masks is None else {"segmentation": {"size": [int], "counts": str}}
        return {"predictions": [known | masks]}

    def _object(self, place: int) -> dict[str, Any]:
        category = self.categories[int(self.labels[place])]
        left, top, right, bottom = (float(value) for value in self.boxes[place])
        found: dict[str, Any] = {
            "class": category.name,
            "category_id": category.id,
            "score": round(float(self.scores[place]), 6),
            "bbox": [round(value, 3) for value in (left, top, right - left, bottom - top)],
        }
        if self.masks is not None:
            mask = self.masks[place]
            found["segmentation"] = {"size": list(mask["size"]), "counts": mask["counts"].decode()}
        return found

    def lines(self) -> list[str]:
        lines = []
        for place in range(self.num_shown):
            left, top, right, bottom = self.boxes[place]
            name = self.categories[int(self.labels[place])].name
            lines.append(
                f"  {100 * self.scores[place]:6.2f} %  {name}  {right - left:.0f}x{bottom - top:.0f} px at "
                f"{left:.0f}, {top:.0f}"
            )
        return lines or ["  nothing with a score of 50 % or more"]

    def draw(self, picture: Image.Image) -> Image.Image:
        """The picture with a frame, a name and, where there is one, a mask in the colour of the class for each."""
        drawn = picture.convert("RGB").copy()
        colours = [colour_of(int(label)) for label in self.labels[: self.num_shown]]
        if self.masks is not None and colours:
            pixels = np.array(drawn)
            for mask, colour in zip(self.masks, colours, strict=False):  # one by one: each is as large as the picture
                inside = decode([mask])[0].astype(bool)
                pixels[inside] = (0.5 * pixels[inside] + 0.5 * np.array(colour)).round().astype(np.uint8)
            drawn = Image.fromarray(pixels)
        pen, line = ImageDraw.Draw(drawn), max(1, round(min(drawn.size) / 250))
        for place, colour in enumerate(colours):
            left, top, right, bottom = (float(value) for value in self.boxes[place])
            pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=line)
            text = f"{self.categories[int(self.labels[place])].name} {100 * self.scores[place]:.0f}"
            if drawn.width >= 160:  # smaller pictures would be all text
                above = max(0.0, top - 11)
                pen.rectangle(pen.textbbox((left + 1, above), text), fill=colour)
                pen.text((left + 1, above), text, fill="white")
        return drawn

    @property
    def colours(self) -> dict[str, tuple[int, int, int]]:
        return {self.categories[label].name: colour_of(label) for label in self.labels[: self.num_shown].tolist()}

    def agrees(self, other: Result) -> bool:
        """The same boxes of the same classes with the same scores, but for those that a person would not see."""
        if not isinstance(other, DetectResult):
            return False
        return _found_again(self, other) and _found_again(other, self)


def _found_again(one: DetectResult, other: DetectResult) -> bool:
    """Whether each detection that one is sure of is among the other's."""
    taken = np.zeros(len(other.scores), bool)
    for place in np.flatnonzero(one.scores >= SHOWN):
        alike = (other.labels == one.labels[place]) & (np.abs(other.scores - one.scores[place]) < SAME_SCORE) & ~taken
        overlaps = np.where(alike, overlap(one.boxes[place][None], other.boxes)[0], 0.0)
        if not len(overlaps) or overlaps.max() < SAME_IOU:
            return False
        taken[overlaps.argmax()] = True
    return True


def colour_of(label: int) -> tuple[int, int, int]:
    """One that is unlike those of the labels before it."""
    red, green, blue = colorsys.hsv_to_rgb(label * 0.618034 % 1, 0.75, 0.9)
    return round(255 * red), round(255 * green), round(255 * blue)


def results_of(
    outputs: Outputs,
    frames: Sequence[Frame | None],
    card: ModelCard,
    categories: Sequence[Category],
    most: int | None = None,
) -> list[DetectResult]:
    """The detections of each picture, in its own pixels where a frame says how it became the input.

    Raises UsageError for outputs that are no detections, or fewer than `most`.
    """
    if any(name not in outputs for name in (BOXES, SCORES, LABELS)):
        raise UsageError(
            f"gives {', '.join(outputs)}, so it says nothing of boxes. Call what `hybridvit.load` opens, or export the "
            "model again without --returns."
        )
    arrays = {name: np.asarray(values) for name, values in outputs.items()}
    if most is not None and most > arrays[SCORES].shape[1]:
        raise UsageError(f"gives {arrays[SCORES].shape[1]} detections of a picture, fewer than {most}.")
    return [_result({key: each[place] for key, each in arrays.items()}, frame, card, categories, most)
            for place, frame in enumerate(frames)]  # fmt: skip


def _result(
    arrays: dict[str, np.ndarray],
    frame: Frame | None,
    card: ModelCard,
    categories: Sequence[Category],
    most: int | None,
) -> DetectResult:
    frame = frame or _as_it_is(card)
    scores = arrays[SCORES].astype(np.float64)
    kept = np.argsort(-scores, kind="stable")
    kept = kept[scores[kept] >= NAMED] if most is None else kept[:most][scores[kept[:most]] > 0]
    boxes = in_picture(arrays[BOXES][kept].astype(np.float64), frame)
    masks = None
    if MASKS in arrays:
        masks = [pasted(mask, box, frame.picture_size) for mask, box in zip(arrays[MASKS][kept], boxes, strict=True)]
    return DetectResult(
        categories=categories, boxes=boxes, scores=scores[kept], labels=arrays[LABELS][kept], masks=masks, most=most
    )


def _as_it_is(card: ModelCard) -> Frame:
    """Of an input that was no picture."""
    return Frame.whole(*(card.fixed_size or card.preprocessing.image_size))


def in_picture(boxes: np.ndarray, frame: Frame) -> np.ndarray:
    """Boxes of an input (n 4) in the picture that it shows, cut off at its edges."""
    left, top, width, height = frame.crop
    scale = np.array([width / frame.input_size[1], height / frame.input_size[0]] * 2)
    limits = np.array([frame.picture_size[1], frame.picture_size[0]] * 2, float)
    return (boxes * scale + np.array([left, top, left, top])).clip(0, limits)


def pasted(mask: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> RLE:
    """A mask of probabilities over its box (28x28) as run lengths of a picture of that height and width.

    A pixel is asked for the probability at its centre, between those of the mask by bilinear interpolation; what lies
    beyond the centres of the outermost ones fades to 0 within another of them.
    """
    canvas = np.zeros(size, np.uint8)
    left, top, right, bottom = box
    first = np.floor([left, top]).astype(int).clip(0)
    last = np.minimum(np.ceil([right, bottom]).astype(int), (size[1], size[0]))
    if (last <= first).any() or right <= left or bottom <= top:
        return encode(canvas)
    padded = np.pad(mask.astype(np.float64), 1)
    down = _between(np.arange(first[1], last[1]) + 0.5, top, bottom, mask.shape[0])
    across = _between(np.arange(first[0], last[0]) + 0.5, left, right, mask.shape[1])
    values = _weights(down, padded.shape[0]) @ padded @ _weights(across, padded.shape[1]).T
    canvas[first[1] : last[1], first[0] : last[0]] = values >= MASK_AT
    return encode(canvas)


def _between(centres: np.ndarray, low: float, high: float, count: int) -> np.ndarray:
    """Where pixels lie among the `count` values of a padded side."""
    return ((centres - low) / (high - low) * count + 0.5).clip(0, count + 1)


def _weights(places: np.ndarray, count: int) -> np.ndarray:
    """Bilinear weights, n count."""
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(count)))
