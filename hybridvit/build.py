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
            raise UnknownOptionError(
                f"'{option}' is no option of {name}. Nearest: {nearest(option, sorted(in_config | of_class))}."
            )
    options = with_tuples(options)
    config = configured(variant, options)
    config.check_applicable([key for key in options if key in in_config])
    preprocessing = variant.preprocessing.for_channels(options.get("in_chans", 3))
    card = ModelCard(architecture=name, options=options, preprocessing=preprocessing)
    return model_class(config, card=card, **{key: value for key, value in options.items() if key in of_class})


def _class_of(family: str) -> type[Backbone]:
    module, _, name = FAMILIES[family].model.partition(":")
    model_class = getattr(import_module(module), name)
    assert issubclass(model_class, Backbone)
    return model_class


def configured(variant: Variant, options: dict[str, Any]) -> FamilyConfig:
    """The variant's config with those of `options` that are fields of it."""
    fields = {field.name for field in dataclasses.fields(variant.config)}
    return dataclasses.replace(variant.config, **{key: value for key, value in options.items() if key in fields})
