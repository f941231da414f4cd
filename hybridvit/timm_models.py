"""The models in timm's registry, under the prefix `hybridvit_`; imported by itself once timm is."""

import dataclasses
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from hybridvit.build import build
from hybridvit.card import ModelCard, Preprocessing
from hybridvit.checkpoints.files import weights_in
from hybridvit.checkpoints.keymaps import naming_of, to_ours
from hybridvit.models.backbone import Backbone, timm_cfg
from hybridvit.models.registry import FAMILIES, VARIANTS, Variant

PREFIX = "hybridvit_"


def _default_cfgs(variant: Variant) -> dict[str, dict[str, Any]]:
    """timm's PretrainedCfg entries of one variant, a tag each; without published weights one without a tag."""
    preprocessing = variant.preprocessing
    shared = timm_cfg(preprocessing, 3, 1000, FAMILIES[variant.family].first_convs)
    shared["pool_size"] = tuple(-(-side // 32) for side in preprocessing.image_size)
    name = PREFIX + variant.name
    return {
        f"{name}.{tag}": {
            **shared,
            "hf_hub_id": weights.hub_id,
            "hf_hub_filename": weights.file or None,
            "license": weights.licence,
        }
        for tag, weights in variant.published.weights
    } or {name: shared}


def _our_names(loaded: dict[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """What timm read, a state dict or (from the hub) a whole training checkpoint, as a state dict in our names."""
    tensors = weights_in(loaded, Path("The checkpoint")).tensors
    return to_ours(tensors, naming_of(tensors))


def _card(model: Backbone, pretrained: bool) -> ModelCard:
    """The card of a model that timm has built: its cfg knows the preprocessing and the source of the weights."""
    cfg = model.pretrained_cfg
    preprocessing = Preprocessing(
        image_size=cfg["input_size"][1:],
        interpolation=cfg["interpolation"],
        crop_fraction=cfg["crop_pct"],
        crop_mode=cfg["crop_mode"],
        mean=tuple(cfg["mean"]),
        std=tuple(cfg["std"]),
    )
    card = dataclasses.replace(model.card, preprocessing=preprocessing.for_channels(model.in_chans))
    if not pretrained:
        return card
    source = cfg.get("file") or cfg.get("hf_hub_id") or cfg.get("url")
    return dataclasses.replace(card, source=str(source), licence=cfg.get("license") or "")


def _build(
    variant: str, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None, **options: Any
) -> Backbone:
    """A model on a device and in a dtype, which timm's `create_model` takes too."""
    with nullcontext() if device is None else torch.device(device):
        return build(variant, **options).to(dtype=dtype)


def _entry_point(variant: str) -> Callable[..., nn.Module]:
    def entry(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        model = build_model_with_cfg(
            lambda **options: _build(variant, **options),
            PREFIX + variant,
            pretrained,
            pretrained_filter_fn=_our_names,
            feature_cfg={"out_indices": (0, 1, 2, 3), "flatten_sequential": True},
            **kwargs,
        )
        if isinstance(model, Backbone):  # a pyramid is timm's own wrapper
            model.card = _card(model, pretrained)
        return model

    entry.__name__ = entry.__qualname__ = PREFIX + variant
    entry.__doc__ = f"hybridvit's {variant}; options as in hybridvit.create_model."
    return entry


default_cfgs = generate_default_cfgs(
    {name: cfg for variant in VARIANTS.values() for name, cfg in _default_cfgs(variant).items()}
)
for _name in VARIANTS:
    register_model(_entry_point(_name))
