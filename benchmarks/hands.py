"""A picture file in, the vertices of a hand out: ours against the plain way, on one CPU, with and without the runtimes.

    python benchmarks/hands.py                                           # fastvit_t8 and fastvit_sa12, 224 px, batch 1
    python benchmarks/hands.py --names fastvit_t8 --rounds 10 --threads 1

The plain way is what a PyTorch user writes: Pillow, torchvision's transforms, timm's backbone folded by timm, three
linear layers, and the same hand layer. Ours is a `Predictor` on the checkpoint, which folds it, and on the files that
`hybridvit export` writes; its answers are results with keypoints in the picture, which the plain way has not. The hand
is the generated one, whose arrays are as large as MANO's. The rows take turns in one process; the stages (decode and
crop, network, hand layer) are timed beside them.
"""

import argparse
import io
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import timm
import torch
from comparison import compare, report
from deployment import apart
from PIL import Image
from timm.utils import reparameterize_model
from torch import Tensor, nn
from torchvision import transforms

import hybridvit
from hybridvit.checkpoints import save_checkpoint
from hybridvit.export.pipeline import export
from hybridvit.predictor import Predictor
from hybridvit.tasks.hand.mano.generated_hand import generated_hand
from hybridvit.tasks.hand.mano.layer import HandLayer
from hybridvit.tasks.hand.mano.rotation import from_6d

PLAIN = "plain: timm folded, torchvision"
SIDE = 224  # px, as FreiHAND's pictures
RUNTIMES = {"ONNX Runtime": ("onnx", "hand.onnx"), "OpenVINO": ("openvino", "hand.xml")}


class PlainHand(nn.Module):
    """The same network by hand."""

    def __init__(self, name: str) -> None:
        super().__init__()
        backbone = timm.create_model(name, num_classes=0).eval()
        self.backbone = reparameterize_model(backbone)
        width = cast(int, backbone.head_hidden_size)
        self.camera, self.pose, self.shape = (nn.Linear(width, size) for size in (3, 96, 10))
        self.layer = HandLayer(generated_hand())

    def forward(self, images: Tensor) -> Tensor:
        vector = self.backbone(images)
        return self.layer(from_6d(self.pose(vector).unflatten(-1, (16, 6))), self.shape(vector)).vertices


def photo() -> bytes:
    """A JPEG of the size of FreiHAND's."""
    pixels = np.random.default_rng(0).integers(0, 256, (14, 14, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def written(name: str, folder: Path) -> list[Path]:
    """The checkpoint and the exported files of one model."""
    torch.manual_seed(0)
    model = hybridvit.create_model(name, task="hand", head_options={"assets": "generated"}, image_size=SIDE).eval()
    paths = [folder / "hand.safetensors"]
    save_checkpoint(model, paths[0])
    for target, file in RUNTIMES.values():
        paths.append(Path(export(model, folder / file, to=target).path))
    return paths


@torch.inference_mode()
def compared(name: str, paths: Sequence[Path], arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Whole paths in turns, and then their stages."""
    torch.set_num_threads(arguments.threads)
    encoded = photo()
    plain = PlainHand(name).eval()
    prepare = transforms.Compose(
        [
            transforms.Resize(SIDE, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(SIDE),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )

    def plain_way() -> object:
        return plain(prepare(Image.open(io.BytesIO(encoded)).convert("RGB"))[None]).numpy()

    ways: dict[str, Callable[[], object]] = {PLAIN: plain_way}
    for way, path in zip(("PyTorch", *RUNTIMES), paths, strict=True):
        ways[f"ours, {way}"] = partial(Predictor(path, device="cpu", threads=arguments.threads), [encoded])
    title = f"{name}, {SIDE} px, batch 1, {arguments.threads} threads, picture to vertices"
    whole = compare(title, ways, rounds=arguments.rounds)
    images = torch.randn(1, 3, SIDE, SIDE)
    predictor, rotations, shape = Predictor(paths[1]), torch.eye(3).expand(1, 16, 3, 3), torch.zeros(1, 10)
    stages: dict[str, Callable[[], object]] = {
        "plain: decode and crop": lambda: prepare(Image.open(io.BytesIO(encoded)).convert("RGB")),
        "ours: decode and crop": lambda: predictor.prepare(encoded),
        "plain: backbone": lambda: plain.backbone(images),
        "hand layer": lambda: plain.layer(rotations, shape),
    }
    return [whole, compare(f"{name}: stages", stages, rounds=arguments.rounds)]


def measured(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Both comparisons of each model."""
    results = []
    for name in arguments.names:
        with tempfile.TemporaryDirectory() as folder:
            paths = apart(written, name, Path(folder))
            results += apart(compared, name, paths, arguments)
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+", default=["fastvit_t8", "fastvit_sa12"])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, help="write the JSON here too")
    given = parser.parse_args()
    report("hands", cast(object, measured(given)), output=given.output)
