"""Does DINO learn? It is shown 8 scenes again and again, until it finds what is on them: AP50 of at least 0.9.

    python benchmarks/dino_overfit.py                # one thread; stops when AP50 is reached, or after --steps

The backbone has its debug size and the head a small one, both without pretrained weights. Needs the extra `detection`.
"""

import argparse
import json
import time
from typing import Any

import numpy as np
import torch

import hybridvit
from hybridvit.batch import Batch, Frame
from hybridvit.card import ModelCard
from hybridvit.data.scenes import CLASSES, SIDE_PX, Scene, scene
from hybridvit.models.with_head import WithHead
from hybridvit.task import Moment, find_task
from hybridvit.tasks.detect.data import Truth
from hybridvit.tasks.detect.objective import DetectObjective

HEAD = {
    "dim": 64,
    "num_heads": 4,
    "num_queries": 60,
    "encoder_depth": 2,
    "decoder_depth": 3,
    "ffn_width": 128,
    "denoising_queries": 20,
    "detections": 50,
}
NUM_SCENES, WANTED = 8, 0.9


def target_of(drawn: Scene) -> dict[str, Any]:
    """The shapes of a scene, as the task's targets have them."""
    corners = []
    for instance in drawn.instances:
        y, x = np.nonzero(instance.mask)
        corners.append([x.min(), y.min(), x.max() + 1, y.max() + 1])
    boxes = np.array(corners, np.float64).reshape(-1, 4)
    labels = np.array([instance.category for instance in drawn.instances], np.int64)
    truth = Truth(
        size=(SIDE_PX, SIDE_PX),
        boxes=boxes,
        labels=labels,
        crowd=np.zeros(len(labels), bool),
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(1),
    )
    return {
        "boxes": torch.from_numpy(boxes).float(),
        "labels": torch.from_numpy(labels),
        "ignored": torch.zeros(0, 4),
        "size": torch.tensor([SIDE_PX, SIDE_PX]),
        "truth": truth,
    }


def ap50(found: dict[str, torch.Tensor], batch: Batch, card: ModelCard) -> float:
    """COCO's, over all scenes."""
    metric = find_task("detect").metric(card)
    metric.update(found, batch)
    return metric.compute().values["box_ap50"] / 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500, help="optimizer steps at most, each with all scenes")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    scenes = [scene(number) for number in range(NUM_SCENES)]
    images = torch.stack([torch.from_numpy(drawn.pixels).permute(2, 0, 1) for drawn in scenes]).float() / 64 - 2
    batch = Batch(
        images,
        [target_of(drawn) for drawn in scenes],
        torch.arange(NUM_SCENES),
        (Frame.whole(SIDE_PX, SIDE_PX),) * NUM_SCENES,
    )
    model = hybridvit.create_model(
        "fastvit_debug", task="detect", head="dino", head_options=HEAD, num_classes=len(CLASSES)
    ).train()
    assert isinstance(model, WithHead)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=1e-4)
    objective, began = DetectObjective(), time.process_time()
    for step in range(1, options.steps + 1):
        moment = Moment(step=step, total_steps=options.steps, averaged=None)
        loss = objective.loss(model, batch, moment)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 and step != options.steps:
            continue
        with torch.no_grad():
            value = ap50(model.eval()(images), batch, model.card)
        model.train()
        seconds = time.process_time() - began
        print(f"step {step}: loss {loss.item():.3f}, AP50 {value:.3f}, {seconds:.0f} s of CPU", flush=True)
        if value >= WANTED:
            break
    record = {"benchmark": "dino_overfit", "seed": options.seed, "steps": step, "ap50": round(value, 3)}
    print(json.dumps({**record, "cpu_s": round(seconds, 1), "parameters": sum(p.numel() for p in model.parameters())}))


if __name__ == "__main__":
    main()
