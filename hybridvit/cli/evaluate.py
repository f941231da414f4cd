"""`hybridvit evaluate`: how often is the model right?"""

from json import dumps
from typing import Literal

from hybridvit.cli.table import pairs
from hybridvit.errors import UsageError
from hybridvit.loading import Device, is_exported, open_runner


def evaluate(
    checkpoint: str,
    data: str,
    *,
    batch: int = 32,
    workers: int = 0,
    on_bad_image: Literal["error", "skip"] = "error",
    json: bool = False,
    device: Device = "auto",
) -> None:
    """Measure the accuracy of a checkpoint on a folder of labelled images.

    The folder holds one folder per class. Classes are matched by name with those that the checkpoint was trained on.

    Examples:
      hybridvit evaluate runs/digits/model.safetensors runs/data/digits/test
      hybridvit evaluate fastvit_t8.pth.tar imagenet/val --workers 4 --json

    Args:
        checkpoint: .safetensors, .pth or .pth.tar.
        data: folder of class folders with images.
        batch: images computed at once.
        workers: processes that decode images; 0 decodes in this one.
        on_bad_image: error: a file that cannot be decoded ends the run; skip: it counts neither way, and is reported.
        json: one line of JSON.
        device: where to compute; auto takes a GPU if there is one.
    """
    if is_exported(checkpoint):
        raise UsageError(
            f"{checkpoint} is an exported model, but `evaluate` takes the weights it came from, to which the export "
            "was compared. Use the .safetensors file."
        )
    from hybridvit.export.runners import TorchRunner
    from hybridvit.training.classify.evaluate import evaluate_folder

    runner = open_runner(checkpoint, device=device)
    assert isinstance(runner, TorchRunner)
    card = runner.card
    result = evaluate_folder(runner.model, data, batch_size=batch, workers=workers, on_bad_image=on_bad_image)
    right = round(result.top1 * result.num_images / 100)
    if json:
        print(
            dumps(
                {
                    "checkpoint": checkpoint,
                    "data": data,
                    "top1": round(result.top1, 4),
                    "top5": round(result.top5, 4),
                    "loss": round(result.loss, 6),
                    "num_images": result.num_images,
                    "num_skipped": result.num_skipped,
                    "seconds": round(result.seconds, 3),
                }
            )
        )
        return
    print(f"{card.architecture} ({card.form} form) on {data}")
    print(
        pairs(
            [
                ("Top-1", f"{result.top1:.2f} %, {right:,} of {result.num_images:,} right"),
                ("Top-5", f"{result.top5:.2f} %"),
                ("Loss", f"{result.loss:.4f}, cross-entropy"),
                ("Skipped", f"{result.num_skipped} images that could not be decoded"),
                ("Time", f"{result.seconds:.1f} s, {result.num_images / result.seconds:.0f} images/s with decoding"),
            ]
        )
    )
