"""A model in timm's layout: config.json, and weights under the names that timm gives them.

timm opens such a folder by `hf-hub:OWNER/NAME`, transformers by its wrapper of timm. FastViT is timm's too, also with
other depths and widths, so that neither needs this package; our other classifiers open once it is imported.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from hybridvit.build import configured
from hybridvit.card import Preprocessing
from hybridvit.checkpoints.keymaps import from_ours
from hybridvit.models.backbone import Backbone, timm_cfg
from hybridvit.models.family import FamilyConfig
from hybridvit.models.fastvit.config import FastViTConfig
from hybridvit.models.registry import VARIANTS, find_variant
from hybridvit.models.whole import WholeModel
from hybridvit.timm_models import PREFIX

OpensIn = Literal["timm", "timm with hybridvit", "hybridvit"]
CROPS_OF_TIMM = ("center", "squash")  # the ways to crop that timm has as well

_ARGUMENTS = {
    "depths": "layers",
    "widths": "embed_dims",
    "mixer_kernel": "repmixer_kernel_size",
    "layer_scale_init": "layer_scale_init_value",
}
"""Fields of FastViTConfig that are arguments of timm's FastViT; `mlp_ratio` is one too, there for each stage."""
_OF_TRAINING = ("drop_path_rate", "drop_rate", "training_form")  # options that change no answer


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The two files that others open."""

    opens_in: OpensIn
    config: Mapping[str, Any]  # of config.json
    tensors: Mapping[str, Tensor]  # of model.safetensors


def layout_of(model: WholeModel) -> Layout:
    """How a model in training form is written for others: in timm's own names where timm has such a model."""
    card, tensors = model.card, dict(model.state_dict())
    if not isinstance(model, Backbone):
        known = {"architecture": card.architecture, "task": card.task, "head": card.head}
        return Layout(opens_in="hybridvit", config={"library_name": "hybridvit", **known}, tensors=tensors)
    kept = (*_OF_TRAINING, "num_classes", "in_chans")
    options = {key: value for key, value in card.options.items() if key not in kept}
    config = configured(find_variant(card.architecture), options)
    found = _in_timm(config) if "global_pool" not in options else None
    if found is None:
        own = _config(model, PREFIX + card.architecture, options, config.first_convs)
        return Layout(opens_in="timm with hybridvit", config=own, tensors=tensors)
    names = dict.fromkeys(f"{each}.weight" for each in config.first_convs)
    first_convs = [name.removesuffix(".weight") for name in from_ours(dict.fromkeys(names), "timm")]
    return Layout(
        opens_in="timm",
        config=_config(model, *found, tuple(first_convs)),
        tensors=from_ours(tensors, "timm"),
    )


def _in_timm(config: FamilyConfig) -> tuple[str, dict[str, Any]] | None:
    """The model of timm that has this architecture, and with which arguments; None if there is none."""
    if not isinstance(config, FastViTConfig):
        return None
    free = {name: getattr(config, name) for name in (*_ARGUMENTS, "mlp_ratio")}
    fixed = [each.name for each in dataclasses.fields(config) if each.name not in (*free, *_OF_TRAINING)]
    known = {
        name: variant.config
        for name, variant in VARIANTS.items()
        if isinstance(variant.config, FastViTConfig) and variant.published.weights
    }
    alike = [name for name, each in known.items() if all(getattr(each, key) == getattr(config, key) for key in fixed)]
    if not alike:
        return None
    name = max(alike, key=lambda each: sum(getattr(known[each], key) == value for key, value in free.items()))
    own = known[name]
    arguments = {_ARGUMENTS[key]: free[key] for key in _ARGUMENTS if free[key] != getattr(own, key)}
    if (config.mlp_ratio, len(config.depths)) != (own.mlp_ratio, len(own.depths)):
        arguments["mlp_ratios"] = (config.mlp_ratio,) * len(config.depths)
    return name, arguments


def _config(
    model: Backbone, architecture: str, arguments: Mapping[str, Any], first_convs: tuple[str, ...]
) -> dict[str, Any]:
    """config.json; its lists are tuples here."""
    card = model.card
    cfg = timm_cfg(card.preprocessing, model.in_chans, model.num_classes, first_convs)
    if not fits_timm(card.preprocessing):
        cfg["crop_mode"] = "center"  # timm refuses words that it does not know
    names = {"label_names": card.class_names} if card.class_names else {}
    if model.in_chans != 3:  # timm finds it by itself, transformers does not
        arguments = {**arguments, "in_chans": model.in_chans}
    return {
        "architecture": architecture,
        "num_classes": model.num_classes,
        "num_features": model.num_features,
        **names,
        **({"model_args": dict(arguments)} if arguments else {}),
        "pretrained_cfg": {**cfg, **({"license": card.licence} if card.licence else {})},
    }


def fits_timm(preprocessing: Preprocessing) -> bool:
    """Whether timm's own transform prepares pictures this way."""
    return preprocessing.crop_mode in CROPS_OF_TIMM and preprocessing.levels is None
