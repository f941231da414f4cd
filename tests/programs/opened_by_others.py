"""Open a repository of the hub with timm and transformers alone: opened_by_others.py OWNER/NAME PICTURE MODE ANSWERS.

`import hybridvit` raises here. Written are the logits of each way for the picture, and for the pixels that transformers
prepares, as arrays by name; printed is what they say of the classes.
"""

import json
import sys
from typing import Any


def main(repository: str, picture: str, mode: str, answers: str) -> None:
    """Write the answers of all ways."""
    sys.modules["hybridvit"] = None  # type: ignore[assignment]  # Python's way to say that there is none
    import numpy as np
    import timm
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification

    image = Image.open(picture).convert(mode)
    in_timm: Any = timm.create_model(f"hf-hub:{repository}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(in_timm), is_training=False)
    pixels = transform(image).unsqueeze(0)
    processor = AutoImageProcessor.from_pretrained(repository)
    prepared = processor(image, return_tensors="pt")
    model = AutoModelForImageClassification.from_pretrained(repository).eval()
    tower = AutoModel.from_pretrained(repository).eval()
    with torch.no_grad():
        found = {
            "timm": in_timm(pixels),
            "transformers": model(**prepared).logits,
            "tower": tower(**prepared).pooler_output,
            "timm_tower": in_timm.forward_head(in_timm.forward_features(pixels), pre_logits=True),
            "pixels": prepared["pixel_values"],
            "timm_pixels": pixels,
        }
    np.savez(answers, **{name: value.numpy() for name, value in found.items()})
    names = in_timm.pretrained_cfg["label_names"]
    print(
        json.dumps({"timm": list(names), "transformers": [model.config.id2label[place] for place in range(len(names))]})
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
