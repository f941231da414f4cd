"""`hybridvit predict`: what is on these images?"""

import sys
from json import dumps
from pathlib import Path

from hybridvit.cli.progress import remark
from hybridvit.data.scan import find_images
from hybridvit.errors import ImageDecodeError
from hybridvit.loading import Device
from hybridvit.predictor import Predictor


def predict(
    checkpoint: str,
    images: list[str],
    *,
    top: int | None = None,
    json: bool = False,
    batch: int = 16,
    threads: int | None = None,
    device: Device = "auto",
    trust_changed: bool = False,
) -> int:
    """Name what is on images.

    Takes a checkpoint (.safetensors, .pth) or any file that `hybridvit export` wrote; class names and preprocessing are
    inside it. An image that cannot be decoded is reported and the others go on; the exit code is then 3.

    Examples:
      hybridvit predict runs/digits/model.safetensors runs/data/digits/test/7
      hybridvit predict model.onnx photo.jpg
      hybridvit predict model.onnx 'photos/**/*.png' --json > answers.jsonl

    Args:
        checkpoint: the model: .safetensors, .pth, .pth.tar, .ckpt, or an exported .onnx, .xml, .pte, .tflite ...
        images: image files, folders (searched to any depth) or patterns in quotes.
        top: answers per image, the most probable first; by default 5, or what the file gives if that is less, and of
            several labels those above 50 %.
        json: one JSON object per image and line, with "image" and "predictions", or "error".
        batch: images computed at once.
        threads: CPU threads; by default the runtime decides.
        device: where PyTorch computes; auto takes a GPU if there is one. Exported models run on the CPU.
        trust_changed: take an exported file that was changed on purpose (simplified, converted to fp16).
    """
    paths = find_images(images, say=remark)
    predictor = Predictor(checkpoint, device=device, threads=threads, trust_changed=trust_changed)
    failed = 0
    for path, answer in predictor.answers(paths, batch=batch, most=top):
        if isinstance(answer, ImageDecodeError):
            failed += 1
            _report_bad(path, str(answer), json)
        elif json:
            print(dumps({"image": str(path)} | answer.to_dict(), ensure_ascii=False))
        else:
            print("\n".join([str(path), *answer.lines()]))
    if failed:
        print(f"{failed} of {len(paths)} images could not be decoded.", file=sys.stderr)
    return ImageDecodeError.exit_code if failed else 0


def _report_bad(path: Path, message: str, json: bool) -> None:
    if json:
        print(dumps({"image": str(path), "error": message}, ensure_ascii=False))
    else:
        print(f"Error: {message}", file=sys.stderr)
