"""Read the answers of models of every task: FOLDER with NAME.json (a card), NAME.npz (outputs) and picture.png.

Prints a JSON object for each, by name. Ends with 1 if torch, torchvision or timm was imported for it.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from hybridvit.card import ModelCard
from hybridvit.data.preprocess import frame_of
from hybridvit.task import find_task

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    picture = Image.open(folder / "picture.png").convert("RGB")
    for path in sorted(folder.glob("*.json")):
        card = ModelCard.from_dict(json.loads(path.read_text(encoding="utf-8")))
        outputs = dict(np.load(path.with_suffix(".npz")))
        task = find_task(card.task)
        task.shown(picture, card.preprocessing, "picture.png")
        (result,) = task.results(outputs, [frame_of(picture.size, card.preprocessing)], card)
        result.draw(picture)
        result.files()
        print(json.dumps(result.to_dict()))
    assert not {"torch", "torchvision", "timm"} & sys.modules.keys(), "torch, torchvision or timm was imported"
