"""Small data sets in FreiHAND's layout, of generated hands on plain pictures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hybridvit.tasks.hand.freihand.lists import posed
from hybridvit.tasks.hand.mano.generated_hand import generated_hand

SIDE = 64
FOCAL = 137.0


def write_freihand(root: Path, *, hands: int = 4, split: str = "training", versions: int = 4) -> dict[str, Any]:
    """Write the split and give its lists as they are in the files."""
    dice = np.random.default_rng(hands)
    camera = [[FOCAL, 0.0, SIDE / 2], [0.0, 1.01 * FOCAL, SIDE / 2], [0.0, 0.0, 1.0]]
    pose = np.concatenate([dice.normal((1.2, 1.2, -1.2), 0.3, (hands, 3)), dice.normal(0, 0.2, (hands, 45))], 1)
    place = np.concatenate([dice.normal(SIDE / 2, 3, (hands, 2)), FOCAL / dice.uniform(0.6, 0.8, (hands, 1))], 1)
    mano = np.concatenate([pose, dice.normal(0, 1, (hands, 10)), place], 1)[:, None]
    vertices, keypoints = posed(generated_hand(), mano, np.array([camera] * hands))
    lists = {
        "K": [camera] * hands,
        "xyz": keypoints.tolist(),
        "verts": vertices.tolist(),
        "mano": mano.tolist(),
        "scale": np.linalg.norm(keypoints[:, 9] - keypoints[:, 10], axis=1).tolist(),
    }
    for name, values in lists.items():
        write_list(root, name, values, split)
    folder = root / split / "rgb"
    folder.mkdir(parents=True)
    for number in range(hands * versions):
        levels = np.random.default_rng([hands, number]).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(levels).save(folder / f"{number:08d}.jpg", quality=95)
    return lists


def write_list(root: Path, name: str, values: Any, split: str = "training") -> None:
    """Write one list, in the digits that Python gives."""
    root.mkdir(parents=True, exist_ok=True)
    (root / f"{split}_{name}.json").write_text(json.dumps(values), encoding="utf-8")
