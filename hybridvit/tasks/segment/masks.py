"""From the file of a mask to the class of each pixel; needs Pillow and NumPy only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from hybridvit.data.decode import ImageSource, Stored, decode_stored
from hybridvit.errors import ImageDecodeError

IGNORE = 255  # the label of pixels that are neither learnt from nor judged
MOST_CLASSES = 255
MOST_VALUES = 65536
_OUTSIDE = -1
_LEVELS = {"L;2": 85, "L;4": 17}  # grey of 2 and 4 bits, which its reader spreads over 0 to 255
Colour = tuple[int, int, int]


class Values(NamedTuple):
    """What a mask holds, as it is stored."""

    values: np.ndarray  # h w, int32; -1 where a colour is listed nowhere
    palette: tuple[Colour, ...]  # of the mask's own; empty without one
    unlisted: Mapping[Colour, int]  # pixels of each colour that is listed nowhere
    kind: str  # JPEG, PNG, ...


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How the values of masks become labels, 0 for the first class."""

    values: tuple[int, ...]  # of the classes, in their order
    ignored: tuple[int, ...] = (IGNORE,)
    colours: tuple[tuple[Colour, int], ...] = ()  # of masks in colour: what value each stands for

    def labels(self, values: np.ndarray) -> np.ndarray:
        """The classes of values: int16, -1 for values that stand for nothing."""
        table = np.full(MOST_VALUES + 1, _OUTSIDE, np.int16)  # the last is that of colours listed nowhere
        table[list(self.values)] = np.arange(len(self.values))
        table[list(self.ignored)] = IGNORE
        return table[np.clip(values, -1, MOST_VALUES)]

    def to_facts(self) -> dict[str, Any]:
        """As JSON values, for the card of a model."""
        return {"values": self.values, "ignored": self.ignored, "colours": self.colours}

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any], num_classes: int) -> "Reading":
        """That of a card, or the plain one where it says nothing."""
        if "values" not in facts:
            return cls(values=tuple(range(num_classes)))
        return cls(values=facts["values"], ignored=facts["ignored"], colours=facts["colours"])


def read_values(source: ImageSource, reading: Reading, *, name: str = "") -> Values:
    """The values of a mask: levels of grey, numbers of a palette, 0 and 1, or listed colours. Alpha is left out.

    Raises ImageDecodeError for a file that cannot be decoded, and for colours where none are listed.
    """
    name = name or ("a mask" if isinstance(source, bytes) else str(source))
    stored = decode_stored(source, name=name)
    image = stored.image
    palette: tuple[Colour, ...] = ()
    if image.mode in ("P", "PA"):
        flat = image.getpalette() or []
        palette = tuple(zip(flat[::3], flat[1::3], flat[2::3], strict=True))
        values = np.array(image if image.mode == "P" else image.getchannel(0))
    elif image.mode in ("L", "LA"):
        values = np.array(image.getchannel(0)) // _LEVELS.get(stored.layout, 1)
    elif image.mode == "1" or image.mode.startswith("I"):
        values = np.array(image)
    elif image.mode in ("RGB", "RGBA"):
        return _of_colours(np.array(image)[..., :3], reading, stored, name)
    else:
        raise ImageDecodeError(
            f"{name}: a mask of mode {image.mode} holds no classes. Save it as PNG with one number per pixel."
        )
    return Values(values.astype(np.int32), palette, {}, stored.kind)


def _of_colours(pixels: np.ndarray, reading: Reading, stored: Stored, name: str) -> Values:
    if not reading.colours:
        grey = (pixels == pixels[..., :1]).all()
        fix = (
            "Its three channels are equal: save one of them, as grey PNG."
            if grey
            else "Put a palette.json with the colour of each class, {name: [r, g, b]}, beside the folders of the masks."
        )
        raise ImageDecodeError(f"{name}: the mask is in colours, and nothing says which class has which. {fix}")
    codes = _codes(pixels)
    listed = np.array([_codes(np.array(colour)) for colour, _ in reading.colours])
    order = np.argsort(listed)
    places = np.clip(np.searchsorted(listed[order], codes), 0, len(listed) - 1)
    numbers = np.array([value for _, value in reading.colours], np.int32)[order]
    values = np.where(listed[order][places] == codes, numbers[places], -1).astype(np.int32)
    unknown, counts = np.unique(codes[values < 0], return_counts=True)
    unlisted = {
        (code >> 16, code >> 8 & 255, code & 255): count
        for code, count in zip(unknown.tolist(), counts.tolist(), strict=True)
    }
    return Values(values, (), unlisted, stored.kind)


def _codes(pixels: np.ndarray) -> np.ndarray:
    """One number for each colour: ... 3 -> ..."""
    wide = pixels.astype(np.int32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def nearest_colour(colour: Colour, listed: Sequence[Colour]) -> Colour:
    """The listed one that differs least."""
    return min(listed, key=lambda each: sum((one - other) ** 2 for one, other in zip(each, colour, strict=True)))


def distinct_colours(count: int) -> tuple[Colour, ...]:
    """A palette for classes that have none: bits of the number spread over the channels, as Pascal VOC's is made."""
    colours = []
    for number in range(count):
        channels = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                channels[channel] |= (number >> (3 * bit + channel) & 1) << (7 - bit)
        colours.append((channels[0], channels[1], channels[2]))
    return tuple(colours)
