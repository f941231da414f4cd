"""The original DINO as a reference: outputs and gradients for weights made from their names (golden/dino.npz)."""

import json
import re
from pathlib import Path

import numpy as np
import torch
from nvidia import golden_inputs

from hybridvit.tasks.detect.dino.boxes import Objects
from hybridvit.tasks.detect.dino.config import DINOConfig
from hybridvit.tasks.detect.dino.denoising import Draws
from hybridvit.tasks.detect.dino.head import DINOHead
from hybridvit.tasks.detect.dino.names import from_released

GOLDEN = Path(__file__).parent / "golden"
KEYS = json.loads((GOLDEN / "dino_keys.json").read_text(encoding="utf-8"))
ARRAYS = np.load(GOLDEN / "dino.npz")
SHARED = re.compile(r"(transformer\.decoder\.)?(bbox|class)_embed\.\d+\.")
SIZES = KEYS["config"]["sizes"]  # height, width in pixels of the two images
SMALL = DINOConfig(
    channels=(8, 16, 32),
    num_classes=5,
    num_queries=20,
    dim=32,
    num_heads=2,
    encoder_depth=1,
    decoder_depth=3,
    ffn_width=64,
)


def golden(name: str) -> torch.Tensor:
    """One array of the file."""
    return torch.from_numpy(ARRAYS[name])


def filled(name: str, shape: list[int]) -> torch.Tensor:
    """What the reference had in a tensor of this name."""
    name = SHARED.sub(r"\2_embed.0.", name)
    value = golden_inputs.fill(name, tuple(shape))
    for rule in KEYS["fill_rules"]:
        if name.endswith(rule["endswith"]):
            value = value * np.float32(rule["multiply"]) + np.float32(rule["add"])
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def golden_head() -> DINOHead:
    """The head whose outputs the file has, in training mode."""
    sizes = KEYS["config"]
    config = DINOConfig(
        channels=tuple(sizes["channels"]),
        num_classes=sizes["classes"],
        num_queries=sizes["queries"],
        encoder_depth=sizes["enc"],
        decoder_depth=sizes["dec"],
        ffn_width=sizes["ffn"],
    )
    head = DINOHead(config)
    released = from_released({name: filled(name, shape) for name, shape in KEYS["state_dict"].items()})
    assert released.shared_heads
    head.load_state_dict(released.head, strict=True)
    return head


def golden_maps() -> list[torch.Tensor]:
    return [golden(f"input/map{stride}") for stride in (8, 16, 32)]


def golden_objects(case: str) -> list[Objects]:
    return [Objects(golden(f"{case}/labels{image}"), golden(f"{case}/boxes{image}")) for image in (0, 1)]


def golden_draws(case: str) -> Draws:
    return Draws(*(golden(f"{case}/draw_{name}") for name in ("label_choice", "label", "sign", "part")))
