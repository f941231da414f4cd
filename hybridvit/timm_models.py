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
from hybridvit.models.backbone import Backbone, pyramid_info, timm_cfg
from hybridvit.models.registry import VARIANTS, Variant

PREFIX = "hybridvit_"


def _default_cfgs(variant: Variant) -> dict[str, dict[str, Any]]:
    """timm's PretrainedCfg entries of one variant, a tag each; without published weights one without a tag."""
    outputs, first_convs = variant.num_outputs, variant.config.first_convs
    stride = pyramid_info(variant.config.depths)[-1]["reduction"]
    name = PREFIX + variant.name

    def cfg_of(preprocessing: Preprocessing) -> dict[str, Any]:
        pool_size = tuple(-(-side // stride) for side in preprocessing.image_size)
        return timm_cfg(preprocessing, 3, outputs, first_convs) | {"pool_size": pool_size}

    return {
        f"{name}.{tag}": {
            **cfg_of(variant.prepared_for(weights)),
            "hf_hub_id": weights.hub_id,
            "hf_hub_filename": weights.file or None,
            "license": weights.licence,
        }
        for tag, weights in variant.published.weights
    } or {name: cfg_of(variant.preprocessing)}


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
    num_stages = len(VARIANTS[variant].config.depths)

    def entry(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        model = build_model_with_cfg(
            lambda **options: _build(variant, **options),
            PREFIX + variant,
            pretrained,
            pretrained_filter_fn=_our_names,
            feature_cfg={"out_indices": tuple(range(num_stages)), "flatten_sequential": True},
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
