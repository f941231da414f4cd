"""What a model needs to be used besides its weights, and what travels with it into every file."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from hybridvit.errors import UsageError

MIN_SIDE_PX = 32  # of an image, in every model
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

RESEARCH_ONLY = "apple-amlr"  # with which the licence of weights begins that nothing commercial may be made of

Interpolation = Literal["nearest", "bilinear", "bicubic"]
CropMode = Literal["center", "squash", "fit", "letterbox", "original", "pad"]
Form = Literal["training", "released", "folded"]
"""training: all branches; released: folded as the published "reparam" files are; folded: fully."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image file becomes the model's input.

    Decode to RGB, turn upright as EXIF says, resize (`crop_mode="center"`: the shorter side to image_size /
    crop_fraction, aspect kept; "squash": both sides to image_size / crop_fraction), cut the centre out, divide by 255,
    subtract `mean`, divide by `std`.

    "pad" puts black around the picture, as much on either side, until it has the aspect of image_size, and resizes it.

    Three other modes show the whole picture, its aspect kept. "fit": as large as its shorter and its longer side may be
    (`fit_px`), so that each picture has a size of its own, and `image_size` is one to try a model with. "letterbox": as
    large as goes into image_size, and zeros, which stand for the mean colour, to the right and below. "original": in
    the picture's own size.
    """

    image_size: tuple[int, int] = (256, 256)  # height, width in pixels
    interpolation: Interpolation = "bicubic"
    crop_fraction: float = 0.9
    crop_mode: CropMode = "center"
    fit_px: tuple[int, int] | None = None  # of mode "fit" alone: the most that the shorter and the longer side may have
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    exif_orientation: bool = True  # False: as the sensor stored them; cards without this key mean True
    levels: tuple[float, float] | None = (
        None  # black and white of pictures of more than 8 bits; None: their whole range
    )

    def for_channels(self, channels: int) -> "Preprocessing":
        """The same for images of another number of channels, which all get the average mean and deviation."""
        if channels == len(self.mean):
            return self
        mean, std = (sum(values) / len(values) for values in (self.mean, self.std))
        return replace(self, mean=(mean,) * channels, std=(std,) * channels)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """The inverse of `dataclasses.asdict` after a trip through JSON, where tuples become lists.

        Raises ValueError or TypeError for an unknown key or a value that no image can be prepared with.
        """
        made = cls(**with_tuples(values))
        _require("interpolation", made.interpolation, made.interpolation in get_args(Interpolation))
        _require("crop_mode", made.crop_mode, made.crop_mode in get_args(CropMode))
        _require("crop_fraction", made.crop_fraction, _is_number(made.crop_fraction) and made.crop_fraction > 0)
        _require("image_size", made.image_size, _is_size(made.image_size))
        fits = made.crop_mode == "fit"
        _require("fit_px", made.fit_px, _is_size(made.fit_px) if fits else made.fit_px is None)
        _require("exif_orientation", made.exif_orientation, isinstance(made.exif_orientation, bool))
        _require("levels", made.levels, made.levels is None or _are_levels(made.levels))
        for key in ("mean", "std"):
            levels = getattr(made, key)
            _require(key, levels, isinstance(levels, tuple) and all(map(_is_number, levels)))
        _require("std", made.std, 0 not in made.std)
        return made


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """The record that every hybridvit model carries as `model.card`.

    `create_model(card.architecture, task=card.task, head=card.head, head_options=card.head_options, **card.options)`
    builds the training form again, where there is a head.
    """

    architecture: str  # a variant of this package, or where there is a head also a model of timm
    task: str = "classify"  # what it answers; a key of `hybridvit.task.TASKS`
    head: str = ""  # a key of its task's `heads`; empty where the backbone's own classifier answers
    head_options: dict[str, Any] = field(default_factory=dict)  # only what differs from the head's defaults; JSON types
    options: dict[str, Any] = field(default_factory=dict)  # only what differs from the variant; JSON types
    preprocessing: Preprocessing = Preprocessing()
    class_names: tuple[str, ...] = ()  # index -> name; empty if unknown
    class_facts: dict[str, Any] = field(default_factory=dict)
    """What else its task knows of the classes, such as their colours or their numbers in the data set; JSON types."""
    form: Form = "training"
    source: str = "randomly initialised"
    licence: str = ""
    fixed_size: tuple[int, int] | None = None  # the only (height, width) in pixels that this form takes; None: any
    embedding_space: str = ""
    """Of a folded image tower the SHA-256 of the weights that it was folded from: embeddings of the same one can be
    compared, whatever form or file they come from."""

    @property
    def licence_notice(self) -> str:
        """What whoever uses the weights, or passes on what is made of them, has to know; empty: nothing said here."""
        if not self.licence.startswith(RESEARCH_ONLY):
            return ""
        return (
            "The weights are under apple-amlr: for research only, not commercial, and so is everything made from them, "
            "fine-tuned, folded or exported. A copy passed on needs that licence, its notice, and what was changed."
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelCard":
        """The inverse of `dataclasses.asdict` after a trip through JSON: the one way in which a file's card is read.

        Raises ValueError, TypeError, KeyError or AttributeError for anything else than such a dict.
        """
        rest = dict(values)
        card = cls(
            preprocessing=Preprocessing.from_dict(rest.pop("preprocessing")),
            class_names=tuple(rest.pop("class_names")),
            options=with_tuples(rest.pop("options")),
            **with_tuples(rest),
        )
        for key in ("options", "head_options", "class_facts"):
            _require(key, getattr(card, key), isinstance(getattr(card, key), dict))
        texts = (
            *(card.architecture, card.task, card.head, card.source, card.licence, card.embedding_space),
            *card.class_names,
        )
        _require("a text", texts, all(isinstance(text, str) for text in texts))
        _require("form", card.form, card.form in get_args(Form))
        fixed = card.fixed_size is not None
        _require("fixed_size", card.fixed_size, not fixed or (_is_size(card.fixed_size) and card.form != "training"))
        return card


def with_tuples(value: Any) -> Any:
    """What JSON made lists of as the tuples that they were."""
    if isinstance(value, Mapping):
        return {key: with_tuples(each) for key, each in value.items()}
    return tuple(with_tuples(each) for each in value) if isinstance(value, list) else value


def as_size(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of an image size in pixels; a number is a square.

    Raises:
        UsageError: for anything else than one or two whole numbers, or a side that no model takes.
    """
    sides = image_size if isinstance(image_size, tuple | list) else (image_size, image_size)
    if len(sides) != 2 or any(type(side) is not int or side < MIN_SIDE_PX for side in sides):
        raise UsageError(
            f"image_size is {image_size!r}, but must be a side or (height, width) in pixels, each a whole number from "
            f"{MIN_SIDE_PX}."
        )
    return sides[0], sides[1]


def _is_size(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(type(side) is int and side > 0 for side in value)


def _are_levels(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(_is_number, value)) and value[0] != value[1]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _require(key: str, value: object, is_right: bool) -> None:
    if not is_right:
        raise ValueError(f"{key} cannot be {str(value)[:80]}")
