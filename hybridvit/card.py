"""What a model needs to be used besides its weights, and what travels with it into every file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Form = Literal["training", "released", "folded"]
"""training: all branches; released: folded as the published "reparam" files are; folded: fully."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image file becomes the model's input.

    Decode to RGB, resize (`crop_mode="center"`: the shorter side to image_size / crop_fraction, aspect kept;
    "squash": both sides to image_size / crop_fraction), cut the centre out, divide by 255, subtract `mean`,
    divide by `std`.
    """

    image_size: tuple[int, int] = (256, 256)  # height, width in pixels
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bicubic"
    crop_fraction: float = 0.9
    crop_mode: Literal["center", "squash"] = "center"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """The inverse of `dataclasses.asdict` after a trip through JSON, where tuples become lists."""
        restored: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**restored)


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """The record that every hybridvit model carries as `model.card`.

    `create_model(card.architecture, **card.options)` builds the training form again.
    """

    architecture: str
    options: dict[str, Any] = field(default_factory=dict)  # only what differs from the variant; JSON types
    preprocessing: Preprocessing = Preprocessing()
    class_names: tuple[str, ...] = ()  # index -> name; empty if unknown
    form: Form = "training"
    source: str = "randomly initialised"
    licence: str = ""
