"""NVIDIA's FasterViT as a reference: its golden logits, and its package as an oracle that is run and never read.

`fastervit` on PyPI has a non-commercial licence: a development dependency, imported by tests alone.
"""

import dataclasses
import importlib.util
import json
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

import hybridvit
from hybridvit.checkpoints.keymaps import to_ours
from hybridvit.models.fastervit.config import VARIANTS, FasterViTConfig

GOLDEN = Path(__file__).parent / "golden"
_spec = importlib.util.spec_from_file_location("fill", GOLDEN / "fill.py")
golden_inputs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(golden_inputs)
KEYS = json.loads((GOLDEN / "nvidia_keys.json").read_text())
OUTPUTS = np.load(GOLDEN / "nvidia.npz")
NARROW = {
    "widths": (32, 64, 128, 256),
    "stem_width": 16,
    "depths": (1, 1, 3, 2),
    "num_heads": (2, 2, 4, 8),
    "num_classes": 10,
}
MODELS = {  # name in the golden file -> ours
    "0": ("fastervit_0", {}),
    "1": ("fastervit_1", {}),
    "narrow3": ("fastervit_3", NARROW),
    "narrow21k": ("fastervit_4_21k_224", NARROW),
}


def filled(key: str, value: torch.Tensor) -> torch.Tensor:
    """What the golden file's fill puts into a tensor of NVIDIA's; what it leaves out stays as it is."""
    values = golden_inputs.fill(key, tuple(value.shape))
    return value if values is None else torch.from_numpy(np.asarray(values)).to(value)


def golden_model(name: str) -> nn.Module:
    """One of `MODELS` with the weights of the golden file, which make the carriers count."""
    variant, options = MODELS[name]
    model = hybridvit.create_model(variant, **options)
    state = {key: filled(key, torch.zeros(shape)) for key, shape in KEYS[name].items()}
    model.load_state_dict(to_ours(state, "nvidia"), strict=True)
    return model.eval()


def golden_image(key: str) -> torch.Tensor:
    side = int(key.split("/")[1])
    return torch.from_numpy(golden_inputs.image(side, side, len(OUTPUTS[key])))


def with_oracle(variant: str, size: int, **options: object) -> tuple[nn.Module, nn.Module]:
    """Our model, and NVIDIA's own for square images of `size` with the same weights, filled as in the golden file.

    In eval mode, without stochastic depth.
    """
    model = hybridvit.create_model(variant, image_size=size, **options).eval()
    of_config = {key: value for key, value in options.items() if key in FasterViTConfig.__dataclass_fields__}
    config = dataclasses.replace(VARIANTS[variant], **of_config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports and calls are deprecated
        from fastervit.models.faster_vit_any_res import FasterViT

        theirs = FasterViT(
            dim=config.widths[0],
            in_dim=config.stem_width,
            depths=list(config.depths),
            window_size=list(config.windows),
            ct_size=config.carrier_size,
            mlp_ratio=config.mlp_ratio,
            num_heads=list(config.num_heads),
            resolution=[size, size],
            drop_path_rate=0.0,
            num_classes=model.num_classes,
            layer_scale=config.layer_scale_init,
            layer_scale_conv=config.conv_layer_scale_init,
            do_propagation=config.propagate,
            hat=[mixer == "hat" for mixer in config.mixers],
        ).eval()
    state = {key: filled(key, value) for key, value in theirs.state_dict().items()}
    theirs.load_state_dict(state)
    model.load_state_dict(to_ours(state, "nvidia"), strict=True)
    return model, theirs
