"""What a user can say of a picture besides showing it: which hand it has, where, and with what lens it was taken."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

from hybridvit.batch import Frame
from hybridvit.card import Preprocessing
from hybridvit.data.preprocess import RESAMPLING, frame_of, normalise, preprocess
from hybridvit.errors import UsageError, nearest

AROUND = 1.3  # of the longer side of a box: the side of the square that is shown
LARGEST_BOX = 2  # times the picture: a hand that leaves it may be larger than what is seen of it

Side = Literal["right", "left"]
Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class HandAsking:
    """Options of `predict` for hands. Raises UsageError for values that no picture has."""

    side: Side = "right"
    """of hands: which hand the pictures show; models know right ones, and see left ones in a mirror."""
    boxes: str = ""
    """of hands: where the hand is, x,y,width,height in pixels of every picture, or a .json file of such boxes by the
    names of the pictures; without it the central square of a picture is shown."""
    focal: float | None = None
    """of hands: focal length of the camera in pixels of the picture, to tell where in space the wrist is."""

    def __post_init__(self) -> None:
        if self.side not in get_args(Side):
            raise UsageError(f"--side is '{self.side}', but a hand is one of {', '.join(get_args(Side))}.")
        if self.focal is not None and not (math.isfinite(self.focal) and self.focal > 0):
            raise UsageError(
                f"--focal is {self.focal:g}, but a focal length is a number of pixels above 0: its millimetres times "
                "the picture's width in pixels, over the sensor's width in millimetres."
            )
        if self.boxes:
            self._found  # noqa: B018  read now, so that faults are told before the work

    @cached_property
    def _found(self) -> Mapping[str, Box]:
        """By the name of a picture; "" stands for every picture."""
        if not self.boxes.endswith(".json"):
            return {"": _box(self.boxes.split(","), "--boxes")}
        try:
            values = json.loads(Path(self.boxes).expanduser().read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(
                f"--boxes is {self.boxes}, which cannot be read ({error}). It has to be JSON such as "
                '{"hand.jpg": [40, 30, 120, 150]}.'
            ) from error
        if not isinstance(values, dict):
            raise UsageError(f"{self.boxes} has to be an object of boxes by the names of pictures.")
        return {str(name): _box(each, f"'{name}' in {self.boxes}") for name, each in values.items()}

    def box_in(self, name: str) -> Box | None:
        """The hand's box in the picture of that name or path. Raises UsageError where boxes are of others alone."""
        if not self.boxes:
            return None
        found = self._found.get("") or self._found.get(name) or self._found.get(Path(name).name)
        if found is None:
            short = Path(name).name or "this picture"
            raise UsageError(f"{self.boxes} has no box of {short}. {nearest(short, self._found)}.")
        return found


def _box(values: Any, where: str) -> Box:
    try:
        left, top, width, height = (float(each) for each in values)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{where} is {_text(values)}, but a box is x,y,width,height in pixels: four numbers such as 40,30,120,150."
        ) from error
    if not all(map(math.isfinite, (left, top, width, height))) or min(width, height) <= 0:
        raise UsageError(f"{where} is {_text(values)}, but width and height of a box are above 0, and all are finite.")
    return left, top, width, height


def _text(values: Any) -> str:
    is_list = isinstance(values, Sequence) and not isinstance(values, str)
    if not is_list:
        return repr(values)[:80]
    return ",".join(f"{each:g}" if isinstance(each, float) else str(each) for each in values)[:80]


def shown(
    picture: Image.Image, preprocessing: Preprocessing, asking: HandAsking, name: str
) -> tuple[np.ndarray, Frame]:
    """A picture as the model sees it (c h w), mirrored if it has a left hand, and where that lies in it.

    Raises UsageError for a box outside the picture.
    """
    box = asking.box_in(name)
    if box is None:
        image, frame = preprocess(picture, preprocessing), frame_of(picture.size, preprocessing)
    else:
        image, frame = _around(picture, box, preprocessing)
    return (np.ascontiguousarray(image[..., ::-1]) if asking.side == "left" else image), frame


def _around(picture: Image.Image, box: Box, preprocessing: Preprocessing) -> tuple[np.ndarray, Frame]:
    """The square around a box, where it leaves the picture mirrored at its border as in training."""
    left, top, width, height = box
    if left >= picture.width or top >= picture.height or left + width <= 0 or top + height <= 0:
        raise UsageError(
            f"The box {_text(box)} lies outside of the picture, which has {picture.width}x{picture.height} pixels. "
            "Boxes are x,y,width,height from its upper left corner."
        )
    if max(width, height) > LARGEST_BOX * max(picture.size):
        raise UsageError(
            f"The box {_text(box)} is more than {LARGEST_BOX} times as large as the picture, which has "
            f"{picture.width}x{picture.height} pixels. Boxes are x,y,width,height in its pixels."
        )
    side = AROUND * max(width, height)
    left, top = left + (width - side) / 2, top + (height - side) / 2
    crop = (left, top, side, side)
    over = max(0, math.ceil(max(-left, -top, left + side - picture.width, top + side - picture.height)))
    if over:
        pixels = np.pad(np.asarray(picture.convert("RGB")), ((over, over), (over, over), (0, 0)), "symmetric")
        picture_size, picture = (picture.height, picture.width), Image.fromarray(pixels)
        left, top = left + over, top + over
    else:
        picture_size = (picture.height, picture.width)
    rows, columns = preprocessing.image_size
    part = (left, top, left + side, top + side)
    cut = picture.resize((columns, rows), RESAMPLING[preprocessing.interpolation], box=part)
    return normalise(cut, preprocessing), Frame(picture_size=picture_size, crop=crop, input_size=(rows, columns))
