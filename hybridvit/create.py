"""Build a model by name."""

import dataclasses
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from hybridvit.card import ModelCard
from hybridvit.errors import UsageError, nearest
from hybridvit.folding.fold import fold
from hybridvit.models.backbone import Backbone, FeaturePyramid
from hybridvit.models.fastvit.config import FastViTConfig
from hybridvit.models.fastvit.model import FastViT
from hybridvit.models.registry import find_variant

_CLASSES: dict[type, type[Backbone]] = {FastViTConfig: FastViT}


def build(name: str, **options: Any) -> Backbone:
    """The randomly initialised training form of a variant; see `create_model`."""
    variant = find_variant(name)
    model_class = _CLASSES[type(variant.config)]
    in_config = {field.name for field in dataclasses.fields(variant.config)}
    of_class = {
        parameter for parameter in inspect.signature(model_class).parameters if parameter not in ("config", "card")
    }
    for option in options:
        if option not in in_config | of_class:
            raise UsageError(
                f"'{option}' is no option of {name}. Nearest: {nearest(option, sorted(in_config | of_class))}."
            )
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    config = dataclasses.replace(variant.config, **{key: value for key, value in options.items() if key in in_config})
    card = ModelCard(architecture=name, options=options, preprocessing=variant.preprocessing)
    return model_class(config, card=card, **{key: value for key, value in options.items() if key in of_class})


def create_model(
    name: str,
    *,
    pretrained: bool | str | Path = False,
    features_only: bool = False,
    out_indices: Sequence[int] | None = None,
    folded: bool = False,
    **options: Any,
) -> nn.Module:
    """A model by name, in training mode (in eval mode if `folded`).

    Args:
        name: one of `hybridvit.list_models()`.
        pretrained: True for the default published weights, a tag ("apple_dist_in1k") for others, or a path to a file
            of ours, Apple's or timm's. Another number of classes than the file's gets a new classifier; another
            number of channels an adapted stem.
        features_only: return a pyramid that gives a list of feature maps, of strides 4, 8, 16, 32.
        out_indices: which stages the pyramid gives; by default all.
        folded: return the inference form.
        **options: `num_classes`, `in_chans`, `global_pool`, `drop_rate`, `drop_path_rate`, and every field of the
            family's config, such as `mixers` or `ffn_kernel` of `FastViTConfig`.

    Raises:
        UsageError: for an unknown name, option, tag or value.
        CheckpointError: for weights that are missing or do not fit.
    """
    if out_indices is not None and not features_only:
        raise UsageError(
            "out_indices selects the maps of a pyramid, but features_only is False. Set features_only=True."
        )
    model = build(name, **options)
    if pretrained:
        load_pretrained(model, pretrained)
    result: nn.Module = FeaturePyramid(model, out_indices) if features_only else model
    return fold(result.eval()) if folded else result
