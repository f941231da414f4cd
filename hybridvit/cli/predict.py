"""`hybridvit predict`: what is on these images?"""

import sys
from collections.abc import Iterator, Sequence
from json import dumps
from pathlib import Path

import numpy as np

from hybridvit.data.imagenet import in_words
from hybridvit.data.preprocess import prepare
from hybridvit.data.scan import find_images
from hybridvit.errors import ImageDecodeError, UsageError
from hybridvit.export.runners import ExportedRunner
from hybridvit.loading import Device, open_runner

TOP = 5


def predict(
    checkpoint: str,
    images: list[str],
    *,
    top: int | None = None,
    json: bool = False,
    batch: int = 16,
    threads: int | None = None,
    device: Device = "auto",
) -> int:
    """Name what is on images.

    Takes a checkpoint (.safetensors, .pth) or any file that `hybridvit export` wrote; class names and preprocessing are
    inside it. An image that cannot be decoded is reported and the others go on; the exit code is then 3.

    Examples:
      hybridvit predict runs/digits/model.safetensors runs/data/digits/test/7
      hybridvit predict model.onnx photo.jpg
      hybridvit predict model.onnx 'photos/**/*.png' --json > answers.jsonl

    Args:
        checkpoint: the model: .safetensors, .pth, .pth.tar, or an exported .onnx, .xml, .pte, .tflite ...
        images: image files, folders (searched to any depth) or patterns in quotes.
        top: answers per image, the most probable first; by default 5, or what the file gives if that is less.
        json: one JSON object per image and line, with "image" and "predictions", or "error".
        batch: images computed at once.
        threads: CPU threads; by default the runtime decides.
        device: where PyTorch computes; auto takes a GPU if there is one. Exported models run on the CPU.
    """
    for option, count in (("top", top), ("batch", batch)):
        if count is not None and count < 1:
            raise UsageError(f"--{option} is {count}, but it must be at least 1. Leave it out for the default.")
    paths = find_images(images)
    runner = open_runner(checkpoint, device=device, threads=threads)
    names = in_words(runner.card.class_names)
    top = top or min(TOP, (runner.spec.top_k if isinstance(runner, ExportedRunner) else None) or TOP)
    failed = 0
    for group in _groups(paths, batch):
        loaded: dict[Path, np.ndarray | str] = {}
        for path in group:
            try:
                loaded[path] = prepare(path, runner.card.preprocessing)
            except ImageDecodeError as error:
                loaded[path] = str(error)
        arrays = [value for value in loaded.values() if isinstance(value, np.ndarray)]
        answers = iter(zip(*runner.most_probable(np.stack(arrays), top), strict=True) if arrays else ())
        for path, value in loaded.items():
            if isinstance(value, str):
                failed += 1
                _report_bad(path, value, json)
            else:
                _report(path, *next(answers), names, json)
    if failed:
        print(f"{failed} of {len(paths)} images could not be decoded.", file=sys.stderr)
    return ImageDecodeError.exit_code if failed else 0


def _groups(paths: list[Path], size: int) -> Iterator[list[Path]]:
    for start in range(0, len(paths), size):
        yield paths[start : start + size]


def _report(path: Path, probabilities: np.ndarray, indices: np.ndarray, names: Sequence[str], json: bool) -> None:
    predictions = [
        {
            "class": names[index] if names else f"class {index}",
            "index": int(index),
            "probability": round(float(probability), 6),
        }
        for probability, index in zip(probabilities, indices, strict=True)
    ]
    if json:
        print(dumps({"image": str(path), "predictions": predictions}, ensure_ascii=False))
        return
    print(path)
    for each in predictions:
        print(f"  {100 * each['probability']:6.2f} %  {each['class']}")


def _report_bad(path: Path, message: str, json: bool) -> None:
    if json:
        print(dumps({"image": str(path), "error": message}, ensure_ascii=False))
    else:
        print(f"Error: {message}", file=sys.stderr)
