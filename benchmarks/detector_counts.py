"""Parameters and multiply-adds of detectors at 1280 x 800 px, beside the figures that are published or commonly known.

    python benchmarks/detector_counts.py                # on the meta device: no weights, no arithmetic

With 1000 proposals for each stage and 100 masks for each mask head. Convolutions and matrix products count.
"""

import json
from typing import NamedTuple

import torch

import hybridvit
from hybridvit.measure.counts import count
from hybridvit.models.with_head import WithHead

SIZE = (800, 1280)  # height, width


class Row(NamedTuple):
    """One detector, and what others say of it."""

    backbone: str
    head: str
    known: str = ""
    num_classes: int = 80


ROWS = (
    Row("resnet50", "mask_rcnn", "44.2 M, 260 G"),
    *(Row(f"fastvit_{name}", "mask_rcnn") for name in ("sa12", "sa24", "sa36", "ma36")),
    Row("swin_tiny_patch4_window7_224", "cascade_mask_rcnn", "86 M, 745 G"),
    Row("convnext_tiny", "cascade_mask_rcnn", "86 M, 741 G"),
    *(Row(f"fastervit_{number}", "cascade_mask_rcnn") for number in (2, 3, 4)),
    Row("resnet50", "dino", "46.89 M, 279 G", 91),
    *(Row(f"fastervit_{name}", "dino", "", 91) for name in ("0", "2", "4", "4_21k_224")),
    *(Row(f"fastervit_4_21k_{px}", "dino", "1364 G at a size that is not named", 91) for px in (384, 512)),
)


def main() -> None:
    print("| backbone | head | parameters | multiply-adds | known |\n|---|---|---|---|---|")
    records = []
    for row in ROWS:
        with torch.device("meta"):
            model = hybridvit.create_model(row.backbone, task="detect", head=row.head, num_classes=row.num_classes)
        assert isinstance(model, WithHead)
        counts = count(model, SIZE)
        millions, billions = counts.parameters / 1e6, counts.multiply_adds / 1e9
        print(f"| {row.backbone} | {row.head} | {millions:.2f} M | {billions:.1f} G | {row.known} |", flush=True)
        records.append({**row._asdict(), "parameters": counts.parameters, "multiply_adds": counts.multiply_adds})
    print(json.dumps({"benchmark": "detector_counts", "size": SIZE, "rows": records}))


if __name__ == "__main__":
    main()
