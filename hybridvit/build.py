"""A model from its name and options, or from a card, on any device and without weights."""

import dataclasses
import inspect
from importlib import import_module
from typing import Any

from hybridvit.card import ModelCard, with_tuples
from hybridvit.errors import UnknownOptionError, nearest
from hybridvit.models.backbone import Backbone
from hybridvit.models.family import FamilyConfig
from hybridvit.models.registry import FAMILIES, Variant, find_variant

WORDS_OF_OTHERS = {
    "inference_mode": "folded=True",
    "img_size": "image_size",
    "input_size": "image_size",
    "resolution": "image_size",
    "fork_feat": "features_only",
    "checkpoint_path": "pretrained",
    "layers": "depths",
    "embed_dims": "widths",
    "dim": "widths",
    "in_dim": "stem_width",
    "mlp_ratios": "mlp_ratio",
    "token_mixers": "mixers",
    "hat": "mixers",
    "window_size": "windows",
    "ct_size": "carrier_size",
    "do_propagation": "propagate",
    "repmixer_kernel_size": "mixer_kernel",
    "act_layer": "activation",
    "norm_layer": "norm",
    "layer_scale": "layer_scale_init",
    "layer_scale_init_value": "layer_scale_init",
    "layer_scale_conv": "conv_layer_scale_init",
}
"""What the code of Apple, NVIDIA and timm calls an option, and what it is called here."""

OF_CREATION = frozenset(
    {"folded", "image_size", "features_only", "pretrained"}
)  # options of create_model, not of models


def build(name: str, **options: Any) -> Backbone:
    """The randomly initialised training form of a variant; see `hybridvit.create_model`."""
    variant = find_variant(name)
    model_class = _class_of(variant.family)
    in_config = {field.name for field in dataclasses.fields(variant.config)}
    of_class = {
        parameter for parameter in inspect.signature(model_class).parameters if parameter not in ("config", "card")
    }
    for option in options:
        if option not in in_config | of_class:
            raise UnknownOptionError(f"'{option}' is no option of {name}. {_advice(option, in_config | of_class)}")
    options = with_tuples(options)
    config = configured(variant, options)
    config.check_applicable([key for key in options if key in in_config])
    preprocessing = variant.preprocessing.for_channels(options.get("in_chans", 3))
    card = ModelCard(architecture=name, options=options, preprocessing=preprocessing)
    return model_class(config, card=card, **{key: value for key, value in options.items() if key in of_class})


def _advice(option: str, known: set[str]) -> str:
    word = WORDS_OF_OTHERS.get(option, "")
    if word.partition("=")[0] in known:
        return f"Other libraries' '{option}' is {word} here."
    if word.partition("=")[0] in OF_CREATION:
        return f"Other libraries' '{option}' is {word} of create_model here."
    return f"{nearest(option, sorted(known))}."


def _class_of(family: str) -> type[Backbone]:
    module, _, name = FAMILIES[family].model.partition(":")
    model_class = getattr(import_module(module), name)
    assert issubclass(model_class, Backbone)
    return model_class


def configured(variant: Variant, options: dict[str, Any]) -> FamilyConfig:
    """The variant's config with those of `options` that are fields of it."""
    fields = {field.name for field in dataclasses.fields(variant.config)}
    return dataclasses.replace(variant.config, **{key: value for key, value in options.items() if key in fields})
